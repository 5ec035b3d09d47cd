//! Explanations: each says what the very next request then gets, and nothing happens by it.

use std::time::Duration;

use brim_tests::{Answer, BrimProcess, FakeOrigin, Gate, TestNode, eventually, not_modified, ok, plugins};
use http::Method;
use serde_json::{Value, json};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

type Fields = &'static [(&'static str, &'static str)];

/// What the node would do with a request, as its client would send it.
async fn explained(node: &TestNode, method: &Method, target: &str, fields: &[(&str, &str)]) -> Value {
    let mut headers = serde_json::Map::new();
    for (name, value) in fields {
        headers.insert((*name).to_owned(), json!(value));
    }
    let asked = json!({ "url": node.url(target), "method": method.as_str(), "headers": headers });
    let answer = node.admin(Method::POST, "/v1/explain").json(&asked).send().await;
    answer.assert_status(200);
    answer.json()
}

async fn explained_get(node: &TestNode, target: &str, fields: &[(&str, &str)]) -> Value {
    explained(node, &Method::GET, target, fields).await
}

async fn really(node: &TestNode, method: &Method, target: &str, fields: &[(&str, &str)]) -> Answer {
    let asked = fields.iter().fold(node.ask(method.clone(), target), |asked, (name, value)| asked.header(name, value));
    asked.send().await
}

/// The steps of a stage, without its name.
fn steps<'a>(explanation: &'a Value, stage: &str) -> Vec<&'a str> {
    let steps = explanation["decision"]["steps"].as_array().expect("steps");
    let texts = steps.iter().map(|step| step.as_str().expect("a sentence").split_once(": ").expect("a stage"));
    texts.filter(|(of, _)| *of == stage).map(|(_, text)| text).collect()
}

#[track_caller]
fn assert_step(explanation: &Value, stage: &str, words: &str) {
    let steps = steps(explanation, stage);
    assert!(steps.iter().any(|step| step.contains(words)), "no {words:?} in {stage}: {steps:#?}");
}

/// A node with a route for each setting that decides.
async fn node_of_many_routes(origin: &FakeOrigin) -> TestNode {
    let route = |path: &str, lines: &str| format!("[[sites.routes]]\npath = \"{path}\"\norigin = \"test\"\n{lines}\n");
    let tables = [
        route("/off", "cache = \"off\""),
        route("/deaf", "ignore_request_directives = true"),
        route("/window", "stale_while_revalidate = \"1m\""),
        route("/ruled", "plugins = { cache_key = \"rule\" }"),
        route("/reject", "plugins = { cache_key = \"hostile\" }"),
        route("/unruled", "plugins = { cache_key = \"missing\" }"),
    ];
    TestNode::start(&TestNode::config(origin, "", &tables.concat())).await
}

struct Case {
    method: Method,
    target: &'static str,
    fields: Fields,
    /// What has to come out, so that a case is about what it says.
    action: &'static str,
}

const fn case(target: &'static str, fields: Fields, action: &'static str) -> Case {
    Case { method: Method::GET, target, fields, action }
}

const fn by(method: Method, target: &'static str, fields: Fields, action: &'static str) -> Case {
    Case { method, target, fields, action }
}

