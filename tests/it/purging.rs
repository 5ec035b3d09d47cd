//! Purges: what they name, when they hold, and what they survive.

use std::time::Duration;

use brim_tests::{BrimProcess, FakeOrigin, Gate, RawConnection, TestNode, eventually, not_modified, ok};
use http::Method;
use serde_json::{Value, json};

async fn catalogue() -> FakeOrigin {
    let origin = FakeOrigin::start().await;
    origin.answer("/a", |request| {
        let language = request.header("accept-language").unwrap_or("none").to_owned();
        ok(language).cache_control("max-age=600").vary("Accept-Language").surrogate_keys("product all").etag("\"1\"")
    });
    origin.serve("/b/c", ok("b").cache_control("max-age=600").surrogate_keys("other all"));
    origin
}

#[tokio::test]
async fn a_purge_by_url_takes_all_variants_and_nothing_else() {
    let origin = catalogue().await;
    let node = TestNode::in_front_of(&origin).await;
    node.get_with("/a", "accept-language", "de").await.assert_stored();
    node.get_with("/a", "accept-language", "en").await.assert_stored();
    node.get("/b/c").await.assert_stored();
    let receipt = node.purge(json!({ "url": node.url("/a") })).await;
    assert!(receipt["position"].as_u64().is_some_and(|position| position > 0), "{receipt}");
    let id = receipt["id"].as_str().expect("an id");
    let again = node.admin(Method::GET, &format!("/v1/purges/{id}")).send().await;
    assert_eq!(again.json()["position"], receipt["position"]);
    let purged = node.get_with("/a", "accept-language", "de").await;
    purged.assert_forwarded("uri-miss");
    assert_eq!(purged.cache_status().detail.as_deref(), Some("purged"), "a miss says why");
    node.get_with("/a", "accept-language", "en").await.assert_forwarded("vary-miss");
    node.get("/b/c").await.assert_hit();
}

#[tokio::test]
async fn each_selector_takes_what_it_names() {
    let origin = catalogue().await;
    let node = TestNode::in_front_of(&origin).await;
    let prefix = json!({ "prefix": node.url("/b") });
    for (selector, takes_a, takes_b) in [
        (json!({ "everything": true }), true, true),
        (json!({ "site": "test" }), true, true),
        (prefix, false, true),
        (json!({ "surrogate_keys": ["product"] }), true, false),
        (json!({ "surrogate_keys": ["nothing", "all"] }), true, true),
        (json!({ "surrogate_keys": ["nothing"] }), false, false),
    ] {
        node.get("/a").await;
        node.get("/b/c").await;
        node.purge(selector.clone()).await;
        for (path, is_taken) in [("/a", takes_a), ("/b/c", takes_b)] {
            let answer = node.get(path).await;
            assert_eq!(!answer.cache_status().hit, is_taken, "{selector} and {path}: {}", answer.head());
        }
    }
}

/// Soft: stale. Served once more while one validation runs behind it, and fresh again by a 304.
#[tokio::test]
async fn a_soft_purge_makes_stale() {
    let origin = FakeOrigin::start().await;
    origin.serve("/a", ok("v1").cache_control("max-age=600").etag("\"1\"").answering_conditionals());
    origin.serve(
        "/strict",
        ok("v1").cache_control("max-age=600, must-revalidate").etag("\"1\"").answering_conditionals(),
    );
    let node = TestNode::in_front_of(&origin).await;
    for path in ["/a", "/strict"] {
        node.get(path).await.assert_stored();
    }
    node.purge(json!({ "site": "test", "soft": true })).await;
    let stale = node.get("/a").await;
    stale.assert_hit().assert_content("v1");
    assert_eq!((stale.cache_status().detail.as_deref(), stale.cache_status().ttl), (Some("soft-purged"), Some(0)));
    let requests = origin.wait_for_requests("/a", 2).await;
    assert_eq!(requests[1].header("if-none-match"), Some("\"1\""));
    eventually("it is fresh again", async || (node.get("/a").await.cache_status().detail.is_none()).then_some(()))
        .await;
    origin.assert_requests("/a", 2).await;

    let validated = node.get("/strict").await;
    validated.assert_forwarded("stale").assert_content("v1");
    assert_eq!(
        (validated.cache_status().fwd_status, validated.cache_status().detail.as_deref()),
        (Some(304), Some("soft-purged"))
    );
}

