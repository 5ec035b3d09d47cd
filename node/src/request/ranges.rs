//! Ranges: the part of a content that a client asked for, from wherever it is (RFC 9110 §14, §15.3.7).
//!
//! Always true:
//! - What is sent has exactly the announced length: it is reckoned from the ranges, and the body is held to it.
//! - Nothing is copied: a body is a row of readers, with the headers of the parts between them.
//!
//! Not here: which ranges a request gets (`brim_semantics::ranges`), which stored parts there are (`partial`).

use std::collections::VecDeque;
use std::fmt::Write;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use brim_semantics::{Precondition, RangeDecision};
use brim_store::{BodyReader, Following, StoredResponse};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::partial::Parts;
use crate::body::{BoxError, ResponseBody};

/// A content that is still arriving, as one client gets it.
pub struct Growing {
    /// The fill.
    pub following: Arc<Following>,
    reader: BodyReader,
    /// The positions in the representation that `reader` gives; `None`: all of it.
    range: Option<Range<u64>>,
}

impl Growing {
    /// What `following` holds for a request: a range of it, or all. `None`: it cannot be joined any more, or it is a part
    /// that does not hold the range.
    pub fn join(following: &Arc<Following>, method: &Method, request: &HeaderMap) -> Option<Self> {
        match Self::range_of(following, method, request) {
            Some(range) => Self::of_range(following, range),
            None if following.head().part.is_some() => None,
            None => Some(Self { following: following.clone(), reader: following.read()?, range: None }),
        }
    }

    /// For the request that caused the fetch: if it is another part than the one that was asked for, that part.
    pub fn join_first(following: &Arc<Following>, method: &Method, request: &HeaderMap) -> Option<Self> {
        let part = following.head().part.map(|part| part.range());
        let range = Self::range_of(following, method, request);
        let fits =
            |range: &Range<u64>| part.as_ref().is_none_or(|part| part.start <= range.start && range.end <= part.end);
        match range.filter(fits).or(part.clone()) {
            Some(range) => Self::of_range(following, range),
            None => Self::join(following, method, request),
        }
    }

    /// The bytes at these positions of the representation.
    pub fn of_range(following: &Arc<Following>, range: Range<u64>) -> Option<Self> {
        let start = match following.head().part {
            None => 0,
            Some(part) if part.covers(&range) => part.start,
            Some(_) => return None,
        };
        let reader = following.read_range(range.start - start..range.end - start)?;
        Some(Self { following: following.clone(), reader, range: Some(range) })
    }

    /// The one range that a request gets of it. Several are answered with the whole, as RFC 9110 §14.2 allows.
    fn range_of(following: &Following, method: &Method, request: &HeaderMap) -> Option<Range<u64>> {
        let head = following.head();
        let length = representation_length(following)?;
        let status = if head.part.is_some() { StatusCode::OK } else { head.status };
        let received = head.meta.response_time;
        if brim_semantics::evaluate(method, request, status, &head.headers, received) != Precondition::Proceed {
            return None;
        }
        match brim_semantics::ranges(method, request, status, &head.headers, length) {
            RangeDecision::One(range) => Some(range),
            RangeDecision::Whole | RangeDecision::Many(_) | RangeDecision::Unsatisfiable => None,
        }
    }

    /// The range, if it is not the whole.
    pub fn range(&self) -> Option<&Range<u64>> {
        self.range.as_ref()
    }

    /// The length of the representation, where it is known.
    pub fn representation_length(&self) -> Option<u64> {
        representation_length(&self.following)
    }

    /// The bytes.
    pub fn into_reader(self) -> BodyReader {
        self.reader
    }
}

fn representation_length(following: &Following) -> Option<u64> {
    let head = following.head();
    match head.part {
        Some(part) => Some(part.complete_length),
        None => head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok(),
    }
}

/// How far a range lies beyond what has arrived, in bytes: whoever asks for it would wait for all that is before it.
pub(super) fn bytes_ahead(following: &Following, method: &Method, request: &HeaderMap) -> u64 {
    let start = Growing::range_of(following, method, request).map_or(0, |range| range.start);
    let arrived = following.head().part.map_or(0, |part| part.start) + following.arrived();
    start.saturating_sub(arrived)
}

/// What ranges are read from.
pub(super) enum Source {
    /// A complete stored response.
    Stored(Arc<StoredResponse>),
    /// Stored parts, and the one that is being fetched.
    Parts(Box<Parts>, Option<Box<Growing>>),
}

