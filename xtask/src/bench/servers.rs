//! The two servers beside the gateway in a benchmark: the upstream everybody calls and the bare
//! proxy that is the floor. Both are what one would honestly write with hyper: keep-alive on both
//! sides, `TCP_NODELAY`, bodies streamed, nothing else.

use super::payload::{self, Kind};
use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::{Body, Frame, Incoming},
    header,
    http::uri::{Authority, Scheme},
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Sleep,
};

/// The pause between two streamed chunks: long enough that each travels alone, as tokens do.
const CHUNK_PAUSE: Duration = Duration::from_millis(1);

/// Serves canned chat completions on `address` until killed.
pub(crate) fn upstream(address: &str) -> Result<(), String> {
    let replies = Arc::new(payload::Replies::new());
    serve(address, move |stream| {
        let replies = replies.clone();
        let service = service_fn(move |request| answer(replies.clone(), request));
        async move {
            // A client that goes away mid-reply is its own business.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    })
}

type UpstreamBody = Either<Full<Bytes>, Paced>;

async fn answer(
    replies: Arc<payload::Replies>,
    request: Request<Incoming>,
) -> Result<Response<UpstreamBody>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    Ok(match payload::kind_of(&body) {
        Kind::Whole => typed("application/json", Either::Left(Full::new(replies.whole.clone()))),
        Kind::Stream { usage } => typed("text/event-stream", Either::Right(Paced::new(replies.frames(usage)))),
    })
}

/// The frames one by one, each after a pause.
struct Paced {
    frames: std::vec::IntoIter<Bytes>,
    pause: Pin<Box<Sleep>>,
}

impl Paced {
    fn new(frames: Vec<Bytes>) -> Self {
        Self { frames: frames.into_iter(), pause: Box::pin(tokio::time::sleep(CHUNK_PAUSE)) }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::ready!(self.pause.as_mut().poll(context));
        self.pause = Box::pin(tokio::time::sleep(CHUNK_PAUSE));
        Poll::Ready(self.frames.next().map(|frame| Ok(Frame::data(frame))))
    }
}

fn typed(content_type: &'static str, body: UpstreamBody) -> Response<UpstreamBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

type ProxyClient = Client<HttpConnector, Incoming>;

/// Passes every request on `address` to `upstream` until killed: the floor of the benchmark.
pub(crate) fn proxy(address: &str, upstream: &str) -> Result<(), String> {
    let authority: Authority = upstream.parse().map_err(|error| format!("{upstream}: {error}"))?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: ProxyClient = Client::builder(TokioExecutor::new()).build(connector);
    serve(address, move |stream| {
        let (client, authority) = (client.clone(), authority.clone());
        let service = service_fn(move |request| pass(client.clone(), authority.clone(), request));
        async move {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    })
}

async fn pass(
    client: ProxyClient,
    authority: Authority,
    mut request: Request<Incoming>,
) -> Result<Response<Either<Incoming, Full<Bytes>>>, Infallible> {
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority);
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    strip_hop_by_hop(request.headers_mut());
    request.headers_mut().remove(header::HOST);
    Ok(match client.request(request).await {
        Ok(mut response) => {
            strip_hop_by_hop(response.headers_mut());
            response.map(Either::Left)
        }
        Err(error) => {
            let mut response = Response::new(Either::Right(Full::new(Bytes::from(error.to_string()))));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    })
}

fn strip_hop_by_hop(headers: &mut header::HeaderMap) {
    for name in [header::CONNECTION, header::TE, header::TRAILER, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
}

/// An accept loop on tokio's usual runtime: one worker per core, one task per connection.
fn serve<F, C>(address: &str, connection: F) -> Result<(), String>
where
    F: Fn(TcpStream) -> C,
    C: Future<Output = ()> + Send + 'static,
{
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.map_err(|error| format!("{address}: {error}"))?;
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            if stream.set_nodelay(true).is_ok() {
                tokio::spawn(connection(stream));
            }
        }
    })
}
