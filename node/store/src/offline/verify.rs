//! Checking all that is on disk against its checksums.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use brim_semantics::KeyHash;
use serde::Serialize;

use super::entry::{Read, StoredEntry};
use super::{LogFacts, OfflineError, OfflineStore, Standing, Tally};
use crate::disk::Segments;
use crate::segment::{Damage, FILE_HEADER_BYTES, block_count};

/// Blocks of a body that are in memory at a time.
const BLOCKS_AT_ONCE: u64 = 16;

/// What is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The format file: nothing else can be believed.
    Format,
    /// The purge log.
    PurgeLog,
    /// The index as a whole.
    Index,
    /// One entry of the index.
    Entry,
    /// The segment that an entry names: missing, too short, or not this store's.
    Segment,
    /// The header of a body.
    Record,
    /// A block of a body.
    Block,
    /// The system does not let it be read.
    Read,
}

impl ProblemKind {
    /// What it is called.
    pub fn as_word(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::PurgeLog => "purge log",
            Self::Index => "index",
            Self::Entry => "entry",
            Self::Segment => "segment",
            Self::Record => "record",
            Self::Block => "block",
            Self::Read => "read",
        }
    }
}

/// Something that is damaged. A stored response has one at most: the first that is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What is damaged.
    pub kind: ProblemKind,
    /// The stored response that is lost by it, where that is known.
    pub url: Option<String>,
    /// Hash of its cache key, in hexadecimal digits.
    pub key: Option<String>,
    /// The segment that its entry names.
    pub segment: Option<u64>,
    /// What is wrong.
    pub reason: String,
}

impl Problem {
    fn of(kind: ProblemKind, reason: String) -> Self {
        Self { kind, url: None, key: None, segment: None, reason }
    }
}

/// What is told while it goes on.
#[derive(Debug, Clone, Copy)]
pub enum Finding<'a> {
    /// Something is damaged.
    Problem(&'a Problem),
    /// A stored response that a node refuses, and rightly: its standing says why.
    Refused(&'a StoredEntry),
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Verification {
    /// The purge log.
    pub purge_log: LogFacts,
    /// Entries of the index, and their bytes.
    pub entries: Tally,
    /// Stored responses whose every byte is right.
    pub sound: Tally,
    /// Those that a hard purge names: a node removes them, so that their bodies are not read.
    pub purged: Tally,
    /// Those that were fetched at a position which the purge log does not reach: the same.
    pub beyond_log: Tally,
    /// Segment files.
    pub segments: Tally,
    /// Those that no entry names, or entries that are refused alone.
    pub unnamed_segments: Tally,
    /// Bytes in segments that belong to no stored response.
    pub dead_bytes: u64,
    /// How many of each kind are damaged.
    pub problems: BTreeMap<ProblemKind, u64>,
}

impl Verification {
    /// Whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// All that is damaged.
    pub fn problem_count(&self) -> u64 {
        self.problems.values().sum()
    }
}

struct Verifying<'a> {
    done: Verification,
    found: &'a mut dyn FnMut(Finding<'_>),
    segments: Option<&'a Segments>,
    named: BTreeSet<u64>,
    live_bytes: u64,
}

