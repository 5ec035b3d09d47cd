//! Bodies of the origin: a known text, a pattern of any length, chunks with trailers, what the client sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

/// What the origin sends; only an echo can fail, when the client's own body does.
pub(super) type OriginBody = UnsyncBoxBody<Bytes, hyper::Error>;

/// The pattern repeats after a prime number of bytes, so that a shifted or swapped block never looks right.
const PATTERN_PERIOD: usize = 251;
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// One period more than a chunk: a chunk may start anywhere in the period.
static PATTERN: LazyLock<Bytes> =
    LazyLock::new(|| (0..=250_u8).cycle().take(CHUNK_BYTES_MAX + PATTERN_PERIOD).collect());

pub(super) fn text(content: impl Into<Bytes>) -> OriginBody {
    boxed(Full::new(content.into()))
}

pub(super) fn echo(content: Incoming) -> OriginBody {
    content.boxed_unsync()
}

/// `length` bytes of the pattern. With `announced` false nobody is told the length beforehand.
pub(super) fn pattern(length: u64, announced: bool) -> OriginBody {
    boxed(PatternBody { sent: 0, length, announced })
}

/// `chunks`, then `trailers`.
pub(super) fn with_trailers(chunks: &'static [&'static str], trailers: HeaderMap) -> OriginBody {
    boxed(TrailedBody { chunks: chunks.iter(), trailers: Some(trailers) })
}

fn boxed(body: impl Body<Data = Bytes, Error = Infallible> + Send + 'static) -> OriginBody {
    body.map_err(|never| match never {}).boxed_unsync()
}

/// Byte `n` is `n mod 251`. Every chunk is a view of one shared block, so any length needs the same memory.
struct PatternBody {
    sent: u64,
    length: u64,
    announced: bool,
}

impl Body for PatternBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let left = self.length - self.sent;
        if left == 0 {
            return Poll::Ready(None);
        }
        let chunk_bytes = usize::try_from(left).map_or(CHUNK_BYTES_MAX, |left| left.min(CHUNK_BYTES_MAX));
        let start = usize::try_from(self.sent % PATTERN_PERIOD as u64).unwrap_or(0);
        self.sent += chunk_bytes as u64;
        Poll::Ready(Some(Ok(Frame::data(PATTERN.slice(start..start + chunk_bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.sent == self.length
    }

    fn size_hint(&self) -> SizeHint {
        if self.announced { SizeHint::with_exact(self.length - self.sent) } else { SizeHint::default() }
    }
}

struct TrailedBody {
    chunks: std::slice::Iter<'static, &'static str>,
    trailers: Option<HeaderMap>,
}

impl Body for TrailedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.chunks.next() {
            Some(chunk) => Some(Frame::data(Bytes::from_static(chunk.as_bytes()))),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_pattern_goes_on_over_the_edges_of_chunks() {
        let length = 3 * CHUNK_BYTES_MAX + 17;
        let body = pattern(length as u64, true);
        assert_eq!(body.size_hint().exact(), Some(length as u64));
        let content = body.collect().await.expect("the pattern cannot fail").to_bytes();
        assert_eq!(content.len(), length);
        assert!(content.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % PATTERN_PERIOD));
    }

    #[tokio::test]
    async fn four_gibibytes_need_no_more_than_one_block() {
        let mut body = PatternBody { sent: 0, length: 4 << 30, announced: false };
        let mut seen = 0;
        while let Some(frame) = body.frame().await {
            seen += frame.expect("cannot fail").into_data().expect("only data").len() as u64;
        }
        assert_eq!((seen, body.size_hint().exact()), (4 << 30, None));
    }

    #[tokio::test]
    async fn an_empty_pattern_is_at_its_end() {
        let body = pattern(0, true);
        assert!(body.is_end_stream());
        assert_eq!(body.collect().await.expect("cannot fail").to_bytes(), "");
    }
}
