//! The commands, the admin API, reloads, logs and metrics of the real binary.

use brim_tests::{BrimProcess, FakeOrigin, Gate, RawConnection, TestNode, eventually, ok, status};
use http::Method;
use serde_json::{Value, json};

async fn running() -> (FakeOrigin, BrimProcess) {
    let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=600").surrogate_keys("k")).await;
    let brim = BrimProcess::in_front_of(&origin.url(), "");
    (origin, brim)
}

#[tokio::test]
async fn the_admin_api_wants_its_token_and_health_does_not() {
    let (_origin, brim) = running().await;
    let admin = brim_tests::Client::http1(brim.listening().admin[0]);
    for path in ["/healthz", "/readyz", "/metrics"] {
        admin.get(path).await.assert_status(200);
    }
    for path in ["/v1/status", "/v1/plugins", "/v1/purges/p-1"] {
        let answer = admin.get(path).await;
        answer.assert_status(401);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    admin.ask(Method::GET, "/v1/status").header("authorization", "Bearer wrong").send().await.assert_status(401);
    assert_eq!(brim.admin(Method::GET, "/v1/status", None).status, 200);
    assert_eq!(brim.admin(Method::GET, "/v1/openapi.json", None).body["openapi"].as_str().map(|v| &v[..1]), Some("3"));
    assert_eq!(brim.admin(Method::GET, "/v1/nothing", None).status, 404);
}

#[tokio::test]
async fn status_and_metrics_count_requests() {
    let (_origin, brim) = running().await;
    for _ in 0..3 {
        brim.http1().get("/a").await;
    }
    let status = brim.admin(Method::GET, "/v1/status", None).body;
    assert_eq!((&status["requests"]["count"], &status["requests"]["hits"]), (&json!(3), &json!(2)), "{status}");
    let metrics = brim_tests::Client::http1(brim.listening().admin[0]).get("/metrics").await;
    assert!(metrics.content().contains("brim_cache_hits_total{site=\"*\"} 2"), "{}", metrics.content());
    assert!(metrics.content().contains("brim_origin_requests_total"), "{}", metrics.content());
    let (exit, text, _) =
        brim.command(&["status", "--admin", &brim.admin_url(), "--token", &brim.admin_token(), "--json"]);
    assert!(exit.success());
    let shown: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(shown["requests"]["count"], 3);
}

#[tokio::test]
async fn purge_commands_purge_and_exit_as_promised() {
    let (_origin, brim) = running().await;
    let (admin, token) = (brim.admin_url(), brim.admin_token());
    let url = format!("http://{}/a", brim.listening().http[0]);
    let options = ["--admin", &admin, "--token", &token];
    for (words, is_purge) in [
        (vec!["purge", "url", &url], true),
        (vec!["purge", "key", "k"], true),
        (vec!["purge", "site", "*"], true),
        (vec!["purge", "prefix", &url], true),
        (vec!["purge", "all"], true),
        (vec!["purge", "all", "--dry-run"], false),
    ] {
        brim.http1().get("/a").await;
        let (exit, stdout, stderr) = brim.command(&[&words[..], &options[..]].concat());
        assert_eq!(exit.code(), Some(0), "{words:?}: {stdout}{stderr}");
        assert!(!stdout.is_empty(), "{words:?}");
        assert_eq!(!brim.http1().get("/a").await.cache_status().hit, is_purge, "{words:?}");
    }
    assert_eq!(brim.command(&[&["purge", "site", "nowhere"][..], &options[..]].concat()).0.code(), Some(1));
    assert_eq!(brim.command(&["purge", "all", "--admin", &admin, "--token", "wrong"]).0.code(), Some(1));
    assert_eq!(brim.command(&["purge", "sideways"]).0.code(), Some(2));
}

/// All mistakes of a file at once, each with its key path; `serve` refuses it the same way.
#[tokio::test]
async fn check_reports_every_mistake() {
    let (_origin, brim) = running().await;
    let bad = brim.dir().join("bad.toml");
    std::fs::write(
        &bad,
        "[listen]\nhttp = [\"nowhere\"]\nspeed = 3\n[store]\ndisk_max = \"ten\"\n[origins.api]\nendpoints = []\n\
         [[sites]]\nhosts = [\"*\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"apj\"\n",
    )
    .expect("written");
    let bad = bad.display().to_string();
    for command in [["check", "-c", &bad], ["serve", "-c", &bad]] {
        let (exit, stdout, stderr) = brim.command(&command);
        assert_eq!(exit.code(), Some(1), "{command:?}");
        let said = stdout + &stderr;
        for path in
            ["listen.http", "listen.speed", "store.disk_max", "origins.api.endpoints", "sites[0].routes[0].origin"]
        {
            assert!(said.contains(path), "{command:?} says nothing of {path}:\n{said}");
        }
    }
    let good = brim.dir().join("brim.toml").display().to_string();
    assert_eq!(brim.command(&["check", "-c", &good]).0.code(), Some(0));
}

#[tokio::test]
async fn a_reload_applies_whole_or_not_at_all() {
    let (origin, brim) = running().await;
    let other = FakeOrigin::serving("/a", ok("other")).await;
    let reload = || brim.admin(Method::POST, "/v1/config/reload", None);
    brim.http1().get("/a").await.assert_content("v1");
    let config = BrimProcess::config(&other.url(), "");
    brim.write_config(&config.replace("path = \"/\"", "path = \"/\"\ncache = \"off\""));
    assert_eq!(reload().status, 200);
    brim.http1().get("/a").await.assert_forwarded("bypass").assert_content("other");

    brim.write_config(&config.replace("origin = \"test\"", "origin = \"gone\""));
    let refused = reload();
    assert!(refused.status.is_client_error(), "{:?}", refused.body);
    assert!(refused.body.to_string().contains("sites[0].routes[0].origin"), "{:?}", refused.body);
    brim.write_config(&BrimProcess::config(&origin.url(), "[store]\ndisk_max = \"1GiB\""));
    assert!(reload().status.is_client_error(), "a running node cannot change its store");
    brim.http1().get("/a").await.assert_content("other");
}

#[tokio::test]
async fn the_access_log_has_one_json_line_a_request() {
    let (_origin, brim) = running().await;
    brim.http1().get("/a?x=1").await;
    brim.http1().get("/a?x=1").await;
    let find = |outcome: &'static str| {
        brim.wait_for_line(outcome, move |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["outcome"] == outcome && line["path"] == "/a?x=1").then_some(line)
        })
    };
    let forward = find("forward");
    assert_eq!(
        (&forward["fwd"], &forward["fwd_status"], &forward["stored"]),
        (&json!("uri-miss"), &json!(200), &json!(true))
    );
    let hit = find("hit");
    assert_eq!((&hit["status"], &hit["sent_bytes"], &hit["key"]), (&json!(200), &json!(2), &forward["key"]));
}

