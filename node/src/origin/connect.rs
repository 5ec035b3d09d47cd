//! One new connection to an endpoint: name, TCP, TLS, version of HTTP.
//!
//! Always true:
//! - All steps together have one deadline, `connect_timeout`.
//! - The driver of a connection runs on the runtime that opened it.
//!
//! Not here: whether one may be opened (`pool`).

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

use super::body::{ForwardBody, Lease};
use super::endpoint::{Endpoint, HEAD_BYTES_MAX};
use super::error::ForwardError;
use super::pool::{Http1Connection, Permit, STREAMS_MAX, Slot};
use super::socket::{Socket, SocketProbe};
use super::tls::ALPN_HTTP2;
use crate::config::Http2;

/// How long the next address waits for the one before (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);
/// What an HTTP/1.1 connection buffers of a response that its reader has not asked for yet: a whole head must fit.
const HTTP1_BUFFER_MAX: usize = 2 * HEAD_BYTES_MAX;
/// What an endpoint may send ahead on one HTTP/2 stream (100 Mbit/s at 80 ms), and on all streams of a connection.
const HTTP2_STREAM_WINDOW: u32 = 1024 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// What is buffered of a request on one HTTP/2 stream.
const HTTP2_SEND_BUFFER_MAX: usize = 256 * 1024;
/// A used HTTP/2 connection on which nothing comes for the first time is asked for a sign of life, and given up after the second.
const HTTP2_PING_AFTER: Duration = Duration::from_secs(15);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a connection and takes the first lease on it.
///
/// Cancel safe: dropping the future closes what was opened; the capacity comes back with the socket and the permit.
pub(super) async fn connect(endpoint: &Endpoint, mut permit: Permit) -> Result<Lease, ForwardError> {
    let limit = endpoint.connect_timeout();
    let connected = timeout_at(Instant::now() + limit, open(endpoint, &mut permit, limit)).await;
    let connected =
        connected.unwrap_or_else(|_| Err(ForwardError::ConnectTimeout { endpoint: endpoint.name(), limit }));
    if !matches!(connected, Ok(Lease::Http2(_))) {
        permit.not_shared();
    }
    connected
}

async fn open(endpoint: &Endpoint, permit: &mut Permit, limit: Duration) -> Result<Lease, ForwardError> {
    let stream = open_stream(endpoint, Instant::now() + limit).await?;
    let peer = stream.peer_addr().ok();
    // Small requests must not wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let Some(slot) = permit.take_slot() else {
        return Err(ForwardError::ConnectFailed {
            endpoint: endpoint.name(),
            source: "a permit is for one connection".into(),
        });
    };
    let socket = Socket::new(stream, endpoint.body_idle_timeout(), slot);
    let probe = socket.probe();
    let lease = match secure(endpoint, socket).await? {
        Opened::Plain(io, true) => start_http2(endpoint, permit, io, peer).await?,
        Opened::Plain(io, false) => start_http1(endpoint, permit, io, probe, peer).await?,
        Opened::Tls(io, true) => start_http2(endpoint, permit, *io, peer).await?,
        Opened::Tls(io, false) => start_http1(endpoint, permit, *io, probe, peer).await?,
    };
    endpoint.stats().count_connect();
    Ok(lease)
}

/// A connection, and whether HTTP/2 is spoken on it.
enum Opened {
    Plain(Socket, bool),
    Tls(Box<TlsStream<Socket>>, bool),
}

async fn secure(endpoint: &Endpoint, socket: Socket) -> Result<Opened, ForwardError> {
    let Some(tls) = endpoint.tls() else {
        return Ok(Opened::Plain(socket, endpoint.http2() == Http2::Always));
    };
    let stream = tls.connector.connect(tls.server_name.clone(), socket).await;
    let stream = stream.map_err(|source| ForwardError::Tls { endpoint: endpoint.name(), source })?;
    let agreed_http2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2);
    if endpoint.http2() == Http2::Always && !agreed_http2 {
        let source = "it does not agree to HTTP/2 by ALPN".into();
        return Err(ForwardError::ConnectFailed { endpoint: endpoint.name(), source });
    }
    Ok(Opened::Tls(Box::new(stream), agreed_http2 && endpoint.http2() != Http2::Never))
}

/// Sends one request on a connection of its own, which ends with the head of the answer.
///
/// Cancel safe: dropping the future closes the connection.
pub(super) async fn ask(
    endpoint: &Endpoint,
    mut request: Request<ForwardBody>,
    deadline: Instant,
) -> Result<StatusCode, ForwardError> {
    let stream = open_stream(endpoint, deadline).await?;
    let _ = stream.set_nodelay(true);
    let socket = Socket::new(stream, endpoint.body_idle_timeout(), Slot::uncounted());
    let opened = secure(endpoint, socket).await?;
    let is_http2 = matches!(opened, Opened::Plain(_, true) | Opened::Tls(_, true));
    let ready =
        if is_http2 { endpoint.target().make_http2(&mut request) } else { endpoint.target().make_http1(&mut request) };
    ready.map_err(|reason| ForwardError::Unsendable { endpoint: endpoint.name(), reason })?;
    match opened {
        Opened::Plain(io, is_http2) => exchange(endpoint, io, is_http2, request).await,
        Opened::Tls(io, is_http2) => exchange(endpoint, *io, is_http2, request).await,
    }
}

