//! What a fake origin answers: status, fields, content, and when.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, ETAG, IF_NONE_MATCH, LAST_MODIFIED, TRAILER, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use crate::content::{Content, SteppedBody};
use crate::fake_origin::Recorded;
use crate::gate::Gate;

/// `200` with this content.
#[must_use]
pub fn ok(content: impl Into<Content>) -> Reply {
    Reply { content: content.into(), ..status(200) }
}

/// This status without content.
#[must_use]
pub fn status(code: u16) -> Reply {
    Reply {
        status: StatusCode::from_u16(code).expect("the test names a good status"),
        headers: HeaderMap::new(),
        content: Content::default(),
        framing: Framing::Length,
        delay: Duration::ZERO,
        gate: None,
        answers_conditionals: false,
        reads_content: true,
        drops_connection: false,
    }
}

/// `304` without content.
#[must_use]
pub fn not_modified() -> Reply {
    status(304)
}

/// No answer: the connection is closed once the request has been read.
#[must_use]
pub fn dropped_connection() -> Reply {
    Reply { drops_connection: true, ..status(500) }
}

/// One scripted answer.
#[derive(Debug, Clone)]
pub struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    content: Content,
    framing: Framing,
    delay: Duration,
    gate: Option<Gate>,
    answers_conditionals: bool,
    reads_content: bool,
    drops_connection: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// `Content-Length` of what the content really has.
    Length,
    /// `Content-Length` of another number.
    DeclaredLength(u64),
    Chunked,
}

impl Reply {
    /// This status in place of the one it began with.
    #[must_use]
    pub fn status(mut self, code: u16) -> Self {
        self.status = StatusCode::from_u16(code).expect("the test names a good status");
        self
    }

    /// Adds a field line; an earlier one of the same name stays.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("the test names a good field");
        self.headers.append(name, HeaderValue::from_str(value).expect("the test names a good value"));
        self
    }

    /// `Cache-Control`.
    #[must_use]
    pub fn cache_control(self, value: &str) -> Self {
        self.header(CACHE_CONTROL.as_str(), value)
    }

    /// `ETag`, with its quotes.
    #[must_use]
    pub fn etag(self, tag: &str) -> Self {
        self.header(ETAG.as_str(), tag)
    }

    /// `Last-Modified`.
    #[must_use]
    pub fn last_modified(self, date: &str) -> Self {
        self.header(LAST_MODIFIED.as_str(), date)
    }

    /// `Vary`.
    #[must_use]
    pub fn vary(self, fields: &str) -> Self {
        self.header(VARY.as_str(), fields)
    }

    /// `Surrogate-Key`.
    #[must_use]
    pub fn surrogate_keys(self, keys: &str) -> Self {
        self.header("surrogate-key", keys)
    }

    /// Sends without `Content-Length`: chunked in HTTP/1.1.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// Declares this `Content-Length`, whatever the content has; more than it has needs [`Reply::then_abort`].
    #[must_use]
    pub fn declared_length(mut self, length: u64) -> Self {
        self.framing = Framing::DeclaredLength(length);
        self
    }

    /// A further chunk of content.
    #[must_use]
    pub fn then(mut self, chunk: impl Into<Bytes>) -> Self {
        self.content = self.content.then(chunk);
        self
    }

    /// The chunk again and again.
    #[must_use]
    pub fn then_repeat(mut self, chunk: impl Into<Bytes>, times: u64) -> Self {
        self.content = self.content.then_repeat(chunk, times);
        self
    }

    /// Holds what follows of the content until the test opens the gate.
    #[must_use]
    pub fn then_wait(mut self, gate: &Gate) -> Self {
        self.content = self.content.then_wait(gate);
        self
    }

    /// Sends nothing for a while, in the middle of the content.
    #[must_use]
    pub fn then_pause(mut self, pause: Duration) -> Self {
        self.content = self.content.then_pause(pause);
        self
    }

    /// Breaks off in the middle of the content.
    #[must_use]
    pub fn then_abort(mut self) -> Self {
        self.content = self.content.then_abort();
        self
    }

    /// A trailer. `Trailer` announces it, and the content is sent chunked; HTTP/1.1 has it only for requests with
    /// `TE: trailers`.
    #[must_use]
    pub fn trailer(mut self, name: &'static str, value: &str) -> Self {
        self.content = self.content.trailer(name, value);
        self.chunked().header(TRAILER.as_str(), name)
    }

    /// Holds the whole answer, head and all, until the test opens the gate.
    #[must_use]
    pub fn held_by(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// Waits before the head, where slowness itself is tested.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Answers `304` when the request's `If-None-Match` names this reply's `ETag`.
    #[must_use]
    pub fn answering_conditionals(mut self) -> Self {
        self.answers_conditionals = true;
        self
    }

    /// Answers without having read the content of the request.
    #[must_use]
    pub fn without_reading_content(mut self) -> Self {
        self.reads_content = false;
        self
    }

    pub(crate) fn drops_connection(&self) -> bool {
        self.drops_connection
    }

    pub(crate) fn reads_content(&self) -> bool {
        self.reads_content
    }

    /// Waits as the script says.
    pub(crate) async fn hold(&self) {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        if let Some(gate) = &self.gate {
            gate.opened().await;
        }
    }

    pub(crate) fn into_response(self, request: &Recorded) -> Response<SteppedBody> {
        let unchanged = self.answers_conditionals && names_tag(&request.headers, &self.headers);
        let status = if unchanged { StatusCode::NOT_MODIFIED } else { self.status };
        let content = if unchanged { Content::default() } else { self.content };
        let mut headers = self.headers;
        let length = match self.framing {
            Framing::Length => Some(content.length()),
            Framing::DeclaredLength(length) => Some(length),
            Framing::Chunked => None,
        };
        if let Some(length) = length.filter(|_| may_have_content(status)) {
            headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
        }
        let content = if request.method == Method::HEAD { Content::default() } else { content };
        let mut response = Response::new(content.into_body());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

fn may_have_content(status: StatusCode) -> bool {
    !status.is_informational() && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}

fn names_tag(request: &HeaderMap, reply: &HeaderMap) -> bool {
    let Some(tag) = reply.get(ETAG).and_then(|tag| tag.to_str().ok()) else { return false };
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    request
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|named| opaque(named) == opaque(tag))
}
