//! `[origins.<name>]`: the groups of endpoints that requests are forwarded to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;

use super::reader::{Section, Value};
use super::tls::CertificateFiles;
use super::{limits, site, tls};

/// `[origins.<name>]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginConfig {
    /// The name that routes use.
    pub name: String,
    /// Each with an address of its own; at least one, if there is no service.
    pub endpoints: Vec<EndpointConfig>,
    /// Names whose targets are endpoints.
    pub services: Vec<ServiceConfig>,
    /// Name servers: the root's `resolver.servers`. None: the system's.
    pub resolver: Vec<SocketAddr>,
    /// How one of the endpoints is chosen.
    pub balance: Balance,
    /// Connections to one endpoint.
    pub connections_max: usize,
    /// For TCP and TLS together.
    pub connect_timeout: Duration,
    /// From the end of the request to the head of the response.
    pub response_timeout: Duration,
    /// Between two chunks of the response's content.
    pub body_idle_timeout: Duration,
    /// A kept connection that nothing uses.
    pub idle_timeout: Duration,
    /// Requests that wait for a connection.
    pub queue_max: usize,
    /// How long one of them waits.
    pub queue_timeout: Duration,
    /// Which version of HTTP is spoken.
    pub http2: Http2,
    /// PEM file of the authorities that are trusted for this origin. `None`: those of the system.
    pub tls_ca: Option<PathBuf>,
    /// What the node shows of itself to an endpoint that asks for it.
    pub tls_client: Option<CertificateFiles>,
    /// The name that the certificate must carry and that SNI says. `None`: the host of the endpoint's URL.
    pub tls_server_name: Option<String>,
    /// What the forwarded `Host` says.
    pub host_header: HostHeader,
    /// Where the node stands: the root's `region`.
    pub region: Option<String>,
    /// Connections that are kept open to each endpoint, used or not.
    pub connections_min: usize,
    /// An older connection takes no further request.
    pub connection_age_max: Duration,
    /// A connection that has served so many requests takes no further one.
    pub connection_requests_max: u64,
    /// Requests of the node's own that find out whether an endpoint is in order. `None`: there are none.
    pub health: Option<CheckConfig>,
    /// When requests that fail take an endpoint out.
    pub ejection: EjectionConfig,
    /// In percent: with fewer endpoints in order, health counts no more.
    pub panic_threshold: u32,
    /// How long an endpoint that comes back grows into its share.
    pub slow_start: Duration,
    /// From the beginning of a forward to the head of the response, over all attempts.
    pub deadline: Option<Duration>,
    /// When a request goes to a further endpoint.
    pub retries: RetryConfig,
    /// Requests that it is given at a time; 0: no bound but those of its connections.
    pub requests_max: usize,
    /// Finds that number by itself.
    pub adaptive_concurrency: bool,
}

/// `[origins.<name>.retries]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryConfig {
    /// Further endpoints that a request may go to.
    pub max: usize,
    /// Whether idempotent requests that may have been processed are repeated.
    pub idempotent: bool,
    /// Statuses after which they are.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// For the head of the response, of every attempt that can be followed by another.
    pub try_timeout: Option<Duration>,
    /// Percentage of the requests that may be repeated.
    pub budget: u32,
    /// A second request is sent beside a GET that takes longer than so many percent of the others.
    pub hedge_percentile: Option<u32>,
}

/// `[origins.<name>.health]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckConfig {
    /// Path and query that are asked for by GET.
    pub path: String,
    /// Between two checks of an endpoint, a tenth more or less.
    pub interval: Duration,
    /// For connecting and the head of the answer together.
    pub timeout: Duration,
    /// Statuses that are good.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// Checks in a row that have to succeed before an endpoint is used again.
    pub healthy_after: u32,
    /// Checks in a row that have to fail before it is not.
    pub unhealthy_after: u32,
}

/// `[origins.<name>.ejection]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EjectionConfig {
    /// Requests in a row that fail; 0: they do not eject.
    pub consecutive_errors: u32,
    /// Whether an endpoint whose success rate lies far below that of the others is ejected.
    pub outliers: bool,
    /// How long; the second time in a row twice as long, and so on.
    pub time: Duration,
    /// However often.
    pub time_max: Duration,
    /// Percentage of the endpoints that may be out at a time.
    pub share_max: u32,
    /// Over which success rates are compared.
    pub interval: Duration,
}

/// One address of an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Where it is.
    pub url: EndpointUrl,
    /// Its share, relative to the others.
    pub weight: u32,
    /// Where it stands, for policies that care.
    pub region: Option<String>,
    /// Used when none of a lower number is in order.
    pub priority: u32,
}

