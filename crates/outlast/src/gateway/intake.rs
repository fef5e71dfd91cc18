//! Reading a request's body: bounded in size, in time and in sum.

use super::Shared;
use crate::{clock, config::Server};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The most bytes of request bodies held at one time, all calls together. A body is held until its call is settled,
/// because a failover has to send it again. Past it new bodies are refused with a retry hint.
pub(super) const HELD_MAX: u64 = 512 << 20;
/// The longest a body may take as a whole, however steadily it drips.
const BODY_TOTAL_MAX: Duration = Duration::from_secs(120);

/// What is read and thrown away of a refused body, so that the client reads its error instead of a reset: most clients
/// look for an answer only after they have sent everything.
const DISCARDED_MAX: u64 = 64 << 20;
/// How long that may take.
const DISCARD_PATIENCE: Duration = Duration::from_secs(5);

/// Why a body was not read.
#[derive(Debug)]
pub(super) enum Unread {
    TooLarge { limit: u64 },
    TooSlow,
    Broken,
    NoRoom,
}

/// A share of [`HELD_MAX`], given back when dropped.
#[derive(Debug)]
pub(super) struct Held {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Held {
    fn more(&mut self, bytes: u64) -> Result<(), Unread> {
        let before = self.shared.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before + bytes > HELD_MAX { Err(Unread::NoRoom) } else { Ok(()) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes held now; part of [`Shared`].
pub(super) type HeldBytes = AtomicU64;

/// Reads a body. One that came in one piece is never copied.
pub(super) async fn read(
    shared: &Arc<Shared>,
    server: &Server,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<(Bytes, Held), Unread> {
    let limit = server.max_body_bytes;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit) {
        discard(headers, body).await;
        return Err(Unread::TooLarge { limit });
    }
    let mut held = Held { shared: shared.clone(), bytes: 0 };
    let mut body = body;
    let collecting = collect(&mut body, announced, server, &mut held);
    match clock::timeout(BODY_TOTAL_MAX, collecting).await.unwrap_or(Err(Unread::TooSlow)) {
        Ok(bytes) => Ok((bytes, held)),
        Err(unread) => {
            drop(held);
            match unread {
                Unread::TooLarge { .. } | Unread::NoRoom => discard(headers, body).await,
                Unread::TooSlow | Unread::Broken => {}
            }
            Err(unread)
        }
    }
}

/// Reads a body that nobody wants, within bounds. A client that asked before sending is spared it: reading would tell
/// it to go on.
pub(super) async fn discard(headers: &HeaderMap, mut body: Incoming) {
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let reading = async {
        let mut read = 0;
        while let Ok(Some(frame)) = next(&mut body, DISCARD_PATIENCE).await {
            read += frame.len() as u64;
            if read > DISCARDED_MAX {
                return;
            }
        }
    };
    // Past the bounds the connection is closed on a client that is still sending.
    let _ = clock::timeout(DISCARD_PATIENCE, reading).await;
}

async fn collect(
    body: &mut Incoming,
    announced: Option<u64>,
    server: &Server,
    held: &mut Held,
) -> Result<Bytes, Unread> {
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = next(body, server.body_timeout).await? {
        held.more(frame.len() as u64)?;
        if held.bytes > server.max_body_bytes {
            return Err(Unread::TooLarge { limit: server.max_body_bytes });
        }
        if first.is_empty() && whole.is_empty() {
            first = frame;
            continue;
        }
        if whole.is_empty() {
            // Only what has come is trusted to come: an announced length alone reserves at most a megabyte.
            let expected = usize::try_from(announced.unwrap_or(0)).unwrap_or(0).min(1 << 20);
            whole.reserve(expected.max(first.len() + frame.len()));
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&frame);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

async fn next(body: &mut Incoming, patience: Duration) -> Result<Option<Bytes>, Unread> {
    loop {
        let frame = clock::timeout(patience, body.frame()).await.map_err(|_| Unread::TooSlow)?;
        match frame {
            None => return Ok(None),
            Some(Err(_)) => return Err(Unread::Broken),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}
