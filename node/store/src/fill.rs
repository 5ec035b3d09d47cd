//! Filling a stored response while others follow it.
//!
//! A body is collected in memory up to `memory_object_max`. A longer one streams to a segment of its own, and readers
//! that lag read it from there. A body that may not or cannot be stored passes: no new readers, and the fetch is paced
//! by the slowest.
//!
//! Always true:
//! - Every reader that joined gets the whole body, or its whole range, or an error; never less without an error.
//! - A fill holds about `2 * FILL_WINDOW_BYTES` in memory, or a body that is collected, whatever the body's length.
//! - A fill that is dropped or ends early leaves nothing on disk and tells its readers.
//! - A fill that nobody reads ends when more than `finish_unread` bytes are to come, unless it runs in the background.
//! - Only a whole response whose length agrees is entered, and none that a hard purge names meanwhile.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use brim_semantics::PurgeState;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tokio::sync::oneshot;

use crate::config::BLOCK_BYTES;
use crate::disk::Disk;
pub use crate::following::Following;
pub(crate) use crate::following::Step;
use crate::purge::Names;
use crate::reader::PIECE_BYTES;
use crate::response::{Parts, Place, ResponseHead, StoredBody, StoredResponse};
use crate::segment::{
    FILE_HEADER_BYTES, RECORD_HEADER_BYTES, RecordHeader, STRIDE, Segment, encode_blocks, record_header,
};
use crate::shared::Shared;
use crate::writing::write_growing;

/// Why a fill cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// More bytes than `Content-Length` announced.
    #[error("the body is longer than its announced {0} bytes")]
    TooLong(u64),
    /// Nobody reads it any more, and it is not stored, or too long to be fetched for the store alone
    /// ([`StoreConfig::finish_unread`](crate::StoreConfig::finish_unread)): the fetch should stop.
    #[error("nobody reads the body, and it is not stored or too much of it is missing")]
    Unwanted,
}

/// Why a response that was fetched whole, or not, is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Longer than `object_max`, or than the disk budget allows for one.
    TooLarge,
    /// Too long for memory, and the disk takes no writes.
    NoRoom,
    /// Too long for memory, and asked for once while the disk is full.
    FirstSight,
    /// Shorter than announced, or ended by a [`FillError`]; its readers got an error.
    Incomplete,
    /// A hard purge named it while it was fetched.
    Purged,
    /// Its surrogate keys could not all be had.
    Untagged,
}

impl Reason {
    /// The word for the `detail` of Cache-Status.
    pub fn as_detail(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::NoRoom => "no-room",
            Self::FirstSight => "first-sight",
            Self::Incomplete => "incomplete",
            Self::Purged => "purged",
            Self::Untagged => "untagged",
        }
    }
}

/// How a fill ended.
#[derive(Debug)]
pub enum Finished {
    /// It is stored and can be found.
    Stored(Arc<StoredResponse>),
    /// It is not.
    NotStored(Reason),
}

/// A segment that is removed when its fill does not end well.
struct OwnSegment {
    shared: Arc<Shared>,
    disk: Arc<Disk>,
    segment: Arc<Segment>,
    is_kept: bool,
}

impl Drop for OwnSegment {
    fn drop(&mut self) {
        if !self.is_kept {
            // Unlinking a large file blocks. A pool that is closed leaves it to the next opening.
            let (disk, id) = (Arc::clone(&self.disk), self.segment.id);
            drop(self.shared.write_pool.submit(usize::MAX, move || {
                // The files of a tier that failed are aside; their names may be another tier's by now.
                if disk.failure().is_none() {
                    disk.segments.remove(id);
                }
            }));
        }
    }
}

struct Streaming {
    own: OwnSegment,
    serial: u64,
    /// Not yet given to a write.
    staged: BytesMut,
    next_block: u64,
    /// The write under way, and the body's length when it is done.
    write: Option<(oneshot::Receiver<io::Result<()>>, u64)>,
}

enum Sink {
    Collect,
    /// A segment is being made; all that came is held meanwhile.
    Opening(oneshot::Receiver<Option<OwnSegment>>),
    Stream(Streaming),
    Pass(Reason),
}

