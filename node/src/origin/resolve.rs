//! Names to addresses and endpoints, in the background.
//!
//! Always true:
//! - A request waits for a resolver only while nothing is known of a name yet.
//! - A look-up that fails changes nothing: the last good answer stays, and is looked up again soon.
//! - An answer is believed for as long as it says, but at least [`TTL_MIN`] and at most [`TTL_MAX`].
//!
//! Not here: what follows from a new answer (`endpoint`, `Origin::discovered`).

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// A name is not looked up more often.
const TTL_MIN: Duration = Duration::from_secs(1);
/// A name is looked up at least so often.
const TTL_MAX: Duration = Duration::from_secs(300);
/// The next attempt after a look-up that failed.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How long one name server is waited for, and how often it is asked.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
const QUERY_ATTEMPTS: usize = 2;
/// Addresses of one name that are used.
pub const ADDRESSES_MAX: usize = 8;
/// Endpoints that one SRV name may make.
pub const DISCOVERED_MAX: usize = 64;

/// Who is asked for names. Clones share everything.
#[derive(Clone, Default)]
pub(super) struct Resolver(Arc<Lazy>);

#[derive(Default)]
struct Lazy {
    /// None: those of the system.
    servers: Vec<SocketAddr>,
    resolver: OnceLock<Result<TokioResolver, String>>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Resolver").field(&self.0.servers).finish()
    }
}

/// One target of an SRV name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) weight: u16,
    pub(super) priority: u16,
}

impl Resolver {
    pub(super) fn new(servers: &[SocketAddr]) -> Self {
        Self(Arc::new(Lazy { servers: servers.to_vec(), resolver: OnceLock::new() }))
    }

    fn resolver(&self) -> Result<&TokioResolver, String> {
        self.0.resolver.get_or_init(|| build(&self.0.servers)).as_ref().map_err(Clone::clone)
    }

    /// The addresses of a name, and until when they are good.
    async fn addresses(&self, host: &str) -> Result<(Vec<IpAddr>, Instant), String> {
        let found = self.resolver()?.lookup_ip(host).await.map_err(|error| error.to_string())?;
        let until = believed_until(found.valid_until());
        let addresses: Vec<IpAddr> = found.iter().collect();
        if addresses.is_empty() { Err("it has no address".to_owned()) } else { Ok((addresses, until)) }
    }

    /// The targets of an SRV name (RFC 2782), and until when they are good.
    pub(super) async fn targets(&self, name: &str) -> Result<(Vec<Target>, Instant), String> {
        let found = self.resolver()?.lookup(name, RecordType::SRV).await.map_err(|error| error.to_string())?;
        let mut targets: Vec<Target> = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(target) => Some(Target {
                    host: target.target.to_utf8().trim_end_matches('.').to_ascii_lowercase(),
                    port: target.port,
                    weight: target.weight,
                    priority: target.priority,
                }),
                _ => None,
            })
            // "." says that the service is not there.
            .filter(|target| !target.host.is_empty() && target.port != 0)
            .collect();
        targets.sort();
        targets.dedup_by(|one, other| (&one.host, one.port) == (&other.host, other.port));
        targets.sort_by_key(|target| target.priority);
        targets.truncate(DISCOVERED_MAX);
        if targets.is_empty() {
            return Err("it has no target".to_owned());
        }
        Ok((targets, believed_until(found.valid_until())))
    }
}

fn build(servers: &[SocketAddr]) -> Result<TokioResolver, String> {
    let of = |servers: Vec<NameServerConfig>| {
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio().unwrap_or_else(|error| {
            tracing::warn!(%error, "the system names no name server that can be used; names are looked up in its hosts file alone");
            of(Vec::new())
        })
    } else {
        let servers = servers.iter().map(|server| {
            let mut config =
                NameServerConfig::new(server.ip(), true, vec![ConnectionConfig::udp(), ConnectionConfig::tcp()]);
            config.connections.iter_mut().for_each(|connection| connection.port = server.port());
            config
        });
        of(servers.collect())
    };
    let options = builder.options_mut();
    options.timeout = QUERY_TIMEOUT;
    options.attempts = QUERY_ATTEMPTS;
    // We remember by ourselves, and ask when it is time.
    options.cache_size = 0;
    builder.build().map_err(|error| error.to_string())
}

fn believed_until(valid_until: std::time::Instant) -> Instant {
    let now = std::time::Instant::now();
    Instant::now() + valid_until.saturating_duration_since(now).clamp(TTL_MIN, TTL_MAX)
}

/// When something is looked up next.
#[derive(Debug)]
pub(super) struct Schedule {
    /// `None`: a look-up is under way.
    next: Mutex<Option<Instant>>,
    failure: Mutex<Option<String>>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { next: Mutex::new(Some(Instant::now())), failure: Mutex::default() }
    }
}

