//! Good files: every option arrives as the value it stands for.

use std::path::PathBuf;
use std::time::Duration;

use brim_semantics::KeySeparator;

use super::super::template::Template;
use super::*;

#[test]
fn the_least_file_gets_the_documented_defaults() {
    let config = good(LEAST);
    assert_eq!(config.data_dir, PathBuf::from("/etc/brim/brim-data"));
    assert_eq!(config.listen.http, [HTTP_ADDRESS]);
    assert!(config.listen.https.is_empty());
    assert!(config.listen.threads >= 1);
    assert_eq!(config.listen.connections_max, 10_000);
    assert_eq!(config.listen.streams_max, 128);
    assert_eq!(config.listen.head_bytes_max, 64 * 1024);
    assert_eq!(config.listen.header_count_max, 100);
    assert_eq!(config.listen.handshake_timeout, Duration::from_secs(10));
    assert_eq!(config.listen.upgrade, UpgradePolicy::Refuse);
    assert!(config.tls.certificates.is_empty());
    assert_eq!(config.admin.listen, ADMIN_ADDRESS);
    assert_eq!(config.admin.token_file, PathBuf::from("/etc/brim/brim-data/admin.token"));
    let admin = &config.admin;
    assert_eq!((admin.purges_per_minute, admin.blast_radius_max, admin.blast_radius_share), (600, None, None));
    assert_eq!(config.node_name, None);
    assert_eq!(
        config.store,
        StoreSection {
            disk_max: 10 << 30,
            memory_max: 512 << 20,
            object_max: 5 << 30,
            range_whole_max: 8 << 20,
            finish_unread: 8 << 20
        }
    );
    assert_eq!(config.plugins.key_deadline, Duration::from_millis(5));
    assert_eq!(config.plugins.memory_max, 16 << 20);
    assert!(config.plugins.config.is_empty());
    assert_eq!(config.log, LogSection { access: AccessLog::Stdout, format: LogFormat::Text });
    let origin = &config.origins["api"];
    assert_eq!(origin.name, "api");
    assert_eq!(origin.endpoints[0].url.to_string(), "http://127.0.0.1:8000");
    assert_eq!(origin.balance, Balance::RoundRobin);
    assert_eq!(origin.connections_max, 64);
    assert_eq!(origin.connect_timeout, Duration::from_secs(2));
    assert_eq!(origin.response_timeout, Duration::from_secs(60));
    assert_eq!((origin.queue_max, origin.queue_timeout), (1_024, Duration::from_secs(30)));
    assert_eq!((origin.http2, origin.host_header), (Http2::Auto, HostHeader::Client));
    assert_eq!((config.sites[0].name.as_str(), config.sites[0].hosts.as_slice()), ("*", [HostPattern::Any].as_slice()));
    let route = only_route(&config);
    assert_eq!((route.path.as_str(), route.origin.as_str(), route.cache), ("/", "api", CacheMode::On));
    assert_eq!(route.policy, brim_semantics::CachePolicy::default());
    assert_eq!((route.cache_key_plugin.as_deref(), route.surrogate_keys_to_client), (None, false));
    let tagging = TaggingConfig {
        fields: brim_semantics::KeyField::defaults().to_vec(),
        keys: Vec::new(),
        overflow: KeyOverflow::Refuse,
        content_max: 1 << 20,
        items: None,
        plugin: None,
        writes: WritesConfig::default(),
    };
    assert_eq!(route.tagging, tagging);
}

pub(super) const EVERYTHING: &str = r#"
data_dir = "../data"
region = "eu"
node_name = "edge-1"

[resolver]
servers = ["127.0.0.1:5353", "[::1]:53"]

[listen]
http = ["127.0.0.1:0", "[::1]:8080"]
https = ["0.0.0.0:8443"]
threads = 3
connections_max = 500
streams_max = 64
head_bytes_max = "32KiB"
header_count_max = 64
handshake_timeout = "5s"
header_timeout = "7s"
idle_timeout = "1m"
body_idle_timeout = "500ms"
query_content_max = "1KiB"
drain_timeout = "0s"
upgrade = "forward"

[tls]
certificates = [{ cert = "cert.pem", key = "/keys/key.pem" }]

[admin]
listen = "127.0.0.1:0"
token_file = "token"
purges_per_minute = 30
blast_radius_max = 1000
blast_radius_share = 20

