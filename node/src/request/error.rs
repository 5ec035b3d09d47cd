//! What can go wrong with a request, and what its client gets. The one list from which error responses are made.

use std::sync::Arc;

use http::StatusCode;

use crate::origin::ForwardError;

/// Why a request gets no response of an origin or of the store.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The request is malformed.
    #[error(transparent)]
    Bad(#[from] BadRequest),
    /// CONNECT: Brim is no tunnel.
    #[error("CONNECT is not served here")]
    ConnectRefused,
    /// `Upgrade` without `listen.upgrade = "forward"`.
    #[error("switching protocols (WebSocket and the like) is not enabled on this node")]
    UpgradeRefused,
    /// The request has come round again and again (RFC 5842 §7.2).
    #[error("the request runs in a circle: its Via names this kind of node too often")]
    Loop,
    /// No `[[sites]]` matches the authority.
    #[error("this node serves no site of that name")]
    NoSite,
    /// The site has no route for the path.
    #[error("the site has no route for this path")]
    NoRoute,
    /// `only-if-cached`, and nothing usable is stored (RFC 9111 §5.2.1.7).
    #[error("only-if-cached was asked for, and no usable response is stored")]
    OnlyIfCached,
    /// The origin gave no usable response.
    #[error(transparent)]
    Forward(#[from] Arc<ForwardError>),
    /// A waiter's or filler's counterpart vanished: a mistake of ours.
    #[error("internal error")]
    Internal,
}

/// What is malformed about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// RFC 9112 §3.2.
    #[error("the Host field is missing")]
    NoHost,
    /// RFC 9112 §3.2.
    #[error("there is more than one Host field")]
    SeveralHosts,
    /// RFC 9110 §7.2.
    #[error("the Host field names no valid authority")]
    Host,
    /// RFC 9112 §3.2.
    #[error("the request target is not a path")]
    Target,
    /// It broke off, or nothing came for `listen.body_idle_timeout`.
    #[error("the request's content did not arrive whole")]
    Content,
    /// Who would read the content, the old protocol or the new one?
    #[error("a request that changes protocol has no content")]
    UpgradeWithContent,
}

impl RequestError {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::ConnectRefused | Self::UpgradeRefused => StatusCode::NOT_IMPLEMENTED,
            Self::Loop => StatusCode::LOOP_DETECTED,
            // RFC 9110 §15.5.20: the client reached a server that is none for this authority.
            Self::NoSite => StatusCode::MISDIRECTED_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::OnlyIfCached => StatusCode::GATEWAY_TIMEOUT,
            Self::Forward(error) => error.status(),
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What Cache-Status and the access log call it.
    pub fn as_detail(&self) -> &'static str {
        match self {
            Self::Bad(_) => "bad-request",
            Self::ConnectRefused => "connect-method",
            Self::UpgradeRefused => "upgrade-refused",
            Self::Loop => "loop",
            Self::NoSite => "no-site",
            Self::NoRoute => "no-route",
            Self::OnlyIfCached => "only-if-cached",
            Self::Forward(error) => error.as_detail(),
            Self::Internal => "internal-error",
        }
    }

    /// What the client reads: never an address or a name of the inside.
    pub fn public_message(&self) -> String {
        match self {
            Self::Forward(error) => match error.status() {
                StatusCode::SERVICE_UNAVAILABLE => "the origin takes no more requests at the moment".into(),
                StatusCode::GATEWAY_TIMEOUT => "the origin did not answer in time".into(),
                _ => "the origin gave no usable response".into(),
            },
            other => other.to_string(),
        }
    }
}
