//! Ranges and partial responses (RFC 9110 §14, RFC 9111 §3.3, §3.4).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use brim_tests::{Client, FakeOrigin, Gate, Recorded, Reply, TestNode, eventually, ok, status};
use http::Method;

const DIGITS: &str = "0123456789";
/// Nothing is small enough to be fetched whole.
const LONG: &str = "[store]\nrange_whole_max = \"0B\"\n";

/// An origin of one representation that knows ranges, `If-Range` and `If-None-Match`.
fn ranged(request: &Recorded, content: &str, tag: &str) -> Reply {
    let with_fields = |reply: Reply| reply.cache_control("max-age=60").etag(tag);
    if request.header("if-none-match").is_some_and(|tags| tags.contains(tag)) {
        return with_fields(status(304));
    }
    let is_same = request.header("if-range").is_none_or(|condition| condition == tag && !tag.starts_with("W/"));
    let Some(range) = request.header("range").filter(|_| is_same).and_then(|range| range.strip_prefix("bytes=")) else {
        return with_fields(ok(content.to_owned()));
    };
    let length = content.len();
    let (start, end) = match range.split_once('-').expect("one range") {
        ("", count) => (length.saturating_sub(count.parse().expect("a number")), length),
        (start, "") => (start.parse().expect("a number"), length),
        (start, last) => (start.parse().expect("a number"), last.parse::<usize>().expect("a number") + 1),
    };
    if start >= length {
        return with_fields(status(416).header("content-range", &format!("bytes */{length}")));
    }
    let end = end.min(length);
    let part = ok(content[start..end].to_owned()).status(206);
    with_fields(part.header("content-range", &format!("bytes {start}-{}/{length}", end - 1)))
}

async fn origin_of(content: &'static str, tag: &'static str) -> FakeOrigin {
    let origin = FakeOrigin::start().await;
    origin.answer("/a", move |request| ranged(request, content, tag));
    origin
}

async fn node_of(origin: &FakeOrigin, tables: &str) -> TestNode {
    TestNode::start(&TestNode::config(origin, "", tables)).await
}

fn asked(origin: &FakeOrigin, number: usize) -> (Option<String>, Option<String>) {
    let requests = origin.requests("/a");
    let field = |name: &str| requests[number].header(name).map(str::to_owned);
    (field("range"), field("if-range"))
}

/// RFC 9111 §3.3: a part answers what lies within it.
#[tokio::test]
async fn a_part_is_stored_and_answers_what_lies_within_it() {
    let origin = origin_of(DIGITS, "\"1\"").await;
    let node = node_of(&origin, LONG).await;
    let first = node.get_with("/a", "range", "bytes=2-7").await;
    first.assert_status(206).assert_forwarded("uri-miss").assert_stored().assert_content("234567");
    for (range, content, content_range) in [
        ("bytes=2-7", "234567", "bytes 2-7/10"),
        ("bytes=3-4", "34", "bytes 3-4/10"),
        ("bytes=5-6", "56", "bytes 5-6/10"),
    ] {
        let part = node.get_with("/a", "range", range).await;
        part.assert_status(206).assert_hit().assert_content(content);
        assert_eq!(part.header("content-range"), Some(content_range));
        assert_eq!(part.header("content-length"), Some(content.len().to_string().as_str()));
        assert_eq!(part.header("etag"), Some("\"1\""));
    }
    node.get_with("/a", "range", "bytes=12-").await.assert_status(416).assert_hit();
    node.get_with("/a", "if-none-match", "\"1\"").await.assert_status(304).assert_hit();
    origin.assert_requests("/a", 1).await;
    assert_eq!(asked(&origin, 0), (Some("bytes=2-7".into()), None));
}

