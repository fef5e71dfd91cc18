//! As much of SMTP as handing over one mail takes: RFC 5321, STARTTLS (RFC 3207), AUTH PLAIN and LOGIN (RFC 4954).

use super::Untold;
use crate::config::{Smtp, SmtpTls};
use base64::{Engine, engine::general_purpose::STANDARD};
use hyper_rustls::ConfigBuilderExt;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// The longest line of a reply, in bytes; RFC 5321 has 512.
const LINE_MAX: u64 = 2048;
/// The most lines of a reply.
const LINES_MAX: usize = 100;

/// Hands one mail over. Bounded in time by the caller.
pub(super) async fn send(smtp: &Smtp, from: &str, to: &[Arc<str>], mail: &str) -> Result<(), Untold> {
    let connected = TcpStream::connect((&*smtp.host, smtp.port)).await;
    let stream = connected.map_err(|_| Untold::from("the connection to the mail server failed"))?;
    match smtp.tls {
        SmtpTls::None => {
            let mut talk = Talk::new(stream);
            talk.greet().await?;
            talk.hand_over(smtp, from, to, mail).await
        }
        SmtpTls::Implicit => {
            let mut talk = Talk::new(encrypt(stream, &smtp.host).await?);
            talk.greet().await?;
            talk.hand_over(smtp, from, to, mail).await
        }
        SmtpTls::StartTls => {
            let mut talk = Talk::new(stream);
            talk.greet().await?;
            let stream = talk.start_tls().await?;
            Talk::new(encrypt(stream, &smtp.host).await?).hand_over(smtp, from, to, mail).await
        }
    }
}

async fn encrypt(stream: TcpStream, host: &str) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Untold> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(ConfigBuilderExt::try_with_platform_verifier)
        .map_err(|_| Untold::from("TLS cannot be used here"))?
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Untold::from("the mail server's name is none"))?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    connected.map_err(|_| Untold::from("TLS with the mail server failed"))
}

/// One side of a conversation with a server.
struct Talk<S> {
    stream: BufReader<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    fn new(stream: S) -> Self {
        Talk { stream: BufReader::new(stream) }
    }

    async fn greet(&mut self) -> Result<(), Untold> {
        self.expect(220, "the greeting").await.map(drop)
    }

    /// Asks for TLS; without it nothing is said.
    async fn start_tls(mut self) -> Result<S, Untold> {
        let offers = self.hello().await?;
        if !offers.iter().any(|offer| offer.eq_ignore_ascii_case("STARTTLS")) {
            return Err("the mail server offers no STARTTLS".into());
        }
        self.say("STARTTLS", 220, "STARTTLS").await?;
        // Whatever was sent along in the clear would be taken for the server's own words.
        if !self.stream.buffer().is_empty() {
            return Err("the mail server said more than it may before TLS".into());
        }
        Ok(self.stream.into_inner())
    }

    async fn hand_over(&mut self, smtp: &Smtp, from: &str, to: &[Arc<str>], mail: &str) -> Result<(), Untold> {
        let offers = self.hello().await?;
        if let Some((user, password)) = &smtp.login {
            self.log_in(&offers, user, password.expose()).await?;
        }
        self.say(&format!("MAIL FROM:<{from}>"), 250, "the sender").await?;
        for address in to {
            self.say(&format!("RCPT TO:<{address}>"), 250, "a recipient").await?;
        }
        self.say("DATA", 354, "DATA").await?;
        let mut stuffed = String::with_capacity(mail.len() + 16);
        for line in mail.split_terminator("\r\n") {
            if line.starts_with('.') {
                stuffed.push('.');
            }
            stuffed.push_str(line);
            stuffed.push_str("\r\n");
        }
        stuffed.push('.');
        self.say(&stuffed, 250, "the mail").await?;
        // It has the mail; how it takes its leave changes nothing.
        let _ = self.write("QUIT").await;
        Ok(())
    }

    async fn log_in(&mut self, offers: &[String], user: &str, password: &str) -> Result<(), Untold> {
        let offered = |mechanism: &str| {
            offers.iter().any(|offer| {
                let mut words = offer.split([' ', '=']);
                words.next().is_some_and(|word| word.eq_ignore_ascii_case("AUTH"))
                    && words.any(|word| word.eq_ignore_ascii_case(mechanism))
            })
        };
        if offered("PLAIN") {
            let both = STANDARD.encode(format!("\0{user}\0{password}"));
            return self.say(&format!("AUTH PLAIN {both}"), 235, "the login").await.map(drop);
        }
        if offered("LOGIN") {
            self.say("AUTH LOGIN", 334, "the login").await?;
            self.say(&STANDARD.encode(user), 334, "the login").await?;
            return self.say(&STANDARD.encode(password), 235, "the login").await.map(drop);
        }
        Err("the mail server offers no login that is known here".into())
    }

    /// Who we are; what the server offers, a line each.
    async fn hello(&mut self) -> Result<Vec<String>, Untold> {
        self.say("EHLO [127.0.0.1]", 250, "EHLO").await
    }

    async fn say(&mut self, line: &str, wanted: u16, what: &str) -> Result<Vec<String>, Untold> {
        self.write(line).await?;
        self.expect(wanted, what).await
    }

    async fn write(&mut self, line: &str) -> Result<(), Untold> {
        let broke = |_| Untold::from("the connection to the mail server broke");
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await.map_err(broke)?;
        self.stream.flush().await.map_err(broke)
    }

    /// Reads a reply. Its words are not passed on: they may quote what was sent.
    async fn expect(&mut self, wanted: u16, what: &str) -> Result<Vec<String>, Untold> {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            let read = (&mut self.stream).take(LINE_MAX).read_until(b'\n', &mut line).await;
            if !read.is_ok_and(|read| read > 0) || line.last() != Some(&b'\n') || lines.len() >= LINES_MAX {
                return Err("the mail server's reply could not be read".into());
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let code: Option<u16> = line.get(..3).and_then(|code| code.parse().ok());
            match code {
                Some(code) if code == wanted => {}
                Some(code) => return Err(Untold { why: format!("the mail server refused {what} ({code})") }),
                None => return Err("the mail server's reply could not be read".into()),
            }
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(lines);
            }
        }
    }
}