[store]
disk_max = "1GiB"
memory_max = "64MiB"
object_max = "100MB"
range_whole_max = "1MiB"
finish_unread = "0B"

[plugins]
key_deadline = "10ms"
invalidation_deadline = "20ms"
memory_max = "32MiB"
instances_max = 8
component_bytes_max = "2MiB"
[plugins.config.tenant-key]
header = "x-tenant"

[log]
access = { file = "access.log" }
format = "json"

[origins.api]
endpoints = ["https://API.example.com", { url = "http://[::1]:81/", weight = 2, region = "eu", priority = 1 }, { srv = "_API._tcp.example.com.", tls = true, region = "us", priority = 2 }]
balance = "geographic"
connections_min = 2
connections_max = 8
connection_age_max = "1h"
connection_requests_max = 1000
panic_threshold = 40
slow_start = "30s"
deadline = "20s"
requests_max = 500
adaptive_concurrency = true
connect_timeout = "1s"
response_timeout = "10s"
body_idle_timeout = "20s"
idle_timeout = "30s"
queue_max = 0
queue_timeout = "100ms"
http2 = "always"
tls_ca = "ca.pem"
tls_client = { cert = "client.pem", key = "client-key.pem" }
tls_server_name = "API.internal"
host_header = "endpoint"
[origins.api.health]
path = "/healthz?deep=1"
interval = "2s"
timeout = "500ms"
status = ["200-299", "401"]
healthy_after = 2
unhealthy_after = 4
[origins.api.ejection]
consecutive_errors = 7
outliers = false
time = "5s"
time_max = "1m"
share_max = 30
interval = "20s"
[origins.api.retries]
max = 2
idempotent = true
status = ["503"]
try_timeout = "3s"
budget = 10
hedge_percentile = 90

[[sites]]
name = "shop"
hosts = ["Shop.example.com", "*.shop.example.com", "[::1]"]
[[sites.routes]]
path = "/"
origin = "api"
cache = "off"
[[sites.routes]]
path = "/api/v1"
origin = "api"
plugins = { cache_key = "tenant-key", invalidation = "rest-tags" }
heuristic = false
heuristic_max = "1h"
store_set_cookie = true
ignore_request_directives = true
stale_while_revalidate = "30s"
stale_if_error = "1d"
freshness_max = "12h"
targeted_fields = ["Brim-CDN-Cache-Control", "CDN-Cache-Control"]
surrogate_keys_to_client = true
surrogate_key_fields = ["Surrogate-Key", { field = "X-Tags", separator = "comma" }]
surrogate_keys = ["catalogue", "tenant:{header.X-Tenant}"]
surrogate_keys_overflow = "cut"
tag_content_max = "64KiB"
[sites.routes.items]
list = "/data/items"
id = "/id"
type = "product"
paging = ["page"]
order = "mutable"
[sites.routes.writes]
surrogate_keys = ["reports"]
urls = ["/reports?of={path.3}"]
prefixes = ["/lists/"]
[[sites.routes]]
path = "/api"
origin = "api"
"#;

#[test]
fn every_option_of_the_node_arrives() {
    let config = good(EVERYTHING);
    assert_eq!(config.data_dir, PathBuf::from("/etc/brim/../data"));
    let listen = &config.listen;
    assert_eq!(listen.http, ["127.0.0.1:0".parse().unwrap(), "[::1]:8080".parse().unwrap()]);
    assert_eq!(listen.https, ["0.0.0.0:8443".parse().unwrap()]);
    assert_eq!((listen.threads, listen.connections_max, listen.streams_max), (3, 500, 64));
    assert_eq!((listen.head_bytes_max, listen.header_count_max), (32 << 10, 64));
    assert_eq!((listen.handshake_timeout, listen.header_timeout), (Duration::from_secs(5), Duration::from_secs(7)));
    assert_eq!((listen.idle_timeout, listen.body_idle_timeout), (Duration::from_secs(60), Duration::from_millis(500)));
    assert_eq!((listen.drain_timeout, listen.upgrade), (Duration::ZERO, UpgradePolicy::Forward));
    let certificate = CertificateFiles { cert: "/etc/brim/cert.pem".into(), key: "/keys/key.pem".into() };
    assert_eq!(config.tls.certificates, [certificate]);
    assert_eq!(config.admin.token_file, PathBuf::from("/etc/brim/token"));
    let admin = &config.admin;
    assert_eq!((admin.purges_per_minute, admin.blast_radius_max, admin.blast_radius_share), (30, Some(1000), Some(20)));
    assert_eq!(config.node_name.as_deref(), Some("edge-1"));
    assert_eq!(
        config.store,
        StoreSection {
            disk_max: 1 << 30,
            memory_max: 64 << 20,
            object_max: 100_000_000,
            range_whole_max: 1 << 20,
            finish_unread: 0
        }
    );
    let plugins = &config.plugins;
    assert_eq!((plugins.key_deadline, plugins.memory_max), (Duration::from_millis(10), 32 << 20));
    assert_eq!(plugins.invalidation_deadline, Duration::from_millis(20));
    assert_eq!((plugins.instances_max, plugins.component_bytes_max), (8, 2 << 20));
    assert_eq!(plugins.config["tenant-key"]["header"], "x-tenant");
    let access = AccessLog::File("/etc/brim/access.log".into());
    assert_eq!(config.log, LogSection { access, format: LogFormat::Json });
}