/// A name whose SRV records are endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Such as `_api._tcp.example.com`.
    pub name: String,
    /// `https`
    pub tls: bool,
    /// Where they all stand.
    pub region: Option<String>,
    /// Of the records with the lowest priority; the others follow in their order.
    pub priority: u32,
}

/// Scheme, host and port of an endpoint. `Display` writes it as a URL without a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointUrl {
    /// `https`
    pub tls: bool,
    /// A name in lower case or an address; IPv6 without brackets.
    pub host: String,
    /// As written, or the scheme's.
    pub port: u16,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// One after the other, by weight.
    #[default]
    RoundRobin,
    /// The one with the fewest requests under way.
    LeastConnections,
    /// The less busy of two.
    PowerOfTwo,
    /// Of two the one that will answer sooner.
    Latency,
    /// The same one for the same cache key, unless it is too busy.
    ConsistentHash,
    /// The nearest.
    Geographic,
}

/// Which version of HTTP is spoken to an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Http2 {
    /// By ALPN over TLS; HTTP/1.1 over plaintext.
    #[default]
    Auto,
    /// HTTP/2 only, over plaintext with prior knowledge.
    Always,
    /// HTTP/1.1 only.
    Never,
}

/// What the forwarded `Host` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostHeader {
    /// What the client asked for.
    #[default]
    Client,
    /// The authority of the endpoint.
    Endpoint,
}

impl EndpointUrl {
    /// `host:port`, without the scheme's own port, IPv6 in brackets: what `Host` says.
    pub fn authority(&self) -> String {
        let default_port = if self.tls { 443 } else { 80 };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

const BALANCES: [(&str, Balance); 6] = [
    ("round_robin", Balance::RoundRobin),
    ("least_connections", Balance::LeastConnections),
    ("power_of_two", Balance::PowerOfTwo),
    ("latency", Balance::Latency),
    ("consistent_hash", Balance::ConsistentHash),
    ("geographic", Balance::Geographic),
];

/// The origins of a file; those with mistakes are known by name, so that routes to them are not reported too.
pub(super) struct Origins<'a> {
    names: BTreeSet<&'a str>,
    checked: BTreeMap<String, OriginConfig>,
}

impl<'a> Origins<'a> {
    pub(super) fn names(&self) -> &BTreeSet<&'a str> {
        &self.names
    }

    pub(super) fn into_checked(self) -> BTreeMap<String, OriginConfig> {
        self.checked
    }
}

/// What the root says for all origins.
#[derive(Default)]
pub(super) struct Common<'a> {
    pub(super) region: Option<&'a str>,
    pub(super) resolver: Vec<SocketAddr>,
}

pub(super) fn read<'a>(section: &Section<'a>, common: &Common<'_>) -> Origins<'a> {
    let mut origins = Origins { names: BTreeSet::new(), checked: BTreeMap::new() };
    for (name, value) in section.entries() {
        origins.names.insert(name);
        if let Err(message) = site::check_name(name) {
            value.fail::<()>(message);
        }
        if let Some(section) = value.section() {
            origins.checked.insert(name.to_owned(), origin(name, section, common));
        }
    }
    origins
}

