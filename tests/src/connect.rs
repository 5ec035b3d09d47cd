//! Connections of a client: TCP, TLS when wanted, and the handshake of HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::answer::Connected;
use crate::certificates::Trust;
use crate::client::ClientError;

pub(crate) type AskBody = BoxBody<Bytes, std::io::Error>;

/// Which version of HTTP a client speaks; it offers no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Where and how to connect.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) addr: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) tls: Option<TlsRoute>,
}

#[derive(Debug, Clone)]
pub(crate) struct TlsRoute {
    pub(crate) trust: Trust,
    pub(crate) server_name: String,
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
}

impl TlsRoute {
    fn config(&self, protocol: Protocol) -> Arc<ClientConfig> {
        let alpn: &[u8] = match protocol {
            Protocol::Http1 => b"http/1.1",
            Protocol::Http2 => b"h2",
        };
        self.trust.client_config(alpn, self.versions)
    }
}

/// An open connection. HTTP/2 shares it, HTTP/1.1 lends it to one request after the other.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: Sender,
    pub(crate) facts: Arc<Connected>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<AskBody>),
    Http2(http2::SendRequest<AskBody>),
}

impl Connection {
    pub(crate) async fn open(route: &Route, number: u64) -> Result<Self, ClientError> {
        let stream = TcpStream::connect(route.addr).await.map_err(ClientError::Connect)?;
        stream.set_nodelay(true).map_err(ClientError::Connect)?;
        let mut facts = Connected { number, alpn: None, tls_version: None, certificate: None };
        let Some(tls) = &route.tls else {
            return Self::shake_hands(route.protocol, stream, facts).await;
        };
        let name = ServerName::try_from(tls.server_name.clone()).expect("the test names a good server name");
        let connector = TlsConnector::from(tls.config(route.protocol));
        let stream = connector.connect(name, stream).await.map_err(ClientError::Tls)?;
        let session = stream.get_ref().1;
        facts.alpn = session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        facts.tls_version = session.protocol_version().map(|version| format!("{version:?}"));
        facts.certificate = session.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
        Self::shake_hands(route.protocol, stream, facts).await
    }

    async fn shake_hands<S>(protocol: Protocol, stream: S, facts: Connected) -> Result<Self, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // A connection that ends badly fails the request on it, so the tasks need not report.
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .adaptive_window(true)
                    .handshake(TokioIo::new(stream))
                    .await?;
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        };
        Ok(Self { sender, facts: Arc::new(facts) })
    }

    /// A second handle to the same connection, where the protocol has such a thing.
    pub(crate) fn shared(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => {
                Some(Self { sender: Sender::Http2(sender.clone()), facts: Arc::clone(&self.facts) })
            }
        }
    }

    /// Waits until a request may be sent; false when the connection is closed.
    pub(crate) async fn is_ready(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends; a request that never left comes back, to be sent on another connection.
    pub(crate) async fn send(
        &mut self,
        request: Request<AskBody>,
    ) -> Result<Response<Incoming>, (hyper::Error, Option<Request<AskBody>>)> {
        let outcome = match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender) => sender.try_send_request(request).await,
        };
        outcome.map_err(|mut error| {
            let unsent = error.take_message();
            (error.into_error(), unsent)
        })
    }
}
