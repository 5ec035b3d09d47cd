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

    /// The secret of a new token.
    async fn token(&self, content: Value) -> String {
        let made = self.call("POST", "/v1/tokens", content).await.expect(201);
        made["token"].as_str().expect("a secret").to_owned()
    }

    async fn call_as(&self, token: &str, method: &str, path: &str, content: &Value) -> Answer {
        let content = if content.is_null() { Bytes::new() } else { content.to_string().into() };
        self.call_with(Some(token), method, path, content).await
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
        tokens: Arc::new(Tokens::open(dir, AdminToken::new(TOKEN))),
        audit: Arc::new(Audit::start(dir).expect("started")),
        strangers: Arc::default(),
        rates: Arc::default(),
        confirmations: Arc::new(Confirmations::new().expect("a key")),
        purge_bounds: PurgeBounds::default(),
        node_name: "edge-1".into(),
        clock: Arc::new(crate::clock::SystemClock),
        count: Arc::new(|_, _| {}),
        refresh: Arc::new(|_| true),
        retries: crate::retry::Retries::open(dir.join("retries")),
        site_of: Arc::new(|authority| match authority {
            "shop.example" => Some("shop".to_owned()),
            "api.example" => Some("api".to_owned()),
            _ => None,
        }),
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
    for (method, path, _) in calls::CALLS.into_iter().filter(|(_, path, _)| path.starts_with("/v1/")) {
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
    for (method, path, _) in calls::CALLS.into_iter().filter(|(method, _, _)| *method != "HEAD") {
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
    assert_eq!(admin.call("GET", &format!("/v1/purges/{id}?wait=true"), Value::Null).await.expect(200), receipt);
    assert_eq!(
        receipt["nodes"],
        json!([{
            "node": "edge-1", "position": 1, "matched": receipt["matched"], "durable_at": receipt["durable_at"],
            "reclaimed_at": receipt["reclaimed_at"],
        }])
    );
    assert_eq!(receipt["by"], "admin");
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
        (json!({"surrogate_keys": ["a"], "site": "shop"}), json!({"surrogate_keys": ["a"], "site": "shop"})),
        (
            json!({"url": "http://shop.example/", "headers": {"Accept": "a", "x": ["1", "2"], "Cookie": "secret"}}),
            json!({"url": "//shop.example/", "headers": {"accept": "a", "x": ["1", "2"], "cookie": "(6 bytes, not shown)"}}),
        ),
        (
            json!({"match": {"site": "shop", "host": "*.A", "path": "/x/*", "status": ["4xx", 500], "content_type": "Text/*"}}),
            json!({"match": {"site": "shop", "host": "*.a", "path": "/x/*", "status": ["400-499", "500"], "content_type": "text/*"}}),
        ),
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
    assert_eq!((&receipt["position"], &receipt["id"]), (&json!(1), &json!("p-1")), "one position for all of them");
    assert_eq!(admin.call("GET", "/v1/purges/p-1", Value::Null).await.expect(200)["purged"], receipt["purged"]);
}

#[tokio::test]
async fn every_wrong_purge_is_refused_with_what_would_be_right() {
    let admin = TestAdmin::start().await;
    let long_url = format!("http://a/{}", "x".repeat(9000));
    let many: Vec<String> = (0..1001).map(|number| number.to_string()).collect();
    let heavy: Vec<String> = (0..300).map(|number| format!("{number:0>1000}")).collect();
    let cases = [
        (400, json!({}), "exactly one of"),
        (400, json!({"url": "http://a/", "site": "shop"}), "exactly one of"),
        (400, json!({"everything": false}), "only be true"),
        (400, json!({"urls": ["http://a/"]}), "unknown field `urls`"),
        (400, json!({"url": 7}), "expected a string"),
        (400, json!({"url": "http://a/", "match": {"status": 404}}), "exactly one of"),
        (400, json!({"site": "shop", "everything": true}), "exactly one of"),
        (400, json!({"prefix": "http://a/", "headers": {}}), "exactly one of"),
        (400, json!({"headers": {"a": "b"}}), "exactly one of"),
        (400, json!({"match": {"regex": ".*"}}), "unknown field `regex`"),
        (400, json!({"match": {"status": 4.5}}), "a status is a number"),
        (422, json!({"match": {}}), "at least one of"),
        (422, json!({"match": {"status": "6xx"}}), "match.status"),
        (422, json!({"match": {"status": []}}), "match.status"),
        (422, json!({"match": {"older_than": "10"}}), "match.older_than"),
        (422, json!({"match": {"younger_than": "1y"}}), "match.younger_than"),
        (422, json!({"match": {"older_than": "99999d"}}), "before 1970"),
        (422, json!({"match": {"host": "http://a"}}), "match.host"),
        (422, json!({"match": {"host": ""}}), "match.host"),
        (422, json!({"match": {"host": "x".repeat(257)}}), "256"),
        (422, json!({"match": {"path": "a/*"}}), "match.path"),
        (422, json!({"match": {"path": "/*a*b*c*d*e*f*g*h*i"}}), "more than 8"),
        (422, json!({"match": {"path": "/a b"}}), "white space"),
        (422, json!({"match": {"content_type": "text/html; charset=utf-8"}}), "match.content_type"),
        (422, json!({"match": {"plugin": "rule"}}), "NAME@VERSION"),
        (422, json!({"match": {"plugin": "rule@1"}}), "no plugin is named"),
        (422, json!({"match": {"site": "shops"}}), "`match.site`"),
        (422, json!({"surrogate_keys": ["a"], "site": "shops"}), "`site`"),
        (422, json!({"surrogate_keys": ["a", ""]}), "surrogate_keys[1]"),
        (422, json!({"url": "http://a/", "headers": {"host": "b"}}), "headers.host"),
        (422, json!({"url": "http://a/", "headers": {"a b": "c"}}), "no name of a field"),
        (422, json!({"url": "http://a/", "confirm": "c-1-2"}), "`confirm`"),
        (422, json!({"url": "/a"}), "absolute"),
        (422, json!({"url": "a.example/x"}), "absolute"),
        (422, json!({"url": "ftp://a.example/"}), "http or https"),
        (422, json!({"url": "http://a.example/#x"}), "fragment"),
        (422, json!({"url": "http://me:pw@a.example/"}), "without user"),
        (422, json!({"url": "http://a.example/é ü"}), "percent-encoded"),
        (422, json!({"url": long_url}), "8192 bytes"),
        (422, json!({"prefix": "http://a.example/?x"}), "before the query"),
        (422, json!({"surrogate_keys": []}), "1 to 1000"),
        (422, json!({"surrogate_keys": many}), "1 to 1000"),
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

/// Every call against every scope: who has one of those that it names comes in, and nobody else.
#[tokio::test]
async fn each_call_wants_its_scope() {
    let admin = TestAdmin::start().await;
    let scopes = [Scope::Read, Scope::Purge, Scope::Plugins, Scope::Admin];
    let mut secrets = Vec::new();
    for scope in scopes {
        secrets.push(admin.token(json!({"name": scope.as_str(), "scopes": [scope]})).await);
    }
    for (method, path, need) in calls::CALLS.into_iter().filter(|(method, _, _)| *method != "HEAD") {
        let path = path.replace("{name}", "none").replace("{id}", "none");
        for (scope, secret) in scopes.iter().zip(&secrets) {
            let may = match need {
                calls::Need::Nothing => true,
                calls::Need::Look(wanted) => *scope == Scope::Admin || wanted.contains(scope),
                calls::Need::Change(wanted) => *scope == Scope::Admin || *scope == wanted,
            };
            let methods = if method == "GET" { ["GET", "HEAD"].as_slice() } else { &[method] };
            for method in methods {
                let Answer(status, _, problem) = admin.call_as(secret, method, &path, &Value::Null).await;
                assert_eq!(status != 403 && status != 401, may, "{method} {path} with {scope:?}: {problem}");
                if !may && *method != "HEAD" {
                    assert_eq!(problem["code"], "forbidden");
                    assert!(problem["scopes"].as_array().is_some_and(|scopes| !scopes.is_empty()), "{problem}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_token_is_made_listed_and_revoked() {
    let admin = TestAdmin::start().await;
    let made = admin
        .call(
            "POST",
            "/v1/tokens",
            json!({"name": "ci", "scopes": ["purge", "purge"], "sites": ["shop"],
            "key_prefixes": ["p:"], "purges_per_minute": 7, "expires_in": "1h"}),
        )
        .await
        .expect(201);
    let (id, secret) = (made["id"].as_str().expect("an id"), made["token"].as_str().expect("a secret"));
    assert!(secret.starts_with(&format!("brim_{id}_")), "{secret}");
    let list = admin.call("GET", "/v1/tokens", Value::Null).await.expect(200);
    let mut expected = made.clone();
    expected.as_object_mut().expect("an object").remove("token");
    assert_eq!(list, json!({"tokens": [expected]}), "and no secret");
    assert_eq!((&expected["scopes"], &expected["created_by"]), (&json!(["purge"]), &json!("admin")));
    let life = |name: &str| humantime::parse_rfc3339(expected[name].as_str().expect("a time")).expect("RFC 3339");
    assert_eq!(life("expires_at").duration_since(life("created_at")).ok(), Some(Duration::from_secs(3600)));
    admin.call_as(secret, "GET", "/v1/purges", &Value::Null).await.expect(200);
    let revoked = admin.call("DELETE", &format!("/v1/tokens/{id}"), Value::Null).await.expect(200);
    assert_eq!(revoked["name"], "ci");
    admin.call_as(secret, "GET", "/v1/purges", &Value::Null).await.refused(401, "show a token");
    admin.call("DELETE", &format!("/v1/tokens/{id}"), Value::Null).await.refused(404, "no token");
    admin.call("DELETE", "/v1/tokens/admin", Value::Null).await.refused(404, "no token");
}

#[tokio::test]
async fn every_wrong_token_is_refused_with_what_would_be_right() {
    let admin = TestAdmin::start().await;
    let many: Vec<String> = (0..101).map(|number| number.to_string()).collect();
    for (status, content, words) in [
        (400, json!({}), "missing field `name`"),
        (400, json!({"name": "a", "scopes": ["root"]}), "unknown variant `root`"),
        (400, json!({"name": "a", "scopes": ["read"], "scope": "read"}), "unknown field"),
        (400, json!({"name": "a", "scopes": ["read"], "purges_per_minute": -1}), "invalid value"),
        (422, json!({"name": "", "scopes": ["read"]}), "`name`"),
        (422, json!({"name": "a b", "scopes": ["read"]}), "`name`"),
        (422, json!({"name": "a", "scopes": []}), "`scopes`"),
        (422, json!({"name": "a", "scopes": ["admin"], "sites": ["shop"]}), "`scopes`"),
        (422, json!({"name": "a", "scopes": ["purge"], "sites": ["shop", "shops"]}), "`sites[1]`"),
        (422, json!({"name": "a", "scopes": ["purge"], "key_prefixes": ["a", ""]}), "`key_prefixes[1]`"),
        (422, json!({"name": "a", "scopes": ["purge"], "key_prefixes": many}), "more than 100"),
        (422, json!({"name": "a", "scopes": ["purge"], "purges_per_minute": 2_000_000}), "`purges_per_minute`"),
        (422, json!({"name": "a", "scopes": ["read"], "expires_in": "soon"}), "`expires_in`"),
        (422, json!({"name": "a", "scopes": ["read"], "expires_in": "1ms"}), "`expires_in`"),
    ] {
        admin.call("POST", "/v1/tokens", content).await.refused(status, words);
    }
    assert_eq!(admin.state.tokens.list(), []);
    admin.call("GET", "/v1/audit?limit=0", Value::Null).await.refused(422, "1 to 1000");
    admin.call("GET", "/v1/audit?lines=1", Value::Null).await.refused(400, "unknown field");
    admin.call("GET", "/v1/purges?limit=501", Value::Null).await.refused(422, "1 to 500");
    admin.call("GET", "/v1/purges?before=p-1", Value::Null).await.refused(400, "before");
}

/// What a token with sites and key prefixes may purge, and what each refusal says.
#[tokio::test]
async fn a_bounded_token_purges_within_its_bounds_only() {
    let admin = TestAdmin::start().await;
    let one = admin.token(json!({"name": "one", "scopes": ["purge"], "sites": ["shop"]})).await;
    let two = admin.token(json!({"name": "two", "scopes": ["purge"], "sites": ["shop", "api"]})).await;
    let keys = admin.token(json!({"name": "keys", "scopes": ["purge"], "key_prefixes": ["p:", "q:"]})).await;
    let both =
        admin.token(json!({"name": "both", "scopes": ["purge"], "sites": ["shop"], "key_prefixes": ["p:"]})).await;
    let ok = [
        (&one, json!({"url": "http://shop.example/a"}), json!({"url": "//shop.example/a"})),
        (&one, json!({"prefix": "https://shop.example/a"}), json!({"prefix": "//shop.example/a"})),
        (&one, json!({"site": "shop"}), json!({"site": "shop"})),
        (&one, json!({"surrogate_keys": ["a"]}), json!({"surrogate_keys": ["a"], "site": "shop"})),
        (&one, json!({"match": {"status": 404}}), json!({"match": {"status": ["404"], "site": "shop"}})),
        (&two, json!({"url": "http://api.example/a"}), json!({"url": "//api.example/a"})),
        (&two, json!({"surrogate_keys": ["a"], "site": "api"}), json!({"surrogate_keys": ["a"], "site": "api"})),
        (&two, json!({"match": {"site": "api"}}), json!({"match": {"site": "api"}})),
        (&keys, json!({"surrogate_keys": ["p:1", "q:"]}), json!({"surrogate_keys": ["p:1", "q:"]})),
        (&both, json!({"surrogate_keys": ["p:1"]}), json!({"surrogate_keys": ["p:1"], "site": "shop"})),
    ];
    for (secret, request, purged) in ok {
        let receipt = admin.call_as(secret, "POST", "/v1/purges", &request).await.expect(201);
        assert_eq!(receipt["purged"], json!([purged]), "{request}");
    }
    let position = admin.state.store.position();
    for (secret, request, words) in [
        (&one, json!({"everything": true}), "not everything"),
        (&one, json!({"url": "http://api.example/a"}), "belongs to the site \"api\""),
        (&one, json!({"url": "http://api.example/a", "headers": {"a": "b"}}), "belongs to the site \"api\""),
        (&one, json!({"prefix": "http://other.example/"}), "belongs to no site"),
        (&one, json!({"site": "api"}), "`site` is \"api\""),
        (&one, json!({"surrogate_keys": ["a"], "site": "api"}), "`site` is \"api\""),
        (&one, json!({"match": {"site": "api", "status": 404}}), "`match.site` is \"api\""),
        (&two, json!({"surrogate_keys": ["a"]}), "say which with `site`"),
        (&two, json!({"match": {"status": 404}}), "say which with `match.site`"),
        (&keys, json!({"surrogate_keys": ["p:1", "r:"]}), "\"r:\" does not"),
        (&keys, json!({"url": "http://shop.example/"}), "and nothing else"),
        (&keys, json!({"everything": true, "dry_run": true}), "and nothing else"),
        (&keys, json!({"match": {"site": "shop"}}), "and nothing else"),
        (&both, json!({"surrogate_keys": ["a"]}), "\"a\" does not"),
        (&both, json!({"surrogate_keys": ["p:a"], "site": "api"}), "`site` is \"api\""),
    ] {
        let problem = admin.call_as(secret, "POST", "/v1/purges", &request).await.refused(403, words);
        assert_eq!(problem["code"], "forbidden");
    }
    assert_eq!(admin.state.store.position(), position, "nothing was purged");
    // Only its own receipts; who may read sees all.
    let own = admin.call_as(&keys, "GET", "/v1/purges", &Value::Null).await.expect(200);
    assert_eq!((own["purges"].as_array().map(Vec::len), &own["purges"][0]["id"]), (Some(1), &json!("p-9")));
    admin.call_as(&keys, "GET", "/v1/purges/p-9", &Value::Null).await.expect(200);
    admin.call_as(&keys, "GET", "/v1/purges/p-1", &Value::Null).await.refused(404, "p-1");
    let reader = admin.token(json!({"name": "reader", "scopes": ["read"]})).await;
    let all = admin.call_as(&reader, "GET", "/v1/purges?limit=3", &Value::Null).await.expect(200);
    let ids = |list: &Value| {
        list["purges"].as_array().expect("a list").iter().map(|it| it["position"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((ids(&all), &all["next"]), (vec![json!(10), json!(9), json!(8)], &json!(8)));
    let rest = admin.call_as(&reader, "GET", "/v1/purges?before=8", &Value::Null).await.expect(200);
    assert_eq!((ids(&rest).len(), &rest["next"]), (7, &Value::Null));
    let exactly = admin.call_as(&reader, "GET", "/v1/purges?before=8&limit=7", &Value::Null).await.expect(200);
    assert_eq!((ids(&exactly).len(), &exactly["next"]), (7, &Value::Null));
}

#[tokio::test]
async fn a_token_that_has_no_purge_left_is_told_when() {
    let counted = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let count = counted.clone();
    let admin = TestAdmin::start_with(move |state| {
        state.purge_bounds.per_minute = 2;
        state.count = Arc::new(move |family, labels| count.lock().push((family, labels.join(","))));
    })
    .await;
    let busy = admin.token(json!({"name": "busy", "scopes": ["purge"], "purges_per_minute": 1})).await;
    let free = admin.token(json!({"name": "free", "scopes": ["purge"], "purges_per_minute": 0})).await;
    let request = json!({"site": "shop", "dry_run": true});
    admin.call_as(&busy, "POST", "/v1/purges", &request).await.expect(200);
    let problem =
        admin.call_as(&busy, "POST", "/v1/purges", &json!({"site": "shop"})).await.refused(429, "1 times a minute");
    let seconds = problem["retry_after_s"].as_u64().expect("seconds");
    assert!((50..=60).contains(&seconds) && problem["code"] == "rate_limited", "{problem}");
    for token in [free.as_str(), TOKEN] {
        for _ in 0..5 {
            admin.call_as(token, "POST", "/v1/purges", &request).await.expect(200);
        }
    }
    let usual = admin.token(json!({"name": "usual", "scopes": ["purge"]})).await;
    for status in [200, 200, 429] {
        let call = Request::post("/v1/purges").header("authorization", format!("Bearer {usual}"));
        let response = admin.send(call.body(Full::new(request.to_string().into())).expect("a request")).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers().contains_key("retry-after"), status == 429);
    }
    let refusals = counted.lock().iter().filter(|(_, label)| label == "rate_limited").count();
    assert_eq!(refusals, 2);
}

#[tokio::test]
async fn a_purge_is_made_once_under_its_idempotency_key() {
    let admin = TestAdmin::start_with(|state| state.purge_bounds.blast_radius_max = Some(0)).await;
    let other = admin.token(json!({"name": "other", "scopes": ["purge"]})).await;
    let purge = async |token: &str, key: &str, content: Value| {
        let request = Request::post("/v1/purges")
            .header("authorization", format!("Bearer {token}"))
            .header("idempotency-key", key)
            .body(Full::new(content.to_string().into()))
            .expect("a request");
        let response = admin.send(request).await;
        let kind = response.headers()["content-type"].to_str().expect("text").to_owned();
        Answer(response.status(), kind, serde_json::from_slice(response.body()).expect("JSON"))
    };
    for (number, request) in (1..)
        .zip([json!({"surrogate_keys": ["a"]}), json!({"match": {"older_than": "10m", "status": "5xx"}, "soft": true})])
    {
        let key = format!("\"key-{number}\"");
        let first = purge(TOKEN, &key, request.clone()).await.expect(201);
        assert_eq!((&first["position"], &first["repeated"]), (&json!(number), &Value::Null));
        // An age is taken from the first time, whenever it is repeated.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let mut again = purge(TOKEN, key.trim_matches('"'), request).await.expect(201);
        assert_eq!(again["repeated"].take(), true);
        assert_eq!((&again["id"], &again["purged"]), (&first["id"], &first["purged"]));
        let reused = purge(TOKEN, &key, json!({"surrogate_keys": ["b"]})).await.refused(422, "takes a new key");
        assert_eq!(reused["code"], "idempotency_key_reused");
    }
    assert_eq!(admin.state.store.position().0, 2);
    purge(&other, "key-1", json!({"surrogate_keys": ["b"]})).await.expect(201);
    purge(TOKEN, "", json!({"surrogate_keys": ["b"]})).await.refused(422, "Idempotency-Key");
    assert_eq!(admin.state.store.position().0, 3);
}

/// Changes and refusals have their line, looks have none; no line has a secret in it.
#[tokio::test]
async fn who_changes_something_or_is_refused_is_written_down() {
    let admin = TestAdmin::start().await;
    let secret = admin.token(json!({"name": "ci", "scopes": ["purge"], "key_prefixes": ["p:"]})).await;
    let id = secret.split('_').nth(1).expect("an id").to_owned();
    let purge = async |content: Value| admin.call_as(&secret, "POST", "/v1/purges", &content).await.0.as_u16();
    assert_eq!(purge(json!({"surrogate_keys": ["p:1"], "soft": true})).await, 201);
    assert_eq!(purge(json!({"surrogate_keys": ["p:1"], "dry_run": true})).await, 200);
    assert_eq!(purge(json!({"everything": true, "dry_run": true})).await, 403);
    admin.call_as(&secret, "GET", "/v1/status", &Value::Null).await.refused(403, "\"read\"");
    admin.call_as(&secret, "GET", "/v1/purges", &Value::Null).await.expect(200);
    admin.call("POST", "/v1/plugins/rule/activate", json!({"version": 3})).await.refused(404, "no plugin");
    admin.call("POST", "/v1/origins/api/drain", json!({"endpoint": "http://a:80", "drain": true})).await.expect(200);
    admin.call("POST", "/v1/config/reload", Value::Null).await.expect(200);
    for _ in 0..3 {
        admin.call_with(Some("wrong"), "POST", "/v1/purges", "{}".into()).await.refused(401, "show a token");
    }
    admin.call("DELETE", &format!("/v1/tokens/{id}"), Value::Null).await.expect(200);
    let lines = admin.call("GET", "/v1/audit", Value::Null).await.expect(200);
    let text = lines.to_string();
    assert!(!text.contains(&secret) && !text.contains(TOKEN), "{text}");
    let lines = lines["lines"].as_array().expect("a list");
    let (strangers, known): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["by"].is_null());
    assert!((1..=3).contains(&strangers.len()) && strangers[0]["status"] == 401, "{text}");
    let short: Vec<_> = known
        .iter()
        .rev()
        .map(|line| {
            assert!(
                line["time"].is_string() && line["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:"))
            );
            let text = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
            format!("{} {} {} {} {}", text("name"), text("call"), line["status"], text("what"), text("receipt"))
        })
        .collect();
    assert_eq!(
        short,
        [
            format!("admin POST /v1/tokens 201 token {id} (ci) -"),
            "ci POST /v1/purges 201 soft {\"surrogate_keys\":[\"p:1\"]} p-1".to_owned(),
            "ci POST /v1/purges 403 {\"dry_run\":true,\"everything\":true,\"soft\":false} -".to_owned(),
            "ci GET /v1/status 403 - -".to_owned(),
            "admin POST /v1/plugins/rule/activate 404 version 3 -".to_owned(),
            "admin POST /v1/origins/api/drain 200 drain http://a:80 -".to_owned(),
            "admin POST /v1/config/reload 200 - -".to_owned(),
            format!("admin DELETE /v1/tokens/{id} 200 token {id} (ci) -"),
        ]
    );
}
