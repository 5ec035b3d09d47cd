//! `[origins.<name>]`: the groups of endpoints that requests are forwarded to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use super::reader::{Section, Value};
use super::{limits, site};

/// `[origins.<name>]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginConfig {
    /// The name that routes use.
    pub name: String,
    /// At least one, each with an address of its own.
    pub endpoints: Vec<EndpointConfig>,
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
    /// The name that the certificate must carry and that SNI says. `None`: the host of the endpoint's URL.
    pub tls_server_name: Option<String>,
    /// What the forwarded `Host` says.
    pub host_header: HostHeader,
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

/// Policies of the contract that this version does not have yet (DESIGN.md, Surfaces).
const BALANCE_LATER: [&str; 5] = ["least_connections", "power_of_two", "latency", "consistent_hash", "geographic"];

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

pub(super) fn read<'a>(section: &Section<'a>) -> Origins<'a> {
    let mut origins = Origins { names: BTreeSet::new(), checked: BTreeMap::new() };
    for (name, value) in section.entries() {
        origins.names.insert(name);
        if let Err(message) = site::check_name(name) {
            value.fail::<()>(message);
        }
        if let Some(section) = value.section() {
            origins.checked.insert(name.to_owned(), origin(name, section));
        }
    }
    origins
}

fn origin(name: &str, section: Section<'_>) -> OriginConfig {
    let config = OriginConfig {
        name: name.to_owned(),
        endpoints: endpoints(&section),
        balance: balance(&section),
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
        tls_server_name: server_name(&section),
        host_header: section.choice(
            "host_header",
            HostHeader::default(),
            &[("client", HostHeader::Client), ("endpoint", HostHeader::Endpoint)],
        ),
    };
    section.finish();
    config
}

fn balance(section: &Section<'_>) -> Balance {
    let later =
        section.value("balance").filter(|value| value.as_text().is_some_and(|text| BALANCE_LATER.contains(&text)));
    match later {
        Some(value) => {
            let policy = value.as_text().unwrap_or_default();
            value.fail::<()>(format!("\"{policy}\" is not available in this version: use \"round_robin\""));
            Balance::default()
        }
        None => section.choice("balance", Balance::default(), &[("round_robin", Balance::RoundRobin)]),
    }
}

fn server_name(section: &Section<'_>) -> Option<String> {
    let value = section.value("tls_server_name")?;
    let name = value.text()?.to_ascii_lowercase();
    match site::check_host(&name) {
        Ok(()) => Some(name),
        Err(message) => value.fail(message),
    }
}

fn endpoints(section: &Section<'_>) -> Vec<EndpointConfig> {
    let Some(values) = section.required_list("endpoints", "at least one endpoint, such as \"http://127.0.0.1:8000\"")
    else {
        return Vec::new();
    };
    if values.len() > limits::ENDPOINTS_MAX {
        section.report("endpoints", format!("has {} members, more than {}", values.len(), limits::ENDPOINTS_MAX));
    }
    let mut endpoints: Vec<EndpointConfig> = Vec::new();
    for value in &values {
        let Some(endpoint) = endpoint(value) else {
            continue;
        };
        if endpoints.iter().any(|other| other.url == endpoint.url) {
            value.fail::<()>(format!("{} is listed twice; give it a weight instead", endpoint.url));
        } else {
            endpoints.push(endpoint);
        }
    }
    endpoints
}

/// `"http://host:port"` or `{ url = "…", weight = 2, region = "eu" }`.
fn endpoint(value: &Value<'_>) -> Option<EndpointConfig> {
    if value.as_text().is_some() {
        return Some(EndpointConfig { url: url(value)?, weight: limits::WEIGHT.default, region: None });
    }
    let section = value.table_or("a URL or { url = \"…\", weight = 2, region = \"eu\" }")?;
    let url = section.required("url", |section, key| section.value(key).and_then(|value| url(&value)));
    let weight = section.count("weight", &limits::WEIGHT);
    let region = section.text("region").map(str::to_owned);
    section.finish();
    Some(EndpointConfig { url: url?, weight, region })
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
