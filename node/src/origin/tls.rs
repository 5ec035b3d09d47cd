//! TLS towards an origin: whom it trusts, which name it demands, which version of HTTP it offers.
//!
//! Always true: a certificate is verified, against `tls_ca` if that is given (and then nothing else), otherwise against the
//! system's roots. There is no switch that turns verification off.

use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsConnector;

use super::error::OriginsError;
use crate::config::{CertificateFiles, Http2, OriginConfig};

/// Sessions remembered for resumption, over all endpoints of an origin; the oldest is forgotten.
pub const TLS_SESSIONS_MAX: usize = 256;

/// The protocol identifier of HTTP/2 in ALPN (RFC 9113 §3.2).
pub(super) const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// The system's roots, read when the first origin needs them and shared by all that do.
#[derive(Default)]
pub(super) struct SystemRoots(Option<Arc<RootCertStore>>);

/// The TLS settings that the endpoints of one origin share; sessions are resumed across all of them.
pub(super) fn connector(origin: &OriginConfig, system: &mut SystemRoots) -> Result<TlsConnector, OriginsError> {
    let roots = match &origin.tls_ca {
        Some(path) => Arc::new(roots_of_file(&origin.name, path)?),
        None => system.roots(&origin.name)?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| OriginsError::Tls { origin: origin.name.clone(), source })?
        .with_root_certificates(roots);
    let mut config = match &origin.tls_client {
        None => config.with_no_client_auth(),
        Some(files) => {
            let (chain, key) = client_certificate(&origin.name, files)?;
            config
                .with_client_auth_cert(chain, key)
                .map_err(|source| OriginsError::Tls { origin: origin.name.clone(), source })?
        }
    };
    config.resumption = Resumption::in_memory_sessions(TLS_SESSIONS_MAX);
    config.alpn_protocols = match origin.http2 {
        Http2::Auto => vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()],
        Http2::Always => vec![ALPN_HTTP2.to_vec()],
        Http2::Never => vec![ALPN_HTTP1.to_vec()],
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The name that the certificate of an endpoint must carry, and that SNI says if it is no address.
pub(super) fn server_name(origin: &OriginConfig, host: &str) -> Result<ServerName<'static>, OriginsError> {
    let name = origin.tls_server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned())
        .map_err(|_| OriginsError::ServerName { origin: origin.name.clone(), name: name.to_owned() })
}

/// Tells whether the files that an origin's section names hold something else than before.
pub(super) fn files_digest(origin: &OriginConfig) -> u64 {
    let client = origin.tls_client.iter().flat_map(|files| [&files.cert, &files.key]);
    let mut all = Vec::new();
    for path in origin.tls_ca.iter().chain(client) {
        // One that cannot be read is an error where it is used.
        all.extend(std::fs::read(path).unwrap_or_default());
        all.push(0);
    }
    xxhash_rust::xxh3::xxh3_64(&all)
}

/// What the node shows of itself to an endpoint that asks for it (RFC 8446 §4.4.2).
fn client_certificate(
    origin: &str,
    files: &CertificateFiles,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), OriginsError> {
    let refused = |path: &Path, reason: String| OriginsError::ClientCertificate {
        origin: origin.to_owned(),
        path: path.display().to_string(),
        reason,
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&files.cert).and_then(|certificates| certificates.collect());
    let chain = chain.map_err(|error| refused(&files.cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(refused(&files.cert, "there is no certificate in it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| refused(&files.key, error.to_string()))?;
    Ok((chain, key))
}

fn roots_of_file(origin: &str, path: &Path) -> Result<RootCertStore, OriginsError> {
    let refused =
        |reason: String| OriginsError::CaFile { origin: origin.to_owned(), path: path.display().to_string(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| refused(error.to_string()))? {
        let certificate = certificate.map_err(|error| refused(error.to_string()))?;
        roots.add(certificate).map_err(|error| refused(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(refused("there is no certificate in it".to_owned()));
    }
    Ok(roots)
}

impl SystemRoots {
    /// A root that rustls cannot read is left out: system stores hold such ones, and trusting fewer is safe.
    fn roots(&mut self, origin: &str) -> Result<Arc<RootCertStore>, OriginsError> {
        if let Some(roots) = &self.0 {
            return Ok(Arc::clone(roots));
        }
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let reason = found.errors.first().map_or_else(|| "none was found".to_owned(), ToString::to_string);
            return Err(OriginsError::NoRoots { origin: origin.to_owned(), reason });
        }
        Ok(Arc::clone(self.0.insert(Arc::new(roots))))
    }
}
