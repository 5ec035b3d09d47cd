//! The receipts of the last purges.
//!
//! Always true:
//! - At most [`RECEIPTS_MAX`] of them are remembered, with about [`RECEIPTS_BYTES_MAX`]; the oldest are forgotten first, and with them that a
//!   purge was made under its idempotency key.
//! - Those of writes have a bound of their own, [`WRITES_MAX`]: however many clients write, no operator's receipt is lost for it.

use std::collections::{BTreeMap, VecDeque};
use std::time::SystemTime;

use super::{BY_RETRY, BY_WRITE, Position, Purge, PurgeError, Receipt, Selector};

/// Receipts of purges that somebody asked for.
pub(crate) const RECEIPTS_MAX: usize = 4096;
/// Memory in them, about. A checkpoint of the log has it once more.
pub(crate) const RECEIPTS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Receipts of what writes have purged, and the memory in them.
pub(crate) const WRITES_MAX: usize = 1024;
const WRITES_BYTES_MAX: usize = 8 * 1024 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Receipts {
    all: BTreeMap<Position, Receipt>,
    asked: Kept,
    written: Kept,
}

/// Those that are forgotten in the order in which they came.
#[derive(Debug, Default)]
struct Kept {
    positions: VecDeque<Position>,
    bytes: usize,
}

impl Receipts {
    pub(crate) fn push(&mut self, receipt: Receipt) {
        let is_written = *receipt.by == *BY_WRITE || *receipt.by == *BY_RETRY;
        let (kept, count_max, bytes_max) = if is_written {
            (&mut self.written, WRITES_MAX, WRITES_BYTES_MAX)
        } else {
            (&mut self.asked, RECEIPTS_MAX, RECEIPTS_BYTES_MAX)
        };
        kept.bytes += bytes_of(&receipt);
        kept.positions.push_back(receipt.position);
        self.all.insert(receipt.position, receipt);
        while kept.positions.len() > count_max || (kept.bytes > bytes_max && kept.positions.len() > 1) {
            let Some(oldest) = kept.positions.pop_front().and_then(|position| self.all.remove(&position)) else {
                break;
            };
            kept.bytes -= bytes_of(&oldest);
        }
    }

    /// In the order of their positions.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Receipt> {
        self.all.values()
    }

    pub(crate) fn find(&self, id: &str) -> Option<&Receipt> {
        let position = id.strip_prefix("p-")?.parse().ok().map(Position)?;
        self.all.get(&position).filter(|receipt| receipt.id == id)
    }

    /// Notes what a purge hit; gives the receipt, if it is remembered.
    pub(crate) fn note(
        &mut self,
        position: Position,
        matched: u64,
        bytes: u64,
        at: Option<SystemTime>,
    ) -> Option<&mut Receipt> {
        let receipt = self.all.get_mut(&position)?;
        (receipt.matched, receipt.matched_bytes, receipt.reclaimed_at) = (matched, bytes, at);
        Some(receipt)
    }

    /// The receipt of the same purge, if it was made before under its idempotency key.
    pub(crate) fn repeated(&self, purge: &Purge) -> Result<Option<Receipt>, PurgeError> {
        let Some(key) = &purge.idempotency_key else { return Ok(None) };
        let is_it = |receipt: &&Receipt| receipt.idempotency_key.as_ref() == Some(key) && receipt.by == purge.by;
        let Some(first) = self.iter().rev().find(is_it) else { return Ok(None) };
        if !purge.is_same(&first.selectors, first.mode, first.fingerprint) {
            return Err(PurgeError::IdempotencyConflict(first.id.clone()));
        }
        Ok(Some(Receipt { is_repeated: true, ..first.clone() }))
    }
}

fn bytes_of(receipt: &Receipt) -> usize {
    // A text of its own costs its place in a list and the rounding of an allocation besides.
    const EACH_TEXT: usize = 48;
    let of_selector = |selector: &Selector| {
        let texts = match selector {
            Selector::SurrogateKeys { keys, .. } => keys.len(),
            Selector::Groups { groups, .. } => groups.len(),
            Selector::Variant { fields, .. } => 2 * fields.len() + 3,
            _ => 3,
        };
        size_of::<Selector>() + selector.text_bytes() + texts * EACH_TEXT
    };
    let texts = receipt.by.len() + receipt.idempotency_key.as_ref().map_or(0, |key| key.len());
    size_of::<Receipt>() + texts + receipt.selectors.iter().map(of_selector).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PurgeMode;

    fn receipt(position: u64, by: &str, key: Option<&str>) -> Receipt {
        let now = SystemTime::UNIX_EPOCH;
        let purge = Purge {
            by: by.into(),
            idempotency_key: key.map(Into::into),
            ..Purge::of(Selector::Everything, PurgeMode::Hard, now)
        };
        Receipt::new(Position(position), purge, now)
    }

    /// However much is written, what somebody asked for is remembered.
    #[test]
    fn writes_push_out_their_own_receipts_alone() {
        let mut receipts = Receipts::default();
        receipts.push(receipt(1, "ann", Some("k")));
        for position in 2..10_000 {
            receipts.push(receipt(position, BY_WRITE, None));
        }
        assert_eq!(receipts.iter().count(), WRITES_MAX + 1);
        assert!(receipts.find("p-1").is_some() && receipts.find("p-2").is_none() && receipts.find("p-9999").is_some());
        assert_eq!(receipts.find("p-01"), None);
        let again = receipts.repeated(&Purge {
            by: "ann".into(),
            idempotency_key: Some("k".into()),
            ..Purge::of(Selector::Everything, PurgeMode::Hard, SystemTime::UNIX_EPOCH)
        });
        assert!(again.is_ok_and(|found| found.is_some_and(|first| first.is_repeated && first.id == "p-1")));
        for position in 10_000..10_000 + RECEIPTS_MAX as u64 {
            receipts.push(receipt(position, "bob", None));
        }
        assert!(receipts.find("p-1").is_none());
    }
}
