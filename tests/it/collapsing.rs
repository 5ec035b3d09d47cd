//! Collapsed forwarding over sockets: one fetch, and what all who wait for it get (RFC 9111 §4).

use std::time::Duration;

use brim_tests::{Answer, Client, FakeOrigin, Gate, Streaming, TestNode, dropped_connection, eventually, ok, status};
use http::Method;
use tokio::task::JoinSet;

const WAITERS: usize = 500;
/// Below `listen.streams_max`.
const STREAMS: usize = 100;

/// Many requests at once, on few connections.
fn ask_many(node: &TestNode, target: &str, count: usize) -> JoinSet<Answer> {
    let mut asking = JoinSet::new();
    let mut left = count;
    while left > 0 {
        let client = node.http2();
        for _ in 0..left.min(STREAMS) {
            asking.spawn(client.ask(Method::GET, target).send());
        }
        left -= left.min(STREAMS);
    }
    asking
}

async fn start_many(client: &Client, target: &str, count: usize) -> JoinSet<Streaming> {
    let mut asking = JoinSet::new();
    for _ in 0..count {
        let ask = client.ask(Method::GET, target);
        asking.spawn(async move { ask.start().await.expect("a head") });
    }
    asking
}

/// Until this many requests wait for a fetch; what the node alone knows.
async fn until_waiting(node: &TestNode, count: usize) {
    eventually("the requests to wait", async || (node.waiting() >= count).then_some(())).await;
}

#[tokio::test]
async fn five_hundred_requests_wait_for_one_fetch_however_late_it_is() {
    let gate = Gate::new();
    let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=60").held_by(&gate)).await;
    let node = TestNode::in_front_of(&origin).await;
    let asking = ask_many(&node, "/a", WAITERS);
    until_waiting(&node, WAITERS - 1).await;
    // The node's clock: for it the origin takes half a minute.
    node.clock().advance(Duration::from_secs(30));
    gate.open();
    let answers = asking.join_all().await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.content() == "v1"));
    assert_eq!(answers.iter().filter(|answer| answer.cache_status().collapsed).count(), WAITERS - 1);
    // RFC 9111 §4.2.3: the origin's delay counts as age.
    assert!(answers.iter().all(|answer| answer.age() == Some(30)), "{}", answers[0].head());
    origin.assert_requests("/a", 1).await;
}

/// Stale on arrival, because it took longer than it may live: still as new as a fetch of their own would have been.
#[tokio::test]
async fn who_waited_is_answered_with_what_was_stale_on_arrival() {
    for control in ["max-age=0", "max-age=10", "no-cache", "s-maxage=10, must-revalidate"] {
        let gate = Gate::new();
        let reply = ok("v1").cache_control(control).etag("\"1\"").held_by(&gate);
        let origin = FakeOrigin::serving("/a", reply).await;
        let node = TestNode::in_front_of(&origin).await;
        let asking = ask_many(&node, "/a", 50);
        until_waiting(&node, 49).await;
        node.clock().advance(Duration::from_secs(30));
        gate.open();
        let answers = asking.join_all().await;
        assert!(answers.iter().all(|answer| answer.content() == "v1"), "{control}");
        origin.assert_requests("/a", 1).await;
    }
}

#[tokio::test]
async fn all_who_wait_get_the_beginning_before_the_end_exists() {
    let (head, rest) = (Gate::new(), Gate::new());
    let reply = ok("begin ").then_wait(&rest).then("end").chunked().cache_control("max-age=60").held_by(&head);
    let origin = FakeOrigin::serving("/a", reply).await;
    let node = TestNode::in_front_of(&origin).await;
    let asking = start_many(&node.http2(), "/a", STREAMS).await;
    until_waiting(&node, STREAMS - 1).await;
    head.open();
    let mut following = asking.join_all().await;
    for answer in &mut following {
        assert_eq!(answer.at_least(6).await.expect("the beginning"), "begin ");
    }
    rest.open();
    for answer in following {
        assert_eq!(answer.rest().await.expect("the whole").content(), "end");
    }
    origin.assert_requests("/a", 1).await;
}

/// What cannot be shared sets the waiters free with its head, not with its end; and for a while nobody waits for the next one.
#[tokio::test]
async fn an_answer_that_cannot_be_shared_sets_the_waiters_free_at_once_and_is_remembered() {
    for control in ["private", "no-store"] {
        let (head, rest) = (Gate::new(), Gate::new());
        let origin = FakeOrigin::start().await;
        origin.serve("/a", ok("mine ").then_wait(&rest).then("alone").cache_control(control).held_by(&head));
        let node = TestNode::in_front_of(&origin).await;
        let asking = ask_many(&node, "/a", 20);
        until_waiting(&node, 19).await;
        head.open();
        // None of the contents has ended.
        origin.wait_for_requests("/a", 20).await;
        let later = ask_many(&node, "/a", 20);
        origin.wait_for_requests("/a", 40).await;
        rest.open();
        for answer in asking.join_all().await.into_iter().chain(later.join_all().await) {
            answer.assert_content("mine alone").assert_not_stored();
            assert!(!answer.cache_status().collapsed, "{}", answer.head());
        }
        origin.assert_requests("/a", 40).await;
    }
}