#[tokio::test]
async fn a_dry_run_purges_nothing() {
    let origin = catalogue().await;
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    let answer =
        node.admin(Method::POST, "/v1/purges").json(&json!({ "everything": true, "dry_run": true })).send().await;
    answer.assert_status(200);
    node.get("/a").await.assert_hit();
}

/// A fill that began before a purge is delivered to who asked for it, and never served after the purge.
#[tokio::test]
async fn a_fill_that_began_before_a_purge_is_dead_on_arrival() {
    let gate = Gate::new();
    let origin = FakeOrigin::start().await;
    origin.serve_each(
        "/a",
        [ok("old").cache_control("max-age=600").held_by(&gate), ok("new").cache_control("max-age=600")],
    );
    let node = TestNode::in_front_of(&origin).await;
    let early = tokio::spawn(node.ask(Method::GET, "/a").send());
    origin.wait_for_requests("/a", 1).await;
    node.purge(json!({ "url": node.url("/a") })).await;
    gate.open();
    early.await.expect("answered").assert_content("old");
    node.get("/a").await.assert_content("new");
    node.get("/a").await.assert_hit().assert_content("new");
}

/// The same for a request that comes after the purge and finds the old fetch still under way.
#[tokio::test]
async fn a_request_after_a_purge_does_not_board_an_older_fetch() {
    let (head, rest) = (Gate::new(), Gate::new());
    let origin = FakeOrigin::start().await;
    origin.serve_each(
        "/a",
        [
            ok("old ").then_wait(&rest).then("old").cache_control("max-age=600").held_by(&head),
            ok("new").cache_control("max-age=600"),
        ],
    );
    let node = TestNode::in_front_of(&origin).await;
    let early = tokio::spawn(node.ask(Method::GET, "/a").send());
    origin.wait_for_requests("/a", 1).await;
    node.purge(json!({ "everything": true })).await;
    let late = tokio::spawn(node.ask(Method::GET, "/a").send());
    head.open();
    late.await.expect("answered").assert_content("new");
    rest.open();
    early.await.expect("answered").assert_content("old old");
    node.get("/a").await.assert_hit().assert_content("new");
}

/// A purge that comes while a request waits to validate what it found cannot be undone by a 304: the content of before is
/// fetched whole, though its validator has not changed.
#[tokio::test]
async fn a_304_does_not_bring_a_purged_response_back() {
    let gate = Gate::new();
    let origin = FakeOrigin::start().await;
    origin.serve_each(
        "/a",
        [
            ok("old").cache_control("max-age=1").etag("\"1\""),
            not_modified().etag("\"1\"").cache_control("max-age=60").held_by(&gate),
            ok("new").cache_control("max-age=60").etag("\"1\"").answering_conditionals(),
        ],
    );
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    node.clock().advance(Duration::from_secs(5));
    let validating = tokio::spawn(node.ask(Method::GET, "/a").send());
    origin.wait_for_requests("/a", 2).await;
    let waiting = tokio::spawn(node.ask(Method::GET, "/a").send());
    eventually("it waits for the validation", async || (node.waiting() == 1).then_some(())).await;
    node.purge(json!({ "everything": true })).await;
    gate.open();
    validating.await.expect("answered").assert_status(200);
    waiting.await.expect("answered").assert_content("new");
    // Between its last byte and its entry into the store a request would follow the fill.
    eventually("it is stored", async || node.get("/a").await.assert_content("new").cache_status().hit.then_some(()))
        .await;
}

/// Visible to the next request on every thread: each connection may land on another one.
#[tokio::test]
async fn a_purge_holds_on_every_thread_at_once() {
    let origin = FakeOrigin::start().await;
    let node = TestNode::in_front_of(&origin).await;
    for round in 0..20 {
        origin.serve("/a", ok(format!("v{round}")).cache_control("max-age=600"));
        node.purge(json!({ "url": node.url("/a") })).await;
        let answers = node.get_many("/a", 8).await;
        assert!(answers.iter().all(|answer| answer.content() == format!("v{round}")), "round {round}");
    }
}

