//! A shop: it refunds and writes mails, counts both, and loses the answer to each first request.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// What took place.
#[derive(Debug, Default)]
struct Books {
    /// The refunds, by the key they were asked for with.
    refunds: BTreeMap<String, u32>,
    requests: u32,
    mails: u32,
}

/// A running shop. Dropping it closes it.
pub(super) struct Shop {
    pub(super) address: SocketAddr,
    books: Arc<Mutex<Books>>,
    serving: JoinHandle<()>,
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shop {
    /// Opens it.
    ///
    /// # Errors
    /// There is no port.
    pub(super) async fn open() -> Result<Shop, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| format!("no shop: {error}"))?;
        let address = listener.local_addr().map_err(|error| format!("no shop: {error}"))?;
        let books: Arc<Mutex<Books>> = Arc::default();
        let serving = tokio::spawn(serve(listener, books.clone()));
        Ok(Shop { address, books, serving })
    }

    /// Refunds that took place, and how often one was asked for.
    pub(super) fn refunds(&self) -> (usize, u32) {
        let books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        (books.refunds.len(), books.requests)
    }

    /// Mails that were sent.
    pub(super) fn mails(&self) -> u32 {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).mails
    }
}

async fn serve(listener: TcpListener, books: Arc<Mutex<Books>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let books = books.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(books.clone(), request));
            // A connection whose answer is lost ends with an error; that is what it is for.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(books: Arc<Mutex<Books>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, io::Error> {
    let (head, body) = request.into_parts();
    body.collect().await.map_err(io::Error::other)?;
    let key = head.headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default().to_owned();
    let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
    let (first, said) = if head.uri.path() == "/refund" {
        books.requests += 1;
        // It keeps keys: the same one is the same refund.
        let next = u32::try_from(books.refunds.len()).unwrap_or(u32::MAX) + 1;
        let number = *books.refunds.entry(key).or_insert(next);
        (books.requests == 1, format!(r#"{{"refund":{number}}}"#))
    } else {
        books.mails += 1;
        (books.mails == 1, format!(r#"{{"mail":{}}}"#, books.mails))
    };
    // It took place, and nobody hears of it.
    if first { Err(io::Error::other("the line is cut")) } else { Ok(Response::new(Full::new(said.into()))) }
}
