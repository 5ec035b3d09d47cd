//! Tokens of the admin API: what each may do, how long, how often, and what is written down of it.

use std::time::Duration;

use brim_tests::{Answer, BrimProcess, FakeOrigin, TestNode, ok};
use http::Method;
use serde_json::{Value, json};

async fn two_sites() -> (FakeOrigin, TestNode) {
    let origin = FakeOrigin::start().await;
    origin.answer("/a", |_| ok("v1").cache_control("max-age=600").surrogate_keys("p:1 q:1"));
    let shop =
        "[[sites]]\nname = \"shop\"\nhosts = [\"shop.example\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"test\"";
    let node = TestNode::start(&TestNode::config(&origin, "", shop)).await;
    (origin, node)
}

async fn make(node: &TestNode, token: Value) -> (String, String) {
    let answer = node.admin(Method::POST, "/v1/tokens").json(&token).send().await;
    answer.assert_status(201);
    let text = |name: &str| answer.json()[name].as_str().expect("a text").to_owned();
    (text("id"), text("token"))
}

async fn purge(node: &TestNode, token: &str, request: Value) -> Answer {
    node.admin_as(token, Method::POST, "/v1/purges").json(&request).send().await
}

/// What each scope may do at a real node; `admin` stands for the token file too.
#[tokio::test]
async fn each_scope_opens_its_calls_and_no_others() {
    let (_origin, node) = two_sites().await;
    let calls = [
        (Method::GET, "/v1/status", json!(null), "read"),
        (Method::GET, "/v1/origins", json!(null), "read"),
        (Method::POST, "/v1/explain", json!({ "url": "http://shop.example/a" }), "read"),
        (Method::GET, "/v1/purges", json!(null), "read purge"),
        (Method::GET, "/v1/plugins", json!(null), "read plugins"),
        (Method::POST, "/v1/purges", json!({ "site": "shop" }), "purge"),
        (Method::PUT, "/v1/plugins/rule", json!("no component"), "plugins"),
        (Method::POST, "/v1/plugins/rule/rollback", json!(null), "plugins"),
        (Method::POST, "/v1/config/reload", json!(null), ""),
        (Method::POST, "/v1/origins/test/drain", json!({ "endpoint": "http://x", "drain": true }), ""),
        (Method::POST, "/v1/tokens", json!({ "name": "x", "scopes": ["admin"] }), ""),
        (Method::GET, "/v1/tokens", json!(null), ""),
        (Method::GET, "/v1/audit", json!(null), ""),
        (Method::DELETE, "/v1/tokens/none", json!(null), ""),
    ];
    for scope in ["read", "purge", "plugins", "admin"] {
        let (_, secret) = make(&node, json!({ "name": scope, "scopes": [scope] })).await;
        for (method, path, content, scopes) in &calls {
            let ask = node.admin_as(&secret, method.clone(), path);
            let ask = if content.is_null() { ask } else { ask.json(content) };
            let answer = ask.send().await;
            let may = scope == "admin" || scopes.split(' ').any(|of| of == scope);
            assert_eq!(answer.status != 403, may, "{method} {path} with {scope}: {}", answer.head());
            if !may {
                let problem = answer.json();
                let detail = problem["detail"].as_str().expect("a detail");
                let first = scopes.split(' ').next().filter(|scope| !scope.is_empty()).unwrap_or("admin");
                assert!(detail.contains(&format!("{first:?}")), "{detail}");
            }
        }
    }
    for path in ["/healthz", "/metrics"] {
        node.admin_as("none", Method::GET, path).send().await.assert_status(200);
    }
    let wrong = node.admin_as("none", Method::GET, "/v1/status").send().await;
    wrong.assert_status(401);
    assert_eq!(wrong.header("www-authenticate"), Some("Bearer realm=\"brim\""));
}

