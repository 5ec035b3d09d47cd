//! The admin API over real sockets, with a real store and registry.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use brim_store::{Selector, Store, StoreConfig};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;
use crate::config::{ConfigError, ConfigErrors};
use crate::plugins::tests::{COMPONENT_MAGIC, component, registry};
use crate::request::explain::{Supposed, model::Explanation};
use crate::tasks::Tasks;

pub(crate) const TOKEN: &str = "a-token-for-the-tests";
const DEADLINE: Duration = Duration::from_secs(20);

/// A node's admin side alone, in a directory of its own.
pub(crate) struct TestAdmin {
    pub(crate) address: SocketAddr,
    pub(crate) state: AdminState,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

/// Status, content type and JSON of an answer.
struct Answer(StatusCode, String, Value);

impl TestAdmin {
    pub(crate) async fn start() -> TestAdmin {
        TestAdmin::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut AdminState)) -> TestAdmin {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut state = state(dir.path()).await;
        change(&mut state);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve(listener, state.clone(), async {
            let _ = stopped.await;
        }));
        TestAdmin { address, state, stop: Some(stop), served, _dir: dir }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let exchange = async {
            let stream = TcpStream::connect(self.address).await.expect("connected");
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
            tokio::spawn(connection);
            let response = sender.send_request(request).await.expect("a response");
            let (head, body) = response.into_parts();
            Response::from_parts(head, body.collect().await.expect("whole").to_bytes())
        };
        tokio::time::timeout(DEADLINE, exchange).await.expect("in time")
    }

    async fn call_with(&self, token: Option<&str>, method: &str, path: &str, content: Bytes) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "node");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = self.send(request.body(Full::new(content)).expect("a request")).await;
        let kind = response.headers().get("content-type").map(|kind| kind.to_str().expect("text").to_owned());
        let json = serde_json::from_slice(response.body()).unwrap_or(Value::Null);
        Answer(response.status(), kind.unwrap_or_default(), json)
    }

    async fn call(&self, method: &str, path: &str, content: Value) -> Answer {
        let content = if content.is_null() { Bytes::new() } else { content.to_string().into() };
        self.call_with(Some(TOKEN), method, path, content).await
    }

    async fn purge(&self, content: Value) -> Answer {
        self.call("POST", "/v1/purges", content).await
    }
}

impl Answer {
    #[track_caller]
    fn expect(self, status: u16) -> Value {
        assert_eq!(self.0.as_u16(), status, "{}", self.2);
        self.2
    }

    /// A refusal is a problem detail that says the status again.
    #[track_caller]
    fn refused(self, status: u16, words: &str) -> Value {
        assert_eq!(self.1, "application/problem+json");
        let problem = self.expect(status);
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], "about:blank");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains(words), "{detail:?} does not say {words:?}");
        problem
    }
}

async fn state(dir: &std::path::Path) -> AdminState {
    let store = Store::open(StoreConfig { disk_max: 16 << 20, ..StoreConfig::new(dir) }).await.expect("a store");
    AdminState {
        token: AdminToken::new(TOKEN),
        store,
        plugins: Arc::new(registry(&dir.join("plugins")).await),
        tasks: Tasks::default(),
        status: Arc::new(|| NodeStatus { version: "1.2.3".to_owned(), ..NodeStatus::default() }),
        metrics: Arc::new(|| "brim_up 1\n".to_owned()),
        reload: Arc::new(|| Box::pin(async { Ok(ReloadReport { sites: 2, origins: 1 }) })),
        ready: Arc::new(|| Ok(())),
        sites: Arc::new(|| vec!["shop".to_owned(), "api".to_owned()]),
        resolve_url: Arc::new(|_| Vec::new()),
        explain: Arc::new(|supposed| Box::pin(async move { explanation(&supposed) })),
        origins: Arc::new(|| vec![OriginStatus { name: "api".to_owned(), ..OriginStatus::default() }]),
        drain: Arc::new(|name, request| match (name, request.endpoint.as_str()) {
            ("api", "http://a:80") => Ok(OriginStatus { name: name.to_owned(), ..OriginStatus::default() }),
            ("api", _) => Err(NotDrained::NoEndpoint),
            _ => Err(NotDrained::NoOrigin),
        }),
        header_count_max: 100,
    }
}

