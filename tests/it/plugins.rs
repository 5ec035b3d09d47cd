//! Plugins in a running node: what a key rule does to requests, and what a bad one cannot do.

use brim_tests::{BrimProcess, FakeOrigin, TestNode, ok, plugins};
use http::Method;
use serde_json::json;

const BY_PLUGIN: &str = "plugins = { cache_key = \"rule\" }";

async fn node_with(origin: &FakeOrigin, component: &std::path::Path) -> TestNode {
    let node = TestNode::with_route(origin, BY_PLUGIN).await;
    node.activate_plugin("rule", component).await;
    node
}

#[tokio::test]
async fn tenant_key_keeps_tenants_apart_and_drops_tracking_parameters() {
    let origin = FakeOrigin::start().await;
    origin.answer("/list", |request| {
        let tenant = request.header("x-tenant").unwrap_or("none").to_owned();
        ok(tenant).cache_control("max-age=600")
    });
    let node = node_with(&origin, plugins::tenant_key()).await;
    let ask = |tenant: &'static str, target: &'static str| node.get_with(target, "x-tenant", tenant);
    ask("acme", "/list?b=2&a=1&utm_source=mail").await.assert_forwarded("uri-miss").assert_content("acme");
    ask("acme", "/list?a=1&b=2").await.assert_hit().assert_content("acme");
    ask("acme", "/list?a=1&b=2&fbclid=x").await.assert_hit();
    ask("acme", "/list?a=1&b=3").await.assert_forwarded("uri-miss");
    ask("globex", "/list?a=1&b=2").await.assert_forwarded("uri-miss").assert_content("globex");
    for request in origin.requests("/list") {
        assert!(!request.target.contains("utm_source"), "what is not keyed is not forwarded: {}", request.target);
    }
}

/// The URL as a user knows it is purged under the query that the rule made of it.
#[tokio::test]
async fn a_purge_by_url_follows_the_rule() {
    let origin = FakeOrigin::serving("/list", ok("v").cache_control("max-age=600")).await;
    let node = node_with(&origin, plugins::tenant_key()).await;
    for tenant in ["acme", "globex"] {
        node.get_with("/list?b=2&a=1", "x-tenant", tenant).await.assert_stored();
    }
    node.purge(json!({ "url": node.url("/list?b=2&a=1&utm_source=mail") })).await;
    for tenant in ["acme", "globex"] {
        node.get_with("/list?a=1&b=2", "x-tenant", tenant).await.assert_forwarded("uri-miss");
    }
}

/// One variant of a URL is what a request with these fields would get: under a key rule, the key that it gives such a request.
#[tokio::test]
async fn a_purge_of_one_variant_follows_the_rule() {
    let origin = FakeOrigin::serving("/list", ok("v").cache_control("max-age=600").vary("Accept-Language")).await;
    let node = node_with(&origin, plugins::tenant_key()).await;
    let ask = |tenant: &'static str, language: &'static str| {
        let ask = node.ask(Method::GET, "/list?b=2&a=1").header("x-tenant", tenant);
        ask.header("accept-language", language).send()
    };
    let all = [("acme", "de"), ("acme", "en"), ("globex", "de")];
    for (tenant, language) in all {
        ask(tenant, language).await.assert_stored();
    }
    let variant = json!({ "X-Tenant": "acme", "Accept-Language": "de" });
    let receipt = node.purge(json!({ "url": node.url("/list?a=1&b=2"), "headers": variant })).await;
    assert_eq!(receipt["matched"], 1, "{receipt}");
    for ((tenant, language), is_hit) in all.into_iter().zip([false, true, true]) {
        assert_eq!(ask(tenant, language).await.cache_status().hit, is_hit, "{tenant} {language}");
    }
}

