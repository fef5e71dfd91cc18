//! HTTP/1.1 as little of it as the harness needs, blocking: a client that gives up in time, and a server that can cut a
//! connection wherever it is told to.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

/// The longest body that is read.
const BODY_MAX: usize = 8 << 20;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: serde_json::Value,
}

/// Asks once, on a connection of its own.
///
/// # Errors
/// Nobody answered in full, and in time: whatever was asked may have happened.
pub(crate) fn ask(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
    patience: Duration,
) -> Result<Answer, String> {
    let failed = |error: std::io::Error| format!("{method} {path}: {error}");
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).map_err(failed)?;
    stream.set_read_timeout(Some(patience)).map_err(failed)?;
    stream.set_write_timeout(Some(patience)).map_err(failed)?;
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-type: application/json\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).map_err(failed)?;
    let mut reader = BufReader::new(stream);
    let (first, length) = read_head(&mut reader).map_err(failed)?.0;
    let status = first.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| format!("{method} {path}: no status in {first:?}"))?;
    let mut text = vec![0; length.min(BODY_MAX)];
    reader.read_exact(&mut text).map_err(failed)?;
    Ok(Answer { status, body: serde_json::from_slice(&text).unwrap_or(serde_json::Value::Null) })
}

type Head = ((String, usize), Vec<(String, String)>);

fn read_head(reader: &mut impl BufRead) -> std::io::Result<Head> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let mut headers = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
        if name == "content-length" {
            length = value.parse().unwrap_or(0);
        }
        headers.push((name, value));
    }
    Ok(((first, length), headers))
}

/// A request as the server sees it.
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: serde_json::Value,
}

impl Asked {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What the server says.
pub(crate) enum Say {
    /// This, after a while.
    Json { after: Duration, status: u16, body: String },
    /// Nothing: the connection is cut.
    Cut,
}

/// Serves until the process ends, a thread for each connection.
///
/// # Errors
/// There is no port.
pub(crate) fn serve(handle: Arc<dyn Fn(&Asked) -> Say + Send + Sync>) -> Result<SocketAddr, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| format!("no port: {error}"))?;
    let address = listener.local_addr().map_err(|error| format!("no port: {error}"))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = handle.clone();
            thread::spawn(move || while_open(&stream, &*handle));
        }
    });
    Ok(address)
}

fn while_open(stream: &TcpStream, handle: &dyn Fn(&Asked) -> Say) {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Ok(((first, length), headers)) = read_head(&mut reader) {
        let mut body = vec![0; length.min(BODY_MAX)];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let path = first.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let body = serde_json::from_slice(&body).unwrap_or(serde_json::Value::Null);
        match handle(&Asked { path, headers, body }) {
            Say::Cut => return,
            Say::Json { after, status, body } => {
                thread::sleep(after);
                let head = format!(
                    "HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(body.as_bytes())).is_err() {
                    return;
                }
            }
        }
    }
}