/// A key that both sites carry goes in the token's site only.
#[tokio::test]
async fn a_token_of_a_site_leaves_the_others_alone() {
    let (_origin, node) = two_sites().await;
    let shop = node.client().clone().authority("shop.example");
    let (_, secret) = make(&node, json!({ "name": "shop", "scopes": ["purge"], "sites": ["shop"] })).await;
    for request in [
        json!({ "surrogate_keys": ["p:1"] }),
        json!({ "site": "shop" }),
        json!({ "url": "http://shop.example/a" }),
        json!({ "prefix": "http://shop.example/" }),
        json!({ "match": { "status": 200 } }),
    ] {
        shop.get("/a").await;
        node.get("/a").await;
        purge(&node, &secret, request.clone()).await.assert_status(201);
        shop.get("/a").await.assert_forwarded("uri-miss");
        node.get("/a").await.assert_hit();
    }
    for request in [
        json!({ "everything": true }),
        json!({ "site": "test" }),
        json!({ "url": node.url("/a") }),
        json!({ "prefix": node.url("/") }),
        json!({ "surrogate_keys": ["p:1"], "site": "test" }),
        json!({ "match": { "status": 200, "site": "test" } }),
    ] {
        let refused = purge(&node, &secret, request.clone()).await;
        refused.assert_status(403);
        assert_eq!(refused.json()["code"], "forbidden", "{request}");
    }
    node.get("/a").await.assert_hit();
    let (_, keys) = make(&node, json!({ "name": "keys", "scopes": ["purge"], "key_prefixes": ["p:"] })).await;
    purge(&node, &keys, json!({ "surrogate_keys": ["q:1"] })).await.assert_status(403);
    node.get("/a").await.assert_hit();
    purge(&node, &keys, json!({ "surrogate_keys": ["p:1"] })).await.assert_status(201);
    node.get("/a").await.assert_forwarded("uri-miss");
}

#[tokio::test]
async fn a_token_lives_until_it_expires_or_is_revoked() {
    let (_origin, mut node) = two_sites().await;
    let (_, short) = make(&node, json!({ "name": "short", "scopes": ["read"], "expires_in": "1h" })).await;
    let (id, long) = make(&node, json!({ "name": "long", "scopes": ["read"] })).await;
    let status = async |node: &TestNode, token: &str| {
        node.admin_as(token, Method::GET, "/v1/status").send().await.status.as_u16()
    };
    node.clock().advance(Duration::from_secs(3590));
    node.restart().await;
    assert_eq!((status(&node, &short).await, status(&node, &long).await), (200, 200), "a restart forgets no token");
    node.clock().advance(Duration::from_secs(10));
    assert_eq!((status(&node, &short).await, status(&node, &long).await), (401, 200));
    node.admin(Method::DELETE, &format!("/v1/tokens/{id}")).send().await.assert_status(200);
    assert_eq!(status(&node, &long).await, 401);
    node.restart().await;
    assert_eq!(status(&node, &long).await, 401, "and none comes back");
}

/// A damaged file lets nobody in and does not keep the node from starting.
#[tokio::test]
async fn a_damaged_token_file_leaves_the_admin_token_alone() {
    let (_origin, mut node) = two_sites().await;
    let (_, secret) = make(&node, json!({ "name": "a", "scopes": ["admin"] })).await;
    let file = node.data_dir().join("tokens.json");
    node.stop().await;
    let text = std::fs::read_to_string(&file).expect("written");
    std::fs::write(&file, &text[..text.len() - 3]).expect("written");
    node.restart().await;
    node.admin_as(&secret, Method::GET, "/v1/status").send().await.assert_status(401);
    assert_eq!(node.admin(Method::GET, "/v1/tokens").send().await.json(), json!({ "tokens": [] }));
    let names = std::fs::read_dir(node.data_dir()).expect("listed").flatten();
    let aside = names.filter(|name| name.file_name().to_string_lossy().starts_with("tokens.json.damaged-")).count();
    assert_eq!(aside, 1);
    let (_, fresh) = make(&node, json!({ "name": "b", "scopes": ["read"] })).await;
    node.admin_as(&fresh, Method::GET, "/v1/status").send().await.assert_status(200);
}

