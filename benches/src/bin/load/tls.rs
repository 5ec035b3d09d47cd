//! One certificate for all servers, and a client that trusts it and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;

use crate::workload::Protocol;

/// The name in the certificate.
pub(crate) const SERVER_NAME: &str = "localhost";

/// A certificate in files, for as long as their folder is there.
pub(crate) struct Certificate {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    der: CertificateDer<'static>,
}

impl Certificate {
    /// Makes one: ECDSA on P-256, as most servers have today.
    pub(crate) fn make(folder: &Path) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()]).context("make a certificate")?;
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        fs::write(&cert, made.cert.pem()).context("write the certificate")?;
        fs::write(&key, made.signing_key.serialize_pem()).context("write its key")?;
        Ok(Self { cert, key, der: made.cert.der().clone() })
    }

    /// What a client needs to speak `protocol` with a server that has it.
    pub(crate) fn client(&self, protocol: Protocol) -> anyhow::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).context("trust the certificate")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("choose versions of TLS")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![match protocol {
            Protocol::Http1 => b"http/1.1".to_vec(),
            Protocol::Http2 => b"h2".to_vec(),
        }];
        Ok(Arc::new(config))
    }
}
