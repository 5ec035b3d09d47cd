//! Content that is sent in steps: chunks, waits, repetitions, an abort in the middle, trailers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame};
use tokio::sync::mpsc;

use crate::gate::Gate;

/// What a request or response sends after its head, step by step.
#[derive(Debug, Clone, Default)]
pub struct Content {
    steps: Vec<Step>,
    trailers: HeaderMap,
}

#[derive(Debug, Clone)]
enum Step {
    Chunk(Bytes),
    Repeat { chunk: Bytes, times: u64 },
    Wait(Gate),
    Pause(Duration),
    Abort,
}

impl Content {
    /// One chunk; none when it is empty.
    #[must_use]
    pub fn of(chunk: impl Into<Bytes>) -> Self {
        let chunk = chunk.into();
        if chunk.is_empty() { Self::default() } else { Self::default().then(chunk) }
    }

    /// A further chunk, in a frame of its own.
    #[must_use]
    pub fn then(self, chunk: impl Into<Bytes>) -> Self {
        self.step(Step::Chunk(chunk.into()))
    }

    /// The chunk again and again: content of any length in the memory of one chunk.
    #[must_use]
    pub fn then_repeat(self, chunk: impl Into<Bytes>, times: u64) -> Self {
        self.step(Step::Repeat { chunk: chunk.into(), times })
    }

    /// Sends nothing more until the test opens the gate.
    #[must_use]
    pub fn then_wait(self, gate: &Gate) -> Self {
        self.step(Step::Wait(gate.clone()))
    }

    /// Sends nothing for a while, where slowness itself is tested.
    #[must_use]
    pub fn then_pause(self, pause: Duration) -> Self {
        self.step(Step::Pause(pause))
    }

    /// Breaks off: HTTP/1.1 closes the connection, HTTP/2 resets the stream.
    #[must_use]
    pub fn then_abort(self) -> Self {
        self.step(Step::Abort)
    }

    /// A field after the content.
    #[must_use]
    pub fn trailer(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).expect("the test names a good field value");
        self.trailers.append(HeaderName::from_static(name), value);
        self
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// How many bytes all chunks have together.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.steps
            .iter()
            .map(|step| match step {
                Step::Chunk(chunk) => chunk.len() as u64,
                Step::Repeat { chunk, times } => chunk.len() as u64 * times,
                Step::Wait(_) | Step::Pause(_) | Step::Abort => 0,
            })
            .sum()
    }

    pub(crate) fn trailers(&self) -> &HeaderMap {
        &self.trailers
    }

    /// Starts to send. The task ends with the content, or when nobody takes it any more.
    pub(crate) fn into_body(self) -> SteppedBody {
        let is_empty = self.steps.is_empty() && self.trailers.is_empty();
        let (frames, receiver) = mpsc::channel(1);
        if !is_empty {
            tokio::spawn(async move {
                // An error here says that the receiver is gone: there is nobody to tell.
                let _ = self.play(&frames).await;
            });
        }
        SteppedBody { frames: receiver, is_empty }
    }

    async fn play(self, frames: &FrameSender) -> Result<(), mpsc::error::SendError<FrameResult>> {
        for step in self.steps {
            match step {
                Step::Chunk(chunk) => frames.send(Ok(Frame::data(chunk))).await?,
                Step::Repeat { chunk, times } => {
                    for _ in 0..times {
                        frames.send(Ok(Frame::data(chunk.clone()))).await?;
                    }
                }
                Step::Wait(gate) => gate.opened().await,
                Step::Pause(pause) => tokio::time::sleep(pause).await,
                Step::Abort => {
                    let error = io::Error::other("the test breaks off here");
                    return frames.send(Err(error)).await;
                }
            }
        }
        if !self.trailers.is_empty() {
            frames.send(Ok(Frame::trailers(self.trailers))).await?;
        }
        Ok(())
    }
}

impl<T: Into<Bytes>> From<T> for Content {
    fn from(chunk: T) -> Self {
        Self::of(chunk)
    }
}

type FrameResult = Result<Frame<Bytes>, io::Error>;
type FrameSender = mpsc::Sender<FrameResult>;

/// The sending side of a [`Content`] as hyper wants it.
#[derive(Debug)]
pub(crate) struct SteppedBody {
    frames: mpsc::Receiver<FrameResult>,
    is_empty: bool,
}

impl Body for SteppedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<FrameResult>> {
        self.frames.poll_recv(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty
    }
}