/// Each selector that the simple ones do not cover, hard and soft: what it takes of `/a` in German, `/a` in English, and `/b/c`.
#[tokio::test]
async fn variants_sites_and_predicates_take_what_they_name() {
    let origin = catalogue().await;
    let node = TestNode::in_front_of(&origin).await;
    let german = json!({ "url": node.url("/a"), "headers": { "Accept-Language": "de" } });
    for (selector, taken) in [
        (german, [true, false, false]),
        (json!({ "url": node.url("/a"), "headers": { "accept-language": "fr" } }), [false; 3]),
        (json!({ "surrogate_keys": ["all"], "site": "test" }), [true; 3]),
        (json!({ "match": { "host": "127.0.0.*" } }), [true; 3]),
        (json!({ "match": { "host": "*.example" } }), [false; 3]),
        (json!({ "match": { "path": "/b*c", "status": "2xx" } }), [false, false, true]),
        (json!({ "match": { "path": "/a", "site": "test" } }), [true, true, false]),
        (json!({ "match": { "status": [404, "500-599"] } }), [false; 3]),
        (json!({ "match": { "older_than": "1h" } }), [false; 3]),
        (json!({ "match": { "younger_than": "1h" } }), [true; 3]),
        (json!({ "match": { "content_type": "image/*" } }), [false; 3]),
        (json!({ "match": { "plugin": "0".repeat(64) } }), [false; 3]),
    ] {
        for soft in [false, true] {
            node.get_with("/a", "accept-language", "de").await;
            node.get_with("/a", "accept-language", "en").await;
            node.get("/b/c").await;
            let mut request = selector.clone();
            request["soft"] = json!(soft);
            request["on_demand"] = json!(soft);
            let receipt = node.purge(request).await;
            let count = taken.iter().filter(|taken| **taken).count();
            assert_eq!(receipt["matched"], json!(count), "{selector}: {receipt}");
            let answers = [
                node.get_with("/a", "accept-language", "de").await,
                node.get_with("/a", "accept-language", "en").await,
                node.get("/b/c").await,
            ];
            for (answer, taken) in answers.iter().zip(taken) {
                let status = answer.cache_status();
                let is_taken = if soft { status.detail.as_deref() == Some("soft-purged") } else { !status.hit };
                assert_eq!(is_taken, taken, "{selector}, soft {soft}: {}", answer.head());
            }
            node.purge(json!({ "everything": true })).await;
        }
    }
}

/// Ages are those of the stored responses, by the node's clock.
#[tokio::test]
async fn what_is_older_or_younger_goes() {
    let origin = catalogue().await;
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    node.clock().advance(Duration::from_secs(60));
    node.get("/b/c").await.assert_stored();
    node.clock().advance(Duration::from_secs(60));
    assert_eq!(node.purge(json!({ "match": { "older_than": "3m" } })).await["matched"], 0);
    assert_eq!(node.purge(json!({ "match": { "older_than": "90s" } })).await["matched"], 1);
    node.get("/b/c").await.assert_hit();
    node.get("/a").await.assert_forwarded("uri-miss").assert_stored();
    assert_eq!(node.purge(json!({ "match": { "younger_than": "90s", "older_than": "30s" } })).await["matched"], 1);
    node.get("/a").await.assert_hit();
    node.get("/b/c").await.assert_forwarded("uri-miss");
}

fn with_blast_radius(origin: &FakeOrigin, bounds: &str) -> String {
    TestNode::config(origin, "", "").replace("[admin]\n", &format!("[admin]\n{bounds}\n"))
}

