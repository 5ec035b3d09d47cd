//! Remembered decisions of one plugin.
//!
//! Always true:
//! - A decision is found by the exact bytes of its inputs, never by a hash alone.
//! - No more than `memo_entries_max` decisions and `memo_bytes_max` bytes are held.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::config::{HostConfig, MEMO_INPUT_BYTES_MAX};
use crate::decision::KeyDecision;

pub(crate) struct Memo {
    decisions: Cache<Box<[u8]>, Arc<KeyDecision>, Weight>,
}

impl std::fmt::Debug for Memo {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Memo").field("decisions_count", &self.decisions.len()).finish()
    }
}

impl Memo {
    pub(crate) fn new(config: &HostConfig) -> Self {
        let entries = config.memo_entries_max.max(1);
        let bytes = config.memo_bytes_max;
        // Nothing weighs less than its share, so that the limit of bytes is one of entries too.
        let weight = Weight { least: (bytes / entries) as u64 };
        Self { decisions: Cache::with_weighter(entries, bytes as u64, weight) }
    }

    pub(crate) fn find(&self, inputs: &[u8]) -> Option<Arc<KeyDecision>> {
        self.decisions.get(inputs)
    }

    pub(crate) fn remember(&self, inputs: &[u8], decision: &Arc<KeyDecision>) {
        if inputs.len() <= MEMO_INPUT_BYTES_MAX {
            self.decisions.insert(inputs.into(), Arc::clone(decision));
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.decisions.len()
    }
}

#[derive(Debug, Clone)]
struct Weight {
    least: u64,
}

/// Allocations and bookkeeping around the bytes of an entry, roughly.
const ENTRY_OVERHEAD_BYTES: usize = 256;

impl Weighter<Box<[u8]>, Arc<KeyDecision>> for Weight {
    fn weight(&self, inputs: &Box<[u8]>, decision: &Arc<KeyDecision>) -> u64 {
        let parts = decision.parts.len() * size_of::<brim_semantics::KeyPart>();
        let bytes = inputs.len() + decision.bytes_count() + parts + ENTRY_OVERHEAD_BYTES;
        self.least.max(bytes as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::QueryUse;

    fn decision() -> Arc<KeyDecision> {
        Arc::new(KeyDecision { query: QueryUse::Keep, parts: Vec::new(), bypass: None, extras: Vec::new() })
    }

    #[test]
    fn both_limits_hold() {
        for (entries, bytes) in [(64, 1 << 30), (1 << 20, 64 * 1024)] {
            let memo =
                Memo::new(&HostConfig { memo_entries_max: entries, memo_bytes_max: bytes, ..HostConfig::default() });
            for i in 0..10_000_u32 {
                memo.remember(&i.to_le_bytes(), &decision());
            }
            assert!(memo.len() > 0 && memo.len() <= 256, "{}", memo.len());
        }
    }

    #[test]
    fn long_inputs_are_not_remembered() {
        let memo = Memo::new(&HostConfig::default());
        let long = vec![0; MEMO_INPUT_BYTES_MAX + 1];
        memo.remember(&long, &decision());
        assert!(memo.find(&long).is_none());
        memo.remember(&long[1..], &decision());
        assert!(memo.find(&long[1..]).is_some());
    }
}
