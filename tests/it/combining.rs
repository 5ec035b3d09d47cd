//! What parts, gaps and conditions must never come to together: bytes of two representations, or a part for a whole
//! (RFC 9110 §13.1.5, §15.3.7, RFC 9111 §3.4).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use brim_tests::{FakeOrigin, Gate, Recorded, Reply, TestNode, eventually, ok, status};
use http::Method;

const DIGITS: &str = "0123456789";
const LETTERS: &str = "abcdefghij";
/// Nothing is small enough to be fetched whole.
const LONG: &str = "[store]\nrange_whole_max = \"0B\"\n";

async fn node_of(origin: &FakeOrigin, tables: &str) -> TestNode {
    TestNode::start(&TestNode::config(origin, "", tables)).await
}

/// The bytes `range` of `content`, as a 206.
fn part(content: &str, range: std::ops::Range<usize>, tag: &str) -> Reply {
    let (first, last, length) = (range.start, range.end - 1, content.len());
    let reply = ok(content[range].to_owned()).status(206).cache_control("max-age=60").etag(tag);
    reply.header("content-range", &format!("bytes {first}-{last}/{length}"))
}

fn whole(content: &str, tag: &str) -> Reply {
    ok(content.to_owned()).cache_control("max-age=60").etag(tag)
}

fn range_of(request: &Recorded) -> &str {
    request.header("range").unwrap_or("")
}

/// Requests that lack the same bytes of different representations do not share a fetch.
#[tokio::test]
async fn gaps_of_different_representations_are_fetched_apart() {
    let origin = FakeOrigin::start().await;
    let gate = Gate::new();
    let held = gate.clone();
    origin.answer("/a", move |request| {
        match (range_of(request), request.header("if-range"), request.header("if-none-match")) {
            ("bytes=0-4", _, None) => part(DIGITS, 0..5, "\"1\""),
            ("bytes=0-4", _, Some(_)) => part(LETTERS, 0..5, "\"2\""),
            // Begun while the first representation was current.
            ("bytes=5-", Some("\"1\""), _) => part(DIGITS, 5..10, "\"1\"").held_by(&held),
            ("bytes=5-", Some("\"2\""), _) => part(LETTERS, 5..10, "\"2\""),
            _ => whole(LETTERS, "\"2\""),
        }
    });
    let node = Arc::new(node_of(&origin, LONG).await);
    let get = || {
        let node = node.clone();
        tokio::spawn(async move { node.get("/a").await })
    };
    node.get_with("/a", "range", "bytes=0-4").await.assert_stored().assert_content("01234");
    let first = get();
    origin.wait_for_requests("/a", 2).await;
    node.clock().advance(Duration::from_secs(61));
    node.get_with("/a", "range", "bytes=0-4").await.assert_stored().assert_content("abcde");
    let second = get();
    eventually("it waits or is sent", async || (node.waiting() == 1 || origin.requests("/a").len() == 4).then_some(()))
        .await;
    gate.open();
    first.await.unwrap().assert_status(200).assert_content(DIGITS);
    second.await.unwrap().assert_status(200).assert_content(LETTERS);
}

/// RFC 9110 §13.1.5: while a stale part is validated, the client's `If-Range` still says what it would go on with.
#[tokio::test]
async fn if_range_holds_also_where_a_part_is_validated() {
    let origin = FakeOrigin::start().await;
    origin.answer("/a", |request| match (request.header("if-none-match"), request.header("if-range")) {
        (None, _) => part(DIGITS, 0..5, "\"1\""),
        (Some(_), None | Some("\"2\"")) => part(LETTERS, 0..5, "\"2\""),
        (Some(_), Some(_)) => whole(LETTERS, "\"2\""),
    });
    let node = node_of(&origin, LONG).await;
    node.get_with("/a", "range", "bytes=0-4").await.assert_stored();
    node.clock().advance(Duration::from_secs(61));
    let resumed = node.ask(Method::GET, "/a").header("range", "bytes=0-4").header("if-range", "\"1\"").send().await;
    resumed.assert_status(200).assert_content(LETTERS);
}

/// The same where other variants are stored, and the origin may name one of them.
#[tokio::test]
async fn if_range_holds_also_where_a_variant_is_selected() {
    let origin = FakeOrigin::start().await;
    origin.answer("/a", |request| {
        match (request.header("x-kind"), request.header("range"), request.header("if-range")) {
            (Some("digits"), ..) => whole(DIGITS, "\"1\"").vary("x-kind"),
            (_, Some(_), None) => part(LETTERS, 0..5, "\"2\"").vary("x-kind"),
            _ => whole(LETTERS, "\"2\"").vary("x-kind"),
        }
    });
    let node = node_of(&origin, LONG).await;
    node.get_with("/a", "x-kind", "digits").await.assert_stored();
    let ask = node.ask(Method::GET, "/a").header("x-kind", "letters").header("range", "bytes=0-4");
    ask.header("if-range", "\"0\"").send().await.assert_status(200).assert_content(LETTERS);
}