/// What a node might say, with as much of the request as shows that it arrived.
fn explanation(supposed: &Supposed) -> Explanation {
    let host = supposed.headers["host"].to_str().expect("text");
    let step = format!("request: {} {}://{host}{}", supposed.method, supposed.scheme, supposed.target);
    let decision = json!({
        "action": "refused", "cache_status": "brim; detail=no-site", "detail": "no-site", "status": 421,
        "steps": [step, "decision: refused"],
    });
    let request = json!({
        "method": "GET", "scheme": "http", "authority": host, "path": "/", "query": null, "directives": [],
    });
    let purge = json!({"position": 0, "was_purged": false});
    serde_json::from_value(json!({"request": request, "purge": purge, "candidates": [], "decision": decision}))
        .expect("an explanation")
}

#[tokio::test]
async fn a_request_to_be_explained_arrives_whole_or_is_refused() {
    let admin = TestAdmin::start().await;
    let explain = async |content: Value| admin.call("POST", "/v1/explain", content).await;
    let answer = explain(json!({"url": "https://a.example/b?c", "method": "HEAD"})).await.expect(200);
    assert_eq!(answer["decision"]["steps"][0], "request: HEAD https://a.example/b?c");
    let url = "http://a/";
    explain(json!({})).await.refused(400, "missing field `url`");
    explain(json!({"url": url, "header": {}})).await.refused(400, "unknown field `header`");
    explain(json!({"url": url, "headers": {"a": 1}})).await.refused(400, "a string, or a list of strings");
    explain(json!({"url": "/"})).await.refused(422, "absolute");
    explain(json!({"url": url, "headers": {"a": "\n"}})).await.refused(422, "no value of a");
}

#[tokio::test]
async fn health_and_metrics_need_no_token() {
    let admin = TestAdmin::start().await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(admin.call_with(None, "GET", path, Bytes::new()).await.0, 200, "{path}");
        assert_eq!(admin.call_with(None, "HEAD", path, Bytes::new()).await.0, 200, "{path}");
    }
    assert!(admin.call_with(None, "GET", "/metrics", Bytes::new()).await.1.starts_with("text/plain; version=0.0.4"));
    let draining = TestAdmin::start_with(|state| state.ready = Arc::new(|| Err("draining".to_owned()))).await;
    draining.call_with(None, "GET", "/readyz", Bytes::new()).await.refused(503, "draining");
}

#[tokio::test]
async fn everything_else_needs_it() {
    let admin = TestAdmin::start().await;
    for (method, path) in calls::CALLS.into_iter().filter(|(_, path)| path.starts_with("/v1/")) {
        let path = path.replace("{id}", "p-1").replace("{name}", "rule");
        for token in [None, Some("another-token-of-some-length"), Some("")] {
            admin.call_with(token, method, &path, Bytes::new()).await.refused(401, "Authorization: Bearer");
        }
    }
    let request = Request::get("/v1/status").header("authorization", format!("Bearer {TOKEN}"));
    let request = request.header("authorization", "Bearer another").body(Full::default()).expect("a request");
    let response = admin.send(request).await;
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"brim\"");
    assert_eq!(admin.state.store.position().0, 0, "nothing was purged");
}

#[tokio::test]
async fn every_listed_call_is_there_and_others_say_what_is() {
    let admin = TestAdmin::start().await;
    for (method, path) in calls::CALLS.into_iter().filter(|(method, _)| *method != "HEAD") {
        let path = path.replace("{id}", "p-1").replace("{name}", "rule");
        let Answer(_, _, json) = admin.call(method, &path, Value::Null).await;
        assert!(!["unknown_call", "method"].contains(&json["code"].as_str().unwrap_or_default()), "{method} {path}");
    }
    for path in ["/", "/v1", "/v1/jobs", "/v1/warm"] {
        admin.call("POST", path, Value::Null).await.refused(404, "POST /v1/purges");
    }
    let request = Request::delete("/v1/plugins/rule").header("authorization", format!("Bearer {TOKEN}"));
    let response = admin.send(request.body(Full::default()).expect("a request")).await;
    assert_eq!(response.status(), 405);
    let allow = response.headers()["allow"].to_str().expect("text");
    assert!(allow.contains("GET") && allow.contains("PUT"), "{allow}");
}

