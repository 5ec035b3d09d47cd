//! A connection over HTTP/1.1 with one request under way at most, written and read here: its calls block, and the time between
//! two of them is known to the microsecond.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};
use memchr::memmem;

use crate::origin;

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// For one answer.
const ANSWER_MAX: Duration = Duration::from_secs(35);
/// No answer here is longer; a page of an error may come near.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// An open connection.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) content: &'a [u8],
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect_timeout(&address, CONNECT_MAX).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        Ok(Self { stream, received: Vec::with_capacity(ANSWER_BYTES_MAX) })
    }

    /// Asks for a response by its number.
    pub(crate) fn ask(&mut self, number: u64) -> anyhow::Result<()> {
        self.send(&format!("GET {} HTTP/1.1\r\nHost: bench\r\nAccept: */*\r\n\r\n", origin::path(number)))
    }

    /// Sends a whole request.
    pub(crate) fn send(&mut self, request: &str) -> anyhow::Result<()> {
        self.stream.write_all(request.as_bytes()).context("send a request")
    }

    /// Waits for the answer.
    pub(crate) fn receive(&mut self) -> anyhow::Result<Answer<'_>> {
        self.received.clear();
        let mut some = [0; 4096];
        while whole(&self.received)?.is_none() {
            ensure!(self.received.len() < ANSWER_BYTES_MAX, "an answer is longer than {ANSWER_BYTES_MAX} bytes");
            let count = self.stream.read(&mut some).with_context(|| format!("no answer within {ANSWER_MAX:?}"))?;
            ensure!(count > 0, "the server closed the connection");
            self.received.extend_from_slice(&some[..count]);
        }
        whole(&self.received)?.context("the answer is not whole")
    }

    /// Waits for the answer to [`Self::ask`]. Its generation.
    pub(crate) fn receive_generation(&mut self, number: u64) -> anyhow::Result<u64> {
        let answer = self.receive()?;
        ensure!(answer.status == 200, "{number} was answered with {answer:?}");
        let (found, generation) = origin::parts(answer.content).with_context(|| format!("{number}: {answer:?}"))?;
        ensure!(found == number, "{number} was answered with the content of {found}");
        Ok(generation)
    }
}

/// The answer, once it is whole. More than that is an error.
fn whole(received: &[u8]) -> anyhow::Result<Option<Answer<'_>>> {
    let Some(head_end) = memmem::find(received, b"\r\n\r\n") else { return Ok(None) };
    let (head, content) = (&received[..head_end], &received[head_end + 4..]);
    let shown = || format!("in {:?}", String::from_utf8_lossy(head));
    let status = head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| str::from_utf8(rest.get(..3)?).ok()?.parse().ok());
    let status = status.with_context(|| format!("no status {}", shown()))?;
    let length = head.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked("content-length:".len())?;
        let value = name.eq_ignore_ascii_case(b"content-length:").then(|| str::from_utf8(value).ok())??;
        value.trim().parse::<usize>().ok()
    });
    let length = length.with_context(|| format!("no `Content-Length` {}", shown()))?;
    ensure!(content.len() <= length, "more than one answer: {}", shown());
    Ok((content.len() == length).then_some(Answer { status, content }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        let text = b"HTTP/1.1 201 Created\r\nx: 1\r\nContent-Length: 3\r\n\r\nabc";
        for end in 0..text.len() {
            assert_eq!(whole(&text[..end]).unwrap(), None, "{end}");
        }
        assert_eq!(whole(text).unwrap(), Some(Answer { status: 201, content: b"abc" }));
        assert!(whole(&[text, &b"d"[..]].concat()).is_err());
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        assert!(whole(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(whole(b"HTTP/1.1 two\r\nContent-Length: 0\r\n\r\n").is_err());
    }
}
