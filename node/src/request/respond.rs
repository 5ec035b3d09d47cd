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

use brim_semantics::{CacheStatus, KeyField, Precondition, RangeDecision};
use brim_store::{ResponseHead, StoredResponse};
use http::header::{
    AGE, ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, MAX_FORWARDS, RETRY_AFTER,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};

use super::Cache;
use super::accept::Inbound;
use super::entry::Withheld;
use super::error::RequestError;
use super::exchange::Exchange;
use super::partial::{self, Parts};
use super::ranges::{self, Growing, Source};
use super::record;
use crate::body::ResponseBody;
use crate::config::RouteConfig;
use crate::origin::OriginBody;
use crate::telemetry::Outcome;

/// Takes out the fields that carry surrogate keys (RFC 9875 for the last), unless the route sends them on.
pub(super) fn strip_surrogate_fields(headers: &mut HeaderMap, route: Option<&RouteConfig>) {
    if route.is_some_and(|route| route.surrogate_keys_to_client) {
        return;
    }
    let fields = route.map_or(KeyField::defaults(), |route| &route.tagging.fields);
    fields.iter().for_each(|field| drop(headers.remove(&field.name)));
    headers.remove(&CACHE_GROUPS);
}

static CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");

/// Where a response comes from.
pub enum Answer {
    /// The store.
    Stored(Arc<StoredResponse>),
    /// A fill that is under way.
    Following(Box<Growing>),
    /// Stored parts, and the one that is being fetched.
    Assembled(Box<Parts>, Option<Box<Growing>>),
    /// One of the others, with fields for this client only.
    With(Box<Self>, Box<Withheld>),
    /// The origin, for this client alone.
    Passed(Response<OriginBody>),
    /// The origin, for this client alone, to a request whose conditions were left out because the response might have been
    /// stored: they are answered here.
    Unconditional(Response<OriginBody>),
    /// The origin, for this client, while the content is stored for others.
    Kept(Response<ResponseBody>),
    /// This node itself.
    Own(Response<ResponseBody>),
    /// The origin agreed to another protocol; the connections are being joined.
    Switched(Response<ResponseBody>),
}

impl Answer {
    /// With fields that are for this client only.
    pub(super) fn with(self, withheld: Withheld) -> Self {
        if withheld.is_empty() { self } else { Self::With(Box::new(self), Box::new(withheld)) }
    }
}

/// Content of a whole response, before a range is cut from it.
enum Content {
    Stored(Arc<StoredResponse>),
    Growing(Box<Growing>),
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
    let mut response = answered(&inbound, answer, now);
    let headers = response.headers_mut();
    strip_surrogate_fields(headers, exchange.route.as_ref().map(|route| &route.config));
    cache_status(&exchange).append_to(headers);
    leave(cache, inbound, exchange, response)
}

/// The answer as the client gets it, but for what says how it came about.
pub(super) fn answered(inbound: &Inbound, answer: Answer, now: SystemTime) -> Response<ResponseBody> {
    match answer {
        Answer::Stored(stored) => from_stored(inbound, stored, now),
        Answer::Following(growing) => {
            let following = growing.following.clone();
            from_head(inbound, following.head(), Content::Growing(growing), now)
        }
        Answer::Assembled(parts, growing) => assembled(inbound, parts, growing, now),
        Answer::With(answer, withheld) => {
            let mut response = answered(inbound, *answer, now);
            response.headers_mut().extend(*withheld);
            response
        }
        Answer::Passed(response) => passed(inbound, response.map(ResponseBody::stream)),
        Answer::Kept(response) => passed(inbound, response),
        Answer::Unconditional(response) => {
            unconditional(inbound, passed(inbound, response.map(ResponseBody::stream)), now)
        }
        Answer::Own(response) | Answer::Switched(response) => response,
    }
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
    leave(cache, inbound, exchange, response)
}

/// The last that is done to any response.
fn leave(
    cache: &Cache,
    inbound: Inbound,
    exchange: Exchange,
    mut response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    if inbound.expectation.as_ref().is_some_and(|expectation| !expectation.is_met()) {
        // RFC 9110 §10.1.1: the content was not asked for, so whether it comes all the same nobody knows.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
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
        let methods = HeaderValue::from_static("GET, HEAD, QUERY, POST, PUT, PATCH, DELETE, OPTIONS");
        response.headers_mut().insert(ALLOW, methods);
        return Some(response);
    }
    if inbound.method == Method::TRACE && is_last {
        return Some(problem(StatusCode::METHOD_NOT_ALLOWED, "this node does not answer TRACE"));
    }
    None
}

fn from_stored(inbound: &Inbound, stored: Arc<StoredResponse>, now: SystemTime) -> Response<ResponseBody> {
    let content = stored.clone();
    from_head(inbound, &stored.head, Content::Stored(content), now)
}

/// From a response that is in the store, or on its way there.
fn from_head(inbound: &Inbound, head: &ResponseHead, content: Content, now: SystemTime) -> Response<ResponseBody> {
    let status = if head.part.is_some() { StatusCode::OK } else { head.status };
    conditional(inbound, head, status, now, || whole_or_range(inbound, head, content))
}

