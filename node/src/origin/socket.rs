//! The TCP socket of one connection to an endpoint.
//!
//! Always true:
//! - The capacity it stands for ([`Slot`]) comes back when the socket is closed, and not before.
//! - A write that makes no progress for `stall_limit` fails with `TimedOut`.
//!
//! Not here: connecting (`connect`), TLS (`tls`), which connection a request gets (`pool`).

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::pool::Slot;

/// A connected socket as hyper (or TLS) drives it.
pub(super) struct Socket {
    /// Locked by the connection's driver for the length of one system call, and by [`SocketProbe`] likewise.
    stream: Arc<Mutex<TcpStream>>,
    stall: WriteStall,
    /// After the stream: fields are dropped in order, and the capacity is free only when the socket is closed.
    _slot: Slot,
}

/// Looks at a kept socket without reading from it.
#[derive(Debug, Clone)]
pub(super) struct SocketProbe(Weak<Mutex<TcpStream>>);

impl Socket {
    pub(super) fn new(stream: TcpStream, stall_limit: Duration, slot: Slot) -> Self {
        Self {
            stream: Arc::new(Mutex::new(stream)),
            stall: WriteStall { limit: stall_limit, timer: None },
            _slot: slot,
        }
    }

    pub(super) fn probe(&self) -> SocketProbe {
        SocketProbe(Arc::downgrade(&self.stream))
    }
}

impl SocketProbe {
    /// Whether the socket is open and has nothing to read. An idle HTTP/1.1 connection must be so: what else there is to read
    /// is its end, which the driver has not come round to yet, or bytes that belong to no response.
    pub(super) fn is_quiet(&self) -> bool {
        let Some(stream) = self.0.upgrade() else { return false };
        let stream = stream.lock();
        let mut byte = [MaybeUninit::uninit(); 1];
        matches!(SockRef::from(&*stream).peek(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// The deadline for a write to make progress. The timer exists only while a write waits.
struct WriteStall {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl WriteStall {
    fn check<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.timer = None;
            return written;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.lock()).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream.lock()).poll_write(cx, bytes);
        self.stall.check(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.stream.lock()).poll_write_vectored(cx, slices);
        self.stall.check(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.lock().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.lock()).poll_shutdown(cx)
    }
}
