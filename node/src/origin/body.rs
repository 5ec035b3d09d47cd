//! Content on its way to an origin ([`ForwardBody`]) and back ([`OriginBody`]).
//!
//! Always true:
//! - Content is passed on as it comes: nothing is collected here, and what the reader does not ask for is not read.
//! - A connection goes back to its pool only after the content has been read to its clean end; a reader that stops before, a
//!   fault or a deadline closes it (HTTP/1.1) or resets the stream (HTTP/2).
//! - An error is the last thing a reader gets.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::concurrency::Ticket;
use super::endpoint::Endpoint;
use super::error::{BodyError, BoxError};
use super::expectation::Expectation;
use super::load::InFlight;
use super::pool::{Http1Lease, Http2Lease};

/// The content of a forward request.
#[derive(Debug)]
pub struct ForwardBody {
    content: Content,
    /// The content's client waits for 100, and this for the endpoint's.
    held: Option<Held>,
    progress: Option<Arc<UploadProgress>>,
}

#[derive(Debug)]
enum Content {
    Empty,
    Full(Bytes),
    Streamed(UnsyncBoxBody<Bytes, BoxError>),
}

struct Held {
    expectation: Arc<Expectation>,
    met: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Held").field(&self.expectation).finish()
    }
}

impl ForwardBody {
    /// No content: what most requests have. Costs no allocation, and may be sent again.
    pub fn empty() -> Self {
        Self { content: Content::Empty, held: None, progress: None }
    }

    /// Content that comes as it comes, and once only. One that has ended already is [`Self::empty`].
    pub fn streamed<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self { content: Content::Streamed(body.map_err(Into::into).boxed_unsync()), held: None, progress: None }
    }

    /// The same content, of which nothing is read until the endpoint wants it ([`Expectation`]).
    #[must_use]
    pub fn held_by(mut self, expectation: &Arc<Expectation>) -> Self {
        let (expectation, met) = (expectation.clone(), Box::pin(expectation.clone().met()));
        self.held = Some(Held { expectation, met });
        self
    }

    /// Reads the content without waiting for the endpoint's 100.
    pub(super) fn release(&self) {
        if let Some(held) = &self.held {
            held.expectation.meet();
        }
    }

    /// Content in memory. May be sent again.
    pub fn full(content: Bytes) -> Self {
        if content.is_empty() {
            return Self::empty();
        }
        Self { content: Content::Full(content), held: None, progress: None }
    }

    /// The same content once more, unless it comes once only.
    pub fn copy(&self) -> Option<Self> {
        match &self.content {
            Content::Empty => Some(Self::empty()),
            Content::Full(content) => Some(Self::full(content.clone())),
            Content::Streamed(_) => None,
        }
    }

    /// Whether there is any.
    pub(super) fn has_content(&self) -> bool {
        !matches!(self.content, Content::Empty)
    }

    /// Whether the request can be sent again, as long as nothing of it was.
    pub fn may_be_resent(&self) -> bool {
        matches!(self.content, Content::Empty | Content::Full(_))
    }

    /// Watches how the content is sent; `None` where there is none.
    pub(super) fn watch(&mut self) -> Option<Arc<UploadProgress>> {
        match self.content {
            Content::Empty | Content::Full(_) => None,
            Content::Streamed(_) => {
                Some(Arc::clone(self.progress.get_or_insert_with(|| Arc::new(UploadProgress::new()))))
            }
        }
    }
}

impl Body for ForwardBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(held) = &mut self.held {
            ready!(held.met.as_mut().poll(cx));
            self.held = None;
        }
        let body = match &mut self.content {
            Content::Empty => return Poll::Ready(None),
            Content::Full(content) => {
                let content = std::mem::take(content);
                self.content = Content::Empty;
                return Poll::Ready(Some(Ok(Frame::data(content))));
            }
            Content::Streamed(body) => body,
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if let Some(progress) = &self.progress {
            progress.note(matches!(frame, Some(Err(_))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(_) => false,
            Content::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(content) => SizeHint::with_exact(content.len() as u64),
            Content::Streamed(body) => body.size_hint(),
        }
    }
}

/// When the content of a request last moved on. The origin's time to answer counts from there: a long upload is no slow answer.
#[derive(Debug)]
pub(super) struct UploadProgress {
    begun: Instant,
    last_ms: AtomicU64,
    has_failed: AtomicBool,
}

impl UploadProgress {
    fn new() -> Self {
        Self { begun: Instant::now(), last_ms: AtomicU64::new(0), has_failed: AtomicBool::new(false) }
    }

    fn note(&self, failed: bool) {
        let elapsed_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed_ms, Relaxed);
        if failed {
            self.has_failed.store(true, Relaxed);
        }
    }

    /// Whether the content ended in an error of its own.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Relaxed)
    }

    /// Ends when nothing has moved for `limit`. Cancel safe: it holds nothing.
    pub(super) async fn stands_still(&self, limit: Duration) {
        loop {
            let due = self.begun + Duration::from_millis(self.last_ms.load(Relaxed)) + limit;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// What the content of a response arrives on.
pub(super) enum Lease {
    Http1(Http1Lease),
    Http2(Http2Lease),
}

impl Lease {
    fn finish(self) {
        match self {
            Self::Http1(lease) => lease.finish(),
            // Its drop ends the stream; the connection was never taken away.
            Self::Http2(lease) => drop(lease),
        }
    }
}

/// Frames that are read before their reader asks for them.
const FRAMES_AHEAD_MAX: usize = 4096;

/// The content of an origin's response, with its trailers.
pub struct OriginBody {
    /// Frames that were read before their reader asked for them.
    ahead: VecDeque<Result<Frame<Bytes>, BodyError>>,
    incoming: Incoming,
    /// Taken at the clean end; dropped with the connection closed otherwise.
    lease: Option<Lease>,
    endpoint: Arc<Endpoint>,
    /// Until the end of the content.
    in_flight: Option<InFlight>,
    ticket: Option<Ticket>,
    wait: ChunkWait,
    failed: bool,
    /// All of it was read ahead.
    has_ended: bool,
}

fn frame_bytes(frame: &Result<Frame<Bytes>, BodyError>) -> usize {
    frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len)
}

impl std::fmt::Debug for OriginBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OriginBody")
            .field("endpoint", &self.endpoint.name())
            .field("incoming", &self.incoming)
            .finish_non_exhaustive()
    }
}