/// RFC 9111 §3.4: what is missing is asked for with `If-Range`, and put together with what is stored.
#[tokio::test]
async fn a_part_is_completed_by_what_is_missing() {
    let origin = origin_of(DIGITS, "\"1\"").await;
    let node = node_of(&origin, LONG).await;
    node.get_with("/a", "range", "bytes=0-4").await.assert_status(206).assert_content("01234");
    let whole = node.get("/a").await;
    whole.assert_status(200).assert_forwarded("partial").assert_stored().assert_content(DIGITS);
    assert_eq!(whole.cache_status().fwd_status, Some(206));
    assert_eq!((whole.header("content-range"), whole.header("content-length")), (None, Some("10")));
    assert_eq!(asked(&origin, 1), (Some("bytes=5-".into()), Some("\"1\"".into())));
    node.get("/a").await.assert_status(200).assert_hit().assert_content(DIGITS);
    node.get_with("/a", "range", "bytes=3-6").await.assert_status(206).assert_hit().assert_content("3456");
    origin.assert_requests("/a", 2).await;
}

/// Between two parts only the gap is fetched; what overlaps them too.
#[tokio::test]
async fn a_gap_between_parts_is_filled() {
    let origin = origin_of(DIGITS, "\"1\"").await;
    let node = node_of(&origin, LONG).await;
    node.get_with("/a", "range", "bytes=0-2").await.assert_content("012");
    node.get_with("/a", "range", "bytes=6-9").await.assert_forwarded("partial").assert_content("6789");
    node.get_with("/a", "range", "bytes=1-7").await.assert_status(206).assert_content("1234567");
    assert_eq!(asked(&origin, 2), (Some("bytes=3-5".into()), Some("\"1\"".into())));
    node.get("/a").await.assert_hit().assert_content(DIGITS);
    origin.assert_requests("/a", 3).await;
}

/// The length that the first answer told decides: of a short representation all that is missing is fetched at once.
#[tokio::test]
async fn a_short_representation_is_fetched_whole_the_second_time() {
    let origin = origin_of(DIGITS, "\"1\"").await;
    let node = node_of(&origin, "").await;
    node.get_with("/a", "range", "bytes=0-4").await.assert_status(206).assert_stored();
    node.get_with("/a", "range", "bytes=7-8").await.assert_status(206).assert_content("78");
    assert_eq!(asked(&origin, 1), (Some("bytes=5-".into()), Some("\"1\"".into())));
    node.get("/a").await.assert_hit().assert_content(DIGITS);
    origin.assert_requests("/a", 2).await;
}

/// RFC 9110 §13.1.5: the origin answers `If-Range` with the whole once it has another representation.
#[tokio::test]
async fn parts_of_another_representation_are_not_put_together() {
    let origin = FakeOrigin::start().await;
    let version = Arc::new(AtomicUsize::new(0));
    let current = version.clone();
    origin.answer("/a", move |request| match current.load(Ordering::SeqCst) {
        0 => ranged(request, DIGITS, "\"1\""),
        _ => ranged(request, "abcdefghij", "\"2\""),
    });
    let node = node_of(&origin, LONG).await;
    node.get_with("/a", "range", "bytes=0-4").await.assert_content("01234");
    version.store(1, Ordering::SeqCst);
    let whole = node.get("/a").await;
    whole.assert_status(200).assert_forwarded("partial").assert_content("abcdefghij");
    assert_eq!(whole.cache_status().fwd_status, Some(200));
    node.get_with("/a", "range", "bytes=0-4").await.assert_hit().assert_content("abcde");
    origin.assert_requests("/a", 2).await;
}

/// An origin that disregards `If-Range` and sends a part of something else: the whole is fetched.
#[tokio::test]
async fn an_origin_that_disregards_if_range_mixes_nothing() {
    let origin = FakeOrigin::start().await;
    let part = |content: &'static str, range: &str, tag: &str| {
        ok(content).status(206).cache_control("max-age=60").etag(tag).header("content-range", range)
    };
    origin.serve_each(
        "/a",
        [
            part("01234", "bytes 0-4/10", "\"1\""),
            part("fghij", "bytes 5-9/10", "\"2\""),
            ok("abcdefghij").cache_control("max-age=60").etag("\"2\""),
        ],
    );
    let node = node_of(&origin, LONG).await;
    node.get_with("/a", "range", "bytes=0-4").await.assert_content("01234");
    node.get("/a").await.assert_status(200).assert_content("abcdefghij");
    assert_eq!(asked(&origin, 2), (None, None));
    node.get_with("/a", "range", "bytes=0-1").await.assert_hit().assert_content("ab");
}