#[tokio::test]
async fn a_purge_is_answered_with_a_receipt_that_can_be_read_again() {
    let admin = TestAdmin::start().await;
    let receipt = admin.purge(json!({"url": "HTTPS://Shop.Example:443/a?b=1"})).await.expect(201);
    assert_eq!(receipt["purged"], json!([{"url": "//shop.example/a?b=1"}]));
    assert_eq!((&receipt["position"], &receipt["mode"]), (&json!(1), &json!("hard")));
    assert!(receipt["matched"].is_u64());
    let applied_at = receipt["applied_at"].as_str().expect("a time");
    assert!(humantime::parse_rfc3339(applied_at).is_ok(), "{applied_at}");
    let id = receipt["id"].as_str().expect("an id");
    assert_eq!(admin.call("GET", &format!("/v1/purges/{id}"), Value::Null).await.expect(200), receipt);
    admin.call("GET", "/v1/purges/p-99", Value::Null).await.refused(404, "p-99");
    assert_eq!(admin.state.store.position().0, 1);
}

#[tokio::test]
async fn every_target_can_be_purged_hard_soft_or_not_at_all() {
    let admin = TestAdmin::start().await;
    let targets = [
        (json!({"prefix": "http://shop.example:8080/p/"}), json!({"prefix": "//shop.example:8080/p/"})),
        (json!({"surrogate_keys": ["a", "b"]}), json!({"surrogate_keys": ["a", "b"]})),
        (json!({"site": "shop"}), json!({"site": "shop"})),
        (json!({"everything": true}), json!({"everything": true})),
    ];
    for (position, (mut request, purged)) in (1..).zip(targets) {
        request["dry_run"] = json!(true);
        let dry = admin.purge(request.clone()).await.expect(200);
        assert_eq!((&dry["matched"], &dry["bytes"], &dry["examples"]), (&json!(0), &json!(0), &json!([])));
        assert_eq!((&dry["dry_run"], &dry["purged"]), (&json!(true), &json!([purged])));
        request["dry_run"] = json!(false);
        request["soft"] = json!(true);
        let receipt = admin.purge(request).await.expect(201);
        assert_eq!((&receipt["mode"], &receipt["position"]), (&json!("soft"), &json!(position)));
    }
}

/// A plugin that rewrites the query stores the response under another URL: both are purged, under one receipt.
#[tokio::test]
async fn a_url_is_purged_under_all_its_forms() {
    let admin = TestAdmin::start_with(|state| {
        state.resolve_url = Arc::new(|url| {
            let form = |query: Option<&str>| Selector::Url {
                authority: url.authority.as_str().into(),
                path: url.path.as_str().into(),
                query: query.map(Into::into),
            };
            vec![form(Some("page=1")), form(url.query.as_deref())]
        });
    })
    .await;
    let receipt = admin.purge(json!({"url": "http://a.example/list?utm_source=x&page=1"})).await.expect(201);
    assert_eq!(
        receipt["purged"],
        json!([{"url": "//a.example/list?utm_source=x&page=1"}, {"url": "//a.example/list?page=1"}])
    );
    assert_eq!((&receipt["position"], &receipt["id"]), (&json!(2), &json!("p-1~p-2")));
    assert_eq!(admin.call("GET", "/v1/purges/p-1~p-2", Value::Null).await.expect(200), receipt);
}

#[tokio::test]
async fn every_wrong_purge_is_refused_with_what_would_be_right() {
    let admin = TestAdmin::start().await;
    let long_url = format!("http://a/{}", "x".repeat(9000));
    let many: Vec<String> = (0..257).map(|number| number.to_string()).collect();
    let heavy: Vec<String> = (0..256).map(|number| format!("{number:0>512}")).collect();
    let cases = [
        (400, json!({}), "exactly one of"),
        (400, json!({"url": "http://a/", "site": "shop"}), "exactly one of"),
        (400, json!({"everything": false}), "only be true"),
        (400, json!({"urls": ["http://a/"]}), "unknown field `urls`"),
        (400, json!({"url": 7}), "expected a string"),
        (422, json!({"url": "/a"}), "absolute"),
        (422, json!({"url": "a.example/x"}), "absolute"),
        (422, json!({"url": "ftp://a.example/"}), "http or https"),
        (422, json!({"url": "http://a.example/#x"}), "fragment"),
        (422, json!({"url": "http://me:pw@a.example/"}), "without user"),
        (422, json!({"url": "http://a.example/é ü"}), "percent-encoded"),
        (422, json!({"url": long_url}), "8192 bytes"),
        (422, json!({"prefix": "http://a.example/?x"}), "before the query"),
        (422, json!({"surrogate_keys": []}), "1 to 256"),
        (422, json!({"surrogate_keys": many}), "1 to 256"),
        (422, json!({"surrogate_keys": heavy}), "bytes"),
        (422, json!({"surrogate_keys": ["a b"]}), "white space"),
        (422, json!({"site": "shops"}), "there are: shop, api"),
    ];
    for (status, content, words) in cases {
        admin.purge(content).await.refused(status, words);
    }
    admin.call_with(Some(TOKEN), "POST", "/v1/purges", "{".into()).await.refused(400, "not what this call takes");
    let huge = Bytes::from(vec![b' '; 600 << 10]);
    admin.call_with(Some(TOKEN), "POST", "/v1/purges", huge).await.refused(413, "more than the");
    assert_eq!(admin.state.store.position().0, 0, "nothing was purged");
}

