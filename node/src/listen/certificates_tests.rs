//! Reading and making certificates, on files in a directory of the test's own.

use std::os::unix::fs::PermissionsExt;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[test]
fn the_self_signed_certificate_is_kept_and_its_key_is_private() {
    let dir = tempfile::tempdir().expect("a directory");
    let (dir, now) = (dir.path().join("data/tls"), SystemTime::now());
    let first = self_signed(&dir, now).expect("made");
    assert_eq!(first.summary.names, [Box::from("localhost")]);
    assert!(first.summary.is_self_signed);
    assert_eq!(mode(&dir.join(SELF_SIGNED_KEY)), 0o600);
    assert_eq!(mode(&dir), 0o700);
    let second = self_signed(&dir, now + DAY).expect("kept");
    assert_eq!(first.key.cert, second.key.cert);
}

#[test]
fn the_self_signed_certificate_covers_the_loopback_addresses() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = self_signed(dir.path(), SystemTime::now()).expect("made");
    let (_, parsed) = X509Certificate::from_der(&made.key.cert[0]).expect("parsed");
    let names = parsed.subject_alternative_name().expect("valid").expect("present");
    let addresses: Vec<_> = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::IPAddress(address) => Some(address.to_vec()),
            _ => None,
        })
        .collect();
    assert_eq!(addresses, [vec![127, 0, 0, 1], [&[0; 15][..], &[1]].concat()]);
}

#[test]
fn the_self_signed_certificate_is_renewed_before_it_expires() {
    let dir = tempfile::tempdir().expect("a directory");
    let now = SystemTime::now();
    let first = self_signed(dir.path(), now).expect("made");
    let later = now + SELF_SIGNED_LIFE - RENEW_BEFORE + DAY;
    let renewed = self_signed(dir.path(), later).expect("renewed");
    assert_ne!(first.key.cert, renewed.key.cert);
    assert!(renewed.summary.not_after > later + SELF_SIGNED_LIFE - DAY);
}

/// What a crash between the two files leaves, or a hand that edits them.
#[test]
fn a_damaged_self_signed_pair_is_replaced() {
    let dir = tempfile::tempdir().expect("a directory");
    let now = SystemTime::now();
    let first = self_signed(dir.path(), now).expect("made");
    fs::write(dir.path().join(SELF_SIGNED_CERT), "rubbish").expect("written");
    let second = self_signed(dir.path(), now).expect("replaced");
    assert_ne!(first.key.cert, second.key.cert);
    let (_, other_key) = make_self_signed(now).expect("made");
    fs::write(dir.path().join(SELF_SIGNED_KEY), other_key).expect("written");
    let third = self_signed(dir.path(), now).expect("replaced");
    assert_ne!(second.key.cert, third.key.cert);
}

#[test]
fn unusable_files_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let now = SystemTime::now();
    let (cert, key) = make_self_signed(now).expect("made");
    let (_, other_key) = make_self_signed(now).expect("made");
    let files = CertificateFiles { cert: dir.path().join("cert.pem"), key: dir.path().join("key.pem") };
    let with = |cert: &str, key: &str| {
        fs::write(&files.cert, cert).expect("written");
        fs::write(&files.key, key).expect("written");
        read(&files, now).map(|_| ())
    };
    assert!(matches!(read(&files, now), Err(CertificateError::Read { path, .. }) if path == files.cert));
    assert!(matches!(with("", &key), Err(CertificateError::Certificate { .. })));
    assert!(matches!(with(&cert, ""), Err(CertificateError::Key { .. })));
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(with(broken, &key), Err(CertificateError::Certificate { .. })));
    assert!(matches!(with(&cert, &other_key), Err(CertificateError::Mismatch { .. })));
    with(&cert, &key).expect("a pair");
}
