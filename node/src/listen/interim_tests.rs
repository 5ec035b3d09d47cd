//! The queue and the wrapper over a socket that takes as many bytes as it is told to.

use std::sync::atomic::AtomicUsize;
use std::task::Wake;

use http::HeaderValue;

use super::*;

#[derive(Default)]
struct FakeSocket {
    written: Vec<u8>,
    room: usize,
    flushes: usize,
}

impl AsyncRead for FakeSocket {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for FakeSocket {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let taken = bytes.len().min(self.room);
        if taken == 0 {
            return Poll::Pending;
        }
        self.room -= taken;
        self.written.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Counts how often the connection's task is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Setup {
    connection: Arc<ConnectionInfo>,
    io: WithInterim<FakeSocket>,
    wakes: Arc<Wakes>,
}

impl Setup {
    fn new() -> Self {
        let connection = connection(Protocol::Http1);
        let socket = FakeSocket { room: usize::MAX, ..FakeSocket::default() };
        Self { io: WithInterim::new(socket, connection.clone()), connection, wakes: Arc::default() }
    }

    fn interim(&self) -> Interim {
        self.connection.interim(Version::HTTP_11).expect("an HTTP/1.1 client")
    }

    fn write(&mut self, bytes: &str) -> Poll<io::Result<usize>> {
        let waker = Waker::from(self.wakes.clone());
        Pin::new(&mut self.io).poll_write(&mut Context::from_waker(&waker), bytes.as_bytes())
    }

    fn flush(&mut self) -> Poll<io::Result<()>> {
        let waker = Waker::from(self.wakes.clone());
        Pin::new(&mut self.io).poll_flush(&mut Context::from_waker(&waker))
    }

