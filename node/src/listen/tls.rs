//! TLS 1.3 and 1.2: which certificate a client gets, and how the set is replaced while connections go on.
//!
//! Always true:
//! - A certificate is chosen by server name: the exact name, else the wildcard of its parent, else the first configured.
//! - Of several certificates for one name, the first whose key the client can verify is taken (ECDSA beside RSA).
//! - A reload replaces the whole set or none of it. Connections and tickets from before go on.
//! - Sessions resume by tickets whose keys rotate; 0-RTT data is never accepted (a replay could repeat a request).
//!
//! Not here: reading and making certificates (`certificates`), whether an authority fits its certificate (`request`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert, ServerConnection};
use rustls::sign::CertifiedKey;
use rustls::{ProtocolVersion, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::certificates::{self, Certificate, CertificateError, CertificateSummary};
use super::info::{Protocol, TlsInfo, TlsVersion};
use crate::config::TlsConfig;

const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// rustls refused its own configuration.
    #[error("TLS configuration: {0}")]
    Config(#[from] rustls::Error),
}

/// The TLS side of all listeners.
pub struct Tls {
    acceptor: TlsAcceptor,
    resolver: Arc<Resolver>,
    data_dir: PathBuf,
}

impl Tls {
    /// Reads the configured certificates, or makes a self-signed one for localhost and keeps it in `data_dir/tls`.
    /// Blocks on files.
    pub fn new(config: &TlsConfig, data_dir: &Path, now: SystemTime) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificates = Certificates::load(config, data_dir, now)?;
        let resolver = Arc::new(Resolver(ArcSwap::from_pointee(certificates)));
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(resolver.clone());
        server.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
        server.ticketer = aws_lc_rs::Ticketer::new()?;
        let acceptor = TlsAcceptor::from(Arc::new(server));
        Ok(Arc::new(Self { acceptor, resolver, data_dir: data_dir.to_owned() }))
    }

    /// Reads the certificates again. On an error those in use stay. Blocks on files.
    pub fn reload(&self, config: &TlsConfig, now: SystemTime) -> Result<(), TlsError> {
        let certificates = Certificates::load(config, &self.data_dir, now)?;
        self.resolver.0.store(Arc::new(certificates));
        Ok(())
    }

    /// The certificates in use, the default first.
    pub fn certificates(&self) -> Vec<CertificateSummary> {
        self.resolver.0.load().all.iter().map(|certificate| certificate.summary.clone()).collect()
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("certificates", &self.certificates()).finish_non_exhaustive()
    }
}

/// What the handshake on `session` agreed on.
pub(super) fn tls_info(session: &ServerConnection) -> TlsInfo {
    TlsInfo {
        sni: session.server_name().map(|name| name.to_ascii_lowercase().into_boxed_str()),
        alpn: match session.alpn_protocol() {
            Some(ALPN_HTTP2) => Some(Protocol::Http2),
            Some(_) => Some(Protocol::Http1),
            None => None,
        },
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
            _ => TlsVersion::Tls13,
        },
    }
}

struct Resolver(ArcSwap<Certificates>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.0.load();
        let usable =
            |index: &&usize| certificates.all[**index].key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = certificates.named(hello.server_name());
        // A key that the client cannot verify fails the handshake with the alert that says so.
        let index = named.iter().find(usable).or(named.first()).copied().unwrap_or(0);
        certificates.all.get(index).map(|certificate| certificate.key.clone())
    }
}

/// A set of certificates. Never empty; the first is the default.
struct Certificates {
    all: Vec<Certificate>,
    exact: HashMap<Box<str>, Vec<usize>>,
    /// By the name without its first label: `*.example.com` is under `example.com`.
    wildcard: HashMap<Box<str>, Vec<usize>>,
    first: [usize; 1],
}

impl Certificates {
    fn load(config: &TlsConfig, data_dir: &Path, now: SystemTime) -> Result<Self, CertificateError> {
        let all = if config.certificates.is_empty() {
            vec![certificates::self_signed(&data_dir.join("tls"), now)?]
        } else {
            config.certificates.iter().map(|files| certificates::read(files, now)).collect::<Result<_, _>>()?
        };
        Ok(Self::new(all))
    }

    fn new(all: Vec<Certificate>) -> Self {
        let mut exact: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        let mut wildcard: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        for (index, certificate) in all.iter().enumerate() {
            for name in &certificate.summary.names {
                match name.strip_prefix("*.") {
                    Some(parent) => wildcard.entry(parent.into()).or_default().push(index),
                    None => exact.entry(name.clone()).or_default().push(index),
                }
            }
        }
        Self { all, exact, wildcard, first: [0] }
    }

    /// The certificates for a server name, in the order of configuration (RFC 9525 §6.3: a wildcard is one whole label).
    fn named(&self, server_name: Option<&str>) -> &[usize] {
        let Some(name) = server_name else { return &self.first };
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(name.to_ascii_lowercase())
        } else {
            Cow::Borrowed(name)
        };
        let exact = self.exact.get(name.as_ref());
        let of_parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        exact.or_else(of_parent).map_or(&self.first, Vec::as_slice)
    }
}
