//! The client in this program: connections that are kept busy for a time.
//!
//! Always true:
//! - Every response is read whole and checked: status 200 and the length of the origin's content. One that is not ends the
//!   measurement with an error.
//! - HTTP/1.1 is written and read here, in a few hundred nanoseconds of our own: a client that is slower than the server would
//!   hide what is measured. HTTP/2 is hyper's, which costs more than the server does; `report` shows how idle that leaves it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use http::{Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use memchr::memmem;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::origin::CONTENT_BYTES;
use crate::tls::SERVER_NAME;
use crate::workload::{Protocol, Workload};

/// From connect to the end of the handshake.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// One request on a quiet server.
const PROBE_MAX: Duration = Duration::from_secs(5);
/// Longer heads are not what the servers here send.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Whom to ask for what.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) workload: Workload,
    pub(crate) address: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
    /// The number of the next unique URL.
    pub(crate) next: Arc<AtomicU64>,
}

impl Target {
    /// The path of the next request.
    fn path(&self) -> String {
        if self.workload.is_unique() {
            format!("/miss/{}", self.next.fetch_add(1, Relaxed))
        } else {
            self.workload.path().to_owned()
        }
    }

    /// Where it is one URL.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}{}", self.scheme(), self.address, self.workload.path())
    }

    fn scheme(&self) -> &'static str {
        if self.workload.is_tls() { "https" } else { "http" }
    }
}

/// Asks for one thing twice: so that hits find it stored, and to see that it can be.
pub(crate) async fn probe(target: &Target) -> anyhow::Result<()> {
    let path = target.path();
    let asked = timeout(PROBE_MAX, async {
        let stream = connect(target).await?;
        match target.workload.protocol() {
            Protocol::Http1 => {
                let mut connection = Http1::new(stream);
                let request = http1_request(target, &path);
                connection.exchange(&request).await?;
                connection.exchange(&request).await
            }
            Protocol::Http2 => {
                let mut sender = http2_handshake(stream).await?;
                http2_exchange(&mut sender, target, &path).await?;
                http2_exchange(&mut sender, target, &path).await
            }
        }
    });
    asked.await.with_context(|| format!("no answer within {PROBE_MAX:?}"))?
}

/// Keeps the connections of a workload busy for `time`; returns the number of responses.
pub(crate) async fn drive(target: &Target, time: Duration) -> anyhow::Result<u64> {
    let count = Arc::new(AtomicU64::new(0));
    let mut connections = JoinSet::new();
    for _ in 0..target.workload.connections() {
        let stream = timeout(CONNECT_MAX, connect(target)).await.context("connect: no answer")??;
        match target.workload.protocol() {
            Protocol::Http1 => drop(connections.spawn(keep_http1_busy(stream, target.clone(), Arc::clone(&count)))),
            Protocol::Http2 => {
                let sender = http2_handshake(stream).await?;
                for _ in 0..target.workload.streams() {
                    connections.spawn(keep_http2_busy(sender.clone(), target.clone(), Arc::clone(&count)));
                }
            }
        }
    }
    // They end only by an error; the time being over is the good end.
    match timeout(time, connections.join_next()).await {
        Err(_) => Ok(count.load(Relaxed)),
        Ok(Some(Ok(Err(error)))) => Err(error),
        Ok(Some(Err(panic))) => Err(panic.into()),
        Ok(Some(Ok(Ok(())))) | Ok(None) => bail!("a connection ended by itself"),
    }
}

/// TCP or TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
type AnyStream = Box<dyn Stream>;

