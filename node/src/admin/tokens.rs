//! Tokens that operators make for others: each with its scopes, and the sites and surrogate keys that it may purge.
//!
//! Always true:
//! - A secret is shown once, when it is made. Kept is its SHA-256, in a file of mode 0600 that is replaced whole.
//! - A change is on disk before it holds, and before it is acknowledged.
//! - A file that cannot be understood lets nobody in and does not stop the node: it is moved aside, and only the admin token is left.
//! - Wrong secrets cost the same time, whatever part of them is wrong: digests are compared, all their bytes.
//!
//! Not here: which call needs which scope (`calls`), what a token may purge (`rights`), how often (`rate`).

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::token::{AdminToken, equal, hex, random};

/// Tokens of one node. All of them together take less than 10 MiB.
pub(super) const TOKENS_MAX: usize = 1_000;
/// The file, in the data directory.
pub const TOKENS_FILE: &str = "tokens.json";
/// The id and the name of the token in the token file.
pub const ADMIN_ID: &str = "admin";
/// Bytes of the file that are read.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// What every secret begins with, so that scanners for lost secrets find them.
const SECRET_PREFIX: &str = "brim_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
const FILE_VERSION: u32 = 1;

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Look: status, origins, plugins, receipts, explanations.
    Read,
    /// Purge, and look at the receipts of its own purges.
    Purge,
    /// Upload and switch plugins.
    Plugins,
    /// Everything, tokens included.
    Admin,
}

impl Scope {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Purge => "purge",
            Self::Plugins => "plugins",
            Self::Admin => "admin",
        }
    }
}

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRecord {
    /// Its id: what receipts and the audit log call it.
    pub id: String,
    /// What its maker calls it.
    pub name: String,
    /// SHA-256 of the secret in hex.
    hash: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Sites that it may purge; none: all.
    pub sites: Vec<String>,
    /// What surrogate keys that it may purge begin with; none: all, and every other selector.
    pub key_prefixes: Vec<String>,
    /// Purges a minute; none: as the configuration says.
    pub purges_per_minute: Option<u32>,
    /// Seconds since 1970.
    pub created_at: u64,
    /// The id of the token that made it.
    pub created_by: String,
    /// Seconds since 1970, from which on it lets nobody in; none: never.
    pub expires_at: Option<u64>,
}

/// What a token is to be like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewToken {
    /// What its maker calls it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Sites that it may purge; none: all.
    pub sites: Vec<String>,
    /// What surrogate keys that it may purge begin with.
    pub key_prefixes: Vec<String>,
    /// Purges a minute; none: as the configuration says.
    pub purges_per_minute: Option<u32>,
    /// How long it lets in; none: for ever.
    pub expires_in: Option<Duration>,
}

/// Who makes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The id of the token.
    pub id: Box<str>,
    /// Its name.
    pub name: Box<str>,
    scopes: Vec<Scope>,
    /// Sites that it may purge; none: all.
    pub sites: Vec<String>,
    /// What surrogate keys that it may purge begin with; none: all, and every other selector.
    pub key_prefixes: Vec<String>,
    /// Purges a minute; none: as the configuration says.
    pub purges_per_minute: Option<u32>,
}

impl Caller {
    /// Who shows the token of the token file.
    pub fn admin() -> Self {
        Self {
            id: ADMIN_ID.into(),
            name: ADMIN_ID.into(),
            scopes: vec![Scope::Admin],
            sites: Vec::new(),
            key_prefixes: Vec::new(),
            // It may do everything, and so what its owner's scripts need. The bound is for the tokens that it hands out.
            purges_per_minute: Some(0),
        }
    }

    fn of(record: &TokenRecord) -> Self {
        Self {
            id: record.id.as_str().into(),
            name: record.name.as_str().into(),
            scopes: record.scopes.clone(),
            sites: record.sites.clone(),
            key_prefixes: record.key_prefixes.clone(),
            purges_per_minute: record.purges_per_minute,
        }
    }

    /// Whether it has the scope. `admin` has all of them.
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }
}

/// Why a change of the tokens is not made.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// There are as many as there may be.
    #[error("the node has {TOKENS_MAX} tokens: revoke one first")]
    TooMany,
    /// There is none of that id.
    #[error("there is no token {0:?}; GET /v1/tokens lists them")]
    Unknown(String),
    /// The file cannot be written: nothing has changed.
    #[error("{TOKENS_FILE} cannot be written: {0}")]
    Disk(#[source] io::Error),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensFile {
    version: u32,
    tokens: Vec<TokenRecord>,
}

