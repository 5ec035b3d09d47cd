//! Requests that go to a further endpoint, and those that must not.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::origin::AttemptCounts;

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno";

/// Reads requests and closes without a word.
async fn closing() -> RawOrigin {
    RawOrigin::start(|mut connection, _| async move {
        let _ = connection.request().await;
    })
    .await
}

/// Reads requests and says nothing.
async fn silent() -> RawOrigin {
    RawOrigin::start(|mut connection, _| async move {
        let _ = connection.request().await;
        connection.closed().await;
    })
    .await
}

/// Answers at once, or so late while it is told to.
async fn stalling(late: Duration) -> (RawOrigin, Arc<AtomicBool>) {
    let stalls = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stalls);
    let script = move |mut connection: RawConnection, _| {
        let told = Arc::clone(&told);
        async move {
            while connection.request().await.is_some() {
                if told.load(SeqCst) {
                    tokio::time::sleep(late).await;
                }
                connection.write(OK).await;
            }
        }
    };
    (RawOrigin::start(script).await, stalls)
}

async fn refusing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address")
}

fn idempotent() -> RetryConfig {
    RetryConfig { idempotent: true, ..config(&[]).retries }
}

/// Both endpoints in turn, the first one first, none ever out.
fn retrying(addresses: &[SocketAddr], retries: RetryConfig) -> Arc<Origin> {
    let ejection = EjectionConfig { consecutive_errors: 0, ..config(&[]).ejection };
    origin(OriginConfig { retries, ejection, ..config(addresses) })
}

fn counts(origin: &Origin) -> AttemptCounts {
    origin.snapshot().attempts
}

fn put(content: &'static str) -> Request<ForwardBody> {
    let body = ForwardBody::full(bytes::Bytes::from_static(content.as_bytes()));
    Request::builder().method(Method::PUT).uri("/").header("host", "shop.test").body(body).expect("a request")
}

#[tokio::test]
async fn an_idempotent_request_that_fails_goes_to_another_endpoint_where_that_is_allowed() {
    let (bad, good) = (closing().await, RawOrigin::answering(OK).await);
    let addresses = [bad.address, good.address];
    let origin = retrying(&addresses, idempotent());
    for request in [get("/"), put("x")] {
        // The bad one is first each time: the one before took both turns.
        assert_eq!(text(origin.send(request).await.expect("an answer")).await, "ok");
    }
    assert_eq!((bad.requests(), good.requests(), counts(&origin).further), (1, 2, [0, 1, 0, 0]));
    let error = refusal(&origin, post("/", "x")).await;
    assert!(matches!(error, ForwardError::ClosedEarly { .. }), "{error:?}: a POST is not idempotent");
    let origin = retrying(&addresses, config(&[]).retries);
    let error = refusal(&origin, get("/")).await;
    assert!(matches!(error, ForwardError::ClosedEarly { .. }), "{error:?}: it is not allowed");
    assert_eq!(counts(&origin), AttemptCounts::default());
}

/// Content that comes once only cannot be sent twice, whatever the method.
#[tokio::test]
async fn a_stream_is_not_sent_twice() {
    let (bad, good) = (closing().await, RawOrigin::answering(OK).await);
    let origin = retrying(&[bad.address, good.address], idempotent());
    let mut request = post("/", "x");
    *request.method_mut() = Method::PUT;
    let error = refusal(&origin, request).await;
    assert!(matches!(error, ForwardError::ClosedEarly { .. }), "{error:?}");
    assert_eq!(good.requests(), 0);
}

#[tokio::test]
async fn a_status_is_repeated_where_it_is_named() {
    let (busy, good) = (RawOrigin::answering(BUSY).await, RawOrigin::answering(OK).await);
    let named = RetryConfig { statuses: vec![502..=503], ..idempotent() };
    let origin = retrying(&[busy.address, good.address], named.clone());
    assert_eq!(text(origin.send(get("/")).await.expect("an answer")).await, "ok");
    assert_eq!(counts(&origin).further, [0, 0, 1, 0]);
    // All say so: the last answer is the answer.
    let origin = retrying(&[busy.address], named);
    assert_eq!(text(origin.send(get("/")).await.expect("an answer")).await, "no");
    assert_eq!(counts(&origin), AttemptCounts::default());
}

#[tokio::test]
async fn an_attempt_that_can_be_followed_by_another_has_a_limit_of_its_own() {
    let (silent, good) = (silent().await, RawOrigin::answering(OK).await);
    let retries = RetryConfig { try_timeout: Some(Duration::from_millis(50)), ..idempotent() };
    let origin = retrying(&[silent.address, good.address], retries);
    assert_eq!(text(origin.send(get("/")).await.expect("an answer")).await, "ok");
    assert_eq!(counts(&origin).further, [0, 1, 0, 0]);
}

