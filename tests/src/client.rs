//! The client: one version of HTTP, plaintext or TLS, kept connections, whole answers or streamed ones.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use tokio::sync::Semaphore;

use crate::answer::{Answer, Connected};
use crate::certificates::Trust;
use crate::connect::{AskBody, Connection, Protocol, Route, TlsRoute};
use crate::content::Content;
use crate::wait::within;

const TLS_VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
const ONLY_TLS12: &[&SupportedProtocolVersion] = &[&TLS12];
/// Idle HTTP/1.1 connections beyond this are closed.
const IDLE_MAX: usize = 256;

/// Why there is no answer, or only a part of one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error("connect")]
    Connect(#[source] io::Error),
    /// No agreement on TLS, or a certificate that is not trusted.
    #[error("TLS handshake: {0}")]
    Tls(#[source] io::Error),
    /// The content was shorter than the test wanted it.
    #[error("the content ended after {after} bytes")]
    Ended {
        /// How many bytes came.
        after: usize,
    },
    /// The connection or the stream ended before the answer did.
    #[error("{0:?}")]
    Http(#[from] hyper::Error),
}

/// A client of one server. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Client {
    route: Route,
    authority: String,
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    idle: Mutex<Vec<Connection>>,
    opened: AtomicU64,
    /// One HTTP/2 connection is opened at a time, so that requests sent at once share it.
    opening: Semaphore,
}

impl Default for Pool {
    fn default() -> Self {
        Self { idle: Mutex::default(), opened: AtomicU64::new(0), opening: Semaphore::new(1) }
    }
}

impl Client {
    /// HTTP/1.1 on plaintext.
    #[must_use]
    pub fn http1(addr: SocketAddr) -> Self {
        Self::new(addr, Protocol::Http1, None)
    }

    /// HTTP/2 with prior knowledge on plaintext.
    #[must_use]
    pub fn http2(addr: SocketAddr) -> Self {
        Self::new(addr, Protocol::Http2, None)
    }

    /// HTTP/1.1 on TLS. The server name is sent as SNI and becomes the authority.
    #[must_use]
    pub fn https1(addr: SocketAddr, trust: Trust, server_name: &str) -> Self {
        Self::new(addr, Protocol::Http1, Some((trust, server_name)))
    }

    /// HTTP/2 on TLS. The server name is sent as SNI and becomes the authority.
    #[must_use]
    pub fn https2(addr: SocketAddr, trust: Trust, server_name: &str) -> Self {
        Self::new(addr, Protocol::Http2, Some((trust, server_name)))
    }

    fn new(addr: SocketAddr, protocol: Protocol, tls: Option<(Trust, &str)>) -> Self {
        let authority = match tls {
            None => addr.to_string(),
            Some((_, name)) => format!("{name}:{}", addr.port()),
        };
        let tls = tls.map(|(trust, name)| TlsRoute { trust, server_name: name.to_owned(), versions: TLS_VERSIONS });
        Self { route: Route { addr, protocol, tls }, authority, pool: Arc::default() }
    }

    /// Asks in the name of another authority: `Host` or `:authority`. The connections stay the same.
    #[must_use]
    pub fn authority(mut self, authority: &str) -> Self {
        authority.clone_into(&mut self.authority);
        self
    }

    /// Offers TLS 1.2 alone.
    #[must_use]
    pub fn only_tls12(mut self) -> Self {
        if let Some(tls) = &mut self.route.tls {
            tls.versions = ONLY_TLS12;
        }
        self.pool = Arc::default();
        self
    }

    /// A GET with no fields but those it needs.
    pub async fn get(&self, target: &str) -> Answer {
        self.ask(Method::GET, target).send().await
    }

    /// The same GET several times at once.
    pub async fn get_many(&self, target: &str, count: usize) -> Vec<Answer> {
        let asking: Vec<_> = (0..count)
            .map(|_| {
                let (client, target) = (self.clone(), target.to_owned());
                tokio::spawn(async move { client.get(&target).await })
            })
            .collect();
        let mut answers = Vec::with_capacity(count);
        for answer in asking {
            match answer.await {
                Ok(answer) => answers.push(answer),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        answers
    }

    /// A request to be completed and sent. The target is a path with or without a query.
    pub fn ask(&self, method: Method, target: &str) -> Ask {
        let mut request = Request::new(Content::default());
        *request.method_mut() = method;
        *request.uri_mut() = self.target_uri(target);
        if self.route.protocol == Protocol::Http1 {
            let authority = HeaderValue::from_str(&self.authority).expect("the test names a good authority");
            request.headers_mut().insert(HOST, authority);
        }
        Ask { client: self.clone(), request, length: Length::Known }
    }

    /// HTTP/1.1 sends the path alone; HTTP/2 needs scheme and authority beside it.
    fn target_uri(&self, target: &str) -> Uri {
        let uri: Uri = target.parse().unwrap_or_else(|error| panic!("{target}: {error}"));
        if self.route.protocol == Protocol::Http1 {
            return uri;
        }
        let mut parts = uri.into_parts();
        parts.scheme = Some(if self.route.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
        let authority: Authority = self.authority.parse().expect("the test names a good authority");
        parts.authority = Some(authority);
        Uri::from_parts(parts).expect("a path, a scheme and an authority make a URI")
    }

    /// Opens a connection without asking for anything: for what TLS alone decides.
    ///
    /// # Errors
    /// When there is no connection, or no agreement on TLS.
    pub async fn connect(&self) -> Result<Arc<Connected>, ClientError> {
        let connection = within("a connection", self.open()).await?;
        let facts = Arc::clone(&connection.facts);
        self.give_back(connection);
        Ok(facts)
    }

    /// How many connections it has opened.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.pool.opened.load(Ordering::Relaxed)
    }

    async fn open(&self) -> Result<Connection, ClientError> {
        let number = self.pool.opened.fetch_add(1, Ordering::Relaxed) + 1;
        // Boxed: handshakes have large states, and a test holds many requests at once.
        Box::pin(Connection::open(&self.route, number)).await
    }

    /// A kept connection that still works, or a new one.
    async fn take(&self) -> Result<Connection, ClientError> {
        if self.route.protocol == Protocol::Http1 {
            return match self.take_kept().await {
                Some(kept) => Ok(kept),
                None => self.open().await,
            };
        }
        let _permit = self.pool.opening.acquire().await.expect("the semaphore is never closed");
        if let Some(kept) = self.take_kept().await {
            return Ok(kept);
        }
        let connection = self.open().await?;
        self.pool.idle.lock().extend(connection.shared());
        Ok(connection)
    }

    async fn take_kept(&self) -> Option<Connection> {
        loop {
            let mut connection = {
                let mut idle = self.pool.idle.lock();
                let kept = idle.pop()?;
                idle.extend(kept.shared());
                kept
            };
            if connection.is_ready().await {
                return Some(connection);
            }
            self.pool.idle.lock().retain(|other| other.facts.number != connection.facts.number);
        }
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.pool.idle.lock();
        let is_kept = idle.iter().any(|other| other.facts.number == connection.facts.number);
        if !is_kept && idle.len() < IDLE_MAX {
            idle.push(connection);
        }
    }

    async fn exchange(&self, request: Request<AskBody>) -> Result<(Response<Incoming>, Connection), ClientError> {
        let mut request = request;
        loop {
            let mut connection = self.take().await?;
            match connection.send(request).await {
                Ok(response) => return Ok((response, connection)),
                // Only a kept connection that was closed meanwhile gives the request back.
                Err((_, Some(unsent))) => request = unsent,
                Err((error, None)) => return Err(error.into()),
            }
        }
    }
}

/// A request that is being put together.
#[derive(Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Ask {
    client: Client,
    request: Request<Content>,
    length: Length,
}

/// Whether the content's length is said beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Known,
    Unknown,
}

impl Ask {
    /// Adds a field line; an earlier one of the same name stays.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("the test names a good field");
        let value = HeaderValue::from_str(value).expect("the test names a good value");
        self.request.headers_mut().append(name, value);
        self
    }

    /// The content, in one piece or as steps.
    pub fn content(mut self, content: impl Into<Content>) -> Self {
        *self.request.body_mut() = content.into();
        self
    }

    /// JSON as content, with its type.
    pub fn json(self, value: &serde_json::Value) -> Self {
        self.header("content-type", "application/json").content(value.to_string())
    }

    /// Does not say the length of the content: chunked in HTTP/1.1.
    pub fn chunked(mut self) -> Self {
        self.length = Length::Unknown;
        self
    }

    /// The whole answer; a panic when there is none.
    #[track_caller]
    pub fn send(self) -> impl Future<Output = Answer> + Send {
        let caller = std::panic::Location::caller();
        let what = self.described();
        async move {
            match self.try_send().await {
                Ok(answer) => answer,
                Err(error) => panic!("{caller}: {what}: {error}"),
            }
        }
    }

    /// The whole answer.
    ///
    /// # Errors
    /// When there is no answer or it breaks off.
    pub async fn try_send(self) -> Result<Answer, ClientError> {
        let what = format!("an answer to {}", self.described());
        within(&what, async { self.start().await?.rest().await }).await
    }

    /// The head of the answer, while its content is still coming.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn start(self) -> Result<Streaming, ClientError> {
        let what = format!("the head of an answer to {}", self.described());
        let (mut head, content) = self.request.into_parts();
        let has_content = content.length() > 0 || !content.trailers().is_empty();
        if has_content && self.length == Length::Known && content.trailers().is_empty() {
            head.headers.entry(CONTENT_LENGTH).or_insert_with(|| content.length().into());
        }
        for name in content.trailers().keys() {
            head.headers.append(http::header::TRAILER, HeaderValue::from_name(name.clone()));
        }
        let request = Request::from_parts(head, BodyExt::boxed(content.into_body()));
        let (response, connection) = within(&what, self.client.exchange(request)).await?;
        let (head, content) = response.into_parts();
        let answer = Answer {
            status: head.status,
            version: head.version,
            headers: head.headers,
            content: Bytes::new(),
            trailers: HeaderMap::new(),
            connection: Arc::clone(&connection.facts),
        };
        Ok(Streaming { answer, content, client: self.client, connection })
    }

    fn described(&self) -> String {
        format!("{} {}", self.request.method(), self.request.uri())
    }
}