/// A gap's answer that may not be stored is no answer to the client that asked for the whole.
#[tokio::test]
async fn the_answer_for_a_gap_is_never_the_answer_for_a_client() {
    for (name, value) in [("cache-control", "no-store"), ("authorization", "Basic YTpi")] {
        let origin = FakeOrigin::start().await;
        origin.answer("/a", |request| match range_of(request) {
            "bytes=0-4" => part(DIGITS, 0..5, "\"1\""),
            "bytes=5-" => part(DIGITS, 5..10, "\"1\""),
            "bytes=5-6" => part(DIGITS, 5..7, "\"1\""),
            "bytes=2-6" => part(DIGITS, 2..7, "\"1\""),
            _ => whole(DIGITS, "\"1\""),
        });
        let node = node_of(&origin, LONG).await;
        node.get_with("/a", "range", "bytes=0-4").await.assert_stored();
        node.get_with("/a", name, value).await.assert_status(200).assert_content(DIGITS);
        let ask = node.ask(Method::GET, "/a").header(name, value).header("range", "bytes=2-6");
        let ranged = ask.send().await;
        ranged.assert_status(206).assert_content("23456");
        assert_eq!(ranged.header("content-range"), Some("bytes 2-6/10"));
    }
}

/// The same where the response itself forbids it.
#[tokio::test]
async fn a_gap_that_became_private_is_not_sent_for_the_whole() {
    let origin = FakeOrigin::start().await;
    origin.answer("/a", |request| match range_of(request) {
        "bytes=0-4" => part(DIGITS, 0..5, "\"1\""),
        "bytes=5-" => part(DIGITS, 5..10, "\"1\"").cache_control("private"),
        _ => whole(DIGITS, "\"1\"").cache_control("private"),
    });
    let node = node_of(&origin, LONG).await;
    node.get_with("/a", "range", "bytes=0-4").await.assert_stored();
    node.get("/a").await.assert_status(200).assert_content(DIGITS);
}

/// Several ranges, of which what is missing comes in one piece that begins and ends elsewhere.
#[tokio::test]
async fn several_ranges_around_a_gap_are_answered() {
    let content: String = ('a'..='z').cycle().take(1000).collect();
    let origin = FakeOrigin::start().await;
    let served = content.clone();
    origin.answer("/a", move |request| match range_of(request) {
        "bytes=0-9" => part(&served, 0..10, "\"1\""),
        "bytes=10-" => part(&served, 10..1000, "\"1\""),
        _ => whole(&served, "\"1\""),
    });
    let node = node_of(&origin, "").await;
    node.get_with("/a", "range", "bytes=0-9").await.assert_stored();
    let several = node.get_with("/a", "range", "bytes=0-4, 500-509").await;
    several.assert_status(200).assert_content(&content);
    node.get_with("/a", "range", "bytes=0-4, 500-509").await.assert_status(206).assert_hit();
    node.get("/a").await.assert_hit().assert_content(&content);
}

/// RFC 9530 §2: `Content-Digest` is of the content that was sent with it, not of what is made of that.
#[tokio::test]
async fn no_digest_of_another_content_is_sent() {
    let origin = FakeOrigin::start().await;
    origin.answer("/a", |request| {
        let (start, end) = match range_of(request) {
            "bytes=0-4" => (0, 5),
            "bytes=5-" => (5, 10),
            _ => return whole(DIGITS, "\"1\"").header("content-digest", "sha-256=:whole:"),
        };
        part(DIGITS, start..end, "\"1\"").header("content-digest", &format!("sha-256=:from{start}:"))
    });
    origin.serve("/b", whole(DIGITS, "\"1\"").header("content-digest", "sha-256=:whole:"));
    let node = node_of(&origin, LONG).await;
    node.get_with("/a", "range", "bytes=0-4").await.assert_stored();
    for _ in 0..2 {
        let assembled = node.get("/a").await;
        assembled.assert_status(200).assert_content(DIGITS);
        assert_eq!(assembled.header("content-digest"), None);
    }
    let kept = node.get("/b").await;
    assert_eq!(kept.header("content-digest"), Some("sha-256=:whole:"));
    let cut = node.get_with("/b", "range", "bytes=0-4").await;
    cut.assert_status(206).assert_hit();
    assert_eq!(cut.header("content-digest"), None);
}

