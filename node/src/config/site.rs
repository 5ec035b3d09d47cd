//! `[[sites]]` and `[[sites.routes]]`: which request goes to which origin, and how it is cached.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use brim_semantics::CachePolicy;
use http::HeaderName;

use super::origin::Origins;
use super::reader::{Section, Value};
use super::tagging::TaggingConfig;
use super::{limits, suggest, tagging};

/// `[[sites]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteConfig {
    /// Part of every cache key of the site. Default: the first host.
    pub name: String,
    /// At least one; none belongs to two sites.
    pub hosts: Vec<HostPattern>,
    /// At least one, the longest path first; no path twice.
    pub routes: Vec<RouteConfig>,
}

/// The hosts that a site answers for, without port. Exact before wildcard before any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// One host, in lower case; IPv6 in brackets.
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: every name below it, however deep, not itself.
    Suffix(String),
    /// `*`
    Any,
}

/// `[[sites.routes]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConfig {
    /// A prefix of the request's path; begins with `/`.
    pub path: String,
    /// The name of an origin that exists.
    pub origin: String,
    /// The plugin whose active version shapes the key.
    pub cache_key_plugin: Option<String>,
    /// Whether the cache is used at all.
    pub cache: CacheMode,
    /// What the rules of RFC 9111 leave to the operator.
    pub policy: CachePolicy,
    /// What its responses are purged by, and what writes purge.
    pub tagging: TaggingConfig,
    /// Send the fields that carry surrogate keys, and `Cache-Groups`, on to the client.
    pub surrogate_keys_to_client: bool,
}

/// Whether a route uses the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Look up and store.
    #[default]
    On,
    /// Forward everything, store nothing.
    Off,
}

impl HostPattern {
    /// `host` in lower case and without port.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == host,
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            Self::Any => true,
        }
    }
}

/// As written in the file.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

pub(super) fn read(root: &Section<'_>, origins: &Origins<'_>) -> Vec<SiteConfig> {
    let Some(values) = root.required_list("sites", "at least one [[sites]]: nothing would be served") else {
        return Vec::new();
    };
    if values.len() > limits::SITES_MAX {
        root.report("sites", format!("has {} members, more than {}", values.len(), limits::SITES_MAX));
    }
    let mut hosts_taken = BTreeMap::new();
    let mut names_taken = BTreeMap::new();
    let mut sites = Vec::new();
    for value in &values {
        let Some(section) = value.section() else {
            continue;
        };
        let site = site(&section, origins, &mut hosts_taken);
        if let Some(path) = names_taken.insert(site.name.clone(), value.path.clone()) {
            section.report("name", format!("\"{}\" is the name of {path} too", site.name));
        }
        section.finish();
        sites.push(site);
    }
    sites
}

fn site(section: &Section<'_>, origins: &Origins<'_>, taken: &mut BTreeMap<HostPattern, String>) -> SiteConfig {
    let mut hosts = Vec::new();
    for value in section.required_list("hosts", "at least one host, or \"*\" for any").unwrap_or_default() {
        let Some(host) = host_pattern(&value) else {
            continue;
        };
        match taken.insert(host.clone(), value.path.clone()) {
            Some(first) => {
                value.fail::<()>(format!("\"{host}\" is already at {first}"));
            }
            None => hosts.push(host),
        }
    }
    let name = section.value("name").and_then(|value| {
        let name = value.text()?;
        check_name(name).map_or_else(|message| value.fail(message), |()| Some(name.to_owned()))
    });
    // Without a usable host there is a mistake already; the path stands in, so that two such sites do not clash by name too.
    let name = name.or_else(|| hosts.first().map(HostPattern::to_string)).unwrap_or_else(|| section.path.clone());
    SiteConfig { name, hosts, routes: routes(section, origins) }
}

fn routes(section: &Section<'_>, origins: &Origins<'_>) -> Vec<RouteConfig> {
    let values = section.required_list("routes", "at least one [[sites.routes]]: every request would be refused");
    let values = values.unwrap_or_default();
    if values.len() > limits::ROUTES_MAX {
        section.report("routes", format!("has {} members, more than {}", values.len(), limits::ROUTES_MAX));
    }
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    let mut routes = Vec::new();
    for value in &values {
        let Some(section) = value.section() else {
            continue;
        };
        if let Some(route) = route(&section, origins) {
            match taken.insert(route.path.clone(), value.path.clone()) {
                Some(first) => section.report("path", format!("\"{}\" is already the path of {first}", route.path)),
                None => routes.push(route),
            }
        }
        section.finish();
    }
    routes.sort_by(|left, right| right.path.len().cmp(&left.path.len()).then_with(|| left.path.cmp(&right.path)));
    routes
}

fn route(section: &Section<'_>, origins: &Origins<'_>) -> Option<RouteConfig> {
    let path = section.required("path", |section, key| route_path(&section.value(key)?));
    let origin = section.required("origin", |section, key| origin_name(&section.value(key)?, origins));
    let plugins = section.section("plugins");
    let cache_key_plugin = plugins.value("cache_key").and_then(|value| plugin_name(&value));
    let invalidation_plugin = tagging::plugin(&plugins);
    if let Some(value) = plugins.value("pagination") {
        value.fail::<()>("this hook is not available in this version");
    }
    plugins.finish();
    let cache = section.choice("cache", CacheMode::default(), &[("on", CacheMode::On), ("off", CacheMode::Off)]);
    let policy = policy(section);
    let tagging = tagging::read(section, invalidation_plugin);
    let surrogate_keys_to_client = section.flag("surrogate_keys_to_client", false);
    Some(RouteConfig {
        path: path?,
        origin: origin?,
        cache_key_plugin,
        cache,
        policy,
        tagging,
        surrogate_keys_to_client,
    })
}