impl Source {
    /// The readers that together give `range`. `None`: something of it is held by none of them.
    fn read(&mut self, range: &Range<u64>) -> Option<Vec<Piece>> {
        match self {
            Self::Stored(stored) => Some(vec![Piece::of_stored(stored, range.clone())]),
            Self::Parts(parts, growing) => {
                let mut pieces = Vec::new();
                let mut at = range.start;
                while at < range.end {
                    let arriving =
                        growing.as_ref().and_then(|growing| growing.range.clone()).filter(|gap| gap.end > at);
                    if let Some(gap) = arriving.clone().filter(|gap| gap.start <= at) {
                        // A reader gives each byte once: it has to be its own range, exactly.
                        if gap.start != at || gap.end > range.end {
                            return None;
                        }
                        pieces.push(Piece::Reader(Box::new(growing.take()?.into_reader())));
                        at = gap.end;
                        continue;
                    }
                    let (part, stored) = parts.holding(at)?;
                    let end = part.end.min(range.end).min(arriving.map_or(u64::MAX, |gap| gap.start));
                    pieces.push(Piece::of_stored(stored, at - part.start..end - part.start));
                    at = end;
                }
                Some(pieces)
            }
        }
    }
}

/// The answer to a request for `ranges` of a representation of `length` bytes with these fields. `None`: the source does not
/// hold them all.
pub(super) fn respond(
    mut headers: HeaderMap,
    mut source: Source,
    ranges: &RangeDecision,
    length: u64,
) -> Option<Response<ResponseBody>> {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let (pieces, sent_length) = match ranges {
        RangeDecision::Unsatisfiable => return None,
        RangeDecision::Whole => {
            *response.status_mut() = StatusCode::OK;
            (source.read(&(0..length))?, length)
        }
        RangeDecision::One(range) => {
            headers.insert(CONTENT_RANGE, brim_semantics::content_range(range, length));
            (source.read(range)?, range.end - range.start)
        }
        RangeDecision::Many(ranges) => multipart(&mut headers, &mut source, ranges, length)?,
    };
    headers.insert(CONTENT_LENGTH, HeaderValue::from(sent_length));
    remove_content_digests(&mut headers);
    *response.headers_mut() = headers;
    *response.body_mut() = match <[Piece; 1]>::try_from(pieces) {
        Ok([Piece::Text(content)]) => ResponseBody::full(content),
        Ok([piece]) => ResponseBody::sized(Pieces::new(vec![piece]), sent_length),
        Err(pieces) => ResponseBody::sized(Pieces::new(pieces), sent_length),
    };
    Some(response)
}

/// Takes out the digests of the content that the origin sent (RFC 9530 §2), which another content contradicts. Those of the
/// representation stay true.
pub(super) fn remove_content_digests(headers: &mut HeaderMap) {
    for name in ["content-digest", "content-md5"] {
        headers.remove(name);
    }
}

/// RFC 9110 §14.6: each range with its `Content-Range`, between boundaries that are in nobody's content but by guessing 128
/// random bits.
fn multipart(
    headers: &mut HeaderMap,
    source: &mut Source,
    ranges: &[Range<u64>],
    length: u64,
) -> Option<(Vec<Piece>, u64)> {
    let boundary = boundary();
    let content_type = HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}")).ok()?;
    let part_type = headers.insert(CONTENT_TYPE, content_type);
    headers.remove(CONTENT_RANGE);
    let (mut pieces, mut sent_length) = (Vec::new(), 0);
    for range in ranges {
        let mut head = Vec::from(format!("{}--{boundary}\r\n", if pieces.is_empty() { "" } else { "\r\n" }));
        if let Some(part_type) = &part_type {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(part_type.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"Content-Range: ");
        head.extend_from_slice(brim_semantics::content_range(range, length).as_bytes());
        head.extend_from_slice(b"\r\n\r\n");
        sent_length += head.len() as u64 + (range.end - range.start);
        pieces.push(Piece::Text(head.into()));
        pieces.extend(source.read(range)?);
    }
    let end = format!("\r\n--{boundary}--\r\n");
    sent_length += end.len() as u64;
    pieces.push(Piece::Text(end.into()));
    Some((pieces, sent_length))
}

fn boundary() -> String {
    let mut text = String::with_capacity(32);
    for _ in 0..2 {
        let _ = write!(text, "{:016x}", RandomState::new().build_hasher().finish());
    }
    text
}

/// A run of bytes of a body.
enum Piece {
    Text(Bytes),
    Reader(Box<BodyReader>),
}

impl Piece {
    fn of_stored(stored: &StoredResponse, range: Range<u64>) -> Self {
        let in_memory = stored.body().and_then(|content| {
            let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
            (end <= content.len()).then(|| content.slice(start..end))
        });
        in_memory.map_or_else(|| Self::Reader(Box::new(stored.read_range(range))), Self::Text)
    }
}

/// Pieces one after the other.
struct Pieces(VecDeque<Piece>);

impl Pieces {
    fn new(pieces: Vec<Piece>) -> Self {
        Self(pieces.into())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let data = match self.0.front_mut() {
                None => return Poll::Ready(None),
                Some(Piece::Text(text)) => {
                    let text = std::mem::take(text);
                    self.0.pop_front();
                    text
                }
                Some(Piece::Reader(reader)) => match ready!(reader.poll_next(cx)) {
                    Some(Ok(data)) => data,
                    Some(Err(error)) => {
                        self.0.clear();
                        return Poll::Ready(Some(Err(error.into())));
                    }
                    None => {
                        self.0.pop_front();
                        continue;
                    }
                },
            };
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
