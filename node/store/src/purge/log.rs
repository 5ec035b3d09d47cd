//! The purge log: what makes a purge survive.
//!
//! Always true:
//! - `append` returns Ok only after the bytes are synced; after an error the file holds nothing of the failed batch, or
//!   the next append writes a whole new file first.
//! - Space for the next appends is reserved: a full disk does not keep a purge from being made durable at once.
//! - A checkpoint replaces the log by write, sync, rename, sync of the directory: at each moment one whole log exists.
//! - A log that cannot be read to its last whole frame, or is another store's, is not guessed at: [`OpenedLog::Unreadable`].

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::clock::{Marks, Table};
use super::codec::{self, LogRecord, Tail};
use super::receipts::Receipts;
use super::{Matcher, Position, Purge, Receipt};
use crate::dir::{StoreId, sync_dir};
use crate::faults::{Faults, Step};

const FILE_NAME: &str = "purge.log";

/// Bytes that are reserved on disk beyond the log's end.
const RESERVE_BYTES: u64 = 1024 * 1024;

/// The open log file.
#[derive(Debug)]
pub(crate) struct PurgeLog {
    dir: PathBuf,
    store: StoreId,
    /// None: it was not made yet.
    file: Option<File>,
    good_bytes: u64,
    reserved_bytes: u64,
    checkpoint_bytes: u64,
    /// The file may hold a part of a failed batch, or cannot be written: it must be replaced before the next append.
    soiled: bool,
    faults: Faults,
}

/// The content of a new log: a whole table, and the receipts still remembered. It may be of another store than the log was.
pub(crate) struct Checkpoint {
    store: StoreId,
    bytes: Vec<u8>,
}

impl Checkpoint {
    pub(crate) fn of(store: StoreId, table: &Table, receipts: &Receipts) -> io::Result<Self> {
        let bytes = codec::checkpoint(store, table, receipts);
        let bytes = bytes.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the purges cannot be encoded"))?;
        Ok(Self { store, bytes })
    }
}

/// What a log held.
pub(crate) enum OpenedLog {
    Good {
        log: PurgeLog,
        table: Box<Table>,
        receipts: Receipts,
    },
    /// `latest`: the newest position that could be read.
    Unreadable {
        reason: String,
        latest: Position,
    },
}

fn apply(record: LogRecord, table: &mut Table, receipts: &mut Receipts) {
    let mut purged = |position, purge: Purge, durable_at| {
        for selector in &purge.selectors {
            table.apply(&Matcher::of(selector), position, purge.mode);
        }
        receipts.push(Receipt::new(position, purge, durable_at));
    };
    match record {
        LogRecord::Purge { position, selector, mode, at } => purged(position, Purge::of(selector, mode, at), at),
        LogRecord::Ordered { position, selectors, mode, at, durable_at, by, idempotency_key, fingerprint } => {
            purged(position, Purge { selectors, mode, at, by, idempotency_key, fingerprint }, durable_at);
        }
        LogRecord::Matched { position, matched } => {
            receipts.note(position, matched, 0, None);
        }
        LogRecord::Counted { position, matched, bytes, at, durable_at } => {
            if let Some(receipt) = receipts.note(position, matched, bytes, Some(at)) {
                receipt.durable_at = durable_at;
            }
        }
        LogRecord::Variant { variant, hard, soft } => {
            table.join_predicate(Matcher::Variant(variant), Marks { hard, soft });
        }
        LogRecord::Match { predicate, hard, soft } => {
            table.join_predicate(Matcher::Match(predicate), Marks { hard, soft });
        }
        LogRecord::Latest(position) => table.latest = table.latest.max(position),
        LogRecord::Everything { hard, soft } => table.everything.join(Marks { hard, soft }),
        LogRecord::Named(marks) => {
            for (name, hard, soft) in marks {
                table.join_name(name, Marks { hard, soft });
            }
        }
        LogRecord::Buckets(marks) => {
            for (bucket, hard, soft) in marks {
                table.join_bucket(bucket, Marks { hard, soft });
            }
        }
        LogRecord::Prefix { authority, path_prefix, hard, soft } => {
            table.join_prefix(authority, &path_prefix, Marks { hard, soft });
        }
    }
}

/// What the bytes of a log file say, and how they end.
pub(crate) fn replayed(bytes: &[u8], store: StoreId) -> (Table, Receipts, Tail) {
    let (mut table, mut receipts) = (Table::default(), Receipts::default());
    let tail = codec::replay(bytes, store, |record| apply(record, &mut table, &mut receipts));
    (table, receipts, tail)
}