/// RFC 9111 §3.4: a weak validator joins nothing, but a part answers what lies within it.
#[tokio::test]
async fn a_weak_tag_joins_nothing() {
    let origin = origin_of(DIGITS, "W/\"1\"").await;
    let node = node_of(&origin, LONG).await;
    node.get_with("/a", "range", "bytes=0-4").await.assert_stored();
    node.get_with("/a", "range", "bytes=1-2").await.assert_hit().assert_content("12");
    node.get("/a").await.assert_status(200).assert_forwarded("partial").assert_content(DIGITS);
    assert_eq!(asked(&origin, 1), (None, None));
}

/// A 206 that contradicts itself passes, and is not stored; nor is one that nobody asked for, or a 416.
#[tokio::test]
async fn what_is_no_good_part_is_not_stored() {
    let origin = FakeOrigin::start().await;
    let part =
        |range: &str| ok("01234").status(206).cache_control("max-age=60").etag("\"1\"").header("content-range", range);
    let node = node_of(&origin, LONG).await;
    for (path, range) in [("/lying", "bytes 4-9/10"), ("/unknown", "bytes 0-4/*"), ("/beyond", "bytes 0-4/3")] {
        origin.serve(path, part(range));
        for _ in 0..2 {
            let answer = node.get_with(path, "range", "bytes=0-4").await;
            answer.assert_status(206).assert_not_stored().assert_content("01234");
            assert_eq!(answer.header("content-range"), Some(range));
        }
    }
    origin.serve("/unasked", part("bytes 0-4/10"));
    node.get("/unasked").await.assert_status(206).assert_not_stored();
    origin.serve("/empty", status(416).cache_control("max-age=60").header("content-range", "bytes */10"));
    node.get_with("/empty", "range", "bytes=20-").await.assert_status(416).assert_not_stored();
}

/// A part whose content is shorter than its range breaks off, and is not stored.
#[tokio::test]
async fn a_part_cut_short_is_not_stored() {
    let origin = FakeOrigin::start().await;
    let part = ok("012").chunked().status(206).cache_control("max-age=60").etag("\"1\"");
    origin.serve("/a", part.header("content-range", "bytes 0-4/10"));
    let node = node_of(&origin, LONG).await;
    for _ in 0..2 {
        assert!(node.ask(Method::GET, "/a").header("range", "bytes=0-4").try_send().await.is_err());
    }
    origin.assert_requests("/a", 2).await;
}

/// RFC 9111 §4.3.1: a stale part is confirmed by its validator, for the range that is asked for.
#[tokio::test]
async fn a_stale_part_is_validated() {
    let origin = origin_of(DIGITS, "\"1\"").await;
    let node = node_of(&origin, LONG).await;
    node.get_with("/a", "range", "bytes=2-7").await.assert_stored();
    node.clock().advance(Duration::from_secs(61));
    let confirmed = node.get_with("/a", "range", "bytes=3-4").await;
    confirmed.assert_status(206).assert_forwarded("stale").assert_content("34");
    assert_eq!(confirmed.cache_status().fwd_status, Some(304));
    let requests = origin.requests("/a");
    assert_eq!((requests[1].header("range"), requests[1].header("if-none-match")), (Some("bytes=3-4"), Some("\"1\"")));
    node.get_with("/a", "range", "bytes=5-6").await.assert_hit().assert_content("56");
    origin.assert_requests("/a", 2).await;
}

