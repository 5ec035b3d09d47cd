//! Interim responses (1xx, RFC 9110 §15.2) towards HTTP/1.1 clients: written between the responses of hyper, whose server
//! can send none but 100.
//!
//! Always true:
//! - They are written in `poll_flush` alone, which hyper calls when it has handed over every byte that it had: never in
//!   the middle of what it writes.
//! - The queue is open from [`ConnectionInfo::interim`] until the handler has answered, and closed before hyper learns the
//!   final response. hyper runs one handler at a time, and only when the response before it has been handed over. So no interim response
//!   follows its final one or comes before the end of an earlier one, however requests are pipelined.
//! - An [`Interim`] that outlives its request sends nothing: the queue knows it by its number.
//! - What has been begun is written to its end before any other byte.
//! - A request that asks for no [`Interim`] costs two relaxed loads: no lock, no allocation.
//!
//! Not here: which responses and fields are sent on (`request::interim`); HTTP/2, for which hyper's server offers
//! no way although h2 has one (`SendResponse::send_informational`).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use http::{HeaderMap, StatusCode, Version};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::info::{ConnectionInfo, Protocol};

/// Interim responses to one request.
pub const INTERIM_COUNT_MAX: usize = 16;
/// The fields of one interim response, as they are written.
pub const INTERIM_BYTES_MAX: usize = 16 * 1024;

/// The right to send interim responses to one request.
#[derive(Debug)]
pub struct Interim {
    connection: Arc<ConnectionInfo>,
    number: u64,
}

/// Why an interim response was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InterimDropped {
    /// The fields are longer than [`INTERIM_BYTES_MAX`].
    #[error("its fields are longer than {INTERIM_BYTES_MAX} bytes")]
    TooLong,
    /// The request has had [`INTERIM_COUNT_MAX`] already.
    #[error("the request has had {INTERIM_COUNT_MAX} already")]
    TooMany,
    /// The request was answered, or its client has gone.
    #[error("the request was answered before")]
    TooLate,
    /// The status is no interim one, or one that decides what the connection is (101).
    #[error("its status is not that of an interim response")]
    NotInterim,
}

impl ConnectionInfo {
    /// The right to send interim responses to the request that is being handled, until its handler returns. It ends an earlier one of the same request.
    /// None: the client may not understand them (HTTP/1.0, RFC 9110 §15.2), or cannot be sent any (HTTP/2).
    ///
    /// To be called by the handler itself, in the task that drives the connection.
    pub fn interim(self: &Arc<Self>, version: Version) -> Option<Interim> {
        let may_have_them = self.protocol == Protocol::Http1 && version == Version::HTTP_11;
        may_have_them.then(|| Interim { connection: self.clone(), number: self.interim.open() })
    }
}

impl Interim {
    /// Sends an interim response as soon as the connection takes it, from whichever thread. The fields must be of those that may
    /// be sent on. `Err`: it is dropped, and the request goes on without it.
    pub fn send(&self, status: StatusCode, fields: &HeaderMap) -> Result<(), InterimDropped> {
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(InterimDropped::NotInterim);
        }
        let length: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
        if length > INTERIM_BYTES_MAX {
            return Err(InterimDropped::TooLong);
        }
        self.connection.interim.push(self.number, |out| write_head(status, fields, out))
    }
}

/// A field's name and value hold no line break: their types see to that.
fn write_head(status: StatusCode, fields: &HeaderMap, out: &mut BytesMut) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in fields {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// The interim responses that wait on one connection.
#[derive(Debug, Default)]
pub(super) struct InterimQueue {
    /// What [`Waiting::is_open`] says, without its lock. Only the connection's own task changes it, and only there it is read.
    is_open: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    is_open: bool,
    /// Which [`Interim`] is the right one.
    number: u64,
    /// What the request has had and has waiting.
    count: usize,
    heads: BytesMut,
    /// The connection's task, if it has looked for them in vain.
    waker: Option<Waker>,
}

impl InterimQueue {
    fn open(&self) -> u64 {
        let mut waiting = self.waiting.lock();
        waiting.is_open = true;
        waiting.number += 1;
        self.is_open.store(true, Ordering::Relaxed);
        waiting.number
    }

    fn push(&self, number: u64, write: impl FnOnce(&mut BytesMut)) -> Result<(), InterimDropped> {
        let mut waiting = self.waiting.lock();
        if !waiting.is_open || waiting.number != number {
            return Err(InterimDropped::TooLate);
        }
        if waiting.count >= INTERIM_COUNT_MAX {
            return Err(InterimDropped::TooMany);
        }
        waiting.count += 1;
        write(&mut waiting.heads);
        if let Some(waker) = waiting.waker.take() {
            drop(waiting);
            waker.wake();
        }
        Ok(())
    }

    /// What waits. None: nothing does; the task of `cx` is woken when something comes.
    fn take(&self, cx: &Context<'_>) -> Option<BytesMut> {
        let mut waiting = self.waiting.lock();
        if !waiting.heads.is_empty() {
            return Some(std::mem::take(&mut waiting.heads));
        }
        if waiting.is_open && !waiting.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            waiting.waker = Some(cx.waker().clone());
        }
        None
    }

    /// The handler has answered: what waits has one turn of the connection to leave, and what then still waits, because
    /// the client does not read, is dropped. The wait is no longer than that, or such a client could hold its request for ever.
    pub(super) async fn finish(&self) {
        if !self.is_open.load(Ordering::Relaxed) {
            return;
        }
        let is_empty = self.waiting.lock().heads.is_empty();
        if !is_empty {
            tokio::task::yield_now().await;
        }
        self.close();
    }

    fn close(&self) {
        let mut waiting = self.waiting.lock();
        let number = waiting.number;
        *waiting = Waiting { number, ..Waiting::default() };
        self.is_open.store(false, Ordering::Relaxed);
    }
}

/// A client's stream, for hyper's HTTP/1.1 server: interim responses go between what is written to it.
pub(super) struct WithInterim<S> {
    stream: S,
    connection: Arc<ConnectionInfo>,
    /// Taken from the queue, and not written to the end: all that is written later waits for it.
    begun: BytesMut,
}

impl<S> WithInterim<S> {
    pub(super) fn new(stream: S, connection: Arc<ConnectionInfo>) -> Self {
        Self { stream, connection, begun: BytesMut::new() }
    }

    fn take_waiting(&mut self, cx: &Context<'_>) {
        let queue = &self.connection.interim;
        if !queue.is_open.load(Ordering::Relaxed) {
            return;
        }
        while let Some(heads) = queue.take(cx) {
            self.begun.unsplit(heads);
        }
    }
}

impl<S: AsyncWrite + Unpin> WithInterim<S> {
    fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.begun.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.begun.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.begun))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.begun.advance(written);
        }
        self.begun = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<S> Drop for WithInterim<S> {
    /// A connection that ends while a request is handled must not gather what nobody will read.
    fn drop(&mut self) {
        self.connection.interim.close();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WithInterim<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WithInterim<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_begun(cx))?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_begun(cx))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.take_waiting(cx);
        ready!(self.poll_begun(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_begun(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "interim_tests.rs"]
mod tests;
