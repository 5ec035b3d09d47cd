//! A scripted origin: real sockets, real HTTP, and a record of every request.
//!
//! Always true:
//! - It runs on a thread and a runtime of its own: a test that blocks does not stop it.
//! - A request is recorded when its head has arrived, before anything is answered; its content follows when read.
//! - A path without a script is answered `404` and recorded all the same.
//! - A script names a path, or a path with its query; the one with the query wins.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;

use crate::certificates::Leaf;
use crate::content::SteppedBody;
use crate::reply::{Reply, status};
use crate::wait::within;

/// Of longer contents only this much is kept, and the length.
const CONTENT_KEPT_MAX: usize = 1024 * 1024;
/// How long [`FakeOrigin::assert_requests`] gives a request that should not come. Absence is no event.
const SETTLE: Duration = Duration::from_millis(30);

/// A request as the origin saw it.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// The authority: `:authority` of HTTP/2, `Host` of HTTP/1.1.
    pub authority: String,
    /// The version it came in.
    pub version: Version,
    /// Its fields.
    pub headers: HeaderMap,
    /// The content, of which at most 1 MiB is kept.
    pub content: Bytes,
    /// How long the content was.
    pub content_bytes: u64,
    /// Fields after the content.
    pub trailers: HeaderMap,
    /// False while the content is coming, and for good when it broke off.
    pub is_whole: bool,
    /// Which connection it came on, counted from 1.
    pub connection: u64,
}

impl Recorded {
    /// The path without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The first value of a field, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn is_for(&self, path: &str) -> bool {
        if path.contains('?') { self.target == path } else { self.path() == path }
    }
}

/// How an origin listens.
#[derive(Debug, Clone, Default)]
pub struct OriginSetup {
    leaf: Option<Leaf>,
    versions: Versions,
    addr: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Versions {
    #[default]
    Both,
    Http1,
    Http2,
}

impl OriginSetup {
    /// TLS with this certificate.
    #[must_use]
    pub fn tls(mut self, leaf: &Leaf) -> Self {
        self.leaf = Some(leaf.clone());
        self
    }

    /// HTTP/1.1 alone.
    #[must_use]
    pub fn only_http1(mut self) -> Self {
        self.versions = Versions::Http1;
        self
    }

    /// HTTP/2 alone.
    #[must_use]
    pub fn only_http2(mut self) -> Self {
        self.versions = Versions::Http2;
        self
    }

    /// This address in place of port 0, for an origin that comes back where another one was.
    #[must_use]
    pub fn at(mut self, addr: SocketAddr) -> Self {
        self.addr = Some(addr);
        self
    }

    fn acceptor(&self) -> Option<TlsAcceptor> {
        let alpn: &[&[u8]] = match self.versions {
            Versions::Both => &[b"h2", b"http/1.1"],
            Versions::Http1 => &[b"http/1.1"],
            Versions::Http2 => &[b"h2"],
        };
        self.leaf.as_ref().map(|leaf| TlsAcceptor::from(leaf.server_config(alpn)))
    }
}

/// The origin. It stops listening when it is dropped.
pub struct FakeOrigin {
    addr: SocketAddr,
    is_tls: bool,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

type Answering = Arc<dyn Fn(&Recorded) -> Reply + Send + Sync>;

enum Script {
    /// The front is answered and removed; the last one stays.
    Queue(VecDeque<Reply>),
    Answering(Answering),
    /// The same, once the request's content has been read.
    AnsweringContent(Answering),
}

struct State {
    scripts: Mutex<HashMap<String, Script>>,
    recorded: Mutex<Vec<Recorded>>,
    /// Raised whenever the record changes.
    changed: watch::Sender<u64>,
    connection_count: AtomicU64,
    /// Raised to close what is open.
    closings: watch::Sender<u64>,
}

impl FakeOrigin {
    /// An origin without scripts, on plaintext, for both versions of HTTP.
    pub async fn start() -> Self {
        Self::start_with(OriginSetup::default()).await
    }

    /// An origin that answers this path, always alike.
    pub async fn serving(path: &str, reply: Reply) -> Self {
        let origin = Self::start().await;
        origin.serve(path, reply);
        origin
    }