/// An answer whose content is still coming. Dropping it cancels the rest.
#[derive(Debug)]
pub struct Streaming {
    answer: Answer,
    content: Incoming,
    client: Client,
    connection: Connection,
}

impl Streaming {
    /// Status and fields; its `content` and `trailers` are empty.
    #[must_use]
    pub const fn head(&self) -> &Answer {
        &self.answer
    }

    /// The next chunk, or `None` at the end.
    ///
    /// # Errors
    /// When the content breaks off.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = within("a chunk of content", self.content.frame()).await {
            match frame?.into_data() {
                Ok(chunk) => return Ok(Some(chunk)),
                Err(frame) => self.answer.trailers.extend(frame.into_trailers().unwrap_or_default()),
            }
        }
        Ok(None)
    }

    /// Shows every chunk that is still to come to `look`, and returns how many bytes they had: for contents that are
    /// too large to be kept.
    ///
    /// # Errors
    /// When the content breaks off.
    pub async fn read_through(&mut self, mut look: impl FnMut(&[u8])) -> Result<u64, ClientError> {
        let mut length = 0;
        while let Some(chunk) = self.next_chunk().await? {
            look(&chunk);
            length += chunk.len() as u64;
        }
        Ok(length)
    }

    /// Reads until at least `count` bytes have come, and returns all that came.
    ///
    /// # Errors
    /// When the content breaks off or ends before.
    pub async fn at_least(&mut self, count: usize) -> Result<Bytes, ClientError> {
        let mut content = BytesMut::new();
        while content.len() < count {
            let Some(chunk) = self.next_chunk().await? else {
                return Err(ClientError::Ended { after: content.len() });
            };
            content.extend_from_slice(&chunk);
        }
        Ok(content.freeze())
    }

    /// The whole answer, with the content from here on.
    ///
    /// # Errors
    /// When the content breaks off.
    pub async fn rest(mut self) -> Result<Answer, ClientError> {
        let mut content = BytesMut::new();
        while let Some(chunk) = self.next_chunk().await? {
            content.extend_from_slice(&chunk);
        }
        self.answer.content = content.freeze();
        self.client.give_back(self.connection);
        Ok(self.answer)
    }
}
