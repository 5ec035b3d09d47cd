//! TLS to an endpoint: whom we trust, and what is kept between connections.

use std::path::PathBuf;

use http::Response;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use super::super::{ErrorKind, OriginsError};
use super::*;
use crate::config::CertificateFiles;

/// A certificate authority with its certificate in a file.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

/// A TLS server that gives every request the same answer.
pub(super) struct TlsServer {
    pub(super) address: SocketAddr,
    pub(super) accepted: Arc<AtomicUsize>,
    pub(super) resumed: Arc<AtomicUsize>,
}

impl TlsServer {
    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).expect("a file");
        Self { issuer, dir }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate for a client, in files.
    fn client(&self, name: &str) -> CertificateFiles {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let (cert, key_file) = (self.dir.path().join("client.pem"), self.dir.path().join("client-key.pem"));
        std::fs::write(&cert, certificate.pem()).expect("a file");
        std::fs::write(&key_file, key.serialize_pem()).expect("a file");
        CertificateFiles { cert, key: key_file }
    }

    /// Admits clients alone that this authority has certified.
    fn mutual_acceptor(&self, name: &str) -> TlsAcceptor {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a usable certificate");
        TlsAcceptor::from(Arc::new(config))
    }

    pub(super) fn acceptor(&self, name: &str, alpn: &[&[u8]]) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a usable certificate");
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// HTTP/1.1 over TLS, by hyper.
    pub(super) async fn server(&self, name: &str, alpn: &[&[u8]], _answer: &str) -> TlsServer {
        Self::serve(self.acceptor(name, alpn)).await
    }

    async fn serve(acceptor: TlsAcceptor) -> TlsServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = TlsServer { address, accepted: Arc::default(), resumed: Arc::default() };
        let (accepted, resumed) = (Arc::clone(&server.accepted), Arc::clone(&server.resumed));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, SeqCst);
                let (acceptor, resumed) = (acceptor.clone(), Arc::clone(&resumed));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    if stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
                        resumed.fetch_add(1, SeqCst);
                    }
                    let service = hyper::service::service_fn(|_| async {
                        Ok::<_, std::io::Error>(Response::new("ok".to_owned()))
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        server
    }
}