/// Explains, asks for real, and compares: Cache-Status, status, and what the origin got.
async fn assert_as_explained(node: &TestNode, origin: &FakeOrigin, case: &Case) {
    let Case { method, target, fields, action } = case;
    let about = format!("{method} {target:.60} {fields:?}");
    let before = origin.all_requests().len();
    let explanation = explained(node, method, target, fields).await;
    let decision = &explanation["decision"];
    assert_eq!(origin.all_requests().len(), before, "{about}: an explanation asks the origin nothing");
    assert_eq!(decision["action"], *action, "{about}: {decision:#}");

    let answer = really(node, method, target, fields).await;
    let said = answer.cache_status();
    let (text, head) = (decision["cache_status"].as_str().expect("a text"), answer.head());
    assert_eq!(decision["fwd"].as_str(), said.fwd.as_deref(), "{about}: {head}");
    if let Some(detail) = decision["detail"].as_str() {
        assert_eq!(said.detail.as_deref(), Some(detail), "{about}: {head}");
    }
    if let Some(status) = decision["status"].as_u64() {
        assert_eq!(u64::from(answer.status.as_u16()), status, "{about}: {head}");
        assert_eq!(answer.header("cache-status"), Some(text), "{about}");
    } else {
        assert!(
            answer.header("cache-status").is_some_and(|said| text.split("; ").all(|word| said.contains(word))),
            "{about}: {text} / {head}"
        );
    }
    assert_eq!(
        decision["content_range"].as_str(),
        answer.header("content-range").filter(|_| decision["status"].is_u64()),
        "{about}"
    );

    let Some(asked) = decision["origin_request"].as_object() else {
        assert_eq!(origin.all_requests().len(), before, "{about}: nothing was to go forward");
        return;
    };
    let requests = eventually("the origin was asked", async || {
        Some(origin.all_requests()).filter(|requests| requests.len() > before)
    })
    .await;
    let got = &requests[before];
    let url = asked["url"].as_str().expect("a URL");
    assert_eq!(
        (Some(got.method.as_str()), true),
        (asked["method"].as_str(), url.ends_with(&got.target)),
        "{about}: {url}"
    );
    for name in ["if-none-match", "if-modified-since", "if-range", "range"] {
        let conditions = asked["conditions"].as_array().expect("a list");
        let expected = conditions.iter().find(|field| field["name"] == name).and_then(|field| field["value"].as_str());
        assert_eq!(got.header(name), expected, "{about}: {name}");
    }
}

/// What is stored before the cases, by path.
fn serve_all(origin: &FakeOrigin) {
    const MODIFIED: &str = "Mon, 01 Jan 2024 00:00:00 GMT";
    for path in ["/fresh", "/purged", "/forgotten", "/deaf", "/off", "/ruled", "/unruled", "/reject", "/soft"] {
        origin.serve(path, ok("0123456789").cache_control("max-age=600").etag("\"1\"").surrogate_keys("k"));
    }
    for path in ["/stale", "/stale-head"] {
        let reply = ok("v").cache_control("max-age=10").etag("\"1\"").last_modified(MODIFIED);
        origin.serve(path, reply.answering_conditionals());
    }
    origin.serve("/unvalidated", ok("v").cache_control("max-age=10"));
    origin.serve("/strict", ok("v").cache_control("max-age=10, must-revalidate").etag("\"1\""));
    origin.serve("/soft-strict", ok("v").cache_control("max-age=600, must-revalidate").etag("\"1\""));
    origin.serve("/no-cache", ok("v").cache_control("max-age=600, no-cache").etag("\"1\""));
    for path in ["/swr", "/swr-again"] {
        origin.serve(path, ok("v").cache_control("max-age=10, stale-while-revalidate=600").etag("\"1\""));
    }
    origin.serve("/window", ok("v").cache_control("max-age=10").etag("\"1\""));
    origin.serve("/max-stale", ok("v").cache_control("max-age=10"));
    origin.serve("/guessed", ok("v").last_modified(MODIFIED));
    origin.serve("/validators-only", ok("v").etag("\"1\"").header("last-modified", "tomorrow"));
    origin.answer("/vary", |request| {
        let language = request.header("accept-language").unwrap_or("none").to_owned();
        ok(language).cache_control("max-age=600").vary("Accept-Language, X-Other")
    });
    origin.serve("/private", ok("mine").cache_control("private").etag("\"1\"").answering_conditionals());
    origin.serve("/expires", ok("v").header("expires", "0").etag("\"1\""));
}