/// A fetch that fails fails for all who waited for it; they do not repeat it one by one. The next request does.
#[tokio::test]
async fn a_fetch_that_fails_is_not_repeated_by_its_waiters() {
    let gate = Gate::new();
    let origin = FakeOrigin::start().await;
    origin.serve_each("/a", [dropped_connection().held_by(&gate), ok("v1").cache_control("max-age=60")]);
    let node = TestNode::in_front_of(&origin).await;
    let asking = ask_many(&node, "/a", 30);
    until_waiting(&node, 29).await;
    gate.open();
    assert!(asking.join_all().await.iter().all(|answer| answer.status == 502));
    origin.assert_requests("/a", 1).await;
    node.get("/a").await.assert_status(200).assert_content("v1");
}

/// A fill that breaks off takes nobody's place: the next request fetches again, and what it gets is stored.
#[tokio::test]
async fn a_fill_that_broke_off_is_fetched_anew() {
    let rest = Gate::new();
    let origin = FakeOrigin::start().await;
    let cut = ok("begin ").then_wait(&rest).chunked().then_abort().cache_control("max-age=60");
    origin.serve_each("/a", [cut, ok("whole").cache_control("max-age=60")]);
    let node = TestNode::in_front_of(&origin).await;
    let asking = start_many(&node.http2(), "/a", 10).await;
    let following = asking.join_all().await;
    rest.open();
    for answer in following {
        assert!(answer.rest().await.is_err(), "a short success");
    }
    node.settled().await;
    node.get("/a").await.assert_content("whole").assert_stored();
    node.get("/a").await.assert_hit().assert_content("whole");
    origin.assert_requests("/a", 2).await;
}

/// The client that caused the fetch leaves, before the head or in the middle of the content; those who wait get all of it.
#[tokio::test]
async fn who_waits_does_not_depend_on_who_came_first() {
    let (head, rest) = (Gate::new(), Gate::new());
    let reply = ok("begin ").then_wait(&rest).then("end").chunked().cache_control("max-age=60").held_by(&head);
    let origin = FakeOrigin::serving("/a", reply).await;
    let node = TestNode::in_front_of(&origin).await;
    let first = tokio::spawn(node.ask(Method::GET, "/a").send());
    origin.wait_for_requests("/a", 1).await;
    let asking = start_many(&node.http2(), "/a", 10).await;
    until_waiting(&node, 10).await;
    first.abort();
    assert!(first.await.is_err(), "it left");
    head.open();
    let mut following = asking.join_all().await;
    let mut leaving = following.pop().expect("one of ten");
    assert_eq!(leaving.at_least(6).await.expect("the beginning"), "begin ");
    drop(leaving);
    rest.open();
    for answer in following {
        assert_eq!(answer.rest().await.expect("the whole").content(), "begin end");
    }
    origin.assert_requests("/a", 1).await;
}

/// Of a server error that may not be stored nothing is remembered: the next requests wait for one another again.
#[tokio::test]
async fn an_origin_in_trouble_is_asked_by_one_at_a_time() {
    let gate = Gate::new();
    let origin = FakeOrigin::start().await;
    origin.serve_each("/a", [status(503), ok("v1").cache_control("max-age=60").held_by(&gate)]);
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_status(503);
    let asking = ask_many(&node, "/a", 20);
    until_waiting(&node, 19).await;
    gate.open();
    assert!(asking.join_all().await.iter().all(|answer| answer.content() == "v1"));
    origin.assert_requests("/a", 2).await;
}

/// Waiters for a variant that turns out to be another one fetch theirs, once for each.
#[tokio::test]
async fn waiters_that_want_another_variant_fetch_it_once() {
    let gate = Gate::new();
    let origin = FakeOrigin::start().await;
    let held = gate.clone();
    origin.answer("/a", move |request| {
        let language = request.header("accept-language").unwrap_or("none").to_owned();
        ok(language).cache_control("max-age=60").vary("Accept-Language").held_by(&held)
    });
    let node = TestNode::in_front_of(&origin).await;
    let client = node.http2();
    let mut asking = JoinSet::new();
    for place in 0..30 {
        let language = ["de", "en", "fr"][place % 3];
        let ask = client.ask(Method::GET, "/a").header("accept-language", language);
        asking.spawn(async move { (language, ask.send().await) });
    }
    until_waiting(&node, 29).await;
    gate.open();
    for (language, answer) in asking.join_all().await {
        answer.assert_content(language);
    }
    origin.assert_requests("/a", 3).await;
}

/// RFC 6585: a refusal that is about one request takes the cache from nobody else.
#[tokio::test]
async fn an_error_about_one_request_says_nothing_of_the_next() {
    for code in [428, 429, 431] {
        let origin = FakeOrigin::start().await;
        origin.answer("/a", move |request| match request.header("x-odd") {
            Some(_) => status(code),
            None => ok("v1").cache_control("max-age=60"),
        });
        let node = TestNode::in_front_of(&origin).await;
        node.get_with("/a", "x-odd", "1").await.assert_status(code).assert_not_stored();
        node.get("/a").await.assert_stored();
        node.get("/a").await.assert_hit();
    }
}

/// What one client's own fields made private is no reason to keep nothing for the others.
#[tokio::test]
async fn a_private_answer_to_one_keeps_nothing_from_the_others() {
    let origin = FakeOrigin::start().await;
    origin.answer("/a", |request| match request.header("cookie") {
        Some(_) => ok("mine").cache_control("private"),
        None => ok("v1").cache_control("max-age=60"),
    });
    let node = TestNode::in_front_of(&origin).await;
    node.get_with("/a", "cookie", "me").await.assert_not_stored().assert_content("mine");
    node.get("/a").await.assert_stored();
    node.get("/a").await.assert_hit();
}
