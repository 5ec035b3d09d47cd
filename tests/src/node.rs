//! A node in the process of the test: the real one, with a clock that the test sets forward.
//!
//! Always true:
//! - It listens on port 0 of the loopback interface, on two threads, and its data lies in a folder of its own.
//! - Plugins are compiled in this process, because its executable is not `brim`; all else is what `brim serve` runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use brim_node::config::Config;
use brim_node::node::{Node, Parts};
use brim_node::plugins::Compiler;
use http::Method;
use tempfile::TempDir;

use crate::answer::Answer;
use crate::certificates::Trust;
use crate::client::{Ask, Client};
use crate::clock::FakeClock;
use crate::fake_origin::FakeOrigin;
use crate::wait::{eventually, within};

/// A running node.
pub struct TestNode {
    node: Option<Node>,
    dir: TempDir,
    config: String,
    clock: FakeClock,
    client: Client,
}

impl TestNode {
    /// A node with one site, one route and this origin.
    pub async fn in_front_of(origin: &FakeOrigin) -> Self {
        Self::with_route(origin, "").await
    }

    /// The same, with further lines for its one route.
    pub async fn with_route(origin: &FakeOrigin, route: &str) -> Self {
        Self::start(&Self::config(origin, route, "")).await
    }

    /// A configuration: lines for the one route, and tables of their own after it.
    #[must_use]
    pub fn config(origin: &FakeOrigin, route: &str, tables: &str) -> String {
        Self::config_for(&origin.url(), route, tables)
    }

    /// The same for the URL of an origin.
    #[must_use]
    pub fn config_for(origin: &str, route: &str, tables: &str) -> String {
        format!(
            "[listen]\nhttp = [\"127.0.0.1:0\"]\nhttps = [\"127.0.0.1:0\"]\nthreads = 2\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
             [origins.test]\nendpoints = [\"{origin}\"]\n\
             [[sites]]\nname = \"test\"\nhosts = [\"*\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"test\"\n{route}\n{tables}\n"
        )
    }

    /// A node with this configuration.
    pub async fn start(config: &str) -> Self {
        let dir = TempDir::with_prefix("brim-node-").expect("the folder for temporary files is writable");
        let clock = FakeClock::default();
        let node = start(dir.path(), config, &clock).await;
        let client = Client::http1(node.http()[0]);
        Self { node: Some(node), dir, config: config.to_owned(), clock, client }
    }

    fn node(&self) -> &Node {
        self.node.as_ref().expect("running between start and stop")
    }

    /// Stops it in order and starts it again on the same data.
    pub async fn restart(&mut self) {
        self.stop().await;
        let node = start(self.dir.path(), &self.config, &self.clock).await;
        self.client = Client::http1(node.http()[0]);
        self.node = Some(node);
    }

    /// Stops it in order.
    pub async fn stop(&mut self) {
        if let Some(node) = self.node.take() {
            node.stop().await;
        }
    }

    /// Waits until nothing of the past requests goes on behind their answers: no fill, no validation, no write.
    pub async fn settled(&self) {
        within("the node's background tasks", self.node().cache().tasks.drained()).await;
    }

    /// How many requests wait for another one's fetch.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.node().cache().flights.waiters_count()
    }

    /// Its clock.
    #[must_use]
    pub const fn clock(&self) -> &FakeClock {
        &self.clock
    }

    /// The folder of its data and configuration.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("brim-data")
    }

    /// A client over plaintext HTTP/1.1.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// A client over plaintext HTTP/2.
    #[must_use]
    pub fn http2(&self) -> Client {
        Client::http2(self.node().http()[0])
    }

    /// A client over TLS and HTTP/2 that takes the node's own certificate.
    #[must_use]
    pub fn https2(&self) -> Client {
        Client::https2(self.node().https()[0], Trust::anything(), "localhost")
    }

    /// A client over TLS and HTTP/1.1 that takes the node's own certificate.
    #[must_use]
    pub fn https1(&self) -> Client {
        Client::https1(self.node().https()[0], Trust::anything(), "localhost")
    }

    /// Where it listens for plaintext.
    #[must_use]
    pub fn http_address(&self) -> std::net::SocketAddr {
        self.node().http()[0]
    }

    /// Where it listens for TLS.
    #[must_use]
    pub fn https_address(&self) -> std::net::SocketAddr {
        self.node().https()[0]
    }

    /// A GET over plaintext HTTP/1.1.
    pub async fn get(&self, target: &str) -> Answer {
        self.client.get(target).await
    }

    /// The same GET several times at once.
    pub async fn get_many(&self, target: &str, count: usize) -> Vec<Answer> {
        self.client.get_many(target, count).await
    }

    /// A request to be completed.
    pub fn ask(&self, method: Method, target: &str) -> Ask {
        self.client.ask(method, target)
    }

    /// A GET with one field.
    pub async fn get_with(&self, target: &str, name: &str, value: &str) -> Answer {
        self.ask(Method::GET, target).header(name, value).send().await
    }

    /// A call of the admin API, with the token.
    pub fn admin(&self, method: Method, path: &str) -> Ask {
        let token = std::fs::read_to_string(self.data_dir().join("admin.token")).expect("made at the first start");
        self.admin_as(token.trim(), method, path)
    }

    /// The same with another token.
    pub fn admin_as(&self, token: &str, method: Method, path: &str) -> Ask {
        Client::http1(self.node().admin()).ask(method, path).header("authorization", &format!("Bearer {token}"))
    }

    /// A purge through the admin API; its receipt.
    pub async fn purge(&self, request: serde_json::Value) -> serde_json::Value {
        let answer = self.admin(Method::POST, "/v1/purges").json(&request).send().await;
        answer.assert_status(201);
        answer.json()
    }

    /// The URL of a target as the plaintext client asks for it.
    #[must_use]
    pub fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.node().http()[0])
    }

    /// Uploads a component and makes it live.
    pub async fn activate_plugin(&self, name: &str, component: &Path) {
        let bytes = std::fs::read(component).unwrap_or_else(|error| panic!("{}: {error}", component.display()));
        let uploaded = self.admin(Method::PUT, &format!("/v1/plugins/{name}")).content(bytes).send().await;
        uploaded.assert_status(201);
        let version = uploaded.json()["version"].clone();
        let live = serde_json::json!({ "version": version, "mode": "live" });
        let path = format!("/v1/plugins/{name}/activate");
        self.admin(Method::POST, &path).json(&live).send().await.assert_status(200);
    }
}

async fn start(dir: &Path, config: &str, clock: &FakeClock) -> Node {
    let config =
        Config::parse(config, dir).unwrap_or_else(|errors| panic!("the test's configuration is wrong:\n{errors}"));
    let parts = Parts { clock: Arc::new(clock.clone()), compiler: Compiler::InProcess, config_file: None };
    let node = Node::start(config, parts).await.unwrap_or_else(|error| panic!("the node does not start: {error}"));
    // It answers while its store is opened; the tests want to see what it had stored.
    let is_opened = async || (!node.is_store_opening()).then_some(());
    eventually("the store to be opened", is_opened).await;
    node
}