    /// An origin that listens as the setup says.
    pub async fn start_with(setup: OriginSetup) -> Self {
        let state = Arc::new(State {
            scripts: Mutex::default(),
            recorded: Mutex::default(),
            changed: watch::Sender::new(0),
            connection_count: AtomicU64::new(0),
            closings: watch::Sender::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let (bound, addr) = oneshot::channel();
        let is_tls = setup.leaf.is_some();
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("fake-origin".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    tokio::select! {
                        () = listen(shared, setup, bound) => {}
                        _ = stopped => {}
                    }
                });
            })
            .expect("a thread");
        let addr = within("the origin to listen", addr).await.expect("the address is free");
        Self { addr, is_tls, state, stop: Some(stop), thread: Some(thread) }
    }

    /// Answers this path always alike, from now on.
    pub fn serve(&self, path: &str, reply: Reply) {
        self.serve_each(path, [reply]);
    }

    /// Answers this path with one reply after the other; the last one stays.
    pub fn serve_each(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        let queue: VecDeque<_> = replies.into_iter().collect();
        assert!(!queue.is_empty(), "a script needs at least one reply");
        self.state.scripts.lock().insert(path.to_owned(), Script::Queue(queue));
    }

    /// Answers this path with what the function makes of the request. The content is empty there: it comes later.
    pub fn answer(&self, path: &str, answering: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) {
        self.state.scripts.lock().insert(path.to_owned(), Script::Answering(Arc::new(answering)));
    }

