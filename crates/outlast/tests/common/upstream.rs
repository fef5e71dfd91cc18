//! A provider that records every byte it is sent and answers what the test scripts, for what `outlast::fake` does not
//! do: odd bytes, exact bodies, replies that wait for the test.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

/// A piece of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// These bytes, head and all.
    Send(Vec<u8>),
    /// Go on when the test says so.
    Await(Arc<Notify>),
    /// Nothing more until the other side leaves.
    Hang,
    /// These bytes again and again until the other side leaves, this far apart.
    Repeat(Vec<u8>, Duration),
    /// Close the connection.
    Close,
}

type Script = Arc<dyn Fn(&Request) -> Vec<Step> + Send + Sync>;

/// A running one.
pub(crate) struct Upstream {
    address: SocketAddr,
    book: Book,
    accepting: JoinHandle<()>,
}

#[derive(Clone, Default)]
struct Book {
    seen: Arc<Mutex<Vec<Request>>>,
    left: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Upstream {
    pub(crate) async fn start(script: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let book = Book::default();
        let script: Script = Arc::new(script);
        let accepting = tokio::spawn({
            let book = book.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, script.clone(), book.clone()));
                }
            }
        });
        Upstream { address, book, accepting }
    }

    /// Answers every request with a 200 and this JSON.
    pub(crate) async fn answering(body: serde_json::Value) -> Upstream {
        Upstream::start(move |_| vec![Step::Send(json_reply(&body))]).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.book.seen.lock().unwrap().clone()
    }

    /// Bytes of [`Step::Repeat`] that the connection has taken.
    pub(crate) fn bytes_sent(&self) -> usize {
        self.book.sent.load(Ordering::Relaxed)
    }

    /// How many left while their answer hung.
    pub(crate) fn left(&self) -> usize {
        self.book.left.load(Ordering::Relaxed)
    }
}

/// A whole reply.
pub(crate) fn json_reply(body: &serde_json::Value) -> Vec<u8> {
    let body = body.to_string();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// The head of a stream, chunked.
pub(crate) const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
/// The end of a chunked body.
pub(crate) const LAST_CHUNK: &str = "0\r\n\r\n";

/// One chunk of a chunked body.
pub(crate) fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// A chat completion chunk with this text, as an event in a chunk of its own.
pub(crate) fn say(text: &str) -> String {
    let value = serde_json::json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{ "index": 0, "delta": { "role": "assistant", "content": text }, "finish_reason": null }],
    });
    chunk(&format!("data: {value}\n\n"))
}

/// The proper end of a chat completion stream.
pub(crate) fn finish() -> String {
    let value = serde_json::json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }],
    });
    chunk(&format!("data: {value}\n\n")) + &chunk("data: [DONE]\n\n") + LAST_CHUNK
}

/// A whole chat completion that says so.
pub(crate) fn completion(text: &str) -> serde_json::Value {
    serde_json::json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15 },
    })
}

async fn serve(mut stream: TcpStream, script: Script, book: Book) {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await {
        let steps = script(&request);
        book.seen.lock().unwrap().push(request);
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Step::Await(go) => go.notified().await,
                Step::Hang => {
                    let mut rest = [0];
                    let _ = stream.read(&mut rest).await;
                    book.left.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Step::Repeat(bytes, gap) => loop {
                    if stream.write_all(&bytes).await.is_err() {
                        book.left.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                    book.sent.fetch_add(bytes.len(), Ordering::Relaxed);
                    tokio::time::sleep(gap).await;
                },
                Step::Close => return,
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer.drain(..head_end).collect()).expect("a head is text");
    let mut request = Request { head, body: Vec::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while buffer.len() < length {
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    }
    request.body = buffer.drain(..length).collect();
    Some(request)
}