/// The most valuable test of explanations: the next request behaves as explained, over everything that decides.
#[tokio::test]
async fn the_next_request_behaves_as_explained() {
    let origin = FakeOrigin::start().await;
    serve_all(&origin);
    let node = node_of_many_routes(&origin).await;
    node.activate_plugin("rule", plugins::tenant_key()).await;
    node.activate_plugin("hostile", plugins::hostile()).await;
    let stored = [
        "/fresh",
        "/purged",
        "/deaf",
        "/stale",
        "/stale-head",
        "/unvalidated",
        "/strict",
        "/soft",
        "/soft-strict",
        "/no-cache",
        "/swr",
        "/window",
        "/max-stale",
        "/guessed",
        "/validators-only",
        "/ruled?b=2&a=1",
        "/expires",
    ];
    for target in stored {
        node.get(target).await.assert_stored();
    }
    node.get_with("/vary", "accept-language", "de").await.assert_stored();
    node.get("/private").await.assert_not_stored();
    node.clock().advance(seconds(30));
    node.purge(json!({ "url": node.url("/purged") })).await;
    for path in ["/soft", "/soft-strict"] {
        node.purge(json!({ "url": node.url(path), "soft": true })).await;
    }
    let long: &'static str = Box::leak(format!("/{}", "x".repeat(5000)).into_boxed_str());
    let cases = [
        case("/nothing", &[], "forward"),
        case("/nothing-2", &[("cache-control", "no-store")], "forward"),
        case("/nothing-3", &[("if-none-match", "\"1\""), ("range", "bytes=0-1")], "forward"),
        by(Method::HEAD, "/nothing-4", &[("if-none-match", "\"1\"")], "forward"),
        case("/nothing-5", &[("cache-control", "only-if-cached")], "refused"),
        case("/deaf/nothing", &[("cache-control", "only-if-cached")], "forward"),
        case("/fresh", &[], "hit"),
        case("/fresh", &[("cache-control", "only-if-cached")], "hit"),
        case("/fresh", &[("if-none-match", "\"1\"")], "hit"),
        case("/fresh", &[("if-none-match", "\"2\"")], "hit"),
        case("/fresh", &[("range", "bytes=2-4")], "hit"),
        case("/fresh", &[("range", "bytes=50-")], "hit"),
        by(Method::HEAD, "/fresh", &[], "hit"),
        case("/fresh", &[("if-match", "\"1\"")], "bypass"),
        case("/fresh", &[("connection", "upgrade"), ("upgrade", "websocket")], "refused"),
        case(
            "/fresh",
            &[("via", "1.1 brim, 1.1 brim, 1.1 brim, 1.1 brim, 1.1 brim, 1.1 brim, 1.1 brim, 1.1 brim")],
            "refused",
        ),
        by(Method::OPTIONS, "/fresh", &[("max-forwards", "0")], "answered-here"),
        case("/fresh", &[("cache-control", "max-age=5")], "validate"),
        case("/fresh", &[("cache-control", "min-fresh=9000")], "validate"),
        case("/fresh", &[("pragma", "no-cache")], "validate"),
        case("/deaf", &[("cache-control", "no-cache")], "hit"),
        case("/off", &[], "bypass"),
        by(Method::POST, "/forgotten", &[], "bypass"),
        case(long, &[], "bypass"),
        case("/guessed", &[], "hit"),
        by(Method::HEAD, "/stale-head", &[], "validate"),
        case("/stale", &[("if-none-match", "\"other\"")], "validate"),
        case("/unvalidated", &[], "validate"),
        case("/strict", &[], "validate"),
        case("/no-cache", &[], "validate"),
        case("/validators-only", &[], "validate"),
        case("/expires", &[], "validate"),
        case("/max-stale", &[("cache-control", "max-stale=9")], "validate"),
        case("/swr", &[], "stale-while-revalidate"),
        case("/window", &[], "stale-while-revalidate"),
        case("/vary", &[("accept-language", "DE")], "hit"),
        case("/vary", &[("accept-language", "en")], "forward"),
        case("/vary", &[("accept-language", "de"), ("x-other", "1")], "forward"),
        case("/purged", &[], "forward"),
        case("/soft", &[], "stale-while-revalidate"),
        case("/soft-strict", &[], "validate"),
        case("/private", &[("if-none-match", "\"1\"")], "forward"),
        case("/ruled?utm_source=x&a=1&b=2", &[], "hit"),
        case("/ruled?z=1&utm_source=x", &[], "forward"),
        case("/ruled?a=1&b=2", &[("x-tenant", "acme")], "forward"),
        case("/unruled", &[], "bypass"),
        case("/reject", &[], "bypass"),
    ];
    for case in &cases {
        assert_as_explained(&node, &origin, case).await;
    }
    // What the cases before have freshened.
    node.clock().advance(seconds(30));
    assert_as_explained(&node, &origin, &case("/max-stale", &[("cache-control", "max-stale=25")], "hit")).await;
}

