//! Protocols, bodies of any size, trailers, refusals, limits.

use brim_tests::{BrimProcess, Content, FakeOrigin, Gate, RawConnection, TestCa, TestNode, Trust, ok};
use http::{Method, Version};

/// 2 GiB, and what the process may grow by while it passes.
const LARGE_CHUNK: usize = 1 << 20;
/// Content in which a byte out of its place shows.
fn pattern(at: usize) -> u8 {
    u8::try_from((at % LARGE_CHUNK) % 251).expect("below 251")
}
const LARGE_CHUNKS: u64 = 2048;
const GROWTH_KIB_MAX: u64 = 96 * 1024;

#[tokio::test]
async fn every_protocol_gets_the_same_response() {
    let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=60")).await;
    let node = TestNode::in_front_of(&origin).await;
    for (client, version, alpn) in [
        (node.client().clone(), Version::HTTP_11, None),
        (node.http2(), Version::HTTP_2, None),
        (node.https1(), Version::HTTP_11, Some("http/1.1")),
        (node.https2(), Version::HTTP_2, Some("h2")),
        (node.https2().only_tls12(), Version::HTTP_2, Some("h2")),
    ] {
        let first = client.get("/a").await;
        first.assert_status(200).assert_content("v1");
        assert_eq!((first.version, first.connection.alpn.as_deref()), (version, alpn));
        client.get("/a").await.assert_hit().assert_content("v1");
    }
}

#[tokio::test]
async fn the_certificate_is_chosen_by_name_and_replaced_on_reload() {
    let origin = FakeOrigin::serving("/a", ok("v1").cache_control("max-age=60")).await;
    let ca = TestCa::new();
    let dir = tempfile::tempdir().expect("a folder");
    let (one, two) = (ca.leaf(&["one.test"]), ca.leaf(&["two.test", "*.two.test"]));
    let files = [one.write_to(dir.path(), "one"), two.write_to(dir.path(), "two")];
    let entries = files.map(|(cert, key)| format!("{{ cert = \"{}\", key = \"{}\" }}", cert.display(), key.display()));
    let tls = format!("[tls]\ncertificates = [{}]", entries.join(", "));
    let brim = BrimProcess::in_front_of(&origin.url(), &tls);
    let kept = brim.https2(ca.trust(), "one.test");
    assert_eq!(kept.get("/a").await.connection.certificate.as_deref(), Some(one.der()));
    let other = brim.https2(ca.trust(), "x.two.test");
    assert_eq!(other.get("/a").await.connection.certificate.as_deref(), Some(two.der()));

    let renewed = ca.leaf(&["one.test"]);
    let _files = renewed.write_to(dir.path(), "one");
    brim.hang_up();
    brim.wait_for_line("the reload", |line| line.contains("configuration reloaded").then_some(()));
    assert_eq!(kept.get("/a").await.connection.number, 1, "the old connection goes on");
    let fresh = brim.https2(ca.trust(), "one.test");
    assert_eq!(fresh.get("/a").await.connection.certificate.as_deref(), Some(renewed.der()));
}

#[tokio::test]
async fn a_self_signed_certificate_is_made_and_kept() {
    let origin = FakeOrigin::serving("/a", ok("v1")).await;
    let mut brim = BrimProcess::in_front_of(&origin.url(), "");
    let first = brim.https2(Trust::anything(), "localhost").get("/a").await.connection.certificate.clone();
    brim.terminate();
    brim.restart();
    let second = brim.https2(Trust::anything(), "localhost").get("/a").await.connection.certificate.clone();
    assert!(first.is_some());
    assert_eq!(first, second);
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// Requests and responses stream: their size is no matter of memory.
#[tokio::test]
async fn two_gib_pass_both_ways_in_bounded_memory() {
    let origin = FakeOrigin::start().await;
    let chunk = vec![b'x'; LARGE_CHUNK];
    origin.serve("/down", ok("").then_repeat(chunk.clone(), LARGE_CHUNKS).cache_control("no-store"));
    origin.serve("/up", ok("taken"));
    let brim = BrimProcess::in_front_of(&origin.url(), "[log]\naccess = \"off\"");
    brim.http1().get("/down-nothing").await;
    let before = resident_kib(brim.pid());
    let mut down = brim.http1().ask(Method::GET, "/down").start().await.expect("a head");
    assert_eq!(down.read_through(|_| {}).await.expect("whole"), LARGE_CHUNKS * LARGE_CHUNK as u64);
    let up = brim.http1().ask(Method::POST, "/up").content(Content::default().then_repeat(chunk, LARGE_CHUNKS));
    up.send().await.assert_status(200).assert_content("taken");
    let grown = resident_kib(brim.pid()).saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "the process grew by {grown} KiB");
}