#[tokio::test]
async fn a_plugin_from_upload_to_rollback() {
    let admin = TestAdmin::start().await;
    for (version, tag) in [(1, "a"), (2, "b")] {
        let uploaded = admin.call_with(Some(TOKEN), "PUT", "/v1/plugins/rule", component(tag)).await.expect(201);
        assert_eq!((&uploaded["name"], &uploaded["version"]), (&json!("rule"), &json!(version)));
        assert_eq!((&uploaded["hooks"], &uploaded["known"]), (&json!(["cache-key"]), &json!(false)));
        assert!(uploaded["inputs"]["headers"].is_array() && uploaded["digest"].is_string());
        let state = admin
            .call("POST", "/v1/plugins/rule/activate", json!({"version": version, "mode": "live"}))
            .await
            .expect(200);
        assert_eq!(state["active"], version);
    }
    let shown = admin.call("GET", "/v1/plugins/rule", Value::Null).await.expect(200);
    assert_eq!((&shown["active"], &shown["previous"]), (&json!(2), &json!(1)));
    assert_eq!((&shown["versions"][0]["version"], &shown["versions"][0]["live"]), (&json!(2), &json!(true)));
    assert_eq!((&shown["calls"]["calls"], &shown["calls"]["traps"]), (&json!(0), &json!(0)));
    let state = admin.call("POST", "/v1/plugins/rule/rollback", Value::Null).await.expect(200);
    assert_eq!((&state["active"], &state["previous"]), (&json!(1), &Value::Null));
    assert_eq!(admin.state.plugins.active("rule").map(|active| active.version), Some(1));
    let list = admin.call("GET", "/v1/plugins", Value::Null).await.expect(200);
    assert_eq!(list["plugins"][0]["name"], "rule");
    let status = admin.call("GET", "/v1/status", Value::Null).await.expect(200);
    assert_eq!((&status["version"], &status["plugins"][0]["active"]), (&json!("1.2.3"), &json!(1)));
}

#[tokio::test]
async fn origins_are_listed_and_their_endpoints_drained() {
    let admin = TestAdmin::start().await;
    let listed = admin.call("GET", "/v1/origins", Value::Null).await.expect(200);
    assert_eq!(listed["origins"][0]["name"], "api");
    let drain =
        async |name: &str, content: Value| admin.call("POST", &format!("/v1/origins/{name}/drain"), content).await;
    let drained = drain("api", json!({"endpoint": "http://a:80", "drain": true})).await.expect(200);
    assert_eq!(drained["name"], "api");
    drain("api", json!({"endpoint": "http://b:80", "drain": true})).await.refused(404, "no endpoint \"http://b:80\"");
    drain("shop", json!({"endpoint": "http://a:80", "drain": true})).await.refused(404, "no origin \"shop\"");
    drain("api", json!({"endpoint": "http://a:80"})).await.refused(400, "drain");
    drain("api", json!({"endpoint": "http://a:80", "drain": true, "for": "1h"})).await.refused(400, "for");
}

