//! Respond: from what a stage found to what the client gets. The one place where errors become responses.
//!
//! Always true:
//! - Every response of an origin or of the store carries `Age` and `Cache-Status`.
//! - A stored response is sent as it is stored: its fields are prepared once, when it is stored ([`prepare`]).
//! - A client's conditions and ranges are answered here, from the whole response (RFC 9110 §13, §14).
//! - Details of an error go to the log, a status and a sentence to the client.
//!
//! Not here: which response it is (`request`), the record that is kept of it (`record`).

use std::sync::Arc;
use std::time::SystemTime;

use brim_semantics::{CacheStatus, Precondition, RangeDecision};
use brim_store::{BodyReader, Following, ResponseHead, StoredResponse};
use http::header::{AGE, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, MAX_FORWARDS, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};

use super::Cache;
use super::accept::Inbound;
use super::error::RequestError;
use super::exchange::Exchange;
use super::fill::Withheld;
use super::record;
use crate::body::ResponseBody;
use crate::origin::OriginBody;
use crate::telemetry::Outcome;

/// The fields that carry surrogate keys (RFC 9875 for the second).
const SURROGATE_FIELDS: [HeaderName; 2] =
    [HeaderName::from_static("surrogate-key"), HeaderName::from_static("cache-groups")];

/// Where a response comes from.
pub enum Answer {
    /// The store.
    Stored(Arc<StoredResponse>),
    /// A fill that is under way; the fields are for the client that caused it.
    Following(Arc<Following>, Box<BodyReader>, Box<Withheld>),
    /// The origin, for this client alone.
    Passed(Response<OriginBody>),
    /// The origin, for this client alone, to a request whose conditions were left out because the response might have been
    /// stored: they are answered here.
    Unconditional(Response<OriginBody>),
    /// This node itself.
    Own(Response<ResponseBody>),
    /// The origin agreed to another protocol; the connections are being joined.
    Switched(Response<ResponseBody>),
}

/// Content of a whole response, before a range is cut from it.
enum Content {
    Stored(Arc<StoredResponse>),
    Growing(Box<BodyReader>),
}

/// Makes the fields of a response ready to be sent any number of times.
pub(super) fn prepare(headers: &mut HeaderMap, version: Version, received: SystemTime) {
    brim_semantics::append_via(headers, version);
    if !headers.contains_key(DATE) {
        // RFC 9110 §6.6.1: a recipient with a clock adds what is missing, as of when it was received.
        headers.insert(DATE, brim_semantics::http_date_value(received));
    }
}

/// The response for the client.
pub(super) fn to_client(cache: &Cache, inbound: Inbound, answer: Answer, exchange: Exchange) -> Response<ResponseBody> {
    // A hit has waited for nothing since its look-up.
    let now = if exchange.outcome == Outcome::Hit { exchange.time } else { cache.clock.now() };
    let mut response = match answer {
        Answer::Stored(stored) => from_stored(&inbound, stored, now),
        Answer::Following(following, content, withheld) => {
            let mut response = from_head(&inbound, following.head(), Content::Growing(content), now);
            response.headers_mut().extend(*withheld);
            response
        }
        Answer::Passed(response) => passed(&inbound, response),
        Answer::Unconditional(response) => unconditional(&inbound, passed(&inbound, response)),
        Answer::Own(response) | Answer::Switched(response) => response,
    };
    let headers = response.headers_mut();
    if !exchange.route.as_ref().is_some_and(|route| route.config.surrogate_keys_to_client) {
        for name in &SURROGATE_FIELDS {
            headers.remove(name);
        }
    }
    cache_status(&exchange).append_to(headers);
    record::attach(cache, inbound, exchange, response)
}