/// A part that was fetched past a longer fetch of the whole does not hide the whole once that is there.
#[tokio::test]
async fn a_part_does_not_hide_a_fresh_whole() {
    let origin = FakeOrigin::start().await;
    let (end, late) = (Gate::new(), Gate::new());
    let (held, rest) = (late.clone(), end.clone());
    origin.answer("/a", move |request| match range_of(request) {
        "bytes=8-9" => part(DIGITS, 8..10, "\"1\"").held_by(&held),
        _ => ok("01234").then_wait(&rest).then("56789").declared_length(10).cache_control("max-age=60").etag("\"1\""),
    });
    let node = Arc::new(node_of(&origin, LONG).await);
    let mut first = node.ask(Method::GET, "/a").start().await.unwrap();
    first.at_least(5).await.unwrap();
    let apart = node.clone();
    let apart = tokio::spawn(async move { apart.get_with("/a", "range", "bytes=8-9").await });
    origin.wait_for_requests("/a", 2).await;
    end.open();
    first.rest().await.unwrap();
    node.get("/a").await.assert_hit().assert_content(DIGITS);
    node.clock().advance(Duration::from_secs(2));
    late.open();
    apart.await.unwrap().assert_status(206).assert_content("89");
    node.get("/a").await.assert_hit().assert_content(DIGITS);
    node.ask(Method::HEAD, "/a").send().await.assert_hit();
    origin.assert_requests("/a", 2).await;
}

/// RFC 9111 §4: a long content of an old representation that ends late takes nothing from a part of the new one.
#[tokio::test]
async fn an_older_whole_takes_no_newer_part_away() {
    let origin = FakeOrigin::start().await;
    let end = Gate::new();
    let rest = end.clone();
    origin.answer("/a", move |request| match range_of(request) {
        "bytes=8-9" => part(LETTERS, 8..10, "\"2\""),
        _ => ok("01234").then_wait(&rest).then("56789").declared_length(10).cache_control("max-age=60").etag("\"1\""),
    });
    let node = node_of(&origin, LONG).await;
    let mut first = node.ask(Method::GET, "/a").start().await.unwrap();
    first.at_least(5).await.unwrap();
    node.clock().advance(Duration::from_secs(2));
    node.get_with("/a", "range", "bytes=8-9").await.assert_status(206).assert_stored().assert_content("ij");
    end.open();
    first.rest().await.unwrap();
    node.settled().await;
    node.get_with("/a", "range", "bytes=8-9").await.assert_hit().assert_content("ij");
    origin.assert_requests("/a", 2).await;
}

/// An origin that knows no ranges is asked once, however far ahead the ranges lie that many wait for.
#[tokio::test]
async fn far_ranges_of_an_origin_without_ranges_collapse() {
    let origin = FakeOrigin::start().await;
    let gate = Gate::new();
    let reply =
        ok("01234").then_wait(&gate).then("56789").declared_length(10).cache_control("max-age=60").etag("\"1\"");
    let held = Gate::new();
    origin.serve("/a", reply.held_by(&held));
    let node = Arc::new(node_of(&origin, LONG).await);
    let ask = || {
        let node = node.clone();
        tokio::spawn(async move { node.get_with("/a", "range", "bytes=8-9").await })
    };
    let asked: Vec<_> = (0..6).map(|_| ask()).collect();
    eventually("all but one wait", async || (node.waiting() == 5).then_some(())).await;
    held.open();
    gate.open();
    for answer in asked {
        answer.await.unwrap().assert_status(206).assert_content("89");
    }
    origin.assert_requests("/a", 1).await;
}

/// Many clients at once, of whom each asks in its own way, while the origin changes and purges follow: what each gets is of one
/// version, is what it asked for, and is no older than a purge that came before it asked.
#[tokio::test]
async fn many_at_once_never_get_what_was_mixed_or_purged() {
    for (seed, tables) in [LONG, "", "[store]\nrange_whole_max = \"300B\"\n"].into_iter().enumerate() {
        let origin = FakeOrigin::start().await;
        let version = Arc::new(AtomicUsize::new(0));
        let current = version.clone();
        origin.answer("/a", move |request| of_version(request, current.load(Ordering::SeqCst)));
        let node = Arc::new(node_of(&origin, tables).await);
        let floor = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..8)
            .map(|client| {
                let (node, floor) = (node.clone(), floor.clone());
                tokio::spawn(async move {
                    let mut random = fastrand::Rng::with_seed((seed * 100 + client) as u64);
                    for _ in 0..150 {
                        let oldest = floor.load(Ordering::SeqCst);
                        ask_and_check(&node, &mut random, oldest).await;
                    }
                })
            })
            .collect();
        let mut random = fastrand::Rng::with_seed(seed as u64);
        while !clients.iter().all(tokio::task::JoinHandle::is_finished) {
            let newer = version.fetch_add(1, Ordering::SeqCst) + 1;
            match random.u32(0..3) {
                0 => node.clock().advance(Duration::from_secs(61)),
                1 => {}
                _ => {
                    node.purge(serde_json::json!({ "url": node.url("/a") })).await;
                    floor.store(newer, Ordering::SeqCst);
                }
            }
            tokio::time::sleep(Duration::from_millis(random.u64(1..20))).await;
        }
        for client in clients {
            client.await.unwrap();
        }
    }
}

