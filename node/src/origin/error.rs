//! What can go wrong between the node and an origin, and what it means for the request.
//!
//! Always true:
//! - Every error names the endpoint it happened at, or the origin if there was none.
//! - [`ForwardError::is_retryable`] is true only where no byte of the request can have been acted on.
//!
//! Not here: turning an error into a response (`respond`), deciding on stale content (`request`).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

/// An error of any type, as bodies carry it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What `Retry-After` says when the queue of an endpoint is full or too slow: about the time in which a short overload passes.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a forward request gave no usable response. `endpoint` is [`super::Endpoint::name`].
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The origin has no endpoint that may be used: all are drained, or have been tried.
    #[error("origin {origin} has no endpoint")]
    NoEndpoint {
        /// The name of the origin.
        origin: String,
    },
    /// The name of the endpoint did not resolve to an address.
    #[error("resolve {endpoint}")]
    Dns {
        /// Where.
        endpoint: Arc<str>,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// Nobody listens at the endpoint.
    #[error("connect to {endpoint}: refused")]
    ConnectRefused {
        /// Where.
        endpoint: Arc<str>,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Connecting failed otherwise: no route, reset, out of descriptors, HTTP/2 preface not answered.
    #[error("connect to {endpoint}")]
    ConnectFailed {
        /// Where.
        endpoint: Arc<str>,
        /// What failed.
        #[source]
        source: BoxError,
    },
    /// Resolving, connecting and the TLS handshake together took longer than `connect_timeout`.
    #[error("connect to {endpoint}: no answer within {limit:?}")]
    ConnectTimeout {
        /// Where.
        endpoint: Arc<str>,
        /// The limit that was reached.
        limit: Duration,
    },
    /// The TLS handshake failed; most often the certificate is not trusted or for another name.
    #[error("TLS handshake with {endpoint}")]
    Tls {
        /// Where.
        endpoint: Arc<str>,
        /// What rustls said.
        #[source]
        source: io::Error,
    },
    /// All connections are busy, and as many requests as may wait are waiting.
    #[error("{endpoint}: {queue_max} requests already wait for a connection")]
    QueueFull {
        /// Where.
        endpoint: Arc<str>,
        /// The limit that was reached.
        queue_max: usize,
    },
    /// No connection became free in time.
    #[error("{endpoint}: no connection became free within {limit:?}")]
    QueueTimeout {
        /// Where.
        endpoint: Arc<str>,
        /// The limit that was reached.
        limit: Duration,
    },
    /// The request cannot be sent to any origin: CONNECT, or a target or Host that is no URI.
    #[error("request for {endpoint} cannot be forwarded: {reason}")]
    Unsendable {
        /// Where.
        endpoint: Arc<str>,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The connection ended before anything of the request was sent.
    #[error("connection to {endpoint} ended before the request was sent")]
    NotSent {
        /// Where.
        endpoint: Arc<str>,
        /// What hyper said.
        #[source]
        source: hyper::Error,
    },
    /// The connection ended after the request was sent, wholly or partly, and before the response head.
    #[error("connection to {endpoint} ended before the response head")]
    ClosedEarly {
        /// Where.
        endpoint: Arc<str>,
        /// What hyper said.
        #[source]
        source: hyper::Error,
    },
    /// The endpoint took no byte of the request for too long.
    #[error("{endpoint} took nothing of the request within {limit:?}")]
    WriteStalled {
        /// Where.
        endpoint: Arc<str>,
        /// The limit that was reached.
        limit: Duration,
    },
    /// The content of the request ended in an error: the client's doing, not the origin's.
    #[error("content of the request for {endpoint}")]
    RequestBody {
        /// Where.
        endpoint: Arc<str>,
        /// What hyper said.
        #[source]
        source: hyper::Error,
    },
    /// No response head in time.
    #[error("{endpoint}: no response head within {limit:?}")]
    ResponseTimeout {
        /// Where.
        endpoint: Arc<str>,
        /// The limit that was reached.
        limit: Duration,
    },
    /// The endpoint said that it had not looked at the request when the connection ended or the stream was refused.
    #[error("{endpoint} did not process the request")]
    NotProcessed {
        /// Where.
        endpoint: Arc<str>,
        /// What hyper said.
        #[source]
        source: hyper::Error,
    },
    /// The origin has as many requests as it is given at a time.
    #[error("origin {origin}: {limit} requests are under way")]
    Overloaded {
        /// The name of the origin.
        origin: String,
        /// The limit that was reached.
        limit: usize,
    },
    /// All attempts together took longer than `deadline`.
    #[error("origin {origin}: no response head within {limit:?}")]
    Deadline {
        /// The name of the origin.
        origin: String,
        /// The limit that was reached.
        limit: Duration,
    },
    /// What came is not a response, its head is beyond `HEAD_BYTES_MAX`, or its HTTP/2 stream was reset.
    #[error("response head from {endpoint}")]
    BadResponse {
        /// Where.
        endpoint: Arc<str>,
        /// What hyper said.
        #[source]
        source: hyper::Error,
    },
    /// The response head has more fields than `HEADER_COUNT_MAX`.
    #[error("response head from {endpoint}: more than {max} fields")]
    TooManyFields {
        /// Where.
        endpoint: Arc<str>,
        /// The limit that was reached.
        max: usize,
    },
    /// The origin switched protocols, which nobody asked for.
    #[error("{endpoint} answered 101, which was not asked for")]
    UnexpectedUpgrade {
        /// Where.
        endpoint: Arc<str>,
    },
}

/// The kinds of [`ForwardError`], for counters and `Cache-Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the variant of ForwardError with the same name, or of BodyError")]
pub enum ErrorKind {
    NoEndpoint,
    Dns,
    ConnectRefused,
    ConnectFailed,
    ConnectTimeout,
    Tls,
    QueueFull,
    QueueTimeout,
    Unsendable,
    NotSent,
    ClosedEarly,
    WriteStalled,
    RequestBody,
    ResponseTimeout,
    Deadline,
    Overloaded,
    NotProcessed,
    BadResponse,
    UnexpectedUpgrade,
    BodyCut,
    BodyTimeout,
}

impl ErrorKind {
    /// All kinds, in the order of their counters.
    pub const ALL: [Self; 21] = [
        Self::NoEndpoint,
        Self::Dns,
        Self::ConnectRefused,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::Tls,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::Unsendable,
        Self::NotSent,
        Self::ClosedEarly,
        Self::WriteStalled,
        Self::RequestBody,
        Self::ResponseTimeout,
        Self::Deadline,
        Self::Overloaded,
        Self::NotProcessed,
        Self::BadResponse,
        Self::UnexpectedUpgrade,
        Self::BodyCut,
        Self::BodyTimeout,
    ];

    /// The word for it in metrics, logs and the `detail` of `Cache-Status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoEndpoint => "no-endpoint",
            Self::Dns => "dns",
            Self::ConnectRefused => "connect-refused",
            Self::ConnectFailed => "connect-failed",
            Self::ConnectTimeout => "connect-timeout",
            Self::Tls => "tls",
            Self::QueueFull => "queue-full",
            Self::QueueTimeout => "queue-timeout",
            Self::Unsendable => "unsendable",
            Self::NotSent => "not-sent",
            Self::ClosedEarly => "closed-early",
            Self::WriteStalled => "write-stalled",
            Self::RequestBody => "request-body",
            Self::ResponseTimeout => "response-timeout",
            Self::Deadline => "deadline",
            Self::Overloaded => "overloaded",
            Self::NotProcessed => "not-processed",
            Self::BadResponse => "bad-response",
            Self::UnexpectedUpgrade => "unexpected-upgrade",
            Self::BodyCut => "body-cut",
            Self::BodyTimeout => "body-timeout",
        }
    }
}

