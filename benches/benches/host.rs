//! What a plugin costs its request: the real `tenant-key`, remembered and not.
//!
//! Needs the target for plugins (`make bench` adds it). The component is built as `brim plugin build` does.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;
use std::path::Path;

use brim_host::{Host, HostConfig, KeyRequest, Plugin};
use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue};

/// The allocator of the node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn host() -> Host {
    Host::new(HostConfig { instances_max: 8, ..HostConfig::default() }).expect("a host")
}

/// The component of `tenant-key`.
fn component() -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/tenant-key");
    let path = brim_node::plugin_kit::build(&folder).expect("tenant-key builds");
    std::fs::read(path).expect("the component was written")
}

fn load(host: &Host, compiled: &[u8]) -> Plugin {
    host.load("tenant-key", compiled, [1; 32]).expect("a node takes it")
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("api.example.com"));
    headers.insert("accept", HeaderValue::from_static("application/json"));
    headers.insert("x-tenant", HeaderValue::from_static("acme"));
    headers
}

fn request<'a>(query: &'a str, headers: &'a HeaderMap) -> KeyRequest<'a> {
    let (scheme, authority, path) = ("https", "api.example.com", "/v2/products");
    KeyRequest { method: "GET", scheme, authority, path, query: Some(query), headers }
}

fn cache_key(criterion: &mut Criterion) {
    let component = component();
    let host = host();
    let compiled = host.compile(&component).expect("the component is valid");
    let plugin = load(&host, &compiled);
    let headers = headers();

    let mut group = criterion.benchmark_group("host/cache_key");
    group.bench_function("remembered", |bencher| {
        let request = request("page=2&sort=newest&utm_source=mail", &headers);
        bencher.iter(|| plugin.cache_key(black_box(&request)).expect("a decision"));
    });
    // Each query is new: a fresh instance, the call, and a decision that takes the place of an older one.
    let mut number = 0_u64;
    group.bench_function("new_inputs", |bencher| {
        bencher.iter(|| {
            number += 1;
            let query = format!("page={number}&sort=newest&utm_source=mail");
            plugin.cache_key(&request(&query, &headers)).expect("a decision")
        });
    });
    group.finish();

    // What an upload costs. Few samples: each takes milliseconds.
    let mut group = criterion.benchmark_group("host/upload");
    group.sample_size(10);
    group.bench_function("compile", |bencher| bencher.iter(|| host.compile(&component).expect("it is valid")));
    group.bench_function("load_and_describe", |bencher| bencher.iter(|| load(&host, &compiled)));
    group.finish();
}

criterion_group!(benches, cache_key);
criterion_main!(benches);
