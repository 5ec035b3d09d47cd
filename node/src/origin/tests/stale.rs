//! Kept connections that the endpoint has closed meanwhile.
//!
//! The race is made certain: one task sends and, in the same poll, lets the endpoint close; the runtime looks at its sockets
//! after every task, so the connection's driver gets the request and the end of the connection at once.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;

/// An endpoint with a thread of its own, so that it acts while the runtime of the test stands still.
struct Elsewhere {
    address: SocketAddr,
    close: SyncSender<()>,
    /// Locked, because a test's future may be sent between threads.
    closed: parking_lot::Mutex<Receiver<()>>,
    requests: Arc<AtomicUsize>,
}

impl Elsewhere {
    /// Answers one request on its first connection, which it closes when told to; later connections answer always.
    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let ((close, told), (tell, closed)) = (sync_channel::<()>(1), sync_channel(1));
        let requests = Arc::new(AtomicUsize::new(0));
        let requests_here = Arc::clone(&requests);
        std::thread::spawn(move || {
            let (mut first, _) = listener.accept().expect("a connection");
            answer(&mut first, &requests_here);
            told.recv().expect("the test says when");
            drop(first);
            tell.send(()).expect("the test waits for it");
            for mut later in listener.incoming().flatten() {
                while answer(&mut later, &requests_here) {}
            }
        });
        Self { address, close, closed: parking_lot::Mutex::new(closed), requests }
    }

    fn close_first(&self) {
        self.close.send(()).expect("it runs");
        self.closed.lock().recv().expect("it runs");
        // The end has been sent; on loopback it is there at once, this is for a busy machine.
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn answer(stream: &mut std::net::TcpStream, requests: &AtomicUsize) -> bool {
    use std::io::{Read, Write};
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Ok(_) | Err(_) => return false,
        }
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut content = vec![0; length];
    if stream.read_exact(&mut content).is_err() || !matches!(&content[..], b"" | b"content") {
        return false;
    }
    requests.fetch_add(1, SeqCst);
    stream.write_all(OK.as_bytes()).is_ok()
}

fn on_watchful_runtime<T: Send + 'static>(test: impl Future<Output = T> + Send + 'static) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().event_interval(1).build().expect("a runtime");
    runtime.block_on(async { tokio::spawn(test).await.expect("no panic") })
}

/// Sends on a kept connection that ends between the look at it and the request.
async fn send_into_the_end(
    server: &Elsewhere,
    origin: &Arc<Origin>,
    request: Request<ForwardBody>,
) -> Result<ForwardedResponse, ForwardError> {
    text(origin.send(get("/")).await.expect("an answer")).await;
    assert_eq!(idle(origin), 1);
    let mut sending = Box::pin(origin.send(request));
    std::future::poll_fn(|cx| {
        assert!(sending.as_mut().poll(cx).is_pending());
        server.close_first();
        Poll::Ready(())
    })
    .await;
    sending.await
}

#[test]
fn a_request_without_content_that_was_not_sent_is_sent_once_more() {
    let server = Elsewhere::start();
    let origin = origin(config(&[server.address]));
    let requests = Arc::clone(&server.requests);
    on_watchful_runtime(async move {
        let forwarded = send_into_the_end(&server, &origin, get("/")).await.expect("an answer");
        assert!(!forwarded.reused, "on a new connection");
        assert_eq!(text(forwarded).await, "ok");
        assert_eq!(origin.snapshot().endpoints[0].counts.retries, 1);
    });
    assert_eq!(requests.load(SeqCst), 2);
}

/// hyper gives it back untouched: whatever the method, and also if its content comes once only, it has not been sent.
#[test]
fn a_request_with_content_that_was_not_sent_is_sent_once_more_whole() {
    let server = Elsewhere::start();
    let origin = origin(config(&[server.address]));
    let requests = Arc::clone(&server.requests);
    on_watchful_runtime(async move {
        let forwarded = send_into_the_end(&server, &origin, post("/", "content")).await.expect("an answer");
        assert_eq!(text(forwarded).await, "ok");
        let counts = origin.snapshot().endpoints[0].counts.clone();
        assert_eq!((counts.retries, counts.connects), (1, 2));
    });
    assert_eq!(requests.load(SeqCst), 2);
}

#[tokio::test]
async fn an_end_that_is_already_there_is_seen_before_sending() {
    let server = Elsewhere::start();
    let origin = origin(config(&[server.address]));
    text(origin.send(get("/")).await.expect("an answer")).await;
    // The runtime stands still meanwhile: the driver cannot have seen it.
    server.close_first();
    assert_eq!(idle(&origin), 1);
    let forwarded = origin.send(post("/", "content")).await.expect("an answer");
    assert!(!forwarded.reused);
    assert_eq!(origin.snapshot().endpoints[0].counts.retries, 0);
}

#[tokio::test]
async fn a_request_that_was_sent_is_never_sent_again() {
    for request in [get as fn(&str) -> _, |path| post(path, "content")] {
        let server = RawOrigin::start(|mut connection, number| async move {
            connection.request().await;
            connection.write(OK).await;
            if number == 0 {
                connection.request().await;
            }
        })
        .await;
        let origin = origin(config(&[server.address]));
        text(origin.send(get("/")).await.expect("an answer")).await;
        let error = refusal(&origin, request("/")).await;
        assert!(matches!(error, ForwardError::ClosedEarly { .. }), "{error:?}");
        assert_eq!((error.status().as_u16(), error.is_retryable(), server.requests()), (502, false, 2));
    }
}
