//! The record of a request, written when the last byte of its response is on its way: access log and metrics.
//!
//! Always true:
//! - Each request is recorded exactly once, also when its client leaves in the middle.
//! - A response whose content is in memory is recorded at once, without a wrapper around it.
//!
//! Not here: what the names are (`telemetry`).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use brim_store::BodyReader;
use bytes::Bytes;
use http::header::AGE;
use http::uri::PathAndQuery;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::Cache;
use super::accept::Inbound;
use super::exchange::Exchange;
use crate::body::{BoxError, ResponseBody};
use crate::origin::Endpoint;
use crate::telemetry::{AccessRecord, StageTimes, Telemetry};

/// How the sending of a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// All of it was handed to the connection.
    Complete,
    /// The client left, or the content broke off.
    Aborted,
}

/// Sees to it that `response` is recorded.
pub(super) fn attach(
    cache: &Cache,
    inbound: Inbound,
    exchange: Exchange,
    response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    let (parts, content) = response.into_parts();
    // What only the stages needed is not kept for as long as a long content takes.
    let inbound = Inbound { headers: HeaderMap::new(), on_upgrade: None, query_content: None, ..inbound };
    let announced = content.size_hint().exact();
    let account = Account {
        telemetry: cache.telemetry.clone(),
        inbound,
        exchange,
        status: parts.status,
        age_s: parts.headers.get(AGE).and_then(|age| age.to_str().ok()?.parse().ok()),
        bytes_count: 0,
        ending: Ending::Aborted,
    };
    let content = match content {
        // There is nothing to send, so nobody will ask for it.
        ResponseBody::Stream(_) | ResponseBody::Sized(..) if announced == Some(0) => {
            account.close(0);
            content
        }
        ResponseBody::Stream(content) => {
            ResponseBody::Stream(Box::pin(Accounted { content, announced, account: Box::new(account) }))
        }
        ResponseBody::Sized(content, length) => {
            ResponseBody::Sized(Box::pin(Accounted { content, announced, account: Box::new(account) }), length)
        }
        in_memory => {
            account.close(in_memory.size_hint().exact().unwrap_or(0));
            in_memory
        }
    };
    Response::from_parts(parts, content)
}

/// What is recorded, as soon as it is dropped.
struct Account {
    telemetry: Arc<Telemetry>,
    inbound: Inbound,
    exchange: Exchange,
    status: StatusCode,
    age_s: Option<u64>,
    bytes_count: u64,
    ending: Ending,
}

impl Account {
    fn close(mut self, bytes_count: u64) {
        self.bytes_count = bytes_count;
        self.ending = Ending::Complete;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let (inbound, exchange) = (&self.inbound, &self.exchange);
        let route = exchange.route.as_deref();
        let is_forwarded = exchange.forward_status.is_some();
        let endpoint = exchange.endpoint.as_deref().map(Endpoint::name);
        let record = AccessRecord {
            time: exchange.time,
            client: inbound.client,
            method: inbound.method.as_str(),
            scheme: inbound.scheme,
            authority: &inbound.authority,
            path_and_query: inbound.uri.path_and_query().map_or("", PathAndQuery::as_str),
            protocol: inbound.version,
            status: self.status.as_u16(),
            outcome: exchange.outcome,
            detail: exchange.detail.as_deref(),
            forward_status: exchange.forward_status,
            key: exchange.key,
            ttl_s: exchange.ttl_s,
            age_s: self.age_s,
            is_collapsed: exchange.is_collapsed,
            is_stored: exchange.is_stored,
            is_aborted: self.ending == Ending::Aborted,
            received_bytes: inbound.received_bytes(),
            sent_bytes: self.bytes_count,
            times: StageTimes { total: exchange.started.elapsed(), ..exchange.times },
            site: route.map(|route| &*route.site),
            origin: route.filter(|_| is_forwarded).map(|route| route.config.origin.as_str()),
            endpoint: endpoint.as_deref(),
            plugin: exchange.plugin.as_deref().map(|active| active.name.as_str()),
            plugin_fault: exchange.plugin_fault,
        };
        self.telemetry.request(route.map(|route| &*route.metrics), &record);
    }
}

/// A streamed content that is counted.
struct Accounted<B> {
    content: B,
    /// Whoever sends content of a known length stops asking once it has it all.
    announced: Option<u64>,
    account: Box<Account>,
}

impl<B> Body for Accounted<B>
where
    B: Body<Data = Bytes, Error = BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.content).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.account.bytes_count += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.content.is_end_stream() || self.announced == Some(self.account.bytes_count) {
                    self.account.ending = Ending::Complete;
                }
            }
            Poll::Ready(None) => self.account.ending = Ending::Complete,
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(error = %super::respond::chain(&**error), path = self.account.inbound.path(), "response cut short");
            }
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

/// A stored content as a body, with the trailers that were stored with it.
pub(super) struct ReaderBody {
    reader: Option<BodyReader>,
}

impl ReaderBody {
    /// Reads what is left of `reader`.
    pub(super) fn new(reader: BodyReader) -> Self {
        Self { reader: Some(reader) }
    }
}

impl Body for ReaderBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(reader) = &mut self.reader else { return Poll::Ready(None) };
        match reader.poll_next(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(data))) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Poll::Ready(Some(Err(error))) => {
                self.reader = None;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                let trailers = reader.trailers();
                self.reader = None;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.reader.as_ref().and_then(BodyReader::size_hint).map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