#[tokio::test]
async fn a_token_purges_so_often_and_no_more() {
    let (_origin, node) = two_sites().await;
    let (_, slow) = make(&node, json!({ "name": "slow", "scopes": ["purge"], "purges_per_minute": 2 })).await;
    let request = json!({ "surrogate_keys": ["p:1"] });
    purge(&node, &slow, request.clone()).await.assert_status(201);
    purge(&node, &slow, json!({ "surrogate_keys": ["p:1"], "dry_run": true })).await.assert_status(200);
    let refused = purge(&node, &slow, request.clone()).await;
    refused.assert_status(429);
    let seconds: u64 = refused.header("retry-after").and_then(|value| value.parse().ok()).expect("seconds");
    assert!((20..=30).contains(&seconds), "half a minute for one of two: {seconds}");
    assert_eq!(refused.json()["code"], "rate_limited");
    node.admin_as(&slow, Method::GET, "/v1/purges").send().await.assert_status(200);
    assert_eq!(node.purge(request).await["by"], "admin", "others have their own");
    let metrics = node.admin(Method::GET, "/metrics").send().await;
    assert!(
        metrics.content().contains("brim_admin_refusals_total{reason=\"rate_limited\"} 1"),
        "{}",
        metrics.content()
    );
}

/// The commands from making a token to its end, and the lines that the audit log has of it.
#[tokio::test]
async fn the_commands_make_use_and_revoke_a_token() {
    let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=600").surrogate_keys("p:1")).await;
    let brim = BrimProcess::in_front_of(&origin.url(), "");
    let (admin, token) = (brim.admin_url(), brim.admin_token());
    let run = |words: &[&str], token: &str| brim.command(&[words, &["--admin", &admin, "--token", token]].concat());
    let new = ["token", "new", "ci", "--scope", "purge", "--key-prefix", "p:", "--expires-in", "30d"];
    let (exit, stdout, stderr) = run(&new, &token);
    assert_eq!(exit.code(), Some(0), "{stderr}");
    let secret = stdout.lines().next().expect("the secret").to_owned();
    let id = secret.split('_').nth(1).expect("an id").to_owned();
    let (_, listed, _) = run(&["token", "list"], &token);
    assert!(listed.contains(&id) && listed.contains("purge, keys p:*") && !listed.contains(&secret), "{listed}");

    brim.http1().get("/a").await;
    assert_eq!(run(&["purge", "key", "p:1"], &secret).0.code(), Some(0));
    brim.http1().get("/a").await.assert_forwarded("uri-miss");
    let (exit, _, stderr) = run(&["purge", "all"], &secret);
    assert_eq!(exit.code(), Some(1));
    assert!(stderr.contains("may purge only surrogate keys that begin with \"p:\""), "{stderr}");
    assert_eq!(run(&["status"], &secret).0.code(), Some(1));
    assert_eq!(run(&["purge", "list"], &secret).0.code(), Some(0));
    assert_eq!(run(&["token", "revoke", &id], &token).0.code(), Some(0));
    assert_eq!(run(&["purge", "list"], &secret).0.code(), Some(1));

    let lines = brim.admin(Method::GET, "/v1/audit?limit=10", None).body;
    let lines = lines["lines"].as_array().expect("a list");
    let short: Vec<_> =
        lines.iter().rev().map(|line| format!("{} {} {}", line["name"], line["call"], line["status"])).collect();
    assert_eq!(
        short,
        [
            "\"admin\" \"POST /v1/tokens\" 201",
            "\"ci\" \"POST /v1/purges\" 201",
            "\"ci\" \"POST /v1/purges\" 403",
            "\"ci\" \"GET /v1/status\" 403",
            &format!("\"admin\" \"DELETE /v1/tokens/{id}\" 200"),
            "null \"GET /v1/purges\" 401",
        ]
    );
    let purged = lines.iter().find(|line| line["receipt"].is_string()).expect("the purge");
    assert_eq!((&purged["by"], &purged["receipt"]), (&json!(id), &json!("p-1")));
    let log = std::fs::read_to_string(brim.data_dir().join("audit.log")).expect("written");
    assert_eq!(log.lines().count(), 6);
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()) && !log.contains(&secret), "{log}");
}
