//! What readers of a growing body share with its filler.
//!
//! Always true:
//! - `held` reaches from `held_start` to `total` without a gap; what is below is on disk, or wanted by no reader.
//! - A reader of a range wants nothing below its first byte: as long as that has not arrived it keeps nothing in memory
//!   and is not behind. With its last byte it leaves.
//! - The lock is held for the time of a slice and some wakes, never across a wait.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use brim_semantics::PurgeState;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use parking_lot::Mutex;

use crate::config::FILL_WINDOW_BYTES;
use crate::fill::FillError;
use crate::purge::Names;
use crate::reader::{BodyReader, FromFill, slice};
use crate::response::{Place, Reading, ResponseHead};
use crate::shared::Shared;

enum End {
    Whole(Option<HeaderMap>),
    Aborted,
}

struct Slot {
    /// The next byte it wants; may lie beyond `total`.
    offset: u64,
    /// It wants nothing from here on.
    end: u64,
    waker: Option<Waker>,
}

#[derive(Default)]
struct State {
    /// Where each piece begins, and the piece.
    held: VecDeque<(u64, Bytes)>,
    held_start: u64,
    total: u64,
    /// The body's beginning on disk: `header.length` bytes of it.
    place: Option<Place>,
    is_passing: bool,
    end: Option<End>,
    readers: Vec<Option<Slot>>,
    /// Those who ever joined.
    readers_count: u64,
    /// The body's length when its last reader left.
    unread_from: u64,
    filler: Option<Waker>,
}

/// What a reader can do next.
pub(crate) enum Step {
    Bytes(Bytes),
    OnDisk(Place),
    /// The body is whole, so long, and nothing is left.
    Ended {
        length: u64,
        trailers: Option<HeaderMap>,
    },
    Aborted,
    Wait,
}

/// A body that grows, for those who want to read it too.
pub struct Following {
    head: ResponseHead,
    expected: Option<u64>,
    shared: Arc<Shared>,
    names: Arc<Names>,
    /// More surrogate keys come with the content: until they are known, any purge may name it.
    awaits_keys: AtomicBool,
    state: Mutex<State>,
}

impl State {
    fn on_disk(&self) -> u64 {
        self.place.as_ref().map_or(0, |place| place.header.length)
    }

    fn is_aborted(&self) -> bool {
        matches!(self.end, Some(End::Aborted))
    }

    /// Whether a reader can still get all it wants.
    fn can_serve(&self, slot: &Slot) -> bool {
        !self.is_aborted() || slot.end <= self.total
    }

    fn slowest(&self) -> Option<u64> {
        self.readers.iter().flatten().filter(|slot| self.can_serve(slot)).map(|slot| slot.offset).min()
    }

    fn drop_below(&mut self, offset: u64) {
        while let Some((start, bytes)) = self.held.front() {
            if start + bytes.len() as u64 > offset {
                break;
            }
            self.held.pop_front();
        }
        self.held_start = self.held.front().map_or(self.total, |(start, _)| *start);
    }

    /// Drops what nobody needs in memory.
    fn trim(&mut self) {
        let slowest = self.slowest();
        if self.is_aborted() && slowest.is_none() {
            // Its segment is removed, but takes space as long as somebody holds the file open.
            self.place = None;
        }
        if self.is_passing || self.is_aborted() {
            self.drop_below(slowest.unwrap_or(self.total).max(self.on_disk()));
        } else if self.place.is_some() {
            self.drop_below(self.on_disk());
        }
    }

    /// Wakes those who wait for a byte below `offset`.
    fn wake_readers(&mut self, offset: u64) {
        for slot in self.readers.iter_mut().flatten().filter(|slot| slot.offset < offset) {
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }

    fn moved(&mut self) {
        if self.is_passing || self.is_aborted() {
            self.trim();
            if let Some(filler) = self.filler.take() {
                filler.wake();
            }
        }
    }

    /// What readers of ranges still need of what has arrived stays until they have it.
    fn abort(&mut self) {
        self.end = Some(End::Aborted);
        self.trim();
        self.wake_readers(u64::MAX);
    }
}

impl Following {
    pub(crate) fn new(shared: Arc<Shared>, head: ResponseHead, names: Arc<Names>, expected: Option<u64>) -> Arc<Self> {
        Arc::new(Self { head, expected, shared, names, awaits_keys: AtomicBool::new(false), state: Mutex::default() })
    }