struct Held {
    record: TokenRecord,
    hash: [u8; 32],
    caller: Arc<Caller>,
}

type Table = BTreeMap<String, Held>;

/// All tokens of a node, that of the token file among them.
pub struct Tokens {
    path: PathBuf,
    admin: AdminToken,
    admin_caller: Arc<Caller>,
    table: ArcSwap<Table>,
    /// Held by whoever changes the file.
    changing: Mutex<()>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("path", &self.path).field("count", &self.table.load().len()).finish()
    }
}

impl Tokens {
    /// Reads the tokens that `data_dir` keeps. Blocks.
    pub fn open(data_dir: &Path, admin: AdminToken) -> Self {
        let path = data_dir.join(TOKENS_FILE);
        let table = read(&path).unwrap_or_else(|why| {
            let aside = data_dir.join(format!("{TOKENS_FILE}.damaged-{}", unix_seconds(SystemTime::now())));
            let moved = fs::rename(&path, &aside);
            let (path, aside) = (path.display(), aside.display());
            match moved {
                Ok(()) => tracing::error!(%path, %aside, why, "the tokens cannot be read: moved aside, only the admin token is left"),
                Err(error) => tracing::error!(%path, why, %error, "the tokens cannot be read: only the admin token is left"),
            }
            Table::new()
        });
        let admin_caller = Arc::new(Caller::admin());
        Self { path, admin, admin_caller, table: ArcSwap::from_pointee(table), changing: Mutex::default() }
    }

    /// Who shows this secret; none: nobody that may come in.
    pub fn caller(&self, shown: &[u8], now: SystemTime) -> Option<Arc<Caller>> {
        let is_admin = self.admin.admits(shown);
        let digest: [u8; 32] = Sha256::digest(shown).into();
        let table = self.table.load();
        let held = id_of(shown).and_then(|id| table.get(id));
        // Compared in any case: which ids there are shows in no time.
        let is_it = equal(&digest, held.map_or(&[0; 32], |held| &held.hash));
        if is_admin {
            return Some(self.admin_caller.clone());
        }
        let held = held.filter(|_| is_it)?;
        let is_over = held.record.expires_at.is_some_and(|at| unix_seconds(now) >= at);
        (!is_over).then(|| held.caller.clone())
    }

    /// All tokens by id, without that of the token file.
    pub fn list(&self) -> Vec<TokenRecord> {
        self.table.load().values().map(|held| held.record.clone()).collect()
    }

    /// Makes a token; the record, and the secret that is never seen again. Blocks.
    pub fn make(&self, new: NewToken, by: &str, now: SystemTime) -> Result<(TokenRecord, String), TokensError> {
        let (id, secret) = (hex(&random::<ID_BYTES>().map_err(TokensError::Disk)?), random::<SECRET_BYTES>());
        let secret = format!("{SECRET_PREFIX}{id}_{}", hex(&secret.map_err(TokensError::Disk)?));
        let record = TokenRecord {
            hash: hex(&Sha256::digest(secret.as_bytes())),
            id,
            name: new.name,
            scopes: new.scopes,
            sites: new.sites,
            key_prefixes: new.key_prefixes,
            purges_per_minute: new.purges_per_minute,
            created_at: unix_seconds(now),
            created_by: by.to_owned(),
            expires_at: new.expires_in.map(|time| unix_seconds(now).saturating_add(time.as_secs())),
        };
        self.change(|records| {
            if records.len() >= TOKENS_MAX {
                return Err(TokensError::TooMany);
            }
            records.push(record.clone());
            Ok(())
        })?;
        Ok((record, secret))
    }

    /// Revokes a token: from the next call on it lets nobody in. Blocks.
    pub fn revoke(&self, id: &str) -> Result<TokenRecord, TokensError> {
        self.change(|records| {
            let place = records.iter().position(|record| record.id == id);
            place.map(|place| records.remove(place)).ok_or_else(|| TokensError::Unknown(id.to_owned()))
        })
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut Vec<TokenRecord>) -> Result<T, TokensError>,
    ) -> Result<T, TokensError> {
        let _changing = self.changing.lock();
        let mut records = self.list();
        let changed = change(&mut records)?;
        let table = records.iter().filter_map(held).collect();
        write(&self.path, &TokensFile { version: FILE_VERSION, tokens: records }).map_err(TokensError::Disk)?;
        self.table.store(Arc::new(table));
        Ok(changed)
    }
}

