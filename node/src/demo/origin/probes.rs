//! Resources for looking at what lies between client and origin: `/bytes`, `/status`, `/headers`, `/echo`, `/trailers`.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request};
use hyper::body::{Body, Incoming};
use serde_json::json;

use super::body;
use super::query::Query;
use super::respond::{Answer, NO_STORE};

/// The largest content of `/bytes/{n}`, 4 GiB: beyond what 32 bits can count, and streamed whatever its length.
pub(super) const BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

const TRAILED_CHUNKS: &[&str] = &["one\n", "two\n", "three\n"];
const X_CHUNK_COUNT: HeaderName = HeaderName::from_static("x-chunk-count");

/// `length` bytes, byte n being n mod 251; with `?chunked=1` without a `Content-Length`.
pub(super) fn bytes(length: u64, query: &Query) -> Answer {
    let announced = query.get("chunked").is_none_or(|value| value == "0");
    let answer = Answer::new(StatusCode::OK, body::pattern(length, announced))
        .field(CONTENT_TYPE, "application/octet-stream")
        .field(ETAG, &format!("\"bytes-{length}\""))
        .cache_control("public, max-age=300");
    if announced { answer.field(CONTENT_LENGTH, &length.to_string()) } else { answer }
}

/// The status asked for, with the `Cache-Control` asked for.
pub(super) fn status(status: StatusCode, query: &Query) -> Answer {
    let cache_control = query.get("cache-control").unwrap_or(NO_STORE);
    let has_content = !matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    let answer = if has_content {
        Answer::content("text/plain", format!("{status}\n"))
    } else {
        Answer::new(status, body::text(""))
    };
    answer.status(status).cache_control(cache_control)
}

/// The head of the request as it arrived here.
pub(super) fn headers(head: &request::Parts) -> Answer {
    let fields: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    Answer::json(&json!({
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "version": format!("{:?}", head.version),
        "headers": fields,
    }))
    .cache_control(NO_STORE)
}

/// The content as it comes in, with its type and, if it has one, its length.
pub(super) fn echo(head: &HeaderMap, content: Incoming) -> Answer {
    let media_type = head.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/octet-stream");
    let length = content.size_hint().exact();
    let answer =
        Answer::new(StatusCode::OK, body::echo(content)).field(CONTENT_TYPE, media_type).cache_control(NO_STORE);
    match length {
        Some(length) => answer.field(CONTENT_LENGTH, &length.to_string()),
        None => answer,
    }
}

/// Three chunks, and a trailer that counts them; on HTTP/1.1 only for a client that sends `TE: trailers`.
pub(super) fn trailers() -> Answer {
    let mut trailers = HeaderMap::new();
    trailers.insert(X_CHUNK_COUNT, HeaderValue::from(TRAILED_CHUNKS.len()));
    Answer::new(StatusCode::OK, body::with_trailers(TRAILED_CHUNKS, trailers))
        .field(CONTENT_TYPE, "text/plain")
        .field(TRAILER, X_CHUNK_COUNT.as_str())
        .cache_control("public, max-age=60")
}
