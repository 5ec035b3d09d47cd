//! Certificates for tests: a CA, leafs by name, and what a client trusts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};

/// A certificate authority made for one test.
pub struct TestCa(CertifiedIssuer<'static, KeyPair>);

impl TestCa {
    /// A new authority, trusted by nobody yet.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Brim test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, new_key()).expect("the parameters are complete"))
    }

    /// A certificate for these DNS names and IP addresses.
    #[must_use]
    pub fn leaf(&self, names: &[&str]) -> Leaf {
        self.sign(leaf_params(names))
    }

    /// The same, but its time is long over.
    #[must_use]
    pub fn expired_leaf(&self, names: &[&str]) -> Leaf {
        let mut params = leaf_params(names);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Leaf {
        let key = new_key();
        let certificate = params.signed_by(&key, &self.0).expect("the parameters are complete");
        Leaf { cert_pem: certificate.pem(), key_pem: key.serialize_pem(), der: certificate.der().clone() }
    }

    /// The authority's own certificate, for a `tls_ca` of a configuration.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes [`TestCa::pem`] to `ca.pem` in this folder.
    #[must_use]
    pub fn write_to(&self, dir: &Path) -> PathBuf {
        let path = dir.join("ca.pem");
        std::fs::write(&path, self.pem()).expect("the folder of the test is writable");
        path
    }

    /// Trusts what this authority signed, and nothing else.
    #[must_use]
    pub fn trust(&self) -> Trust {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("an authority made by rcgen");
        Trust(Verify::Roots(Arc::new(roots)))
    }
}

impl Default for TestCa {
    fn default() -> Self {
        Self::new()
    }
}

/// A server's certificate with its key.
#[derive(Debug, Clone)]
pub struct Leaf {
    cert_pem: String,
    key_pem: String,
    der: CertificateDer<'static>,
}

impl Leaf {
    /// A certificate that no authority signed.
    #[must_use]
    pub fn self_signed(names: &[&str]) -> Self {
        let key = new_key();
        let certificate = leaf_params(names).self_signed(&key).expect("the parameters are complete");
        Self { cert_pem: certificate.pem(), key_pem: key.serialize_pem(), der: certificate.der().clone() }
    }

    /// The certificate, to compare with the one that a server showed.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Writes `NAME.cert.pem` and `NAME.key.pem` to this folder.
    #[must_use]
    pub fn write_to(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let paths = (dir.join(format!("{name}.cert.pem")), dir.join(format!("{name}.key.pem")));
        std::fs::write(&paths.0, &self.cert_pem).expect("the folder of the test is writable");
        std::fs::write(&paths.1, &self.key_pem).expect("the folder of the test is writable");
        paths
    }

    /// Trusts this very certificate, and nothing else.
    #[must_use]
    pub fn trust(&self) -> Trust {
        Trust::exactly(&self.der)
    }

    /// A server that shows this certificate and agrees to these protocols.
    pub(crate) fn server_config(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("a key made by rcgen");
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs has the default versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], key)
            .expect("certificate and key belong together");
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }
}

/// Which servers a client believes.
#[derive(Debug, Clone)]
pub struct Trust(Verify);

#[derive(Debug, Clone)]
enum Verify {
    Roots(Arc<RootCertStore>),
    Exactly(CertificateDer<'static>),
    Anything,
}

impl Trust {
    /// This very certificate, whatever name it has: for the self-signed one that a node made.
    #[must_use]
    pub fn exactly(der: &[u8]) -> Self {
        Self(Verify::Exactly(CertificateDer::from(der.to_vec())))
    }

    /// The first certificate of this PEM file, exactly.
    #[must_use]
    pub fn exactly_pem_file(path: &Path) -> Self {
        let certificate =
            CertificateDer::from_pem_file(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(Verify::Exactly(certificate))
    }

    /// Any certificate, where a test is about something else.
    #[must_use]
    pub const fn anything() -> Self {
        Self(Verify::Anything)
    }

    pub(crate) fn client_config(
        &self,
        alpn: &[u8],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("aws-lc-rs has the versions of rustls");
        let mut config = match &self.0 {
            Verify::Roots(roots) => builder.with_root_certificates(Arc::clone(roots)).with_no_client_auth(),
            Verify::Exactly(certificate) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Pinned::to(Some(certificate.clone()))))
                .with_no_client_auth(),
            Verify::Anything => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Pinned::to(None))).with_no_client_auth()
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        Arc::new(config)
    }
}

/// Compares the certificate alone; the handshake must still be signed by its key.
#[derive(Debug)]
struct Pinned {
    certificate: Option<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    fn to(certificate: Option<CertificateDer<'static>>) -> Self {
        Self { certificate, algorithms: provider().signature_verification_algorithms }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.certificate {
            Some(expected) if expected != shown => Err(CertificateError::ApplicationVerificationFailure.into()),
            Some(_) | None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("the system gives random numbers")
}

fn leaf_params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("the test names good DNS names or addresses");
    params.distinguished_name.push(DnType::CommonName, "Brim test server");
    params
}