impl PurgeLog {
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join(FILE_NAME)
    }

    /// Reads the log of `store` in `dir`. One that can be read and not written is to be written anew before the next append.
    /// `Err` is an IO error; what it means is the caller's decision.
    pub(crate) fn open(dir: &Path, store: StoreId, faults: Faults) -> io::Result<OpenedLog> {
        let path = Self::path(dir);
        let (mut file, is_writable) = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => (file, true),
            Err(error) => (File::open(&path).map_err(|_| error)?, false),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (table, receipts, tail) = replayed(&bytes, store);
        let mut soiled = !is_writable;
        let good_bytes = match tail {
            Tail::Whole => bytes.len() as u64,
            Tail::Torn { good_bytes } => {
                tracing::info!(
                    good_bytes,
                    "the last purge was cut off before it was acknowledged; its torn record is dropped"
                );
                soiled |= file.set_len(good_bytes).and_then(|()| file.sync_all()).is_err();
                good_bytes
            }
            Tail::Damaged(reason) => {
                return Ok(OpenedLog::Unreadable { reason: reason.to_owned(), latest: table.latest });
            }
        };
        let mut log = Self::holding(dir, store, faults);
        (log.file, log.good_bytes, log.checkpoint_bytes, log.soiled) = (Some(file), good_bytes, good_bytes, soiled);
        Ok(OpenedLog::Good { log, table: Box::new(table), receipts })
    }

    fn holding(dir: &Path, store: StoreId, faults: Faults) -> Self {
        Self {
            dir: dir.to_owned(),
            store,
            file: None,
            good_bytes: 0,
            reserved_bytes: 0,
            checkpoint_bytes: 0,
            soiled: true,
            faults,
        }
    }

    /// A log that is made by the first [`PurgeLog::rewrite`].
    pub(crate) fn unmade(dir: &Path, store: StoreId, faults: Faults) -> Self {
        Self::holding(dir, store, faults)
    }

    /// Replaces the file by a [`Checkpoint`].
    pub(crate) fn rewrite(&mut self, checkpoint: &Checkpoint) -> io::Result<()> {
        let Checkpoint { store, bytes } = checkpoint;
        let unfinished = self.dir.join("purge.log.new");
        let mut options = OpenOptions::new();
        // A purge of one variant has fields of a request in it.
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&unfinished)?;
        self.faults.at(Step::LogCheckpoint)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        self.faults.at(Step::LogRename)?;
        std::fs::rename(&unfinished, Self::path(&self.dir))?;
        sync_dir(&self.dir)?;
        self.store = *store;
        self.file = Some(file);
        (self.good_bytes, self.checkpoint_bytes) = (bytes.len() as u64, bytes.len() as u64);
        (self.reserved_bytes, self.soiled) = (0, false);
        self.reserve(0);
        Ok(())
    }

    /// Sees to it that what is appended next finds its space reserved, as far as the file system can do that.
    fn reserve(&mut self, bytes: u64) {
        let needed = self.good_bytes + bytes;
        if needed + RESERVE_BYTES / 2 <= self.reserved_bytes {
            return;
        }
        let Some(file) = &self.file else { return };
        let whole = needed + RESERVE_BYTES;
        // The file keeps its length: a reader finds the log and nothing behind it.
        if rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, whole).is_ok() {
            self.reserved_bytes = whole;
        }
    }

    pub(crate) fn store(&self) -> StoreId {
        self.store
    }

    /// True when `rewrite` has to, or ought to, come before the next append.
    pub(crate) fn wants_checkpoint(&self, growth_max: u64) -> bool {
        self.soiled || self.good_bytes - self.checkpoint_bytes > growth_max
    }

    pub(crate) fn is_soiled(&self) -> bool {
        self.soiled
    }

    pub(crate) fn is_made(&self) -> bool {
        self.file.is_some()
    }

    /// Durable when it returns Ok.
    pub(crate) fn append(&mut self, records: &[LogRecord]) -> io::Result<()> {
        if self.soiled {
            return Err(io::Error::other("the purge log holds a part of a failed write"));
        }
        let mut frame = Vec::new();
        codec::encode_frame(records, &mut frame)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the purges are too long for a frame"))?;
        self.reserve(frame.len() as u64);
        let Some(file) = &self.file else { return Err(io::Error::other("the purge log was not made yet")) };
        let written = self
            .faults
            .write_all_at(Step::LogAppend, file, &frame, self.good_bytes)
            .and_then(|()| self.faults.at(Step::LogSync))
            .and_then(|()| file.sync_data());
        match written {
            Ok(()) => {
                self.good_bytes += frame.len() as u64;
                Ok(())
            }
            Err(error) => {
                // After a failed sync nobody knows what the disk holds; a new file is the only sure start.
                self.soiled = true;
                let _ = file.set_len(self.good_bytes);
                Err(error)
            }
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.good_bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::purge::{Predicate, PurgeMode, Selector};

    const STORE: StoreId = StoreId([7; 16]);

    fn purge(position: u64) -> LogRecord {
        let selector = Selector::Site(format!("site-{position}").into());
        LogRecord::Purge { position: Position(position), selector, mode: PurgeMode::Hard, at: SystemTime::UNIX_EPOCH }
    }

    fn made(dir: &Path, table: &Table) -> PurgeLog {
        let mut log = PurgeLog::unmade(dir, STORE, Faults::default());
        log.rewrite(&Checkpoint::of(STORE, table, &Receipts::default()).unwrap()).unwrap();
        log
    }

    fn opened(dir: &Path) -> Result<(PurgeLog, Table, usize), Position> {
        match PurgeLog::open(dir, STORE, Faults::default()).unwrap() {
            OpenedLog::Good { log, table, receipts } => Ok((log, *table, receipts.iter().count())),
            OpenedLog::Unreadable { latest, .. } => Err(latest),
        }
    }

    fn log_of(dir: &Path, purges: u64) {
        let mut log = made(dir, &Table::default());
        (1..=purges).for_each(|position| log.append(&[purge(position)]).unwrap());
    }

    #[test]
    fn replay_gives_what_was_appended_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        log_of(dir.path(), 3);
        let (mut log, table, receipts) = opened(dir.path()).unwrap();
        assert_eq!((table.latest, receipts), (Position(3), 3));
        log.append(&[purge(4)]).unwrap();
        log.rewrite(&Checkpoint::of(STORE, &table, &Receipts::default()).unwrap()).unwrap();
        log.append(&[purge(5)]).unwrap();
        let (_, again, receipts) = opened(dir.path()).unwrap();
        assert_eq!((again.latest, again.marks_count(), receipts), (Position(5), 4, 1));
    }

    /// Every length to which the last write may have been cut is tolerated, and costs the last purge alone.
    #[test]
    fn a_torn_last_record_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        log_of(dir.path(), 3);
        let whole = std::fs::read(PurgeLog::path(dir.path())).unwrap();
        log_of(dir.path(), 2);
        let before_last = std::fs::read(PurgeLog::path(dir.path())).unwrap().len();
        for length in before_last..whole.len() {
            std::fs::write(PurgeLog::path(dir.path()), &whole[..length]).unwrap();
            let (mut log, table, _) = opened(dir.path()).unwrap();
            assert_eq!(table.latest, Position(2), "cut to {length}");
            log.append(&[purge(3)]).unwrap();
            assert_eq!(opened(dir.path()).unwrap().1.latest, Position(3));
        }
        let mut zeros = whole[..before_last].to_vec();
        zeros.extend_from_slice(&[0; 100]);
        std::fs::write(PurgeLog::path(dir.path()), zeros).unwrap();
        assert_eq!(opened(dir.path()).unwrap().1.latest, Position(2));
    }

    /// A flipped bit anywhere in what was synced is never taken for a torn write.
    #[test]
    fn a_flipped_bit_makes_the_log_unreadable() {
        let dir = tempfile::tempdir().unwrap();
        log_of(dir.path(), 3);
        let whole = std::fs::read(PurgeLog::path(dir.path())).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(PurgeLog::path(dir.path()), flipped).unwrap();
            assert!(opened(dir.path()).is_err(), "byte {at}");
        }
    }

    /// A checkpoint holds every kind of mark, also those that were folded.
    #[test]
    fn a_checkpoint_is_the_whole_table() {
        let dir = tempfile::tempdir().unwrap();
        let mut table = Table::default();
        for position in 1..=300_000 {
            table.apply(&Matcher::Named(vec![position * 7919]), Position(position), PurgeMode::Hard);
        }
        let prefix = Selector::Prefix { authority: "a".into(), path_prefix: "/p".into() };
        table.apply(&Matcher::of(&prefix), Position(300_001), PurgeMode::Soft);
        table.apply(&Matcher::Everything, Position(300_002), PurgeMode::Soft);
        assert!(table.buckets().count() > 0);
        let predicate = Predicate { path: Some("/p*".into()), statuses: vec![(404, 404)], ..Predicate::default() };
        table.apply(&Matcher::Match(predicate), Position(300_003), PurgeMode::Soft);
        let (authority, path, fields) = ("a".into(), "/".into(), vec![("accept".into(), b"x"[..].into())]);
        let variant = Selector::Variant { authority, path, query: None, keys: Vec::new(), fields };
        table.apply(&Matcher::of(&variant), Position(300_004), PurgeMode::Hard);
        assert_eq!(table.predicates.len(), 2);
        made(dir.path(), &table);
        assert!(opened(dir.path()).unwrap().1 == table);
    }

    #[test]
    fn another_stores_log_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        log_of(dir.path(), 1);
        let opened = PurgeLog::open(dir.path(), StoreId([8; 16]), Faults::default()).unwrap();
        assert!(matches!(opened, OpenedLog::Unreadable { latest: Position(0), .. }));
    }
}
