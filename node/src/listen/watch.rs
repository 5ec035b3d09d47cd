//! The watch over a connection: an IO wrapper that counts, and the judgement of what the counts say.
//!
//! Always true:
//! - No request reads a clock for its deadlines. The watch looks at the counts once a tick, an eighth of the shortest
//!   deadline, so that a deadline is kept to within a quarter of it.
//! - A connection that waits for its handler, or for the source of a response's content, is never cut here: those have
//!   deadlines of their own.
//!
//! Not here: acting on the verdict (`connection`).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::counters::OpenConnection;
use super::frame_budget::FrameBudget;
use super::info::{ConnectionInfo, Protocol, Snapshot};
use crate::config::ListenConfig;

/// Output that counts as progress. Below it are pings and settings acknowledged, by which a client could stay for ever.
const PROGRESS_BYTES: u64 = 1024;
/// How long, and how many bytes, a client may go on sending after the last answer.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1024 * 1024;
const LINGER_READ_BYTES: usize = 8 * 1024;
const TICKS_PER_DEADLINE: u32 = 8;
const TICK_MIN: Duration = Duration::from_millis(10);
const TICK_MAX: Duration = Duration::from_secs(2);

/// What a watched connection is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// Nothing was asked for too long: GOAWAY, or close.
    CloseIdle,
    Cut(Reason),
}

/// Why a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    SlowHead,
    /// The client does not read, or keeps its windows shut.
    Stalled,
    /// It was asked to close, has nothing in flight, and stays.
    Lingering,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// HTTP/1.1: no request yet. The deadline for the first head runs from the start.
    Opening,
    /// Nothing in flight. `bytes_read` were read when it began.
    Idle { bytes_read: u64 },
    /// HTTP/1.1: a part of a head has come.
    Head,
    /// Requests in flight.
    Busy,
    /// Asked to close.
    Closing,
}

/// The judgement over one connection.
#[derive(Debug)]
pub(super) struct Watch {
    protocol: Protocol,
    head: Duration,
    idle: Duration,
    stall: Duration,
    phase: Phase,
    since: Instant,
    last: Snapshot,
}

impl Watch {
    pub(super) fn new(config: &ListenConfig, protocol: Protocol, now: Instant) -> Self {
        Self {
            protocol,
            head: config.header_timeout,
            idle: config.idle_timeout,
            stall: config.body_idle_timeout,
            phase: match protocol {
                Protocol::Http1 => Phase::Opening,
                Protocol::Http2 => Phase::Idle { bytes_read: 0 },
            },
            since: now,
            last: Snapshot::default(),
        }
    }

    /// How often [`Watch::tick`] wants to be called.
    pub(super) fn tick_every(&self) -> Duration {
        (self.head.min(self.idle).min(self.stall) / TICKS_PER_DEADLINE).clamp(TICK_MIN, TICK_MAX)
    }

    /// The connection was asked to close for another reason than idleness.
    pub(super) fn closing(&mut self, now: Instant) {
        self.enter(Phase::Closing, now);
    }

    pub(super) fn tick(&mut self, counts: Snapshot, now: Instant) -> Verdict {
        let last = std::mem::replace(&mut self.last, counts);
        let has_progress = counts.frames_taken != last.frames_taken
            || counts.bytes_written - last.bytes_written >= PROGRESS_BYTES
            || counts.requests_started != last.requests_started;
        let phase = match (self.phase, counts.in_flight) {
            (Phase::Closing, _) => Phase::Closing,
            (_, 1..) => Phase::Busy,
            (Phase::Busy, 0) => Phase::Idle { bytes_read: counts.bytes_read },
            (_, 0) if counts.requests_started != last.requests_started => Phase::Idle { bytes_read: counts.bytes_read },
            (Phase::Idle { bytes_read }, 0) if self.protocol == Protocol::Http1 && counts.bytes_read > bytes_read => {
                Phase::Head
            }
            (phase, 0) => phase,
        };
        let is_our_turn = counts.waiting_for_us > 0;
        let restarts = match phase {
            Phase::Opening | Phase::Head => false,
            Phase::Idle { .. } | Phase::Busy | Phase::Closing => has_progress || is_our_turn,
        };
        if phase != self.phase || restarts {
            self.enter(phase, now);
        }
        self.judge(counts, now.duration_since(self.since), now)
    }