/// RFC 9111 §4.1, §4.2: why a stored response is not the answer, and how fresh it is, figure by figure.
#[tokio::test]
async fn a_candidate_is_explained_with_its_fields_and_figures() {
    let origin = FakeOrigin::start().await;
    let reply = ok("12345").cache_control("max-age=60, stale-while-revalidate=30").vary("X-Plan, Authorization");
    origin.serve("/a", reply.surrogate_keys("one two").header("age", "20").etag("\"1\""));
    let node = TestNode::in_front_of(&origin).await;
    node.ask(Method::GET, "/a").header("x-plan", "free").send().await.assert_stored();
    node.clock().advance(seconds(10));

    let other = explained_get(&node, "/a", &[("x-plan", "paid")]).await;
    assert_eq!((&other["decision"]["action"], &other["decision"]["fwd"]), (&json!("forward"), &json!("vary-miss")));
    let candidate = &other["candidates"][0];
    assert_eq!((&candidate["selected"], &candidate["purge"]), (&json!(false), &json!("live")));
    assert!(candidate["why_not"].as_str().is_some_and(|why| why.contains("x-plan")), "{candidate:#}");
    let plan = json!({"name": "x-plan", "stored": "free", "request": "paid", "matches": false});
    assert_eq!(candidate["nominated"][1], plan);
    assert_step(&other, "candidate", "x-plan differs: stored \"free\", request \"paid\"");

    let same = explained_get(&node, "/a", &[("x-plan", "free")]).await;
    let candidate = &same["candidates"][0];
    assert_eq!((&candidate["selected"], &candidate["content_bytes"]), (&json!(true), &json!(5)));
    assert_eq!(candidate["surrogate_keys"], json!(["one", "two"]));
    let freshness = &candidate["freshness"];
    for (name, expected) in [
        ("age_value_s", 20.0),
        ("response_delay_s", 0.0),
        ("initial_age_s", 20.0),
        ("resident_time_s", 10.0),
        ("current_age_s", 30.0),
        ("lifetime_s", 60.0),
        ("remaining_s", 30.0),
        ("stale_while_revalidate_s", 30.0),
    ] {
        assert_eq!(freshness[name], json!(expected), "{name}: {freshness:#}");
    }
    assert_eq!(freshness["lifetime_source"], "max-age");
    assert_step(&same, "freshness", "lifetime 60 s: max-age=60 of cache-control (RFC 9111 §5.2.2.1)");
    assert_step(&same, "freshness", "fresh for 30 s more");
}

/// What another client's request held as a credential is not told.
#[tokio::test]
async fn credentials_of_others_are_not_told() {
    let origin = FakeOrigin::serving("/a", ok("v").cache_control("public, max-age=60").vary("Authorization")).await;
    let node = TestNode::in_front_of(&origin).await;
    node.get_with("/a", "authorization", "Bearer of-somebody").await.assert_stored();
    let explanation = explained_get(&node, "/a", &[("authorization", "Bearer mine")]).await;
    assert!(!explanation.to_string().contains("of-somebody"), "{explanation:#}");
    assert_eq!(explanation["candidates"][0]["nominated"][0]["matches"], false);
}

#[tokio::test]
async fn purges_are_told_by_their_positions() {
    let origin = FakeOrigin::serving("/a", ok("v").cache_control("max-age=60").surrogate_keys("k")).await;
    let node = TestNode::in_front_of(&origin).await;
    node.purge(json!({"surrogate_keys": ["other"]})).await;
    node.get("/a").await.assert_stored();
    let live = explained_get(&node, "/a", &[]).await;
    assert_eq!(live["purge"], json!({"position": 1, "was_purged": false}));
    assert_eq!((&live["candidates"][0]["fetched_at"], &live["candidates"][0]["purge"]), (&json!(1), &json!("live")));
    node.purge(json!({"surrogate_keys": ["k"], "soft": true})).await;
    let soft = explained_get(&node, "/a", &[]).await;
    assert_eq!((&soft["candidates"][0]["purge"], &soft["decision"]["detail"]), (&json!("soft"), &json!("soft-purged")));
    assert_step(&soft, "decision", "a soft purge after position 1");
    node.purge(json!({"surrogate_keys": ["k"]})).await;
    let hard = explained_get(&node, "/a", &[]).await;
    assert_eq!(hard["purge"], json!({"position": 3, "was_purged": true}));
    assert_eq!((&hard["decision"]["action"], &hard["decision"]["detail"]), (&json!("forward"), &json!("purged")));
}

