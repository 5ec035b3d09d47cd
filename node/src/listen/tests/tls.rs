//! TLS: protocols, certificates by name, reload, resumption, slow handshakes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::harness::*;
use crate::config::{CertificateFiles, ListenConfig, TlsConfig};

fn https() -> ListenConfig {
    ListenConfig { http: Vec::new(), https: vec!["127.0.0.1:0".parse().expect("an address")], ..config() }
}

/// A self-signed certificate for `names` in files called after `stem`.
fn make(dir: &Path, stem: &str, names: &[&str]) -> CertificateFiles {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("made");
    let files = CertificateFiles { cert: dir.join(format!("{stem}.pem")), key: dir.join(format!("{stem}-key.pem")) };
    std::fs::write(&files.cert, made.cert.pem()).expect("written");
    std::fs::write(&files.key, made.signing_key.serialize_pem()).expect("written");
    files
}

fn client(trusted: &[&Path], alpn: &[&[u8]], versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for path in trusted {
        roots.add(CertificateDer::from_pem_file(path).expect("a certificate")).expect("trusted");
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

async fn connect(server: &TestServer, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server.https.expect("an https listener")).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    TlsConnector::from(config.clone()).connect(name, stream).await
}

/// The first DNS name of the certificate that a client gets.
async fn certificate_for(server: &TestServer, config: &Arc<ClientConfig>, name: &str) -> Vec<u8> {
    let stream = connect(server, config, name).await.expect("a handshake");
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].to_vec()
}

fn der(files: &CertificateFiles) -> Vec<u8> {
    CertificateDer::from_pem_file(&files.cert).expect("a certificate").to_vec()
}

#[tokio::test]
async fn alpn_chooses_the_protocol_and_the_self_signed_certificate_covers_localhost() {
    let server = TestServer::start(https());
    let tls = server.context.tls.clone().expect("TLS");
    let made = tls.certificates().remove(0);
    assert!(made.is_self_signed);

    let h2 = Arc::new(client(&[&made.path], &[b"h2", b"http/1.1"], BOTH));
    let mut sender = http2(connect(&server, &h2, "localhost").await.expect("a handshake")).await;
    let info = content(sender.send_request(get("/info")).await.expect("a response")).await;
    let info = String::from_utf8_lossy(&info).into_owned();
    assert!(info.starts_with("Http2 ") && info.contains("localhost") && info.contains("Tls13"), "{info}");
    let response = sender.send_request(get("/stream/40")).await.expect("a response");
    assert_eq!(content(response).await.len(), 40 << 16);

    for (alpn, expected) in [(&[b"http/1.1".as_slice()][..], "alpn: Some(Http1)"), (&[], "alpn: None")] {
        let http1 = Arc::new(client(&[&made.path], alpn, &[&rustls::version::TLS12]));
        let mut stream = connect(&server, &http1, "127.0.0.1").await.expect("a handshake");
        let info = exchange(&mut stream, "GET /info HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(info.contains("Http1 Some") && info.contains("sni: None") && info.contains("Tls12"), "{info}");
        assert!(info.contains(expected), "{info}");
    }
    assert_eq!(server.counted(|counters| &counters.tls_handshakes), 3);
}

#[tokio::test]
async fn parallel_streams_over_tls_are_all_answered() {
    let server = TestServer::start(https());
    let path = server.context.tls.clone().expect("TLS").certificates().remove(0).path;
    let h2 = Arc::new(client(&[&path], &[b"h2"], BOTH));
    let sender = http2(connect(&server, &h2, "localhost").await.expect("a handshake")).await;
    let mut requests = tokio::task::JoinSet::new();
    for round in 0..160 {
        let mut sender = sender.clone();
        requests.spawn(async move {
            let length = [10, 1000, 4000, 200_000][round % 4];
            sender.ready().await.expect("ready");
            let response = sender.send_request(get(&format!("/bytes/{length}"))).await.expect("a response");
            assert_eq!(content(response).await.len(), length);
        });
    }
    while let Some(ended) = requests.join_next().await {
        ended.expect("answered");
    }
}

#[tokio::test]
async fn certificates_are_chosen_by_server_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let default = make(dir.path(), "default", &["default.test"]);
    let wild = make(dir.path(), "wild", &["*.Example.test", "example.test"]);
    let exact = make(dir.path(), "exact", &["api.example.test"]);
    let certificates = vec![default.clone(), wild.clone(), exact.clone()];
    let server = TestServer::start_with(https(), &TlsConfig { certificates });
    let trusting = Arc::new(client(&[&default.cert, &wild.cert, &exact.cert], &[], BOTH));
    for (name, expected) in [
        ("default.test", &default),
        ("api.example.test", &exact),
        ("API.example.test", &exact),
        ("www.example.test", &wild),
        ("example.test", &wild),
    ] {
        assert_eq!(certificate_for(&server, &trusting, name).await, der(expected), "{name}");
    }
    // Others get the first, which does not fit: a wildcard is one label (RFC 9525 §6.3).
    for name in ["a.b.example.test", "other.test"] {
        let error = connect(&server, &trusting, name).await.expect_err("not covered").to_string();
        assert!(error.contains("not valid for name"), "{error}");
    }
    server.until(|counters| &counters.tls_failures, 2).await;
}

