//! The harness itself: a test that trusts it must be able to.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use brim_tests::{
    BrimProcess, Client, ClientError, Content, DATA_DIR, FakeOrigin, Gate, Leaf, OriginSetup, RawConnection, RawOrigin,
    RawReply, TestCa, Trust, eventually, ok, status, within,
};
use http::{Method, StatusCode, Version};
use serde_json::json;
use tempfile::TempDir;

#[tokio::test]
async fn a_scripted_path_is_answered_and_recorded() {
    let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=10").etag("\"1\"")).await;
    let client = Client::http1(origin.addr());
    let answer = client.ask(Method::POST, "/a?x=1").header("x-probe", "seen").content("sent").send().await;
    answer.assert_status(200).assert_content("v1");
    assert_eq!((answer.header("cache-control"), answer.header("content-length")), (Some("max-age=10"), Some("2")));
    origin.assert_requests("/a", 1).await;
    origin.assert_requests("/a?x=1", 1).await;
    let request = &origin.requests("/a")[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/a?x=1"));
    assert_eq!((request.header("x-probe"), &request.content[..]), (Some("seen"), &b"sent"[..]));
    assert_eq!(request.authority, origin.addr().to_string());
}

#[tokio::test]
async fn a_path_without_script_is_answered_404_and_recorded() {
    let origin = FakeOrigin::start().await;
    Client::http1(origin.addr()).get("/b").await.assert_status(404);
    origin.assert_requests("/b", 1).await;
    origin.assert_requests("/a", 0).await;
}

#[tokio::test]
async fn replies_follow_one_another_and_the_last_one_stays() {
    let origin = FakeOrigin::start().await;
    origin.serve_each("/a", [ok("1"), status(503), ok("3")]);
    let client = Client::http1(origin.addr());
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(client.get("/a").await.status.as_u16());
    }
    assert_eq!(codes, [200, 503, 200, 200]);
}

#[tokio::test]
async fn a_reply_can_be_made_of_the_request() {
    let origin = FakeOrigin::start().await;
    origin.answer("/a", |request| ok(request.header("accept-language").unwrap_or("none").to_owned()));
    let client = Client::http1(origin.addr());
    let answer = client.ask(Method::GET, "/a").header("accept-language", "de").send().await;
    answer.assert_content("de");
    client.get("/a").await.assert_content("none");
}

#[tokio::test]
async fn a_conditional_request_is_answered_304_when_the_script_says_so() {
    let origin = FakeOrigin::serving("/a", ok("v1").etag("\"1\"").answering_conditionals()).await;
    let client = Client::http1(origin.addr());
    let answer = client.ask(Method::GET, "/a").header("if-none-match", "\"0\", W/\"1\"").send().await;
    answer.assert_status(304).assert_content("");
    assert_eq!(answer.header("etag"), Some("\"1\""));
    client.get("/a").await.assert_status(200);
}

#[tokio::test]
async fn a_gate_holds_the_answer_until_the_test_opens_it() {
    let gate = Gate::new();
    let origin = FakeOrigin::serving("/a", ok("late").held_by(&gate)).await;
    let client = Client::http2(origin.addr());
    let asking = tokio::spawn(async move { client.get_many("/a", 3).await });
    origin.wait_for_requests("/a", 3).await;
    assert!(!asking.is_finished());
    gate.open();
    assert_eq!(within("the answers", asking).await.expect("no panic").len(), 3);
}

#[tokio::test]
async fn a_gate_inside_the_content_lets_the_beginning_pass() {
    let gate = Gate::new();
    let origin = FakeOrigin::serving("/a", ok("one ").then_wait(&gate).then("two").chunked()).await;
    let mut answer = Client::http1(origin.addr()).ask(Method::GET, "/a").start().await.expect("a head");
    assert_eq!(answer.at_least(4).await.expect("the beginning"), "one ");
    gate.open();
    answer.rest().await.expect("the rest").assert_content("two");
}

