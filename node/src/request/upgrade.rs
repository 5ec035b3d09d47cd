//! Upgrade: a request that becomes another protocol, WebSocket most often (RFC 9110 §7.8).
//!
//! Always true:
//! - Only where `listen.upgrade = "forward"` says so: what flows through a tunnel escapes every rule of the cache.
//! - The client gets 101 only after the origin has agreed; any other answer of the origin is passed on as it is.
//! - A tunnel on which nothing moves in either direction for `listen.idle_timeout` is closed.
//! - A tunnel counts as a connection of its client and of its endpoint until it ends; a shutdown cuts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

use super::accept::Inbound;
use super::error::RequestError;
use super::exchange::Exchange;
use super::forward::{self, Purpose};
use super::respond::{self, Answer};
use super::{Cache, key};
use crate::body::ResponseBody;
use crate::origin::ForwardBody;
use crate::route::Route;

/// What one direction of a tunnel holds in memory.
const TUNNEL_BUFFER_BYTES: usize = 16 * 1024;

/// Forwards the request and, if the origin agrees, joins the two connections.
pub(super) async fn forward(
    cache: &Cache,
    route: &Arc<Route>,
    inbound: &mut Inbound,
    exchange: &mut Exchange,
) -> Result<Answer, RequestError> {
    exchange.forwarded(brim_semantics::ForwardReason::Bypass);
    exchange.explain(key::Bypass::Upgrade.as_detail());
    let request = forward::request(inbound, Purpose::Upgrade, &[], ForwardBody::empty())?;
    let began = Instant::now();
    let forwarded = route.origin.send(request).await.map_err(|error| {
        tracing::warn!(origin = %route.config.origin, error = %respond::chain(&error), "upgrade not forwarded");
        Arc::new(error)
    })?;
    exchange.times.forward = began.elapsed();
    exchange.forward_status = Some(forwarded.response.status());
    exchange.endpoint = Some(forwarded.endpoint);
    let mut response = forwarded.response;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Answer::Passed(response));
    }
    let (Some(client), Some(origin)) = (inbound.on_upgrade.take(), response.extensions_mut().remove::<OnUpgrade>())
    else {
        return Err(RequestError::UpgradeRefused);
    };
    let (mut parts, content) = response.into_parts();
    let idle_max = cache.snapshot.load().config.listen.idle_timeout;
    // Not a tracked task: a tunnel has no end of its own that a shutdown could wait for.
    tokio::spawn(async move {
        let (Ok(client), Ok(origin)) = tokio::join!(client, origin) else { return };
        drop(content);
        join(client, origin, idle_max).await;
    });
    let protocol = parts.headers.get(UPGRADE).cloned();
    brim_semantics::strip_hop_by_hop(&mut parts.headers);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        parts.headers.insert(UPGRADE, protocol);
    }
    Ok(Answer::Switched(Response::from_parts(parts, ResponseBody::Empty)))
}

async fn join(client: Upgraded, origin: Upgraded, idle_max: Duration) {
    let (from_client, to_client) = split(TokioIo::new(client));
    let (from_origin, to_origin) = split(TokioIo::new(origin));
    let moved = Moved::new();
    tokio::join!(pump(from_client, to_origin, &moved, idle_max), pump(from_origin, to_client, &moved, idle_max));
}

/// When anything last moved, in either direction.
struct Moved {
    began: Instant,
    last_ms: AtomicU64,
}

impl Moved {
    fn new() -> Self {
        Self { began: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    fn note(&self) {
        let elapsed_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed_ms, Ordering::Relaxed);
    }

    /// What is left until nothing has moved for `idle_max`.
    fn left(&self, idle_max: Duration) -> Duration {
        let due = Duration::from_millis(self.last_ms.load(Ordering::Relaxed)) + idle_max;
        due.saturating_sub(self.began.elapsed())
    }
}

/// One direction, until its end, an error or the idle limit.
async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, moved: &Moved, idle_max: Duration) {
    let mut buffer = vec![0; TUNNEL_BUFFER_BYTES];
    loop {
        let left = moved.left(idle_max);
        if left.is_zero() {
            break;
        }
        match tokio::time::timeout(left, from.read(&mut buffer)).await {
            Ok(Ok(count @ 1..)) => {
                if !matches!(tokio::time::timeout(idle_max, to.write_all(&buffer[..count])).await, Ok(Ok(()))) {
                    break;
                }
                moved.note();
            }
            Ok(Ok(0) | Err(_)) => break,
            // The other direction may have moved meanwhile.
            Err(_) => {}
        }
    }
    // Tells the other side that nothing more comes; it may have gone already.
    let _ = tokio::time::timeout(idle_max, to.shutdown()).await;
}