/// A large response that is stored streams to disk while it is sent, and from disk afterwards.
#[tokio::test]
async fn a_large_response_is_stored_and_served_from_disk() {
    let origin = FakeOrigin::start().await;
    let chunk: Vec<u8> = (0..LARGE_CHUNK).map(pattern).collect();
    origin.serve("/large", ok("").then_repeat(chunk, 64).cache_control("max-age=600"));
    let mut node = TestNode::in_front_of(&origin).await;
    for round in 0..3 {
        let mut answer = node.ask(Method::GET, "/large").start().await.expect("a head");
        let mut at = 0_usize;
        let read = answer.read_through(|bytes| {
            for byte in bytes {
                assert_eq!(*byte, pattern(at), "at {at}");
                at += 1;
            }
        });
        assert_eq!(read.await.expect("whole"), 64 << 20, "round {round}");
        if round == 1 {
            node.restart().await;
        }
    }
    let part = node.get_with("/large", "range", "bytes=1048576-1048580").await;
    part.assert_status(206);
}

#[tokio::test]
async fn trailers_pass_and_are_stored() {
    let origin = FakeOrigin::serving(
        "/a",
        ok("v1").chunked().trailer("x-sum", "42").header("trailer", "x-sum").cache_control("max-age=60"),
    )
    .await;
    let node = TestNode::in_front_of(&origin).await;
    for client in [node.http2(), node.https2()] {
        for _ in 0..2 {
            let answer = client.ask(Method::GET, "/a").header("te", "trailers").send().await;
            assert_eq!(
                answer.trailers.get("x-sum").map(|value| value.as_bytes()),
                Some(&b"42"[..]),
                "{}",
                answer.head()
            );
        }
    }
    let http1 = node.ask(Method::GET, "/a").header("te", "trailers").send().await;
    assert_eq!(http1.trailers.get("x-sum").map(|value| value.as_bytes()), Some(&b"42"[..]), "{}", http1.head());
}

#[tokio::test]
async fn an_upgrade_is_refused_with_a_clear_answer() {
    let origin = FakeOrigin::serving("/a", ok("v1")).await;
    let node = TestNode::in_front_of(&origin).await;
    let asked = node.ask(Method::GET, "/a").header("connection", "upgrade").header("upgrade", "websocket");
    let answer = asked.send().await;
    answer.assert_status(501);
    assert!(
        answer.json()["detail"].as_str().is_some_and(|detail| detail.contains("not enabled")),
        "{}",
        answer.content()
    );
    let h2c = node.ask(Method::GET, "/a").header("connection", "upgrade, http2-settings").header("upgrade", "h2c");
    h2c.send().await.assert_status(200);
    origin.assert_requests("/a", 1).await;
}

/// With `listen.upgrade = "forward"` bytes pass both ways once the origin has agreed.
#[tokio::test]
async fn a_configured_upgrade_becomes_a_tunnel() {
    let origin = echoing_upgrade_origin();
    let config = format!(
        "[listen]\nhttp = [\"127.0.0.1:0\"]\nupgrade = \"forward\"\nthreads = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
         [origins.test]\nendpoints = [\"http://{origin}\"]\n[[sites]]\nhosts = [\"*\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"test\"\n"
    );
    let brim = BrimProcess::start(&config);
    let mut connection = RawConnection::open(brim.listening().http[0]).await;
    connection.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").await;
    let head = connection.read_until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    connection.send("ping.").await;
    assert_eq!(connection.read_until(".").await, "ping.");
}

/// A server that switches to a protocol that gives back what it gets.
fn echoing_upgrade_origin() -> std::net::SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
            .expect("a client");
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..count]).expect("a client");
        }
    });
    address
}

#[tokio::test]
async fn malformed_requests_get_a_reason() {
    let origin = FakeOrigin::serving("/a", ok("v1")).await;
    let node = TestNode::in_front_of(&origin).await;
    let address = node.client().get("/a").await;
    address.assert_status(200);
    for (request, status) in [
        ("GET /a HTTP/1.1\r\n\r\n", "400"),
        ("GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET /a HTTP/1.1\r\nHost: a@b\r\n\r\n", "400"),
        (
            "GET /a HTTP/1.1\r\nHost: a\r\nVia: 1.1 brim, 1.1 brim, 1.1 brim, 1.1 brim, 1.1 brim, 1.1 brim, 1.1 brim, 1.1 brim\r\n\r\n",
            "508",
        ),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "501"),
    ] {
        let mut connection = RawConnection::open(node.http_address()).await;
        connection.send(request).await;
        let head = connection.read_until("\r\n\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {head}");
    }
    origin.assert_requests("/a", 1).await;
}

