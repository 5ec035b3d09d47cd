//! The writer: the one thread that changes a disk tier, from its opening to its end.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::compaction::Compaction;
use super::opening::{self, DiskError, Opened};
use super::queue::{Next, Op};
use super::rebuild::Rebuilds;
use super::segments::Phase;
use super::supervisor::{Stage, Turn};
use super::{Disk, Failure};
use crate::catalog::Which;
use crate::dir::StoreId;
use crate::faults::Step;
use crate::index::index_key;
use crate::record::{self, BodyPlace};
use crate::response::{Place, StoredResponse};
use crate::segment::{FILE_HEADER_BYTES, RecordHeader, Segment, encode_blocks, record_bytes, record_header};
use crate::shared::Shared;
use crate::writing::PAUSE_AFTER_ERROR;

/// The segment that is appended to.
pub(super) struct Open {
    pub(super) segment: Arc<Segment>,
    pub(super) at: u64,
}

pub(super) struct Writer<'a> {
    pub(super) shared: &'a Shared,
    pub(super) disk: Arc<Disk>,
    pub(super) open: Option<Open>,
    pub(super) compaction: Option<Compaction>,
    pub(super) rebuilds: Rebuilds,
    /// Made once: fresh memory for each record costs more than filling it.
    encoded: Vec<u8>,
    last_housekeeping: Instant,
}

/// Opens a disk tier, perhaps again, and serves it. None: the queue was closed. Some: the tier failed.
pub(super) fn serve(shared: &Arc<Shared>, store: StoreId, turn: &Turn, is_again: bool) -> Option<Failure> {
    let Opened { disk, generations, generation, numbers_from } = match opening::open(shared, store, turn, is_again) {
        Ok(opened) => opened,
        Err(error) => return Some(error.into()),
    };
    if !shared.install_disk(&disk, || !turn.is_abandoned()) {
        return Some(DiskError::LeftBehind.into());
    }
    turn.enter(Stage::Open);
    let stop = Arc::new((parking_lot::Mutex::new(false), parking_lot::Condvar::new()));
    let flusher = std::thread::Builder::new().name("brim-flush".into()).spawn({
        let (shared, disk, stop) = (Arc::clone(shared), Arc::clone(&disk), Arc::clone(&stop));
        move || {
            let mut stopped = stop.0.lock();
            while !*stopped {
                stop.1.wait_for(&mut stopped, shared.config.flush_every);
                parking_lot::MutexGuard::unlocked(&mut stopped, || {
                    disk.flush();
                    // What was emptied is gone now.
                    shared.room.notify_all();
                });
                if disk.failure().is_some() {
                    return;
                }
            }
        }
    });
    let flusher = match flusher {
        Ok(flusher) => flusher,
        Err(error) => return Some(Failure::of(format_args!("no thread to flush with: {error}"))),
    };
    let mut writer = Writer {
        shared,
        disk,
        open: None,
        compaction: None,
        rebuilds: Rebuilds::new(generations, generation, numbers_from),
        encoded: Vec::new(),
        last_housekeeping: Instant::now(),
    };
    let failure = writer.serve();
    *stop.0.lock() = true;
    stop.1.notify_all();
    let _ = flusher.join();
    failure
}