/// A purge takes parts like everything else, and what a purge has named completes nothing.
#[tokio::test]
async fn a_purged_part_completes_nothing() {
    let origin = origin_of(DIGITS, "\"1\"").await;
    let node = node_of(&origin, LONG).await;
    node.get_with("/a", "range", "bytes=0-4").await.assert_stored();
    node.purge(serde_json::json!({ "url": node.url("/a") })).await;
    node.get("/a").await.assert_content(DIGITS);
    assert_eq!(asked(&origin, 1), (None, None));
}

/// Of one variant so many parts are kept; the oldest make room.
#[tokio::test]
async fn the_oldest_parts_make_room() {
    const KEPT: usize = brim_node::request::partial::PARTS_MAX;
    let content: &'static str = "0123456789".repeat(100).leak();
    let origin = origin_of(content, "\"1\"").await;
    let node = node_of(&origin, LONG).await;
    let range = |number: usize| format!("bytes={}-{}", number * 20, number * 20 + 9);
    for number in 0..KEPT + 3 {
        node.get_with("/a", "range", &range(number)).await.assert_stored();
    }
    for number in 3..KEPT + 3 {
        node.get_with("/a", "range", &range(number)).await.assert_status(206).assert_hit();
    }
    for number in 0..3 {
        node.get_with("/a", "range", &range(number)).await.assert_status(206).assert_forwarded("partial");
    }
}

/// Parts survive a restart, and are put together from disk.
#[tokio::test]
async fn parts_are_read_from_disk() {
    let origin = origin_of(DIGITS, "\"1\"").await;
    let mut node = node_of(&origin, LONG).await;
    let client = |node: &TestNode| Client::http1(node.http_address()).authority("a.example");
    for range in ["bytes=0-4", "bytes=5-9"] {
        client(&node).ask(Method::GET, "/a").header("range", range).send().await.assert_stored();
    }
    node.restart().await;
    client(&node).get("/a").await.assert_status(200).assert_hit().assert_content(DIGITS);
    origin.assert_requests("/a", 2).await;
}

/// Requests for the same part collapse; the rest of it is fetched once for all, too.
#[tokio::test]
async fn requests_for_the_same_part_collapse() {
    let gate = Gate::new();
    let origin = FakeOrigin::start().await;
    let held = gate.clone();
    origin.answer("/a", move |request| ranged(request, DIGITS, "\"1\"").held_by(&held));
    let node = Arc::new(node_of(&origin, LONG).await);
    let ask = |range: Option<&'static str>| {
        let node = node.clone();
        tokio::spawn(async move {
            let ask = node.ask(Method::GET, "/a");
            match range {
                Some(range) => ask.header("range", range).send().await,
                None => ask.send().await,
            }
        })
    };
    let parts: Vec<_> = (0..8).map(|_| ask(Some("bytes=0-4"))).collect();
    origin.wait_for_requests("/a", 1).await;
    gate.open();
    for part in parts {
        part.await.unwrap().assert_status(206).assert_content("01234");
    }
    let wholes: Vec<_> = (0..8).map(|_| ask(None)).collect();
    for whole in wholes {
        whole.await.unwrap().assert_status(200).assert_content(DIGITS);
    }
    origin.assert_requests("/a", 2).await;
}

/// A range of a content that is still arriving is sent as soon as it is there.
#[tokio::test]
async fn a_range_is_cut_from_a_growing_content() {
    let (first, second) = (Gate::new(), Gate::new());
    let origin = FakeOrigin::start().await;
    let content = ok("01234").then_wait(&first).then("56789").then_wait(&second).then("abcde");
    origin.serve("/a", content.cache_control("max-age=60").etag("\"1\""));
    let node = Arc::new(node_of(&origin, "").await);
    let mut whole = node.ask(Method::GET, "/a").start().await.unwrap();
    whole.at_least(5).await.unwrap();
    let ranges = [("bytes=1-3", "123"), ("bytes=3-6", "3456"), ("bytes=5-9", "56789")];
    let asked = ranges.map(|(range, content)| {
        let node = node.clone();
        (tokio::spawn(async move { node.get_with("/a", "range", range).await }), content)
    });
    first.open();
    for (answer, content) in asked {
        let answer = answer.await.unwrap();
        answer.assert_status(206).assert_content(content);
        assert!(answer.cache_status().collapsed, "{}", answer.head());
    }
    second.open();
    whole.rest().await.unwrap().assert_content("56789abcde");
    origin.assert_requests("/a", 1).await;
}