    /// The head of the response.
    pub fn head(&self) -> &ResponseHead {
        &self.head
    }

    /// Bytes of the body that have arrived so far. It only grows, and says nothing of what is to come.
    pub fn arrived(&self) -> u64 {
        self.state.lock().total
    }

    /// A reader from the first byte. None: it can be joined no more, because it broke off, is not stored, or a purge
    /// named it since its fetch began: what came after a purge must not see what was fetched before it. The first
    /// reader is not refused for a purge; it belongs to the request that made the fetch.
    pub fn read(self: &Arc<Self>) -> Option<BodyReader> {
        self.join(0, None)
    }

    /// A reader of the bytes `range` of this body, counted from its own first byte (also where it is a part, RFC 9110
    /// §14.4). None as for [`Following::read`]; it counts as a reader like any other.
    ///
    /// - It waits until the fill gets there. Until then it keeps no bytes in memory and is not what the fill waits for.
    /// - It ends with the last byte of the range, without trailers even where the body ends there too, and holds nobody
    ///   up from then on.
    /// - A range is cut to the body where its length is known, by announcement or because the fill has ended; what lies
    ///   beyond gives nothing. Where it is not known yet, a body that turns out to end before `range.end` is
    ///   [`BodyError::TooShort`](crate::BodyError::TooShort), because the reader's length may have been promised already;
    ///   a range to `u64::MAX` promises none and just ends.
    /// - A fill that breaks off takes nothing from a range that has arrived whole.
    ///
    /// A body that is not stored is paced by its slowest reader. Who reads several ranges of it one after the other, all
    /// joined before the first is read, must take them in ascending order: otherwise the first waits for a fill that
    /// waits for the second.
    pub fn read_range(self: &Arc<Self>, range: Range<u64>) -> Option<BodyReader> {
        self.join(range.start, Some(range.end))
    }

