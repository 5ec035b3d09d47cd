//! One connection from accept to close: handshake, choice of protocol, and the drive of hyper's state machine.
//!
//! Always true:
//! - On TLS the protocol is ALPN's choice; on plaintext it is HTTP/2 exactly if the connection begins with its preface.
//! - The driver polls hyper, then ends the turn (`deferred_flush`), then looks at the drain and the watch, in one task.
//! - A connection that is asked to close answers what is in flight: HTTP/2 by GOAWAY, HTTP/1.1 by `Connection: close`.
//! - More fields than `header_count_max` or a longer head than `head_bytes_max` is answered with 431 on both protocols.
//!
//! Not here: the deadlines' judgement (`watch`), floods (`frame_budget`), requests (`super::Handler`).

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::counters::{OpenConnection, count};
use super::deferred_flush::{EndOfTurn, deferred_flush};
use super::frame_budget::PREFACE;
use super::info::{ConnectionInfo, CountedBody, InFlight, Protocol, TlsInfo};
use super::interim::WithInterim;
use super::tls::tls_info;
use super::watch::{Reason, Verdict, Watch, Watched};
use super::{Drain, Handler, ListenContext};
use crate::body::ResponseBody;

/// Resets of streams that were not yet given to a handler, before GOAWAY (CVE-2023-44487).
pub const PENDING_RESETS_MAX: usize = 20;
/// Resets that the client provoked on our side, before GOAWAY (CVE-2025-8671).
pub const LOCAL_RESETS_MAX: usize = 128;
/// What one HTTP/2 stream buffers of a streamed response: two chunks of 64 KiB.
pub const STREAM_SEND_BYTES_MAX: usize = 128 * 1024;
/// Request content that may be under way to one stream, and to all streams of a connection.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// See [`STREAM_WINDOW_BYTES`].
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// hyper's read buffer for HTTP/1.1 grows to this for large requests, and to `head_bytes_max` if that is more.
pub const HTTP1_BUFFER_BYTES_MAX: usize = 128 * 1024;
/// hyper parses this many fields on the stack; any other bound costs an allocation a request.
const HEADER_COUNT_ON_STACK: usize = 100;

/// GOAWAY with ENHANCE_YOUR_CALM (RFC 9113 §6.8, §7), for a flood.
const GOAWAY_CALM: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0x0b];

/// A connection that was just accepted.
pub(super) struct Arrival<H> {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) place: OpenConnection,
    pub(super) context: Arc<ListenContext>,
    pub(super) handler: Arc<H>,
    pub(super) drain: Drain,
}

/// A connection on which HTTP can begin.
pub(super) struct Begun<S, H> {
    pub(super) stream: S,
    pub(super) read_ahead: Bytes,
    pub(super) info: ConnectionInfo,
    pub(super) place: OpenConnection,
    pub(super) context: Arc<ListenContext>,
    pub(super) handler: Arc<H>,
    pub(super) drain: Drain,
}

/// Serves a plaintext connection to its end.
pub(super) async fn serve_http<H: Handler>(arrival: Arrival<H>) {
    let Arrival { mut stream, peer, place, context, handler, drain } = arrival;
    let Ok(local) = prepare(&stream) else { return };
    let sniffed = tokio::select! {
        biased;
        sniffed = timeout(context.config.header_timeout, sniff(&mut stream)) => sniffed,
        // Nothing was asked yet.
        () = drain.started() => return,
    };
    let (protocol, read_ahead) = match sniffed {
        Ok(Ok(Some(sniffed))) => sniffed,
        Ok(Ok(None) | Err(_)) => return,
        Err(_) => return count(&context.counters.slow_heads),
    };
    let info = ConnectionInfo::new(peer, local, None, protocol);
    serve(Begun { stream, read_ahead, info, place, context, handler, drain }).await;
}

