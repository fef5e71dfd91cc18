//! The listener speaking TLS itself.

mod common;

use common::{
    Ask, Conn, Rig, guarded,
    rig::{fake, provider},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use std::{sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A gateway with a certificate of its own for `localhost`.
async fn with_certificate() -> (outlast::fake::Fake, Rig, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    let (cert, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let a = fake("alpha").await;
    let config = provider("a", "openai-compatible", &a.url(), "")
        + "[routes.main]\ntargets = [\"a/m~chunks=20\"]\n"
        + &format!(
            "[server]\nheader_timeout = \"300ms\"\ntls = {{ cert = {:?}, key = {:?} }}\n",
            cert.display().to_string(),
            key.display().to_string()
        );
    let rig = Rig::start(&config).await;
    (a, rig, made.cert.der().clone())
}

async fn secure(rig: &Rig, trusted: &CertificateDer<'static>) -> Conn {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(rig.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    Conn::over(guarded("the handshake", handshake).await.expect("the certificate is the configured one"))
}

#[tokio::test]
async fn calls_and_streams_go_over_tls() {
    let (_a, rig, trusted) = with_certificate().await;
    let mut conn = secure(&rig, &trusted).await;
    for streamed in [false, true] {
        let ask = Ask::chat("main", "hello").with("stream", serde_json::json!(streamed));
        ask.send_over(&mut conn).await.unwrap().assert_answered();
    }
}

#[tokio::test]
async fn plain_http_and_silence_on_a_tls_port_are_dropped_in_time_and_harm_nobody() {
    let (_a, rig, trusted) = with_certificate().await;
    let mut plain = Conn::open(rig.address()).await;
    let _ = plain.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    plain.until_closed().await;
    Conn::open(rig.address()).await.until_closed().await;
    let mut conn = secure(&rig, &trusted).await;
    assert_eq!(Ask::get("/healthz").send_over(&mut conn).await.unwrap().status(), 200);
    let _ = Duration::ZERO;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cert.pem"), "no certificate").unwrap();
    std::fs::write(folder.path().join("key.pem"), "no key").unwrap();
    let text = "[providers.a]\nkind = \"openai-compatible\"\nbase_url = \"http://127.0.0.1:9/v1\"\n[routes.main]\ntargets = [\"a/m\"]\n\
        [server]\nlisten = \"127.0.0.1:0\"\ntls = { cert = \"cert.pem\", key = \"key.pem\" }\n";
    let config = outlast::config::Config::from_text(text, "outlast.toml", folder.path(), &|_| None).unwrap();
    let error = outlast::gateway::Gateway::start(config, Default::default()).await.err().expect("it is refused");
    let told = error.to_string();
    assert!(told.contains("server.tls") && told.contains("cert.pem"), "{told}");
}