#[tokio::test]
async fn the_parts_of_a_key_name_where_they_come_from() {
    let origin = FakeOrigin::start().await;
    let node = TestNode::with_route(&origin, "plugins = { cache_key = \"rule\" }").await;
    let missing = explained_get(&node, "/list", &[]).await;
    assert_eq!((&missing["key"], &missing["plugin"]["version"]), (&Value::Null, &Value::Null));
    assert_eq!(missing["decision"]["detail"], "plugin-missing");
    node.activate_plugin("rule", plugins::tenant_key()).await;
    let explanation = explained_get(&node, "/list?b=2&utm_source=x&a=1", &[("x-tenant", "acme")]).await;
    let part = |name: &str| {
        let parts = explanation["key"]["parts"].as_array().expect("parts");
        parts.iter().find(|part| part["name"] == name).unwrap_or_else(|| panic!("no part {name}: {parts:#?}")).clone()
    };
    let from = part("tenant")["from"].as_str().expect("a text").to_owned();
    let digest = explanation["plugin"]["digest"].as_str().expect("a digest");
    assert_eq!(from, format!("plugin rule@1 {}", &digest[..8]));
    assert_eq!((&part("tenant")["value"], &part("tenant")["kind"]), (&json!("acme"), &json!("bytes")));
    assert_eq!((&part("query")["value"], &part("query")["from"]), (&json!("a=1&b=2"), &json!(from)));
    assert_eq!((&part("site")["value"], &part("site")["from"]), (&json!("test"), &json!("site")));
    assert_eq!(part("rule")["value"], digest);
    assert_eq!(explanation["plugin"]["query"], "replace");
    let inputs = explanation["plugin"]["inputs"].as_array().expect("inputs");
    assert!(inputs.contains(&json!({"kind": "header", "name": "x-tenant", "value": "acme"})), "{inputs:#?}");
    let answer = node.get_with("/list?a=1&b=2", "x-tenant", "acme").await;
    answer.assert_forwarded("uri-miss");
}

#[tokio::test]
async fn what_the_node_refuses_is_explained_too() {
    let origin = FakeOrigin::start().await;
    let config = TestNode::config(&origin, "", "").replace("hosts = [\"*\"]", "hosts = [\"a.test\"]");
    let node = TestNode::start(&config.replace("path = \"/\"", "path = \"/api/\"")).await;
    let here = explained_get(&node, "/api/x", &[]).await;
    assert_eq!((&here["route"], &here["decision"]["status"]), (&Value::Null, &json!(421)));
    assert_eq!(here["decision"]["cache_status"], "brim; detail=no-site");
    let elsewhere = explained_get(&node, "/x", &[("host", "A.test")]).await;
    assert_eq!((&elsewhere["decision"]["status"], &elsewhere["decision"]["detail"]), (&json!(404), &json!("no-route")));
    let right = explained_get(&node, "/api/x", &[("host", "A.test:80")]).await;
    assert_eq!((&right["route"]["path"], &right["request"]["authority"]), (&json!("/api/"), &json!("a.test")));
    let malformed = explained_get(&node, "/x", &[("host", "a b")]).await;
    assert_eq!((&malformed["decision"]["status"], &malformed["decision"]["action"]), (&json!(400), &json!("refused")));
}

/// A fetch that is under way is told, and what is on disk only is found there.
#[tokio::test]
async fn fetches_under_way_and_the_disk_are_seen() {
    let gate = Gate::new();
    let origin = FakeOrigin::start().await;
    origin.serve_each("/a", [ok("v1").cache_control("max-age=600").held_by(&gate), not_modified()]);
    let mut node = TestNode::in_front_of(&origin).await;
    let asking = tokio::spawn(node.ask(Method::GET, "/a").send());
    origin.wait_for_requests("/a", 1).await;
    let explanation = explained_get(&node, "/a", &[]).await;
    assert_eq!(explanation["collapse"]["fetch_under_way"], true);
    assert_step(&explanation, "collapse", "a fetch of it is under way");
    gate.open();
    asking.await.expect("answered").assert_stored();
    let authority = node.http_address().to_string();
    node.restart().await;
    // Another port, and so another authority: the one before is named by Host.
    let explanation = explained_get(&node, "/a", &[("host", &authority)]).await;
    assert_eq!(explanation["decision"]["action"], "hit");
    assert_step(&explanation, "lookup", "found on disk");
    origin.assert_requests("/a", 1).await;
}