/// The one fetch that fills a stored response.
pub struct Fill {
    shared: Arc<Shared>,
    following: Arc<Following>,
    names: Arc<Names>,
    expected: Option<u64>,
    total: u64,
    sink: Sink,
    /// The key was filled before, not long ago.
    was_seen: bool,
    is_in_background: bool,
    /// Surrogate keys that came with the content.
    content_keys: Vec<Box<str>>,
    is_ended: bool,
}

impl Fill {
    pub(crate) fn new(shared: Arc<Shared>, head: ResponseHead, expected: Option<u64>) -> Self {
        shared.counters.fills.add(1);
        shared.horizon.begin_fill(head.fetched_at);
        let was_seen = shared.admission.see(head.key.hash(), shared.catalog.count());
        let names = Arc::new(Names::of_head(&head));
        let following = Following::new(Arc::clone(&shared), head, Arc::clone(&names), expected);
        let sink = Sink::Collect;
        Self {
            shared,
            following,
            names,
            expected,
            total: 0,
            sink,
            was_seen,
            is_in_background: false,
            content_keys: Vec::new(),
            is_ended: false,
        }
    }

    /// For work that no client waits for, such as a validation behind a stale answer or a copy: it goes on without
    /// readers however long it is, as long as it is going to be stored.
    #[must_use]
    pub fn in_background(mut self) -> Self {
        self.is_in_background = true;
        self
    }

    /// Its surrogate keys are not all known before its content: until [`Fill::finish_with_keys`] any purge that is newer than its fetch
    /// counts as naming it, so that nobody joins what may be outdated.
    #[must_use]
    pub fn awaiting_keys(self) -> Self {
        self.following.await_keys();
        self
    }

    /// What others join.
    pub fn follower(&self) -> Arc<Following> {
        Arc::clone(&self.following)
    }