/// The id in a secret.
fn id_of(shown: &[u8]) -> Option<&str> {
    let rest = std::str::from_utf8(shown).ok()?.strip_prefix(SECRET_PREFIX)?;
    rest.split_once('_').map(|(id, _)| id)
}

fn held(record: &TokenRecord) -> Option<(String, Held)> {
    let mut hash = [0; 32];
    let bytes = hash.iter_mut().enumerate();
    for (at, byte) in bytes {
        *byte = u8::from_str_radix(record.hash.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    (record.hash.len() == 64 && !record.id.is_empty()).then(|| {
        let caller = Arc::new(Caller::of(record));
        (record.id.clone(), Held { record: record.clone(), hash, caller })
    })
}

fn read(path: &Path) -> Result<Table, String> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Table::new()),
        Err(error) => return Err(error.to_string()),
    };
    if length > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let file: TokensFile = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if file.version != FILE_VERSION {
        return Err(format!("its version is {}, not {FILE_VERSION}", file.version));
    }
    let count = file.tokens.len();
    let table: Table = file.tokens.iter().filter_map(held).collect();
    if table.len() != count || count > TOKENS_MAX {
        return Err("a hash is none, an id stands in it twice, or there are too many tokens".to_owned());
    }
    Ok(table)
}

fn write(path: &Path, file: &TokensFile) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Written aside first: a crash leaves the old file or the new one.
    let aside = path.with_added_extension("tmp");
    let mut out = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&aside)?;
    out.write_all(&serde_json::to_vec_pretty(file)?)?;
    out.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(directory)?.sync_all()
}

