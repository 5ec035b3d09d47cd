//! The content of a response on its way to a client: one type, whatever it comes from.
//!
//! Always true:
//! - A body of known length says so in its `size_hint`, exactly, until its end; hyper makes `Content-Length` of it.
//! - A body that ends before or passes the length it promised ends in an error, so that the client sees a broken
//!   message and never a shorter one that looks whole (RFC 9112 §8, RFC 9113 §8.1.1).
//! - Content held in memory is sent without a copy and without an allocation.
//!
//! Not here: where content comes from (`brim_store`, `origin`), request content (`request`).

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body from elsewhere: a stored response's reader, an origin's response, a merge of ranges.
pub type BoxedBody = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

/// The content of a response.
#[derive(Default)]
pub enum ResponseBody {
    /// No content. What each body becomes at its end.
    #[default]
    Empty,
    /// Content in memory.
    Full(Bytes),
    /// Content in memory, with trailers after it. The length is exact, though trailers follow.
    Trailed(Bytes, Box<HeaderMap>),
    /// Content of a length that is not known before its end.
    Stream(BoxedBody),
    /// Content of a known length. The number is what is still to come.
    Sized(BoxedBody, u64),
}

/// Why a body of known length was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LengthError {
    /// The source ended early.
    #[error("content ended {missing} bytes before its announced length")]
    Short {
        /// Bytes that did not come.
        missing: u64,
    },
    /// The source went on.
    #[error("content passed its announced length by at least {surplus} bytes")]
    Long {
        /// Bytes beyond the announced length in the chunk that passed it.
        surplus: u64,
    },
}

impl ResponseBody {
    /// Content in memory; empty content is [`ResponseBody::Empty`].
    pub fn full(content: impl Into<Bytes>) -> Self {
        let content = content.into();
        if content.is_empty() { Self::Empty } else { Self::Full(content) }
    }

    /// Content in memory, and the trailers after it, if any.
    pub fn with_trailers(content: impl Into<Bytes>, trailers: Option<HeaderMap>) -> Self {
        match trailers {
            Some(trailers) if !trailers.is_empty() => Self::Trailed(content.into(), Box::new(trailers)),
            _ => Self::full(content),
        }
    }

    /// Content in memory and the trailers after it, of a length that is not announced: HTTP/1.1 has trailers only after
    /// content of unknown length (RFC 9112 §7.1.2).
    pub fn chunked(content: impl Into<Bytes>, trailers: HeaderMap) -> Self {
        Self::unannounced(Self::Trailed(content.into(), Box::new(trailers)))
    }

    /// Content from `body`, of a length that is not announced even where it is known.
    pub fn unannounced<B>(body: B) -> Self
    where
        B: Body<Data = Bytes, Error = BoxError> + Unpin + Send + 'static,
    {
        Self::Stream(Box::pin(Unannounced(body)))
    }

    /// Content from `body`. Its length is taken from its `size_hint`, and held to it, where that is exact.
    pub fn stream<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let length = body.size_hint().exact();
        let body: BoxedBody = Box::pin(body.map_err(Into::into));
        match length {
            Some(length) => Self::Sized(body, length),
            None => Self::Stream(body),
        }
    }

    /// Content from `body`, of exactly `length` bytes whatever its `size_hint` says.
    pub fn sized<B>(body: B, length: u64) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self::Sized(Box::pin(body.map_err(Into::into)), length)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Full(content) => {
                let content = std::mem::take(content);
                *this = Self::Empty;
                Poll::Ready((!content.is_empty()).then(|| Ok(Frame::data(content))))
            }
            Self::Trailed(content, trailers) => {
                if content.has_remaining() {
                    return Poll::Ready(Some(Ok(Frame::data(std::mem::take(content)))));
                }
                let trailers = std::mem::take(&mut **trailers);
                *this = Self::Empty;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Self::Stream(body) => {
                let polled = body.as_mut().poll_frame(cx);
                if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
                    *this = Self::Empty;
                }
                polled
            }
            Self::Sized(body, remaining) => {
                let polled = match body.as_mut().poll_frame(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(polled) => hold_to_length(polled, remaining),
                };
                if matches!(polled, None | Some(Err(_))) {
                    *this = Self::Empty;
                }
                Poll::Ready(polled)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(content) => content.is_empty(),
            Self::Trailed(..) => false,
            Self::Stream(body) => body.is_end_stream(),
            // The length is checked at the end, so a source that claims to be at its end too early is still polled.
            Self::Sized(body, remaining) => *remaining == 0 && body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(content) | Self::Trailed(content, _) => SizeHint::with_exact(content.len() as u64),
            Self::Stream(body) => body.size_hint(),
            Self::Sized(_, remaining) => SizeHint::with_exact(*remaining),
        }
    }
}

