//! The wrapper over a socket that counts writes, and refuses or shortens them when told.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use super::*;

/// Takes at most `room` bytes until it is told to take more; keeps each write apart.
#[derive(Default)]
struct FakeSocket {
    writes: Vec<Vec<u8>>,
    room: usize,
    flushes: usize,
    /// Like a TLS session: bytes taken are sent only by a flush that succeeds.
    flush_blocked: bool,
    waker: Option<Waker>,
}

impl FakeSocket {
    fn with_room(room: usize) -> Self {
        Self { room, ..Self::default() }
    }

    fn written(&self) -> Vec<u8> {
        self.writes.concat()
    }
}

impl AsyncRead for FakeSocket {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for FakeSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.room == 0 {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        all.truncate(self.room);
        self.room -= all.len();
        let taken = all.len();
        self.writes.push(all);
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes += 1;
        if self.flush_blocked {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Default)]
struct CountWakes(AtomicUsize);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn write(io: &mut DeferredFlush<FakeSocket>, cx: &mut Context<'_>, slices: &[&[u8]]) -> Poll<usize> {
    let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
    Pin::new(io).poll_write_vectored(cx, &slices).map(|written| written.expect("written"))
}

fn flush(io: &mut DeferredFlush<FakeSocket>, cx: &mut Context<'_>) -> Poll<()> {
    Pin::new(io).poll_flush(cx).map(|flushed| flushed.expect("flushed"))
}

fn end(end: &EndOfTurn<FakeSocket>, cx: &mut Context<'_>) -> Poll<()> {
    end.poll(cx).map(|ended| ended.expect("ended"))
}

/// h2 writes and flushes once a DATA frame.
#[test]
fn the_small_writes_of_a_turn_leave_in_one() {
    let (mut io, turn) = deferred_flush(FakeSocket::with_room(usize::MAX));
    let mut cx = Context::from_waker(Waker::noop());
    let mut expected: Vec<u8> = Vec::new();
    for response in 0..32_u8 {
        let (head, content) = ([response; 60], [response; 1024]);
        assert_eq!(write(&mut io, &mut cx, &[&head, &content]), Poll::Ready(1084));
        assert_eq!(flush(&mut io, &mut cx), Poll::Ready(()));
        expected.extend(head.iter().chain(&content));
    }
    assert!(io.0.lock().stream.writes.is_empty());
    assert_eq!(end(&turn, &mut cx), Poll::Ready(()));
    let gathering = io.0.lock();
    assert_eq!(gathering.stream.writes.len(), 1);
    assert_eq!(gathering.stream.written(), expected);
    assert_eq!(gathering.buffer.capacity(), 0, "an idle connection holds no buffer");
}

#[test]
fn a_large_write_passes_uncopied_behind_what_was_gathered() {
    let (mut io, turn) = deferred_flush(FakeSocket::with_room(usize::MAX));
    let mut cx = Context::from_waker(Waker::noop());
    let large = vec![b'l'; 16_384];
    assert_eq!(write(&mut io, &mut cx, &[b"small"]), Poll::Ready(5));
    assert_eq!(write(&mut io, &mut cx, &[b"head", &large]), Poll::Ready(4 + large.len()));
    let gathering = io.0.lock();
    assert_eq!(gathering.stream.writes.len(), 1, "one system call for both");
    assert_eq!(gathering.stream.written(), [b"small".as_slice(), b"head", &large].concat());
    assert!(gathering.is_empty());
    drop(gathering);
    assert_eq!(end(&turn, &mut cx), Poll::Ready(()));
}

#[test]
fn a_full_socket_wakes_the_task_and_loses_nothing() {
    let wakes = Arc::new(CountWakes::default());
    let waker = Waker::from(wakes.clone());
    let mut cx = Context::from_waker(&waker);
    let (mut io, turn) = deferred_flush(FakeSocket::with_room(3));
    assert_eq!(write(&mut io, &mut cx, &[b"abcdef"]), Poll::Ready(6));
    assert_eq!(flush(&mut io, &mut cx), Poll::Ready(()));
    assert_eq!(end(&turn, &mut cx), Poll::Pending);
    // More comes while the socket is full; the order stays.
    assert_eq!(write(&mut io, &mut cx, &[b"gh"]), Poll::Ready(2));
    let waker = {
        let mut gathering = io.0.lock();
        gathering.stream.room = usize::MAX;
        gathering.stream.waker.take().expect("the socket knows whom to wake")
    };
    waker.wake();
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    assert_eq!(end(&turn, &mut cx), Poll::Ready(()));
    assert_eq!(io.0.lock().stream.written(), b"abcdefgh");
}

#[test]
fn a_full_buffer_makes_the_writer_wait() {
    let (mut io, turn) = deferred_flush(FakeSocket::with_room(0));
    let mut cx = Context::from_waker(Waker::noop());
    let chunk = [b'c'; GATHERED_WRITE_BYTES_MAX];
    let mut held = 0;
    while let Poll::Ready(written) = write(&mut io, &mut cx, &[&chunk]) {
        held += written;
        assert!(held <= GATHERED_BYTES_MAX);
    }
    assert_eq!(held, GATHERED_BYTES_MAX);
    let large = vec![b'l'; 16_384];
    assert_eq!(write(&mut io, &mut cx, &[&large]), Poll::Pending);
    io.0.lock().stream.room = 10;
    assert_eq!(end(&turn, &mut cx), Poll::Pending);
    io.0.lock().stream.room = usize::MAX;
    assert_eq!(write(&mut io, &mut cx, &[&large]), Poll::Ready(large.len()));
    assert_eq!(io.0.lock().stream.written().len(), held + large.len());
}

#[test]
fn a_partly_taken_large_write_reports_only_its_own_bytes() {
    let (mut io, turn) = deferred_flush(FakeSocket::with_room(7));
    let mut cx = Context::from_waker(Waker::noop());
    let large = vec![b'l'; 8192];
    assert_eq!(write(&mut io, &mut cx, &[b"small"]), Poll::Ready(5));
    assert_eq!(write(&mut io, &mut cx, &[&large]), Poll::Ready(2));
    assert_eq!(write(&mut io, &mut cx, &[&large[2..]]), Poll::Pending);
    io.0.lock().stream.room = usize::MAX;
    assert_eq!(write(&mut io, &mut cx, &[&large[2..]]), Poll::Ready(8190));
    assert_eq!(end(&turn, &mut cx), Poll::Ready(()));
    assert_eq!(io.0.lock().stream.written(), [b"small".as_slice(), &large].concat());
}

/// A TLS session takes bytes and may still hold them: they are flushed again until they have left.
#[test]
fn a_blocked_flush_is_tried_again_though_nothing_is_gathered() {
    let (mut io, turn) = deferred_flush(FakeSocket::with_room(usize::MAX));
    let mut cx = Context::from_waker(Waker::noop());
    io.0.lock().stream.flush_blocked = true;
    assert_eq!(write(&mut io, &mut cx, &[b"abc"]), Poll::Ready(3));
    assert_eq!(end(&turn, &mut cx), Poll::Pending);
    assert_eq!(end(&turn, &mut cx), Poll::Pending, "still owed");
    io.0.lock().stream.flush_blocked = false;
    assert_eq!(end(&turn, &mut cx), Poll::Ready(()));
    let flushes = io.0.lock().stream.flushes;
    assert_eq!(end(&turn, &mut cx), Poll::Ready(()));
    assert_eq!(io.0.lock().stream.flushes, flushes, "nothing owed, nothing flushed");
}

#[tokio::test]
async fn shutdown_writes_what_was_gathered_first() {
    let (mut io, _turn) = deferred_flush(FakeSocket::with_room(usize::MAX));
    poll_fn(|cx| write(&mut io, cx, &[b"last words"])).await;
    poll_fn(|cx| Pin::new(&mut io).poll_shutdown(cx)).await.expect("shut down");
    assert_eq!(io.0.lock().stream.written(), b"last words");
}