impl Writer<'_> {
    fn serve(&mut self) -> Option<Failure> {
        self.housekeeping();
        loop {
            let wait = self.shared.config.flush_every.min(self.pause_of_background_work());
            match self.shared.reading().queue.next(wait) {
                Next::Op(op) => {
                    if let Some(failure) = self.disk.failure() {
                        // It is for the tier that takes this one's place.
                        self.shared.reading().queue.put_back(op);
                        return Some(failure);
                    }
                    self.perform(op);
                }
                Next::Idle => {}
                Next::Closed => {
                    self.disk.flush();
                    return self.disk.failure();
                }
            }
            if self.disk.failure().is_none() && self.last_housekeeping.elapsed() >= self.shared.config.flush_every {
                self.housekeeping();
                self.last_housekeeping = Instant::now();
            }
            if self.disk.failure().is_none() {
                self.background_work();
            }
            if let Some(failure) = self.disk.failure() {
                return Some(failure);
            }
        }
    }

    fn perform(&mut self, op: Op) {
        match op {
            Op::Write(response) => self.write(&response),
            Op::Forget(gone) => gone.into_iter().for_each(|which| self.forget(which)),
            Op::Damaged(which, reason) => {
                tracing::warn!(%reason, "a stored response cannot be read; it is removed");
                self.shared.counters.damaged.add(1);
                self.shared.drop_response(which);
                self.forget(which);
            }
            Op::MakeRoom(bytes) => self.make_room(bytes),
            Op::Flush(done) => {
                self.disk.flush();
                let _ = done.send(());
            }
        }
    }

    /// Removes the index entry of a card that is gone, unless another response took its place on disk.
    pub(super) fn forget(&self, which: Which) {
        if !self.shared.catalog.is_written(which.key, which.variant) {
            let key = index_key(which.key, which.variant);
            self.disk.remove(&key);
            self.also_in_rebuild(&key, None);
        }
    }

    /// Puts an index entry.
    pub(super) fn put_entry(&self, which: Which, value: &[u8]) -> Option<()> {
        let key = index_key(which.key, which.variant);
        self.disk.put(&key, value)?;
        self.also_in_rebuild(&key, Some(value));
        Some(())
    }

    fn write(&mut self, response: &StoredResponse) {
        let which = response.which();
        let is_ours = |place: &Place| place.segment.store == self.disk.store;
        let own_segment = response.body.place().filter(|place| response.bytes.is_none() && is_ours(place));
        let own_segment = own_segment.map(|place| place.segment.id);
        let written = self.shared.catalog.is_current(which) && self.write_current(response, which);
        if self.disk.failure().is_some() {
            // Another tier may have it by now: its card is no longer this one's to change.
            return;
        }
        if !written && self.shared.keep_in_memory(which) {
            self.shared.counters.writes_dropped.add(1);
            // What it replaced must not come back at the next start.
            self.forget(which);
        }
        if let Some(id) = own_segment {
            // Housekeeping dooms it when nothing refers to it.
            self.disk.segments.set_phase(id, Phase::Closed);
        }
    }

    fn write_current(&mut self, response: &StoredResponse, which: Which) -> bool {
        let known = response
            .body
            .place()
            .filter(|place| place.segment.store == self.disk.store && self.disk.segments.revive(place.segment.id));
        let place = match (known, &response.bytes) {
            (Some(place), _) => place,
            (None, Some(bytes)) => {
                let header = RecordHeader {
                    key: which.key,
                    variant: which.variant,
                    serial: which.serial,
                    length: bytes.len() as u64,
                };
                if !self.has_room(record_bytes(header.length)) {
                    return false;
                }
                match self.append(&header, bytes) {
                    Ok(place) => {
                        response.body.set_place(Some(place.clone()));
                        place
                    }
                    Err(error) => {
                        self.write_failed(&error);
                        return false;
                    }
                }
            }
            (None, None) => return false,
        };
        self.enter(response, which, &place)
    }

    /// Puts the index entry and counts the bytes for the segment.
    fn enter(&self, response: &StoredResponse, which: Which, place: &Place) -> bool {
        let numbers = body_place(place);
        let value = record::encode(&response.head, response.trailers.as_deref(), response.serial, numbers);
        let Some(value) = value else { return false };
        if self.put_entry(which, &value).is_none() {
            return false;
        }
        self.shared.counters.writes.add(1);
        self.shared.counters.bytes_written.add(record_bytes(response.body.length));
        // False: it was replaced meanwhile; what replaced it comes later in the queue.
        self.shared.catalog.placed(which, place.segment.id, entry_bytes(&value));
        true
    }

    pub(super) fn append(&mut self, header: &RecordHeader, bytes: &[u8]) -> io::Result<Place> {
        let record = record_bytes(header.length);
        let segment_bytes = self.shared.config.segment_bytes();
        if self.open.as_ref().is_some_and(|open| open.at > FILE_HEADER_BYTES && open.at + record > segment_bytes) {
            self.close_open();
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open { segment: self.disk.create_segment()?, at: FILE_HEADER_BYTES },
        };
        let mut encoded = std::mem::take(&mut self.encoded);
        encoded.clear();
        encoded.extend_from_slice(&record_header(header, self.disk.store));
        encode_blocks(bytes, header.serial, 0, &mut encoded);
        let offset = open.at;
        self.disk.segments.grow(open.segment.id, record);
        let segment = Arc::clone(&open.segment);
        open.at += record;
        let result = {
            let _watched = self.shared.watch.call();
            self.shared.config.faults().write_all_at(Step::SegmentAppend, &segment.file, &encoded, offset)
        };
        self.encoded = encoded;
        self.disk.soil(&segment);
        self.open = Some(open);
        if let Err(error) = result {
            // What follows a record that may be half there goes elsewhere.
            self.close_open();
            return Err(error);
        }
        Ok(Place { segment, offset, header: *header })
    }

    pub(super) fn close_open(&mut self) {
        if let Some(open) = self.open.take() {
            self.disk.segments.set_phase(open.segment.id, Phase::Closed);
        }
    }

    pub(super) fn write_failed(&self, error: &io::Error) {
        self.shared.counters.write_errors.add(1);
        self.disk.pause(format!("a body cannot be written: {error}"), PAUSE_AFTER_ERROR);
    }
}

pub(super) fn body_place(place: &Place) -> BodyPlace {
    BodyPlace {
        segment: place.segment.id,
        offset: place.offset,
        length: place.header.length,
        serial: place.header.serial,
    }
}

/// What an index entry of this value takes.
pub(super) fn entry_bytes(value: &[u8]) -> u32 {
    u32::try_from(size_of::<crate::index::IndexKey>() + value.len()).unwrap_or(u32::MAX)
}
