//! The sample origin over real sockets.

use http::header::{CONTENT_LANGUAGE, CONTENT_LENGTH, ETAG, LOCATION, VARY};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

type Content = Full<Bytes>;

struct Running {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start() -> Self {
        let options = DemoOptions { delay: Duration::ZERO, report_delay: Duration::ZERO, products: 100 };
        let origin = DemoOrigin::bind("127.0.0.1:0", options).await.expect("port 0 is free");
        let addr = origin.local_addr();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(origin.run(async move {
            let _ = stopped.await;
        }));
        Self { addr, stop: Some(stop), task }
    }

    async fn http1(&self) -> http1::SendRequest<Content> {
        let stream = TcpStream::connect(self.addr).await.expect("the origin listens");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        sender
    }

    async fn http2(&self) -> http2::SendRequest<Content> {
        let stream = TcpStream::connect(self.addr).await.expect("the origin listens");
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2 with prior knowledge");
        tokio::spawn(connection);
        sender
    }

    async fn send(&self, request: Request<Content>) -> Response<Incoming> {
        self.http1().await.send_request(request).await.expect("an answer")
    }

    async fn get(&self, target: &str, fields: &[(&'static str, &str)]) -> (HeaderMap, StatusCode, Bytes) {
        split(self.send(request(Method::GET, target, fields, "")).await).await
    }

    async fn write(&self, method: Method, target: &str, content: &'static str) -> (HeaderMap, StatusCode, Bytes) {
        split(self.send(request(method, target, &[], content)).await).await
    }
}

fn request(method: Method, target: &str, fields: &[(&'static str, &str)], content: &'static str) -> Request<Content> {
    let mut builder = Request::builder().method(method).uri(target).header("host", "shop.test");
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    builder.body(Full::from(content)).expect("a good request")
}

async fn split(response: Response<Incoming>) -> (HeaderMap, StatusCode, Bytes) {
    let (head, body) = response.into_parts();
    (head.headers, head.status, body.collect().await.expect("a whole body").to_bytes())
}

fn json(content: &Bytes) -> Value {
    serde_json::from_slice(content).expect("JSON")
}

#[tokio::test]
async fn both_versions_of_http_are_answered_on_one_port_and_counted_together() {
    let origin = Running::start().await;
    let one = origin.http1().await.send_request(request(Method::GET, "/products/1", &[], "")).await.expect("an answer");
    let target = format!("http://{}/products/1", origin.addr);
    let mut asked = Request::new(Full::default());
    *asked.uri_mut() = target.parse().expect("a target");
    let two = origin.http2().await.send_request(asked).await.expect("an answer");
    assert_eq!((one.version(), two.version()), (Version::HTTP_11, Version::HTTP_2));
    assert_eq!(
        (&one.headers()["x-origin-request"], &two.headers()["x-origin-request"]),
        (&"1".parse().expect("1"), &"2".parse().expect("2"))
    );
    assert_eq!(split(one).await.2, split(two).await.2);
}

#[tokio::test]
async fn following_next_visits_every_product_once() {
    let origin = Running::start().await;
    for start in ["/products?limit=30", "/products?offset=0&limit=30", "/products?limit=30&sort=-price"] {
        let mut target = Some(start.to_owned());
        let mut ids = Vec::new();
        while let Some(next) = target {
            let page = json(&origin.get(&next, &[]).await.2);
            assert_eq!(page["total"], 100);
            ids.extend(page["items"].as_array().expect("items").iter().filter_map(|item| item["id"].as_u64()));
            target = page["next"].as_str().map(str::to_owned);
        }
        ids.sort_unstable();
        assert_eq!(ids, (1..=100).collect::<Vec<_>>(), "{start}");
    }
}

#[tokio::test]
async fn a_product_speaks_two_languages_with_a_tag_each() {
    let origin = Running::start().await;
    let (english, _, _) = origin.get("/products/1", &[]).await;
    let (german, _, content) = origin.get("/products/1", &[("accept-language", "de")]).await;
    assert_eq!(
        (&english[CONTENT_LANGUAGE], &german[CONTENT_LANGUAGE]),
        (&"en".parse().expect("en"), &"de".parse().expect("de"))
    );
    assert_eq!(german[VARY], "accept-language");
    assert_ne!(english[ETAG], german[ETAG]);
    assert!(json(&content)["name"].as_str().expect("a name").contains('-'), "German names are compounds");
}

#[tokio::test]
async fn a_write_changes_tag_and_version_and_a_conditional_read_tells() {
    let origin = Running::start().await;
    let (before, _, _) = origin.get("/products/7", &[]).await;
    let tag = before[ETAG].to_str().expect("text").to_owned();
    let (_, status, content) = origin.get("/products/7", &[("if-none-match", &tag)]).await;
    assert_eq!((status, content.len()), (StatusCode::NOT_MODIFIED, 0));

    let (_, status, content) = origin.write(Method::PATCH, "/products/7", r#"{"price_cents": 42}"#).await;
    assert_eq!((status, json(&content)["version"].as_u64()), (StatusCode::OK, Some(2)));
    let (after, status, content) = origin.get("/products/7", &[("if-none-match", &tag)]).await;
    assert_eq!((status, json(&content)["price_cents"].as_u64()), (StatusCode::OK, Some(42)));
    assert_ne!(after[ETAG], tag.as_str());

    let stale = request(Method::DELETE, "/products/7", &[("if-match", &tag)], "");
    assert_eq!(origin.send(stale).await.status(), StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn a_created_product_has_a_location_until_it_is_deleted() {
    let origin = Running::start().await;
    let draft = r#"{"name": "Lamp", "category": "office", "price_cents": 100}"#;
    let (headers, status, _) = origin.write(Method::POST, "/products", draft).await;
    assert_eq!((status, &headers[LOCATION]), (StatusCode::CREATED, &"/products/101".parse().expect("a path")));
    assert_eq!(origin.write(Method::PUT, "/products/101", draft).await.1, StatusCode::OK);
    assert_eq!(origin.write(Method::DELETE, "/products/101", "").await.1, StatusCode::NO_CONTENT);
    assert_eq!(origin.get("/products/101", &[]).await.1, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn bad_requests_are_refused_with_a_reason() {
    let origin = Running::start().await;
    let large = Box::leak(format!("{{\"name\": \"{}\"}}", "x".repeat(65 * 1024)).into_boxed_str());
    for (method, target, content, expected) in [
        (Method::POST, "/products", "{", StatusCode::BAD_REQUEST),
        (Method::POST, "/products", "{}", StatusCode::UNPROCESSABLE_ENTITY),
        (Method::POST, "/products", &*large, StatusCode::PAYLOAD_TOO_LARGE),
        (Method::PUT, "/products/999", r#"{"name":"x","category":"books","price_cents":1}"#, StatusCode::NOT_FOUND),
        (Method::DELETE, "/products", "", StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/home", "", StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/products?limit=1000", "", StatusCode::BAD_REQUEST),
        (Method::GET, "/products?sort=colour", "", StatusCode::BAD_REQUEST),
        (Method::GET, "/search", "", StatusCode::BAD_REQUEST),
        (Method::GET, "/me", "", StatusCode::UNAUTHORIZED),
        (Method::GET, "/bytes/many", "", StatusCode::BAD_REQUEST),
        (Method::GET, "/nowhere", "", StatusCode::NOT_FOUND),
    ] {
        let (headers, status, answer) = origin.write(method.clone(), target, content).await;
        assert_eq!(status, expected, "{method} {target}");
        assert_eq!(headers["cache-control"], "no-store", "{method} {target}");
        assert!(json(&answer)["error"].is_string(), "{method} {target}");
    }
}

#[tokio::test]
async fn tenants_see_their_own_prices() {
    let origin = Running::start().await;
    let (_, _, acme) = origin.get("/catalogue", &[("x-tenant", "acme")]).await;
    let (headers, _, globex) = origin.get("/catalogue", &[("x-tenant", "globex")]).await;
    assert_eq!((&json(&acme)["tenant"], &json(&globex)["tenant"]), (&"acme".into(), &"globex".into()));
    assert_ne!(json(&acme)["items"], json(&globex)["items"]);
    assert!(!headers.contains_key(VARY), "tenant-key is what tells them apart");
}

#[tokio::test]
async fn bytes_come_with_or_without_their_length() {
    let origin = Running::start().await;
    for (target, length) in [("/bytes/200000", Some("200000")), ("/bytes/200000?chunked=1", None)] {
        let (headers, _, content) = origin.get(target, &[]).await;
        assert_eq!(headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()), length, "{target}");
        assert_eq!(content.len(), 200_000);
        assert!(content.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 251));
    }
}

#[tokio::test]
async fn a_head_request_gets_the_fields_alone() {
    let origin = Running::start().await;
    let response = origin.send(request(Method::HEAD, "/bytes/4294967296", &[], "")).await;
    assert_eq!(response.headers()[CONTENT_LENGTH], "4294967296");
    assert_eq!(split(response).await.2.len(), 0);
}

#[tokio::test]
async fn echo_returns_the_content_and_headers_the_head() {
    let origin = Running::start().await;
    assert_eq!(origin.write(Method::POST, "/echo", "back to me").await.2, "back to me");
    let (_, _, content) = origin.get("/headers?a=1", &[("x-probe", "seen")]).await;
    let head = json(&content);
    assert_eq!((&head["method"], &head["target"]), (&"GET".into(), &"/headers?a=1".into()));
    assert!(head["headers"].as_array().expect("fields").contains(&serde_json::json!(["x-probe", "seen"])));
}

#[tokio::test]
async fn trailers_follow_the_chunks() {
    let origin = Running::start().await;
    let response = origin.send(request(Method::GET, "/trailers", &[("te", "trailers")], "")).await;
    let collected = response.into_body().collect().await.expect("a whole body");
    assert_eq!(collected.trailers().expect("trailers")["x-chunk-count"], "3");
    assert_eq!(collected.to_bytes(), "one\ntwo\nthree\n");
}

#[tokio::test]
async fn a_status_is_answered_with_the_freshness_asked_for() {
    let origin = Running::start().await;
    let (headers, status, _) = origin.get("/status/503?cache-control=max-age%3D10", &[]).await;
    assert_eq!(
        (status, &headers["cache-control"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"max-age=10".parse().expect("a value"))
    );
    assert_eq!(origin.get("/status/204", &[]).await.1, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn stopping_lets_a_running_answer_end() {
    let mut origin = Running::start().await;
    let mut sender = origin.http1().await;
    let answer = tokio::spawn(async move { sender.send_request(request(Method::GET, "/slow/150", &[], "")).await });
    // The origin has the slow request once the count runs ahead of our own probes.
    let mut probe_count = 1_u64;
    while origin.get("/status/200", &[]).await.0["x-origin-request"] == probe_count.to_string().as_str() {
        probe_count += 1;
    }
    origin.stop.take().expect("not stopped yet").send(()).expect("it runs");
    assert_eq!(answer.await.expect("no panic").expect("an answer").status(), StatusCode::OK);
    tokio::time::timeout(Duration::from_secs(5), origin.task).await.expect("in time").expect("no panic");
    assert!(TcpStream::connect(origin.addr).await.is_err(), "nobody listens any more");
}
