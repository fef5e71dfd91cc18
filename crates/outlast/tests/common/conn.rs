//! A client connection without any manners but those the test gives it.

use super::guarded;
use std::{io, net::SocketAddr};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

/// The status line and headers of a response.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn parse(text: &str) -> Head {
        let mut lines = text.lines();
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let header = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        let status = status.unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
        Head { status, headers: lines.filter_map(header).collect() }
    }
}

/// How much of a body came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyEnd {
    /// All of it.
    Whole,
    /// The connection ended first.
    Cut,
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One connection.
pub(crate) struct Conn {
    io: Box<dyn Io>,
    buffer: Vec<u8>,
    /// What is left of the body being read.
    left: Left,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Length(usize),
    Chunks,
    UntilClose,
}

impl Conn {
    pub(crate) async fn open(address: SocketAddr) -> Conn {
        Conn::try_open(address).await.expect("the gateway accepts")
    }

    /// As [`Conn::open`]; `None` if nobody listens: it has died.
    pub(crate) async fn try_open(address: SocketAddr) -> Option<Conn> {
        let stream = guarded("connect", TcpStream::connect(address)).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Conn::over(stream))
    }

    pub(crate) fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Conn {
        Conn { io: Box::new(io), buffer: Vec::new(), left: Left::Length(0) }
    }

    /// Writes all of it, or says why not: the other side may have closed.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        guarded("write", async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        })
        .await
    }

    /// The next response head. `None`: the connection ended without one.
    pub(crate) async fn head(&mut self) -> Option<Head> {
        let end = guarded("a response head", async {
            loop {
                if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                    return Some(at + 4);
                }
                if self.fill().await == 0 {
                    return None;
                }
            }
        })
        .await?;
        let text: Vec<u8> = self.buffer.drain(..end).collect();
        let head = Head::parse(&String::from_utf8(text).expect("heads are text"));
        let chunked = head.header("transfer-encoding").is_some_and(|value| value.contains("chunked"));
        self.left = match head.header("content-length").and_then(|length| length.parse().ok()) {
            _ if chunked => Left::Chunks,
            Some(length) => Left::Length(length),
            None if head.status < 200 || head.status == 204 => Left::Length(0),
            None => Left::UntilClose,
        };
        Some(head)
    }

    /// The next piece of the body.
    ///
    /// # Errors
    /// How the body ended.
    pub(crate) async fn piece(&mut self) -> Result<Vec<u8>, BodyEnd> {
        guarded("a piece of the body", self.next_piece()).await
    }

    async fn next_piece(&mut self) -> Result<Vec<u8>, BodyEnd> {
        loop {
            match self.left {
                Left::Length(0) => return Err(BodyEnd::Whole),
                Left::Length(left) if !self.buffer.is_empty() => {
                    let piece: Vec<u8> = self.buffer.drain(..left.min(self.buffer.len())).collect();
                    self.left = Left::Length(left - piece.len());
                    return Ok(piece);
                }
                Left::UntilClose if !self.buffer.is_empty() => return Ok(std::mem::take(&mut self.buffer)),
                Left::Chunks => {
                    if let Some(piece) = self.take_chunk() {
                        if piece.is_empty() {
                            self.left = Left::Length(0);
                            return Err(BodyEnd::Whole);
                        }
                        return Ok(piece);
                    }
                }
                Left::Length(_) | Left::UntilClose => {}
            }
            if self.fill().await == 0 {
                return Err(if self.left == Left::UntilClose { BodyEnd::Whole } else { BodyEnd::Cut });
            }
        }
    }

    fn take_chunk(&mut self) -> Option<Vec<u8>> {
        let line_end = self.buffer.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&self.buffer[..line_end]).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
        let start = line_end + 2;
        if self.buffer.len() < start + size + 2 {
            return None;
        }
        let piece = self.buffer[start..start + size].to_vec();
        self.buffer.drain(..start + size + 2);
        Some(piece)
    }

    /// The rest of the body.
    pub(crate) async fn body(&mut self) -> (Vec<u8>, BodyEnd) {
        let mut whole = Vec::new();
        loop {
            match self.piece().await {
                Ok(piece) => whole.extend_from_slice(&piece),
                Err(end) => return (whole, end),
            }
        }
    }

    /// Waits until the other side has closed, and returns what came before.
    pub(crate) async fn until_closed(&mut self) -> Vec<u8> {
        guarded("the connection's end", async { while self.fill().await > 0 {} }).await;
        std::mem::take(&mut self.buffer)
    }

    async fn fill(&mut self) -> usize {
        // A reset is an end, too.
        self.io.read_buf(&mut self.buffer).await.unwrap_or(0)
    }
}