    fn judge(&mut self, counts: Snapshot, passed: Duration, now: Instant) -> Verdict {
        match self.phase {
            Phase::Opening | Phase::Head if passed >= self.head => Verdict::Cut(Reason::SlowHead),
            Phase::Idle { .. } if passed >= self.idle => {
                self.enter(Phase::Closing, now);
                Verdict::CloseIdle
            }
            Phase::Busy if passed >= self.stall => Verdict::Cut(Reason::Stalled),
            Phase::Closing if counts.in_flight > 0 && passed >= self.stall => Verdict::Cut(Reason::Stalled),
            Phase::Closing if counts.in_flight == 0 && passed >= self.head => Verdict::Cut(Reason::Lingering),
            Phase::Opening | Phase::Head | Phase::Idle { .. } | Phase::Busy | Phase::Closing => Verdict::Keep,
        }
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.since = now;
    }
}

/// A client's stream that counts what passes. Bytes read ahead of hyper come first; the connection's place is given back
/// when the stream goes, so that a tunnel keeps it.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    read_ahead: Bytes,
    connection: Arc<ConnectionInfo>,
    frames: Option<FrameBudget>,
    linger: Linger,
    _place: OpenConnection,
}

/// What is done with bytes that a client goes on sending after our end was shut. Closing a socket that holds unread bytes
/// resets the connection, and the reset may destroy a last answer (431, 413) before the client reads it.
#[derive(Debug)]
enum Linger {
    /// Our end is not shut.
    Open,
    /// Shut; `discarded` bytes were read since, until `deadline` at most. None: nothing was there to read yet.
    Shut { discarded: usize, deadline: Option<Pin<Box<Sleep>>> },
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, read_ahead: Bytes, connection: Arc<ConnectionInfo>, place: OpenConnection) -> Self {
        let frames = match connection.protocol {
            Protocol::Http1 => None,
            Protocol::Http2 => Some(FrameBudget::new(Instant::now())),
        };
        Self { stream, read_ahead, connection, frames, linger: Linger::Open, _place: place }
    }

    fn was_read(&mut self, bytes: &[u8]) -> io::Result<()> {
        let activity = &self.connection.activity;
        activity.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let Some(frames) = &mut self.frames else { return Ok(()) };
        frames.charge(bytes, || activity.earned(), Instant::now).map_err(|over| {
            activity.is_over_budget.store(true, Ordering::Relaxed);
            io::Error::other(over)
        })
    }

    fn was_written(&self, written: usize) {
        self.connection.activity.bytes_written.fetch_add(written as u64, Ordering::Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if this.read_ahead.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        } else {
            let taken = this.read_ahead.len().min(buffer.remaining());
            buffer.put_slice(&this.read_ahead[..taken]);
            this.read_ahead.advance(taken);
        }
        Poll::Ready(this.was_read(&buffer.filled()[before..]))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.was_written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.was_written(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if matches!(this.linger, Linger::Open) {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.linger = Linger::Shut { discarded: 0, deadline: None };
        }
        this.poll_linger(cx).map(Ok)
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Reads and discards until the client closes, a bound is reached, or at once if the client sends nothing now.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Linger::Shut { discarded, deadline } = &mut self.linger else { return Poll::Ready(()) };
        let mut bytes = [0; LINGER_READ_BYTES];
        while *discarded <= LINGER_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut bytes);
            match (Pin::new(&mut self.stream).poll_read(cx, &mut buffer), deadline.as_mut()) {
                (Poll::Pending, Some(deadline)) => return deadline.as_mut().poll(cx),
                (Poll::Pending, None) | (Poll::Ready(Err(_)), _) => break,
                (Poll::Ready(Ok(())), _) if buffer.filled().is_empty() => break,
                (Poll::Ready(Ok(())), _) => {
                    *discarded += buffer.filled().len();
                    deadline.get_or_insert_with(|| Box::pin(sleep(LINGER_TIME)));
                }
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