async fn connect(target: &Target) -> anyhow::Result<AnyStream> {
    let stream = TcpStream::connect(target.address).await.with_context(|| format!("connect to {}", target.address))?;
    stream.set_nodelay(true)?;
    if !target.workload.is_tls() {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(SERVER_NAME)?;
    let stream = TlsConnector::from(Arc::clone(&target.tls)).connect(name, stream).await.context("TLS handshake")?;
    Ok(Box::new(stream))
}

async fn keep_http1_busy(stream: AnyStream, target: Target, count: Arc<AtomicU64>) -> anyhow::Result<()> {
    let mut connection = Http1::new(stream);
    let is_unique = target.workload.is_unique();
    let mut request = http1_request(&target, &target.path());
    loop {
        connection.exchange(&request).await?;
        count.fetch_add(1, Relaxed);
        if is_unique {
            request = http1_request(&target, &target.path());
        }
    }
}

fn http1_request(target: &Target, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: */*\r\n\r\n", target.address)
}

/// A connection with one request under way at most.
struct Http1 {
    stream: AnyStream,
    received: BytesMut,
}

impl Http1 {
    fn new(stream: AnyStream) -> Self {
        Self { stream, received: BytesMut::with_capacity(HEAD_BYTES_MAX + CONTENT_BYTES) }
    }

    async fn exchange(&mut self, request: &str) -> anyhow::Result<()> {
        self.stream.write_all(request.as_bytes()).await?;
        // TLS keeps what it has not yet written.
        self.stream.flush().await?;
        loop {
            if let Some(end) = whole_response(&self.received)? {
                self.received.advance(end);
                ensure!(self.received.is_empty(), "the server sent more than one response");
                self.received.clear();
                return Ok(());
            }
            ensure!(self.received.len() < HEAD_BYTES_MAX + CONTENT_BYTES, "the response is longer than it may be");
            let count = self.stream.read_buf(&mut self.received).await?;
            ensure!(count > 0, "the server closed the connection");
        }
    }
}

/// Where the response ends, once it is whole.
pub(crate) fn whole_response(received: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(head_end) = memmem::find(received, b"\r\n\r\n") else { return Ok(None) };
    let head = &received[..head_end];
    ensure!(head.starts_with(b"HTTP/1.1 200 "), "the server answered {:?}", String::from_utf8_lossy(head));
    let mut lines = head.split(|byte| *byte == b'\n');
    let is_whole_content = lines.any(|line| {
        let Some((name, value)) = line.split_at_checked("content-length:".len()) else { return false };
        let length = str::from_utf8(value).ok().and_then(|value| value.trim().parse().ok());
        name.eq_ignore_ascii_case(b"content-length:") && length == Some(CONTENT_BYTES)
    });
    ensure!(is_whole_content, "no `Content-Length: {CONTENT_BYTES}` in {:?}", String::from_utf8_lossy(head));
    let end = head_end + 4 + CONTENT_BYTES;
    Ok((received.len() >= end).then_some(end))
}

type Sender = http2::SendRequest<Empty<Bytes>>;

async fn http2_handshake(stream: AnyStream) -> anyhow::Result<Sender> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    // Its errors reach the requests on it too.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

async fn keep_http2_busy(mut sender: Sender, target: Target, count: Arc<AtomicU64>) -> anyhow::Result<()> {
    loop {
        http2_exchange(&mut sender, &target, &target.path()).await?;
        count.fetch_add(1, Relaxed);
    }
}

async fn http2_exchange(sender: &mut Sender, target: &Target, path: &str) -> anyhow::Result<()> {
    let uri = Uri::builder().scheme(target.scheme()).authority(target.address.to_string()).path_and_query(path);
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri.build()?;
    *request.version_mut() = Version::HTTP_2;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    ensure!(response.status() == StatusCode::OK, "the server answered {}", response.status());
    let mut content = response.into_body();
    let mut length = 0;
    while let Some(frame) = content.frame().await {
        length += frame?.data_ref().map_or(0, Bytes::len);
    }
    ensure!(length == CONTENT_BYTES, "the content has {length} bytes instead of {CONTENT_BYTES}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_whole_with_the_last_byte_of_its_content() {
        let mut response = b"HTTP/1.1 200 OK\r\ncontent-length: 1024\r\nage: 1\r\n\r\n".to_vec();
        let head_bytes = response.len();
        response.resize(head_bytes + CONTENT_BYTES, b'x');
        assert_eq!(whole_response(&response).ok(), Some(Some(response.len())));
        assert_eq!(whole_response(&response[..response.len() - 1]).ok(), Some(None));
        assert_eq!(whole_response(&response[..head_bytes - 1]).ok(), Some(None));
    }

    #[test]
    fn another_status_or_length_is_an_error() {
        for head in ["HTTP/1.1 503 Service Unavailable\r\ncontent-length: 1024", "HTTP/1.1 200 OK\r\ncontent-length: 7"]
        {
            assert!(whole_response(format!("{head}\r\n\r\n").as_bytes()).is_err(), "{head}");
        }
    }
}
