//! Sockets: the port that can refuse, the accept loop, connections that can be reset.

use super::{Shared, serve};
use hyper::{
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use outlast_model::Mono;
use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};

const BACKLOG: u32 = 1024;

/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// A listening port that can stop listening without giving the port away.
pub(super) struct Port {
    addr: SocketAddr,
    state: Mutex<PortState>,
}

struct PortState {
    /// Exactly one of the two is there, unless the system failed us in between.
    listener: Option<TcpListener>,
    /// Bound, not listening: the kernel refuses connections, and nobody else gets the port.
    reserved: Option<TcpSocket>,
    waker: Option<Waker>,
}

impl Port {
    /// # Errors
    /// When the address cannot be bound.
    pub(super) fn bind(addr: SocketAddr) -> io::Result<Port> {
        let listener = reserve(addr)?.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        Ok(Port { addr, state: Mutex::new(PortState { listener: Some(listener), reserved: None, waker: None }) })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on connections are refused. False when they already were.
    pub(super) fn close(&self) -> io::Result<bool> {
        let mut state = self.lock();
        let was_open = state.listener.take().is_some();
        if was_open {
            state.reserved = Some(reserve(self.addr)?);
        }
        Ok(was_open)
    }

    /// From now on connections are accepted again.
    pub(super) fn open(&self) -> io::Result<()> {
        let mut state = self.lock();
        if state.listener.is_none() {
            let socket = state.reserved.take().map_or_else(|| reserve(self.addr), Ok)?;
            state.listener = Some(socket.listen(BACKLOG)?);
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
        Ok(())
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        let mut state = self.lock();
        let polled = match &state.listener {
            Some(listener) => listener.poll_accept(cx).map_ok(|(stream, _)| stream),
            None => Poll::Pending,
        };
        if polled.is_pending() {
            state.waker = Some(cx.waker().clone());
        }
        polled
    }

    fn lock(&self) -> MutexGuard<'_, PortState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reserve(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // So that a port whose old connections linger can be bound again.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

/// Accepts until it is dropped, and with it every connection.
pub(super) async fn accept(shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let turn = shared.apply_refusal();
        tokio::select! {
            accepted = std::future::poll_fn(|cx| shared.port.poll_accept(cx)) => match accepted {
                Ok(stream) => {
                    shared.log().stats.connections += 1;
                    connections.spawn(connection(Arc::clone(&shared), stream));
                }
                // Out of descriptors, most likely: a moment later there may be some.
                Err(_) => crate::clock::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = shared.refusal_changed.notified() => {}
            () = at(&shared, turn) => {}
        }
    }
}

async fn at(shared: &Shared, turn: Option<Mono>) {
    match turn {
        Some(turn) => crate::clock::sleep_until(shared.clock.instant(turn)).await,
        None => std::future::pending().await,
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    // A token must not wait for the acknowledgement of the one before.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let line = Arc::new(Line::default());
    let mut resets = shared.resets.subscribe();
    let wire = Wire { stream: TokioIo::new(stream), line: Arc::clone(&line) };
    let service = {
        let (shared, line) = (Arc::clone(&shared), Arc::clone(&line));
        service_fn(move |request| serve::serve(Arc::clone(&shared), Arc::clone(&line), request))
    };
    // Pinned here, so that it outlives the choice below: the order to reset must come before the socket is dropped.
    let mut serving = std::pin::pin!(http1::Builder::new().serve_connection(wire, service));
    tokio::select! {
        // Its error is either the fault that was asked for or the client's leaving; the log has both.
        _ = &mut serving => {}
        _ = resets.changed() => line.reset_when_closed(),
    }
}

/// What a connection's handler may ask of its socket.
#[derive(Default)]
pub(super) struct Line {
    reset: AtomicBool,
}

impl Line {
    /// The close that follows is a TCP reset.
    pub(super) fn reset_when_closed(&self) {
        self.reset.store(true, Ordering::Release);
    }
}

/// A TCP stream that can close with a reset.
struct Wire {
    stream: TokioIo<TcpStream>,
    line: Arc<Line>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.line.reset.load(Ordering::Acquire) {
            // Linger zero makes the close that follows a reset. Where it fails the peer sees a plain close, an error too.
            let _ = self.stream.inner().set_zero_linger();
        }
    }
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}
