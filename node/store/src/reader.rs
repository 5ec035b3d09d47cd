//! Reading a body, wherever it is: in memory, on disk, or still growing.
//!
//! Always true:
//! - Each reader has one disk read under way at most, of [`PIECE_BYTES`]; that bounds its memory and its place in the pool.
//! - A byte from disk is handed out after its checksum was compared.
//! - A reader is bound to no runtime: only wakers.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::oneshot;

use crate::catalog::Which;
use crate::config::BLOCK_BYTES;
use crate::disk::Op;
use crate::fill::{Following, Step};
use crate::response::{Place, Reading, StoredResponse};
use crate::segment::Damage;

/// What one disk read brings at most: four blocks.
pub(crate) const PIECE_BYTES: usize = 4 * BLOCK_BYTES;

/// Why a body ended before its end. The response cannot be completed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The fetch that filled it broke off.
    #[error("the fetch of this response broke off")]
    Aborted,
    /// It is whole with so many bytes, and the range that was asked for, before that was known, reaches beyond them.
    #[error("the body ended after {0} bytes, before the end of the range")]
    TooShort(u64),
    /// The stored bytes are not those that were written; the stored response is removed.
    #[error("the stored body is damaged: {0}")]
    Damaged(String),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

type Job = oneshot::Receiver<Result<Bytes, Damage>>;

struct FromDisk {
    place: Place,
    which: Which,
    reading: Arc<Reading>,
    next: u64,
    end: u64,
    job: Option<Job>,
    is_header_checked: bool,
}

/// A place among the readers of a growing body; dropping it gives the place back.
pub(crate) struct FromFill {
    following: Arc<Following>,
    slot: usize,
    next: u64,
    /// Of a range; `u64::MAX` for all there is. None is the whole body with its trailers.
    end: Option<u64>,
    job: Option<Job>,
}

enum Source {
    Memory(Bytes),
    Disk(FromDisk),
    Fill(FromFill),
    Failed(BodyError),
    Ended,
}

/// Gives the bytes of a body piece by piece.
pub struct BodyReader {
    source: Source,
    remaining: Option<u64>,
    trailers: Option<HeaderMap>,
}

impl BodyReader {
    pub(crate) fn stored(response: &StoredResponse, range: Range<u64>) -> Self {
        let end = range.end.min(response.body.length);
        let start = range.start.min(end);
        let source = match (&response.bytes, response.body.place()) {
            (Some(bytes), _) => Source::Memory(slice(bytes, start, end)),
            (None, Some(place)) => Source::Disk(FromDisk {
                place,
                which: response.which(),
                reading: Arc::clone(&response.reading),
                next: start,
                end,
                job: None,
                is_header_checked: false,
            }),
            (None, None) => Source::Failed(BodyError::Damaged("it has no place".into())),
        };
        Self { source, remaining: Some(end - start), trailers: response.trailers.as_deref().cloned() }
    }

    pub(crate) fn following(from: FromFill, length: Option<u64>) -> Self {
        let source = if from.has_all() { Source::Ended } else { Source::Fill(from) };
        Self { source, remaining: length, trailers: None }
    }

    /// The next bytes; None at the end.
    ///
    /// Cancel safe: nothing is lost when the caller does not wait for a pending answer.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let polled = match &mut self.source {
            Source::Memory(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Memory(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Source::Disk(from) => from.poll_next(cx),
            Source::Fill(from) => from.poll_next(cx, &mut self.trailers),
            Source::Failed(error) => Poll::Ready(Some(Err(error.clone()))),
            Source::Ended => Poll::Ready(None),
        };
        match &polled {
            Poll::Ready(Some(Ok(bytes))) => {
                self.remaining = self.remaining.map(|left| left.saturating_sub(bytes.len() as u64));
                // Its place is given back now: who knows the length may not ask again.
                if matches!(&self.source, Source::Fill(from) if from.has_all()) {
                    self.source = Source::Ended;
                }
            }
            Poll::Ready(Some(Err(_)) | None) => self.source = Source::Ended,
            Poll::Pending => {}
        }
        polled
    }

    /// The next bytes; None at the end.
    ///
    /// Cancel safe: nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The trailer section; known after the end.
    pub fn trailers(&self) -> Option<HeaderMap> {
        self.trailers.clone()
    }

