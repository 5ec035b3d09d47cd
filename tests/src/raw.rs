//! Bytes as they are: requests and answers that no HTTP library would send.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::certificates::Trust;
use crate::gate::Gate;
use crate::wait::within;

/// Longer heads are cut off: no test of a raw server sends one.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A connection on which a test writes and reads bytes.
pub struct RawConnection(Box<dyn Stream>);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl std::fmt::Debug for RawConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RawConnection").finish_non_exhaustive()
    }
}

impl RawConnection {
    /// Connects.
    pub async fn open(addr: SocketAddr) -> Self {
        let stream = within("a raw connection", TcpStream::connect(addr)).await;
        Self(Box::new(stream.unwrap_or_else(|error| panic!("connect to {addr}: {error}"))))
    }

    /// Connects over TLS, for HTTP/1.1.
    pub async fn open_tls(addr: SocketAddr, trust: Trust, server_name: &str) -> Self {
        let connector = TlsConnector::from(trust.client_config(b"http/1.1", rustls::ALL_VERSIONS));
        let name = ServerName::try_from(server_name.to_owned()).expect("the test names a good server name");
        let connect = async { connector.connect(name, TcpStream::connect(addr).await?).await };
        let stream = within("a raw connection over TLS", connect).await;
        Self(Box::new(stream.unwrap_or_else(|error| panic!("connect to {addr}: {error}"))))
    }

    /// Writes the bytes; a peer that has closed already is no failure, for it may have answered before.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = within("bytes to be taken", self.0.write_all(bytes.as_ref())).await;
        self
    }

    /// Says that nothing more will be sent.
    pub async fn close_write(&mut self) -> &mut Self {
        let _ = self.0.shutdown().await;
        self
    }

    /// Reads until these bytes have come, or the peer closes; returns all that came.
    pub async fn read_until(&mut self, end: &str) -> String {
        let what = format!("{end:?}");
        let bytes = within(&what, read_until(&mut self.0, end.as_bytes())).await;
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads until the peer closes the connection, which is the event that is waited for.
    pub async fn read_to_end(&mut self) -> String {
        let mut bytes = Vec::new();
        // A reset says as well as an end that the peer has closed.
        let _ = within("the peer to close the connection", self.0.read_to_end(&mut bytes)).await;
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < HEAD_BYTES_MAX && !bytes.windows(end.len()).any(|window| window == end) {
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) => break,
        }
    }
    bytes
}

/// What a raw origin answers to one request.
#[derive(Debug, Clone)]
pub struct RawReply {
    steps: Vec<Step>,
    after: After,
}

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<u8>),
    Wait(Gate),
    /// Reads until these bytes have come.
    Read(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    KeepOpen,
    Close,
}

impl RawReply {
    /// These bytes; the connection stays open for the next request.
    #[must_use]
    pub fn bytes(bytes: impl AsRef<[u8]>) -> Self {
        Self { steps: vec![Step::Write(bytes.as_ref().to_vec())], after: After::KeepOpen }
    }

    /// Further bytes.
    #[must_use]
    pub fn then(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.steps.push(Step::Write(bytes.as_ref().to_vec()));
        self
    }

    /// Holds what follows until the test opens the gate.
    #[must_use]
    pub fn then_wait(mut self, gate: &Gate) -> Self {
        self.steps.push(Step::Wait(gate.clone()));
        self
    }

    /// Reads content of the request until it ends so.
    #[must_use]
    pub fn then_read(mut self, end: &str) -> Self {
        self.steps.push(Step::Read(end.to_owned()));
        self
    }

    /// Closes the connection after them.
    #[must_use]
    pub fn then_close(mut self) -> Self {
        self.after = After::Close;
        self
    }
}

/// An origin that reads heads and writes bytes. It stops when it is dropped.
#[derive(Debug)]
pub struct RawOrigin {
    addr: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    count: watch::Sender<usize>,
    task: JoinHandle<()>,
}

impl RawOrigin {
    /// Answers each head, on whichever connection, with the next reply; the last one stays.
    pub async fn answering(replies: impl IntoIterator<Item = RawReply>) -> Self {
        let replies: Vec<_> = replies.into_iter().collect();
        assert!(!replies.is_empty(), "a raw origin needs at least one reply");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("port 0 is free");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let heads = Arc::new(Mutex::new(Vec::new()));
        let count = watch::Sender::new(0);
        let (seen, counter) = (Arc::clone(&heads), count.clone());
        let task = tokio::spawn(async move {
            let replies = Arc::new(replies);
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(answer(stream, Arc::clone(&replies), Arc::clone(&seen), counter.clone()));
            }
        });
        Self { addr, heads, count, task }
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:PORT`, as an endpoint of a configuration.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Waits until at least `count` heads have come, and returns all that came, byte for byte.
    pub async fn wait_for_heads(&self, count: usize) -> Vec<String> {
        let mut seen = self.count.subscribe();
        // The sender lives in `self`.
        let _ = within("raw requests", seen.wait_for(|seen| *seen >= count)).await;
        self.heads.lock().clone()
    }
}

impl Drop for RawOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    mut stream: TcpStream,
    replies: Arc<Vec<RawReply>>,
    heads: Arc<Mutex<Vec<String>>>,
    count: watch::Sender<usize>,
) {
    loop {
        let head = read_until(&mut stream, b"\r\n\r\n").await;
        if !head.ends_with(b"\r\n\r\n") {
            return;
        }
        let number = {
            let mut heads = heads.lock();
            heads.push(String::from_utf8_lossy(&head).into_owned());
            heads.len()
        };
        count.send_replace(number);
        let Some(reply) = replies.get(number - 1).or(replies.last()) else { return };
        for step in &reply.steps {
            match step {
                Step::Write(bytes) => {
                    if stream.write_all(bytes).await.is_err() {
                        return;
                    }
                }
                Step::Wait(gate) => gate.opened().await,
                Step::Read(end) => {
                    if !read_until(&mut stream, end.as_bytes()).await.ends_with(end.as_bytes()) {
                        return;
                    }
                }
            }
        }
        if reply.after == After::Close {
            return;
        }
    }
}