#[test]
fn every_option_of_an_origin_arrives() {
    let config = good(EVERYTHING);
    let origin = &config.origins["api"];
    let first = EndpointUrl { tls: true, host: "api.example.com".into(), port: 443 };
    let second = EndpointUrl { tls: false, host: "::1".into(), port: 81 };
    assert_eq!((first.authority(), second.authority()), ("api.example.com".into(), "[::1]:81".into()));
    let second = EndpointConfig { url: second, weight: 2, region: Some("eu".into()), priority: 1 };
    assert_eq!(origin.endpoints, [EndpointConfig { url: first, weight: 1, region: None, priority: 0 }, second]);
    assert_eq!((origin.connections_max, origin.queue_max), (8, 0));
    assert_eq!((origin.connect_timeout, origin.response_timeout), (Duration::from_secs(1), Duration::from_secs(10)));
    assert_eq!((origin.body_idle_timeout, origin.idle_timeout), (Duration::from_secs(20), Duration::from_secs(30)));
    assert_eq!((origin.queue_timeout, origin.http2), (Duration::from_millis(100), Http2::Always));
    assert_eq!(origin.tls_ca, Some("/etc/brim/ca.pem".into()));
    let service =
        ServiceConfig { name: "_api._tcp.example.com".into(), tls: true, region: Some("us".into()), priority: 2 };
    assert_eq!(origin.services, [service]);
    assert_eq!(origin.resolver, ["127.0.0.1:5353".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    let client = CertificateFiles { cert: "/etc/brim/client.pem".into(), key: "/etc/brim/client-key.pem".into() };
    assert_eq!(origin.tls_client, Some(client));
    assert_eq!(origin.tls_server_name.as_deref(), Some("api.internal"));
    assert_eq!(origin.host_header, HostHeader::Endpoint);
    assert_eq!((origin.balance, origin.region.as_deref()), (Balance::Geographic, Some("eu")));
    assert_eq!((origin.connections_min, origin.connection_requests_max), (2, 1000));
    assert_eq!((origin.connection_age_max, origin.slow_start), (Duration::from_secs(3600), Duration::from_secs(30)));
    assert_eq!(origin.panic_threshold, 40);
    let check = CheckConfig {
        path: "/healthz?deep=1".into(),
        interval: Duration::from_secs(2),
        timeout: Duration::from_millis(500),
        statuses: vec![200..=299, 401..=401],
        healthy_after: 2,
        unhealthy_after: 4,
    };
    assert_eq!(origin.health.as_ref(), Some(&check));
    let ejection = EjectionConfig {
        consecutive_errors: 7,
        outliers: false,
        time: Duration::from_secs(5),
        time_max: Duration::from_secs(60),
        share_max: 30,
        interval: Duration::from_secs(20),
    };
    assert_eq!(origin.ejection, ejection);
    let retries = RetryConfig {
        max: 2,
        idempotent: true,
        statuses: vec![503..=503],
        try_timeout: Some(Duration::from_secs(3)),
        budget: 10,
        hedge_percentile: Some(90),
    };
    assert_eq!((origin.requests_max, origin.adaptive_concurrency), (500, true));
    assert_eq!((origin.deadline, &origin.retries), (Some(Duration::from_secs(20)), &retries));
}

#[test]
fn every_option_of_a_site_arrives_and_the_longest_path_comes_first() {
    let config = good(EVERYTHING);
    let site = &config.sites[0];
    assert_eq!(site.name, "shop");
    let hosts: Vec<_> = site.hosts.iter().map(HostPattern::to_string).collect();
    assert_eq!(hosts, ["shop.example.com", "*.shop.example.com", "[::1]"]);
    let paths: Vec<_> = site.routes.iter().map(|route| route.path.as_str()).collect();
    assert_eq!(paths, ["/api/v1", "/api", "/"]);
    assert_eq!(site.routes[2].cache, CacheMode::Off);
    let route = &site.routes[0];
    assert_eq!(route.cache_key_plugin.as_deref(), Some("tenant-key"));
    assert!(route.surrogate_keys_to_client);
    let tagging = &route.tagging;
    assert_eq!(tagging.plugin.as_deref(), Some("rest-tags"));
    let fields: Vec<_> = tagging.fields.iter().map(|field| (field.name.as_str(), field.separator)).collect();
    assert_eq!(fields, [("surrogate-key", KeySeparator::Space), ("x-tags", KeySeparator::Comma)]);
    let texts = |templates: &[Template]| templates.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&tagging.keys), ["catalogue", "tenant:{header.x-tenant}"]);
    assert_eq!((tagging.overflow, tagging.content_max), (KeyOverflow::Cut, 64 << 10));
    let items = ItemRule {
        list: "/data/items".into(),
        id: "/id".into(),
        kind: "product".into(),
        paging: vec!["page".into()],
        order: ListOrder::Mutable,
    };
    assert_eq!(tagging.items.as_ref(), Some(&items));
    assert_eq!(texts(&tagging.writes.surrogate_keys), ["reports"]);
    assert_eq!(texts(&tagging.writes.urls), ["/reports?of={path.3}"]);
    assert_eq!(texts(&tagging.writes.prefixes), ["/lists/"]);
    let policy = &route.policy;
    assert_eq!((policy.heuristic, policy.heuristic_max), (false, Duration::from_secs(3_600)));
    assert!(policy.store_set_cookie && policy.ignore_request_directives);
    assert_eq!(policy.stale_while_revalidate, Some(Duration::from_secs(30)));
    assert_eq!(policy.stale_if_error, Some(Duration::from_secs(86_400)));
    assert_eq!(policy.freshness_max, Some(Duration::from_secs(43_200)));
    assert_eq!(policy.targeted_fields, ["brim-cdn-cache-control", "cdn-cache-control"]);
}

