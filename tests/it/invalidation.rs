//! The invalidation hook in a running node: surrogate keys on storing, purges after a write, and what a rule that fails costs.

use brim_tests::{FakeOrigin, Gate, TestNode, eventually, ok, plugins, status};
use http::Method;
use serde_json::json;

const BY_PLUGIN: &str = "plugins = { invalidation = \"rule\" }";

fn page(ids: &[u64]) -> brim_tests::Reply {
    let items: Vec<_> = ids.iter().map(|id| json!({ "id": id })).collect();
    ok(json!({ "data": items }).to_string()).cache_control("max-age=600").header("content-type", "application/json")
}

async fn catalogue() -> FakeOrigin {
    let origin = FakeOrigin::start().await;
    origin.serve("/items?page=1", page(&[1, 2]));
    origin.serve("/items?page=2", page(&[3]));
    for id in 1..=3 {
        origin.answer(&format!("/items/{id}"), move |request| match request.method.as_str() {
            "GET" => ok(json!({ "id": id }).to_string()).cache_control("max-age=600"),
            _ => status(204),
        });
    }
    origin
}

const PATHS: [&str; 4] = ["/items?page=1", "/items?page=2", "/items/1", "/items/3"];

async fn hits(node: &TestNode) -> [bool; 4] {
    let mut hits = [false; 4];
    for (path, hit) in PATHS.into_iter().zip(&mut hits) {
        *hit = node.get(path).await.cache_status().hit;
    }
    node.settled().await;
    hits
}

/// A write to one item purges the pages on which it appears, one that adds or removes an item all lists.
#[tokio::test]
async fn rest_tags_purges_the_pages_of_an_item() {
    let origin = catalogue().await;
    let config = "[plugins.config.rule]\ntype = \"item\"\nlist = \"/data\"\npath = \"/items\"";
    let node = TestNode::start(&TestNode::config(&origin, BY_PLUGIN, config)).await;
    node.activate_plugin("rule", plugins::rest_tags()).await;
    assert_eq!(hits(&node).await, [false; 4]);
    assert_eq!(hits(&node).await, [true; 4]);
    node.ask(Method::PUT, "/items/3").content("{}").send().await.assert_status(204);
    assert_eq!(hits(&node).await, [true, false, true, false]);
    node.ask(Method::DELETE, "/items/3").send().await.assert_status(204);
    assert_eq!(hits(&node).await, [false, false, true, false]);
    let asked = node.admin(Method::GET, "/v1/plugins/rule").send().await;
    assert!(asked.content().contains("\"invalidation\""), "{}", asked.content());
}

#[tokio::test]
async fn webhook_purge_purges_what_a_webhook_names() {
    let origin = FakeOrigin::start().await;
    for (path, key) in [("/a", "product:7"), ("/b", "product:8"), ("/c", "other")] {
        origin.serve(path, ok(path).cache_control("max-age=600").surrogate_keys(key));
    }
    origin.answer_content("/hook", |request| if request.content.is_empty() { status(400) } else { ok("taken") });
    let node = TestNode::with_route(&origin, BY_PLUGIN).await;
    node.activate_plugin("rule", plugins::webhook_purge()).await;
    let stored = async || {
        let mut hits = Vec::new();
        for path in ["/a", "/b", "/c"] {
            hits.push(node.get(path).await.cache_status().hit);
        }
        hits
    };
    stored().await;
    let hook = |content: serde_json::Value| node.ask(Method::POST, "/hook").json(&content).send();
    hook(json!({ "type": "product", "id": 7, "action": "updated" })).await.assert_content("taken");
    assert_eq!(stored().await, [false, true, true]);
    hook(json!({ "events": [{ "type": "product", "id": 8, "action": "updated" }], "urls": ["/c"] })).await;
    assert_eq!(stored().await, [true, false, false]);
    node.ask(Method::POST, "/hook").send().await.assert_status(400);
    assert_eq!(stored().await, [true; 3], "the origin did not take it");
    let recorded = origin.wait_for_contents("/hook", 3).await;
    assert_eq!(recorded[0].content, json!({ "type": "product", "id": 7, "action": "updated" }).to_string());
}

