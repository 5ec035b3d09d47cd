//! `[listen]`: the addresses of the data port and the limits of its connections.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use super::admin::AdminConfig;
use super::limits;
use super::reader::{Section, Value};

/// `listen.http` when neither `http` nor `https` is given.
pub const HTTP_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// `[listen]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenConfig {
    /// HTTP/1.1, and HTTP/2 with prior knowledge. Not empty unless `https` is not.
    pub http: Vec<SocketAddr>,
    /// TLS 1.2 and 1.3 with ALPN `h2` and `http/1.1`.
    pub https: Vec<SocketAddr>,
    /// Runtimes, one a thread. Default: the number of cores.
    pub threads: usize,
    /// Connections over all listeners.
    pub connections_max: usize,
    /// Concurrent streams of one HTTP/2 connection.
    pub streams_max: u32,
    /// Bytes of a request head.
    pub head_bytes_max: usize,
    /// Fields of a request head.
    pub header_count_max: usize,
    /// From accept to a finished TLS handshake.
    pub handshake_timeout: Duration,
    /// From the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// A kept connection between two requests.
    pub idle_timeout: Duration,
    /// Between two chunks of a request's content, and for a client that does not read.
    pub body_idle_timeout: Duration,
    /// A QUERY with longer content goes past the cache.
    pub query_content_max: u64,
    /// How long a shutdown waits for requests in flight.
    pub drain_timeout: Duration,
    /// What a request with `Upgrade` gets.
    pub upgrade: UpgradePolicy,
}

/// What a request with `Upgrade` (WebSocket) gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpgradePolicy {
    /// A clear refusal. The default: a tunnel escapes every rule of the cache.
    #[default]
    Refuse,
    /// Forwarded; then bytes are passed both ways.
    Forward,
}

pub(super) fn read(section: Section<'_>) -> ListenConfig {
    let neither = section.value("http").is_none() && section.value("https").is_none();
    let config = ListenConfig {
        http: if neither { vec![HTTP_ADDRESS] } else { addresses(&section, "http") },
        https: addresses(&section, "https"),
        threads: threads(&section),
        connections_max: section.count("connections_max", &limits::CONNECTIONS_MAX),
        streams_max: section.count("streams_max", &limits::STREAMS_MAX),
        head_bytes_max: usize::try_from(section.bytes("head_bytes_max", &limits::HEAD_BYTES_MAX)).unwrap_or(usize::MAX),
        header_count_max: section.count("header_count_max", &limits::HEADER_COUNT_MAX),
        handshake_timeout: section.duration("handshake_timeout", &limits::HANDSHAKE_TIMEOUT),
        header_timeout: section.duration("header_timeout", &limits::HEADER_TIMEOUT),
        idle_timeout: section.duration("idle_timeout", &limits::IDLE_TIMEOUT),
        body_idle_timeout: section.duration("body_idle_timeout", &limits::BODY_IDLE_TIMEOUT),
        query_content_max: section.bytes("query_content_max", &limits::QUERY_CONTENT_MAX),
        drain_timeout: section.duration("drain_timeout", &limits::DRAIN_TIMEOUT),
        upgrade: section.choice(
            "upgrade",
            UpgradePolicy::default(),
            &[("refuse", UpgradePolicy::Refuse), ("forward", UpgradePolicy::Forward)],
        ),
    };
    let written = |key| section.value(key).is_some_and(|value| !value.is_empty_list());
    if !neither && !written("http") && !written("https") {
        section.report("http", "`http` and `https` are both empty: nothing would be served");
    }
    section.finish();
    config
}

/// An address belongs to one listener; port 0 stands for any free port and may be used often.
pub(super) fn refuse_shared_addresses(root: &Section<'_>, listen: &ListenConfig, admin: &AdminConfig) {
    let mut taken = BTreeSet::new();
    for address in listen.http.iter().chain(&listen.https).chain([&admin.listen]) {
        if address.port() != 0 && !taken.insert(*address) {
            root.report("listen", format!("{address} is used by more than one listener"));
        }
    }
}

pub(super) fn address(value: &Value<'_>) -> Option<SocketAddr> {
    let text = value.text()?;
    text.parse()
        .ok()
        .or_else(|| value.fail(format!("\"{text}\" is not an address with a port, such as \"127.0.0.1:8080\"")))
}

fn addresses(section: &Section<'_>, key: &'static str) -> Vec<SocketAddr> {
    section.list(key).iter().filter_map(address).collect()
}

fn threads(section: &Section<'_>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let limit = limits::Limit { default: cores.min(limits::THREADS.max), ..limits::THREADS };
    section.count("threads", &limit)
}