/// An explanation counts as no request.
#[tokio::test]
async fn explaining_counts_nothing() {
    let origin = FakeOrigin::serving("/a", ok("v").cache_control("max-age=60")).await;
    let node = TestNode::in_front_of(&origin).await;
    node.get("/a").await.assert_stored();
    let status = async || node.admin(Method::GET, "/v1/status").send().await.json();
    // What is on disk no longer changes by itself.
    let written = async || (status().await["store"]["responses_on_disk"] == 1).then_some(());
    eventually("the response to be written", written).await;
    let before = status().await;
    for target in ["/a", "/b"] {
        explained_get(&node, target, &[]).await;
    }
    let after = status().await;
    for name in ["requests", "purge_position"] {
        assert_eq!(after[name], before[name], "{name}");
    }
    for name in ["responses", "memory_keys", "memory_bytes", "writes", "live_bytes"] {
        assert_eq!(after["store"][name], before["store"][name], "{name}");
    }
}

/// The command, as people and as programs read it.
#[tokio::test]
async fn the_command_prints_the_decision() {
    let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=600").vary("Accept-Language")).await;
    let brim = BrimProcess::in_front_of(&origin.url(), "");
    let admin = format!("http://{}", brim.listening().admin[0]);
    let (url, token) = (format!("http://{}/a", brim.listening().http[0]), brim.admin_token());
    let explain =
        |words: &[&str]| brim.command(&[&["explain", &url, "--admin", &admin, "--token", &token], words].concat());
    let (exit, stdout, stderr) = explain(&[]);
    assert_eq!(exit.code(), Some(0), "{stderr}");
    assert!(stdout.contains("forward: nothing usable is stored") && stdout.starts_with("request    GET "), "{stdout}");
    assert!(stdout.lines().all(|line| line.chars().count() <= 100), "{stdout}");
    brim.http1().ask(Method::GET, "/a").header("accept-language", "de").send().await.assert_stored();
    let (_, stdout, _) = explain(&["-H", "Accept-Language: de", "-X", "HEAD"]);
    assert!(stdout.contains("Cache-Status: brim; hit; ttl="), "{stdout}");
    let (exit, stdout, _) = explain(&["--header", "accept-language:en", "--json"]);
    let document: Value = serde_json::from_str(&stdout).expect("one document");
    assert_eq!((exit.code(), &document["decision"]["fwd"]), (Some(0), &json!("vary-miss")));
    assert_eq!(explain(&["-X", "no method"]).0.code(), Some(1));
    assert_eq!(explain(&["-H", "novalue"]).0.code(), Some(2));
    assert_eq!(explain(&["--token-file", "/nonexistent"]).0.code(), Some(2));
    origin.assert_requests("/a", 1).await;
}

/// Parts: one that suffices, parts that lack a run of bytes, and a range of which nothing is known.
#[tokio::test]
async fn parts_are_explained() {
    let origin = FakeOrigin::start().await;
    let part = |content: &'static str, range: &str| {
        ok(content).status(206).cache_control("max-age=60").etag("\"1\"").header("content-range", range)
    };
    let node = TestNode::start(&TestNode::config(&origin, "", "[store]\nrange_whole_max = \"0B\"\n")).await;
    let cases = [
        case("/a", &[("range", "bytes=0-4")], "forward"),
        case("/a", &[("range", "bytes=1-3")], "hit"),
        case("/a", &[("range", "bytes=20-")], "hit"),
        case("/a", &[("if-none-match", "\"1\"")], "hit"),
        by(Method::HEAD, "/a", &[], "forward"),
        case("/a", &[("range", "bytes=3-6")], "forward"),
        case("/a", &[("range", "bytes=3-6")], "hit"),
    ];
    // A HEAD takes a reply of the script.
    origin.serve_each(
        "/a",
        [
            part("01234", "bytes 0-4/10"),
            ok("0123456789").cache_control("max-age=60").etag("\"1\""),
            part("56", "bytes 5-6/10"),
            part("789", "bytes 7-9/10"),
        ],
    );
    for case in &cases {
        assert_as_explained(&node, &origin, case).await;
    }
    let lacking = explained_get(&node, "/a", &[]).await;
    assert_step(&lacking, "decision", "bytes 7 to 9");
    assert_step(&lacking, "candidate", "holds bytes 0-4 of 10");
    assert_eq!(lacking["candidates"][0]["part"], json!({"first": 5, "last": 6, "complete_bytes": 10}));
    assert_as_explained(&node, &origin, &case("/a", &[], "forward")).await;
    assert_as_explained(&node, &origin, &case("/a", &[], "hit")).await;
    let whole = explained_get(&node, "/a", &[]).await;
    let selected = whole["candidates"].as_array().unwrap().iter().filter(|one| one["selected"] == true);
    assert_eq!(selected.count(), 3, "all parts of the answer: {whole:#}");
}

