//! What the hot paths cost: `cargo run --release -p outlast-wire --example speed`.
//!
//! An argument keeps only the lines whose name holds it. Prints nanoseconds per operation, the best of several rounds. For `cargo xtask bench` only whole requests count;
//! this is for whoever changes a hot path.

use bytes::Bytes;
use outlast_model::policy::Dialect;
use outlast_wire::{Adapt, Inbound, Put, StreamReader};
use std::{hint::black_box, time::Instant};

fn main() {
    for (name, size) in [("1 KB", 600), ("200 KB", 200_000)] {
        let body = Bytes::from(request(size));
        print(&format!("copy {name}"), || body.to_vec());
        print(&format!("parse {name}"), || Inbound::parse(Dialect::OpenaiChat, body.clone()).unwrap());
        let inbound = Inbound::parse(Dialect::OpenaiChat, body.clone()).unwrap();
        print(&format!("needs {name}"), || inbound.needs());
        let to = Adapt {
            dialect: Dialect::OpenaiChat,
            model: "other",
            max_output: None,
            ask_usage: true,
            put: Put::plain(),
        };
        print(&format!("adapt {name}"), || inbound.adapt(&to).unwrap());
        print(&format!("parse+needs+adapt {name}"), || {
            let inbound = Inbound::parse(Dialect::OpenaiChat, body.clone()).unwrap();
            (inbound.needs(), inbound.adapt(&to).unwrap().len())
        });
        let across = Adapt { dialect: Dialect::Anthropic, ..to };
        print(&format!("cross {name}"), || {
            Inbound::parse(Dialect::OpenaiChat, body.clone()).unwrap().adapt(&across).unwrap()
        });
    }
    let openai = "data: {\"id\":\"chatcmpl-9f0a\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,\"model\":\"gpt-5.2-2026\",\"system_fingerprint\":\"fp_1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
    let anthropic = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" word\"}}\n\n";
    for (name, upstream, frame) in
        [("openai", Dialect::OpenaiChat, openai), ("anthropic", Dialect::Anthropic, anthropic)]
    {
        for client in Dialect::ALL {
            stream(&format!("push {name} -> {} ({} bytes)", client.name(), frame.len()), upstream, client, frame);
        }
    }
}

/// A conversation of about this size, with the escapes of ordinary prose and code.
fn request(size: usize) -> String {
    let text =
        "The quick brown fox said \\\"jump\\\" and then:\\n    fn main() { println!(1); }\\nover and over again, ";
    let messages: Vec<String> = (0..(size / 2000).max(1))
        .map(|at| {
            let role = if at % 2 == 0 { "user" } else { "assistant" };
            format!("{{\"role\":\"{role}\",\"content\":\"{}\"}}", text.repeat(size.min(2000) / text.len()))
        })
        .collect();
    format!(
        "{{\"model\":\"support\",\"stream\":true,\"temperature\":0.7,\"messages\":[{},{{\"role\":\"user\",\"content\":\"go on\"}}]}}",
        messages.join(",")
    )
}

fn stream(name: &str, upstream: Dialect, client: Dialect, frame: &str) {
    let body = "{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";
    let inbound = Inbound::parse(client, body.into()).unwrap();
    let frame = Bytes::copy_from_slice(frame.as_bytes());
    let mut reader = StreamReader::new(upstream, &inbound, true, false);
    let mut out = Vec::new();
    print(name, || {
        out.clear();
        reader.push(frame.clone(), &mut out).unwrap();
        out.len()
    });
}

fn print<T>(name: &str, mut work: impl FnMut() -> T) {
    if std::env::args().nth(1).is_some_and(|only| !name.contains(&only)) {
        return;
    }
    let mut best = f64::MAX;
    for _ in 0..400 {
        // Short rounds, so that the best one has the processor to itself even on a busy machine.
        let (started, mut rounds) = (Instant::now(), 0u32);
        while started.elapsed().as_micros() < 300 {
            for _ in 0..8 {
                black_box(work());
            }
            rounds += 8;
        }
        best = best.min(started.elapsed().as_nanos() as f64 / f64::from(rounds));
    }
    println!("{name:44} {best:>10.0} ns");
}
