//! A connection to the node over HTTP/1.1, with one request under way at most.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

const CONNECT_MAX: Duration = Duration::from_secs(5);

/// An open connection.
pub(crate) struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let connected = timeout(CONNECT_MAX, TcpStream::connect(address)).await;
        let stream = connected.with_context(|| format!("connect: no answer within {CONNECT_MAX:?}"))?;
        let stream = stream.context("connect")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Its errors reach the requests on it too.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self(sender))
    }

    /// Whether it can take a request: false if the node has closed it.
    pub(crate) async fn is_ready(&mut self) -> bool {
        self.0.ready().await.is_ok()
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.0.send_request(request).await
    }
}
