//! Answers of the origin: content, its fields, and `304 Not Modified` where the client already has it.
//!
//! Always true:
//! - Every answer says what a cache may do with it; an error says `no-store`.
//! - An answer that differs by a request field which clients cannot be expected to share names it in `Vary`.
//!
//! The origin judges conditional requests by rules of its own and not by `brim-semantics`: it stands for somebody
//! else's server, and what tests the node must not share the node's mistakes.

use std::hash::{DefaultHasher, Hasher};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use serde::Serialize;

use super::body::{self, OriginBody};

pub(super) const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
pub(super) const NO_STORE: &str = "no-store";
const JSON: &str = "application/json";

/// An answer before it is known whether the client has it already.
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: OriginBody,
}

impl Answer {
    pub(super) fn new(status: StatusCode, body: OriginBody) -> Self {
        Self { status, headers: HeaderMap::new(), body }
    }

    /// Content of a known length, with an `ETag` made of the content itself.
    pub(super) fn content(media_type: &str, content: impl Into<Bytes>) -> Self {
        let content = content.into();
        let mut hasher = DefaultHasher::new();
        hasher.write(&content);
        let tag = format!("\"{:016x}\"", hasher.finish());
        Self::of_length(StatusCode::OK, media_type, content).field(ETAG, &tag)
    }

    /// JSON, ended by a line break for people who use a terminal.
    pub(super) fn json(value: &impl Serialize) -> Self {
        match serde_json::to_string(value) {
            Ok(text) => Self::content(JSON, format!("{text}\n")),
            Err(error) => Self::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    /// What the client did wrong, as JSON.
    pub(super) fn error(status: StatusCode, message: &str) -> Self {
        let text = format!("{}\n", serde_json::json!({ "status": status.as_u16(), "error": message }));
        Self::of_length(status, JSON, text).field(CACHE_CONTROL, NO_STORE)
    }

    pub(super) fn method_not_allowed(allowed: &str) -> Self {
        Self::error(StatusCode::METHOD_NOT_ALLOWED, "this resource does not know the method").field(ALLOW, allowed)
    }

    fn of_length(status: StatusCode, media_type: &str, content: impl Into<Bytes>) -> Self {
        let content = content.into();
        let mut answer = Self::new(status, OriginBody::default()).field(CONTENT_TYPE, media_type);
        answer.headers.insert(CONTENT_LENGTH, content.len().into());
        answer.body = body::text(content);
        answer
    }

    pub(super) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Sets a field. A value that no field can have is left out: only clients can send such.
    pub(super) fn field(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(super) fn cache_control(self, value: &str) -> Self {
        self.field(CACHE_CONTROL, value)
    }

    pub(super) fn last_modified(self, at: SystemTime) -> Self {
        self.field(LAST_MODIFIED, &httpdate::fmt_http_date(at))
    }

    /// The response to this request: `304` without content where its conditions say so (RFC 9110 §13.2.2).
    pub(super) fn into_response(self, method: &Method, request: &HeaderMap) -> Response<OriginBody> {
        let may_be_conditional = self.status == StatusCode::OK && matches!(*method, Method::GET | Method::HEAD);
        let unchanged = may_be_conditional && is_unchanged(&self.headers, request);
        let mut response = Response::new(if unchanged { OriginBody::default() } else { self.body });
        *response.status_mut() = if unchanged { StatusCode::NOT_MODIFIED } else { self.status };
        *response.headers_mut() = self.headers;
        if unchanged {
            response.headers_mut().remove(CONTENT_LENGTH);
            response.headers_mut().remove(CONTENT_TYPE);
        }
        response
    }
}

fn is_unchanged(answer: &HeaderMap, request: &HeaderMap) -> bool {
    if request.contains_key(IF_NONE_MATCH) {
        return answer.get(ETAG).is_some_and(|tag| names_tag(request, &IF_NONE_MATCH, tag));
    }
    let date = |headers: &HeaderMap, name| {
        headers.get(name).and_then(|value| value.to_str().ok()).and_then(|text| httpdate::parse_http_date(text).ok())
    };
    match (date(answer, LAST_MODIFIED), date(request, IF_MODIFIED_SINCE)) {
        (Some(modified), Some(since)) => modified <= since,
        (_, None) | (None, Some(_)) => false,
    }
}

/// True when the condition field names this tag, compared weakly, or everything by `*`.
pub(super) fn names_tag(request: &HeaderMap, field: &HeaderName, tag: &HeaderValue) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let Ok(tag) = tag.to_str().map(opaque) else { return false };
    request.get_all(field).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        // Tags of this origin hold no comma, so a split inside a foreign tag can at worst miss that foreign tag.
        value.trim() == "*" || value.split(',').any(|named| opaque(named) == tag)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answer() -> Answer {
        Answer::content("text/plain", "hello")
            .field(ETAG, "\"a\"")
            .last_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000))
    }

    #[test]
    fn conditions_decide_between_content_and_304() {
        let earlier = "Mon, 12 Jan 1970 13:46:39 GMT";
        let exactly = "Mon, 12 Jan 1970 13:46:40 GMT";
        for (fields, expected) in [
            (vec![], 200),
            (vec![(IF_NONE_MATCH, "\"a\"")], 304),
            (vec![(IF_NONE_MATCH, "\"x\", W/\"a\"")], 304),
            (vec![(IF_NONE_MATCH, "*")], 304),
            (vec![(IF_NONE_MATCH, "\"b\"")], 200),
            (vec![(IF_MODIFIED_SINCE, exactly)], 304),
            (vec![(IF_MODIFIED_SINCE, earlier)], 200),
            (vec![(IF_MODIFIED_SINCE, "yesterday")], 200),
            // RFC 9110 §13.1.3: the date is ignored beside If-None-Match.
            (vec![(IF_NONE_MATCH, "\"b\""), (IF_MODIFIED_SINCE, exactly)], 200),
        ] {
            let mut request = HeaderMap::new();
            for (name, value) in &fields {
                request.insert(name, HeaderValue::from_static(value));
            }
            let response = answer().into_response(&Method::GET, &request);
            assert_eq!(response.status().as_u16(), expected, "{fields:?}");
            assert!(response.headers().contains_key(ETAG));
            assert_eq!(response.headers().contains_key(CONTENT_LENGTH), expected == 200, "{fields:?}");
        }
    }

    #[test]
    fn only_a_successful_read_can_be_unchanged() {
        let mut request = HeaderMap::new();
        request.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        assert_eq!(answer().into_response(&Method::PUT, &request).status(), StatusCode::OK);
        let missing = answer().status(StatusCode::NOT_FOUND);
        assert_eq!(missing.into_response(&Method::GET, &request).status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn an_error_is_never_stored() {
        let response = Answer::error(StatusCode::NOT_FOUND, "no").into_response(&Method::GET, &HeaderMap::new());
        assert_eq!(response.headers()[CACHE_CONTROL], NO_STORE);
    }
}
