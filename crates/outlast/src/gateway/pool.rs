//! Connections to providers, kept between requests: a stack per endpoint and worker thread, the warmest on top.
//!
//! Our own, because a request then costs one look at a stack: no lock, no task and no channel beside those of the
//! connection itself. Each thread has its own stacks, so that a reply is read on the thread that asked.

use super::{body::Pieces, upstream::DialError};
use crate::clock::{self, Instant};
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    rt::{Read, Write},
};
use hyper_rustls::{ConfigBuilderExt, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};
use tower_service::Service;

/// Idle connections kept per endpoint and worker thread; further ones are closed after use.
const IDLE_MAX: usize = 256;
/// How long an idle connection is kept: below the 60 s at which common load balancers cut it.
const IDLE_TTL: Duration = Duration::from_secs(50);
/// How often idle connections past their time are closed; longer than that they live only this much.
const REAP_EVERY: Duration = Duration::from_secs(5);

/// What makes two endpoints share connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PoolKey {
    /// Host and port.
    pub(super) authority: Arc<str>,
    /// Whether TLS is spoken.
    pub(super) tls: bool,
    /// Until the connection stands, TLS included.
    pub(super) connect: Duration,
}

struct Idle {
    sender: SendRequest<Pieces>,
    since: Instant,
}

impl Idle {
    fn is_fresh(&self) -> bool {
        clock::now().duration_since(self.since) < IDLE_TTL
    }
}

thread_local! {
    static IDLE: RefCell<HashMap<PoolKey, Vec<Idle>>> = RefCell::default();
    static REAPING: Cell<bool> = const { Cell::new(false) };
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum SendError {
    /// No connection could be made.
    Dial(DialError),
    /// It broke.
    Http(hyper::Error),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the exchange with the provider failed")
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SendError::Dial(error) => Some(error),
            SendError::Http(error) => Some(error),
        }
    }
}

/// Sends a request on an idle connection or a new one. `uri` says where to dial.
///
/// A request that a kept connection had not begun to write when the provider closed it goes to the next connection:
/// no provider sees an attempt twice.
pub(super) async fn send(key: PoolKey, uri: Uri, mut request: Request<Pieces>) -> Result<Response<Reply>, SendError> {
    loop {
        let kept = checkout(&key);
        let reused = kept.is_some();
        let mut sender = match kept {
            Some(sender) => sender,
            None => dial(&key, &uri).await.map_err(SendError::Dial)?,
        };
        match sender.try_send_request(request).await {
            Ok(response) => return Ok(response.map(|body| Reply::new(body, Lease { key, sender }))),
            Err(mut refused) => match refused.take_message() {
                Some(unsent) if reused => request = unsent,
                Some(_) | None => return Err(SendError::Http(refused.into_error())),
            },
        }
    }
}

/// The warmest idle connection that still stands.
fn checkout(key: &PoolKey) -> Option<SendRequest<Pieces>> {
    IDLE.with_borrow_mut(|pools| {
        let idle = pools.get_mut(key)?;
        // One that has not yet noticed that its last exchange is over is left for the next request.
        let at = idle.iter().rposition(|one| one.sender.is_ready())?;
        let one = idle.swap_remove(at);
        one.is_fresh().then_some(one.sender)
    })
}

/// A connection that is in use. Dropped before its exchange is over, it is closed.
struct Lease {
    key: PoolKey,
    sender: SendRequest<Pieces>,
}

impl Lease {
    fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        IDLE.with_borrow_mut(|pools| {
            let idle = pools.entry(self.key).or_default();
            if idle.len() < IDLE_MAX {
                idle.push(Idle { sender: self.sender, since: clock::now() });
            }
        });
        if !REAPING.replace(true) {
            tokio::spawn(reap());
        }
    }
}

/// Closes idle connections whose time is over; ends when none is left.
async fn reap() {
    loop {
        clock::sleep(REAP_EVERY).await;
        let left = IDLE.with_borrow_mut(|pools| {
            pools.retain(|_, idle| {
                idle.retain(|one| !one.sender.is_closed() && one.is_fresh());
                !idle.is_empty()
            });
            !pools.is_empty()
        });
        if !left {
            REAPING.set(false);
            return;
        }
    }
}

/// A reply's body. At its end the connection is kept.
pub(super) struct Reply {
    body: Incoming,
    lease: Option<Lease>,
}

impl Reply {
    fn new(body: Incoming, lease: Lease) -> Self {
        let mut reply = Reply { body, lease: Some(lease) };
        reply.release_at_end();
        reply
    }

    fn release_at_end(&mut self) {
        if self.body.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(_))) => self.release_at_end(),
            Poll::Ready(None) => {
                if let Some(lease) = self.lease.take() {
                    lease.give_back();
                }
            }
            Poll::Ready(Some(Err(_))) => self.lease = None,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Name look-up, TCP and TLS, under one deadline.
async fn dial(key: &PoolKey, uri: &Uri) -> Result<SendRequest<Pieces>, DialError> {
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    http.enforce_http(false);
    http.set_keepalive(Some(Duration::from_secs(60)));
    let dialing = async {
        if key.tls {
            let builder = HttpsConnectorBuilder::new().with_tls_config(tls_config()).https_only().enable_http1();
            let io = builder.wrap_connector(http).call(uri.clone()).await.map_err(|error| DialError::of(&*error))?;
            handshake(io).await
        } else {
            let io = http.call(uri.clone()).await.map_err(|error| DialError::of(&error))?;
            handshake(io).await
        }
    };
    clock::timeout(key.connect, dialing).await.unwrap_or_else(|_| Err(DialError::timeout()))
}

async fn handshake<S: Read + Write + Unpin + Send + 'static>(io: S) -> Result<SendRequest<Pieces>, DialError> {
    let (sender, connection) = http1::handshake(io).await.map_err(|error| DialError::of(&error))?;
    // It ends when its sender is dropped or its peer leaves; what breaks it is told to the exchange under way.
    tokio::spawn(connection);
    Ok(sender)
}

/// The trust roots are loaded on first use: a gateway of local models never pays for them.
fn tls_config() -> rustls::ClientConfig {
    static CONFIG: OnceLock<rustls::ClientConfig> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("aws-lc-rs supports the default protocol versions")
                .try_with_platform_verifier()
                .expect("the platform's trust roots are readable")
                .with_no_client_auth()
        })
        .clone()
}