fn origin(name: &str, section: Section<'_>, common: &Common<'_>) -> OriginConfig {
    let (endpoints, services) = endpoints(&section);
    let mut config = OriginConfig {
        name: name.to_owned(),
        endpoints,
        services,
        resolver: common.resolver.clone(),
        balance: section.choice("balance", Balance::default(), &BALANCES),
        connections_max: section.count("connections_max", &limits::ORIGIN_CONNECTIONS_MAX),
        connect_timeout: section.duration("connect_timeout", &limits::CONNECT_TIMEOUT),
        response_timeout: section.duration("response_timeout", &limits::RESPONSE_TIMEOUT),
        body_idle_timeout: section.duration("body_idle_timeout", &limits::BODY_IDLE_TIMEOUT),
        idle_timeout: section.duration("idle_timeout", &limits::ORIGIN_IDLE_TIMEOUT),
        queue_max: section.count("queue_max", &limits::QUEUE_MAX),
        queue_timeout: section.duration("queue_timeout", &limits::QUEUE_TIMEOUT),
        http2: section.choice(
            "http2",
            Http2::default(),
            &[("auto", Http2::Auto), ("always", Http2::Always), ("never", Http2::Never)],
        ),
        tls_ca: section.present_file("tls_ca"),
        tls_client: section.value("tls_client").and_then(|value| value.section()).and_then(tls::files),
        tls_server_name: server_name(&section),
        host_header: section.choice(
            "host_header",
            HostHeader::default(),
            &[("client", HostHeader::Client), ("endpoint", HostHeader::Endpoint)],
        ),
        region: common.region.map(str::to_owned),
        connections_min: section.count("connections_min", &limits::ORIGIN_CONNECTIONS_MIN),
        connection_age_max: section.duration("connection_age_max", &limits::CONNECTION_AGE_MAX),
        connection_requests_max: section.count("connection_requests_max", &limits::CONNECTION_REQUESTS_MAX),
        health: section.value("health").and_then(|value| value.section()).and_then(check),
        ejection: ejection(section.section("ejection")),
        panic_threshold: section.count("panic_threshold", &limits::PANIC_THRESHOLD),
        slow_start: section.duration("slow_start", &limits::SLOW_START),
        deadline: section.optional_duration("deadline", &limits::DEADLINE),
        retries: retries(section.section("retries")),
        requests_max: section.count("requests_max", &limits::REQUESTS_MAX),
        adaptive_concurrency: section.flag("adaptive_concurrency", false),
    };
    if config.connections_min > config.connections_max {
        section.report("connections_min", format!("{} is more than connections_max", config.connections_min));
        config.connections_min = config.connections_max;
    }
    section.finish();
    config
}

fn check(section: Section<'_>) -> Option<CheckConfig> {
    let path = section.required("path", |section, key| {
        let value = section.value(key)?;
        let text = value.text()?;
        match text.parse::<PathAndQuery>() {
            Ok(path) if text.starts_with('/') => Some(path.as_str().to_owned()),
            Ok(_) | Err(_) => value.fail(format!("\"{text}\" is not a path such as \"/healthz\"")),
        }
    });
    let statuses = section.list("status");
    let config = CheckConfig {
        path: path.clone().unwrap_or_default(),
        interval: section.duration("interval", &limits::CHECK_INTERVAL),
        timeout: section.duration("timeout", &limits::CHECK_TIMEOUT),
        statuses: if statuses.is_empty() {
            vec![200..=299]
        } else {
            statuses.iter().filter_map(status_range).collect()
        },
        healthy_after: section.count("healthy_after", &limits::HEALTHY_AFTER),
        unhealthy_after: section.count("unhealthy_after", &limits::UNHEALTHY_AFTER),
    };
    section.finish();
    path.map(|_| config)
}

fn retries(section: Section<'_>) -> RetryConfig {
    let has_percentile = section.value("hedge_percentile").is_some();
    let percentile = section.count("hedge_percentile", &limits::HEDGE_PERCENTILE);
    let config = RetryConfig {
        max: section.count("max", &limits::RETRIES_MAX),
        idempotent: section.flag("idempotent", false),
        statuses: section.list("status").iter().filter_map(status_range).collect(),
        try_timeout: section.optional_duration("try_timeout", &limits::TRY_TIMEOUT),
        budget: section.count("budget", &limits::RETRY_BUDGET),
        hedge_percentile: has_percentile.then_some(percentile),
    };
    if !config.statuses.is_empty() && !config.idempotent {
        section.report("status", "has no effect without `idempotent = true`".to_owned());
    }
    section.finish();
    config
}

/// `"200"` or `"200-299"`.
fn status_range(value: &Value<'_>) -> Option<RangeInclusive<u16>> {
    let text = value.text()?;
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Some(first..=last),
        _ => value.fail(format!("\"{text}\" is not a status such as \"200\", nor a range such as \"200-299\"")),
    }
}

fn ejection(section: Section<'_>) -> EjectionConfig {
    let config = EjectionConfig {
        consecutive_errors: section.count("consecutive_errors", &limits::CONSECUTIVE_ERRORS),
        outliers: section.flag("outliers", true),
        time: section.duration("time", &limits::EJECTION_TIME),
        time_max: section.duration("time_max", &limits::EJECTION_TIME_MAX),
        share_max: section.count("share_max", &limits::EJECTION_SHARE_MAX),
        interval: section.duration("interval", &limits::EJECTION_INTERVAL),
    };
    if config.time > config.time_max {
        section.report("time", "is longer than time_max".to_owned());
    }
    section.finish();
    config
}

fn server_name(section: &Section<'_>) -> Option<String> {
    let value = section.value("tls_server_name")?;
    let name = value.text()?.to_ascii_lowercase();
    match site::check_host(&name) {
        Ok(()) => Some(name),
        Err(message) => value.fail(message),
    }
}