#[tokio::test]
async fn a_host_without_a_site_is_misdirected() {
    let origin = FakeOrigin::serving("/a", ok("v1")).await;
    let config = TestNode::config(&origin, "", "").replace("hosts = [\"*\"]", "hosts = [\"a.test\", \"*.b.test\"]");
    let node = TestNode::start(&config).await;
    node.client().clone().authority("a.test").get("/a").await.assert_status(200);
    node.client().clone().authority("x.b.test:81").get("/a").await.assert_status(200);
    node.client().clone().authority("c.test").get("/a").await.assert_status(421);
}

/// RFC 9113 §8.2.3: an HTTP/1.1 origin gets one Cookie line.
#[tokio::test]
async fn cookie_crumbs_are_joined() {
    let origin = FakeOrigin::serving("/a", ok("v1")).await;
    let node = TestNode::in_front_of(&origin).await;
    node.http2().ask(Method::GET, "/a").header("cookie", "a=1").header("cookie", "b=2").send().await.assert_status(200);
    let request = origin.requests("/a").remove(0);
    assert_eq!(request.headers.get_all("cookie").iter().count(), 1);
    assert_eq!(request.header("cookie"), Some("a=1; b=2"));
}

/// RFC 9110 §7.6.2, §9.3.7: OPTIONS for this node is answered by it, and what is forwarded has one hop less.
#[tokio::test]
async fn max_forwards_counts_hops() {
    let origin = FakeOrigin::serving("/a", ok("options")).await;
    let node = TestNode::in_front_of(&origin).await;
    let last = node.ask(Method::OPTIONS, "/a").header("max-forwards", "0").send().await;
    last.assert_status(204);
    assert!(last.header("allow").is_some());
    node.ask(Method::OPTIONS, "/a").header("max-forwards", "3").send().await.assert_content("options");
    assert_eq!(origin.requests("/a").remove(0).header("max-forwards"), Some("2"));
    origin.assert_requests("/a", 1).await;
}

/// The same for every thread: a connection to the origin is driven by the thread that opened it, and none of them ends before the
/// last request has been answered.
#[tokio::test]
async fn sigterm_drains_requests_of_all_threads() {
    let gate = Gate::new();
    let origin = FakeOrigin::start().await;
    origin.serve("/warm", ok("w").delay(std::time::Duration::from_millis(50)));
    origin.serve("/slow", ok("v1").held_by(&gate));
    let mut brim = BrimProcess::in_front_of(&origin.url(), "");
    // Eight connections to the origin, opened by whichever threads; then eight requests that take any of them.
    brim.http1().get_many("/warm", 8).await;
    let client = brim.http1();
    let asking = tokio::spawn(async move {
        let posts =
            (0..8).map(|_| tokio::spawn(client.ask(Method::POST, "/slow").content("x").send())).collect::<Vec<_>>();
        let mut answers = Vec::new();
        for post in posts {
            answers.push(post.await.expect("answered"));
        }
        answers
    });
    origin.wait_for_requests("/slow", 8).await;
    brim.begin_to_terminate();
    brim.wait_for_line("the drain", |line| line.contains("draining").then_some(()));
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    gate.open();
    for answer in asking.await.expect("answered") {
        answer.assert_status(200).assert_content("v1");
    }
    assert!(tokio::task::spawn_blocking(move || brim.terminate()).await.expect("ended").success());
}

/// Graceful: what is in flight is answered, then the process ends with 0.
#[tokio::test]
async fn sigterm_drains() {
    let gate = Gate::new();
    let origin = FakeOrigin::serving("/a", ok("v1").held_by(&gate)).await;
    let mut brim = BrimProcess::in_front_of(&origin.url(), "");
    let asking = tokio::spawn(brim.http1().ask(Method::GET, "/a").send());
    origin.wait_for_requests("/a", 1).await;
    brim.begin_to_terminate();
    brim.wait_for_line("the drain", |line| line.contains("draining").then_some(()));
    gate.open();
    asking.await.expect("answered").assert_content("v1");
    assert!(tokio::task::spawn_blocking(move || brim.terminate()).await.expect("ended").success());
}