fn tls_config(port: u16, ca: &Authority) -> OriginConfig {
    OriginConfig { endpoints: vec![endpoint("127.0.0.1", port, true)], tls_ca: Some(ca.file()), ..config(&[]) }
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_is_accepted() {
    let ca = Authority::new();
    let server = ca.server("127.0.0.1", &[b"http/1.1"], "ok").await;
    let origin = origin(tls_config(server.port(), &ca));
    for _ in 0..3 {
        assert_eq!(text(origin.send(get("/")).await.expect("an answer")).await, "ok");
    }
    assert_eq!(server.accepted.load(SeqCst), 1);
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = theirs.server("127.0.0.1", &[], "ok").await;
    let origin = origin(tls_config(server.port(), &ours));
    let error = refusal(&origin, get("/")).await;
    assert!(matches!(error, ForwardError::Tls { .. }), "{error}");
    assert_eq!((error.status().as_u16(), error.as_detail()), (502, "tls"));
    until("it is closed", || open(&origin) == 0).await;
    assert_eq!(origin.snapshot().endpoints[0].counts.errors, [(ErrorKind::Tls, 1)]);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_unless_that_name_is_asked_for() {
    let ca = Authority::new();
    let server = ca.server("origin.test", &[], "ok").await;
    let error = refusal(&origin(tls_config(server.port(), &ca)), get("/")).await;
    assert!(matches!(error, ForwardError::Tls { .. }), "{error}");
    let named =
        origin(OriginConfig { tls_server_name: Some("origin.test".to_owned()), ..tls_config(server.port(), &ca) });
    assert_eq!(text(named.send(get("/")).await.expect("an answer")).await, "ok");
}

#[tokio::test]
async fn an_endpoint_that_asks_for_a_certificate_gets_ours() {
    let (ca, other) = (Authority::new(), Authority::new());
    let server = Authority::serve(ca.mutual_acceptor("127.0.0.1")).await;
    let shown = |files: Option<CertificateFiles>| OriginConfig { tls_client: files, ..tls_config(server.port(), &ca) };
    let known = origin(shown(Some(ca.client("node.test"))));
    assert_eq!(text(known.send(get("/")).await.expect("an answer")).await, "ok");
    for files in [None, Some(other.client("node.test"))] {
        // In TLS 1.3 the refusal comes after the handshake.
        let error = refusal(&origin(shown(files)), get("/")).await;
        assert_eq!(error.status().as_u16(), 502, "{error:?}");
    }
    let mixed = CertificateFiles { key: other.client("x").key, ..ca.client("y") };
    let refused = Origins::new(&BTreeMap::from([("api".to_owned(), shown(Some(mixed)))]));
    assert!(refused.is_err(), "the key of another certificate");
    let absent = CertificateFiles { cert: "/nowhere/cert.pem".into(), key: "/nowhere/key.pem".into() };
    let refused = Origins::new(&BTreeMap::from([("api".to_owned(), shown(Some(absent)))])).expect_err("no file");
    assert!(refused.to_string().contains("/nowhere/cert.pem"), "{refused}");
}

#[tokio::test]
async fn a_session_is_resumed() {
    let ca = Authority::new();
    let server = ca.server("127.0.0.1", &[], "ok").await;
    let origins = origins(tls_config(server.port(), &ca));
    // Nothing is kept, so each request makes a connection.
    origins.close();
    let origin = origins.get("api").expect("it is there");
    for _ in 0..3 {
        assert_eq!(text(origin.send(get("/")).await.expect("an answer")).await, "ok");
    }
    assert_eq!((server.accepted.load(SeqCst), server.resumed.load(SeqCst)), (3, 2));
}

#[tokio::test]
async fn http2_only_needs_an_endpoint_that_agrees() {
    let ca = Authority::new();
    let server = ca.server("127.0.0.1", &[], "ok").await;
    let origin = origin(OriginConfig { http2: Http2::Always, ..tls_config(server.port(), &ca) });
    let error = refusal(&origin, get("/")).await;
    assert!(matches!(error, ForwardError::ConnectFailed { .. }), "{error}");
}

#[test]
fn settings_that_cannot_work_are_refused_with_their_place() {
    let ca = Authority::new();
    let refused =
        |config: OriginConfig| Origins::new(&BTreeMap::from([("api".to_owned(), config)])).expect_err("refused");
    let missing = refused(OriginConfig { tls_ca: Some(PathBuf::from("no-such-file.pem")), ..tls_config(1, &ca) });
    assert!(matches!(missing, OriginsError::CaFile { .. }), "{missing}");
    assert!(missing.to_string().starts_with("origins.api.tls_ca: no-such-file.pem: "), "{missing}");
    let empty = ca.dir.path().join("empty.pem");
    std::fs::write(&empty, "").expect("a file");
    assert!(matches!(refused(OriginConfig { tls_ca: Some(empty), ..tls_config(1, &ca) }), OriginsError::CaFile { .. }));
    let bad_name = refused(OriginConfig { tls_server_name: Some("a b".to_owned()), ..tls_config(1, &ca) });
    assert!(matches!(bad_name, OriginsError::ServerName { .. }), "{bad_name}");
}

/// A reload with the same paths: a file that was renewed counts, one that was not costs no connection.
#[tokio::test]
async fn a_renewed_file_is_read_at_a_reload() {
    let ca = Authority::new();
    let server = Authority::serve(ca.mutual_acceptor("127.0.0.1")).await;
    let config = OriginConfig { tls_client: Some(ca.client("node.test")), ..tls_config(server.port(), &ca) };
    let configs = BTreeMap::from([("api".to_owned(), config)]);
    let before = Origins::new(&configs).expect("usable origins");
    let kept = Origins::successor(&configs, &configs, &before).expect("usable origins");
    assert!(Arc::ptr_eq(&before.get("api").expect("it is there"), &kept.get("api").expect("it is there")));
    ca.client("renewed.test");
    let renewed =
        Origins::successor(&configs, &configs, &kept).expect("usable origins").get("api").expect("it is there");
    assert!(!Arc::ptr_eq(&renewed, &kept.get("api").expect("it is there")));
    assert_eq!(text(renewed.send(get("/")).await.expect("an answer")).await, "ok");
}