/// Asks for `/half?number` over HTTP/1.1 (0) or HTTP/2, and leaves when the first half is there. On a runtime of its own, whose
/// end closes the connection.
fn give_up_half_way(brim: &BrimProcess, number: usize) {
    let ask = async || {
        if number == 0 {
            let mut connection = RawConnection::open(brim.listening().http[0]).await;
            connection.send("GET /half?0 HTTP/1.1\r\nHost: a\r\n\r\n").await.read_until("xxxx").await;
        } else {
            let asked = brim.http2().ask(Method::GET, &format!("/half?{number}"));
            asked.start().await.expect("a head").at_least(1000).await.expect("the first half");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(ask());
        });
    });
}

/// A response that its client has whole is not called aborted, whatever its source and protocol; one that it gave up is.
#[tokio::test]
async fn the_access_log_tells_aborted_from_complete() {
    let rest = Gate::new();
    let origin = FakeOrigin::start().await;
    origin.serve("/large", ok("").then_repeat(vec![1_u8; 1 << 20], 2).cache_control("max-age=600"));
    origin.serve("/empty", status(201));
    origin.serve("/half", ok("x".repeat(1000)).then_wait(&rest).then("y".repeat(1000)));
    let brim = BrimProcess::in_front_of(&origin.url(), "");
    for (number, client) in [brim.http1(), brim.http2()].into_iter().enumerate() {
        for round in 0..2 {
            client.get(&format!("/large?{number}{round}")).await.assert_status(200);
            client.get(&format!("/large?{number}{round}")).await.assert_status(200);
        }
        client.ask(Method::POST, &format!("/empty?{number}")).content("x").send().await.assert_status(201);
        give_up_half_way(&brim, number);
        let half = brim.wait_for_line("the line of the one that was given up", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["path"] == format!("/half?{number}")).then_some(line)
        });
        assert_eq!(half["aborted"], true, "{half}");
    }
    rest.open();
    // Each thread writes its own lines, when it comes to it.
    let whole = eventually("a line for each of the others", async || {
        let lines = brim.output();
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let whole = lines.filter(|line| line["path"].as_str().is_some_and(|path| !path.starts_with("/half")));
        let whole: Vec<Value> = whole.collect();
        (whole.len() == 10).then_some(whole)
    })
    .await;
    for line in whole {
        assert!(line["aborted"].is_null(), "{line}");
    }
}

