//! Confirmations: what a dry run hands out, and a purge above the blast radius has to show.
//!
//! Always true:
//! - A confirmation is good for one caller, one purge and [`CONFIRM_LIFETIME`], at the process that gave it. Nothing is kept.
//! - It says that somebody looked, no more: it gives no right that the caller's token does not have.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::model::PurgeRequest;
use super::selectors;
use super::token::{equal, hex, random};

/// How long one is good.
pub(super) const CONFIRM_LIFETIME: Duration = Duration::from_secs(300);
/// The block of SHA-256.
const BLOCK_BYTES: usize = 64;

/// Makes confirmations and knows its own.
pub struct Confirmations([u8; BLOCK_BYTES]);

impl std::fmt::Debug for Confirmations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Confirmations(..)")
    }
}

impl Confirmations {
    /// With a key of its own.
    pub fn new() -> std::io::Result<Self> {
        random().map(Self)
    }

    pub(super) fn give(&self, caller: &str, request: &PurgeRequest, now: SystemTime) -> String {
        let until_ms = unix_ms(now + CONFIRM_LIFETIME);
        format!("c-{until_ms:x}-{}", hex(&self.mac(caller, request, until_ms)))
    }

    pub(super) fn is_good(&self, shown: &str, caller: &str, request: &PurgeRequest, now: SystemTime) -> bool {
        let Some((until_ms, mac)) = shown.strip_prefix("c-").and_then(|rest| rest.split_once('-')) else {
            return false;
        };
        let Ok(until_ms) = u64::from_str_radix(until_ms, 16) else { return false };
        let ours = hex(&self.mac(caller, request, until_ms));
        let is_ours = equal(&Sha256::digest(ours).into(), &Sha256::digest(mac).into());
        is_ours && unix_ms(now) < until_ms
    }

    /// HMAC-SHA256 (RFC 2104) of what is confirmed.
    fn mac(&self, caller: &str, request: &PurgeRequest, until_ms: u64) -> [u8; 32] {
        // Its types have no key that is not text, so that it can be written.
        let what = serde_json::to_string(&(caller, until_ms, selectors::plain(request))).unwrap_or_default();
        let pad = |with: u8| self.0.map(|byte| byte ^ with);
        let inner = Sha256::new().chain_update(pad(0x36)).chain_update(what).finalize();
        Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_is_for_one_caller_one_purge_five_minutes_and_one_process() {
        let confirmations = Confirmations::new().expect("a key");
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let site = |name: &str| PurgeRequest { site: Some(name.to_owned()), ..PurgeRequest::default() };
        let given = confirmations.give("a", &PurgeRequest { dry_run: true, wait: true, ..site("x") }, now);
        let good = |shown: &str, caller: &str, request: &PurgeRequest, after_s| {
            confirmations.is_good(shown, caller, request, now + Duration::from_secs(after_s))
        };
        assert!(good(&given, "a", &PurgeRequest { confirm: Some(given.clone()), ..site("x") }, 299));
        assert!(!good(&given, "a", &site("x"), 300));
        assert!(!good(&given, "b", &site("x"), 0));
        assert!(!good(&given, "a", &site("y"), 0));
        assert!(!good(&given, "a", &PurgeRequest { soft: true, ..site("x") }, 0));
        assert!(!Confirmations::new().expect("a key").is_good(&given, "a", &site("x"), now));
        let (start, mac) = given.rsplit_once('-').expect("two parts");
        for wrong in ["", "c-", "c-1-", start, &format!("c-ffffffffffff-{mac}"), &given[..given.len() - 1]] {
            assert!(!good(wrong, "a", &site("x"), 0), "{wrong}");
        }
    }
}