/// What a version of a rule has stored can be purged by that version alone.
#[tokio::test]
async fn a_purge_by_the_version_of_a_rule() {
    let origin = FakeOrigin::start().await;
    for path in ["/one", "/two"] {
        origin.serve(path, ok(path).cache_control("max-age=600"));
    }
    let node = node_with(&origin, plugins::tenant_key()).await;
    node.get("/one").await.assert_stored();
    node.activate_plugin("rule", plugins::device_key()).await;
    node.get("/two").await.assert_stored();
    let receipt = node.purge(json!({ "match": { "plugin": "rule@2" } })).await;
    assert_eq!(receipt["matched"], 1, "{receipt}");
    node.get("/two").await.assert_forwarded("uri-miss");
    node.admin(Method::POST, "/v1/plugins/rule/rollback").send().await.assert_status(200);
    node.get("/one").await.assert_hit();
    let versions = node.admin(Method::GET, "/v1/plugins/rule").send().await.json()["versions"].clone();
    let first = versions.as_array().and_then(|all| all.iter().find(|one| one["version"] == 1)).expect("it is kept");
    node.purge(json!({ "match": { "plugin": first["digest"] } })).await;
    node.get("/one").await.assert_forwarded("uri-miss");
}

/// A rule that cannot say how it rewrites a URL makes the purge coarser, never weaker.
#[tokio::test]
async fn a_purge_by_url_does_not_depend_on_a_sound_rule() {
    let origin = FakeOrigin::serving("/a", ok("v").cache_control("max-age=600")).await;
    let node = node_with(&origin, plugins::hostile()).await;
    for path in ["/panic", "/loop"] {
        let receipt = node.purge(json!({ "url": node.url(path) })).await;
        assert!(receipt["purged"].to_string().contains("prefix"), "{receipt}");
    }
    let receipt = node.purge(json!({ "url": node.url("/a") })).await;
    assert!(!receipt["purged"].to_string().contains("prefix"), "{receipt}");
}

/// RFC 9111 §4.4: so does the invalidation by a write.
#[tokio::test]
async fn a_write_invalidates_under_the_query_that_the_rule_made() {
    let origin = FakeOrigin::serving("/list", ok("v").cache_control("max-age=600")).await;
    let node = node_with(&origin, plugins::tenant_key()).await;
    node.get_with("/list?b=2&a=1", "x-tenant", "acme").await.assert_stored();
    node.ask(Method::PATCH, "/list?b=2&utm_source=mail&a=1").content("x").send().await.assert_status(200);
    node.get_with("/list?a=1&b=2", "x-tenant", "acme").await.assert_forwarded("uri-miss");
}

#[tokio::test]
async fn device_key_folds_user_agents_into_classes() {
    let origin = FakeOrigin::start().await;
    origin.answer("/home", |request| {
        ok(request.header("user-agent").unwrap_or("none").to_owned()).cache_control("max-age=600")
    });
    let node = node_with(&origin, plugins::device_key()).await;
    let iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148";
    let android = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/120.0 Mobile Safari/537.36";
    let desktop = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120.0 Safari/537.36";
    node.get_with("/home", "user-agent", iphone).await.assert_forwarded("uri-miss");
    node.get_with("/home", "user-agent", android).await.assert_hit().assert_content(iphone);
    node.get_with("/home", "user-agent", desktop).await.assert_forwarded("uri-miss").assert_content(desktop);
    origin.assert_requests("/home", 2).await;
}

/// research/wasm-plugins.md §5: whatever a guest does costs its own request a bypass, and the next one nothing.
#[tokio::test]
async fn a_hostile_rule_costs_its_own_request_a_bypass() {
    let origin = FakeOrigin::start().await;
    origin.serve("/good", ok("good").cache_control("max-age=600"));
    let cases = [
        "/loop",
        "/memory",
        "/panic",
        "/index",
        "/recurse",
        "/trap",
        "/wild",
        "/reject",
        "/garbage/huge",
        "/garbage/parts",
        "/garbage/query",
        "/garbage/name",
    ];
    for path in cases {
        origin.serve(path, ok("from the origin").cache_control("max-age=600"));
    }
    let node = node_with(&origin, plugins::hostile()).await;
    node.get("/good").await.assert_stored();
    for path in cases {
        for _ in 0..2 {
            let answer = node.get(path).await;
            answer.assert_status(200).assert_forwarded("bypass").assert_not_stored().assert_content("from the origin");
            let detail = answer.cache_status().detail.unwrap_or_default();
            assert!(detail.starts_with("plugin-"), "{path}: {detail}");
        }
        node.get("/good").await.assert_hit();
    }
    let plugin = node.admin(Method::GET, "/v1/plugins/rule").send().await.json();
    assert!(plugin["calls"]["traps"].as_u64().is_some_and(|traps| traps >= cases.len() as u64), "{plugin}");
}

