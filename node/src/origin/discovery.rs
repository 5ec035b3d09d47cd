//! Endpoints that the DNS names: SRV records (RFC 2782) looked up in the background, and what becomes of the group of endpoints.
//!
//! Always true:
//! - An endpoint that is named again as before stays, with its connections, its health and its counters.
//! - One that is named no more gets no further request and finishes what it has.
//! - Endpoints that the configuration names stay whatever the DNS says.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Origin;
use super::endpoint::Endpoint;
use super::error::OriginsError;
use super::group::Group;
use super::health::Ejections;
use super::resolve::{Resolver, Schedule, Target};
use crate::config::{EndpointConfig, EndpointUrl, OriginConfig, ServiceConfig, limits};
use tokio_rustls::TlsConnector;

/// What endpoints of an origin are made with.
#[derive(Debug)]
pub(super) struct Maker {
    pub(super) config: OriginConfig,
    pub(super) connector: Option<Connector>,
    pub(super) ejections: Arc<Ejections>,
    pub(super) resolver: Resolver,
}

/// A TLS connector that can be shown.
#[derive(Clone)]
pub(super) struct Connector(pub(super) TlsConnector);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Maker {
    pub(super) fn endpoint(&self, config: &EndpointConfig) -> Result<Arc<Endpoint>, OriginsError> {
        let connector = self.connector.as_ref().map(|connector| &connector.0);
        Endpoint::new(&self.config, config, connector, &self.ejections, &self.resolver).map(Arc::new)
    }
}

/// The names whose targets are endpoints.
#[derive(Debug)]
pub(super) struct Discovery {
    services: Vec<(ServiceConfig, Schedule)>,
    /// The endpoints of the configuration, then those of each service.
    parts: Mutex<Vec<Vec<Arc<Endpoint>>>>,
    /// Held by the request that looks names up before anything is known.
    first: Semaphore,
}

impl Discovery {
    pub(super) fn new(services: &[ServiceConfig], fixed: Vec<Arc<Endpoint>>) -> Self {
        let mut parts = vec![fixed];
        parts.resize_with(1 + services.len(), Vec::new);
        let services = services.iter().map(|service| (service.clone(), Schedule::default())).collect();
        Self { services, parts: Mutex::new(parts), first: Semaphore::new(1) }
    }

    /// Why the last look-up of each name gave nothing, if it did.
    pub(super) fn failures(&self) -> Vec<String> {
        self.services.iter().filter_map(|(_, schedule)| schedule.failure()).collect()
    }
}

impl Origin {
    /// Looks names up whose time has come.
    pub(super) fn discover(self: &Arc<Self>, now: Instant) {
        for (n, (_, schedule)) in self.discovery.services.iter().enumerate() {
            if schedule.begin(now) {
                let origin = Arc::clone(self);
                tokio::spawn(async move { origin.look_up(n).await });
            }
        }
    }

    async fn look_up(&self, service: usize) {
        let Some((config, schedule)) = self.discovery.services.get(service) else { return };
        let found = self.maker.resolver.targets(&config.name).await;
        if let Some(targets) = schedule.end(&config.name, found) {
            self.discovered(service, config, &targets);
        }
    }

    /// Before anything is known: a request waits for the first answer, one of them asks.
    pub(super) async fn look_up_first(&self) {
        let _one_at_a_time = self.discovery.first.acquire().await;
        if !self.group.load().endpoints().is_empty() {
            return;
        }
        for (n, (config, _)) in self.discovery.services.iter().enumerate() {
            if let Ok((targets, _)) = self.maker.resolver.targets(&config.name).await {
                self.discovered(n, config, &targets);
            }
        }
    }

    fn discovered(&self, service: usize, config: &ServiceConfig, targets: &[Target]) {
        let wanted = endpoint_configs(config, targets);
        let mut parts = self.discovery.parts.lock();
        let Some(before) = parts.get_mut(service + 1) else { return };
        let mut after = Vec::with_capacity(wanted.len());
        let mut is_changed = false;
        for wanted in &wanted {
            let known = before.iter().find(|endpoint| *endpoint.url() == wanted.url).cloned();
            if let Some(known) = &known {
                is_changed |= known.set_share(wanted.weight, wanted.priority);
            }
            match known.map_or_else(|| self.maker.endpoint(wanted), Ok) {
                Ok(endpoint) => after.push(endpoint),
                Err(error) => tracing::warn!(origin = self.name, %error, "a target that cannot be an endpoint"),
            }
        }
        let is_gone = |endpoint: &&Arc<Endpoint>| !after.iter().any(|one| Arc::ptr_eq(one, endpoint));
        let gone: Vec<Arc<Endpoint>> = before.iter().filter(is_gone).cloned().collect();
        if !is_changed && gone.is_empty() && after.len() == before.len() {
            return;
        }
        *before = after;
        let group = Group::new(parts.iter().flatten().cloned());
        let names: Vec<Arc<str>> = group.endpoints().iter().map(|endpoint| endpoint.name()).collect();
        tracing::info!(origin = self.name, service = config.name, endpoints = ?names, "endpoints discovered");
        self.maker.ejections.of_endpoints(group.endpoints().len());
        self.group.store(Arc::new(group));
        drop(parts);
        for endpoint in gone {
            endpoint.pool().close();
            endpoint.health().leave();
        }
    }
}

/// Weights within those of the configuration, priorities in their order after the service's own.
fn endpoint_configs(service: &ServiceConfig, targets: &[Target]) -> Vec<EndpointConfig> {
    let priorities: BTreeSet<u16> = targets.iter().map(|target| target.priority).collect();
    let most = targets.iter().map(|target| u32::from(target.weight)).max().unwrap_or(1);
    let scale = |weight: u32| if most > limits::WEIGHT.max { weight * limits::WEIGHT.max / most } else { weight };
    let config = |target: &Target| EndpointConfig {
        url: EndpointUrl { tls: service.tls, host: target.host.clone(), port: target.port },
        weight: scale(u32::from(target.weight)).max(1),
        region: service.region.clone(),
        priority: service.priority
            + u32::try_from(priorities.iter().take_while(|one| **one < target.priority).count()).unwrap_or(0),
    };
    targets.iter().map(config).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_scaled_and_priorities_ranked() {
        let service =
            ServiceConfig { name: "_api._tcp.test".into(), tls: true, region: Some("eu".into()), priority: 2 };
        let target = |host: &str, weight, priority| Target { host: host.into(), port: 8443, weight, priority };
        let configs =
            endpoint_configs(&service, &[target("a", 60_000, 10), target("b", 0, 10), target("c", 30_000, 70)]);
        let facts: Vec<_> = configs.iter().map(|one| (one.url.to_string(), one.weight, one.priority)).collect();
        assert_eq!(
            facts,
            [("https://a:8443".into(), 1000, 2), ("https://b:8443".into(), 1, 2), ("https://c:8443".into(), 500, 3)]
        );
        assert!(configs.iter().all(|one| one.region.as_deref() == Some("eu")));
    }
}