/// Serves a TLS connection to its end.
pub(super) async fn serve_https<H: Handler>(arrival: Arrival<H>) {
    let Arrival { stream, peer, place, context, handler, drain } = arrival;
    let Ok(local) = prepare(&stream) else { return };
    let Some(tls) = &context.tls else { return };
    let shaken = tokio::select! {
        biased;
        shaken = timeout(context.config.handshake_timeout, tls.acceptor().accept(stream)) => shaken,
        () = drain.started() => return,
    };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "TLS handshake failed");
            return count(&context.counters.tls_failures);
        }
        Err(_) => {
            tracing::debug!(%peer, "TLS handshake took too long");
            return count(&context.counters.tls_failures);
        }
    };
    count(&context.counters.tls_handshakes);
    let tls: TlsInfo = tls_info(stream.get_ref().1);
    let protocol = tls.alpn.unwrap_or(Protocol::Http1);
    let info = ConnectionInfo::new(peer, local, Some(tls), protocol);
    serve(Begun { stream, read_ahead: Bytes::new(), info, place, context, handler, drain }).await;
}

fn prepare(stream: &TcpStream) -> io::Result<SocketAddr> {
    // Responses leave in whole writes; waiting for more would only delay them.
    stream.set_nodelay(true)?;
    stream.local_addr()
}

/// Reads just enough to know the protocol. None: the client closed.
async fn sniff(stream: &mut TcpStream) -> io::Result<Option<(Protocol, Bytes)>> {
    let mut read = [0; PREFACE.len()];
    let mut length = 0;
    while length < PREFACE.len() {
        match stream.read(&mut read[length..]).await? {
            0 => return Ok(None),
            more => length += more,
        }
        if read[..length] != PREFACE[..length] {
            return Ok(Some((Protocol::Http1, Bytes::copy_from_slice(&read[..length]))));
        }
    }
    Ok(Some((Protocol::Http2, Bytes::from_static(PREFACE))))
}

/// Speaks HTTP until the connection ends.
pub(super) async fn serve<S, H>(begun: Begun<S, H>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let Begun { stream, read_ahead, info, place, context, handler, drain } = begun;
    let info = Arc::new(info);
    let service = service(handler, info.clone(), context.config.header_count_max);
    let stream = Watched::new(stream, read_ahead, info.clone(), place);
    match info.protocol {
        Protocol::Http1 => {
            let stream = WithInterim::new(stream, info.clone());
            let connection = http1(&context).serve_connection(TokioIo::new(stream), service).with_upgrades();
            let driver = Driver { info: &info, context: &context, drain: &drain, turn: NothingGathered };
            driver.run(pin!(connection), |connection| connection.graceful_shutdown()).await;
        }
        Protocol::Http2 => {
            let (stream, end_of_turn) = deferred_flush(stream);
            let connection = http2(&context).serve_connection(TokioIo::new(stream), service);
            let driver = Driver { info: &info, context: &context, drain: &drain, turn: end_of_turn };
            driver.run(pin!(connection), |connection| connection.graceful_shutdown()).await;
        }
    }
}

fn service<H: Handler>(
    handler: Arc<H>,
    info: Arc<ConnectionInfo>,
    header_count_max: usize,
) -> impl HttpService<Incoming, ResBody = CountedBody, Error = Infallible, Future: Send> {
    service_fn(move |request: Request<Incoming>| {
        let in_flight = InFlight::begin(&info);
        let (handler, info) = (handler.clone(), info.clone());
        async move {
            // hyper counts the fields of HTTP/1.1 itself; h2 bounds bytes only.
            let response = if request.headers().len() > header_count_max {
                let mut response = Response::new(ResponseBody::Empty);
                *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                response
            } else {
                handler.handle(request, info).await
            };
            in_flight.answered().await;
            Ok(response.map(|body| in_flight.responding(body)))
        }
    })
}