#[tokio::test]
async fn a_route_without_its_plugin_goes_past_the_cache() {
    let origin = FakeOrigin::serving("/a", ok("v").cache_control("max-age=600")).await;
    let node = TestNode::with_route(&origin, BY_PLUGIN).await;
    for _ in 0..2 {
        let answer = node.get("/a").await;
        answer.assert_forwarded("bypass").assert_not_stored();
        assert_eq!(answer.cache_status().detail.as_deref(), Some("plugin-missing"));
    }
}

/// Versions are kept; activation and rollback change the next request, and a restart changes nothing.
#[tokio::test]
async fn versions_are_swapped_rolled_back_and_survive_a_restart() {
    let origin = FakeOrigin::serving("/a", ok("v").cache_control("max-age=600")).await;
    let mut node = node_with(&origin, plugins::tenant_key()).await;
    node.get_with("/a", "x-tenant", "acme").await.assert_stored();
    node.get_with("/a", "x-tenant", "globex").await.assert_forwarded("uri-miss");

    node.activate_plugin("rule", plugins::device_key()).await;
    node.get_with("/a", "x-tenant", "acme").await.assert_forwarded("uri-miss");
    node.get_with("/a", "x-tenant", "globex").await.assert_hit();

    node.admin(Method::POST, "/v1/plugins/rule/rollback").json(&json!({})).send().await.assert_status(200);
    node.get_with("/a", "x-tenant", "acme").await.assert_hit();
    let authority = node.http_address().to_string();
    node.restart().await;
    let client = node.client().clone().authority(&authority);
    client.ask(Method::GET, "/a").header("x-tenant", "acme").send().await.assert_hit();
    let plugin = node.admin(Method::GET, "/v1/plugins/rule").send().await.json();
    assert_eq!(plugin["active"], 1, "{plugin}");
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_with_the_reason() {
    let origin = FakeOrigin::start().await;
    let node = TestNode::in_front_of(&origin).await;
    for content in [b"not wasm".to_vec(), b"\0asm\x01\0\0\0".to_vec(), b"\0asm\x0d\0\x01\0garbage".to_vec(), Vec::new()]
    {
        let answer = node.admin(Method::PUT, "/v1/plugins/bad").content(content).send().await;
        assert!(answer.status.is_client_error(), "{}", answer.head());
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{}", answer.content());
    }
    node.admin(Method::GET, "/v1/plugins/bad").send().await.assert_status(404);
}

/// The whole way of an author, with the real binary: new, test, build, push, activate, a request.
#[tokio::test]
async fn from_new_to_a_live_rule() {
    let origin = FakeOrigin::serving("/a", ok("v").cache_control("max-age=600")).await;
    let brim = BrimProcess::start(
        &BrimProcess::config(&origin.url(), "")
            .replace("origin = \"test\"", "origin = \"test\"\nplugins = { cache_key = \"my-rule\" }"),
    );
    let (status, stdout, stderr) = brim.command(&["plugin", "new", "my-rule"]);
    assert!(status.success(), "{stdout}{stderr}");
    let folder = brim.dir().join("my-rule");
    let target = brim.dir().join("author-target");
    let tested = std::process::Command::new("cargo")
        .args(["test", "--quiet"])
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", &target)
        .output()
        .expect("cargo runs");
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
    let admin = format!("http://{}", brim.listening().admin[0]);
    let token = brim.admin_token();
    let (status, stdout, stderr) =
        brim.command(&["plugin", "push", "my-rule", "--activate", "--admin", &admin, "--token", &token]);
    assert!(status.success(), "{stdout}{stderr}");
    brim.http1().get("/a").await.assert_forwarded("uri-miss").assert_stored();
    brim.http1().get("/a").await.assert_hit();
}
