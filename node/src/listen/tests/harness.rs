//! A server on port 0 in the test's own runtime, a handler that does as its path says, and plain clients.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::body::{BoxError, ResponseBody};
use crate::config::{ListenConfig, TlsConfig, UpgradePolicy};
use crate::listen::{ConnectionInfo, Drain, Drained, Handler, ListenContext, ListenCounters, Listeners, Tls, serve};

/// Nothing in a test takes so long unless it hangs.
pub(in crate::listen) const HANG: Duration = Duration::from_secs(20);

/// Limits with room for everything that a test does not mean to reach.
pub(in crate::listen) fn config() -> ListenConfig {
    ListenConfig {
        http: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        https: Vec::new(),
        threads: 1,
        connections_max: 1000,
        streams_max: 128,
        head_bytes_max: 64 * 1024,
        header_count_max: 100,
        handshake_timeout: HANG,
        header_timeout: HANG,
        idle_timeout: HANG,
        query_content_max: 64 << 10,
        body_idle_timeout: HANG,
        drain_timeout: HANG,
        upgrade: UpgradePolicy::Refuse,
    }
}

/// `/wait` answers when released; `/bytes/N` has N bytes; `/stream/N` has N chunks of 64 KiB; `/info` says what
/// connection it came over; `/tunnel` switches protocols and gives back what comes; `/echo` gives the request's content back; all else is `hello`.
#[derive(Debug)]
pub(in crate::listen) struct TestHandler {
    pub(in crate::listen) entered: Semaphore,
    pub(in crate::listen) release: Semaphore,
    pub(in crate::listen) calls: AtomicU64,
    pub(in crate::listen) running: AtomicU64,
}

impl TestHandler {
    pub(in crate::listen) fn new() -> Arc<Self> {
        let (calls, running) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { entered: Semaphore::new(0), release: Semaphore::new(0), calls, running })
    }
}

struct Running<'a>(&'a AtomicU64);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Handler for TestHandler {
    async fn handle(&self, request: Request<Incoming>, connection: Arc<ConnectionInfo>) -> Response<ResponseBody> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        let _running = Running(&self.running);
        let path = request.uri().path().to_owned();
        let body = match path.split('/').collect::<Vec<_>>()[..] {
            ["", "wait"] => {
                self.entered.add_permits(1);
                self.release.acquire().await.expect("open").forget();
                ResponseBody::from("released")
            }
            ["", "tunnel"] => {
                let upgrade = hyper::upgrade::on(request);
                tokio::spawn(async move {
                    let mut tunnel = TokioIo::new(upgrade.await.expect("switched"));
                    let mut word = [0; 4];
                    tunnel.read_exact(&mut word).await.expect("a word");
                    tunnel.write_all(&word).await.expect("given back");
                });
                let mut response = Response::new(ResponseBody::Empty);
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
                response.headers_mut().insert(UPGRADE, HeaderValue::from_static("words"));
                return response;
            }
            ["", "bytes", count] => ResponseBody::full(vec![b'b'; count.parse().expect("a number")]),
            ["", "stream", count] => stream(count.parse().expect("a number")),
            ["", "info"] => ResponseBody::from(format!("{:?} {:?}", connection.protocol, connection.tls)),
            ["", "echo"] => {
                let collected = request.into_body().collect().await.expect("content");
                let trailers = collected.trailers().cloned();
                ResponseBody::with_trailers(collected.to_bytes(), trailers)
            }
            _ => ResponseBody::from("hello"),
        };
        Response::new(body)
    }
}

fn stream(chunk_count: usize) -> ResponseBody {
    ResponseBody::stream(Chunks { left: chunk_count, chunk: Bytes::from(vec![b's'; 64 * 1024]) })
}

/// One chunk again and again.
struct Chunks {
    left: usize,
    chunk: Bytes,
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = BoxError;
    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(left) = self.left.checked_sub(1) else { return Poll::Ready(None) };
        self.left = left;
        Poll::Ready(Some(Ok(Frame::data(self.chunk.clone()))))
    }
}

