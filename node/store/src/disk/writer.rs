//! The writer: the one thread that changes the disk tier, and brings it back when it failed.

use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::queue::{Next, Op};
use super::segments::Phase;
use super::{Disk, opening};
use crate::catalog::Which;
use crate::dir::StoreId;
use crate::index::{index_key, panic_text};
use crate::record::{self, BodyPlace};
use crate::response::{Place, StoredResponse};
use crate::segment::{FILE_HEADER_BYTES, RecordHeader, Segment, encode_blocks, record_bytes, record_header};
use crate::shared::{DiskState, Shared};

/// How long a disk tier that cannot be opened is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The segment that is appended to.
pub(super) struct Open {
    pub(super) segment: Arc<Segment>,
    pub(super) at: u64,
}

pub(super) struct Writer<'a> {
    pub(super) shared: &'a Shared,
    pub(super) disk: Arc<Disk>,
    pub(super) open: Option<Open>,
    last_housekeeping: Instant,
}

/// The writer's thread: opens the disk tier, serves it, sets it aside when it fails, until the queue is closed.
pub(crate) fn run(shared: &Arc<Shared>, mut store: StoreId) {
    let mut last_aside: Option<Instant> = None;
    loop {
        let opened = catch_unwind(AssertUnwindSafe(|| opening::open(shared, store)));
        let failure = match opened {
            Ok(Ok(disk)) => match serve(shared, Arc::new(disk)) {
                None => return,
                Some(failure) => failure,
            },
            Ok(Err(error)) => error.to_string(),
            Err(panic) => format!("panic while opening: {}", panic_text(&*panic)),
        };
        shared.set_disk(None, DiskState::Failed(failure.clone()));
        match opening::set_aside(shared, &failure) {
            Ok(fresh) => {
                store = fresh;
                // One failure after the other: no tier can be made for now.
                let is_again = last_aside.replace(Instant::now()).is_some_and(|last| last.elapsed() < RETRY_AFTER);
                if is_again && !wait_without_disk(shared) {
                    return;
                }
            }
            Err(error) => {
                tracing::error!(%error, "no disk tier can be made; going on in memory");
                if !wait_without_disk(shared) {
                    return;
                }
            }
        }
        if shared.reading().queue.is_closed() {
            return;
        }
    }
}

/// Answers and drops what comes, for a while. False: the store closes.
fn wait_without_disk(shared: &Shared) -> bool {
    let until = Instant::now() + RETRY_AFTER;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        match shared.reading().queue.next(left) {
            Next::Op(Op::Write(response)) => {
                shared.catalog.remove(response.which());
                shared.counters.writes_dropped.add(1);
            }
            Next::Op(Op::Forget(_) | Op::Damaged(..) | Op::MakeRoom(_)) => {}
            Next::Op(Op::Flush(done)) => {
                let _ = done.send(());
            }
            Next::Idle => return true,
            Next::Closed => return false,
        }
    }
    true
}

/// None: the queue was closed. Some: the disk tier failed.
fn serve(shared: &Arc<Shared>, disk: Arc<Disk>) -> Option<String> {
    shared.set_disk(Some(Arc::clone(&disk)), DiskState::Ready);
    let stop = Arc::new((parking_lot::Mutex::new(false), parking_lot::Condvar::new()));
    let flusher = std::thread::Builder::new().name("brim-flush".into()).spawn({
        let (disk, stop, every) = (Arc::clone(&disk), Arc::clone(&stop), shared.config.flush_every);
        move || {
            let mut stopped = stop.0.lock();
            while !*stopped {
                stop.1.wait_for(&mut stopped, every);
                parking_lot::MutexGuard::unlocked(&mut stopped, || disk.flush());
            }
        }
    });
    let flusher = match flusher {
        Ok(flusher) => flusher,
        Err(error) => return Some(format!("no thread to flush with: {error}")),
    };
    let mut writer = Writer { shared, disk: Arc::clone(&disk), open: None, last_housekeeping: Instant::now() };
    let outcome = catch_unwind(AssertUnwindSafe(|| writer.serve()));
    *stop.0.lock() = true;
    stop.1.notify_all();
    let _ = flusher.join();
    let failure = match outcome {
        Ok(failure) => failure,
        Err(panic) => Some(format!("the writer panicked: {}", panic_text(&*panic))),
    };
    if failure.is_none() {
        shared.set_disk(None, DiskState::Closed);
    }
    failure
}

impl Writer<'_> {
    fn serve(&mut self) -> Option<String> {
        loop {
            match self.shared.reading().queue.next(self.shared.config.flush_every) {
                Next::Op(op) => self.perform(op),
                Next::Idle => {}
                Next::Closed => {
                    self.disk.flush();
                    return self.disk.failure();
                }
            }
            if self.last_housekeeping.elapsed() >= self.shared.config.flush_every {
                self.housekeeping();
                self.last_housekeeping = Instant::now();
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
            self.disk.checked(self.disk.index.remove(&index_key(which.key, which.variant)));
        }
    }

    fn write(&mut self, response: &StoredResponse) {
        let which = response.which();
        let own_segment =
            response.bytes.is_none().then(|| response.body.place().map(|place| place.segment.id)).flatten();
        let written = self.shared.catalog.is_current(which) && self.write_current(response, which);
        if !written && self.shared.catalog.remove(which) {
            self.shared.counters.writes_dropped.add(1);
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
                self.make_room(record_bytes(header.length));
                if !self.disk.is_writable() {
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
        let value = record::encode(&response.head, response.trailers.as_ref(), response.serial, numbers);
        let Some(value) = value else { return false };
        if self.disk.checked(self.disk.index.put(&index_key(which.key, which.variant), &value)).is_none() {
            return false;
        }
        self.shared.counters.writes.add(1);
        // False: it was replaced meanwhile; what replaced it comes later in the queue.
        self.shared.catalog.placed(which, place.segment.id);
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
        let mut encoded = Vec::with_capacity(usize::try_from(record).unwrap_or(0));
        encoded.extend_from_slice(&record_header(header, self.disk.store));
        encode_blocks(bytes, header.serial, 0, &mut encoded);
        let offset = open.at;
        self.disk.segments.grow(open.segment.id, record);
        let segment = Arc::clone(&open.segment);
        open.at += record;
        let result = segment.file.write_all_at(&encoded, offset);
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
        tracing::warn!(%error, "a body cannot be written; the disk tier takes no more until it can");
        self.shared.counters.write_errors.add(1);
        self.disk.paused.store(true, Ordering::Relaxed);
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
