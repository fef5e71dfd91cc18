//! The load generator: a fixed number of requests over a fixed number of kept-alive connections,
//! every reply compared with what the upstream is known to send.

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, task::LocalSet};

/// One measured burst.
#[derive(Clone)]
pub(crate) struct Load {
    /// Whom to call.
    pub(crate) address: SocketAddr,
    /// Kept-alive connections, each with one request at a time.
    pub(crate) connections: usize,
    /// Requests in total.
    pub(crate) requests: usize,
    /// The request's body.
    pub(crate) body: Bytes,
    /// The reply's body, byte for byte.
    pub(crate) expected: Bytes,
}

/// What a burst took.
pub(crate) struct Took {
    /// From the first request to the last byte of the last reply.
    pub(crate) elapsed: Duration,
    /// Of each request, until its last byte, sorted.
    pub(crate) latencies: Vec<Duration>,
}

impl Took {
    /// The latency at `quantile` (0 to 1).
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        // The rank is far below 2^52, so the conversions are exact enough.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let rank = (last as f64 * quantile).round() as usize;
        self.latencies.get(rank).copied().unwrap_or_default()
    }
}

/// The key that the gateway's config in [`super::gateway`] asks for; the others ignore it.
pub(crate) const CALLER_KEY: &str = "sk-outlast-bench-caller-key-000000000001";

/// Runs the load on this thread.
///
/// # Errors
/// Any reply with another status or another body than expected, and any connection that broke.
pub(crate) fn run(load: &Load) -> Result<Took, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    LocalSet::new().block_on(&runtime, burst(load))
}

async fn burst(load: &Load) -> Result<Took, String> {
    let mut senders = Vec::new();
    for _ in 0..load.connections {
        senders.push(connect(load.address).await?);
    }
    let left = Rc::new(Cell::new(load.requests));
    let start = Instant::now();
    let clients: Vec<_> = senders
        .into_iter()
        .map(|sender| tokio::task::spawn_local(client(sender, load.clone(), left.clone())))
        .collect();
    let mut latencies = Vec::with_capacity(load.requests);
    for client in clients {
        latencies.extend(client.await.map_err(|error| error.to_string())??);
    }
    let elapsed = start.elapsed();
    latencies.sort_unstable();
    Ok(Took { elapsed, latencies })
}

async fn connect(address: SocketAddr) -> Result<http1::SendRequest<Full<Bytes>>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{address}: {error}");
    let stream = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
    stream.set_nodelay(true).map_err(|error| failed(&error))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

async fn client(
    mut sender: http1::SendRequest<Full<Bytes>>,
    load: Load,
    left: Rc<Cell<usize>>,
) -> Result<Vec<Duration>, String> {
    let host = load.address.to_string();
    let mut latencies = Vec::new();
    while left.get() > 0 {
        left.set(left.get() - 1);
        let request = Request::post("/v1/chat/completions")
            .header(header::HOST, &host)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "outlast-bench")
            .header(header::AUTHORIZATION, format!("Bearer {CALLER_KEY}"))
            .body(Full::new(load.body.clone()))
            .map_err(|error| error.to_string())?;
        let start = Instant::now();
        sender.ready().await.map_err(|error| format!("{host}: {error}"))?;
        let reply = sender.send_request(request).await.map_err(|error| format!("{host}: {error}"))?;
        let status = reply.status();
        let body = read(reply.into_body()).await.map_err(|error| format!("{host}: {error}"))?;
        latencies.push(start.elapsed());
        if status != 200 || body != load.expected {
            return Err(wrong_reply(&host, status.as_u16(), &body, &load.expected));
        }
    }
    Ok(latencies)
}

/// The whole body, without a copy when it came in one piece.
async fn read(mut body: Incoming) -> Result<Bytes, hyper::Error> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::from(&first[..]);
    whole.unsplit(rest);
    Ok(whole.freeze())
}

fn wrong_reply(host: &str, status: u16, body: &[u8], expected: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&body[..body.len().min(400)]);
    format!(
        "{host}: wrong reply, status {status}, {} bytes where {} were expected: {shown}",
        body.len(),
        expected.len()
    )
}
