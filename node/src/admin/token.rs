//! The admin token: made at the first start, kept in a file that only the node's user may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// Random bytes in a token that the node makes.
const TOKEN_RANDOM_BYTES: usize = 32;
/// A token in the file must have at least this many characters, whoever wrote it.
const TOKEN_CHARS_MIN: usize = 16;

/// The token that callers of the admin API show. Its `Debug` does not.
#[derive(Clone)]
pub struct AdminToken(Arc<[u8; 32]>);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or made.
    #[error("admin token file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file holds something that anybody could guess.
    #[error("admin token file {}: a token has at least {TOKEN_CHARS_MIN} visible ASCII characters; delete the file to have one made", path.display())]
    Weak {
        /// The file.
        path: PathBuf,
    },
}

impl AdminToken {
    /// A token given as text.
    pub fn new(token: &str) -> AdminToken {
        AdminToken(Arc::new(Sha256::digest(token.as_bytes()).into()))
    }

    /// Reads the token file, or makes it with a new random token, mode 0600.
    pub fn read_or_make(path: &Path) -> Result<AdminToken, TokenError> {
        let failed = |source| TokenError::File { path: path.to_owned(), source };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return make(path).map_err(failed),
            Err(error) => return Err(failed(error)),
        };
        let token = text.trim();
        if token.len() < TOKEN_CHARS_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Weak { path: path.to_owned() });
        }
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777), "other users may read the admin token");
        }
        Ok(AdminToken::new(token))
    }

    /// Whether `shown` is the token. Takes the same time for every wrong one: digests of equal length are compared, all
    /// their bytes.
    pub fn admits(&self, shown: &[u8]) -> bool {
        equal(&self.0, &Sha256::digest(shown).into())
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken(..)")
    }
}

/// Compares all bytes, wherever the first difference is.
pub(super) fn equal(ours: &[u8; 32], theirs: &[u8; 32]) -> bool {
    let differing = ours.iter().zip(theirs).fold(0, |differing, (ours, theirs)| differing | (ours ^ theirs));
    std::hint::black_box(differing) == 0
}

/// Bytes from the system's generator.
pub(super) fn random<const COUNT: usize>() -> io::Result<[u8; COUNT]> {
    let mut random = [0u8; COUNT];
    let mut filled = 0;
    while let Some(rest) = random.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(random)
}

/// Two digits a byte.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn make(path: &Path) -> io::Result<AdminToken> {
    let token = hex(&random::<TOKEN_RANDOM_BYTES>()?);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    // Written aside first: a crash leaves no half token behind.
    let aside = path.with_added_extension("tmp");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&aside)?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(directory)?.sync_all()?;
    tracing::info!(path = %path.display(), "admin token made");
    Ok(AdminToken::new(&token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_makes_a_token_that_later_starts_read() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("data/admin.token");
        AdminToken::read_or_make(&path).expect("made");
        let text = fs::read_to_string(&path).expect("there");
        assert_eq!(text.trim().len(), TOKEN_RANDOM_BYTES * 2);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let again = AdminToken::read_or_make(&path).expect("read");
        assert!(again.admits(text.trim().as_bytes()));
        assert!(!again.admits(b""));
        assert!(!again.admits(text.as_bytes()));
    }

    #[test]
    fn a_weak_token_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("admin.token");
        for weak in ["", "secret", "with a space in the middle"] {
            fs::write(&path, weak).expect("written");
            assert!(matches!(AdminToken::read_or_make(&path), Err(TokenError::Weak { .. })), "{weak:?}");
        }
    }

    #[test]
    fn debug_does_not_show_it() {
        assert_eq!(format!("{:?}", AdminToken::new("a-token-of-some-length")), "AdminToken(..)");
    }
}
