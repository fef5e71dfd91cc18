//! An HTTP client that hides nothing: every byte, and the manner in which the connection ended.

#![allow(unreachable_pub, dead_code, reason = "each test binary has its own copy of this module and uses a part of it")]

use serde_json::Value;
use std::{collections::BTreeMap, io::ErrorKind};
use tokio::{io::AsyncReadExt, net::TcpStream};

/// How the connection ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Close {
    /// Not at all: the message ended properly on an open connection.
    #[default]
    None,
    Fin,
    Reset,
}

/// What came back.
#[derive(Debug, Default)]
pub struct Reply {
    /// 0 when not even a head came.
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// The HTTP message ended as HTTP says it must.
    pub complete: bool,
    pub close: Close,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Each event's name and data; data that is not JSON as text.
    pub fn events(&self) -> Vec<(String, Value)> {
        let field = |event: &str, name: &str| {
            event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
        };
        let parse = |data: String| serde_json::from_str(&data).unwrap_or(Value::String(data));
        let text = self.text();
        let events = text.split("\n\n").filter(|event| !event.trim().is_empty());
        events.map(|event| (field(event, "event:"), parse(field(event, "data:")))).collect()
    }
}

/// Reads one reply, to its proper end or to the connection's.
pub async fn receive(mut client: TcpStream) -> Reply {
    let mut raw = Vec::with_capacity(64 << 10);
    loop {
        let close = match client.read_buf(&mut raw).await {
            Ok(0) => Close::Fin,
            Ok(_) => Close::None,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                Close::Reset
            }
        };
        if close != Close::None || may_be_complete(&raw) {
            let reply = parse(&raw, close);
            if close != Close::None || reply.complete {
                return reply;
            }
        }
        raw.reserve(64 << 10);
    }
}

/// A cheap look, so that a large reply is not taken apart with every read.
fn may_be_complete(raw: &[u8]) -> bool {
    const HEAD_MAX: usize = 8 << 10;
    let head = String::from_utf8_lossy(&raw[..raw.len().min(HEAD_MAX)]).to_lowercase();
    let length =
        head.split_once("content-length: ").and_then(|(_, rest)| rest.split('\r').next()?.parse::<usize>().ok());
    length.is_some_and(|length| raw.len() > length) || raw.ends_with(b"0\r\n\r\n")
}

fn parse(raw: &[u8], close: Close) -> Reply {
    let text = String::from_utf8_lossy(raw);
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        return Reply { status: 0, headers: BTreeMap::new(), body: Vec::new(), complete: false, close };
    };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers: BTreeMap<String, String> =
        fields.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let rest = &raw[head.len() + 4..];
    let (body, complete) = match headers.get("content-length") {
        Some(length) => (rest.to_vec(), rest.len() == length.parse::<usize>().unwrap()),
        None => unchunked(rest),
    };
    Reply { status, headers, body, complete, close }
}

fn unchunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(line) = rest.iter().take(20).position(|byte| *byte == b'\r') {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return (body, rest[line..] == *b"\r\n\r\n");
        }
        let data = &rest[line + 2..];
        if data.len() < size + 2 {
            body.extend_from_slice(&data[..data.len().min(size)]);
            return (body, false);
        }
        body.extend_from_slice(&data[..size]);
        rest = &data[size + 2..];
    }
    (body, false)
}