    fn join(self: &Arc<Self>, start: u64, end: Option<u64>) -> Option<BodyReader> {
        let purge = self.purge_state();
        let mut state = self.state.lock();
        if state.is_passing || state.is_aborted() {
            return None;
        }
        if purge != PurgeState::Live && !state.readers.is_empty() {
            return None;
        }
        let slot = match state.readers.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                state.readers.push(None);
                state.readers.len() - 1
            }
        };
        let length = self.expected.or_else(|| state.end.is_some().then_some(state.total));
        let end = end.map(|end| end.min(length.unwrap_or(u64::MAX)));
        let remaining = match end {
            None => self.expected,
            Some(end) if length.is_some() || end <= state.total.max(start) => Some(end.saturating_sub(start)),
            Some(_) => None,
        };
        state.readers_count += 1;
        state.readers[slot] = Some(Slot { offset: start, end: end.unwrap_or(u64::MAX), waker: None });
        drop(state);
        Some(BodyReader::following(FromFill::new(Arc::clone(self), slot, start, end), remaining))
    }

    /// What purges say of it. As long as its surrogate keys are not all known, any later one counts as naming it.
    fn purge_state(&self) -> PurgeState {
        let clock = self.shared.clock();
        if self.awaits_keys.load(Ordering::Acquire) && clock.latest() > self.head.fetched_at {
            return PurgeState::Hard;
        }
        clock.state_now(&self.names, self.head.fetched_at)
    }

    pub(crate) fn await_keys(&self) {
        self.awaits_keys.store(true, Ordering::Release);
    }

    /// How many readers there ever were.
    pub(crate) fn readers_count(&self) -> u64 {
        self.state.lock().readers_count
    }

    pub(crate) fn reading(&self) -> &Arc<Reading> {
        self.shared.reading()
    }

    pub(crate) fn step(&self, slot: usize, offset: u64, cx: &Context<'_>) -> Step {
        let mut state = self.state.lock();
        let served = state.readers.get(slot).and_then(Option::as_ref).filter(|slot| state.can_serve(slot));
        let Some(end) = served.map(|slot| slot.end) else { return Step::Aborted };
        if offset < state.held_start.min(state.total)
            && let Some(place) = &state.place
        {
            return Step::OnDisk(place.clone());
        }
        if offset < state.total {
            let at = state.held.partition_point(|(start, _)| *start <= offset);
            let piece = at.checked_sub(1).and_then(|at| state.held.get(at)).cloned();
            if let Some((start, bytes)) = piece {
                let bytes = slice(&bytes, offset - start, end - start);
                if let Some(slot) = state.readers.get_mut(slot).and_then(Option::as_mut) {
                    slot.offset = offset + bytes.len() as u64;
                }
                state.moved();
                return Step::Bytes(bytes);
            }
            debug_assert!(false, "what is not held is on disk");
            return Step::Aborted;
        }
        if let Some(End::Whole(trailers)) = &state.end {
            return Step::Ended { length: state.total, trailers: trailers.clone() };
        }
        if let Some(slot) = state.readers.get_mut(slot).and_then(Option::as_mut) {
            match &mut slot.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        Step::Wait
    }

    pub(crate) fn advanced(&self, slot: usize, offset: u64) {
        let mut state = self.state.lock();
        if let Some(slot) = state.readers.get_mut(slot).and_then(Option::as_mut) {
            slot.offset = offset;
        }
        state.moved();
    }

    pub(crate) fn leave(&self, slot: usize) {
        let mut state = self.state.lock();
        if let Some(slot) = state.readers.get_mut(slot) {
            *slot = None;
        }
        if state.readers.iter().all(Option::is_none) {
            state.unread_from = state.total;
        }
        state.moved();
    }

    pub(crate) fn push(&self, bytes: Bytes) {
        let mut state = self.state.lock();
        let start = state.total;
        state.total += bytes.len() as u64;
        state.held.push_back((start, bytes));
        state.trim();
        let total = state.total;
        state.wake_readers(total);
    }

    /// All that is held, as one piece.
    pub(crate) fn held(&self) -> BytesMut {
        let state = self.state.lock();
        let mut joined = BytesMut::with_capacity(state.held.iter().map(|(_, bytes)| bytes.len()).sum());
        state.held.iter().for_each(|(_, bytes)| joined.extend_from_slice(bytes));
        joined
    }

    /// The pieces are one now, and no longer slices of a connection's buffer.
    pub(crate) fn collected(&self, body: Bytes) {
        let mut state = self.state.lock();
        state.held.clear();
        state.held.push_back((0, body));
    }

    pub(crate) fn streams_to(&self, place: Place) {
        self.state.lock().place = Some(place);
    }

    pub(crate) fn on_disk(&self, length: u64) {
        let mut state = self.state.lock();
        if let Some(place) = &mut state.place {
            place.header.length = length;
        }
        state.trim();
    }

    pub(crate) fn passes(&self) {
        let mut state = self.state.lock();
        state.is_passing = true;
        state.trim();
    }

    /// Aborts if nobody reads and too much is to come: more than `limit` bytes are missing, or, of a body whose length is
    /// not announced, more than that have come since its last reader left. Nobody can join between the two.
    pub(crate) fn abort_unread(&self, limit: u64) -> bool {
        let mut state = self.state.lock();
        let bytes = match self.expected {
            Some(expected) => expected.saturating_sub(state.total),
            None => state.total - state.unread_from,
        };
        if bytes <= limit || state.readers.iter().any(Option::is_some) {
            return false;
        }
        state.abort();
        true
    }

    /// Ready when the slowest reader is near enough, or nobody reads.
    pub(crate) fn poll_paced(&self, cx: &Context<'_>) -> Poll<Result<(), FillError>> {
        let mut state = self.state.lock();
        let Some(slowest) = state.slowest() else { return Poll::Ready(Err(FillError::Unwanted)) };
        if state.total - slowest.max(state.on_disk()).min(state.total) <= FILL_WINDOW_BYTES as u64 {
            return Poll::Ready(Ok(()));
        }
        state.filler = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn end(&self, trailers: Option<HeaderMap>) {
        let mut state = self.state.lock();
        state.end = Some(End::Whole(trailers));
        state.wake_readers(u64::MAX);
    }

    pub(crate) fn abort(&self) {
        self.state.lock().abort();
    }
}