/// A purge above the blast radius is refused with what it would do, and made when that is confirmed.
#[tokio::test]
async fn a_large_purge_has_to_be_confirmed() {
    let origin = catalogue().await;
    for (bounds, words) in [
        ("blast_radius_max = 1", "admin.blast_radius_max is 1"),
        ("blast_radius_share = 60", "admin.blast_radius_share is 60 % of 2"),
    ] {
        let node = TestNode::start(&with_blast_radius(&origin, bounds)).await;
        node.get("/a").await.assert_stored();
        node.get("/b/c").await.assert_stored();
        node.settled().await;
        let ask = async |request: Value| node.admin(Method::POST, "/v1/purges").json(&request).send().await;
        let refused = ask(json!({ "site": "test" })).await;
        refused.assert_status(409);
        let problem = refused.json();
        assert_eq!(problem["code"], "blast_radius");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{problem}");
        assert_eq!((&problem["dry_run"]["matched"], &problem["dry_run"]["bytes"]), (&json!(2), &json!(5)));
        node.get("/a").await.assert_hit();
        // What is below is not in the way, whoever names it.
        ask(json!({ "url": node.url("/b/c") })).await.assert_status(201);
        node.get("/b/c").await.assert_stored();
        node.settled().await;
        let confirm = ask(json!({ "site": "test", "dry_run": true })).await.json()["confirm"].clone();
        ask(json!({ "everything": true, "confirm": confirm })).await.assert_status(409);
        ask(json!({ "site": "test", "soft": true, "confirm": confirm })).await.assert_status(409);
        ask(json!({ "site": "test", "confirm": "c-1-2" })).await.assert_status(409);
        node.clock().advance(Duration::from_secs(299));
        ask(json!({ "site": "test", "confirm": confirm })).await.assert_status(201);
        node.get("/a").await.assert_forwarded("uri-miss");
        // That of the refusal does as well, and none does for ever.
        node.get("/b/c").await.assert_stored();
        node.settled().await;
        let again = problem["dry_run"]["confirm"].clone();
        ask(json!({ "site": "test", "confirm": again })).await.assert_status(201);
        node.clock().advance(Duration::from_secs(2));
        ask(json!({ "site": "test", "confirm": again })).await.assert_status(422);
    }
}

/// A dry run says what would be lost, and whose misses that would be.
#[tokio::test]
async fn a_dry_run_says_what_would_go() {
    let origin = catalogue().await;
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    node.get("/b/c").await.assert_stored();
    for path in ["/a", "/a", "/a", "/b/c"] {
        node.get(path).await.assert_hit();
    }
    let ask = |key: &str| {
        let request = json!({ "surrogate_keys": [key], "dry_run": true });
        node.admin(Method::POST, "/v1/purges").json(&request).send()
    };
    let answer = ask("product").await.json();
    assert_eq!((&answer["dry_run"], &answer["matched"], &answer["bytes"]), (&json!(true), &json!(1), &json!(4)));
    let example = answer["examples"][0].as_str().expect("one");
    assert!(example.ends_with("/a"), "{example}");
    assert!(answer["confirm"].is_string(), "{answer}");
    let lost = |answer: &Value| (answer["recent_hits"].as_u64(), answer["recent_share"].as_f64());
    assert_eq!(lost(&answer), (Some(4), Some(0.75)));
    assert_eq!(lost(&ask("all").await.json()), (Some(4), Some(1.0)));
    let nothing = ask("none").await;
    assert!(nothing.content().contains("\"recent_share\":0.0"), "{}", nothing.content());
    node.get("/a").await.assert_hit();
}