fn hold_to_length(
    polled: Option<Result<Frame<Bytes>, BoxError>>,
    remaining: &mut u64,
) -> Option<Result<Frame<Bytes>, BoxError>> {
    match polled {
        Some(Ok(frame)) => {
            let length = frame.data_ref().map_or(0, |content| content.len() as u64);
            match remaining.checked_sub(length) {
                Some(left) if left > 0 && frame.is_trailers() => Some(Err(LengthError::Short { missing: left }.into())),
                Some(left) => {
                    *remaining = left;
                    Some(Ok(frame))
                }
                None => Some(Err(LengthError::Long { surplus: length - *remaining }.into())),
            }
        }
        None if *remaining > 0 => Some(Err(LengthError::Short { missing: *remaining }.into())),
        end_or_error => end_or_error,
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(content) => write!(f, "Full({} bytes)", content.len()),
            Self::Trailed(content, trailers) => {
                write!(f, "Trailed({} bytes, {} trailers)", content.len(), trailers.len())
            }
            Self::Stream(_) => f.write_str("Stream"),
            Self::Sized(_, remaining) => write!(f, "Sized({remaining} bytes to come)"),
        }
    }
}

impl From<Bytes> for ResponseBody {
    fn from(content: Bytes) -> Self {
        Self::full(content)
    }
}

impl From<String> for ResponseBody {
    fn from(content: String) -> Self {
        Self::full(content)
    }
}

impl From<&'static str> for ResponseBody {
    fn from(content: &'static str) -> Self {
        Self::full(Bytes::from_static(content.as_bytes()))
    }
}

/// Content that does not tell its length.
struct Unannounced<B>(B);

impl<B> Body for Unannounced<B>
where
    B: Body<Data = Bytes, Error = BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::collections::VecDeque;

    struct Chunks(VecDeque<Frame<Bytes>>);

    impl Chunks {
        fn of(chunks: &[&'static str]) -> Self {
            Self(chunks.iter().map(|chunk| Frame::data(Bytes::from_static(chunk.as_bytes()))).collect())
        }
    }

    impl Body for Chunks {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    fn trailers() -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static("checksum"), HeaderValue::from_static("1"))])
    }

    #[tokio::test]
    async fn content_in_memory_is_exact_until_its_end() {
        let mut body = ResponseBody::from("hello");
        assert_eq!(body.size_hint().exact(), Some(5));
        let frame = body.frame().await.expect("a frame").expect("no error");
        assert_eq!(frame.into_data().expect("data"), "hello");
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
        assert!(ResponseBody::full("").is_end_stream());
    }

    #[tokio::test]
    async fn trailers_follow_content_in_memory() {
        let body = ResponseBody::with_trailers("hello", Some(trailers()));
        assert_eq!(body.size_hint().exact(), Some(5));
        let collected = body.collect().await.expect("no error");
        assert_eq!(collected.trailers(), Some(&trailers()));
        assert_eq!(collected.to_bytes(), "hello");
        assert!(matches!(ResponseBody::with_trailers("", Some(HeaderMap::new())), ResponseBody::Empty));
    }

    #[tokio::test]
    async fn a_known_length_is_held_to() {
        let whole = ResponseBody::sized(Chunks::of(&["ab", "cd"]), 4);
        assert_eq!(whole.size_hint().exact(), Some(4));
        assert_eq!(whole.collect().await.expect("whole").to_bytes(), "abcd");

        let short = ResponseBody::sized(Chunks::of(&["ab"]), 4).collect().await.expect_err("short");
        assert_eq!(short.downcast_ref(), Some(&LengthError::Short { missing: 2 }));

        let long = ResponseBody::sized(Chunks::of(&["abc", "def"]), 4).collect().await.expect_err("long");
        assert_eq!(long.downcast_ref(), Some(&LengthError::Long { surplus: 2 }));

        let mut cut = Chunks::of(&["ab"]);
        cut.0.push_back(Frame::trailers(trailers()));
        let cut = ResponseBody::sized(cut, 4).collect().await.expect_err("trailers too early");
        assert_eq!(cut.downcast_ref(), Some(&LengthError::Short { missing: 2 }));
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_passes_with_its_trailers() {
        let mut chunks = Chunks::of(&["ab", "cd"]);
        chunks.0.push_back(Frame::trailers(trailers()));
        let body = ResponseBody::stream(chunks);
        assert_eq!(body.size_hint().exact(), None);
        let collected = body.collect().await.expect("no error");
        assert_eq!(collected.trailers(), Some(&trailers()));
    }
}
