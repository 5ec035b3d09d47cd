//! What survives a restart, a kill and a damaged disk.

use brim_tests::{BrimProcess, FakeOrigin, TestNode, eventually, ok};
use http::Method;

/// A client that asks in the name of a port that a restart has changed.
fn same_name(node: &TestNode, authority: &str) -> brim_tests::Client {
    node.client().clone().authority(authority)
}

#[tokio::test]
async fn a_restart_serves_what_was_stored() {
    let origin = FakeOrigin::start().await;
    origin.answer("/a", |request| {
        let language = request.header("accept-language").unwrap_or("none").to_owned();
        ok(format!("in {language}"))
            .cache_control("max-age=600")
            .vary("Accept-Language")
            .etag("\"1\"")
            .header("x-kept", "yes")
    });
    origin.serve("/large", ok("").then_repeat(vec![7_u8; 1 << 20], 3).cache_control("max-age=600"));
    let mut node = TestNode::in_front_of(&origin).await;
    let authority = node.http_address().to_string();
    for language in ["de", "en"] {
        node.get_with("/a", "accept-language", language).await.assert_stored();
    }
    node.get("/large").await.assert_stored();
    node.clock().advance(std::time::Duration::from_secs(7));
    node.restart().await;
    let client = same_name(&node, &authority);
    for language in ["de", "en"] {
        let answer = client.ask(Method::GET, "/a").header("accept-language", language).send().await;
        answer.assert_hit().assert_content(&format!("in {language}"));
        assert_eq!((answer.age(), answer.header("x-kept")), (Some(7), Some("yes")));
    }
    let large = client.get("/large").await;
    large.assert_hit();
    assert_eq!(large.content.len(), 3 << 20);
    origin.assert_requests("/a", 2).await;
    origin.assert_requests("/large", 1).await;
}

/// A validation is written back: after a restart the response is as fresh as the 304 made it.
#[tokio::test]
async fn a_freshened_response_is_fresh_after_a_restart() {
    let origin = FakeOrigin::start().await;
    origin.serve("/a", ok("v1").cache_control("max-age=100").etag("\"1\"").answering_conditionals());
    let mut node = TestNode::in_front_of(&origin).await;
    let authority = node.http_address().to_string();
    node.get("/a").await.assert_stored();
    node.clock().advance(std::time::Duration::from_secs(101));
    assert_eq!(node.get("/a").await.cache_status().fwd_status, Some(304));
    node.restart().await;
    same_name(&node, &authority).get("/a").await.assert_hit().assert_content("v1");
}

#[tokio::test]
async fn a_purge_survives_a_restart() {
    let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=600")).await;
    let mut node = TestNode::in_front_of(&origin).await;
    let authority = node.http_address().to_string();
    node.get("/a").await.assert_stored();
    node.purge(serde_json::json!({ "site": "test" })).await;
    node.restart().await;
    same_name(&node, &authority).get("/a").await.assert_forwarded("uri-miss");
}

/// What is on disk when the process is killed is served after it; a damaged index is set aside and the node starts.
#[tokio::test]
async fn a_damaged_index_is_set_aside() {
    let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=600")).await;
    let mut brim = BrimProcess::in_front_of(&origin.url(), "");
    let authority = brim.listening().http[0].to_string();
    brim.http1().get("/a").await.assert_stored();
    brim.terminate();
    brim.restart();
    brim.http1().authority(&authority).get("/a").await.assert_hit();
    brim.kill9();
    for file in walk(&brim.data_dir().join("index")) {
        let length = std::fs::read(&file).expect("there").len();
        std::fs::write(&file, vec![0xA5; length.max(64)]).expect("ours");
    }
    brim.restart();
    let answer = brim.http1().authority(&authority).get("/a").await;
    answer.assert_status(200).assert_content("v1").assert_forwarded("uri-miss");
    eventually("the store takes responses again", async || {
        brim.http1().authority(&authority).get("/a").await.cache_status().hit.then_some(())
    })
    .await;
}

/// A body whose bytes have changed on disk is a miss, never an answer.
#[tokio::test]
async fn flipped_bits_are_a_miss() {
    let origin = FakeOrigin::start().await;
    let content = "x".repeat(100_000);
    origin.serve("/a", ok(content.clone()).cache_control("max-age=600"));
    let mut brim = BrimProcess::in_front_of(&origin.url(), "");
    let authority = brim.listening().http[0].to_string();
    brim.http1().get("/a").await.assert_stored();
    brim.terminate();
    for file in walk(&brim.data_dir().join("seg")) {
        let mut bytes = std::fs::read(&file).expect("there");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        std::fs::write(&file, bytes).expect("ours");
    }
    brim.restart();
    let answer = brim.http1().authority(&authority).get("/a").await;
    answer.assert_status(200).assert_content(&content);
    origin.assert_requests("/a", 2).await;
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.expect("readable").path();
            if path.is_dir() { dirs.push(path) } else { files.push(path) }
        }
    }
    files
}