    /// One turn of [`InterimQueue::finish`].
    fn finish(&self) -> Poll<()> {
        let finish = std::pin::pin!(self.connection.interim.finish());
        finish.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn written(&self) -> &str {
        std::str::from_utf8(&self.io.stream.written).expect("text")
    }

    fn woken(&self) -> usize {
        self.wakes.0.load(Ordering::Relaxed)
    }
}

fn connection(protocol: Protocol) -> Arc<ConnectionInfo> {
    let address = "127.0.0.1:1".parse().expect("an address");
    Arc::new(ConnectionInfo::new(address, address, None, protocol))
}

fn early_hints(interim: &Interim) -> Result<(), InterimDropped> {
    interim.send(StatusCode::EARLY_HINTS, &HeaderMap::new())
}

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\n\r\n";

/// RFC 9110 §15.2: HTTP/1.0 has no 1xx.
#[test]
fn only_http_1_1_has_interim_responses() {
    assert!(connection(Protocol::Http1).interim(Version::HTTP_11).is_some());
    assert!(connection(Protocol::Http1).interim(Version::HTTP_10).is_none());
    assert!(connection(Protocol::Http2).interim(Version::HTTP_2).is_none());
}

#[test]
fn a_head_is_a_status_line_and_fields() {
    let mut setup = Setup::new();
    let interim = setup.interim();
    let mut fields = HeaderMap::new();
    fields.append("link", HeaderValue::from_static("</a>"));
    fields.append("link", HeaderValue::from_static("</b>"));
    fields.append("x-text", HeaderValue::from_bytes("ü".as_bytes()).expect("obs-text is allowed"));
    interim.send(StatusCode::EARLY_HINTS, &fields).expect("sent");
    interim.send(StatusCode::from_u16(199).expect("a status"), &HeaderMap::new()).expect("sent");
    assert!(setup.flush().is_ready());
    assert_eq!(
        setup.written(),
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nlink: </b>\r\nx-text: ü\r\n\r\nHTTP/1.1 199 \r\n\r\n"
    );
    assert_eq!(setup.io.stream.flushes, 1);
}

#[test]
fn what_is_no_interim_response_is_refused() {
    let interim = Setup::new().interim();
    for status in [StatusCode::SWITCHING_PROTOCOLS, StatusCode::OK] {
        assert_eq!(interim.send(status, &HeaderMap::new()), Err(InterimDropped::NotInterim), "{status}");
    }
}

/// Between two writes hyper may be in the middle of a message; when it flushes it is not.
#[test]
fn heads_leave_at_a_flush_and_not_before() {
    let mut setup = Setup::new();
    let interim = setup.interim();
    early_hints(&interim).expect("sent");
    assert!(setup.write("the end of the response before").is_ready());
    assert_eq!(setup.written(), "the end of the response before");
    assert!(setup.flush().is_ready());
    assert_eq!(setup.written(), format!("the end of the response before{HINTS}"));
}

#[test]
fn a_begun_head_ends_before_anything_else_is_written() {
    let mut setup = Setup::new();
    let interim = setup.interim();
    early_hints(&interim).expect("sent");
    setup.io.stream.room = 5;
    assert!(setup.flush().is_pending());
    setup.connection.interim.close();
    assert!(setup.write("final").is_pending());
    assert_eq!(setup.written(), "HTTP/");
    setup.io.stream.room = usize::MAX;
    assert!(setup.write("final").is_ready());
    assert_eq!(setup.written(), format!("{HINTS}final"));
}

#[test]
fn nothing_is_sent_after_the_handler_has_answered() {
    let mut setup = Setup::new();
    let interim = setup.interim();
    assert!(setup.finish().is_ready(), "nothing waits, so nothing is waited for");
    assert_eq!(early_hints(&interim), Err(InterimDropped::TooLate));
    let next = setup.interim();
    assert_eq!(early_hints(&interim), Err(InterimDropped::TooLate), "it is another request's turn");
    early_hints(&next).expect("sent");
    assert!(setup.flush().is_ready());
    assert_eq!(setup.written(), HINTS);
}

/// What came in the same packet as the final response still leaves; a client that does not read holds up nothing.
#[tokio::test]
async fn what_waits_has_one_turn_to_leave() {
    for has_room in [true, false] {
        let mut setup = Setup::new();
        let interim = setup.interim();
        early_hints(&interim).expect("sent");
        let queue = setup.connection.clone();
        let mut finish = std::pin::pin!(queue.interim.finish());
        assert!(finish.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        if has_room {
            assert!(setup.flush().is_ready());
        }
        assert!(finish.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        assert!(setup.flush().is_ready());
        assert_eq!(setup.written(), if has_room { HINTS } else { "" });
    }
}

#[test]
fn a_head_wakes_the_connection_that_looked_for_one() {
    let mut setup = Setup::new();
    assert!(setup.flush().is_ready());
    let interim = setup.interim();
    early_hints(&interim).expect("sent");
    assert_eq!(setup.woken(), 0, "before the request nobody looked");
    assert!(setup.flush().is_ready());
    early_hints(&interim).expect("sent");
    assert_eq!(setup.woken(), 1);
    assert!(setup.flush().is_ready());
    assert_eq!(setup.written(), HINTS.repeat(2));
}

#[test]
fn a_request_has_a_bounded_count_of_them() {
    let mut setup = Setup::new();
    let interim = setup.interim();
    for _ in 0..INTERIM_COUNT_MAX {
        early_hints(&interim).expect("sent");
        assert!(setup.flush().is_ready());
    }
    assert_eq!(early_hints(&interim), Err(InterimDropped::TooMany));
    let again = setup.interim();
    assert_eq!(early_hints(&again), Err(InterimDropped::TooMany), "the second forward of the same request");
    assert_eq!(early_hints(&interim), Err(InterimDropped::TooLate), "the first one is over");
    assert!(setup.finish().is_ready());
    early_hints(&setup.interim()).expect("the next request begins anew");
    assert_eq!(setup.written(), HINTS.repeat(INTERIM_COUNT_MAX));
}

#[test]
fn the_fields_of_one_are_bounded() {
    let setup = Setup::new();
    let interim = setup.interim();
    let fields = |length: usize| {
        let value = HeaderValue::from_str(&"x".repeat(length)).expect("a value");
        HeaderMap::from_iter([(http::header::LINK, value)])
    };
    let room = INTERIM_BYTES_MAX - "link: \r\n".len();
    assert_eq!(interim.send(StatusCode::EARLY_HINTS, &fields(room + 1)), Err(InterimDropped::TooLong));
    interim.send(StatusCode::EARLY_HINTS, &fields(room)).expect("sent");
}

#[test]
fn a_connection_that_ends_gathers_nothing() {
    let setup = Setup::new();
    let interim = setup.interim();
    early_hints(&interim).expect("sent");
    drop(setup.io);
    assert_eq!(early_hints(&interim), Err(InterimDropped::TooLate));
    assert!(setup.connection.interim.waiting.lock().heads.is_empty());
}