impl ForwardError {
    /// Which kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoEndpoint { .. } => ErrorKind::NoEndpoint,
            Self::Dns { .. } => ErrorKind::Dns,
            Self::ConnectRefused { .. } => ErrorKind::ConnectRefused,
            Self::ConnectFailed { .. } => ErrorKind::ConnectFailed,
            Self::ConnectTimeout { .. } => ErrorKind::ConnectTimeout,
            Self::Tls { .. } => ErrorKind::Tls,
            Self::QueueFull { .. } => ErrorKind::QueueFull,
            Self::QueueTimeout { .. } => ErrorKind::QueueTimeout,
            Self::Unsendable { .. } => ErrorKind::Unsendable,
            Self::NotSent { .. } => ErrorKind::NotSent,
            Self::ClosedEarly { .. } => ErrorKind::ClosedEarly,
            Self::WriteStalled { .. } => ErrorKind::WriteStalled,
            Self::RequestBody { .. } => ErrorKind::RequestBody,
            Self::ResponseTimeout { .. } => ErrorKind::ResponseTimeout,
            Self::Deadline { .. } => ErrorKind::Deadline,
            Self::Overloaded { .. } => ErrorKind::Overloaded,
            Self::NotProcessed { .. } => ErrorKind::NotProcessed,
            Self::BadResponse { .. } | Self::TooManyFields { .. } => ErrorKind::BadResponse,
            Self::UnexpectedUpgrade { .. } => ErrorKind::UnexpectedUpgrade,
        }
    }

    /// True only where the origin cannot have acted on the request (RFC 9110 §9.2.2).
    pub fn is_retryable(&self) -> bool {
        match self.kind() {
            ErrorKind::NoEndpoint
            | ErrorKind::Dns
            | ErrorKind::ConnectRefused
            | ErrorKind::ConnectFailed
            | ErrorKind::ConnectTimeout
            | ErrorKind::Tls
            | ErrorKind::QueueFull
            | ErrorKind::QueueTimeout
            | ErrorKind::Overloaded
            | ErrorKind::NotProcessed
            | ErrorKind::NotSent => true,
            ErrorKind::Unsendable
            | ErrorKind::ClosedEarly
            | ErrorKind::WriteStalled
            | ErrorKind::RequestBody
            | ErrorKind::ResponseTimeout
            | ErrorKind::Deadline
            | ErrorKind::BadResponse
            | ErrorKind::UnexpectedUpgrade
            | ErrorKind::BodyCut
            | ErrorKind::BodyTimeout => false,
        }
    }

    /// Whether nothing of the request can have been sent, if it was given back.
    pub(super) fn is_unsent(&self) -> bool {
        self.is_unreachable() || matches!(self, Self::NotSent { .. })
    }

    /// Whether the endpoint could not be reached at all, so that another one is tried. A full queue is not: going on to the
    /// next endpoint then would only move an overload along.
    pub(super) fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Dns { .. }
                | Self::ConnectRefused { .. }
                | Self::ConnectFailed { .. }
                | Self::ConnectTimeout { .. }
                | Self::Tls { .. }
        )
    }

    /// Whether it speaks against the endpoint: neither the request is to blame, nor this node's own limits.
    pub(super) fn is_of_endpoint(&self) -> bool {
        !matches!(
            self.kind(),
            ErrorKind::NoEndpoint
                | ErrorKind::Deadline
                | ErrorKind::Overloaded
                | ErrorKind::QueueFull
                | ErrorKind::QueueTimeout
                | ErrorKind::Unsendable
                | ErrorKind::RequestBody
                // A kept connection has ended, as they do.
                | ErrorKind::NotSent
                | ErrorKind::NotProcessed
        )
    }

    /// Whether an answer was waited for as long as it could be.
    pub(super) fn is_late(&self) -> bool {
        matches!(self.kind(), ErrorKind::ResponseTimeout | ErrorKind::Deadline | ErrorKind::QueueTimeout)
    }

    /// Used when no stale response may stand in. No `_` arm: a new error has to choose its status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::ConnectTimeout { .. }
            | Self::WriteStalled { .. }
            | Self::ResponseTimeout { .. }
            | Self::Deadline { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::NoEndpoint { .. } | Self::QueueFull { .. } | Self::QueueTimeout { .. } | Self::Overloaded { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Unsendable { .. } | Self::RequestBody { .. } => StatusCode::BAD_REQUEST,
            Self::Dns { .. }
            | Self::ConnectRefused { .. }
            | Self::ConnectFailed { .. }
            | Self::Tls { .. }
            | Self::NotSent { .. }
            | Self::NotProcessed { .. }
            | Self::ClosedEarly { .. }
            | Self::BadResponse { .. }
            | Self::TooManyFields { .. }
            | Self::UnexpectedUpgrade { .. } => StatusCode::BAD_GATEWAY,
        }
    }

    /// What `Retry-After` should say, where it should be sent.
    pub fn retry_after(&self) -> Option<Duration> {
        (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER)
    }

    /// The `detail` of `Cache-Status` (RFC 9211 §2.9).
    pub fn as_detail(&self) -> &'static str {
        self.kind().as_str()
    }
}

