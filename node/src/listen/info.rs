//! What is known of a connection: for the request path, and for the watch over it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::frame_budget::Earned;
use super::interim::InterimQueue;
use crate::body::{BoxError, ResponseBody};

/// A client's connection. One for all its requests.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// The client's address.
    pub peer: SocketAddr,
    /// Our address that it connected to.
    pub local: SocketAddr,
    /// None on plaintext.
    pub tls: Option<TlsInfo>,
    /// What is spoken on it.
    pub protocol: Protocol,
    pub(super) activity: Activity,
    pub(super) interim: InterimQueue,
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 or HTTP/1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What the handshake agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// The server name that the client asked for, lower case. None: it sent none.
    pub sni: Option<Box<str>>,
    /// The protocol chosen by ALPN. None: the client offered none, and HTTP/1.1 is spoken.
    pub alpn: Option<Protocol>,
    /// The version of TLS.
    pub version: TlsVersion,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2
    Tls12,
    /// TLS 1.3
    Tls13,
}

impl ConnectionInfo {
    /// A connection on which nothing happened yet.
    pub fn new(peer: SocketAddr, local: SocketAddr, tls: Option<TlsInfo>, protocol: Protocol) -> Self {
        Self { peer, local, tls, protocol, activity: Activity::default(), interim: InterimQueue::default() }
    }
}

/// Running counts of a connection. Relaxed: they are only compared with what they were.
#[derive(Debug, Default)]
pub(super) struct Activity {
    pub(super) bytes_read: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    /// Requests whose response has not ended.
    in_flight: AtomicU64,
    /// Of those, requests whose handler, or the source of whose content, is waited for.
    waiting_for_us: AtomicU64,
    requests_started: AtomicU64,
    responses_whole: AtomicU64,
    frames_taken: AtomicU64,
    pub(super) is_over_budget: AtomicBool,
}

/// [`Activity`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
    pub(super) in_flight: u64,
    pub(super) waiting_for_us: u64,
    pub(super) requests_started: u64,
    pub(super) frames_taken: u64,
}

impl Activity {
    pub(super) fn snapshot(&self) -> Snapshot {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Snapshot {
            bytes_read: read(&self.bytes_read),
            bytes_written: read(&self.bytes_written),
            in_flight: read(&self.in_flight),
            waiting_for_us: read(&self.waiting_for_us),
            requests_started: read(&self.requests_started),
            frames_taken: read(&self.frames_taken),
        }
    }

    pub(super) fn earned(&self) -> Earned {
        Earned {
            responses: self.responses_whole.load(Ordering::Relaxed),
            bytes: self.bytes_written.load(Ordering::Relaxed),
        }
    }
}

/// Counts a request in, and out on drop: whether it was answered, its client went away, or its handler panicked.
#[derive(Debug)]
pub(super) struct InFlight {
    connection: Arc<ConnectionInfo>,
    is_waiting_for_us: bool,
}

impl InFlight {
    pub(super) fn begin(connection: &Arc<ConnectionInfo>) -> Self {
        let activity = &connection.activity;
        activity.requests_started.fetch_add(1, Ordering::Relaxed);
        activity.in_flight.fetch_add(1, Ordering::Relaxed);
        activity.waiting_for_us.fetch_add(1, Ordering::Relaxed);
        Self { connection: connection.clone(), is_waiting_for_us: true }
    }

    /// The handler has answered: nothing of it may follow but the response.
    pub(super) async fn answered(&self) {
        self.connection.interim.finish().await;
    }

    /// The handler has answered; `body` is on its way.
    pub(super) fn responding(mut self, body: ResponseBody) -> CountedBody {
        self.waits_for_us(false);
        CountedBody { body, in_flight: self }
    }

    fn waits_for_us(&mut self, is_waiting: bool) {
        let waiting = &self.connection.activity.waiting_for_us;
        match (std::mem::replace(&mut self.is_waiting_for_us, is_waiting), is_waiting) {
            (false, true) => waiting.fetch_add(1, Ordering::Relaxed),
            (true, false) => waiting.fetch_sub(1, Ordering::Relaxed),
            (true, true) | (false, false) => return,
        };
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.waits_for_us(false);
        self.connection.activity.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response's content, counted while it is sent.
#[derive(Debug)]
pub(super) struct CountedBody {
    body: ResponseBody,
    in_flight: InFlight,
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.in_flight.waits_for_us(polled.is_pending());
        if polled.is_ready() {
            self.in_flight.connection.activity.frames_taken.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.in_flight.connection.activity.responses_whole.fetch_add(1, Ordering::Relaxed);
        }
    }
}
