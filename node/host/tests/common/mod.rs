//! The real plugins of `plugins/`, compiled once a test run, and requests to put to them.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses some of it")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use brim_host::{
    Grants, Host, HostConfig, InvalidationCall, InvalidationInputs, KeyDecision, KeyRequest, Plugin, PluginFault,
    PluginPurge, RefusedPlugin, json,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// The component of a plugin, as `brim plugin build` would make it.
pub fn component(name: &str) -> Vec<u8> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(build_plugins);
    let module = std::fs::read(folder.join(format!("{}.wasm", name.replace('-', "_")))).expect("the plugin was built");
    componentised(&module)
}

/// A core module with its embedded WIT as a component.
pub fn componentised(module: &[u8]) -> Vec<u8> {
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|mut encoder| encoder.encode())
        .expect("a component")
}

/// Builds the workspace of plugins; returns where the modules are.
fn build_plugins() -> PathBuf {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    let target = plugins.join("target");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--target", "wasm32-unknown-unknown"])
        // Settings of the host's build are none of the guests'.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(&plugins)
        .status()
        .expect("cargo runs");
    assert!(built.success(), "the plugins do not build");
    target.join("wasm32-unknown-unknown/release")
}

/// A host with the production limits.
pub fn host() -> Host {
    Host::new(HostConfig { instances_max: 8, ..HostConfig::default() }).expect("a host")
}

/// A host whose limits of memory and output come before its deadline: touching 16 MiB can take longer than 5 ms.
pub fn patient_host() -> Host {
    let key_deadline = std::time::Duration::from_millis(400);
    let config =
        HostConfig { key_deadline, invalidation_deadline: key_deadline, instances_max: 8, ..HostConfig::default() };
    Host::new(config).expect("a host")
}

/// Compiles and loads a component.
pub fn load(host: &Host, component: &[u8], grants: &Grants) -> Result<Plugin, RefusedPlugin> {
    host.load_with("test", &host.compile(component)?, [7; 32], grants)
}

/// One of the plugins of `plugins/`, loaded.
pub fn plugin(host: &Host, name: &str) -> Plugin {
    load(host, &component(name), &Grants::default()).expect("a plugin")
}

/// A request to put to a plugin.
#[derive(Default)]
pub struct TestRequest {
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
}

impl TestRequest {
    pub fn get(target: &str) -> Self {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query.to_owned())));
        Self { path: path.to_owned(), query, headers: HeaderMap::new() }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"));
        self
    }

    pub fn put_to(&self, plugin: &Plugin) -> Result<std::sync::Arc<KeyDecision>, PluginFault> {
        plugin.cache_key(&KeyRequest {
            method: "GET",
            scheme: "https",
            authority: "shop.example",
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
        })
    }
}

/// A request and its response to put to an invalidation rule.
#[derive(Default)]
pub struct TestExchange {
    pub method: &'static str,
    pub request: TestRequest,
    pub request_content: Vec<u8>,
    pub status: u16,
    pub response_headers: HeaderMap,
    pub response_content: Vec<u8>,
}

impl TestExchange {
    pub fn of(method: &'static str, target: &str, status: u16) -> Self {
        Self { method, request: TestRequest::get(target), status, ..Self::default() }
    }

    pub fn sent(mut self, content: &str) -> Self {
        self.request_content = content.into();
        self
    }

    pub fn answered(mut self, content: &str) -> Self {
        self.response_content = content.into();
        self
    }

    /// As the node would make it for this plugin.
    pub fn call(&self, plugin: &Plugin) -> InvalidationCall {
        let declared = plugin.invalidation_inputs();
        let selected = |content: &[u8], of: fn(&InvalidationInputs) -> &Vec<json::Pointer>| {
            json::select(content, declared.map_or(&[], |inputs| of(inputs)))
        };
        let request = KeyRequest {
            method: self.method,
            scheme: "https",
            authority: "shop.example",
            path: &self.request.path,
            query: self.request.query.as_deref(),
            headers: &self.request.headers,
        };
        plugin.invalidation_call(
            &request,
            selected(&self.request_content, |inputs| &inputs.request_values),
            StatusCode::from_u16(self.status).expect("a status"),
            &self.response_headers,
            selected(&self.response_content, |inputs| &inputs.response_values),
        )
    }

    pub fn tags(&self, plugin: &Plugin) -> Result<Vec<Box<str>>, PluginFault> {
        plugin.tags(&self.call(plugin))
    }

    pub fn purges(&self, plugin: &Plugin) -> Result<Vec<PluginPurge>, PluginFault> {
        plugin.purges(&self.call(plugin))
    }
}

/// The plugin with these values of `brim:rules/config`.
pub fn configured(host: &Host, name: &str, values: &[(&str, &str)]) -> Plugin {
    let config = values.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    load(host, &component(name), &Grants { log: true, config: Some(config) }).expect("a plugin")
}
