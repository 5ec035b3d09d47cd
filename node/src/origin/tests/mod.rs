//! Origins over real sockets. The other side is a script over raw TCP, or hyper's own server where HTTP/2 is spoken.

mod attempts;
mod balancing;
mod content;
mod failures;
mod health;
mod http2;
mod pool;
mod resolving;
mod stale;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Method, Request};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{ForwardBody, ForwardError, ForwardedResponse, Origin, Origins};
use crate::config::{
    Balance, EjectionConfig, EndpointConfig, EndpointUrl, HostHeader, Http2, OriginConfig, RetryConfig,
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An origin that follows a script, connection by connection.
struct RawOrigin {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl RawOrigin {
    /// `script` gets each connection with its number, from 0.
    async fn start<F, S>(script: S) -> Self
    where
        S: Fn(RawConnection, usize) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (accepted, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (accepted_here, requests_here) = (Arc::clone(&accepted), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = RawConnection { stream, read: Vec::new(), requests: Arc::clone(&requests_here) };
                tokio::spawn(script(connection, accepted_here.fetch_add(1, SeqCst)));
            }
        });
        Self { address, accepted, requests }
    }

    /// Gives every request the same answer.
    async fn answering(answer: &'static str) -> Self {
        Self::start(move |mut connection, _| async move {
            while connection.request().await.is_some() {
                connection.write(answer).await;
            }
        })
        .await
    }

    fn accepted(&self) -> usize {
        self.accepted.load(SeqCst)
    }

    fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

struct RawConnection {
    stream: TcpStream,
    read: Vec<u8>,
    requests: Arc<AtomicUsize>,
}

impl RawConnection {
    /// The head of the next request; its content of known length is read and dropped. `None` at the end of the connection.
    async fn request(&mut self) -> Option<String> {
        let head = self.head().await?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().expect("a length"));
        while self.read.len() < length {
            self.more().await?;
        }
        self.read.drain(..length);
        Some(head)
    }

    async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = self.read.drain(..end + 4).collect();
                self.requests.fetch_add(1, SeqCst);
                return Some(String::from_utf8(head).expect("text"));
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Option<()> {
        (self.stream.read_buf(&mut self.read).await.ok()? > 0).then_some(())
    }

    async fn write(&mut self, text: &str) {
        // The other side may be gone already; then the test sees it there.
        let _ = self.stream.write_all(text.as_bytes()).await;
    }

    /// Waits until the other side has closed.
    async fn closed(&mut self) {
        while self.more().await.is_some() {}
    }
}

/// An origin in front of these addresses, over plaintext, with short deadlines.
fn config(addresses: &[SocketAddr]) -> OriginConfig {
    let endpoints =
        addresses.iter().map(|address| endpoint(&address.ip().to_string(), address.port(), false)).collect();
    OriginConfig {
        name: "api".to_owned(),
        endpoints,
        balance: Balance::RoundRobin,
        connections_max: 8,
        connect_timeout: Duration::from_secs(2),
        response_timeout: Duration::from_secs(5),
        body_idle_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(60),
        queue_max: 100,
        queue_timeout: Duration::from_secs(5),
        http2: Http2::Auto,
        services: Vec::new(),
        resolver: Vec::new(),
        tls_ca: None,
        tls_client: None,
        tls_server_name: None,
        host_header: HostHeader::Client,
        region: None,
        connections_min: 0,
        connection_age_max: Duration::from_secs(3600),
        connection_requests_max: 1_000_000,
        health: None,
        ejection: EjectionConfig {
            consecutive_errors: 5,
            outliers: false,
            time: Duration::from_secs(10),
            time_max: Duration::from_secs(300),
            share_max: 50,
            interval: Duration::from_secs(10),
        },
        panic_threshold: 50,
        slow_start: Duration::ZERO,
        deadline: None,
        retries: RetryConfig {
            max: 3,
            idempotent: false,
            statuses: Vec::new(),
            try_timeout: None,
            budget: 20,
            hedge_percentile: None,
        },
        requests_max: 0,
        adaptive_concurrency: false,
    }
}

fn endpoint(host: &str, port: u16, tls: bool) -> EndpointConfig {
    EndpointConfig { url: EndpointUrl { tls, host: host.to_owned(), port }, weight: 1, region: None, priority: 0 }
}

fn origins(config: OriginConfig) -> Origins {
    Origins::new(&BTreeMap::from([("api".to_owned(), config)])).expect("usable origins")
}

fn origin(config: OriginConfig) -> Arc<Origin> {
    origins(config).get("api").expect("it is there")
}

/// Tends the origins as the node does, until the handle is dropped.
struct Tended(tokio::task::JoinHandle<()>);

impl Drop for Tended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn tended(config: OriginConfig) -> (Arc<Origin>, Tended) {
    let origins = Arc::new(origins(config));
    let origin = origins.get("api").expect("it is there");
    (origin, Tended(tokio::spawn(async move { origins.tend().await })))
}

fn get(path: &str) -> Request<ForwardBody> {
    Request::builder().uri(path).header("host", "shop.test").body(ForwardBody::empty()).expect("a request")
}

fn post(path: &str, content: &'static str) -> Request<ForwardBody> {
    let body = ForwardBody::streamed(http_body_util::Full::new(bytes::Bytes::from_static(content.as_bytes())));
    Request::builder().method(Method::POST).uri(path).header("host", "shop.test").body(body).expect("a request")
}

async fn text(forwarded: ForwardedResponse) -> String {
    let content = forwarded.response.into_body().collect().await.expect("whole content").to_bytes();
    String::from_utf8(content.to_vec()).expect("text")
}

/// The error of a request that must not succeed.
async fn refusal(origin: &Origin, request: Request<ForwardBody>) -> ForwardError {
    match origin.send(request).await {
        Ok(forwarded) => panic!("answered with {}", forwarded.response.status()),
        Err(error) => error,
    }
}

/// Waits for a condition, with a deadline.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..2_500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("not within 5 s: {what}");
}

/// Content that is made while it is read.
struct Produced {
    left: usize,
    chunk: bytes::Bytes,
    /// Before each chunk.
    pause: Duration,
    /// Ends in an error.
    fails: bool,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Produced {
    fn new(bytes: usize, chunk_bytes: usize) -> Self {
        Self { left: bytes, chunk: vec![b'x'; chunk_bytes].into(), pause: Duration::ZERO, fails: false, timer: None }
    }
}

impl Body for Produced {
    type Data = bytes::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, std::io::Error>>> {
        let pause = self.pause;
        if !pause.is_zero() {
            ready!(self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause))).as_mut().poll(cx));
            self.timer = None;
        }
        if self.left == 0 {
            let end = self.fails.then(|| Err(std::io::ErrorKind::ConnectionReset.into()));
            return Poll::Ready(end);
        }
        let chunk = self.chunk.slice(..self.chunk.len().min(self.left));
        self.left -= chunk.len();
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }
}

fn open(origin: &Origin) -> usize {
    origin.snapshot().endpoints[0].pool.open
}

fn idle(origin: &Origin) -> usize {
    origin.snapshot().endpoints[0].pool.idle
}

fn waiting(origin: &Origin) -> usize {
    origin.snapshot().endpoints[0].pool.waiting
}
