//! How often a connection writes: hyper and h2 as they are, over a pipe that counts.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::harness::*;
use crate::listen::connection::{Begun, serve};
use crate::listen::{ConnectionInfo, Drain, ListenContext, ListenCounters, Protocol};

/// A pipe that counts writes, as a socket would system calls.
struct Counted {
    pipe: DuplexStream,
    writes: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.pipe).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// A served HTTP/2 connection; gives the client's end and the count of writes.
fn serve_counted() -> (DuplexStream, Arc<AtomicU64>) {
    let (client, pipe) = tokio::io::duplex(1024 * 1024);
    let writes = Arc::new(AtomicU64::new(0));
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let counters = Arc::new(ListenCounters::default());
    let place = counters.open(1).expect("a place");
    let drain = Drain::default();
    let context = Arc::new(ListenContext { config: config(), tls: None, counters, drain: drain.clone() });
    let stream = Counted { pipe, writes: writes.clone() };
    let info = ConnectionInfo::new(address, address, None, Protocol::Http2);
    let handler = TestHandler::new();
    tokio::spawn(serve(Begun { stream, read_ahead: Bytes::new(), info, place, context, handler, drain }));
    (client, writes)
}

#[tokio::test]
async fn parallel_small_responses_share_their_writes() {
    let (client, writes) = serve_counted();
    let sender = http2(client).await;
    let mut first = sender.clone();
    content(first.send_request(get("/")).await.expect("a response")).await;
    let before = writes.load(Ordering::Relaxed);
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let mut sender = sender.clone();
        requests.spawn(async move {
            let response = sender.send_request(get("/bytes/1024")).await.expect("a response");
            assert_eq!(content(response).await.len(), 1024);
        });
    }
    while let Some(ended) = requests.join_next().await {
        ended.expect("answered");
    }
    let spent = writes.load(Ordering::Relaxed) - before;
    assert!(spent <= 4, "{spent} writes for 32 responses");
}

/// One request at a time: the response leaves at once, in one write.
#[tokio::test]
async fn a_single_response_is_one_write() {
    let (client, writes) = serve_counted();
    let mut sender = http2(client).await;
    content(sender.send_request(get("/")).await.expect("a response")).await;
    let before = writes.load(Ordering::Relaxed);
    for _ in 0..10 {
        content(sender.send_request(get("/bytes/1024")).await.expect("a response")).await;
    }
    let spent = writes.load(Ordering::Relaxed) - before;
    assert!(spent <= 12, "{spent} writes for 10 responses");
}
