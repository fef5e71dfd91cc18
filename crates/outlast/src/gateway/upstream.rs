//! The way out: one HTTP exchange with a provider. Nothing here retries; every failure is reported
//! to the engine, which owns the one retry there may be.
//!
//! Each worker thread keeps its own connections, so that a reply is read on the thread that asked.

use super::body::Pieces;
use crate::clock;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, ResponseFuture, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use outlast_model::{
    Failure, FailureReport,
    failure::{ConnectionFault, Deadline},
};
use std::{
    cell::RefCell,
    collections::HashMap,
    error::Error as StdError,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};
use tower_service::Service;

/// Idle connections kept per provider and worker thread; further ones are closed after use.
const IDLE_CONNECTIONS_MAX: usize = 256;
/// How long an idle connection is kept: below the 60 s at which common load balancers cut it.
const IDLE_CONNECTION_TTL: Duration = Duration::from_secs(50);

/// Where a target's requests go, ready to be cloned into a request.
pub(crate) struct Endpoint {
    /// Position of the provider's connection pool.
    pool: PoolKey,
    uri: Uri,
    /// One complete header set per API key.
    headers: Vec<HeaderMap>,
}

/// What makes two endpoints share connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PoolKey {
    authority: Arc<str>,
    tls: bool,
    connect: Duration,
}

impl Endpoint {
    /// Prepares `uri` with the fixed `headers` and one `credential` header per key.
    pub(crate) fn new(
        uri: Uri,
        headers: HeaderMap,
        credentials: &[(http::HeaderName, HeaderValue)],
        connect: Duration,
    ) -> Self {
        let keyed = |credential: &(http::HeaderName, HeaderValue)| {
            let mut headers = headers.clone();
            let (name, mut value) = credential.clone();
            value.set_sensitive(true);
            headers.insert(name, value);
            headers
        };
        let headers = match credentials {
            [] => vec![headers],
            some => some.iter().map(keyed).collect(),
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str()).into();
        let tls = uri.scheme_str() == Some("https");
        Endpoint { pool: PoolKey { authority, tls, connect }, uri, headers }
    }

    /// Sends one request with the key at position `key`; `extra` headers win over the fixed ones. Give the error of
    /// the future to [`report`].
    pub(crate) fn send(
        &self,
        key: u8,
        extra: impl IntoIterator<Item = (http::HeaderName, HeaderValue)>,
        body: Pieces,
    ) -> ResponseFuture {
        let mut headers = self.headers[usize::from(key).min(self.headers.len() - 1)].clone();
        headers.extend(extra);
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        with_client(&self.pool, |client| match client {
            AnyClient::Plain(client) => client.request(request),
            AnyClient::Tls(client) => client.request(request),
        })
    }
}

/// Classifies an error of the connection, whether before the response head or in the body.
pub(crate) fn report(error: &(dyn StdError + 'static)) -> FailureReport {
    let mut cause = Some(error);
    let mut failure = Failure::Connection(ConnectionFault::Reset);
    while let Some(error) = cause {
        if let Some(dial) = error.downcast_ref::<DialError>() {
            return FailureReport::of(dial.failure);
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && error.is_parse()
        {
            failure = Failure::MalformedReply;
        }
        cause = error.source();
    }
    FailureReport::of(failure)
}

enum AnyClient {
    Plain(Client<Dialer<HttpConnector>, Pieces>),
    Tls(Client<Dialer<HttpsConnector<HttpConnector>>, Pieces>),
}

/// Pools kept per thread; a reload that changes endpoints leaves the old pools to their idle timeout, and the
/// oldest is dropped when there are more than this.
const POOLS_MAX: usize = 256;

thread_local! {
    static CLIENTS: RefCell<HashMap<PoolKey, AnyClient>> = RefCell::default();
}

fn with_client<T>(key: &PoolKey, use_it: impl FnOnce(&AnyClient) -> T) -> T {
    CLIENTS.with_borrow_mut(|clients| {
        if !clients.contains_key(key) {
            if clients.len() >= POOLS_MAX {
                clients.clear();
            }
            clients.insert(key.clone(), AnyClient::new(key));
        }
        use_it(&clients[key])
    })
}

impl AnyClient {
    fn new(key: &PoolKey) -> Self {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.enforce_http(false);
        http.set_keepalive(Some(Duration::from_secs(60)));
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_idle_timeout(IDLE_CONNECTION_TTL)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new());
        // hyper's own re-dispatch stays on: it only moves a request that was never written from a pooled
        // connection the provider had already closed, so no provider sees an attempt twice.
        if key.tls {
            let https = hyper_rustls::HttpsConnectorBuilder::new()
                .with_tls_config(tls_config())
                .https_only()
                .enable_http1()
                .wrap_connector(http);
            AnyClient::Tls(builder.build(Dialer { inner: https, timeout: key.connect }))
        } else {
            AnyClient::Plain(builder.build(Dialer { inner: http, timeout: key.connect }))
        }
    }
}

/// The trust roots are loaded on first use: a gateway of local models never pays for them.
fn tls_config() -> rustls::ClientConfig {
    static CONFIG: OnceLock<rustls::ClientConfig> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            use hyper_rustls::ConfigBuilderExt;
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

/// Name look-up, TCP and TLS under one deadline, with the failure named.
#[derive(Clone)]
struct Dialer<C> {
    inner: C,
    timeout: Duration,
}

impl<C> Service<Uri> for Dialer<C>
where
    C: Service<Uri> + Clone + Send + 'static,
    C::Error: Into<Box<dyn StdError + Send + Sync>>,
    C::Future: Send,
    C::Response: Send,
{
    type Response = C::Response;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialing = self.inner.call(uri);
        let timeout = self.timeout;
        Box::pin(async move {
            match clock::timeout(timeout, dialing).await {
                Ok(Ok(io)) => Ok(io),
                Ok(Err(error)) => Err(DialError::of(&*error.into())),
                Err(_) => Err(DialError { failure: Failure::Timeout(Deadline::Connect) }),
            }
        })
    }
}

/// Why a connection could not be made.
#[derive(Debug)]
struct DialError {
    failure: Failure,
}

impl DialError {
    fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut fault = ConnectionFault::Refused;
        let mut cause = Some(error);
        while let Some(error) = cause {
            if error.is::<rustls::Error>() || holds_tls_error(error) {
                fault = ConnectionFault::Tls;
            } else if error.to_string().starts_with("dns error") {
                fault = ConnectionFault::Dns;
            }
            cause = error.source();
        }
        DialError { failure: Failure::Connection(fault) }
    }
}

/// tokio-rustls wraps its errors in an `io::Error`, whose inner error `source` skips.
fn holds_tls_error(error: &(dyn StdError + 'static)) -> bool {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    inner.is_some_and(|inner| inner.is::<rustls::Error>())
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.failure)
    }
}

impl StdError for DialError {}

/// The media type of a response, without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim()
}
