//! The listening half: sockets, TLS, HTTP/1.1 and HTTP/2 connections, their limits, and the drain at the end.
//!
//! ```text
//! Listeners::bind ── one ThreadListeners a runtime ──> serve ── accept ── handshake ── connection ──> Handler
//! ```
//!
//! Always true:
//! - Each wait for a client has a deadline: handshake, request head, kept connection, a client that does not read.
//! - At most `connections_max` connections are open over all threads; one more is accepted and closed at once, so that its
//!   client learns at once, and counted in [`ListenCounters::refused`].
//! - A request costs no allocation here for HTTP/1.1 and one, its task, for HTTP/2.
//! - [`serve`] returns when the drain began and every connection of its thread has ended.
//!
//! Not here: what a request may be (`request::accept`), its answer (`request`), `Upgrade` and CONNECT (`request`).
//!
//! Limits that are not configured: [`frame_budget`], [`deferred_flush`], [`interim`], [`connection`].

mod accept;
mod bind;
pub mod certificates;
pub mod connection;
mod counters;
pub mod deferred_flush;
mod drain;
pub mod frame_budget;
mod info;
pub mod interim;
#[cfg(test)]
mod tests;
mod tls;
mod watch;

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::body::ResponseBody;
use crate::config::ListenConfig;

pub use self::accept::{Drained, serve};
pub use self::bind::{BindError, Listeners, ThreadListeners};
pub use self::certificates::{CertificateError, CertificateSummary};
pub use self::counters::ListenCounters;
pub use self::drain::Drain;
pub use self::info::{ConnectionInfo, Protocol, TlsInfo, TlsVersion};
pub use self::interim::{Interim, InterimDropped};
pub use self::tls::{Tls, TlsError};

/// What answers requests. The future is dropped when its client goes away.
pub trait Handler: Send + Sync + 'static {
    /// Answers `request`, which came over `connection`.
    fn handle(
        &self,
        request: Request<Incoming>,
        connection: Arc<ConnectionInfo>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send;
}

/// What all threads share.
#[derive(Debug)]
pub struct ListenContext {
    /// The limits.
    pub config: ListenConfig,
    /// Needed where [`ListenConfig::https`] is not empty.
    pub tls: Option<Arc<Tls>>,
    /// What happened, for telemetry.
    pub counters: Arc<ListenCounters>,
    /// Ends serving.
    pub drain: Drain,
}