    /// The same, with the content: it is read before the function is asked.
    pub fn answer_content(&self, path: &str, answering: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) {
        self.state.scripts.lock().insert(path.to_owned(), Script::AnsweringContent(Arc::new(answering)));
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:PORT`, or `https`, as an endpoint of a configuration.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.is_tls { "https" } else { "http" }, self.addr)
    }

    /// All requests for this path (or path and query), in the order in which their heads arrived.
    #[must_use]
    pub fn requests(&self, path: &str) -> Vec<Recorded> {
        self.state.recorded.lock().iter().filter(|request| request.is_for(path)).cloned().collect()
    }

    /// All requests for any path.
    #[must_use]
    pub fn all_requests(&self) -> Vec<Recorded> {
        self.state.recorded.lock().clone()
    }

    /// How many connections were opened so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.state.connection_count.load(Ordering::Acquire)
    }

    /// Waits until this path has been asked for at least `count` times; the answers may still be held by a gate.
    pub async fn wait_for_requests(&self, path: &str, count: usize) -> Vec<Recorded> {
        let mut changed = self.state.changed.subscribe();
        within(&format!("{count} requests for {path}"), async {
            loop {
                changed.mark_unchanged();
                let requests = self.requests(path);
                if requests.len() >= count {
                    return requests;
                }
                // The sender lives in `self.state`.
                let _ = changed.changed().await;
            }
        })
        .await
    }

    /// Waits until the contents of the first `count` requests for this path have been read to their end.
    pub async fn wait_for_contents(&self, path: &str, count: usize) -> Vec<Recorded> {
        let mut changed = self.state.changed.subscribe();
        within(&format!("{count} whole contents for {path}"), async {
            loop {
                changed.mark_unchanged();
                let requests = self.requests(path);
                if requests.iter().filter(|request| request.is_whole).count() >= count {
                    return requests;
                }
                let _ = changed.changed().await;
            }
        })
        .await
    }

    /// Waits for `count` requests for this path, and a moment longer for one too many.
    pub async fn assert_requests(&self, path: &str, count: usize) {
        self.wait_for_requests(path, count).await;
        tokio::time::sleep(SETTLE).await;
        let requests = self.requests(path);
        assert_eq!(requests.len(), count, "requests for {path}: {requests:#?}");
    }

    /// Closes every open connection, as a restarted origin does, and goes on listening.
    pub fn close_connections(&self) {
        self.state.closings.send_modify(|closings| *closings += 1);
    }

    /// Stops listening and closes every connection; returns the address, which is free then.
    pub fn stop(mut self) -> SocketAddr {
        self.end();
        self.addr
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            // An error says that it has ended already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for FakeOrigin {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for FakeOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeOrigin").field("url", &self.url()).finish_non_exhaustive()
    }
}

async fn listen(state: Arc<State>, setup: OriginSetup, bound: oneshot::Sender<SocketAddr>) {
    let addr = setup.addr.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    let listener = TcpListener::bind(addr).await.expect("the address is free");
    bound.send(listener.local_addr().expect("a bound socket has an address")).expect("the test waits for it");
    let acceptor = setup.acceptor();
    loop {
        // A failed accept is the peer's doing; the next one is unaffected.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let connection = state.connection_count.fetch_add(1, Ordering::AcqRel) + 1;
        let (state, acceptor, versions) = (Arc::clone(&state), acceptor.clone(), setup.versions);
        tokio::spawn(async move {
            let mut closings = state.closings.subscribe();
            closings.mark_unchanged();
            tokio::select! {
                () = serve_stream(Arc::clone(&state), stream, acceptor, versions, connection) => {}
                _ = closings.changed() => {}
            }
        });
    }
}

async fn serve_stream(
    state: Arc<State>,
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    versions: Versions,
    connection: u64,
) {
    let _ = stream.set_nodelay(true);
    match acceptor {
        None => serve(state, stream, versions, connection).await,
        // A refused handshake is what some tests are about; the client reports it.
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(state, stream, versions, connection).await;
            }
        }
    }
}

async fn serve<S>(state: Arc<State>, stream: S, versions: Versions, connection: u64)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    match versions {
        Versions::Both => {}
        Versions::Http1 => builder = builder.http1_only(),
        Versions::Http2 => builder = builder.http2_only(),
    }
    // A date of the real clock would be wrong beside a node with a fake one: the node adds its own.
    builder.http1().auto_date_header(false);
    builder.http2().auto_date_header(false).max_concurrent_streams(1000);
    let service = service_fn(move |request| answer(Arc::clone(&state), request, connection));
    // How a connection ends is the client's matter, or the script's.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
    connection: u64,
) -> Result<Response<SteppedBody>, Infallible> {
    let (mut recorded, content) = record(request, connection);
    let place = state.add(recorded.clone());
    let mut content = Some(content);
    if state.needs_content(&recorded)
        && let Some(content) = content.take()
    {
        state.read(place, content).await;
        recorded.clone_from(&state.recorded.lock()[place]);
    }
    let reply = state.reply_to(&recorded);
    if let Some(content) = content.filter(|_| reply.reads_content()) {
        state.read(place, content).await;
    }
    reply.hold().await;
    Ok(reply.into_response(&recorded))
}

fn record(request: Request<Incoming>, connection: u64) -> (Recorded, Incoming) {
    let (head, content) = request.into_parts();
    let host = head.headers.get(HOST).and_then(|value| value.to_str().ok());
    let authority = head.uri.authority().map(http::uri::Authority::as_str).or(host).unwrap_or_default().to_owned();
    let target = head.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let recorded = Recorded {
        method: head.method,
        target,
        authority,
        version: head.version,
        headers: head.headers,
        content: Bytes::new(),
        content_bytes: 0,
        trailers: HeaderMap::new(),
        is_whole: false,
        connection,
    };
    (recorded, content)
}

impl State {
    fn add(&self, request: Recorded) -> usize {
        let place = {
            let mut recorded = self.recorded.lock();
            recorded.push(request);
            recorded.len() - 1
        };
        self.note_change();
        place
    }

    fn note_change(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }

    fn needs_content(&self, request: &Recorded) -> bool {
        matches!(self.scripts.lock().get(request.path()), Some(Script::AnsweringContent(_)))
    }

    fn reply_to(&self, request: &Recorded) -> Reply {
        let answering = {
            let mut scripts = self.scripts.lock();
            let key = if scripts.contains_key(&request.target) { request.target.as_str() } else { request.path() };
            match scripts.get_mut(key) {
                None => return status(404).header("x-fake-origin", "no script for this path"),
                Some(Script::Queue(queue)) => {
                    let last = queue.len() == 1;
                    let reply = if last { queue.front().cloned() } else { queue.pop_front() };
                    return reply.expect("a script is never empty");
                }
                Some(Script::Answering(answering) | Script::AnsweringContent(answering)) => Arc::clone(answering),
            }
        };
        answering(request)
    }

    /// Reads the content into the record, whatever its length.
    async fn read(&self, place: usize, mut content: Incoming) {
        let (mut kept, mut length, mut trailers, mut is_whole) = (BytesMut::new(), 0, HeaderMap::new(), true);
        while let Some(frame) = content.frame().await {
            let Ok(frame) = frame else {
                is_whole = false;
                break;
            };
            match frame.into_data() {
                Ok(chunk) => {
                    length += chunk.len() as u64;
                    let room = CONTENT_KEPT_MAX - kept.len();
                    kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
                }
                Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
            }
        }
        if let Some(recorded) = self.recorded.lock().get_mut(place) {
            recorded.content = kept.freeze();
            recorded.content_bytes = length;
            recorded.trailers = trailers;
            recorded.is_whole = is_whole;
        }
        self.note_change();
    }
}