/// Why the content of a response ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection ended, the stream was reset, or the framing is broken.
    #[error("content from {endpoint} was cut off")]
    Cut {
        /// Where.
        endpoint: Arc<str>,
        /// What hyper said.
        #[source]
        source: hyper::Error,
    },
    /// Nothing came for too long while the reader was waiting.
    #[error("nothing more of the content from {endpoint} within {limit:?}")]
    Timeout {
        /// Where.
        endpoint: Arc<str>,
        /// The limit that was reached.
        limit: Duration,
    },
}

impl BodyError {
    /// Which kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Cut { .. } => ErrorKind::BodyCut,
            Self::Timeout { .. } => ErrorKind::BodyTimeout,
        }
    }
}

/// Why the origins of a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OriginsError {
    /// A `tls_ca` file cannot be read, or holds no certificate.
    #[error("origins.{origin}.tls_ca: {path}: {reason}")]
    CaFile {
        /// The name of the origin.
        origin: String,
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// An `https` endpoint needs trusted roots; the system has none and no `tls_ca` is given.
    #[error("origins.{origin}: the system has no trusted root certificates; name a file with tls_ca ({reason})")]
    NoRoots {
        /// The name of the origin.
        origin: String,
        /// What the search for them said.
        reason: String,
    },
    /// The host of an endpoint, or `tls_server_name`, is no name a certificate can have.
    #[error("origins.{origin}: {name:?} is not a server name TLS can verify")]
    ServerName {
        /// The name of the origin.
        origin: String,
        /// The refused name.
        name: String,
    },
    /// `tls_client` does not hold a usable certificate and key.
    #[error("origins.{origin}.tls_client: {path}: {reason}")]
    ClientCertificate {
        /// The name of the origin.
        origin: String,
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS library refuses the settings.
    #[error("origins.{origin}: TLS settings")]
    Tls {
        /// The name of the origin.
        origin: String,
        /// What rustls said.
        #[source]
        source: rustls::Error,
    },
    /// An endpoint's host and port make no authority.
    #[error("origins.{origin}: {name:?} is not a host and port")]
    Authority {
        /// The name of the origin.
        origin: String,
        /// The refused authority.
        name: String,
    },
}