impl Schedule {
    /// True, once: it is time, and nobody else does it.
    pub(super) fn begin(&self, now: Instant) -> bool {
        self.next.lock().take_if(|next| *next <= now).is_some()
    }

    /// What was found, or why nothing was.
    pub(super) fn end<A>(&self, what: &str, found: Result<(A, Instant), String>) -> Option<A> {
        match found {
            Ok((answer, until)) => {
                *self.failure.lock() = None;
                *self.next.lock() = Some(until);
                Some(answer)
            }
            Err(error) => {
                let reason = format!("resolve {what}: {error}");
                if self.failure.lock().replace(reason.clone()).is_none() {
                    tracing::warn!(reason, "the last good answer stays");
                }
                *self.next.lock() = Some(Instant::now() + RETRY_AFTER);
                None
            }
        }
    }

    /// Why the last look-up gave nothing.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }
}

/// The addresses of one endpoint.
#[derive(Debug)]
pub(super) struct Addresses {
    host: String,
    port: u16,
    resolver: Resolver,
    known: ArcSwapOption<Vec<SocketAddr>>,
    schedule: Schedule,
    /// Held by the request that looks the name up before anything is known; beside it why and when that failed the last time.
    first: Semaphore,
    failed: Mutex<Option<(String, Instant)>>,
}

impl Addresses {
    pub(super) fn new(host: &str, port: u16, resolver: &Resolver) -> Self {
        let fixed = host.parse::<IpAddr>().ok().map(|address| Arc::new(vec![SocketAddr::new(address, port)]));
        Self {
            host: host.to_owned(),
            port,
            resolver: resolver.clone(),
            known: ArcSwapOption::new(fixed),
            schedule: Schedule::default(),
            first: Semaphore::new(1),
            failed: Mutex::default(),
        }
    }

    fn is_name(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }

    /// Whether it is time to look the name up; who gets true does.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.is_name() && self.schedule.begin(now)
    }

    /// Looks the name up. The new addresses, if they are others than before.
    pub(super) async fn refresh(&self) -> Option<Arc<Vec<SocketAddr>>> {
        let found = self.resolver.addresses(&self.host).await;
        let addresses = Arc::new(in_order(&self.schedule.end(&self.host, found)?, self.port));
        let before = self.known.swap(Some(Arc::clone(&addresses)));
        let is_same = before.is_some_and(|before| {
            before.len() == addresses.len() && before.iter().all(|address| addresses.contains(address))
        });
        (!is_same).then_some(addresses)
    }

    /// What is known; looked up where nothing is.
    pub(super) async fn get(&self) -> Result<Arc<Vec<SocketAddr>>, String> {
        if let Some(known) = self.known.load_full() {
            return Ok(known);
        }
        // One asks, the others wait; what failed a moment ago is not asked again by each of them.
        let _one_at_a_time = self.first.acquire().await;
        if let Some(known) = self.known.load_full() {
            return Ok(known);
        }
        let failed = self.failed.lock().clone();
        if let Some((reason, _)) = failed.filter(|(_, at)| at.elapsed() < TTL_MIN) {
            return Err(reason);
        }
        match self.resolver.addresses(&self.host).await {
            Ok((found, _)) => {
                let addresses = Arc::new(in_order(&found, self.port));
                self.known.store(Some(Arc::clone(&addresses)));
                Ok(addresses)
            }
            Err(reason) => {
                *self.failed.lock() = Some((reason.clone(), Instant::now()));
                Err(reason)
            }
        }
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.schedule.failure()
    }
}

/// Families take turns, IPv6 first (RFC 8305 §4).
fn in_order(found: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    // In an order of their own: resolvers turn theirs, and the same addresses must not look like others.
    let mut found = found.to_vec();
    found.sort_unstable();
    let of = |is_ipv6: bool| found.iter().copied().filter(move |address| address.is_ipv6() == is_ipv6);
    let (mut six, mut four) = (of(true), of(false));
    let mut ordered = Vec::new();
    loop {
        let before = ordered.len();
        ordered.extend(six.next());
        ordered.extend(four.next());
        if ordered.len() == before || ordered.len() >= ADDRESSES_MAX {
            break;
        }
    }
    ordered.truncate(ADDRESSES_MAX);
    ordered.into_iter().map(|address| SocketAddr::new(address, port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let found: Vec<IpAddr> =
            ["10.0.0.1", "10.0.0.2", "::1", "10.0.0.3"].iter().map(|text| text.parse().expect("an address")).collect();
        let ordered: Vec<String> = in_order(&found, 80).iter().map(ToString::to_string).collect();
        assert_eq!(ordered, ["[::1]:80", "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
        let many: Vec<IpAddr> = (0..20).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        assert_eq!(in_order(&many, 80).len(), ADDRESSES_MAX);
    }
}