/// Never untagged: what a tagging rule fails on is delivered and not stored.
#[tokio::test]
async fn a_tagging_rule_that_fails_keeps_the_response_out() {
    let origin = FakeOrigin::start().await;
    let cases = ["/loop", "/panic", "/trap", "/reject", "/garbage/keys", "/garbage/space", "/garbage/huge"];
    for path in cases.into_iter().chain(["/fine"]) {
        origin.serve(path, ok(path).cache_control("max-age=600"));
    }
    let node = TestNode::with_route(&origin, BY_PLUGIN).await;
    let missing = node.get("/fine").await;
    missing.assert_not_stored().assert_content("/fine");
    assert_eq!(missing.cache_status().detail.as_deref(), Some("plugin-missing"));
    node.activate_plugin("rule", plugins::hostile()).await;
    for path in cases {
        for _ in 0..2 {
            let answer = node.get(path).await;
            answer.assert_status(200).assert_content(path);
            assert!(!answer.cache_status().hit, "{path}: {}", answer.head());
            node.settled().await;
        }
    }
    node.get("/fine").await;
    node.settled().await;
    node.get("/fine").await.assert_hit();
    let receipt = node.purge(json!({ "surrogate_keys": ["path:/fine"] })).await;
    assert_eq!(receipt["matched"], 1, "{receipt}");
    let metrics = node.admin(Method::GET, "/metrics").send().await;
    let untagged = format!("brim_untagged_total{{site=\"test\"}} {}", 2 * cases.len() + 1);
    assert!(metrics.content().contains(&untagged), "{}", metrics.content());
}

/// A purge rule that fails is asked again until it answers, also after a restart; a better version of it may be the one that does.
#[tokio::test]
async fn a_purge_rule_that_fails_is_asked_again() {
    let origin = FakeOrigin::start().await;
    origin.serve("/kept", ok("v").cache_control("max-age=600").surrogate_keys("item:all"));
    for path in ["/reject", "/panic"] {
        origin.answer(path, |_| ok("written"));
    }
    let route = "[[sites.routes]]\npath = \"/kept\"\norigin = \"test\"\n[plugins.config.rule]\ntype = \"item\"";
    let mut node = TestNode::start(&TestNode::config(&origin, BY_PLUGIN, route)).await;
    node.activate_plugin("rule", plugins::hostile()).await;
    node.get("/kept").await.assert_stored();
    for path in ["/reject", "/panic"] {
        node.ask(Method::DELETE, path).send().await.assert_content("written");
    }
    node.get("/kept").await.assert_hit();
    let status = node.admin(Method::GET, "/v1/status").send().await.json();
    assert_eq!(status["invalidation_retries"], 2, "{status}");
    let waiting = node.admin(Method::GET, "/v1/retries").send().await.json();
    let first = &waiting["retries"][0];
    assert_eq!((&first["plugin"], &first["site"]), (&json!("rule"), &json!("test")), "{waiting}");
    assert!(first["target"].as_str().is_some_and(|target| target.ends_with("/reject")), "{waiting}");
    assert!(first["reason"].as_str().is_some_and(|reason| reason.contains("rejected on purpose")), "{waiting}");

    node.restart().await;
    let waiting = node.admin(Method::GET, "/v1/retries").send().await.json();
    assert_eq!(waiting["retries"].as_array().map(Vec::len), Some(2), "{waiting}");
    let second = waiting["retries"][1]["id"].as_u64().expect("a number");
    node.admin(Method::DELETE, &format!("/v1/retries/{second}")).send().await.assert_status(204);
    node.admin(Method::DELETE, &format!("/v1/retries/{second}")).send().await.assert_status(404);

    node.activate_plugin("rule", plugins::rest_tags()).await;
    eventually("the call that is left to be answered", async || {
        let waiting = node.admin(Method::GET, "/v1/retries").send().await.json();
        waiting["retries"].as_array().is_some_and(Vec::is_empty).then_some(())
    })
    .await;
    node.get("/kept").await.assert_forwarded("uri-miss");
    let receipts = node.admin(Method::GET, "/v1/purges").send().await;
    assert!(receipts.content().contains("\"by\":\"retry\""), "{}", receipts.content());
}

/// A plugin that is not there cannot be asked later either: the whole site goes.
#[tokio::test]
async fn a_missing_purge_rule_purges_the_site() {
    let origin = FakeOrigin::start().await;
    origin.serve("/kept", ok("v").cache_control("max-age=600"));
    origin.answer("/write", |_| ok("written"));
    let route = "[[sites.routes]]\npath = \"/kept\"\norigin = \"test\"";
    let node = TestNode::start(&TestNode::config(&origin, BY_PLUGIN, route)).await;
    node.get("/kept").await.assert_stored();
    node.ask(Method::POST, "/write").content("x").send().await.assert_content("written");
    node.get("/kept").await.assert_forwarded("uri-miss");
}