const CONTENT_BYTES: usize = 400;

fn content_of(version: usize) -> String {
    let byte = |at: usize| char::from(b'!' + u8::try_from((at * 31 + version * 17) % 90).expect("below 90"));
    (0..CONTENT_BYTES + version % 5 * 7).map(byte).collect()
}

/// One representation a version, that knows ranges and conditions; sometimes in pieces, sometimes for one client alone.
fn of_version(request: &Recorded, version: usize) -> Reply {
    let (content, tag) = (content_of(version), format!("\"{version}\""));
    let dressed = |reply: Reply| {
        let reply = if version % 7 == 6 { reply.cache_control("private") } else { reply.cache_control("max-age=60") };
        reply.etag(&tag).delay(Duration::from_millis(version as u64 % 4))
    };
    if request.header("if-none-match").is_some_and(|tags| tags.contains(&tag)) {
        return dressed(status(304));
    }
    let in_pieces = |text: &str| {
        let (first, second) = text.split_at(text.len() / 2);
        ok(first.to_owned())
            .then_pause(Duration::from_millis(2))
            .then(second.to_owned())
            .declared_length(text.len() as u64)
    };
    let is_same = request.header("if-range").is_none_or(|condition| condition == tag);
    let range = request.header("range").filter(|_| is_same).and_then(|range| range.strip_prefix("bytes="));
    let Some((first, last)) = range.filter(|range| !range.contains(',')).and_then(|range| range.split_once('-')) else {
        return dressed(in_pieces(&content));
    };
    let start: usize = first.parse().expect("a number");
    let end = last.parse::<usize>().map_or(content.len(), |last| content.len().min(last + 1));
    let reply = in_pieces(&content[start..end]).status(206);
    dressed(reply.header("content-range", &format!("bytes {start}-{}/{}", end - 1, content.len())))
}

async fn ask_and_check(node: &TestNode, random: &mut fastrand::Rng, oldest: usize) {
    let start = random.usize(0..CONTENT_BYTES - 1);
    let end = (start + random.usize(1..200)).min(CONTENT_BYTES);
    let mut ask = node.ask(Method::GET, "/a");
    let kind = random.u32(0..10);
    let range = match kind {
        0..=2 => None,
        3 => Some(format!("bytes={start}-")),
        4 => Some(format!("bytes=0-3, {}-{}", 100 + start / 2, 100 + start / 2 + 5)),
        _ => Some(format!("bytes={start}-{}", end - 1)),
    };
    if let Some(range) = &range {
        ask = ask.header("range", range);
    }
    let if_range = (range.is_some() && random.u32(0..4) == 0).then(|| format!("\"{}\"", oldest + random.usize(0..2)));
    if let Some(tag) = &if_range {
        ask = ask.header("if-range", tag);
    }
    match random.u32(0..12) {
        0 => ask = ask.header("cache-control", "no-store"),
        1 => ask = ask.header("cache-control", "no-cache"),
        2 => ask = ask.header("authorization", "Basic YTpi"),
        _ => {}
    }
    let answer = ask.send().await;
    let tag = answer.header("etag").unwrap_or_else(|| panic!("{}", answer.head()));
    let version = tag.trim_matches('"').parse::<usize>().expect("a number");
    assert!(version >= oldest, "{version} is older than {oldest}: {}", answer.head());
    let content = content_of(version);
    match (answer.header("content-range"), &range) {
        (Some(place), Some(_)) => {
            answer.assert_status(206);
            assert!(if_range.is_none_or(|asked| asked == tag), "{}", answer.head());
            let (place, length) = place.strip_prefix("bytes ").expect("a range").split_once('/').expect("a range");
            assert_eq!(length.parse::<usize>().expect("a number"), content.len());
            let (first, last) = place.split_once('-').expect("a range");
            let (first, last) = (first.parse::<usize>().expect("a number"), last.parse::<usize>().expect("a number"));
            answer.assert_content(&content[first..=last]);
            if kind != 4 {
                assert_eq!(first, start);
            }
        }
        (None, Some(_)) if answer.status == 206 => {
            assert!(answer.header("content-type").expect("a type").contains("multipart"))
        }
        _ => drop(answer.assert_status(200).assert_content(&content)),
    }
}
