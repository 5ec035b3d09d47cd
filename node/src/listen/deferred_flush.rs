//! Gathers the small writes of one turn of a connection into one.
//!
//! h2 flushes its IO after each DATA frame, so 32 small responses on one connection cost 32 system calls. Under this
//! wrapper small writes go to a buffer, `poll_flush` answers at once, and [`EndOfTurn::poll`] writes the buffer when the
//! connection's task has done all it can do for now.
//!
//! Always true:
//! - The connection's driver calls [`EndOfTurn::poll`] after each poll of the connection, with the context of the same
//!   task. So what `poll_flush` promised is written before the task goes idle, or the task is woken when the socket
//!   takes bytes again. Nothing waits for a timer or for the next read: low load pays no latency.
//! - Bytes leave in the order in which they were written.
//! - A write above [`GATHERED_WRITE_BYTES_MAX`] is not copied: it leaves in one vectored write, behind what is gathered.
//! - At most [`GATHERED_BYTES_MAX`] bytes are held; beyond, the writer waits for the socket.
//! - An idle connection holds no buffer: it goes back to the thread when it has been written.
//!
//! Not here: HTTP/1.1, which writes each response once as it is.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Writes up to this length are copied: copying 4 KiB costs a tenth of a system call.
pub const GATHERED_WRITE_BYTES_MAX: usize = 4 * 1024;
/// What one connection holds back at most: some 50 small responses, four TLS records.
pub const GATHERED_BYTES_MAX: usize = 64 * 1024;
/// Buffers that a thread keeps for its next turns. One is in use at a time unless sockets are full.
const SPARE_BUFFERS_MAX: usize = 8;
/// Slices of one vectored write. h2 uses two: its own buffer and the payload of a DATA frame.
const SLICES_MAX: usize = 8;

const _: () = assert!(GATHERED_WRITE_BYTES_MAX < GATHERED_BYTES_MAX, "a small write fits into the buffer");

thread_local! {
    static SPARE_BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The IO that is given to hyper.
pub(super) struct DeferredFlush<S>(Arc<Mutex<Gathering<S>>>);

/// The other half, for the task that drives the connection.
pub(super) struct EndOfTurn<S>(Arc<Mutex<Gathering<S>>>);

struct Gathering<S> {
    stream: S,
    /// Gathered bytes; those before `written` have left. Empty when `written` equals its length.
    buffer: Vec<u8>,
    written: usize,
    /// Bytes went into the stream since it was last flushed to the end: a TLS stream may still hold some of them.
    flush_due: bool,
}

/// Splits `stream` into what hyper writes to and what ends the turn.
pub(super) fn deferred_flush<S>(stream: S) -> (DeferredFlush<S>, EndOfTurn<S>) {
    let shared = Arc::new(Mutex::new(Gathering { stream, buffer: Vec::new(), written: 0, flush_due: false }));
    (DeferredFlush(shared.clone()), EndOfTurn(shared))
}

impl<S: AsyncWrite + Unpin> EndOfTurn<S> {
    /// Writes what was gathered. `Pending`: the socket is full, and the task will be woken when it takes bytes again.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.0.lock();
        ready!(gathering.poll_write_gathered(cx))?;
        gathering.poll_flush_stream(cx)
    }

    /// Puts last bytes behind what was gathered, for a connection that hyper has given up.
    pub(super) fn push(&self, bytes: &[u8]) {
        self.0.lock().gather(&[IoSlice::new(bytes)]);
    }
}

impl<S> Gathering<S> {
    fn is_empty(&self) -> bool {
        self.written == self.buffer.len()
    }

    fn held(&self) -> usize {
        self.buffer.len() - self.written
    }

    fn gather(&mut self, slices: &[IoSlice<'_>]) {
        if self.buffer.capacity() == 0 {
            self.buffer =
                SPARE_BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(GATHERED_BYTES_MAX));
        }
        for slice in slices {
            self.buffer.extend_from_slice(slice);
        }
    }

    /// Counts `written` bytes out, and gives the buffer back when all have left.
    fn advance(&mut self, written: usize) {
        self.written += written;
        if self.is_empty() {
            self.buffer.clear();
            self.written = 0;
            let buffer = std::mem::take(&mut self.buffer);
            if buffer.capacity() > 0 && buffer.capacity() <= 2 * GATHERED_BYTES_MAX {
                SPARE_BUFFERS.with_borrow_mut(|spare| {
                    if spare.len() < SPARE_BUFFERS_MAX {
                        spare.push(buffer);
                    }
                });
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    fn poll_flush_stream(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flush_due {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.flush_due = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            self.flush_due = true;
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.buffer[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Gathers a small write; passes a large one on, behind what is gathered and in the same system call.
    fn poll_write_slices(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum::<usize>();
        if length <= GATHERED_WRITE_BYTES_MAX {
            if self.held() + length > GATHERED_BYTES_MAX {
                ready!(self.poll_write_gathered(cx))?;
            } else if self.written > 0 && self.buffer.len() + length > self.buffer.capacity() {
                // The socket took a part: move the rest to the front, so that the buffer does not grow.
                self.buffer.drain(..self.written);
                self.written = 0;
            }
            self.gather(slices);
            return Poll::Ready(Ok(length));
        }
        self.flush_due = true;
        loop {
            let held = self.held();
            if held == 0 {
                return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
            }
            let mut all = [IoSlice::new(&[]); SLICES_MAX];
            all[0] = IoSlice::new(&self.buffer[self.written..]);
            let taken = slices.len().min(SLICES_MAX - 1);
            all[1..=taken].copy_from_slice(&slices[..taken]);
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &all[..=taken]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written.min(held));
            if written > held {
                return Poll::Ready(Ok(written - held));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for DeferredFlush<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for DeferredFlush<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write_slices(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write_slices(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        // Also where the stream is not: h2 then leaves its payloads in place, and small ones are gathered here anyway.
        true
    }

    /// Ready at once: the turn's end flushes. With nothing gathered, the stream's own flush is due.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.0.lock();
        if gathering.is_empty() { gathering.poll_flush_stream(cx) } else { Poll::Ready(Ok(())) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.0.lock();
        ready!(gathering.poll_write_gathered(cx))?;
        Pin::new(&mut gathering.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "deferred_flush_tests.rs"]
mod tests;
