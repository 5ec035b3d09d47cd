//! The content of a request on its way to the origin: counted, and given up when its client stops sending.
//!
//! Always true:
//! - Nothing is collected but the content of a QUERY, up to `listen.query_content_max`, and what an invalidation rule reads of a
//!   write, up to `tag_content_max`: what the origin does not take is not read from the client.
//! - A client that sends nothing for `listen.body_idle_timeout` while the origin waits ends the request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::Cache;
use super::accept::Inbound;
use super::error::{BadRequest, RequestError};
use crate::body::BoxError;
use crate::config::CacheMode;
use crate::origin::ForwardBody;
use crate::route::Route;

/// The content of `inbound` as the origin gets it. That of a QUERY which may be answered from the store is read first, for its
/// key (RFC 10008); a longer one streams like any other, and goes past the cache. That of a write is read first where the route's
/// invalidation rule reads it; of a longer one the rule sees nothing.
pub(super) async fn read(
    cache: &Cache,
    route: &Route,
    inbound: &mut Inbound,
    content: Incoming,
) -> Result<ForwardBody, RequestError> {
    let is_query = inbound.is_query() && route.config.cache != CacheMode::Off;
    if inbound.content_count.is_none() && !is_query {
        inbound.write_content = Some(Bytes::new());
        return Ok(ForwardBody::empty());
    }
    let is_read_by_rule = !brim_semantics::is_safe(&inbound.method) && reads_writes(cache, route);
    let listen = &cache.snapshot.load().config.listen;
    let mut content = forwarded(inbound, content, listen.body_idle_timeout);
    if !is_query && !is_read_by_rule {
        return Ok(content);
    }
    let bytes_max = if is_query { listen.query_content_max } else { route.config.tagging.content_max };
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    if let Some(expectation) = &inbound.expectation {
        expectation.meet();
    }
    let mut start = BytesMut::new();
    while let Some(frame) = content.frame().await {
        let Ok(data) = frame.map_err(|_| BadRequest::Content)?.into_data() else { continue };
        start.extend_from_slice(&data);
        if start.len() > bytes_max {
            return Ok(ForwardBody::streamed(Resumed { start: Some(start.freeze()), rest: content }));
        }
    }
    let content = start.freeze();
    if is_query {
        inbound.query_content = Some(content.clone());
    } else {
        inbound.write_content = Some(content.clone());
    }
    // It may go past the cache all the same, for another reason: not without what it announces.
    Ok(ForwardBody::full(content))
}

/// Whether the route's invalidation rule reads contents of requests.
fn reads_writes(cache: &Cache, route: &Route) -> bool {
    let Some(active) = route.config.tagging.plugin.as_deref().and_then(|name| cache.plugins.active(name)) else {
        return false;
    };
    active.plugin.invalidation_inputs().is_some_and(|inputs| !inputs.request_values.is_empty())
}

/// A content of which the beginning has been read.
struct Resumed {
    start: Option<Bytes>,
    rest: ForwardBody,
}

impl Body for Resumed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.start.take() {
            Some(start) => Poll::Ready(Some(Ok(Frame::data(start)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.start.is_none() && self.rest.is_end_stream()
    }
}

fn forwarded(inbound: &Inbound, content: Incoming, idle_max: Duration) -> ForwardBody {
    let Some(count) = &inbound.content_count else { return ForwardBody::empty() };
    let body = ForwardBody::streamed(InboundContent { content, count: count.clone(), idle: None, idle_max });
    match &inbound.expectation {
        Some(expectation) => body.held_by(expectation),
        None => body,
    }
}

/// The client has sent nothing for too long.
#[derive(Debug, thiserror::Error)]
#[error("the client sent nothing of the request's content for {0:?}")]
struct ClientIdle(Duration);

struct InboundContent {
    content: Incoming,
    count: Arc<AtomicU64>,
    /// Made at the first wait: most content is there at once.
    idle: Option<Pin<Box<Sleep>>>,
    idle_max: Duration,
}

impl Body for InboundContent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.content).poll_frame(cx) {
            Poll::Ready(frame) => {
                if let Some(Ok(frame)) = &frame {
                    let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                    this.count.fetch_add(length, Ordering::Relaxed);
                }
                if let Some(idle) = &mut this.idle {
                    idle.as_mut().reset(Instant::now() + this.idle_max);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                let idle_max = this.idle_max;
                let idle = this.idle.get_or_insert_with(|| Box::pin(sleep(idle_max)));
                match idle.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Some(Err(ClientIdle(idle_max).into()))),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}