fn endpoints(section: &Section<'_>) -> (Vec<EndpointConfig>, Vec<ServiceConfig>) {
    let Some(values) = section.required_list("endpoints", "at least one endpoint, such as \"http://127.0.0.1:8000\"")
    else {
        return Default::default();
    };
    if values.len() > limits::ENDPOINTS_MAX {
        section.report("endpoints", format!("has {} members, more than {}", values.len(), limits::ENDPOINTS_MAX));
    }
    let mut endpoints: Vec<EndpointConfig> = Vec::new();
    let mut services: Vec<ServiceConfig> = Vec::new();
    for value in &values {
        match endpoint(value) {
            Some(Named::Endpoint(endpoint)) if endpoints.iter().any(|other| other.url == endpoint.url) => {
                value.fail::<()>(format!("{} is listed twice; give it a weight instead", endpoint.url));
            }
            Some(Named::Endpoint(endpoint)) => endpoints.push(endpoint),
            Some(Named::Service(service)) if services.iter().any(|other| other.name == service.name) => {
                value.fail::<()>(format!("{} is listed twice", service.name));
            }
            Some(Named::Service(service)) => services.push(service),
            None => {}
        }
    }
    (endpoints, services)
}

enum Named {
    Endpoint(EndpointConfig),
    Service(ServiceConfig),
}

/// `"http://host:port"`, `{ url = "…", weight = 2, region = "eu" }` or `{ srv = "_api._tcp.example.com" }`.
fn endpoint(value: &Value<'_>) -> Option<Named> {
    if value.as_text().is_some() {
        let url = url(value)?;
        return Some(Named::Endpoint(EndpointConfig {
            url,
            weight: limits::WEIGHT.default,
            region: None,
            priority: 0,
        }));
    }
    let section = value.table_or("a URL or { url = \"…\", weight = 2, region = \"eu\" }")?;
    let region = section.text("region").map(str::to_owned);
    let priority = section.count("priority", &limits::PRIORITY);
    if let Some(name) = section.value("srv") {
        let tls = section.flag("tls", false);
        section.finish();
        return Some(Named::Service(ServiceConfig { name: service_name(&name)?, tls, region, priority }));
    }
    let url = section.required("url", |section, key| section.value(key).and_then(|value| url(&value)));
    let weight = section.count("weight", &limits::WEIGHT);
    section.finish();
    Some(Named::Endpoint(EndpointConfig { url: url?, weight, region, priority }))
}

/// RFC 2782: two labels that begin with an underscore, and a domain.
fn service_name(value: &Value<'_>) -> Option<String> {
    let name = value.text()?.trim_end_matches('.').to_ascii_lowercase();
    let mut labels = name.splitn(3, '.');
    let is_underscored = |label: Option<&str>| {
        label.and_then(|label| label.strip_prefix('_')).is_some_and(|label| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
    };
    let is_right = is_underscored(labels.next())
        && is_underscored(labels.next())
        && labels.next().is_some_and(|domain| site::check_host(domain).is_ok());
    if is_right {
        Some(name)
    } else {
        value.fail(format!("\"{name}\" is not the name of a service such as \"_api._tcp.example.com\""))
    }
}

fn url(value: &Value<'_>) -> Option<EndpointUrl> {
    let text = value.text()?;
    endpoint_url(text).map_or_else(|why| value.fail(format!("\"{text}\" {why}")), Some)
}

fn endpoint_url(text: &str) -> Result<EndpointUrl, &'static str> {
    let form = "is not a URL such as \"http://127.0.0.1:8000\"";
    let uri: Uri = text.parse().map_err(|_| form)?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        Some(_) => return Err("has a scheme other than http and https"),
        None => return Err(form),
    };
    let authority = uri.authority().ok_or(form)?;
    if authority.as_str().contains('@') {
        return Err("holds a user name: credentials do not belong into an address");
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
        return Err("has a path: an endpoint is scheme, host and port; the request's own path is forwarded");
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    site::check_host(authority.host()).map_err(|_| "has a host that is neither a name nor an address")?;
    // Not `port_u16()`: it takes a port out of range for none, and the request would go to port 80.
    let port = match authority.as_str().strip_prefix(authority.host()) {
        None | Some("") => {
            if tls {
                443
            } else {
                80
            }
        }
        Some(written) => match written.trim_start_matches(':').parse() {
            Ok(0) | Err(_) => return Err("has a port that is not within 1 to 65535"),
            Ok(port) => port,
        },
    };
    Ok(EndpointUrl { tls, host, port })
}