fn policy(section: &Section<'_>) -> CachePolicy {
    let default = CachePolicy::default();
    CachePolicy {
        heuristic: section.flag("heuristic", default.heuristic),
        heuristic_max: section.optional_duration("heuristic_max", &limits::FRESHNESS).unwrap_or(default.heuristic_max),
        store_set_cookie: section.flag("store_set_cookie", default.store_set_cookie),
        ignore_request_directives: section.flag("ignore_request_directives", default.ignore_request_directives),
        stale_while_revalidate: section.optional_duration("stale_while_revalidate", &limits::FRESHNESS),
        stale_if_error: section.optional_duration("stale_if_error", &limits::FRESHNESS),
        freshness_max: section.optional_duration("freshness_max", &limits::FRESHNESS),
        targeted_fields: targeted_fields(section).unwrap_or_else(|| default.targeted_fields.clone()),
    }
}

/// RFC 9213 §2.2: an ordered list; the first field that is present and valid is used. `[]` turns targeted fields off.
fn targeted_fields(section: &Section<'_>) -> Option<Vec<HeaderName>> {
    section.value("targeted_fields")?;
    let values = section.list("targeted_fields");
    if values.len() > limits::TARGETED_FIELDS_MAX {
        section.report(
            "targeted_fields",
            format!("has {} members, more than {}", values.len(), limits::TARGETED_FIELDS_MAX),
        );
    }
    let mut fields = Vec::new();
    for value in &values {
        let Some(text) = value.text() else { continue };
        match HeaderName::from_bytes(text.as_bytes()) {
            Err(_) => value.fail::<()>(format!("\"{text}\" is not a field name")),
            Ok(name) if name == http::header::CACHE_CONTROL => {
                value.fail("Cache-Control is no targeted field: it is read anyway")
            }
            Ok(name) if fields.contains(&name) => value.fail(format!("\"{name}\" is listed twice")),
            Ok(name) => {
                fields.push(name);
                None
            }
        };
    }
    Some(fields)
}

fn route_path(value: &Value<'_>) -> Option<String> {
    let path = value.text()?;
    if !path.starts_with('/') {
        return value.fail(format!("\"{path}\" does not begin with /"));
    }
    if path.contains('*') {
        return value.fail(format!("\"{path}\" holds a *: a path is a prefix, \"/api/\" covers everything below it"));
    }
    if path.len() > limits::ROUTE_PATH_BYTES_MAX {
        return value.fail(format!("has {} bytes, more than {}", path.len(), limits::ROUTE_PATH_BYTES_MAX));
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#')) {
        return value.fail(format!("\"{path}\" holds what no path can: write it percent-encoded, without query"));
    }
    Some(path.to_owned())
}

fn origin_name(value: &Value<'_>, origins: &Origins<'_>) -> Option<String> {
    let name = value.text()?;
    if origins.names().contains(name) {
        return Some(name.to_owned());
    }
    let near = suggest::nearest(name, origins.names().iter().copied());
    match near {
        Some(near) => value.fail(format!("there is no [origins.{name}]; did you mean \"{near}\"?")),
        None => value.fail(format!("there is no [origins.{name}]")),
    }
}

pub(super) fn plugin_name(value: &Value<'_>) -> Option<String> {
    let name = value.text()?;
    check_name(name).map_or_else(|message| value.fail(message), |()| Some(name.to_owned()))
}

fn host_pattern(value: &Value<'_>) -> Option<HostPattern> {
    let text = value.text()?;
    if text == "*" {
        return Some(HostPattern::Any);
    }
    let host = text.to_ascii_lowercase();
    let (pattern, name) = match host.strip_prefix("*.") {
        Some(domain) => (HostPattern::Suffix(format!(".{domain}")), domain),
        None => (HostPattern::Exact(host.clone()), host.as_str()),
    };
    check_host(name).map_or_else(|message| value.fail(message), |()| Some(pattern))
}

/// A name of an origin, site or plugin: it appears in metrics, file names and cache keys.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if letters && first && name.len() <= limits::NAME_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "\"{name}\" is not a name: letters, digits, -, _ and ., beginning with a letter or digit, at most {}",
        limits::NAME_BYTES_MAX
    ))
}

/// A host name or an address, without port; IPv6 in brackets.
pub(super) fn check_host(host: &str) -> Result<(), String> {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().map(|_| ()).map_err(|_| format!("\"{host}\" is not an IPv6 address"));
    }
    if host.parse::<Ipv4Addr>().is_ok() {
        return Ok(());
    }
    if host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(format!("\"{host}\" has a port: a host is written without"));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.len() <= 253 && host.split('.').all(label) {
        return Ok(());
    }
    Err(format!("\"{host}\" is not a host name"))
}