    /// Bytes still to come, when that is known.
    pub fn size_hint(&self) -> Option<u64> {
        self.remaining
    }
}

/// The bytes of a range, cut to what there is.
pub(crate) fn slice(bytes: &Bytes, start: u64, end: u64) -> Bytes {
    let clamp = |offset: u64| usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
    bytes.slice(clamp(start)..clamp(end))
}

fn blocks(next: u64, end: u64) -> (u64, u64) {
    let first = next / BLOCK_BYTES as u64;
    (first, end.min(next + PIECE_BYTES as u64).div_ceil(BLOCK_BYTES as u64))
}

impl FromDisk {
    fn submit(&mut self) -> Job {
        let (first, last) = blocks(self.next, self.end);
        let place = self.place.clone();
        let check_header = !std::mem::replace(&mut self.is_header_checked, true);
        let watch = Arc::clone(&self.reading.watch);
        self.reading.pool.submit(usize::MAX, move || {
            let _watched = watch.call();
            if check_header {
                place.segment.check_header(place.offset, &place.header)?;
            }
            place.segment.read_blocks(place.offset, &place.header, first, last)
        })
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.next >= self.end {
            return Poll::Ready(None);
        }
        let mut job = match self.job.take() {
            Some(job) => job,
            None => self.submit(),
        };
        let Poll::Ready(answer) = Pin::new(&mut job).poll(cx) else {
            self.job = Some(job);
            return Poll::Pending;
        };
        Poll::Ready(Some(match answer {
            Ok(Ok(bytes)) => {
                let start = self.next / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
                let bytes = slice(&bytes, self.next - start, self.end - start);
                self.next += bytes.len() as u64;
                if self.next < self.end {
                    // The next piece is read while this one is sent.
                    self.job = Some(self.submit());
                }
                Ok(bytes)
            }
            Ok(Err(damage)) => {
                self.reading.queue.push(Op::Damaged(self.which, damage.to_string()));
                Err(BodyError::Damaged(damage.to_string()))
            }
            Err(_) => Err(BodyError::Closed),
        }))
    }
}

impl FromFill {
    pub(crate) fn new(following: Arc<Following>, slot: usize, start: u64, end: Option<u64>) -> Self {
        Self { following, slot, next: start, end, job: None }
    }

    fn has_all(&self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut Option<HeaderMap>,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        let end = self.end.unwrap_or(u64::MAX);
        loop {
            if let Some(job) = &mut self.job {
                let Poll::Ready(answer) = Pin::new(job).poll(cx) else { return Poll::Pending };
                self.job = None;
                let start = self.next / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
                return Poll::Ready(Some(match answer {
                    Ok(Ok(bytes)) => {
                        let bytes = slice(&bytes, self.next - start, end - start);
                        self.next += bytes.len() as u64;
                        self.following.advanced(self.slot, self.next);
                        Ok(bytes)
                    }
                    Ok(Err(damage)) => Err(BodyError::Damaged(damage.to_string())),
                    Err(_) => Err(BodyError::Closed),
                }));
            }
            match self.following.step(self.slot, self.next, cx) {
                Step::Bytes(bytes) => {
                    self.next += bytes.len() as u64;
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Step::OnDisk(place) => {
                    let (first, last) = blocks(self.next, place.header.length.min(end));
                    let watch = Arc::clone(&self.following.reading().watch);
                    self.job = Some(self.following.reading().pool.submit(usize::MAX, move || {
                        let _watched = watch.call();
                        place.segment.read_blocks(place.offset, &place.header, first, last)
                    }));
                }
                Step::Ended { length, trailers: found } => {
                    return Poll::Ready(match self.end {
                        None => {
                            *trailers = found;
                            None
                        }
                        Some(u64::MAX) => None,
                        Some(_) => Some(Err(BodyError::TooShort(length))),
                    });
                }
                Step::Aborted => return Poll::Ready(Some(Err(BodyError::Aborted))),
                Step::Wait => return Poll::Pending,
            }
        }
    }
}

impl Drop for FromFill {
    fn drop(&mut self) {
        self.following.leave(self.slot);
    }
}
