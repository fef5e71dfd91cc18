//! The front door: our own accept loop over hyper, so that TLS, the header timeout, the connection
//! cap and the drain are ours.
//!
//! One task accepts and hands each connection to the worker thread with the fewest; each worker is a
//! single-threaded runtime with its own upstream connections. No request crosses a thread.

use super::{Shared, serve};
use crate::{
    clock::{self, Sleep, sleep},
    config::TlsFiles,
    telemetry::LogEvent,
};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    future::Future,
    io,
    net::TcpStream as StdStream,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
};
use tokio_rustls::TlsAcceptor;

/// A client that takes no byte for this long loses its connection; its call is settled as cancelled.
const WRITE_STALL_MAX: Duration = Duration::from_secs(60);
/// After a stop signal, idle connections stay open this long, so that a request already on its way gets an
/// honest 503 instead of a reset.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// How long the calls that are cut at the end of a drain have to settle.
const CUT_PATIENCE: Duration = Duration::from_secs(2);
/// Connections handed to a worker and not yet picked up. Past it the accept loop waits.
const HANDOVER_MAX: usize = 1024;
/// What a connection over the cap reads before it is closed.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
x-should-retry: true\r\nconnection: close\r\ncontent-length: 104\r\n\r\n\
{\"error\":{\"message\":\"Too many connections. Retry shortly.\",\"type\":\"overloaded\",\"code\":\"overloaded_now\"}}";

/// Reads certificate and key.
///
/// # Errors
/// What is wrong with which file.
pub(crate) fn tls_acceptor(files: &TlsFiles) -> Result<TlsAcceptor, String> {
    let certs = CertificateDer::pem_file_iter(&files.cert)
        .and_then(|certs| certs.collect::<Result<Vec<_>, _>>())
        .map_err(|error| format!("{}: {error}", files.cert.display()))?;
    if certs.is_empty() {
        return Err(format!("{}: there is no certificate in it", files.cert.display()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| format!("{}: {error}", files.key.display()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certs, key))
        .map_err(|error| format!("{}: {error}", files.cert.display()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// How the process is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Accepting.
    Serving,
    /// No new connection; requests on old ones are refused; in-flight calls finish.
    Draining,
    /// Idle connections are closed too.
    Closing,
    /// The time is up: every connection is dropped, which settles its call as cancelled.
    Cut,
}

/// Limits and TLS of the front door.
pub(crate) struct Door {
    /// The most open connections.
    pub(crate) connections_max: usize,
    /// Until a complete request head.
    pub(crate) header_timeout: Duration,
    /// TLS, if configured.
    pub(crate) tls: Option<TlsAcceptor>,
}

/// Worker threads and the number of connections each holds.
pub(crate) struct Workers {
    lanes: Vec<Lane>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

struct Lane {
    handover: mpsc::Sender<StdStream>,
    open: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts `count` worker threads.
    ///
    /// # Errors
    /// When the system refuses a thread or an event queue.
    pub(crate) fn start(
        count: usize,
        shared: &Arc<Shared>,
        door: &Arc<Door>,
        phase: &watch::Receiver<Phase>,
    ) -> io::Result<Self> {
        let mut workers = Workers { lanes: Vec::new(), threads: Vec::new() };
        for index in 0..count.max(1) {
            let (handover, arrivals) = mpsc::channel(HANDOVER_MAX);
            let open = Arc::new(AtomicUsize::new(0));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let work = work(arrivals, open.clone(), shared.clone(), door.clone(), phase.clone());
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            workers.threads.push(thread.spawn(move || runtime.block_on(work))?);
            workers.lanes.push(Lane { handover, open });
        }
        Ok(workers)
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.lanes.iter().map(|lane| lane.open.load(Ordering::Relaxed)).sum()
    }

    /// Waits until every connection has ended. Call from a thread that may block.
    pub(crate) fn join(self) {
        drop(self.lanes);
        for thread in self.threads {
            // A worker's panic has been reported by the panic hook; the others still deserve their end.
            let _ = thread.join();
        }
    }
}

/// Accepts until the phase changes, then returns the workers for the drain.
pub(crate) async fn accept(
    listener: TcpListener,
    workers: Workers,
    shared: Arc<Shared>,
    door: Arc<Door>,
    mut phase: watch::Receiver<Phase>,
) -> Workers {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.changed() => return workers,
        };
        match accepted {
            Ok((stream, _)) => hand_over(stream, &workers, &shared, &door).await,
            Err(error) => {
                // Out of descriptors, most likely: closing connections frees some; spinning frees none.
                let event = LogEvent::warn("accept_failed", "a connection could not be accepted");
                shared.telemetry.event(event.with("error", error.to_string()));
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn hand_over(mut stream: TcpStream, workers: &Workers, shared: &Shared, door: &Door) {
    if workers.open() >= door.connections_max {
        shared.telemetry.metrics().connections_refused.add(1);
        let _ = clock::timeout(Duration::from_millis(100), stream.write_all(TOO_MANY)).await;
        return;
    }
    let Some(lane) = workers.lanes.iter().min_by_key(|lane| lane.open.load(Ordering::Relaxed)) else { return };
    let Ok(stream) = stream.into_std() else { return };
    shared.telemetry.metrics().connections_accepted.add(1);
    lane.open.fetch_add(1, Ordering::Relaxed);
    if lane.handover.send(stream).await.is_err() {
        lane.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn work(
    mut arrivals: mpsc::Receiver<StdStream>,
    open: Arc<AtomicUsize>,
    shared: Arc<Shared>,
    door: Arc<Door>,
    phase: watch::Receiver<Phase>,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            arrival = arrivals.recv() => {
                let Some(stream) = arrival else { break };
                let counted = Counted::new(open.clone(), shared.clone());
                connections.spawn(connection(stream, counted, shared.clone(), door.clone(), phase.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Gives a connection's place back however it ends.
struct Counted {
    open: Arc<AtomicUsize>,
    shared: Arc<Shared>,
}

impl Counted {
    fn new(open: Arc<AtomicUsize>, shared: Arc<Shared>) -> Self {
        shared.telemetry.metrics().connections.add(1);
        Counted { open, shared }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.shared.telemetry.metrics().connections.add(-1);
    }
}

async fn connection(
    stream: StdStream,
    counted: Counted,
    shared: Arc<Shared>,
    door: Arc<Door>,
    phase: watch::Receiver<Phase>,
) {
    let _counted = counted;
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    // Small writes follow each other on a stream; waiting for acknowledgements costs 40 ms each.
    let _ = stream.set_nodelay(true);
    match &door.tls {
        None => serve_http(Patient::new(stream, WRITE_STALL_MAX), shared, &door, phase).await,
        Some(acceptor) => {
            let handshake = clock::timeout(door.header_timeout, acceptor.accept(Patient::new(stream, WRITE_STALL_MAX)));
            if let Ok(Ok(stream)) = handshake.await {
                serve_http(stream, shared, &door, phase).await;
            }
        }
    }
}

async fn serve_http<S>(stream: S, shared: Arc<Shared>, door: &Door, mut phase: watch::Receiver<Phase>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    // No `pipeline_flush`: with it hyper's write buffer has no limit, and a client that does not read fills the memory.
    builder.timer(TokioTimer::new()).header_read_timeout(door.header_timeout);
    let service = service_fn(|request| serve::handle(shared.clone(), request));
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    loop {
        tokio::select! {
            // A broken connection has no one left to tell; its call was settled when it was dropped.
            _ = connection.as_mut() => return,
            changed = phase.changed() => match changed.map(|()| *phase.borrow_and_update()) {
                Ok(Phase::Serving | Phase::Draining) => {}
                Ok(Phase::Closing) => connection.as_mut().graceful_shutdown(),
                Ok(Phase::Cut) | Err(_) => return,
            },
        }
    }
}

/// Walks through the drain: refuse, grace, close, then wait for the calls in flight, at most `timeout`.
/// Returns whether all of them ended in time.
pub(crate) async fn drain(workers: Workers, phase: &watch::Sender<Phase>, timeout: Duration) -> bool {
    phase.send_replace(Phase::Draining);
    sleep(DRAIN_GRACE.min(timeout)).await;
    phase.send_replace(Phase::Closing);
    let (tell, mut joined) = oneshot::channel();
    // A thread and no blocking task: the runtime would wait for that at its own end.
    std::thread::spawn(move || {
        workers.join();
        let _ = tell.send(());
    });
    if clock::timeout(timeout, &mut joined).await.is_ok() {
        return true;
    }
    phase.send_replace(Phase::Cut);
    let _ = clock::timeout(CUT_PATIENCE, joined).await;
    false
}

/// A stream whose peer may be slow but not stuck.
struct Patient<S> {
    inner: S,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn new(inner: S, patience: Duration) -> Self {
        Patient { inner, patience, stalled: None }
    }

    fn judge<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.judge(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.judge(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.judge(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_given_up_and_one_that_is_slow_is_not() {
        let patience = Duration::from_millis(200);
        let (near, mut far) = tokio::io::duplex(16);
        let mut slow = Patient::new(near, patience);
        let reading = async {
            let mut taken = 0;
            let mut some = [0; 8];
            // Each pause is shorter than the patience, all of them together are longer.
            while taken < 80 {
                sleep(patience / 5).await;
                taken += far.read(&mut some).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(slow.write_all(&[7; 80]), reading);
        written.expect("it was slow, not stuck");

        let (near, _far) = tokio::io::duplex(16);
        let written = Patient::new(near, patience).write_all(&[7; 80]).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
