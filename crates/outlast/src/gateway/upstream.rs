//! The way out: one HTTP exchange with a provider. Nothing here retries; every failure is reported
//! to the engine, which owns the one retry there may be.
//!
//! Each worker thread keeps its own connections, so that a reply is read on the thread that asked.

use super::{
    body::Pieces,
    pool::{self, PoolKey, Reply, SendError},
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header};
use outlast_model::{
    Failure, FailureReport,
    failure::{ConnectionFault, Deadline},
};
use std::{error::Error as StdError, fmt, future::Future, pin::Pin, time::Duration};

/// A request on its way. Dropping it closes its connection.
pub(super) type Sending = Pin<Box<dyn Future<Output = Result<Response<Reply>, SendError>> + Send>>;

/// Where a target's requests go, ready to be cloned into a request.
pub(crate) struct Endpoint {
    pool: PoolKey,
    /// Where to dial.
    uri: Uri,
    /// What the request line says.
    path: Uri,
    /// One complete header set per API key.
    headers: Vec<HeaderMap>,
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
        let path = uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
        Endpoint { pool: PoolKey { authority, tls, connect }, uri, path, headers }
    }

    /// Sends one request with the key at position `key`; `extra` headers win over the fixed ones. Give the error of
    /// the future to [`report`].
    pub(super) fn send(
        &self,
        key: u8,
        extra: impl IntoIterator<Item = (http::HeaderName, HeaderValue)>,
        body: Pieces,
    ) -> Sending {
        let mut headers = self.headers[usize::from(key).min(self.headers.len() - 1)].clone();
        headers.extend(extra);
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        Box::pin(pool::send(self.pool.clone(), self.uri.clone(), request))
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

/// Why a connection could not be made.
#[derive(Debug)]
pub(super) struct DialError {
    failure: Failure,
}

impl DialError {
    /// It took too long.
    pub(super) fn timeout() -> Self {
        DialError { failure: Failure::Timeout(Deadline::Connect) }
    }

    /// Finds out from the connector's error what went wrong.
    pub(super) fn of(error: &(dyn StdError + 'static)) -> Self {
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