/// A long fill that all its clients have left is not read to its end; a short rest is.
#[tokio::test]
async fn a_long_fill_that_nobody_reads_ends() {
    let origin = FakeOrigin::start().await;
    let long = ok("").then_repeat(vec![7_u8; 1 << 16], 10_000);
    origin.serve("/long", long.cache_control("max-age=60"));
    let gate = Gate::new();
    origin.serve("/short", ok("01234").then_wait(&gate).then("56789").cache_control("max-age=60"));
    let node = node_of(&origin, "[store]\nfinish_unread = \"64KiB\"\n").await;
    for path in ["/short", "/long"] {
        let mut leaving = node.http2().ask(Method::GET, path).start().await.unwrap();
        leaving.at_least(5).await.unwrap();
    }
    let ended = |metrics: &str| metrics.lines().any(|line| line == "brim_fills_unread_total 1");
    eventually("the fill ends", async || {
        let metrics = node.admin(Method::GET, "/metrics").send().await;
        ended(metrics.content()).then_some(())
    })
    .await;
    gate.open();
    node.get("/short").await.assert_content("0123456789");
    origin.assert_requests("/short", 1).await;
}

/// RFC 9110 §14.6, §15.3.7.2: several ranges in one answer, each with its place.
#[tokio::test]
async fn several_ranges_are_sent_as_multipart() {
    let content: String = ('a'..='z').cycle().take(1000).collect();
    let origin = FakeOrigin::start().await;
    origin.serve("/a", ok(content.clone()).cache_control("max-age=60").header("content-type", "text/plain"));
    let node = node_of(&origin, "").await;
    node.get("/a").await.assert_stored();
    let answer = node.get_with("/a", "range", "bytes=0-9, 500-509, -10").await;
    answer.assert_status(206).assert_hit();
    assert_eq!(answer.header("content-range"), None);
    let boundary =
        answer.header("content-type").and_then(|value| value.strip_prefix("multipart/byteranges; boundary="));
    let boundary = boundary.expect("the type names the boundary").to_owned();
    let part = |range: std::ops::Range<usize>| {
        let (first, last) = (range.start, range.end - 1);
        let head = format!("Content-Type: text/plain\r\nContent-Range: bytes {first}-{last}/1000");
        format!("--{boundary}\r\n{head}\r\n\r\n{}\r\n", &content[range])
    };
    let expected = format!("{}{}{}--{boundary}--\r\n", part(0..10), part(500..510), part(990..1000));
    answer.assert_content(&expected);
    assert_eq!(answer.header("content-length"), Some(expected.len().to_string().as_str()));
    let merged = node.get_with("/a", "range", "bytes=0-9, 5-19").await;
    assert_eq!(merged.header("content-range"), Some("bytes 0-19/1000"));
}

/// A HEAD asks about the whole: a part does not answer it.
#[tokio::test]
async fn a_head_is_not_answered_from_a_part() {
    let origin = origin_of(DIGITS, "\"1\"").await;
    let node = node_of(&origin, LONG).await;
    node.get_with("/a", "range", "bytes=0-4").await.assert_stored();
    let head = node.ask(Method::HEAD, "/a").send().await;
    head.assert_status(200).assert_forwarded("miss");
    assert_eq!(head.header("content-length"), Some("10"));
}

/// RFC 9110 §13.1.5: `If-Range` on a miss goes to the origin with its range.
#[tokio::test]
async fn if_range_is_forwarded_with_its_range() {
    let origin = origin_of(DIGITS, "\"1\"").await;
    let node = node_of(&origin, LONG).await;
    let ask = |tag: &str| node.ask(Method::GET, "/a").header("range", "bytes=0-4").header("if-range", tag).send();
    ask("\"1\"").await.assert_status(206).assert_content("01234");
    assert_eq!(asked(&origin, 0), (Some("bytes=0-4".into()), Some("\"1\"".into())));
    ask("\"1\"").await.assert_status(206).assert_hit();
    ask("\"0\"").await.assert_status(200).assert_content(DIGITS);
}