/// `log.format = "json"`, or `--log-format json`: one object a line, the addresses as fields.
#[tokio::test]
async fn json_logs_name_the_addresses() {
    let origin = FakeOrigin::serving("/a", ok("v1")).await;
    let brim = BrimProcess::in_front_of(&origin.url(), "[log]\nformat = \"json\"");
    let line = brim.wait_for_line("the line that says where it listens", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["message"] == "listening").then_some(line)
    });
    assert_eq!(line["http"], brim.listening().http[0].to_string(), "{line}");
    assert_eq!(line["admin"], brim.listening().admin[0].to_string(), "{line}");
    brim.http1().get("/a").await.assert_status(200);
}

/// A port in use, and a data directory in use, are said plainly.
#[tokio::test]
async fn a_second_node_on_the_same_place_is_refused() {
    let (origin, brim) = running().await;
    let taken = brim.listening().http[0];
    let other = brim.dir().join("other.toml");
    let config = |http: &str, data: &str| {
        format!("data_dir = \"{data}\"\n{}", BrimProcess::config(&origin.url(), "").replacen("127.0.0.1:0", http, 1))
    };
    for (text, word) in [
        (config(&taken.to_string(), "second-data"), taken.to_string()),
        (config("127.0.0.1:0", brim_tests::DATA_DIR), "another process".to_owned()),
    ] {
        std::fs::write(&other, text).expect("written");
        let (exit, stdout, stderr) = brim.command(&["serve", "-c", &other.display().to_string()]);
        assert_eq!(exit.code(), Some(1), "{stdout}{stderr}");
        assert!(stderr.contains(&word), "{word}: {stderr}");
    }
}

#[tokio::test]
async fn readiness_and_surrogate_keys() {
    let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=600").surrogate_keys("k")).await;
    let node = TestNode::in_front_of(&origin).await;
    for _ in 0..2 {
        assert_eq!(node.get("/a").await.header("surrogate-key"), None, "surrogate keys are the node's business");
    }
    let shown = TestNode::with_route(&origin, "surrogate_keys_to_client = true").await;
    for _ in 0..2 {
        assert_eq!(shown.get("/a").await.header("surrogate-key"), Some("k"));
    }
}

/// The demo's fourth step: what it says of its pages of products is so.
#[tokio::test]
async fn the_demo_purges_the_pages_that_show_what_was_written() {
    let demo = BrimProcess::demo();
    let pages = async || {
        let mut hits = Vec::new();
        for page in ["/products?page=1", "/products?page=2", "/products/17"] {
            hits.push(demo.http1().get(page).await.assert_status(200).cache_status().hit);
        }
        hits
    };
    assert_eq!(pages().await, [false; 3]);
    assert_eq!(pages().await, [true; 3]);
    let write = demo.http1().ask(Method::PATCH, "/products/17").header("content-type", "application/json");
    write.content(r#"{"price_cents": 900}"#).send().await.assert_status(200);
    assert_eq!(pages().await, [false, true, false]);
}