#[tokio::test]
async fn a_reload_changes_new_connections_only_and_a_bad_file_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let old = make(dir.path(), "old", &["localhost"]);
    let new = make(dir.path(), "new", &["localhost"]);
    let server = TestServer::start_with(https(), &TlsConfig { certificates: vec![old.clone()] });
    let tls = server.context.tls.clone().expect("TLS");
    // A session of its own each time, so that a certificate is shown.
    let fresh = || Arc::new(client(&[&old.cert, &new.cert], &[b"h2"], BOTH));
    let mut sender = http2(connect(&server, &fresh(), "localhost").await.expect("a handshake")).await;

    std::fs::write(dir.path().join("bad.pem"), "rubbish").expect("written");
    let bad = CertificateFiles { cert: dir.path().join("bad.pem"), key: new.key.clone() };
    let error = tls.reload(&TlsConfig { certificates: vec![new.clone(), bad] }, SystemTime::now()).expect_err("bad");
    assert!(error.to_string().contains("bad.pem"), "{error}");
    assert_eq!(certificate_for(&server, &fresh(), "localhost").await, der(&old));

    tls.reload(&TlsConfig { certificates: vec![new.clone()] }, SystemTime::now()).expect("good");
    assert_eq!(certificate_for(&server, &fresh(), "localhost").await, der(&new));
    let response = sender.send_request(get("/")).await.expect("the old connection goes on");
    assert_eq!(content(response).await, "hello");
}

#[tokio::test]
async fn sessions_are_resumed_on_both_versions() {
    let server = TestServer::start(https());
    let path = server.context.tls.clone().expect("TLS").certificates().remove(0).path;
    for version in BOTH {
        let config = Arc::new(client(&[&path], &[b"http/1.1"], &[version]));
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut stream = connect(&server, &config, "localhost").await.expect("a handshake");
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected), "{version:?}");
            exchange(&mut stream, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        }
    }
}

#[tokio::test]
async fn a_slow_handshake_is_cut_and_delays_nobody() {
    let server = TestServer::start(ListenConfig { handshake_timeout: Duration::from_millis(100), ..https() });
    let path = server.context.tls.clone().expect("TLS").certificates().remove(0).path;
    let mut silent = TcpStream::connect(server.https.expect("an https listener")).await.expect("connected");
    server.until(|counters| &counters.open, 1).await;
    let quick = Arc::new(client(&[&path], &[], BOTH));
    connect(&server, &quick, "localhost").await.expect("served meanwhile");
    assert_eq!(until_closed(&mut silent).await, "");
    assert_eq!(server.counted(|counters| &counters.tls_failures), 1);
}

#[tokio::test]
async fn plaintext_on_the_tls_port_is_a_failed_handshake() {
    let server = TestServer::start(https());
    let mut stream = TcpStream::connect(server.https.expect("an https listener")).await.expect("connected");
    exchange(&mut stream, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    server.until(|counters| &counters.tls_failures, 1).await;
}
