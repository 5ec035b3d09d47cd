//! Origins that are slow or gone, and many clients: what waits is bounded, and cheap.

use brim_tests::{BrimProcess, FakeOrigin, Gate, RawConnection, eventually, ok};
use http::Method;

fn resident_mib(brim: &BrimProcess) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", brim.pid())).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
}

/// A thousand clients ask for a thousand things of an origin that says nothing: each costs what its connection costs, and when the
/// origin speaks again, all are answered.
#[tokio::test]
async fn a_thousand_clients_wait_and_do_not_take_the_nodes_memory() {
    const CLIENTS: usize = 1000;
    let gate = Gate::new();
    let origin = FakeOrigin::start().await;
    let held = gate.clone();
    origin.answer("/r", move |request| ok(request.target.clone()).cache_control("max-age=60").held_by(&held));
    let config = BrimProcess::config(&origin.url(), "").replace("[admin]", "connections_max = 2000\n[admin]");
    let brim = BrimProcess::start(&config);
    let before = resident_mib(&brim);
    let address = brim.listening().http[0];
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let mut client = RawConnection::open(address).await;
        client.send(format!("GET /r?{n} HTTP/1.1\r\nHost: shop.test\r\n\r\n")).await;
        clients.push(client);
    }
    // As many as may have a connection are at the origin, the others wait for one.
    let waiting = async || {
        let endpoint = brim.admin(Method::GET, "/v1/origins", None).body["origins"][0]["endpoints"][0].clone();
        (endpoint["waiting"].as_u64() == Some(CLIENTS as u64 - 64)).then_some(())
    };
    eventually("all but 64 wait", waiting).await;
    let grown = resident_mib(&brim).saturating_sub(before);
    assert!(grown < 100, "{grown} MiB for {CLIENTS} clients");
    gate.open();
    for (n, client) in clients.iter_mut().enumerate() {
        let head = client.read_until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        // The target is the content.
        client.read_until(&format!("/r?{n}")).await;
    }
}

/// A client that leaves before anything has come takes its fetch along, if nobody else waits for it: the origin sees that it is
/// not wanted any more.
#[tokio::test]
async fn a_client_that_goes_away_cancels_its_fetch() {
    for cache in ["on", "off"] {
        let gate = Gate::new();
        let origin = FakeOrigin::start().await;
        origin.serve("/", ok("late").held_by(&gate));
        let config = BrimProcess::config(&origin.url(), &format!("cache = \"{cache}\""));
        let brim = BrimProcess::start(&config);
        let mut client = RawConnection::open(brim.listening().http[0]).await;
        client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
        origin.wait_for_requests("/", 1).await;
        drop(client);
        eventually(&format!("cache {cache}: the connection to the origin is closed"), async || {
            let endpoint = brim.admin(Method::GET, "/v1/origins", None).body["origins"][0]["endpoints"][0].clone();
            (endpoint["in_flight"] == 0 && endpoint["connections"] == 0).then_some(())
        })
        .await;
        gate.open();
    }
}

/// Recovery is noticed with the next request: nothing remembers that an only endpoint was down.
#[tokio::test]
async fn an_origin_that_comes_back_is_used_at_once() {
    let origin = FakeOrigin::serving("/", ok("fine")).await;
    let brim = BrimProcess::in_front_of(&origin.url(), "");
    brim.http1().get("/").await.assert_status(200);
    let address = origin.stop();
    for _ in 0..20 {
        let answer = brim.http1().get("/").await;
        answer.assert_status(502);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    let origin = FakeOrigin::start_with(brim_tests::OriginSetup::default().at(address)).await;
    origin.serve("/", ok("back"));
    brim.http1().get("/").await.assert_status(200).assert_content("back");
}

/// An origin that has as much as it is given: what is stale stands in where that is allowed, all else is refused with a hint when to
/// come back.
#[tokio::test]
async fn an_overloaded_origin_is_spared() {
    let gate = Gate::new();
    let origin = FakeOrigin::start().await;
    origin.serve_each("/stale", [ok("old").cache_control("max-age=0, stale-if-error=600"), ok("new")]);
    origin.serve("/slow", ok("late").held_by(&gate));
    let config = BrimProcess::config(&origin.url(), "");
    let brim = BrimProcess::start(&config.replace("[[sites]]", "requests_max = 1\n[[sites]]"));
    brim.http1().get("/stale").await.assert_status(200).assert_content("old");
    let (held, client) = (origin.wait_for_requests("/slow", 1), brim.http1());
    let slow = tokio::spawn(async move { client.get("/slow").await });
    held.await;
    let refused = brim.http1().get("/other").await;
    refused.assert_status(503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(refused.header("cache-status").is_some_and(|status| status.contains("detail=overloaded")));
    let stale = brim.http1().get("/stale").await;
    stale.assert_status(200).assert_content("old");
    let status = stale.header("cache-status").unwrap_or_default();
    assert!(status.contains("stale-if-error: overloaded"), "{status}");
    gate.open();
    slow.await.expect("answered").assert_status(200);
    brim.http1().get("/other").await.assert_status(404);
}
