//! A budget for HTTP/2 frames that cost work and bring none: resets, pings, settings, priorities, empty data.
//!
//! It reads the frame headers in the bytes that a client sends (RFC 9113 §4.1) and spends from a bucket. The bucket
//! refills with time, with responses that were sent to their end, and with bytes sent; a stream that is opened and reset
//! (CVE-2023-44487) earns nothing. h2 bounds what such frames hold in memory; this bounds how often they come.
//!
//! Always true:
//! - A frame is charged once, when its header is complete, however it is cut into reads.
//! - The clock is read only when the bucket is empty.
//!
//! Not here: closing the connection (`connection`), limits on header blocks and streams (hyper's own).

use tokio::time::Instant;

/// Units that a connection may spend at once: 1,000 control frames.
pub const FRAME_UNITS_MAX: u64 = 10_000;
/// Units that come back each second: 200 control frames.
pub const FRAME_UNITS_PER_SECOND: u64 = 2_000;
/// A response sent to its end pays for its client's reset, ping or window updates.
pub const FRAME_UNITS_PER_RESPONSE: u64 = 20;
/// One unit for so many bytes sent: a client that opens its windows for each frame of 16 KiB, twice, stays even.
pub const BYTES_PER_FRAME_UNIT: u64 = 2 * 1024;

const CONTROL_FRAME_UNITS: u64 = 10;
const WINDOW_UPDATE_UNITS: u64 = 1;
const CONTINUATION_UNITS: u64 = 10;

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n` comes before the first frame (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;

/// What a connection has earned since it began.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Earned {
    pub(super) responses: u64,
    pub(super) bytes: u64,
}

impl Earned {
    fn units(self) -> u64 {
        self.responses * FRAME_UNITS_PER_RESPONSE + self.bytes / BYTES_PER_FRAME_UNIT
    }
}

/// More control frames came than the budget allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more HTTP/2 control frames than the connection's budget allows")]
pub(super) struct OverBudget;

/// The budget of one connection.
#[derive(Debug)]
pub(super) struct FrameBudget {
    /// Bytes to pass over: the preface, then payloads.
    skip: usize,
    header: [u8; HEADER_BYTES],
    header_read: usize,
    units: u64,
    earned_units: u64,
    refilled: Instant,
}

impl FrameBudget {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE.len(),
            header: [0; HEADER_BYTES],
            header_read: 0,
            units: FRAME_UNITS_MAX,
            earned_units: 0,
            refilled: now,
        }
    }

    /// Charges the frames whose headers end in `bytes`. After an error the connection is over.
    pub(super) fn charge(
        &mut self,
        mut bytes: &[u8],
        earned: impl Fn() -> Earned,
        now: impl Fn() -> Instant,
    ) -> Result<(), OverBudget> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let passed = self.skip.min(bytes.len());
                self.skip -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let taken = (HEADER_BYTES - self.header_read).min(bytes.len());
            self.header[self.header_read..self.header_read + taken].copy_from_slice(&bytes[..taken]);
            self.header_read += taken;
            bytes = &bytes[taken..];
            if self.header_read == HEADER_BYTES {
                self.header_read = 0;
                let [high, middle, low, kind, flags, ..] = self.header;
                let length = u32::from_be_bytes([0, high, middle, low]) as usize;
                self.skip = length;
                self.spend(units(kind, flags, length), &earned, &now)?;
            }
        }
        Ok(())
    }

    fn spend(
        &mut self,
        units: u64,
        earned: &impl Fn() -> Earned,
        now: &impl Fn() -> Instant,
    ) -> Result<(), OverBudget> {
        if self.units < units {
            self.refill(earned(), now());
        }
        self.units = self.units.checked_sub(units).ok_or(OverBudget)?;
        Ok(())
    }

    fn refill(&mut self, earned: Earned, now: Instant) {
        let by_work = earned.units() - self.earned_units;
        let milliseconds = u64::try_from(now.duration_since(self.refilled).as_millis()).unwrap_or(u64::MAX);
        let by_time = milliseconds.saturating_mul(FRAME_UNITS_PER_SECOND) / 1000;
        if by_time > 0 {
            self.refilled = now;
        }
        self.earned_units = earned.units();
        self.units = self.units.saturating_add(by_work).saturating_add(by_time).min(FRAME_UNITS_MAX);
    }
}

/// What a frame costs (RFC 9113 §6 has the types). HEADERS and DATA with content cost nothing: other limits hold them.
fn units(kind: u8, flags: u8, length: usize) -> u64 {
    const END_STREAM: u8 = 0x1;
    match kind {
        0x0 if length == 0 && flags & END_STREAM == 0 => CONTROL_FRAME_UNITS,
        0x0 | 0x1 => 0,
        0x8 => WINDOW_UPDATE_UNITS,
        0x9 => CONTINUATION_UNITS,
        _ => CONTROL_FRAME_UNITS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    const PINGS_MAX: u64 = FRAME_UNITS_MAX / CONTROL_FRAME_UNITS;

    fn budget(now: Instant) -> FrameBudget {
        let mut budget = FrameBudget::new(now);
        budget.charge(PREFACE, Earned::default, || now).expect("the preface is free");
        budget
    }

    #[test]
    fn a_frame_is_charged_once_however_it_is_cut() {
        let now = Instant::now();
        let mut budget = budget(now);
        for byte in PING {
            budget.charge(&[byte], Earned::default, || now).expect("within the budget");
        }
        assert_eq!(budget.units, FRAME_UNITS_MAX - CONTROL_FRAME_UNITS);
    }

    #[test]
    fn a_flood_ends_at_the_budget() {
        let now = Instant::now();
        let mut budget = budget(now);
        for _ in 0..PINGS_MAX {
            budget.charge(&PING, Earned::default, || now).expect("within the budget");
        }
        assert_eq!(budget.charge(&PING, Earned::default, || now), Err(OverBudget));
    }

    #[test]
    fn time_refills_the_budget() {
        let now = Instant::now();
        let mut budget = budget(now);
        for _ in 0..PINGS_MAX {
            budget.charge(&PING, Earned::default, || now).expect("within the budget");
        }
        let later = now + Duration::from_secs(1);
        for _ in 0..FRAME_UNITS_PER_SECOND / CONTROL_FRAME_UNITS {
            budget.charge(&PING, Earned::default, || later).expect("refilled");
        }
        assert_eq!(budget.charge(&PING, Earned::default, || later), Err(OverBudget));
    }

    #[test]
    fn responses_and_bytes_sent_pay_for_control_frames_once() {
        let now = Instant::now();
        let mut budget = budget(now);
        let earned = || Earned { responses: 100, bytes: 100 * BYTES_PER_FRAME_UNIT };
        let pings = PINGS_MAX + (100 * FRAME_UNITS_PER_RESPONSE + 100) / CONTROL_FRAME_UNITS;
        for _ in 0..pings {
            budget.charge(&PING, earned, || now).expect("earned");
        }
        assert_eq!(budget.charge(&PING, earned, || now), Err(OverBudget));
    }

    #[test]
    fn requests_and_content_are_free() {
        assert_eq!(units(0x1, 0x5, 40), 0);
        assert_eq!(units(0x0, 0x0, 16_384), 0);
        assert_eq!(units(0x0, 0x1, 0), 0);
        assert_eq!(units(0x0, 0x0, 0), CONTROL_FRAME_UNITS);
        assert_eq!(units(0x3, 0x0, 4), CONTROL_FRAME_UNITS);
    }
}