/// What the rule reads of a write is what was sent and answered, and both ends get all of it.
#[tokio::test]
async fn a_purge_rule_sees_both_contents_and_takes_nothing_from_them() {
    let origin = FakeOrigin::start().await;
    origin.answer_content("/items", |request| {
        let answer = json!({ "id": 7, "echo": String::from_utf8_lossy(&request.content) }).to_string();
        let (start, end) = answer.split_at(5);
        status(201).then(start.to_owned()).then(end.to_owned()).chunked()
    });
    origin.serve("/items/7", ok(json!({ "id": 7 }).to_string()).cache_control("max-age=600"));
    let config = "[plugins.config.rule]\ntype = \"item\"\npath = \"/items\"";
    let node = TestNode::start(&TestNode::config(&origin, BY_PLUGIN, config)).await;
    node.activate_plugin("rule", plugins::rest_tags()).await;
    node.get("/items/7").await;
    node.settled().await;
    node.get("/items/7").await.assert_hit();
    let content = json!({ "name": "x".repeat(100_000) }).to_string();
    let answer = node.ask(Method::POST, "/items").content(content.clone()).chunked().send().await;
    answer.assert_status(201);
    assert_eq!((&answer.json()["id"], &answer.json()["echo"]), (&json!(7), &json!(content)));
    node.get("/items/7").await.assert_forwarded("uri-miss");
}

/// An answer that the rule cannot read in time, or not as a whole, may be about any item; the client gets all of it.
#[tokio::test]
async fn an_answer_that_cannot_be_read_purges_more() {
    let origin = catalogue().await;
    let gate = Gate::new();
    let answer = || ok(r#"{"id": 1"#).header("content-type", "application/json");
    let of = [
        answer().then("}"),
        answer().then(" ".repeat(64 * 1024)).then("}"),
        answer().then_repeat(" ", 5000).then("}").chunked(),
        answer().then_wait(&gate).then("}").chunked(),
    ];
    origin.answer("/items/1", {
        let answers = parking_lot::Mutex::new(of.into_iter());
        move |request| match request.method.as_str() {
            "GET" => ok(r#"{"id": 1}"#).cache_control("max-age=600"),
            _ => answers.lock().next().expect("as many writes"),
        }
    });
    let config = "[plugins.config.rule]\ntype = \"item\"\nlist = \"/data\"\npath = \"/items\"";
    let route = format!("{BY_PLUGIN}\ntag_content_max = \"32KiB\"");
    let node = TestNode::start(&TestNode::config(&origin, &route, config)).await;
    node.activate_plugin("rule", plugins::rest_tags()).await;
    hits(&node).await;
    for (unread, after) in [[false, true, false, true], [false; 4], [false; 4], [false; 4]].into_iter().enumerate() {
        assert_eq!(hits(&node).await, [true; 4]);
        let written = tokio::spawn(node.ask(Method::PUT, "/items/1").content("{}").send());
        if unread == 3 {
            eventually("it is given up", async || {
                let metrics = node.admin(Method::GET, "/metrics").send().await;
                metrics.content().contains("brim_contents_unread_total{site=\"test\"} 3").then_some(())
            })
            .await;
            gate.open();
        }
        assert_eq!(written.await.expect("answered").json(), json!({ "id": 1 }));
        assert_eq!(hits(&node).await, after, "{unread}");
    }
}

/// What cannot be kept for another try purges all that it could have named.
#[tokio::test]
async fn a_failed_call_that_cannot_be_kept_purges_the_site() {
    let origin = FakeOrigin::start().await;
    origin.serve("/kept", ok("v").cache_control("max-age=600"));
    origin.answer("/reject", |_| ok("written"));
    let route = "[[sites.routes]]\npath = \"/kept\"\norigin = \"test\"";
    let mut node = TestNode::start(&TestNode::config(&origin, BY_PLUGIN, route)).await;
    node.activate_plugin("rule", plugins::hostile()).await;
    node.stop().await;
    let queue = node.data_dir().join("retries");
    std::fs::remove_dir(&queue).expect("empty");
    std::fs::write(&queue, "no directory").expect("written");
    node.restart().await;
    node.get("/kept").await.assert_stored();
    node.ask(Method::DELETE, "/reject").send().await.assert_content("written");
    node.get("/kept").await.assert_forwarded("uri-miss");
}
