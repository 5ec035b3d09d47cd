//! Certificates: read from PEM files, or made for localhost and kept.
//!
//! Always true:
//! - A certificate is given out only with the key that it names.
//! - A private key that is made here is readable by its owner alone, and never logged.
//! - The self-signed certificate is kept over restarts, so that a client that trusts it goes on trusting it, and is made
//!   anew when it cannot be read or has fewer than [`RENEW_BEFORE`] to live.
//!
//! Not here: choosing among them (`tls`).

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::config::CertificateFiles;

/// Life of a self-signed certificate.
pub const SELF_SIGNED_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// A self-signed certificate is made anew when it has less to live.
pub const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
/// PEM files above this are not read: a chain has a few KiB.
pub const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// The names of the self-signed certificate.
const SELF_SIGNED_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const SELF_SIGNED_CERT: &str = "localhost.pem";
const SELF_SIGNED_KEY: &str = "localhost-key.pem";
/// Clocks of clients may be behind ours.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is too big to be a certificate.
    #[error("{}: more than {PEM_BYTES_MAX} bytes is not a certificate or key", path.display())]
    TooBig {
        /// The file.
        path: PathBuf,
    },
    /// The file has no certificate in PEM, or a broken one.
    #[error("{}: no usable certificate: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file has no private key in PEM, or one of a kind that is not known.
    #[error("{}: no usable private key: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key do not belong together.
    #[error("{} is not the key of {}", key.display(), cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The self-signed certificate cannot be kept.
    #[error("keep the self-signed certificate in {}: {source}", dir.display())]
    Keep {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The self-signed certificate cannot be made.
    #[error("make a self-signed certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// What is known of a certificate in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSummary {
    /// Where it was read from. What clients must trust, for the self-signed one.
    pub path: PathBuf,
    /// The DNS names that it covers, lower case, `*.` among them.
    pub names: Vec<Box<str>>,
    /// When it expires.
    pub not_after: SystemTime,
    /// Made here.
    pub is_self_signed: bool,
}

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) summary: CertificateSummary,
}

/// Reads a chain and its key. One that is expired is used, with a warning: refusing it would end more than it protects.
pub(super) fn read(files: &CertificateFiles, now: SystemTime) -> Result<Certificate, CertificateError> {
    let certificate = read_pair(files)?;
    if certificate.summary.not_after < now {
        tracing::warn!(path = %files.cert.display(), "certificate is expired");
    }
    if certificate.summary.names.is_empty() {
        tracing::warn!(path = %files.cert.display(), "certificate has no DNS name: it can only be the default");
    }
    Ok(certificate)
}

/// The kept self-signed certificate for localhost, made if there is none that can be used.
pub(super) fn self_signed(dir: &Path, now: SystemTime) -> Result<Certificate, CertificateError> {
    let files = CertificateFiles { cert: dir.join(SELF_SIGNED_CERT), key: dir.join(SELF_SIGNED_KEY) };
    match read_pair(&files) {
        Ok(kept) if kept.summary.not_after >= now + RENEW_BEFORE => return Ok(as_self_signed(kept)),
        Ok(_) => tracing::info!(path = %files.cert.display(), "the self-signed certificate expires: making a new one"),
        Err(CertificateError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "the self-signed certificate cannot be used: making a new one"),
    }
    let (cert, key) = make_self_signed(now)?;
    let keep = || {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        // The key first: a certificate without its key is found by the next start and replaced, as is a mismatch.
        write_whole(&files.key, key.as_bytes(), 0o600)?;
        write_whole(&files.cert, cert.as_bytes(), 0o644)
    };
    keep().map_err(|source| CertificateError::Keep { dir: dir.to_owned(), source })?;
    read_pair(&files).map(as_self_signed)
}

fn as_self_signed(mut certificate: Certificate) -> Certificate {
    certificate.summary.is_self_signed = true;
    certificate
}

fn make_self_signed(now: SystemTime) -> Result<(String, String), rcgen::Error> {
    let mut params = rcgen::CertificateParams::new(SELF_SIGNED_NAMES.map(String::from))?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "Brim on localhost");
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + SELF_SIGNED_LIFE).into();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let key = rcgen::KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Writes beside `path` and renames, so that nobody reads a half. The mode is set at creation, never after.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

fn read_pair(files: &CertificateFiles) -> Result<Certificate, CertificateError> {
    let unusable = |reason: String| CertificateError::Certificate { path: files.cert.clone(), reason };
    let chain = CertificateDer::pem_slice_iter(&read_pem(&files.cert)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(error.to_string()))?;
    let Some(first) = chain.first() else {
        return Err(unusable("no CERTIFICATE section".to_owned()));
    };
    let (_, parsed) = X509Certificate::from_der(first).map_err(|error| unusable(error.to_string()))?;
    let summary = CertificateSummary {
        path: files.cert.clone(),
        names: dns_names(&parsed),
        not_after: since_epoch(parsed.validity().not_after.timestamp()),
        is_self_signed: false,
    };
    let no_key = |reason: String| CertificateError::Key { path: files.key.clone(), reason };
    let key = PrivateKeyDer::from_pem_slice(&read_pem(&files.key)?).map_err(|error| no_key(error.to_string()))?;
    let key = aws_lc_rs::sign::any_supported_type(&key).map_err(|error| no_key(error.to_string()))?;
    let key = CertifiedKey::new(chain, key);
    match key.keys_match() {
        Ok(()) => Ok(Certificate { key: Arc::new(key), summary }),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(CertificateError::Mismatch { cert: files.cert.clone(), key: files.key.clone() })
        }
        Err(error) => Err(unusable(error.to_string())),
    }
}

fn read_pem(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let failed = |source| CertificateError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(failed)?.len() > PEM_BYTES_MAX {
        return Err(CertificateError::TooBig { path: path.to_owned() });
    }
    fs::read(path).map_err(failed)
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<Box<str>> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into_boxed_str()),
            _ => None,
        })
        .collect()
}

fn since_epoch(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
#[path = "certificates_tests.rs"]
mod tests;
