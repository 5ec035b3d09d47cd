//! The bytes of the purge log: a file header, then frames; a frame is one write, whole or not at all.
//!
//! Always true: a frame that was synced and is damaged later is told from one that was never written whole. Damage is
//! [`Tail::Damaged`] and drops the cache; a torn write was never acknowledged and is cut off.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::clock::{Marks, Table};
use super::names::Matcher;
use super::predicate::{Predicate, VariantOf};
use super::receipts::Receipts;
use super::{Position, Purge, PurgeMode, Selector};
use crate::dir::StoreId;

const FILE_MAGIC: &[u8; 8] = b"BRIMPLOG";
const FILE_VERSION: u32 = 1;
pub(crate) const FILE_HEADER_BYTES: usize = 8 + 4 + 16 + 4;
const FRAME_MAGIC: u32 = 0x4652_4d31;
pub(crate) const FRAME_HEADER_BYTES: usize = 16;
/// The longest frame that is believed: a checkpoint is cut into frames far below it.
pub(crate) const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Marks in one frame of a checkpoint.
const MARKS_PER_FRAME: usize = 16_384;

/// One line of the log. Names and marks are lines of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LogRecord {
    Purge {
        position: Position,
        selector: Selector,
        mode: PurgeMode,
        at: SystemTime,
    },
    /// What a purge hit, told later and not awaited by anybody.
    Matched {
        position: Position,
        matched: u64,
    },
    Latest(Position),
    Everything {
        hard: u64,
        soft: u64,
    },
    Named(Vec<(u64, u64, u64)>),
    Prefix {
        authority: u64,
        path_prefix: Box<str>,
        hard: u64,
        soft: u64,
    },
    Buckets(Vec<(u64, u64, u64)>),
    /// A purge with who asked for it. [`LogRecord::Purge`] is how earlier versions wrote one.
    Ordered {
        position: Position,
        selectors: Vec<Selector>,
        mode: PurgeMode,
        at: SystemTime,
        durable_at: SystemTime,
        by: Box<str>,
        idempotency_key: Option<Box<str>>,
        fingerprint: Option<[u8; 32]>,
    },
    /// What a purge hit, told later and not awaited by anybody.
    Counted {
        position: Position,
        matched: u64,
        bytes: u64,
        at: SystemTime,
        /// As the receipt has it: the purge's own record was written before its sync.
        durable_at: SystemTime,
    },
    Variant {
        variant: VariantOf,
        hard: u64,
        soft: u64,
    },
    Match {
        predicate: Predicate,
        hard: u64,
        soft: u64,
    },
}

impl LogRecord {
    pub(crate) fn ordered(position: Position, purge: &Purge, durable_at: SystemTime) -> Self {
        Self::Ordered {
            position,
            selectors: purge.selectors.clone(),
            mode: purge.mode,
            at: purge.at,
            durable_at,
            by: purge.by.clone(),
            idempotency_key: purge.idempotency_key.clone(),
            fingerprint: purge.fingerprint,
        }
    }
}

/// How a log ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    Whole,
    /// The last write was cut off: the log is good up to here.
    Torn {
        good_bytes: u64,
    },
    /// Something that was written whole cannot be read.
    Damaged(&'static str),
}

pub(crate) fn file_header(store: StoreId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FILE_HEADER_BYTES);
    bytes.extend_from_slice(FILE_MAGIC);
    bytes.extend_from_slice(&FILE_VERSION.to_le_bytes());
    bytes.extend_from_slice(&store.0);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// None: a record too long for a frame, which the limits on selectors rule out.
pub(crate) fn encode_frame(records: &[LogRecord], out: &mut Vec<u8>) -> Option<()> {
    let payload = postcard::to_stdvec(records).ok()?;
    if payload.len() > FRAME_BYTES_MAX {
        return None;
    }
    let start = out.len();
    out.extend_from_slice(&FRAME_MAGIC.to_le_bytes());
    out.extend_from_slice(&u32::try_from(payload.len()).ok()?.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&out[start..]).to_le_bytes());
    out.extend_from_slice(&payload);
    Some(())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Reads a whole log file, giving each record to `apply`.
