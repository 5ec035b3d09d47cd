//! The receipts of the last purges.
//!
//! Always true: at most [`RECEIPTS_MAX`] are remembered, with [`RECEIPTS_BYTES_MAX`] of text; the oldest are forgotten first, and with them
//! that a purge was made under its idempotency key.

use std::collections::VecDeque;
use std::time::SystemTime;

use super::{Position, Purge, PurgeError, Receipt};

/// Receipts that are remembered, the newest.
pub(crate) const RECEIPTS_MAX: usize = 4096;
/// Text in them. A checkpoint of the log has it once more.
pub(crate) const RECEIPTS_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Receipts {
    /// In the order of their positions.
    all: VecDeque<Receipt>,
    bytes: usize,
}

impl Receipts {
    pub(crate) fn push(&mut self, receipt: Receipt) {
        self.bytes += text_bytes(&receipt);
        self.all.push_back(receipt);
        while self.all.len() > RECEIPTS_MAX || (self.bytes > RECEIPTS_BYTES_MAX && self.all.len() > 1) {
            let Some(oldest) = self.all.pop_front() else { break };
            self.bytes -= text_bytes(&oldest);
        }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Receipt> {
        self.all.iter()
    }

    pub(crate) fn find(&self, id: &str) -> Option<&Receipt> {
        self.all.iter().rev().find(|receipt| receipt.id == id)
    }

    /// Notes what a purge hit; gives the receipt, if it is remembered.
    pub(crate) fn note(
        &mut self,
        position: Position,
        matched: u64,
        bytes: u64,
        at: Option<SystemTime>,
    ) -> Option<&mut Receipt> {
        let receipt = self.all.iter_mut().rev().find(|receipt| receipt.position == position)?;
        (receipt.matched, receipt.matched_bytes, receipt.reclaimed_at) = (matched, bytes, at);
        Some(receipt)
    }

    /// The receipt of the same purge, if it was made before under its idempotency key.
    pub(crate) fn repeated(&self, purge: &Purge) -> Result<Option<Receipt>, PurgeError> {
        let Some(key) = &purge.idempotency_key else { return Ok(None) };
        let is_it = |receipt: &&Receipt| receipt.idempotency_key.as_ref() == Some(key) && receipt.by == purge.by;
        let Some(first) = self.all.iter().rev().find(is_it) else { return Ok(None) };
        if first.selectors != purge.selectors || first.mode != purge.mode {
            return Err(PurgeError::IdempotencyConflict(first.id.clone()));
        }
        Ok(Some(Receipt { is_repeated: true, ..first.clone() }))
    }
}

fn text_bytes(receipt: &Receipt) -> usize {
    let selectors = receipt.selectors.iter().map(super::Selector::text_bytes).sum::<usize>();
    size_of::<Receipt>() + selectors + receipt.by.len() + receipt.idempotency_key.as_ref().map_or(0, |key| key.len())
}