#[tokio::test]
async fn content_breaks_off_in_either_version() {
    let origin = FakeOrigin::start().await;
    origin.serve("/length", ok("half").declared_length(8).then_abort());
    origin.serve("/chunked", ok("half").chunked().then_abort());
    for client in [Client::http1(origin.addr()), Client::http2(origin.addr())] {
        for path in ["/length", "/chunked"] {
            let outcome = client.ask(Method::GET, path).try_send().await;
            assert!(matches!(outcome, Err(ClientError::Http(_))), "{path}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn trailers_pass_in_either_version_and_both_ways() {
    let origin = FakeOrigin::serving("/a", ok("content").trailer("x-sum", "7")).await;
    for client in [Client::http1(origin.addr()), Client::http2(origin.addr())] {
        let content = Content::of("sent").trailer("x-sent", "4");
        let answer = client.ask(Method::POST, "/a").header("te", "trailers").content(content).send().await;
        answer.assert_content("content");
        assert_eq!(answer.trailers.get("x-sum").map(|value| value.as_bytes()), Some(&b"7"[..]));
        let requests = origin.wait_for_contents("/a", 1).await;
        assert!(requests.iter().all(|request| request.trailers["x-sent"] == "4"), "{requests:?}");
    }
}

#[tokio::test]
async fn large_content_is_streamed_both_ways_and_counted() {
    const TIMES: u64 = 1024;
    let chunk = vec![b'x'; 64 * 1024];
    let length = TIMES * chunk.len() as u64;
    let origin = FakeOrigin::serving("/a", ok("").then_repeat(chunk.clone(), TIMES)).await;
    for client in [Client::http1(origin.addr()), Client::http2(origin.addr())] {
        let content = Content::default().then_repeat(chunk.clone(), TIMES);
        let mut answer = client.ask(Method::POST, "/a").content(content).start().await.expect("a head");
        assert_eq!(answer.head().header("content-length"), Some(length.to_string().as_str()));
        let read = answer.read_through(|chunk| assert!(chunk.iter().all(|byte| *byte == b'x'))).await;
        assert_eq!(read.expect("the whole content"), length);
    }
    let requests = origin.wait_for_contents("/a", 2).await;
    assert!(requests.iter().all(|request| request.content_bytes == length && request.content.len() == 1024 * 1024));
}

#[tokio::test]
async fn a_client_keeps_its_connections_and_opens_new_ones_when_they_are_closed() {
    let origin = FakeOrigin::serving("/a", ok("v1")).await;
    for client in [Client::http1(origin.addr()), Client::http2(origin.addr())] {
        let before = origin.connections();
        for _ in 0..3 {
            client.get("/a").await.assert_status(200);
        }
        assert_eq!((client.connections(), origin.connections() - before), (1, 1));
        origin.close_connections();
        let reconnected = eventually("a new connection", async || {
            // The close may cut off the first request on the old connection.
            client.ask(Method::GET, "/a").try_send().await.ok().filter(|_| client.connections() > 1)
        });
        reconnected.await.assert_status(200);
    }
}

#[tokio::test]
async fn many_requests_at_once_share_a_connection_in_http2() {
    let gate = Gate::new();
    let origin = FakeOrigin::serving("/a", ok("v1").held_by(&gate)).await;
    let client = Client::http2(origin.addr());
    let asking = {
        let client = client.clone();
        tokio::spawn(async move { client.get_many("/a", 50).await })
    };
    origin.wait_for_requests("/a", 50).await;
    gate.open();
    assert!(within("answers", asking).await.expect("no panic").iter().all(|answer| answer.version == Version::HTTP_2));
    assert_eq!((client.connections(), origin.connections()), (1, 1));
}

#[tokio::test]
async fn tls_is_agreed_on_by_name_and_version() {
    let ca = TestCa::new();
    let leaf = ca.leaf(&["shop.test", "127.0.0.1"]);
    let origin = FakeOrigin::start_with(OriginSetup::default().tls(&leaf)).await;
    origin.serve("/a", ok("secret"));
    assert!(origin.url().starts_with("https://127.0.0.1:"));

    let answer = Client::https2(origin.addr(), ca.trust(), "shop.test").get("/a").await;
    assert_eq!((answer.content(), answer.version), ("secret", Version::HTTP_2));
    assert_eq!(answer.connection.alpn.as_deref(), Some("h2"));
    assert_eq!(answer.connection.tls_version.as_deref(), Some("TLSv1_3"));
    assert_eq!(answer.connection.certificate.as_deref(), Some(leaf.der()));

    let answer = Client::https1(origin.addr(), ca.trust(), "127.0.0.1").only_tls12().get("/a").await;
    assert_eq!((answer.content(), answer.version), ("secret", Version::HTTP_11));
    assert_eq!(answer.connection.tls_version.as_deref(), Some("TLSv1_2"));
    assert_eq!(origin.requests("/a")[0].authority, format!("shop.test:{}", origin.addr().port()));
}

#[tokio::test]
async fn a_client_refuses_what_it_does_not_trust() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let (good, own) = (ca.leaf(&["shop.test"]), Leaf::self_signed(&["shop.test"]));
    let expired = ca.expired_leaf(&["shop.test"]);
    for (leaf, trust, name, is_trusted) in [
        (&good, ca.trust(), "shop.test", true),
        (&good, other.trust(), "shop.test", false),
        (&good, ca.trust(), "other.test", false),
        (&good, good.trust(), "other.test", true),
        (&expired, ca.trust(), "shop.test", false),
        (&own, ca.trust(), "shop.test", false),
        (&own, own.trust(), "shop.test", true),
        (&own, good.trust(), "shop.test", false),
        (&expired, Trust::anything(), "any.test", true),
    ] {
        let origin = FakeOrigin::start_with(OriginSetup::default().tls(leaf)).await;
        let outcome = Client::https1(origin.addr(), trust, name).connect().await;
        match outcome {
            Ok(_) => assert!(is_trusted, "{name}"),
            Err(error) => assert!(!is_trusted && matches!(error, ClientError::Tls(_)), "{name}: {error}"),
        }
    }
}

#[tokio::test]
async fn an_origin_can_speak_one_version_alone() {
    let origin = FakeOrigin::start_with(OriginSetup::default().only_http1()).await;
    origin.serve("/a", ok("v1"));
    Client::http1(origin.addr()).get("/a").await.assert_status(200);
    assert!(Client::http2(origin.addr()).ask(Method::GET, "/a").try_send().await.is_err());
}

#[tokio::test]
async fn an_origin_comes_back_where_it_was() {
    let origin = FakeOrigin::serving("/a", ok("v1")).await;
    let client = Client::http1(origin.addr());
    client.get("/a").await.assert_content("v1");
    let addr = origin.stop();
    assert!(client.ask(Method::GET, "/a").try_send().await.is_err());
    let origin = FakeOrigin::start_with(OriginSetup::default().at(addr)).await;
    origin.serve("/a", ok("v2"));
    client.get("/a").await.assert_content("v2");
}

#[tokio::test]
async fn an_answer_may_come_before_the_content_was_read() {
    let gate = Gate::new();
    let origin = FakeOrigin::serving("/a", status(413).without_reading_content()).await;
    let content = Content::of("first").then_wait(&gate).then("never");
    let answer = Client::http2(origin.addr()).ask(Method::POST, "/a").content(content).send().await;
    answer.assert_status(413);
    assert!(!origin.requests("/a")[0].is_whole);
}

#[tokio::test]
async fn raw_bytes_are_answered_and_sent_as_they_are() {
    let first = RawReply::bytes("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab");
    let last = RawReply::bytes("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").then_close();
    let origin = RawOrigin::answering([first, last]).await;
    let mut connection = RawConnection::open(origin.addr()).await;
    connection.send("GET /a HTTP/1.1\r\nbad header : x\r\n\r\n").await;
    assert!(connection.read_until("\r\n\r\nab").await.ends_with("ab"));
    connection.send("GET /b HTTP/1.1\r\n\r\n").await;
    assert!(connection.read_to_end().await.ends_with("\r\n\r\nhalf"));
    let heads = origin.wait_for_heads(2).await;
    assert_eq!(heads, ["GET /a HTTP/1.1\r\nbad header : x\r\n\r\n", "GET /b HTTP/1.1\r\n\r\n"]);
}

#[tokio::test]
async fn cache_status_is_read_from_an_answer() {
    let origin = FakeOrigin::start().await;
    origin.serve("/hit", ok("").header("cache-status", "origin; fwd=miss, brim; hit; ttl=5").header("age", "5"));
    origin.serve("/miss", ok("").header("cache-status", "brim; fwd=uri-miss; fwd-status=200; stored"));
    let client = Client::http1(origin.addr());
    let hit = client.get("/hit").await;
    assert_eq!((hit.assert_hit().cache_status().ttl, hit.age()), (Some(5), Some(5)));
    client.get("/miss").await.assert_forwarded("uri-miss").assert_stored();
}

#[tokio::test]
#[should_panic(expected = "expected a hit")]
async fn an_assertion_that_does_not_hold_fails() {
    let origin = FakeOrigin::serving("/a", ok("").header("cache-status", "brim; fwd=stale; collapsed")).await;
    Client::http1(origin.addr()).get("/a").await.assert_hit();
}

#[tokio::test]
#[should_panic(expected = "requests for /a")]
async fn one_request_too_many_fails() {
    let origin = FakeOrigin::serving("/a", ok("")).await;
    Client::http1(origin.addr()).get_many("/a", 2).await;
    origin.assert_requests("/a", 1).await;
}

/// A shell script in place of the binary: the harness must be known to work before there is a node to test with it.
struct StandIn {
    dir: TempDir,
}

impl StandIn {
    fn running(script: &str) -> Self {
        let stand_in = Self { dir: TempDir::new().expect("a folder") };
        // Written by another process: a descriptor open for writing here could be inherited by the child that a test
        // beside this one starts at the same moment, and a file that somebody writes cannot be run.
        // A shell cannot trap what was ignored when it began, as SIGHUP is below `nohup`: hence `env`.
        let written = Command::new("/bin/sh")
            .args([
                "-c",
                "printf '#!/usr/bin/env -S --default-signal sh\\n%s\\n' \"$1\" > \"$2\" && chmod +x \"$2\"",
                "sh",
                script,
            ])
            .arg(stand_in.path())
            .status();
        assert!(written.expect("a shell").success());
        stand_in
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("brim")
    }
}

#[test]
fn a_process_is_started_with_its_configuration_and_found_by_its_line() {
    let stand_in =
        StandIn::running("cat brim.toml; echo starting >&2; echo listening http=127.0.0.1:7 >&2; exec sleep 60");
    let config = BrimProcess::config("http://127.0.0.1:9", "cache = \"off\"");
    let process = BrimProcess::try_start(&stand_in.path(), &config).expect("it listens");
    assert_eq!(process.listening().http, ["127.0.0.1:7".parse().expect("an address")]);
    process.wait_for_line("the last line of the configuration", |line| (line == "cache = \"off\"").then_some(()));
    assert!(process.output().contains(&format!("data_dir = \"./{DATA_DIR}\"")));
}

#[test]
fn a_process_that_ends_early_shows_what_it_said() {
    let stand_in = StandIn::running("echo origins.api.endpoints: missing >&2; exit 1");
    let (status, output) = BrimProcess::try_start(&stand_in.path(), "").expect_err("it ended");
    assert_eq!((status.code(), output.as_str()), (Some(1), "origins.api.endpoints: missing"));
}

#[test]
fn signals_reach_the_process() {
    // The stand-in remembers in its data directory, which outlives it, how often it was started.
    let script = format!(
        "mkdir -p {DATA_DIR}; echo start >> {DATA_DIR}/starts; trap 'exit 0' TERM; trap 'echo reloaded' HUP\n\
         echo listening http=127.0.0.1:$(wc -l < {DATA_DIR}/starts)\nwhile :; do sleep 0.02; done"
    );
    let stand_in = StandIn::running(&script);
    let mut process = BrimProcess::try_start(&stand_in.path(), "").expect("it listens");
    process.hang_up();
    process.wait_for_line("the answer to SIGHUP", |line| (line == "reloaded").then_some(()));
    process.kill9();
    process.restart();
    assert_eq!(process.listening().http[0].port(), 2, "the second start in the same folder");
    assert_eq!(process.terminate().code(), Some(0));
    process.restart();
    assert_eq!(process.listening().http[0].port(), 3);
}

#[test]
fn a_killed_process_has_no_last_word() {
    let stand_in =
        StandIn::running("trap 'echo bye' TERM EXIT; echo listening http=127.0.0.1:1; while :; do sleep 0.02; done");
    let mut process = BrimProcess::try_start(&stand_in.path(), "").expect("it listens");
    process.kill9();
    assert!(!process.output().contains("bye"));
}

#[tokio::test]
async fn the_admin_api_is_called_with_the_token_from_inside_a_runtime() {
    let admin = FakeOrigin::start().await;
    admin.serve("/v1/purges", status(201).status(201).then("{\"id\": \"p-1\"}"));
    admin.serve("/healthz", ok("fine"));
    let stand_in = StandIn::running(&format!(
        "mkdir -p {DATA_DIR}; echo secret > {DATA_DIR}/admin.token; echo listening admin={}; exec sleep 60",
        admin.addr()
    ));
    let process = BrimProcess::try_start(&stand_in.path(), "").expect("it listens");
    let answer = process.admin(Method::POST, "/v1/purges", Some(&json!({ "everything": true })));
    assert_eq!((answer.status, &answer.body["id"]), (StatusCode::CREATED, &json!("p-1")));
    let request = &admin.requests("/v1/purges")[0];
    assert_eq!(request.header("authorization"), Some("Bearer secret"));
    assert_eq!(&request.content[..], b"{\"everything\":true}");
    let answer = process.admin_call(Method::GET, "/healthz", None, None);
    assert_eq!((answer.status, answer.body), (StatusCode::OK, json!("fine")));
    assert_eq!(admin.requests("/healthz")[0].header("authorization"), None);
}

#[tokio::test]
async fn pauses_make_an_answer_slow() {
    let origin = FakeOrigin::serving(
        "/a",
        ok("a").then_pause(Duration::from_millis(40)).then("b").delay(Duration::from_millis(40)),
    )
    .await;
    let started = std::time::Instant::now();
    Client::http1(origin.addr()).get("/a").await.assert_content("ab");
    assert!(started.elapsed() >= Duration::from_millis(80));
}