pub(crate) fn replay(bytes: &[u8], store: StoreId, mut apply: impl FnMut(LogRecord)) -> Tail {
    if bytes.len() < FILE_HEADER_BYTES || bytes[..FILE_HEADER_BYTES] != file_header(store)[..] {
        return Tail::Damaged("the file header is not this store's");
    }
    let mut at = FILE_HEADER_BYTES;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let torn = Tail::Torn { good_bytes: at as u64 };
        if rest.len() < FRAME_HEADER_BYTES || rest.iter().all(|byte| *byte == 0) {
            return torn;
        }
        if word(rest, 0) != FRAME_MAGIC || word(rest, 12) != crc32c::crc32c(&rest[..12]) {
            return Tail::Damaged("a frame header is damaged");
        }
        let length = word(rest, 4) as usize;
        let Some(payload) = rest.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + length) else { return torn };
        if crc32c::crc32c(payload) != word(rest, 8) {
            // The length of a file may survive a power failure whose data did not: nothing but zeros was never synced.
            let empty = payload.iter().all(|byte| *byte == 0) && rest.len() == FRAME_HEADER_BYTES + length;
            return if empty { torn } else { Tail::Damaged("a frame is damaged") };
        }
        match postcard::from_bytes::<Vec<LogRecord>>(payload) {
            Ok(records) => records.into_iter().for_each(&mut apply),
            Err(_) => return Tail::Damaged("a frame holds records of another version"),
        }
        at += FRAME_HEADER_BYTES + length;
    }
    Tail::Whole
}