/// One purge a key, whoever asks again and whenever: also after the node was restarted.
#[tokio::test]
async fn a_purge_is_made_once_under_its_idempotency_key_also_after_a_restart() {
    let origin = catalogue().await;
    let mut node = TestNode::in_front_of(&origin).await;
    let requests =
        [json!({ "surrogate_keys": ["all"], "soft": true }), json!({ "match": { "older_than": "1m", "path": "/*" } })];
    let ask = async |node: &TestNode, number: usize, request: &Value| {
        let key = format!("\"deploy-{number}\"");
        node.admin(Method::POST, "/v1/purges").header("idempotency-key", &key).json(request).send().await
    };
    let mut ids = Vec::new();
    for (number, request) in requests.iter().enumerate() {
        let first = ask(&node, number, request).await;
        first.assert_status(201);
        ids.push(first.json()["id"].clone());
        node.clock().advance(Duration::from_secs(10));
    }
    for is_restarted in [false, true] {
        if is_restarted {
            node.restart().await;
        }
        for (number, request) in requests.iter().enumerate() {
            let again = ask(&node, number, request).await;
            again.assert_status(201);
            assert_eq!((&again.json()["id"], &again.json()["repeated"]), (&ids[number], &json!(true)));
            ask(&node, number, &json!({ "site": "test" })).await.assert_status(422);
        }
    }
    assert_eq!(node.purge(json!({ "site": "test" })).await["position"], 3, "and nothing else was purged");
}