/// Whatever is asked for in whatever order, and however often the origin changes: each answer is cut from one version, and says
/// rightly which bytes it has.
#[tokio::test]
async fn random_ranges_are_never_mixed_up() {
    const VERSIONS: usize = 4;
    const LENGTH: usize = 300;
    let content = |version: usize| -> String {
        (0..LENGTH + version * 7)
            .map(|at| char::from(b'!' + u8::try_from((at * 31 + version * 17) % 90).unwrap()))
            .collect()
    };
    let contents: Arc<Vec<String>> = Arc::new((0..VERSIONS).map(content).collect());
    let origin = FakeOrigin::start().await;
    let version = Arc::new(AtomicUsize::new(0));
    let (current, served) = (version.clone(), contents.clone());
    origin.answer("/a", move |request| {
        let version = current.load(Ordering::SeqCst);
        ranged(request, &served[version], &format!("\"{version}\""))
    });
    for tables in [LONG, ""] {
        let node = node_of(&origin, tables).await;
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..400 {
            match random.u32(0..40) {
                0 => version.store(random.usize(0..VERSIONS), Ordering::SeqCst),
                1 => node.clock().advance(Duration::from_secs(61)),
                2 => drop(node.purge(serde_json::json!({ "url": node.url("/a") })).await),
                _ => {}
            }
            let start = random.usize(0..LENGTH);
            let end = start + random.usize(1..80);
            let ask = node.ask(Method::GET, "/a");
            let answer = match random.u32(0..10) {
                0 => ask.send().await,
                1 => ask.header("range", &format!("bytes={start}-")).send().await,
                2 => ask.header("range", &format!("bytes=-{}", end - start)).send().await,
                _ => ask.header("range", &format!("bytes={start}-{}", end - 1)).send().await,
            };
            let tag = answer.header("etag").expect("a tag").trim_matches('"').parse::<usize>().unwrap();
            let whole = &contents[tag];
            match answer.header("content-range") {
                None => drop(answer.assert_status(200).assert_content(whole)),
                Some(range) => {
                    answer.assert_status(206);
                    let (range, length) = range.strip_prefix("bytes ").unwrap().split_once('/').unwrap();
                    assert_eq!(length.parse::<usize>().unwrap(), whole.len());
                    let (first, last) = range.split_once('-').unwrap();
                    let (first, last) = (first.parse::<usize>().unwrap(), last.parse::<usize>().unwrap());
                    answer.assert_content(&whole[first..=last]);
                }
            }
        }
    }
}

/// The client that caused a long fetch leaves just as its head arrives: those who wait still get it, with one fetch.
#[tokio::test]
async fn a_long_fill_goes_on_for_those_who_have_yet_to_join() {
    let origin = FakeOrigin::start().await;
    let node = Arc::new(node_of(&origin, "[store]\nfinish_unread = \"64KiB\"\n").await);
    for round in 0..8 {
        let (path, gate) = (format!("/long?{round}"), Gate::new());
        let long = ok("").then_repeat(vec![7_u8; 1 << 16], 64).cache_control("max-age=60");
        origin.serve(&path, long.held_by(&gate));
        let leaving = tokio::spawn(node.http2().ask(Method::GET, &path).try_send());
        origin.wait_for_requests(&path, 1).await;
        let waiting: Vec<_> = (0..8).map(|_| tokio::spawn(node.http2().ask(Method::GET, &path).send())).collect();
        eventually("they wait", async || (node.waiting() == 8).then_some(())).await;
        leaving.abort();
        gate.open();
        for waiter in waiting {
            assert_eq!(waiter.await.unwrap().content.len(), 64 << 16);
        }
        origin.assert_requests(&path, 1).await;
    }
}