async fn exchange<T>(
    endpoint: &Endpoint,
    io: T,
    is_http2: bool,
    request: Request<ForwardBody>,
) -> Result<StatusCode, ForwardError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed =
        |source: hyper::Error| ForwardError::ConnectFailed { endpoint: endpoint.name(), source: source.into() };
    let answer = |source| ForwardError::BadResponse { endpoint: endpoint.name(), source };
    if is_http2 {
        let (mut sender, connection) =
            http2_builder().handshake::<_, ForwardBody>(TokioIo::new(io)).await.map_err(failed)?;
        return drive(connection, sender.send_request(request)).await.map_err(answer);
    }
    let (mut sender, connection) =
        http1_builder().handshake::<_, ForwardBody>(TokioIo::new(io)).await.map_err(failed)?;
    drive(connection, sender.send_request(request)).await.map_err(answer)
}

/// The answer's status; the connection is driven meanwhile and dropped then.
async fn drive<B>(
    connection: impl Future<Output = hyper::Result<()>>,
    answer: impl Future<Output = hyper::Result<Response<B>>>,
) -> hyper::Result<StatusCode> {
    let (mut connection, mut answer) = (pin!(connection), pin!(answer));
    tokio::select! {
        biased;
        answer = &mut answer => answer.map(|answer| answer.status()),
        ended = &mut connection => {
            // What it read before its end counts.
            ended.and(answer.await.map(|answer| answer.status()))
        }
    }
}

/// The first address that answers, of those the name has: the next one is tried when one fails or takes [`STAGGER`] (happy eyeballs,
/// RFC 8305). `connect_timeout` bounds all together.
pub(super) async fn open_stream(endpoint: &Endpoint, deadline: Instant) -> Result<TcpStream, ForwardError> {
    let unknown = |reason: String| ForwardError::Dns { endpoint: endpoint.name(), source: io::Error::other(reason) };
    let addresses = endpoint.addresses().get().await.map_err(unknown)?;
    if let [only] = addresses[..] {
        let began = Instant::now();
        let stream = TcpStream::connect(only).await.map_err(|source| refused(endpoint, source))?;
        endpoint.load().connected(began.elapsed());
        return Ok(stream);
    }
    // Each connection begins with another address, so that all of them get some.
    let mut waiting = addresses.iter().copied().cycle().skip(endpoint.next_turn());
    let mut left = addresses.len();
    let mut attempts = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    loop {
        if left > 0
            && let Some(address) = waiting.next()
        {
            left -= 1;
            attempts.spawn(async move {
                let began = Instant::now();
                TcpStream::connect(address).await.map(|stream| (stream, began.elapsed()))
            });
        }
        let until = if left > 0 { (Instant::now() + STAGGER).min(deadline) } else { deadline };
        match timeout_at(until, attempts.join_next()).await {
            Ok(Some(Ok(Ok((stream, took))))) => {
                endpoint.load().connected(took);
                return Ok(stream);
            }
            Ok(Some(Ok(Err(error)))) => last = error,
            Ok(Some(Err(error))) => last = io::Error::other(error),
            Ok(None) if left == 0 => return Err(refused(endpoint, last)),
            Err(_) if Instant::now() >= deadline => {
                return Err(ForwardError::ConnectTimeout {
                    endpoint: endpoint.name(),
                    limit: endpoint.connect_timeout(),
                });
            }
            Ok(None) | Err(_) => {}
        }
    }
}

fn refused(endpoint: &Endpoint, source: io::Error) -> ForwardError {
    if source.kind() == io::ErrorKind::ConnectionRefused {
        ForwardError::ConnectRefused { endpoint: endpoint.name(), source }
    } else {
        ForwardError::ConnectFailed { endpoint: endpoint.name(), source: source.into() }
    }
}

fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_header_size(HEAD_BYTES_MAX).max_buf_size(HTTP1_BUFFER_MAX);
    builder
}

fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .max_send_buf_size(HTTP2_SEND_BUFFER_MAX)
        .keep_alive_interval(HTTP2_PING_AFTER)
        .keep_alive_timeout(HTTP2_PING_TIMEOUT);
    builder
}

async fn start_http1<T>(
    endpoint: &Endpoint,
    permit: &Permit,
    io: T,
    probe: SocketProbe,
    peer: Option<SocketAddr>,
) -> Result<Lease, ForwardError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1_builder().handshake::<_, ForwardBody>(TokioIo::new(io)).await;
    let (sender, connection) =
        handshake.map_err(|source| ForwardError::ConnectFailed { endpoint: endpoint.name(), source: source.into() })?;
    let name = endpoint.name();
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(endpoint = %name, %error, "connection to origin ended");
        }
    });
    let now = Instant::now();
    let connection = Http1Connection {
        sender,
        driver: driver.abort_handle(),
        probe,
        thread: std::thread::current().id(),
        idle_since: now,
        made: now,
        requests: 0,
        peer,
    };
    Ok(Lease::Http1(permit.lease(connection)))
}

async fn start_http2<T>(
    endpoint: &Endpoint,
    permit: &Permit,
    io: T,
    peer: Option<SocketAddr>,
) -> Result<Lease, ForwardError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http2_builder().handshake::<_, ForwardBody>(TokioIo::new(io)).await;
    let (sender, mut connection) =
        handshake.map_err(|source| ForwardError::ConnectFailed { endpoint: endpoint.name(), source: source.into() })?;
    let streams_max = Arc::new(AtomicUsize::new(STREAMS_MAX));
    let (name, allowed) = (endpoint.name(), Arc::clone(&streams_max));
    tokio::spawn(async move {
        let ended = std::future::poll_fn(|cx| {
            let ended = std::pin::Pin::new(&mut connection).poll(cx);
            // What the endpoint allows comes with its settings, after the first requests.
            allowed.store(connection.current_max_send_streams(), Relaxed);
            ended
        });
        if let Err(error) = ended.await {
            tracing::debug!(endpoint = %name, %error, "connection to origin ended");
        }
    });
    Ok(Lease::Http2(permit.adopt(sender, streams_max, peer)))
}