fn http1(context: &ListenContext) -> http1::Builder {
    let config = &context.config;
    let mut builder = http1::Builder::new();
    builder
        // The watch keeps this deadline: hyper's would also run while a kept connection waits for its next request.
        .header_read_timeout(None)
        .max_header_size(config.head_bytes_max)
        .max_buf_size(HTTP1_BUFFER_BYTES_MAX.max(config.head_bytes_max));
    if config.header_count_max != HEADER_COUNT_ON_STACK {
        builder.max_headers(config.header_count_max);
    }
    builder
}

fn http2(context: &ListenContext) -> http2::Builder<TokioExecutor> {
    let config = &context.config;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .max_concurrent_streams(config.streams_max)
        .max_header_list_size(u32::try_from(config.head_bytes_max).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .max_send_buf_size(STREAM_SEND_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}

/// What is done at the end of each turn of a connection.
trait TurnEnd {
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    fn push_last(&self, bytes: &[u8]);
}

impl<S: AsyncWrite + Unpin> TurnEnd for EndOfTurn<S> {
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx)
    }
    fn push_last(&self, bytes: &[u8]) {
        self.push(bytes);
    }
}

/// HTTP/1.1: hyper writes each response as it is.
struct NothingGathered;

impl TurnEnd for NothingGathered {
    fn poll_end(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn push_last(&self, _: &[u8]) {}
}

/// What keeps a connection going, beside hyper.
struct Driver<'a, T> {
    info: &'a ConnectionInfo,
    context: &'a ListenContext,
    drain: &'a Drain,
    turn: T,
}

impl<T: TurnEnd> Driver<'_, T> {
    /// Polls hyper's connection to its end, or until it is cut.
    async fn run<C>(&self, mut connection: Pin<&mut C>, ask_to_close: impl Fn(Pin<&mut C>))
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut watch = Watch::new(&self.context.config, self.info.protocol, Instant::now());
        let mut tick = pin!(sleep(watch.tick_every()));
        let mut draining = pin!(self.drain.started());
        let mut is_draining = false;
        std::future::poll_fn(|cx| {
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                    self.note_end(ended);
                    // hyper has shut the stream down or lost it; this is for the last frame of a flood.
                    let _ = self.turn.poll_end(cx);
                    return Poll::Ready(());
                }
                if let Poll::Ready(Err(error)) = self.turn.poll_end(cx) {
                    tracing::debug!(peer = %self.info.peer, %error, "write failed");
                    return Poll::Ready(());
                }
                if !is_draining && draining.as_mut().poll(cx).is_ready() {
                    is_draining = true;
                    watch.closing(Instant::now());
                    ask_to_close(connection.as_mut());
                    continue;
                }
                if tick.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                let now = Instant::now();
                tick.as_mut().reset(now + watch.tick_every());
                match watch.tick(self.info.activity.snapshot(), now) {
                    Verdict::Keep => {}
                    Verdict::CloseIdle => {
                        count(&self.context.counters.idle_closed);
                        ask_to_close(connection.as_mut());
                    }
                    Verdict::Cut(reason) => {
                        self.note_cut(reason);
                        return Poll::Ready(());
                    }
                }
            }
        })
        .await;
    }

    fn note_end(&self, ended: hyper::Result<()>) {
        if self.info.activity.is_over_budget.load(Ordering::Relaxed) {
            count(&self.context.counters.floods);
            tracing::info!(peer = %self.info.peer, "connection cut: a flood of HTTP/2 control frames");
            self.turn.push_last(GOAWAY_CALM);
        } else if let Err(error) = ended {
            tracing::debug!(peer = %self.info.peer, %error, "connection ended");
        }
    }

    fn note_cut(&self, reason: Reason) {
        tracing::debug!(peer = %self.info.peer, ?reason, "connection cut");
        match reason {
            Reason::SlowHead => count(&self.context.counters.slow_heads),
            Reason::Stalled => count(&self.context.counters.stalled),
            Reason::Lingering => {}
        }
    }
}