#[tokio::test]
async fn all_attempts_together_have_a_deadline() {
    let silent = silent().await;
    let origin = origin(OriginConfig { deadline: Some(Duration::from_millis(50)), ..config(&[silent.address]) });
    let error = refusal(&origin, get("/")).await;
    assert!(matches!(error, ForwardError::Deadline { .. }), "{error:?}");
    assert_eq!((error.status().as_u16(), error.as_detail()), (504, "deadline"));
    until("the connection is closed", || open(&origin) == 0).await;
}

#[tokio::test]
async fn further_endpoints_are_bounded_and_each_is_tried_once() {
    let mut addresses = Vec::new();
    for _ in 0..5 {
        addresses.push(refusing().await);
    }
    let origin = retrying(&addresses, RetryConfig { max: 2, ..idempotent() });
    let error = refusal(&origin, get("/")).await;
    assert!(matches!(error, ForwardError::ConnectRefused { .. }), "{error:?}");
    let requests: Vec<u64> = origin.snapshot().endpoints.iter().map(|endpoint| endpoint.counts.requests).collect();
    assert_eq!((requests.iter().sum::<u64>(), requests.iter().max()), (3, Some(&1)), "{requests:?}");
    assert_eq!(counts(&origin).further, [2, 0, 0, 0]);
    let none = retrying(&addresses, RetryConfig { max: 0, ..idempotent() });
    refusal(&none, get("/")).await;
    assert_eq!(counts(&none), AttemptCounts::default());
}

/// An origin that fails everything gets a fifth more, not twice as much.
#[tokio::test]
async fn repetitions_are_paid_for_from_a_budget() {
    let servers = [closing().await, closing().await];
    let origin = retrying(&[servers[0].address, servers[1].address], idempotent());
    for _ in 0..200 {
        refusal(&origin, get("/")).await;
    }
    let counts = counts(&origin);
    assert_eq!((counts.further[1], counts.unpaid), (50, 150), "ten and a fifth: {counts:?}");
    assert_eq!(servers[0].requests() + servers[1].requests(), 250);
}

/// One endpoint stalls now and then: a second request beside it is answered first, and the first one is dropped.
#[tokio::test]
async fn a_get_that_takes_long_is_hedged() {
    let (slow, stalls) = stalling(Duration::from_secs(60)).await;
    let good = RawOrigin::answering(OK).await;
    let retries = RetryConfig { hedge_percentile: Some(95), budget: 100, ..config(&[]).retries };
    let origin = retrying(&[slow.address, good.address], retries);
    for _ in 0..200 {
        text(origin.send(get("/")).await.expect("an answer")).await;
    }
    let before = counts(&origin);
    stalls.store(true, SeqCst);
    for _ in 0..4 {
        assert_eq!(text(origin.send(get("/")).await.expect("an answer")).await, "ok");
    }
    let after = counts(&origin);
    assert!(
        after.further[3] >= before.further[3] + 2 && after.hedges_won >= before.hedges_won + 2,
        "{before:?} {after:?}"
    );
    until("what lost is closed", || origin.snapshot().endpoints[0].in_flight == 0).await;
    // Nothing that changes something is ever sent twice at a time.
    stalls.store(false, SeqCst);
    let before = counts(&origin).further[3];
    for _ in 0..4 {
        text(origin.send(put("x")).await.expect("an answer")).await;
    }
    assert_eq!(counts(&origin).further[3], before);
}

/// A second endpoint that is quick to refuse takes nothing from the first one that answers.
#[tokio::test]
async fn a_hedge_that_answers_badly_does_not_win() {
    let (slow, stalls) = stalling(Duration::from_millis(200)).await;
    let busy = RawOrigin::answering(BUSY).await;
    let retries = RetryConfig { hedge_percentile: Some(50), budget: 100, ..config(&[]).retries };
    let ejection = EjectionConfig { consecutive_errors: 0, ..config(&[]).ejection };
    let mut config = config(&[slow.address, busy.address]);
    config.endpoints[1].priority = 1;
    let origin = origin(OriginConfig { retries, ejection, ..config });
    for _ in 0..120 {
        assert_eq!(text(origin.send(get("/")).await.expect("an answer")).await, "ok");
    }
    stalls.store(true, SeqCst);
    let before = counts(&origin).further[3];
    assert_eq!(text(origin.send(get("/")).await.expect("an answer")).await, "ok", "the slow one is right");
    assert_eq!(counts(&origin).further[3], before + 1);
}

/// An endpoint that takes requests and never answers: what is given up counts against it.
#[tokio::test]
async fn a_deadline_that_passes_speaks_against_the_endpoint() {
    let (silent, good) = (silent().await, RawOrigin::answering(OK).await);
    let ejection = EjectionConfig { consecutive_errors: 2, ..config(&[]).ejection };
    let origin = origin(OriginConfig {
        ejection,
        deadline: Some(Duration::from_millis(40)),
        ..config(&[silent.address, good.address])
    });
    let mut late = 0;
    for _ in 0..10 {
        late += usize::from(origin.send(get("/")).await.is_err());
    }
    assert_eq!(late, 2, "then it is ejected");
    assert!(origin.snapshot().endpoints[0].latency.is_some());
}