/// Whole seconds since 1970.
pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ADMIN: &str = "the-admin-token-of-the-test";

    fn open(dir: &Path) -> Tokens {
        Tokens::open(dir, AdminToken::new(ADMIN))
    }

    fn named(name: &str, scopes: &[Scope]) -> NewToken {
        NewToken { name: name.to_owned(), scopes: scopes.to_vec(), ..NewToken::default() }
    }

    #[test]
    fn a_token_lets_in_until_it_is_revoked_and_also_after_a_restart() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (tokens, now) = (open(dir.path()), SystemTime::now());
        let (record, secret) = tokens.make(named("ci", &[Scope::Purge]), ADMIN_ID, now).expect("made");
        assert!(secret.starts_with(&format!("brim_{}_", record.id)) && secret.len() == 5 + 16 + 1 + 64, "{secret}");
        for tokens in [&tokens, &open(dir.path())] {
            let caller = tokens.caller(secret.as_bytes(), now).expect("let in");
            assert_eq!((&*caller.id, &*caller.name), (record.id.as_str(), "ci"));
            assert!(caller.has(Scope::Purge) && !caller.has(Scope::Read) && !caller.has(Scope::Admin));
            let admin = tokens.caller(ADMIN.as_bytes(), now).expect("let in");
            assert!([Scope::Read, Scope::Purge, Scope::Plugins, Scope::Admin].iter().all(|scope| admin.has(*scope)));
        }
        tokens.revoke(&record.id).expect("revoked");
        assert!(matches!(tokens.revoke(&record.id), Err(TokensError::Unknown(_))));
        assert!(matches!(tokens.revoke(ADMIN_ID), Err(TokensError::Unknown(_))), "the admin token stays");
        for tokens in [&tokens, &open(dir.path())] {
            assert_eq!(tokens.caller(secret.as_bytes(), now), None);
        }
    }

    #[test]
    fn only_the_digest_is_kept_and_only_its_user_reads_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (_, secret) = open(dir.path()).make(named("a", &[Scope::Read]), ADMIN_ID, SystemTime::now()).expect("made");
        let path = dir.path().join(TOKENS_FILE);
        let text = fs::read_to_string(&path).expect("there");
        let random = secret.rsplit('_').next().expect("the random part");
        assert!(!text.contains(random) && text.contains(&hex(&Sha256::digest(secret.as_bytes()))), "{text}");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_wrong_secret_lets_nobody_in() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (tokens, now) = (open(dir.path()), SystemTime::now());
        let (record, secret) = tokens.make(named("a", &[Scope::Read]), ADMIN_ID, now).expect("made");
        let flipped = format!("{}{}", &secret[..secret.len() - 1], if secret.ends_with('0') { '1' } else { '0' });
        let (id, upper) = (format!("brim_{}_", record.id), secret.to_uppercase());
        for wrong in ["", "brim_", "brim__", "brim_x_y", &id, &flipped, &upper, &secret[1..], &format!("{secret} ")] {
            assert_eq!(tokens.caller(wrong.as_bytes(), now), None, "{wrong:?}");
        }
        assert_eq!(tokens.caller(b"brim_\xff_", now), None);
    }

    #[test]
    fn a_token_expires_at_its_second() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (tokens, now) = (open(dir.path()), UNIX_EPOCH + Duration::from_secs(1_000_000));
        let new = NewToken { expires_in: Some(Duration::from_secs(60)), ..named("a", &[Scope::Read]) };
        let (record, secret) = tokens.make(new, ADMIN_ID, now).expect("made");
        assert_eq!(record.expires_at, Some(1_000_060));
        assert!(tokens.caller(secret.as_bytes(), now + Duration::from_secs(59)).is_some());
        assert_eq!(tokens.caller(secret.as_bytes(), now + Duration::from_secs(60)), None);
    }

    /// A file that is not what we wrote: nobody but the admin token gets in, the node starts, the file is kept for a look.
    #[test]
    fn a_damaged_file_lets_nobody_in_and_is_moved_aside() {
        let good = {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let (_, secret) =
                open(dir.path()).make(named("a", &[Scope::Admin]), ADMIN_ID, SystemTime::now()).expect("made");
            (fs::read_to_string(dir.path().join(TOKENS_FILE)).expect("there"), secret)
        };
        let (text, secret) = good;
        let file: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let changed = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut file = file.clone();
            change(&mut file);
            file.to_string()
        };
        let twice = changed(&|file| {
            let token = file["tokens"][0].clone();
            file["tokens"].as_array_mut().expect("a list").push(token);
        });
        for damaged in [
            String::new(),
            "{}".to_owned(),
            text[..text.len() / 2].to_owned(),
            text.replace("\"scopes\"", "\"skopes\""),
            changed(&|file| file["version"] = 2.into()),
            changed(&|file| file["tokens"][0]["hash"] = "".into()),
            changed(&|file| file["tokens"][0]["hash"] = "zz".repeat(32).into()),
            changed(&|file| file["tokens"][0]["hash"] = "é".repeat(32).into()),
            changed(&|file| file["tokens"][0]["scopes"] = serde_json::json!(["root"])),
            twice,
        ] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            fs::write(dir.path().join(TOKENS_FILE), &damaged).expect("written");
            let (tokens, now) = (open(dir.path()), SystemTime::now());
            assert_eq!(tokens.caller(secret.as_bytes(), now), None, "{damaged}");
            assert!(tokens.caller(ADMIN.as_bytes(), now).is_some());
            let names: Vec<_> =
                fs::read_dir(dir.path()).expect("listed").flatten().map(|file| file.file_name()).collect();
            assert!(names.len() == 1 && names[0].to_string_lossy().starts_with("tokens.json.damaged-"), "{names:?}");
            let (_, secret) = tokens.make(named("new", &[Scope::Read]), ADMIN_ID, now).expect("made");
            assert!(open(dir.path()).caller(secret.as_bytes(), now).is_some());
        }
    }

    #[test]
    fn tokens_are_bounded_and_a_change_that_cannot_be_kept_does_not_hold() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (tokens, now) = (open(dir.path()), SystemTime::now());
        let (first, _) = tokens.make(named("a", &[Scope::Read]), ADMIN_ID, now).expect("made");
        let full = (0..TOKENS_MAX - 1).map(|number| TokenRecord { id: format!("{number}"), ..first.clone() });
        let fill = |records: &mut Vec<TokenRecord>| {
            records.extend(full);
            Ok(())
        };
        tokens.change(fill).expect("written");
        assert!(matches!(tokens.make(named("b", &[]), ADMIN_ID, now), Err(TokensError::TooMany)));
        tokens.revoke("7").expect("revoked");
        // A directory stands where the new file would be written.
        fs::create_dir(dir.path().join("tokens.json.tmp")).expect("made");
        assert!(matches!(tokens.make(named("b", &[]), ADMIN_ID, now), Err(TokensError::Disk(_))));
        assert!(matches!(tokens.revoke("8"), Err(TokensError::Disk(_))));
        assert_eq!(tokens.list().len(), TOKENS_MAX - 1);
    }
}