/// The response to a request that none of the stages could answer.
pub(super) fn refuse(
    cache: &Cache,
    inbound: Inbound,
    error: &RequestError,
    mut exchange: Exchange,
) -> Response<ResponseBody> {
    let status = error.status();
    exchange.explain(error.as_detail());
    let mut response = problem(status, &error.public_message());
    if let RequestError::Forward(error) = error
        && let Some(after) = error.retry_after()
    {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    cache_status(&exchange).append_to(response.headers_mut());
    if inbound.method == Method::HEAD {
        *response.body_mut() = ResponseBody::Empty;
    }
    record::attach(cache, inbound, exchange, response)
}

/// An RFC 9457 problem document.
pub fn problem(status: StatusCode, detail: &str) -> Response<ResponseBody> {
    let title = status.canonical_reason().unwrap_or("Error");
    let document =
        serde_json::json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    let mut response = Response::new(ResponseBody::from(document.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

/// An error with its sources, for the log.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

pub(super) fn cache_status(exchange: &Exchange) -> CacheStatus<'_> {
    let mut status = match exchange.outcome {
        Outcome::Hit => CacheStatus::hit(),
        Outcome::Forward(reason) => CacheStatus::forward(reason),
        Outcome::Refused => CacheStatus::refused(),
    };
    if let Some(forward_status) = exchange.forward_status {
        status = status.fwd_status(forward_status);
    }
    if let Some(ttl_s) = exchange.ttl_s {
        status = status.ttl(ttl_s);
    }
    if exchange.is_stored {
        status = status.stored();
    }
    if exchange.is_collapsed {
        status = status.collapsed();
    }
    match &exchange.detail {
        Some(detail) => status.detail(&**detail),
        None => status,
    }
}

/// OPTIONS and TRACE that are for this node (RFC 9110 §7.6.2, §9.3.7): `OPTIONS *`, and what may go no further.
pub(super) fn answered_here(inbound: &Inbound) -> Option<Response<ResponseBody>> {
    let is_last = inbound.headers.get(MAX_FORWARDS).is_some_and(|left| left.as_bytes() == b"0");
    if inbound.method == Method::OPTIONS && (is_last || inbound.path() == "*") {
        let mut response = Response::new(ResponseBody::Empty);
        *response.status_mut() = StatusCode::NO_CONTENT;
        let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        response.headers_mut().insert(ALLOW, methods);
        return Some(response);
    }
    if inbound.method == Method::TRACE && is_last {
        return Some(problem(StatusCode::METHOD_NOT_ALLOWED, "this node does not answer TRACE"));
    }
    None
}

pub(super) fn from_stored(inbound: &Inbound, stored: Arc<StoredResponse>, now: SystemTime) -> Response<ResponseBody> {
    let content = stored.clone();
    from_head(inbound, &stored.head, Content::Stored(content), now)
}

/// From a response that is in the store, or on its way there.
fn from_head(inbound: &Inbound, head: &ResponseHead, content: Content, now: SystemTime) -> Response<ResponseBody> {
    let precondition = brim_semantics::evaluate(&inbound.method, &inbound.headers, head.status, &head.headers);
    let mut response = match precondition {
        Precondition::NotModified => not_modified(brim_semantics::not_modified_headers(&head.headers)),
        Precondition::Failed => problem(StatusCode::PRECONDITION_FAILED, "a precondition of the request does not hold"),
        Precondition::Proceed => whole_or_range(inbound, head, content),
    };
    response.headers_mut().insert(AGE, head.meta.age_value(now));
    response
}

fn not_modified(headers: HeaderMap) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    *response.headers_mut() = headers;
    response
}

fn whole_or_range(inbound: &Inbound, head: &ResponseHead, content: Content) -> Response<ResponseBody> {
    let Some(length) = content.length(head) else { return whole(inbound, head, content, None) };
    match brim_semantics::ranges(&inbound.method, &inbound.headers, head.status, &head.headers, length) {
        // Several ranges are answered with the whole, as RFC 9110 §14.2 allows.
        RangeDecision::Whole | RangeDecision::Many(_) => whole(inbound, head, content, Some(length)),
        RangeDecision::Unsatisfiable => {
            let mut response = problem(StatusCode::RANGE_NOT_SATISFIABLE, "the range lies beyond the content");
            response.headers_mut().insert(CONTENT_RANGE, brim_semantics::unsatisfied_content_range(length));
            response
        }
        RangeDecision::One(range) => match content {
            // A growing content is sent whole rather than waited for.
            Content::Growing(_) => whole(inbound, head, content, Some(length)),
            Content::Stored(stored) => {
                let mut response = Response::new(ResponseBody::Empty);
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                *response.headers_mut() = head.headers.clone();
                response.headers_mut().insert(CONTENT_RANGE, brim_semantics::content_range(&range, length));
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
                *response.body_mut() = part(&stored, range);
                response
            }
        },
    }
}

fn part(stored: &StoredResponse, range: std::ops::Range<u64>) -> ResponseBody {
    let in_memory = stored.body().and_then(|content| {
        let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
        (end <= content.len()).then(|| content.slice(start..end))
    });
    match in_memory {
        Some(content) => ResponseBody::full(content),
        None => ResponseBody::sized(record::ReaderBody::new(stored.read_range(range.clone())), range.end - range.start),
    }
}

fn whole(inbound: &Inbound, head: &ResponseHead, content: Content, length: Option<u64>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers.clone();
    if inbound.method == Method::HEAD {
        if let Some(length) = length {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        return response;
    }
    *response.body_mut() = match content {
        Content::Growing(reader) => ResponseBody::stream(record::ReaderBody::new(*reader)),
        Content::Stored(stored) => match stored.body() {
            Some(content) => match stored.trailers() {
                None => ResponseBody::full(content),
                Some(trailers) if inbound.version < Version::HTTP_2 => {
                    response.headers_mut().remove(CONTENT_LENGTH);
                    ResponseBody::chunked(content, trailers.clone())
                }
                Some(trailers) => ResponseBody::with_trailers(content, Some(trailers.clone())),
            },
            None if stored.trailers().is_some() && inbound.version < Version::HTTP_2 => {
                response.headers_mut().remove(CONTENT_LENGTH);
                ResponseBody::unannounced(record::ReaderBody::new(stored.read()))
            }
            None => ResponseBody::stream(record::ReaderBody::new(stored.read())),
        },
    };
    response
}

/// The origin's response, for one client.
fn passed(inbound: &Inbound, response: Response<OriginBody>) -> Response<ResponseBody> {
    let version = response.version();
    let (mut parts, content) = response.into_parts();
    brim_semantics::strip_hop_by_hop(&mut parts.headers);
    brim_semantics::append_via(&mut parts.headers, version);
    if !parts.headers.contains_key(AGE) {
        parts.headers.insert(AGE, HeaderValue::from_static("0"));
    }
    let content = if inbound.method == Method::HEAD { ResponseBody::Empty } else { ResponseBody::stream(content) };
    Response::from_parts(parts, content)
}

/// Answers the client's condition, which the origin has not seen.
fn unconditional(inbound: &Inbound, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let (status, headers) = (response.status(), response.headers());
    let precondition = brim_semantics::evaluate(&inbound.method, &inbound.headers, status, headers);
    if status != StatusCode::OK || precondition != Precondition::NotModified {
        return response;
    }
    let mut headers = brim_semantics::not_modified_headers(headers);
    if let Some(age) = response.headers_mut().remove(AGE) {
        headers.insert(AGE, age);
    }
    not_modified(headers)
}

impl Content {
    /// The length of the whole, as far as it is known.
    fn length(&self, head: &ResponseHead) -> Option<u64> {
        match self {
            Self::Stored(stored) => stored.content_length(),
            Self::Growing(_) => head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok(),
        }
    }
}