/// The whole table, and the receipts still remembered, as the content of a new log.
pub(crate) fn checkpoint(store: StoreId, table: &Table, receipts: &Receipts) -> Option<Vec<u8>> {
    let mut out = file_header(store);
    let mut records = Vec::new();
    for receipt in receipts.iter() {
        records.push(LogRecord::Ordered {
            position: receipt.position,
            selectors: receipt.selectors.clone(),
            mode: receipt.mode,
            at: receipt.applied_at,
            durable_at: receipt.durable_at,
            by: receipt.by.clone(),
            idempotency_key: receipt.idempotency_key.clone(),
            fingerprint: receipt.fingerprint,
        });
        if let Some(at) = receipt.reclaimed_at {
            records.push(LogRecord::Counted {
                position: receipt.position,
                matched: receipt.matched,
                bytes: receipt.matched_bytes,
                at,
                durable_at: receipt.durable_at,
            });
        }
        if records.len() >= 128 {
            encode_frame(&records, &mut out)?;
            records.clear();
        }
    }
    records.push(LogRecord::Latest(table.latest));
    records.push(LogRecord::Everything { hard: table.everything.hard, soft: table.everything.soft });
    encode_frame(&records, &mut out)?;
    let named: Vec<_> = table.named.iter().map(|(name, marks)| (*name, marks.hard, marks.soft)).collect();
    for part in named.chunks(MARKS_PER_FRAME) {
        encode_frame(&[LogRecord::Named(part.to_vec())], &mut out)?;
    }
    let buckets: Vec<_> = table.buckets().map(|(bucket, marks)| (bucket, marks.hard, marks.soft)).collect();
    for part in buckets.chunks(MARKS_PER_FRAME) {
        encode_frame(&[LogRecord::Buckets(part.to_vec())], &mut out)?;
    }
    for (authority, prefixes) in &table.prefixes {
        let records: Vec<_> = prefixes
            .iter()
            .map(|(prefix, Marks { hard, soft })| LogRecord::Prefix {
                authority: *authority,
                path_prefix: prefix.clone(),
                hard: *hard,
                soft: *soft,
            })
            .collect();
        encode_frame(&records, &mut out)?;
    }
    for (predicate, Marks { hard, soft }) in &table.predicates {
        let (hard, soft) = (*hard, *soft);
        match predicate {
            Matcher::Variant(variant) => {
                encode_frame(&[LogRecord::Variant { variant: variant.clone(), hard, soft }], &mut out)?;
            }
            Matcher::Match(predicate) => {
                encode_frame(&[LogRecord::Match { predicate: predicate.clone(), hard, soft }], &mut out)?;
            }
            Matcher::Everything | Matcher::Named(_) | Matcher::Prefix { .. } => {
                debug_assert!(false, "these have marks of their own");
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use brim_semantics::KeyHash;

    use super::*;

    /// One record of each kind, and one selector of each kind in them.
    fn one_of_each() -> Vec<LogRecord> {
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_790_000_000, 5);
        let position = Position(300);
        let authority: Box<str> = "a.example".into();
        let fields = vec![("accept".into(), b"*/*".to_vec().into())];
        let predicate = Predicate {
            site: Some("shop".into()),
            host: Some("*.example".into()),
            path: Some("/a*".into()),
            statuses: vec![(404, 410)],
            stored_before: Some(at),
            stored_after: None,
            content_type: Some("text/*".into()),
            plugin: Some([7; 32]),
        };
        let selectors = vec![
            Selector::Everything,
            Selector::Site("shop".into()),
            Selector::Prefix { authority: authority.clone(), path_prefix: "/a".into() },
            Selector::Url { authority: authority.clone(), path: "/a".into(), query: Some("q".into()) },
            Selector::SurrogateKeys { site: Some("shop".into()), keys: vec!["red".into()] },
            Selector::Groups { authority: authority.clone(), groups: vec!["g".into()] },
            Selector::Variant {
                authority,
                path: "/v".into(),
                query: None,
                keys: vec![KeyHash([1; 16])],
                fields: fields.clone(),
            },
            Selector::Match(predicate.clone()),
        ];
        let (hard, soft) = (1, 200);
        let variant = VariantOf { url: 2, keys: vec![3], fields };
        vec![
            LogRecord::Purge { position, selector: Selector::Everything, mode: PurgeMode::Hard, at },
            LogRecord::Matched { position, matched: 2 },
            LogRecord::Latest(position),
            LogRecord::Everything { hard, soft },
            LogRecord::Named(vec![(4, hard, soft)]),
            LogRecord::Prefix { authority: 5, path_prefix: "/a".into(), hard, soft },
            LogRecord::Buckets(vec![(6, hard, soft)]),
            LogRecord::Ordered {
                position,
                selectors,
                mode: PurgeMode::Soft,
                at,
                durable_at: at,
                by: "admin".into(),
                idempotency_key: Some("k".into()),
                fingerprint: Some([8; 32]),
            },
            LogRecord::Counted { position, matched: 2, bytes: 3, at, durable_at: at },
            LogRecord::Variant { variant, hard, soft },
            LogRecord::Match { predicate, hard, soft },
        ]
    }

    const WRITTEN: &str = concat!(
        "314d524693010000bb52d0f28b26a8c40b00ac02000080f7c4d5060501ac020202ac020301c80104010401c8010505022f6101c8010601",
        "0601c80107ac020800010473686f700209612e6578616d706c65022f610309612e6578616d706c65022f6101017104010473686f700103",
        "7265640509612e6578616d706c650101670609612e6578616d706c65022f76000101010101010101010101010101010101010661636365",
        "7074032a2f2a07010473686f7001092a2e6578616d706c6501032f612a0194039a030180f7c4d50605000106746578742f2a0107070707",
        "070707070707070707070707070707070707070707070707070707070180f7c4d5060580f7c4d506050561646d696e01016b0108080808",
        "0808080808080808080808080808080808080808080808080808080808ac02020380f7c4d5060580f7c4d5060509020103010661636365",
        "7074032a2f2a01c8010a010473686f7001092a2e6578616d706c6501032f612a0194039a030180f7c4d50605000106746578742f2a0107",
        "0707070707070707070707070707070707070707070707070707070707070701c801",
    );

    /// What a version wrote the next one reads: kinds are added at the end, and none changes.
    #[test]
    fn records_are_written_as_they_always_were() {
        let mut frame = Vec::new();
        encode_frame(&one_of_each(), &mut frame).unwrap();
        let written: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(written, WRITTEN);
        let mut log = file_header(StoreId([9; 16]));
        log.extend_from_slice(&frame);
        let mut read = Vec::new();
        assert_eq!(replay(&log, StoreId([9; 16]), |record| read.push(record)), Tail::Whole);
        assert_eq!(read, one_of_each());
    }
}
