//! What the server's tests share: a raw client, a recording upstream, a gateway in this process and one in its own.
//!
//! Nothing here sleeps to wait for something: it polls a condition, and a guard makes a test that would hang fail.

#![allow(dead_code, unused_imports)] // Each test binary uses a part.

pub(crate) mod ask;
pub(crate) mod conn;
pub(crate) mod desk;
pub(crate) mod downstream;
pub(crate) mod faulty_store;
pub(crate) mod model;
pub(crate) mod people;
pub(crate) mod process;
pub(crate) mod rig;
pub(crate) mod runs;
pub(crate) mod upstream;

pub(crate) use ask::{Ask, Event, Reply};
pub(crate) use conn::Conn;
pub(crate) use downstream::{DONE, Does, Downstream};
pub(crate) use model::{Act, model, says};
pub(crate) use process::Server;
pub(crate) use rig::{Rig, plan, two_fakes};
pub(crate) use upstream::{Step, Upstream};

use std::{future::Future, time::Duration};

/// Far longer than anything a test waits for on a busy machine.
pub(crate) const GUARD: Duration = Duration::from_secs(20);

/// Polls until the condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let polling = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    guarded(what, polling).await;
}

/// Polls until there is a value.
pub(crate) async fn until_some<T>(what: &str, mut get: impl AsyncFnMut() -> Option<T>) -> T {
    let polling = async {
        loop {
            if let Some(value) = get().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    guarded(what, polling).await
}

/// Fails the test if the future is not done in time.
pub(crate) async fn guarded<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(GUARD, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {GUARD:?} in vain: {what}"),
    }
}

/// A byte of it is changed, dropped or doubled, or it ends early. `marks` are bytes that mean something
/// where it is read.
pub(crate) fn mutilated(text: &[u8], random: &mut fastrand::Rng, marks: &[u8]) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(0..bytes.len());
        match random.u8(0..5) {
            0 => bytes[at] = random.u8(..),
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, bytes[at]),
            3 => bytes[at] = *random.choice(marks).unwrap(),
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}