#[tokio::test]
async fn every_wrong_plugin_call_is_refused() {
    let admin = TestAdmin::start().await;
    let put = async |path: &str, content: Bytes| admin.call_with(Some(TOKEN), "PUT", path, content).await;
    let broken: Bytes = [COMPONENT_MAGIC, b"bad"].concat().into();
    let large = Bytes::from(vec![0; (1 << 20) + 1]);
    for (path, content, status, check, words) in [
        ("/v1/plugins/rule", Bytes::new(), 422, "format", "not a WebAssembly component"),
        ("/v1/plugins/rule", "text".into(), 422, "format", "not a WebAssembly component"),
        ("/v1/plugins/rule", broken.clone(), 422, "compile", "not valid"),
        ("/v1/plugins/Rule", broken, 422, "name", "a-z"),
        ("/v1/plugins/rule", large, 413, "size", "plugins.component_bytes_max"),
    ] {
        let problem = put(path, content).await.refused(status, words);
        assert_eq!(problem["check"], check);
    }
    admin.call("GET", "/v1/plugins/rule", Value::Null).await.refused(404, "no plugin is named");
    let activate = async |content: Value| admin.call("POST", "/v1/plugins/rule/activate", content).await;
    activate(json!({"version": 1})).await.refused(404, "no plugin is named");
    put("/v1/plugins/rule", component("a")).await.expect(201);
    activate(Value::Null).await.refused(400, "missing field `version`");
    activate(json!({"version": 9})).await.refused(404, "kept: 1");
    activate(json!({"version": 1, "mode": "fast"})).await.refused(400, "unknown variant");
    activate(json!({"version": 1, "mode": "shadow"})).await.refused(501, "not available in this version");
    activate(json!({"version": 1, "mode": "canary", "percent": 5})).await.refused(501, "not available in this version");
    activate(json!({"version": 1, "percent": 5})).await.refused(422, "canary");
    admin.call("POST", "/v1/plugins/rule/rollback", Value::Null).await.refused(409, "no earlier");
    admin.call("POST", "/v1/plugins/other/rollback", Value::Null).await.refused(404, "no plugin is named");
}

#[tokio::test]
async fn a_reload_reports_what_is_in_force_or_every_mistake() {
    let admin = TestAdmin::start().await;
    assert_eq!(
        admin.call("POST", "/v1/config/reload", Value::Null).await.expect(200),
        json!({"sites": 2, "origins": 1})
    );
    let error = ConfigError { path: "origins.api.endpoints".to_owned(), line: Some(3), message: "is empty".to_owned() };
    let refusing = TestAdmin::start_with(|state| {
        state.reload = Arc::new(move || {
            let errors = ConfigErrors(vec![error.clone(), error.clone()]);
            Box::pin(async move { Err(errors) })
        });
    })
    .await;
    let problem = refusing
        .call("POST", "/v1/config/reload", Value::Null)
        .await
        .refused(422, "origins.api.endpoints: is empty (line 3)");
    assert_eq!(problem["errors"][1], json!({"path": "origins.api.endpoints", "line": 3, "message": "is empty"}));
}

/// The 65th connection waits until one of the others goes away.
#[tokio::test]
async fn connections_are_limited_and_freed() {
    let admin = TestAdmin::start().await;
    let mut idle = Vec::new();
    for _ in 0..server::CONNECTIONS_MAX {
        idle.push(TcpStream::connect(admin.address).await.expect("connected"));
    }
    // Each one is served, so each one has its place.
    for stream in &mut idle {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: node\r\n\r\n").await.expect("written");
        assert!(stream.read(&mut [0; 1024]).await.expect("read") > 0);
    }
    let mut waiting = TcpStream::connect(admin.address).await.expect("in the listen queue");
    waiting.write_all(b"GET /healthz HTTP/1.1\r\nhost: node\r\n\r\n").await.expect("written");
    let mut answer = [0; 1024];
    assert!(
        tokio::time::timeout(Duration::from_millis(100), waiting.read(&mut answer)).await.is_err(),
        "served beyond the limit"
    );
    idle.pop();
    let read = tokio::time::timeout(DEADLINE, waiting.read(&mut answer)).await.expect("in time").expect("read");
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_finishes_calls() {
    let (go, gone) = oneshot::channel::<()>();
    let gone = Arc::new(parking_lot::Mutex::new(Some(gone)));
    let mut admin = TestAdmin::start_with(move |state| {
        state.reload = Arc::new(move || {
            let gone = gone.lock().take();
            Box::pin(async move {
                if let Some(gone) = gone {
                    let _ = gone.await;
                }
                Ok(ReloadReport::default())
            })
        });
    })
    .await;
    let mut idle = TcpStream::connect(admin.address).await.expect("connected");
    let mut busy = TcpStream::connect(admin.address).await.expect("connected");
    let head = format!(
        "POST /v1/config/reload HTTP/1.1\r\nhost: node\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 0\r\n\r\n"
    );
    busy.write_all(head.as_bytes()).await.expect("written");
    while admin.state.tasks.running_count() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let _ = admin.stop.take().expect("running").send(());
    let ended = tokio::time::timeout(DEADLINE, idle.read(&mut [0; 8])).await.expect("in time");
    assert!(matches!(ended, Ok(0) | Err(_)));
    let _ = go.send(());
    let mut answer = Vec::new();
    tokio::time::timeout(DEADLINE, busy.read_to_end(&mut answer)).await.expect("in time").expect("read");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    tokio::time::timeout(DEADLINE, admin.served).await.expect("in time").expect("ended");
}