impl OriginBody {
    pub(super) fn new(incoming: Incoming, lease: Lease, endpoint: Arc<Endpoint>) -> Self {
        let wait = ChunkWait { limit: endpoint.body_idle_timeout(), timer: None, is_waiting: false };
        let mut body = Self {
            ahead: VecDeque::new(),
            incoming,
            lease: Some(lease),
            endpoint,
            in_flight: None,
            ticket: None,
            wait,
            failed: false,
            has_ended: false,
        };
        body.finish_at_end();
        body
    }

    /// Reads the content, of which the reader misses nothing by that. `None`: it is longer than `bytes_max`, or does not come whole.
    /// Cancel safe: what has come is kept for its reader.
    pub async fn read_ahead(&mut self, bytes_max: usize) -> Option<Bytes> {
        let mut bytes = self.ahead.iter().map(frame_bytes).sum::<usize>();
        loop {
            let is_whole = self.failed || self.has_ended;
            if is_whole || bytes > bytes_max || self.ahead.len() > FRAMES_AHEAD_MAX {
                let is_good = self.has_ended && bytes <= bytes_max;
                return is_good.then(|| self.ahead_bytes(bytes));
            }
            match poll_fn(|cx| self.poll_incoming(cx)).await {
                Some(frame) => {
                    bytes += frame_bytes(&frame);
                    self.ahead.push_back(frame);
                }
                None => self.has_ended = !self.failed,
            }
        }
    }

    fn ahead_bytes(&self, bytes: usize) -> Bytes {
        let mut content = BytesMut::with_capacity(bytes);
        for data in self.ahead.iter().flatten().filter_map(Frame::data_ref) {
            content.extend_from_slice(data);
        }
        content.freeze()
    }

    /// It counts as a request under way as long as there is something to read, and speaks for its endpoint at its clean end.
    pub(super) fn counts_as(&mut self, in_flight: InFlight) {
        self.in_flight = Some(in_flight);
        if self.lease.is_none() {
            self.finish();
        }
    }

    /// It counts for its origin's bound as long as there is something to read.
    pub(super) fn holds(&mut self, ticket: Option<Ticket>) {
        self.ticket = ticket.filter(|_| self.lease.is_some());
    }

    /// Gives the connection back as soon as the framing says that nothing follows, not when the reader asks once more.
    fn finish_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some(in_flight) = self.in_flight.take() {
            in_flight.end_well();
        }
        self.ticket = None;
        if let Some(lease) = self.lease.take() {
            lease.finish();
        }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self;
        if this.failed || this.has_ended {
            return Poll::Ready(None);
        }
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.wait.ended();
                this.finish_at_end();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(source))) => this.fail(BodyError::Cut { endpoint: this.endpoint.name(), source }),
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(this.wait.poll(cx));
                this.fail(BodyError::Timeout { endpoint: this.endpoint.name(), limit: this.wait.limit })
            }
        }
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.failed = true;
        (self.lease, self.in_flight, self.ticket) = (None, None, None);
        self.endpoint.health().note_bad(Instant::now());
        self.endpoint.stats().count_error(error.kind());
        Poll::Ready(Some(Err(error)))
    }
}

impl Body for OriginBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.ahead.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => self.poll_incoming(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && (self.failed || self.has_ended || self.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.iter().map(frame_bytes).sum::<usize>() as u64;
        let rest = self.incoming.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(ahead + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(ahead + upper);
        }
        hint
    }
}

impl Drop for OriginBody {
    fn drop(&mut self) {
        if !self.failed {
            self.finish_at_end();
        }
    }
}

/// The deadline for the next chunk. It runs only while the reader waits for one: a slow reader is no slow origin.
struct ChunkWait {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
}

impl ChunkWait {
    fn ended(&mut self) {
        self.is_waiting = false;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = Instant::now() + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if !self.is_waiting {
            timer.as_mut().reset(due);
            self.is_waiting = true;
        }
        timer.as_mut().poll(cx)
    }
}