/// What the client's preconditions make of a response with this head (RFC 9110 §13.2).
fn conditional(
    inbound: &Inbound,
    head: &ResponseHead,
    status: StatusCode,
    now: SystemTime,
    proceed: impl FnOnce() -> Response<ResponseBody>,
) -> Response<ResponseBody> {
    let received = head.meta.response_time;
    let evaluated = brim_semantics::evaluate(&inbound.method, &inbound.headers, status, &head.headers, received);
    let mut response = match evaluated {
        Precondition::NotModified => not_modified(brim_semantics::not_modified_headers(&head.headers)),
        Precondition::Failed => problem(StatusCode::PRECONDITION_FAILED, "a precondition of the request does not hold"),
        Precondition::Proceed => proceed(),
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

/// From stored parts; the newest head counts for all of them (RFC 9111 §3.4).
fn assembled(
    inbound: &Inbound,
    parts: Box<Parts>,
    growing: Option<Box<Growing>>,
    now: SystemTime,
) -> Response<ResponseBody> {
    let (newest, arriving) = (parts.newest().clone(), growing.as_ref().map(|growing| growing.following.clone()));
    let head = arriving.as_ref().map_or(&newest.head, |following| following.head());
    conditional(inbound, head, StatusCode::OK, now, || {
        let length = parts.complete_length();
        let wanted = match &parts.wanted {
            // What arrives is read once and in order, wherever the ranges lie in it: they get the whole (RFC 9110 §14.2).
            RangeDecision::Many(_) if growing.is_some() => RangeDecision::Whole,
            wanted => wanted.clone(),
        };
        if wanted == RangeDecision::Unsatisfiable {
            return unsatisfiable(length);
        }
        let headers = partial::without_part(&head.headers);
        ranges::respond(headers, Source::Parts(parts, growing), &wanted, length).unwrap_or_else(|| {
            problem(StatusCode::BAD_GATEWAY, "the parts of the content do not fit together any more")
        })
    })
}

fn whole_or_range(inbound: &Inbound, head: &ResponseHead, content: Content) -> Response<ResponseBody> {
    match content {
        Content::Growing(growing) => growing_content(inbound, head, *growing),
        Content::Stored(stored) => {
            let Some(length) = stored.content_length() else {
                return whole(inbound, head, Content::Stored(stored), None);
            };
            match brim_semantics::ranges(&inbound.method, &inbound.headers, head.status, &head.headers, length) {
                RangeDecision::Whole => whole(inbound, head, Content::Stored(stored), Some(length)),
                RangeDecision::Unsatisfiable => unsatisfiable(length),
                ranges => ranges::respond(head.headers.clone(), Source::Stored(stored.clone()), &ranges, length)
                    .unwrap_or_else(|| whole(inbound, head, Content::Stored(stored), Some(length))),
            }
        }
    }
}

/// Of a content that is still arriving: what [`Growing::join`] has chosen.
fn growing_content(inbound: &Inbound, head: &ResponseHead, growing: Growing) -> Response<ResponseBody> {
    let length = growing.representation_length();
    let (Some(range), Some(length)) = (growing.range().cloned(), length) else {
        let decision = length.map(|length| {
            brim_semantics::ranges(&inbound.method, &inbound.headers, head.status, &head.headers, length)
        });
        return match (decision, length) {
            (Some(RangeDecision::Unsatisfiable), Some(length)) => unsatisfiable(length),
            _ => whole(inbound, head, Content::Growing(Box::new(growing)), length),
        };
    };
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    *response.headers_mut() = head.headers.clone();
    if head.part.is_none_or(|part| part.range() != range) {
        ranges::remove_content_digests(response.headers_mut());
    }
    response.headers_mut().insert(CONTENT_RANGE, brim_semantics::content_range(&range, length));
    let sent_length = range.end - range.start;
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(sent_length));
    *response.body_mut() = ResponseBody::sized(record::ReaderBody::new(growing.into_reader()), sent_length);
    response
}

fn unsatisfiable(length: u64) -> Response<ResponseBody> {
    let mut response = problem(StatusCode::RANGE_NOT_SATISFIABLE, "the range lies beyond the content");
    response.headers_mut().insert(CONTENT_RANGE, brim_semantics::unsatisfied_content_range(length));
    response
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
        Content::Growing(growing) => ResponseBody::stream(record::ReaderBody::new(growing.into_reader())),
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
fn passed(inbound: &Inbound, response: Response<ResponseBody>) -> Response<ResponseBody> {
    let version = response.version();
    let (mut parts, content) = response.into_parts();
    brim_semantics::strip_hop_by_hop(&mut parts.headers);
    brim_semantics::append_via(&mut parts.headers, version);
    if !parts.headers.contains_key(AGE) {
        parts.headers.insert(AGE, HeaderValue::from_static("0"));
    }
    let content = if inbound.method == Method::HEAD { ResponseBody::Empty } else { content };
    Response::from_parts(parts, content)
}

/// Answers the client's condition, which the origin has not seen.
fn unconditional(
    inbound: &Inbound,
    mut response: Response<ResponseBody>,
    received: SystemTime,
) -> Response<ResponseBody> {
    let (status, headers) = (response.status(), response.headers());
    let precondition = brim_semantics::evaluate(&inbound.method, &inbound.headers, status, headers, received);
    let is_usual = status == StatusCode::OK || status == StatusCode::PARTIAL_CONTENT;
    if !is_usual || precondition != Precondition::NotModified {
        return response;
    }
    let mut headers = brim_semantics::not_modified_headers(headers);
    if let Some(age) = response.headers_mut().remove(AGE) {
        headers.insert(AGE, age);
    }
    not_modified(headers)
}