/// Checks format, purge log, every entry and every body; what is damaged or refused is told as it is found. Blocks, as long as
/// it takes to read all segments.
///
/// # Errors
/// The directory cannot be looked at. A format file or an index that cannot be read is a problem, not an error.
pub fn verify(dir: &Path, found: &mut dyn FnMut(Finding<'_>)) -> Result<Verification, OfflineError> {
    let store = match OfflineStore::open(dir) {
        Ok(store) => store,
        Err(OfflineError::Format { reason, .. }) => {
            found(Finding::Problem(&Problem::of(ProblemKind::Format, reason)));
            return Ok(Verification { problems: [(ProblemKind::Format, 1)].into(), ..Verification::default() });
        }
        Err(error) => return Err(error),
    };
    let mut verifying = Verifying {
        done: Verification { purge_log: store.purges.facts.clone(), ..Verification::default() },
        found,
        segments: store.segments.as_ref(),
        named: BTreeSet::new(),
        live_bytes: 0,
    };
    if let Some(reason) = store.purges.facts.damage() {
        verifying.problem(Problem::of(ProblemKind::PurgeLog, reason.to_owned()));
    }
    let walked = store.walk(&mut |read| {
        verifying.look_at(read);
        true
    });
    if let Err(reason) = walked {
        verifying.problem(Problem::of(ProblemKind::Index, reason));
    }
    Ok(verifying.finish())
}

impl Verifying<'_> {
    fn problem(&mut self, problem: Problem) {
        *self.done.problems.entry(problem.kind).or_default() += 1;
        (self.found)(Finding::Problem(&problem));
    }

    fn look_at(&mut self, read: Read<'_>) {
        match read {
            Read::Bad { key, bytes, reason } => {
                self.done.entries.add(bytes);
                let hash = key.get(..16).and_then(|hash| hash.try_into().ok());
                let key = hash.map(|hash| KeyHash(hash).to_string());
                self.problem(Problem { key, ..Problem::of(ProblemKind::Entry, reason) });
            }
            Read::Good(entry) => {
                self.done.entries.add(entry.entry_bytes);
                match entry.standing {
                    Standing::Hard => self.done.purged.add(entry.bytes),
                    Standing::BeyondLog => self.done.beyond_log.add(entry.bytes),
                    Standing::Live | Standing::Soft | Standing::Unknown => return self.check(&entry),
                }
                (self.found)(Finding::Refused(&entry));
            }
        }
    }

    fn check(&mut self, entry: &StoredEntry) {
        self.named.insert(entry.segment);
        let checked = match self.segments {
            Some(segments) => check_body(segments, entry),
            None => Err((ProblemKind::Segment, "there are no segments".to_owned())),
        };
        match checked {
            Ok(()) => {
                self.done.sound.add(entry.bytes);
                self.live_bytes += entry.record_bytes();
            }
            Err((kind, reason)) => {
                if kind != ProblemKind::Segment {
                    self.live_bytes += entry.record_bytes();
                }
                self.problem(Problem {
                    url: Some(entry.url.clone()),
                    key: Some(entry.key.to_string()),
                    segment: Some(entry.segment),
                    ..Problem::of(kind, reason)
                });
            }
        }
    }

    fn finish(mut self) -> Verification {
        for (id, bytes) in self.segments.map(Segments::closed).unwrap_or_default() {
            self.done.segments.add(bytes);
            self.done.dead_bytes += bytes.saturating_sub(FILE_HEADER_BYTES);
            if !self.named.contains(&id) {
                self.done.unnamed_segments.add(bytes);
            }
        }
        self.done.dead_bytes = self.done.dead_bytes.saturating_sub(self.live_bytes);
        self.done
    }
}

fn check_body(segments: &Segments, entry: &StoredEntry) -> Result<(), (ProblemKind, String)> {
    let id = entry.segment;
    let Some(size) = segments.size_of(id) else {
        return Err((ProblemKind::Segment, format!("segment {id} is missing")));
    };
    if entry.offset.saturating_add(entry.record_bytes()) > size {
        return Err((ProblemKind::Segment, format!("segment {id} ends before the body does")));
    }
    let segment = segments.get(id).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => {
            (ProblemKind::Segment, format!("segment {id}: its header is damaged, or another store's"))
        }
        _ => (ProblemKind::Read, format!("segment {id}: {error}")),
    })?;
    let damaged = |damage: Damage| {
        let kind = match damage {
            Damage::Read { .. } => ProblemKind::Read,
            Damage::Header { .. } => ProblemKind::Record,
            Damage::Block { .. } => ProblemKind::Block,
        };
        (kind, damage.to_string())
    };
    segment.check_header(entry.offset, &entry.header).map_err(damaged)?;
    let mut first = 0;
    while first < block_count(entry.bytes) {
        segment.read_blocks(entry.offset, &entry.header, first, first + BLOCKS_AT_ONCE).map_err(damaged)?;
        first += BLOCKS_AT_ONCE;
    }
    Ok(())
}