/// The file that DESIGN.md shows is the contract.
#[test]
fn the_file_of_the_design_is_accepted() {
    let config = good(
        r#"
data_dir = "./brim-data"
[listen]
http  = ["127.0.0.1:8080"]          # HTTP/1.1 and h2 with prior knowledge
https = ["127.0.0.1:8443"]          # TLS 1.2/1.3, ALPN h2 and http/1.1
[tls]
certificates = [{ cert = "cert.pem", key = "key.pem" }]
[admin]
listen = "127.0.0.1:9900"
[store]
disk_max = "10GiB"
memory_max = "512MiB"
[origins.api]
endpoints = ["http://127.0.0.1:8000"]
balance = "round_robin"
connections_max = 64
[[sites]]
hosts = ["*"]
[[sites.routes]]
path = "/"
origin = "api"
plugins = { cache_key = "tenant-key" }
"#,
    );
    assert_eq!(config.data_dir, PathBuf::from("/etc/brim/brim-data"));
    assert_eq!(only_route(&config).cache_key_plugin.as_deref(), Some("tenant-key"));
}

#[test]
fn host_patterns_match_as_documented() {
    let table = [
        (HostPattern::Exact("a.example".into()), "a.example", true),
        (HostPattern::Exact("a.example".into()), "b.a.example", false),
        (HostPattern::Suffix(".a.example".into()), "b.a.example", true),
        (HostPattern::Suffix(".a.example".into()), "c.b.a.example", true),
        (HostPattern::Suffix(".a.example".into()), "a.example", false),
        (HostPattern::Suffix(".a.example".into()), "ba.example", false),
        (HostPattern::Suffix(".a.example".into()), ".a.example", false),
        (HostPattern::Any, "whatever", true),
    ];
    for (pattern, host, expected) in table {
        assert_eq!(pattern.matches(host), expected, "{pattern} {host}");
    }
}
