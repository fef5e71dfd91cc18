//! Two exchanges at once: a slow first output is raced by another target.

mod common;

use common::{Act, Ask, Rig, Upstream, model, rig, says};
use outlast_model::record::{AttemptReason, Decision, Outcome};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Calls that teach the fleet how fast a target usually is.
const TAUGHT: usize = 40;

/// A primary that hangs from now on, a second target, and a gateway that knows how fast the primary usually is.
async fn taught(ask: impl Fn() -> Ask, both_hang: bool) -> (Upstream, Upstream, Rig) {
    let slow = Arc::new(AtomicBool::new(false));
    let a = model({
        let slow = slow.clone();
        move |_| if slow.load(Ordering::SeqCst) { Act::Hangs } else { says("from a") }
    })
    .await;
    let b = model(move |_| if both_hang { Act::Hangs } else { says("from b") }).await;
    let config = rig::two(&a.url(), &b.url()).replace("[routes.main]", "[routes.main]\ntier = \"raced\"")
        + "[tiers.raced]\nattempts = 3\nhedge = { budget = 0.5 }\n";
    let rig = Rig::start(&config).await;
    for _ in 0..TAUGHT {
        rig.ask(ask()).await.assert_answered();
    }
    slow.store(true, Ordering::SeqCst);
    (a, b, rig)
}

#[tokio::test]
async fn the_second_target_answers_and_the_first_is_left_at_once() {
    for ask in [|| Ask::chat("main", "hi").streamed(), || Ask::message("main", "hi")] {
        let (a, b, rig) = taught(ask, false).await;
        let reply = rig.ask(ask()).await;
        reply.assert_answered();
        assert_eq!((reply.said().as_str(), reply.header("x-outlast-target")), ("from b", Some("b/m")));
        common::until("the loser to be left", || a.left() == 1).await;
        assert_eq!(b.seen().len(), 1);
        let record = rig.record(reply.request_id()).await;
        let [outrun, hedge] = record.attempts.as_slice() else { panic!("{record:?}") };
        assert_eq!((outrun.decision, &outrun.failure), (Decision::Outrun, &None));
        assert_eq!((hedge.reason, hedge.decision), (AttemptReason::Hedge, Decision::Deliver));
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_a_race_leaves_both() {
    let ask = || Ask::chat("main", "hi");
    let (a, b, rig) = taught(ask, true).await;
    let mut conn = common::Conn::open(rig.address()).await;
    conn.write(&ask().bytes()).await.unwrap();
    common::until("the race", || a.seen().len() == TAUGHT + 1 && b.seen().len() == 1).await;
    drop(conn);
    common::until("both to be left", || a.left() == 1 && b.left() == 1).await;
    let record = rig.latest_of(TAUGHT + 1).await;
    assert_eq!((record.outcome, record.attempts.len()), (Outcome::Cancelled, 2));
}