    /// Takes the next bytes of the body. Waits for the disk, and for the slowest reader once the body only passes. After
    /// an error the fill has ended: it gave back what it held, and takes nothing more.
    ///
    /// Bytes are not copied here. A body that stays in memory is copied once, when it is whole, so that it keeps no buffer
    /// of a connection alive; one that streams is copied into blocks.
    ///
    /// Cancel safe: the bytes are taken before the first wait.
    pub async fn append(&mut self, bytes: Bytes) -> Result<(), FillError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.total += bytes.len() as u64;
        if let Some(expected) = self.expected.filter(|expected| self.total > *expected) {
            self.abort();
            return Err(FillError::TooLong(expected));
        }
        if self.is_ended {
            return Err(FillError::Unwanted);
        }
        if let Sink::Stream(streaming) = &mut self.sink {
            streaming.staged.extend_from_slice(&bytes);
        }
        self.following.push(bytes);
        if !self.is_in_background && self.following.abort_unread(self.shared.config.finish_unread) {
            return Err(self.unwanted());
        }
        self.choose_sink().await;
        self.write_staged(PIECE_BYTES).await;
        if matches!(self.sink, Sink::Pass(_)) {
            let following = &self.following;
            if poll_fn(|cx| following.poll_paced(cx)).await.is_err() {
                return Err(self.unwanted());
            }
        }
        Ok(())
    }

    /// Whether it may be written: on a full disk only what was asked for twice, one after the other or at the same time.
    fn is_admitted(&self) -> bool {
        let is_full = self.shared.is_disk_full.load(Ordering::Relaxed);
        !is_full || self.was_seen || self.following.readers_count() > 1
    }

    /// Whether it replaces nothing that is on disk.
    fn is_new(&self) -> bool {
        let head = self.following.head();
        !self.shared.catalog.is_beyond_memory(head.key.hash(), head.variant())
    }

    fn unwanted(&mut self) -> FillError {
        self.shared.counters.fills_unread.add(1);
        self.abort();
        FillError::Unwanted
    }

    /// Where the body goes, now that it is so long.
    async fn choose_sink(&mut self) {
        let length = self.expected.unwrap_or(0).max(self.total);
        let config = &self.shared.config;
        if matches!(self.sink, Sink::Pass(_)) || length <= config.collect_bytes_max() {
            return;
        }
        if length > config.stored_bytes_max() {
            self.pass(Reason::TooLarge);
            return;
        }
        if matches!(self.sink, Sink::Collect) && !self.is_admitted() && self.is_new() {
            self.shared.counters.not_admitted.add(1);
            self.pass(Reason::FirstSight);
            return;
        }
        if let Sink::Collect = self.sink {
            let shared = Arc::clone(&self.shared);
            self.sink = Sink::Opening(self.shared.write_pool.submit(usize::MAX, move || own_segment(shared)));
        }
        if let Sink::Opening(opening) = &mut self.sink {
            match poll_fn(|cx| Pin::new(&mut *opening).poll(cx)).await {
                Ok(Some(own)) => {
                    let serial = self.shared.next_serial();
                    self.following.streams_to(self.place(&own.segment, serial, 0));
                    let staged = self.following.held();
                    self.sink = Sink::Stream(Streaming { own, serial, staged, next_block: 0, write: None });
                }
                Ok(None) | Err(_) => self.pass(Reason::NoRoom),
            }
        }
    }

    fn place(&self, segment: &Arc<Segment>, serial: u64, length: u64) -> Place {
        let head = self.following.head();
        let header = RecordHeader { key: head.key.hash(), variant: head.variant(), serial, length };
        Place { segment: Arc::clone(segment), offset: FILE_HEADER_BYTES, header }
    }

    /// From here on the body is not stored.
    fn pass(&mut self, reason: Reason) {
        // Its segment goes; readers that lag keep the unlinked file open.
        self.sink = Sink::Pass(reason);
        self.following.passes();
    }

    /// Gives whole blocks to the disk while at least `least` bytes are staged; one write is under way at a time.
    async fn write_staged(&mut self, least: usize) {
        loop {
            let Sink::Stream(streaming) = &mut self.sink else { return };
            if streaming.staged.len() < least.max(1) {
                return;
            }
            if streaming.write.is_some() {
                if !self.written().await {
                    return;
                }
                continue;
            }
            let take = PIECE_BYTES.min(streaming.staged.len());
            let data = streaming.staged.split_to(take);
            let mut encoded = Vec::with_capacity(take + 64);
            encode_blocks(&data, streaming.serial, streaming.next_block, &mut encoded);
            let offset = FILE_HEADER_BYTES + RECORD_HEADER_BYTES + streaming.next_block * STRIDE;
            let length = streaming.next_block * BLOCK_BYTES as u64 + take as u64;
            streaming.next_block += take.div_ceil(BLOCK_BYTES) as u64;
            let (shared, disk, segment) =
                (Arc::clone(&self.shared), Arc::clone(&streaming.own.disk), Arc::clone(&streaming.own.segment));
            let job = move || write_growing(&shared, &disk, &segment, &encoded, offset);
            streaming.write = Some((self.shared.write_pool.submit(usize::MAX, job), length));
        }
    }

    /// Waits for the write under way. False: it failed, and the body only passes from here on.
    async fn written(&mut self) -> bool {
        let Sink::Stream(streaming) = &mut self.sink else { return false };
        let Some((write, length)) = &mut streaming.write else { return true };
        let answer = poll_fn(|cx| Pin::new(&mut *write).poll(cx)).await;
        let length = *length;
        streaming.write = None;
        match answer {
            Ok(Ok(())) => {
                self.following.on_disk(length);
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "a streaming body cannot be written; it passes unstored");
                self.shared.counters.write_errors.add(1);
                self.pass(Reason::NoRoom);
                false
            }
            Err(_) => {
                self.pass(Reason::NoRoom);
                false
            }
        }
    }

    /// The body is whole. Its readers see the end whether it is stored or not.
    pub async fn finish(self, trailers: Option<HeaderMap>) -> Finished {
        self.finish_with_keys(trailers, Vec::new()).await
    }

    /// The same, with the surrogate keys that the content gave it.
    pub async fn finish_with_keys(mut self, trailers: Option<HeaderMap>, keys: Vec<Box<str>>) -> Finished {
        self.content_keys = keys;
        self.end(trailers).await
    }

    /// The body is whole, and may not be stored after all.
    pub async fn finish_unstored(mut self, trailers: Option<HeaderMap>) -> Finished {
        self.pass(Reason::Untagged);
        self.end(trailers).await
    }

    async fn end(mut self, trailers: Option<HeaderMap>) -> Finished {
        if self.is_ended || self.expected.is_some_and(|expected| expected != self.total) {
            self.abort();
            return Finished::NotStored(Reason::Incomplete);
        }
        let finished = self.store(trailers.as_ref()).await;
        self.is_ended = true;
        self.following.end(trailers);
        finished
    }

    async fn store(&mut self, trailers: Option<&HeaderMap>) -> Finished {
        // An append that was given up may have left the segment unmade.
        self.choose_sink().await;
        // The last block may be short; each write before it was of whole ones.
        self.write_staged(1).await;
        self.written().await;
        let (bytes, body, serial) = match &self.sink {
            Sink::Pass(reason) => return Finished::NotStored(*reason),
            // `choose_sink` has ended it.
            Sink::Opening(_) => {
                self.pass(Reason::NoRoom);
                return Finished::NotStored(Reason::NoRoom);
            }
            Sink::Collect => {
                let bytes = self.following.held().freeze();
                self.following.collected(bytes.clone());
                (Some(bytes), StoredBody::new(self.total, None), self.shared.next_serial())
            }
            Sink::Stream(streaming) => {
                let place = self.place(&streaming.own.segment, streaming.serial, self.total);
                if !seal(&self.shared, streaming, &place).await {
                    self.pass(Reason::NoRoom);
                    return Finished::NotStored(Reason::NoRoom);
                }
                (None, StoredBody::new(self.total, Some(place)), streaming.serial)
            }
        };
        let mut head = self.following.head().clone();
        if !self.content_keys.is_empty() {
            head.surrogate_keys.append(&mut self.content_keys.clone());
            head.surrogate_keys.sort_unstable();
            head.surrogate_keys.dedup();
            head.content_keys.append(&mut self.content_keys);
            self.names = Arc::new(self.names.with_keys(&head.scope, &head.surrogate_keys));
        }
        if self.shared.clock().state_now(&self.names, head.fetched_at) == PurgeState::Hard {
            self.pass(Reason::Purged);
            return Finished::NotStored(Reason::Purged);
        }
        let response = StoredResponse::new(Parts {
            head,
            bytes,
            body: Arc::new(body),
            trailers: trailers.map(|trailers| Box::new(crate::headers::compact(trailers))),
            names: Arc::clone(&self.names),
            serial,
            reading: Arc::clone(self.shared.reading()),
        });
        if let Sink::Stream(streaming) = &mut self.sink {
            streaming.own.is_kept = true;
        }
        // A body that streamed has its place already.
        let admitted = response.bytes.is_none() || self.is_admitted();
        self.shared.enter(&response, admitted);
        Finished::Stored(response)
    }

    fn abort(&mut self) {
        if std::mem::replace(&mut self.is_ended, true) {
            return;
        }
        self.shared.counters.fills_aborted.add(1);
        self.following.abort();
        self.sink = Sink::Pass(Reason::Incomplete);
    }
}

/// A segment for one body. Blocks.
fn own_segment(shared: Arc<Shared>) -> Option<OwnSegment> {
    let disk = shared.disk().filter(|disk| disk.is_writable())?;
    let segment = disk.create_segment().inspect_err(|error| tracing::warn!(%error, "no segment for a body")).ok()?;
    disk.segments.grow(segment.id, RECORD_HEADER_BYTES);
    Some(OwnSegment { shared, disk, segment, is_kept: false })
}

/// Writes the record's header, the last bytes of all. False: the write failed.
async fn seal(shared: &Shared, streaming: &Streaming, place: &Place) -> bool {
    let (disk, place, faults) = (Arc::clone(&streaming.own.disk), place.clone(), shared.config.faults());
    let sealed = shared.write_pool.submit(usize::MAX, move || {
        let header = record_header(&place.header, place.segment.store);
        let result = faults.write_all_at(crate::faults::Step::SegmentSeal, &place.segment.file, &header, place.offset);
        disk.soil(&place.segment);
        result
    });
    matches!(sealed.await, Ok(Ok(())))
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.abort();
        self.shared.horizon.end_fill(self.following.head().fetched_at);
    }
}