/// On a variant miss the tags that would be offered are told.
#[tokio::test]
async fn the_tags_of_other_variants_are_told() {
    let origin = FakeOrigin::start().await;
    origin.answer("/a", |request| {
        let language = request.header("accept-language").unwrap_or("none").to_owned();
        let tag = format!("\"{language}\"");
        ok(language).cache_control("max-age=600").vary("Accept-Language").etag(&tag)
    });
    let node = TestNode::in_front_of(&origin).await;
    for (language, action) in [("de", "forward"), ("en", "forward"), ("fr", "forward")] {
        let fields: Fields = Box::leak(Box::new([("accept-language", language)]));
        assert_as_explained(&node, &origin, &case("/a", fields, action)).await;
        assert_as_explained(&node, &origin, &case("/a", fields, "hit")).await;
    }
}

/// RFC 9111 §3.5, §5.2.1.5: what in the request will keep the response out of the store is told before there is one.
#[tokio::test]
async fn what_a_request_forbids_to_store_is_told() {
    let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=0").etag("\"1\"")).await;
    let node = TestNode::in_front_of(&origin).await;
    let known: Fields = &[("authorization", "Bearer x")];
    for stored_before in [false, true] {
        assert_step(&explained_get(&node, "/a", known).await, "decision", "RFC 9111 §3.5");
        let silent = explained_get(&node, "/a", &[("cache-control", "no-store"), known[0]]).await;
        assert_step(&silent, "decision", "nothing is stored: the request says no-store");
        let plain = explained_get(&node, "/a", &[]).await;
        assert!(!steps(&plain, "decision").iter().any(|step| step.contains("Authorization")), "{plain}");
        if !stored_before {
            node.get("/a").await.assert_stored();
            node.settled().await;
        }
    }
    let answer = really(&node, &Method::GET, "/a", known).await;
    assert_eq!(answer.cache_status().detail.as_deref(), Some("authorization"));
}

/// RFC 10008: the content of a QUERY is in its key; what it was cannot be read from there.
#[tokio::test]
async fn a_query_is_explained_by_its_content() {
    let origin = FakeOrigin::serving("/search", ok("found").cache_control("max-age=60")).await;
    let node = TestNode::in_front_of(&origin).await;
    let query = Method::from_bytes(b"QUERY").unwrap();
    let explained = async |content: &str| -> Value {
        let asked = json!({ "url": node.url("/search"), "method": "QUERY", "content": content });
        let answer = node.admin(Method::POST, "/v1/explain").json(&asked).send().await;
        answer.assert_status(200);
        answer.json()
    };
    assert_eq!(explained("a").await["decision"]["action"], "forward");
    node.ask(query, "/search").content("a").send().await.assert_stored();
    let hit = explained("a").await;
    assert_eq!(hit["decision"]["action"], "hit");
    assert_eq!(explained("b").await["decision"]["action"], "forward");
    let parts = hit["key"]["parts"].as_array().unwrap();
    let content = parts.iter().find(|part| part["name"] == "content").expect("a part");
    assert_eq!((content["kind"].as_str(), content["value"].as_str().map(str::len)), (Some("hex"), Some(64)));
    assert_eq!(parts[0]["value"], "QUERY");
    origin.assert_requests("/search", 1).await;
}
