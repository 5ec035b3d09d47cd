//! `[tls]`: the certificates of the data port.

use std::path::PathBuf;

use super::reader::Section;

/// `[tls]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsConfig {
    /// Chosen by SNI. Empty: a self-signed one for localhost, kept in the data directory.
    pub certificates: Vec<CertificateFiles>,
}

/// A certificate chain and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the node's own certificate first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

pub(super) fn read(section: Section<'_>) -> TlsConfig {
    let certificates = section.list("certificates");
    let certificates = certificates.iter().filter_map(|value| files(value.section()?)).collect();
    section.finish();
    TlsConfig { certificates }
}

/// `{ cert = "…", key = "…" }`.
pub(super) fn files(section: Section<'_>) -> Option<CertificateFiles> {
    let cert = section.required("cert", Section::present_file);
    let key = section.required("key", Section::present_file);
    section.finish();
    Some(CertificateFiles { cert: cert?, key: key? })
}
