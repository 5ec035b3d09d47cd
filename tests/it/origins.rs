//! Origins of several endpoints behind the real binary: who gets requests, who is out and why, and what an operator can do.

use brim_tests::{BrimProcess, FakeOrigin, OriginSetup, eventually, ok, status};
use http::Method;
use serde_json::{Value, json};

/// A node before these endpoints, with these lines in the section of the origin.
fn node(origins: &[&FakeOrigin], lines: &str) -> BrimProcess {
    let endpoints: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.url())).collect();
    let config = BrimProcess::config("http://127.0.0.1:1", "");
    let config = config.replace("[\"http://127.0.0.1:1\"]", &format!("[{}]\n{lines}", endpoints.join(", ")));
    BrimProcess::start(&config)
}

fn endpoint(brim: &BrimProcess, place: usize) -> Value {
    brim.admin(Method::GET, "/v1/origins", None).body["origins"][0]["endpoints"][place].clone()
}

async fn until_state(brim: &BrimProcess, place: usize, state: &str) -> Value {
    eventually(&format!("endpoint {place} {state}"), async || {
        let endpoint = endpoint(brim, place);
        (endpoint["state"] == state).then_some(endpoint)
    })
    .await
}

async fn two() -> [FakeOrigin; 2] {
    [FakeOrigin::serving("/", ok("first")).await, FakeOrigin::serving("/", ok("second")).await]
}

async fn content(brim: &BrimProcess, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(brim.http1().get("/").await.assert_status(200).content().to_owned());
    }
    all
}

#[tokio::test]
async fn a_drained_endpoint_gets_nothing_until_it_is_put_back() {
    let [first, second] = two().await;
    let brim = node(&[&first, &second], "");
    assert_eq!(content(&brim, 4).await, ["first", "second", "first", "second"]);
    let (admin, token) = (brim.admin_url(), brim.admin_token());
    let drained = brim.command(&["origin", "drain", "test", &first.url(), "--admin", &admin, "--token", &token]);
    assert!(drained.0.success() && drained.1.contains("DRAINING (by the admin API)"), "{drained:?}");
    assert_eq!(content(&brim, 4).await, ["second"; 4]);
    assert_eq!(endpoint(&brim, 0)["state"], "draining");
    let listed = brim.command(&["origin", "list", "--admin", &admin, "--token", &token]).1;
    assert!(listed.starts_with("test\n  http://127.0.0.1:") && listed.contains(": healthy, weight 1"), "{listed}");
    // A reload that changes nothing of the origin changes nothing of this.
    brim.hang_up();
    brim.wait_for_line("reloaded", |line| line.contains("configuration reloaded").then_some(()));
    assert_eq!(content(&brim, 2).await, ["second"; 2]);
    let wrong = brim.command(&["origin", "drain", "test", "http://nobody", "--admin", &admin, "--token", &token]);
    assert_eq!((wrong.0.code(), wrong.2.contains("has no endpoint")), (Some(1), true), "{wrong:?}");
    let restored = brim.command(&["origin", "restore", "test", &first.url(), "--admin", &admin, "--token", &token]);
    assert!(restored.0.success(), "{restored:?}");
    let back = content(&brim, 4).await;
    assert_eq!(back.iter().filter(|content| *content == "first").count(), 2, "{back:?}");
}

#[tokio::test]
async fn an_endpoint_that_goes_and_comes_back_is_noticed_by_the_checks() {
    let [first, second] = two().await;
    for origin in [&first, &second] {
        origin.serve("/healthz", ok("fine"));
    }
    let lines =
        "connections_min = 2\n[origins.test.health]\npath = \"/healthz\"\ninterval = \"100ms\"\nunhealthy_after = 2";
    let brim = node(&[&first, &second], lines);
    first.wait_for_requests("/healthz", 1).await;
    eventually("two connections to each", async || {
        (0..2).all(|place| endpoint(&brim, place)["connections_idle"] == 2).then_some(())
    })
    .await;
    let address = first.stop();
    let gone = until_state(&brim, 0, "unhealthy").await;
    assert!(gone["reason"].as_str().is_some_and(|reason| reason.contains("refused")), "{gone}");
    assert_eq!(content(&brim, 4).await, ["second"; 4]);
    let status = brim.command(&["status", "--admin", &brim.admin_url(), "--token", &brim.admin_token()]).1;
    assert!(status.contains("UNHEALTHY (connect to"), "{status}");
    let metrics = brim.admin(Method::GET, "/metrics", None).body.as_str().expect("text").to_owned();
    let line =
        format!("brim_origin_endpoint_state{{origin=\"test\",endpoint=\"http://{address}\",state=\"unhealthy\"}} 1");
    assert!(metrics.contains(&line), "{metrics}");
    let first = FakeOrigin::start_with(OriginSetup::default().at(address)).await;
    first.serve("/healthz", ok("fine"));
    first.serve("/", ok("first"));
    until_state(&brim, 0, "healthy").await;
    eventually("warm again", async || (endpoint(&brim, 0)["connections_idle"] == 2).then_some(())).await;
    let back = content(&brim, 4).await;
    assert_eq!(back.iter().filter(|content| *content == "first").count(), 2, "{back:?}");
}

#[tokio::test]
async fn an_endpoint_that_fails_requests_is_ejected_and_said_so() {
    let [first, second] = two().await;
    first.serve("/", status(503));
    let brim = node(&[&first, &second], "ejection = { consecutive_errors = 3, time = \"1h\", time_max = \"1h\" }");
    let mut refused = 0;
    for _ in 0..20 {
        refused += usize::from(brim.http1().get("/").await.status == 503);
    }
    assert_eq!(refused, 3);
    let endpoint = endpoint(&brim, 0);
    assert_eq!((&endpoint["state"], &endpoint["ejections"]), (&json!("ejected"), &json!(1)), "{endpoint}");
    assert_eq!(endpoint["reason"], "3 requests in a row failed");
}

/// Cached responses of one key come from one endpoint, however often they are fetched anew.
#[tokio::test]
async fn a_consistent_hash_goes_by_the_cache_key() {
    let [first, second] = two().await;
    let brim = node(&[&first, &second], "balance = \"consistent_hash\"");
    for origin in [&first, &second] {
        origin.answer("/k", |_| ok("k").cache_control("max-age=0"));
    }
    for _ in 0..3 {
        for n in 0..20 {
            brim.http1().get(&format!("/k?{n}")).await.assert_status(200);
        }
    }
    let of = |origin: &FakeOrigin| {
        let mut targets: Vec<String> = origin.requests("/k").iter().map(|request| request.target.clone()).collect();
        assert_eq!(targets.len() % 3, 0, "each key all three times: {targets:?}");
        targets.sort();
        targets.dedup();
        targets.len()
    };
    // A HEAD has the key of its GET.
    for n in 0..20 {
        brim.http1().get(&format!("/h?{n}")).await.assert_status(404);
        brim.http1().ask(Method::HEAD, &format!("/h?{n}")).send().await.assert_status(404);
    }
    let heads = first.requests("/h").len();
    assert!(heads > 2 && heads < 38 && heads + second.requests("/h").len() == 40, "{heads}");
    for request in first.requests("/h") {
        assert!(second.requests("/h").iter().all(|other| other.target != request.target), "{}", request.target);
    }
    let (of_first, of_second) = (of(&first), of(&second));
    assert_eq!(of_first + of_second, 20);
    assert!(of_first > 2 && of_second > 2, "{of_first} {of_second}");
}