#[tokio::test]
async fn receipts_are_listed_and_shown() {
    let origin = catalogue().await;
    let config = format!("node_name = \"edge-7\"\n{}", TestNode::config(&origin, "", ""));
    let mut node = TestNode::start(&config).await;
    node.get("/a").await.assert_stored();
    let first = node.purge(json!({ "surrogate_keys": ["product"], "wait": true })).await;
    assert_eq!((&first["matched"], &first["reclaimed_bytes"], &first["by"]), (&json!(1), &json!(4), &json!("admin")));
    let (node_name, times) = (&first["nodes"][0]["node"], ["applied_at", "durable_at", "reclaimed_at"]);
    assert_eq!(node_name, "edge-7");
    assert!(times.iter().all(|time| first[*time].is_string()), "{first}");
    for number in 0..3 {
        node.purge(json!({ "surrogate_keys": [format!("k{number}")], "soft": true, "wait": true })).await;
    }
    let get = async |node: &TestNode, path: &str| node.admin(Method::GET, path).send().await.json();
    assert_eq!(get(&node, "/v1/purges/p-1?wait=true").await, first);
    let page = get(&node, "/v1/purges?limit=3").await;
    let positions = |page: &Value| {
        page["purges"].as_array().expect("a list").iter().map(|receipt| receipt["position"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((positions(&page), &page["next"]), (vec![json!(4), json!(3), json!(2)], &json!(2)));
    assert_eq!(get(&node, "/v1/purges?before=2").await, json!({ "purges": [first] }));
    node.restart().await;
    assert_eq!(positions(&get(&node, "/v1/purges").await).len(), 4, "they outlive the process");
}

/// Every selector through the command, for people and for scripts.
#[tokio::test]
async fn the_purge_commands_know_every_selector() {
    let origin = catalogue().await;
    let brim = BrimProcess::in_front_of(&origin.url(), "");
    let (admin, token) = (brim.admin_url(), brim.admin_token());
    let url = format!("http://{}/a", brim.listening().http[0]);
    let options = ["--admin", &admin, "--token", &token, "--wait"];
    let run = |words: &[&str]| brim.command(&[words, &options[..]].concat());
    for words in [
        &["url", &url][..],
        &["url", &url, "-H", "Accept-Language: none"],
        &["prefix", &url],
        &["key", "product", "nothing"],
        &["key", "product", "--site", "*"],
        &["site", "*"],
        &["all"],
        &["match", "--host", "127.*", "--path", "/a*", "--status", "2xx", "--status", "404", "--younger-than", "1h"],
    ] {
        for soft in [false, true] {
            let get = async || brim.http1().ask(Method::GET, "/a").header("accept-language", "none").send().await;
            get().await;
            let soft_word = if soft { &["--soft", "--on-demand"][..] } else { &[] };
            let words = [&["purge"], words, soft_word].concat();
            let (exit, stdout, stderr) = run(&words);
            assert_eq!(exit.code(), Some(0), "{words:?}: {stdout}{stderr}");
            let lines: Vec<_> = stdout.lines().collect();
            assert_eq!(lines.len(), 2, "{stdout}");
            assert!(lines[0].starts_with("WHAT") && lines[0].ends_with("RECLAIMED"), "{stdout}");
            assert_eq!(lines[1].starts_with("soft: "), soft, "{stdout}");
            let status = get().await.cache_status();
            let is_taken = if soft { status.detail.as_deref() == Some("soft-purged") } else { !status.hit };
            assert!(is_taken, "{words:?}");
            let (_, stdout, _) = run(&[&words[..], &["--json"]].concat());
            let receipt: Value = serde_json::from_str(&stdout).expect("JSON");
            assert_eq!(receipt["mode"], if soft { "soft" } else { "hard" });
            let (_, stdout, _) = run(&[&words[..], &["--dry-run", "--json"]].concat());
            let dry_run: Value = serde_json::from_str(&stdout).expect("JSON");
            // An age becomes a time, which has gone on.
            let named = |answer: &Value| {
                let mut named = answer["purged"][0].clone();
                if let Some(found) = named["match"].as_object_mut() {
                    assert!(found.remove("stored_after").is_some_and(|time| time.is_string()));
                }
                named
            };
            assert_eq!((&dry_run["dry_run"], named(&dry_run)), (&json!(true), named(&receipt)), "{words:?}");
        }
    }
    let (_, listed, _) = brim.command(&["purge", "list", "--limit", "2", "--admin", &admin, "--token", &token]);
    assert_eq!(listed.lines().count(), 4, "{listed}");
    let id = listed.lines().nth(1).and_then(|line| line.split_whitespace().find(|word| word.starts_with("p-")));
    let (exit, shown, stderr) = run(&["purge", "show", id.expect("a receipt")]);
    assert!(exit.success() && shown.contains("position"), "{shown}{stderr}");
}

/// `brim purge` says how a refused purge is confirmed, and purges when it is.
#[tokio::test]
async fn the_command_says_how_to_confirm() {
    let origin = catalogue().await;
    let brim = BrimProcess::start(
        &BrimProcess::config(&origin.url(), "").replace("[admin]\n", "[admin]\nblast_radius_max = 0\n"),
    );
    brim.http1().get("/a").await;
    let (admin, token) = (brim.admin_url(), brim.admin_token());
    let options = ["--admin", &admin, "--token", &token];
    let purge = |more: &[&str]| brim.command(&[&["purge", "all"], more, &options[..]].concat());
    let (exit, stdout, stderr) = purge(&[]);
    assert_eq!((exit.code(), stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("nothing was purged"), "{stderr}");
    let confirm = stderr.split("--confirm ").nth(1).expect("a hint").trim();
    brim.http1().get("/a").await.assert_hit();
    let (exit, _, stderr) = purge(&["--confirm", confirm]);
    assert_eq!(exit.code(), Some(0), "{stderr}");
    brim.http1().get("/a").await.assert_forwarded("uri-miss");
}

#[tokio::test]
async fn a_bad_purge_is_refused_with_a_reason() {
    let origin = FakeOrigin::start().await;
    let node = TestNode::in_front_of(&origin).await;
    for request in [
        json!({}),
        json!({ "url": "/a" }),
        json!({ "url": "http://a/x", "everything": true }),
        json!({ "everything": false }),
        json!({ "site": "nowhere" }),
        json!({ "surrogate_keys": [] }),
        json!({ "url": "http://a/x", "colour": "red" }),
    ] {
        let answer = node.admin(Method::POST, "/v1/purges").json(&request).send().await;
        assert!(answer.status.is_client_error(), "{request}: {}", answer.head());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{request}");
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{request}");
    }
}

/// kill -9 at any moment loses no acknowledged purge and never brings a purged response back.
#[tokio::test]
async fn kill_9_loses_no_acknowledged_purge() {
    let origin = FakeOrigin::start().await;
    origin.answer("/", |_| ok("unused"));
    for page in 0..20 {
        origin.serve(&format!("/p/{page}"), ok(format!("v0 of {page}")).cache_control("max-age=6000"));
    }
    let mut brim = BrimProcess::in_front_of(&origin.url(), "");
    for round in 1..=6 {
        let authority = format!("127.0.0.1:{}", brim.listening().http[0].port());
        let client = brim.http1();
        for page in 0..20 {
            client.get(&format!("/p/{page}")).await;
        }
        // Half of the rounds leave time for the index to be written, the others none.
        if round % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        for page in 0..20 {
            origin.serve(&format!("/p/{page}"), ok(format!("v{round} of {page}")).cache_control("max-age=6000"));
        }
        for page in (0..20).step_by(2) {
            let url = format!("http://{authority}/p/{page}");
            let receipt = brim.admin(Method::POST, "/v1/purges", Some(&json!({ "url": url })));
            assert_eq!(receipt.status, 201, "{:?}", receipt.body);
        }
        brim.kill9();
        brim.restart();
        // The port has changed and is part of the key; the client asks in the name of the old one.
        let client = brim.http1().authority(&authority);
        for page in (0..20).step_by(2) {
            let answer = client.get(&format!("/p/{page}")).await;
            assert_eq!(answer.content(), format!("v{round} of {page}"), "purged before the kill: {}", answer.head());
        }
        for page in (1..20).step_by(2) {
            let answer = client.get(&format!("/p/{page}")).await;
            assert!(
                answer.content().ends_with(&format!(" of {page}")),
                "another response's content: {}",
                answer.content()
            );
        }
    }
}

/// Of several things the command says which one was refused; what came before it is purged, and said.
#[tokio::test]
async fn a_purge_command_that_is_refused_midway_says_where() {
    let origin = catalogue().await;
    let config = BrimProcess::config(&origin.url(), "").replace("[admin]\n", "[admin]\nblast_radius_max = 1\n");
    let brim = BrimProcess::start(&config);
    let (admin, token) = (brim.admin_url(), brim.admin_token());
    let url = |path: &str| format!("http://{}{path}", brim.listening().http[0]);
    let run = |words: &[&str]| brim.command(&[words, &["--admin", &admin, "--token", &token][..]].concat());
    brim.http1().get("/b/c").await.assert_stored();
    for language in ["de", "en"] {
        let ask = brim.http1().ask(Method::GET, "/a").header("accept-language", language);
        ask.send().await.assert_stored();
    }
    let (exit, stdout, stderr) = run(&["purge", "url", &url("/b/c"), &url("/a"), &url("/x")]);
    assert_eq!(exit.code(), Some(1));
    assert!(stdout.contains("/b/c") && !stdout.contains("/x"), "{stdout}");
    assert!(stderr.contains(&format!("{}: refused (409 ", url("/a"))), "{stderr}");
    let (_, confirm) = stderr.trim().rsplit_once("purge it alone and add: --confirm ").expect("how to confirm");
    let (exit, stdout, stderr) = run(&["purge", "url", &url("/a"), "--confirm", confirm]);
    assert_eq!(exit.code(), Some(0), "{stdout}{stderr}");
}

/// A purge that has begun is finished and counted, whether or not somebody still waits for its answer.
#[tokio::test]
async fn a_client_that_leaves_takes_no_purge_with_it() {
    // So many that some of them leave in the middle.
    const PURGES: usize = 400;
    let origin = catalogue().await;
    let brim = BrimProcess::in_front_of(&origin.url(), "");
    let admin = brim.admin_url();
    let address = admin.strip_prefix("http://").expect("plain HTTP").parse().expect("an address");
    for number in 0..PURGES {
        let content = json!({ "surrogate_keys": [format!("left-{number}")], "wait": true }).to_string();
        let head = format!("POST /v1/purges HTTP/1.1\r\nHost: brim\r\nAuthorization: Bearer {}", brim.admin_token());
        let framing = format!("Content-Type: application/json\r\nContent-Length: {}", content.len());
        let mut connection = RawConnection::open(address).await;
        connection.send(format!("{head}\r\n{framing}\r\n\r\n{content}")).await;
    }
    eventually("the count of each purge that has begun", async || {
        let list = brim.admin(Method::GET, "/v1/purges?limit=500", None).body;
        let receipts = list["purges"].as_array().expect("a list");
        let are_counted = receipts.iter().all(|receipt| receipt["reclaimed_at"].is_string());
        (!receipts.is_empty() && are_counted).then_some(())
    })
    .await;
}