/// A running server.
pub(in crate::listen) struct TestServer {
    pub(in crate::listen) http: Option<SocketAddr>,
    pub(in crate::listen) https: Option<SocketAddr>,
    pub(in crate::listen) handler: Arc<TestHandler>,
    pub(in crate::listen) context: Arc<ListenContext>,
    serving: JoinHandle<Drained>,
    _data_dir: tempfile::TempDir,
}

impl TestServer {
    pub(in crate::listen) fn start(config: ListenConfig) -> Self {
        Self::start_with(config, &TlsConfig { certificates: Vec::new() })
    }

    pub(in crate::listen) fn start_with(config: ListenConfig, tls: &TlsConfig) -> Self {
        let data_dir = tempfile::tempdir().expect("a directory");
        let listeners = Listeners::bind(&config).expect("bound");
        let (http, https) = (listeners.http().first().copied(), listeners.https().first().copied());
        let tls = https.map(|_| Tls::new(tls, data_dir.path(), SystemTime::now()).expect("certificates"));
        let counters = Arc::new(ListenCounters::default());
        let context = Arc::new(ListenContext { config, tls, counters, drain: Drain::default() });
        let handler = TestHandler::new();
        let threads = listeners.into_threads();
        let [listeners] = <[_; 1]>::try_from(threads).expect("one thread");
        let serving = serve(listeners, context.clone(), handler.clone());
        let serving = tokio::spawn(async move { serving.await.expect("served") });
        Self { http, https, handler, context, serving, _data_dir: data_dir }
    }

    pub(in crate::listen) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.http.expect("an http listener")).await.expect("connected")
    }

    pub(in crate::listen) async fn http2(&self) -> SendRequest<Empty<Bytes>> {
        http2(self.connect().await).await
    }

    pub(in crate::listen) async fn entered(&self) {
        timeout(HANG, self.handler.entered.acquire()).await.expect("in time").expect("open").forget();
    }

    pub(in crate::listen) async fn drained(self) -> Drained {
        self.context.drain.start();
        timeout(HANG, self.serving).await.expect("in time").expect("no panic")
    }

    pub(in crate::listen) fn counted(&self, counter: impl Fn(&ListenCounters) -> &AtomicU64) -> u64 {
        counter(&self.context.counters).load(Ordering::Relaxed)
    }

    /// Waits until a counter has a value.
    pub(in crate::listen) async fn until(&self, counter: impl Fn(&ListenCounters) -> &AtomicU64, value: u64) {
        reaches(counter(&self.context.counters), value).await;
    }
}

/// Waits until `counter` is `value`.
pub(in crate::listen) async fn reaches(counter: &AtomicU64, value: u64) {
    let reached = async {
        while counter.load(Ordering::Relaxed) != value {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(HANG, reached).await.expect("the counter gets there in time");
}

/// HTTP/2 over a connected stream.
pub(in crate::listen) async fn http2<S>(stream: S) -> SendRequest<Empty<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("handshake");
    tokio::spawn(connection);
    sender
}

/// A GET for an absolute path.
pub(in crate::listen) fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://localhost{path}")).body(Empty::new()).expect("a request")
}

pub(in crate::listen) async fn content(response: Response<Incoming>) -> Bytes {
    timeout(HANG, response.into_body().collect()).await.expect("in time").expect("content").to_bytes()
}

/// Sends `request` and reads until the server closes.
pub(in crate::listen) async fn exchange<S>(stream: &mut S, request: &str) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(request.as_bytes()).await.expect("sent");
    until_closed(stream).await
}

/// Reads until the server closes; a reset is a close.
pub(in crate::listen) async fn until_closed<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut read = Vec::new();
    let _ = timeout(HANG, stream.read_to_end(&mut read)).await.expect("the server closes in time");
    String::from_utf8_lossy(&read).into_owned()
}

/// Reads until `end` was read.
pub(in crate::listen) async fn read_until<S: AsyncRead + Unpin>(stream: &mut S, end: &str) -> String {
    let mut read = String::new();
    while !read.ends_with(end) {
        let byte = timeout(HANG, stream.read_u8()).await.expect("in time").expect("more");
        read.push(char::from(byte));
    }
    read
}
