//! Which site and route a request belongs to: authority, then the longest path prefix.
//!
//! Always true:
//! - A table is immutable; a changed configuration is a new table, swapped whole.
//! - An exact host wins over a wildcard, a longer wildcard over a shorter one, `*` comes last.
//! - A prefix is a prefix of the raw path, byte by byte: nothing is decoded, so cache and origin cannot read it differently.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{HostPattern, RouteConfig, SiteConfig};
use crate::origin::{Origin, Origins};
use crate::telemetry::{Metrics, SiteMetrics, Throttle};

/// The routes of a configuration.
#[derive(Debug, Default)]
pub struct Routes {
    exact: HashMap<Box<str>, Arc<Site>>,
    /// Suffixes with their leading dot, longest first.
    suffixes: Vec<(Box<str>, Arc<Site>)>,
    any: Option<Arc<Site>>,
    all: Vec<Arc<Site>>,
}

/// A site: what purges call it, and its routes.
#[derive(Debug)]
pub struct Site {
    /// The site's name, part of every cache key below it.
    pub name: Arc<str>,
    /// Longest prefix first.
    routes: Vec<Arc<Route>>,
}

impl Site {
    /// The route of a raw path.
    pub fn route(&self, path: &str) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| path.starts_with(route.config.path.as_str()))
    }
}

impl Route {
    /// Tells the log that a forward failed.
    pub fn note_forward_failure(&self, target: &http::Uri, error: &crate::origin::ForwardError) {
        if let Some(held_back) = self.forward_failures.admit() {
            let error = crate::request::respond::chain(error);
            tracing::warn!(origin = %self.config.origin, %target, %error, held_back, "forward failed");
        }
    }
}

/// A route with what it needs at hand.
#[derive(Debug)]
pub struct Route {
    /// Its site's name.
    pub site: Arc<str>,
    /// Its checked configuration.
    pub config: RouteConfig,
    /// The origin that it forwards to.
    pub origin: Arc<Origin>,
    /// Its site's counters.
    pub metrics: Arc<SiteMetrics>,
    /// Keeps failed forwards from flooding the log.
    pub forward_failures: Throttle,
    /// The same for failed key rules.
    pub plugin_faults: Throttle,
}

impl Routes {
    /// Builds the table. A route whose origin is missing cannot occur in a checked configuration and is left out.
    pub fn new(sites: &[SiteConfig], origins: &Origins, metrics: &Metrics) -> Self {
        let mut table = Self::default();
        for site in sites {
            let name: Arc<str> = Arc::from(site.name.as_str());
            let counters = metrics.site(&name);
            let routes = site.routes.iter().filter_map(|config| {
                let origin = origins.get(&config.origin)?;
                Some(Arc::new(Route {
                    site: name.clone(),
                    config: config.clone(),
                    origin,
                    metrics: counters.clone(),
                    forward_failures: Throttle::default(),
                    plugin_faults: Throttle::default(),
                }))
            });
            let built = Arc::new(Site { name: name.clone(), routes: routes.collect() });
            for host in &site.hosts {
                table.add(host, &built);
            }
            table.all.push(built);
        }
        table.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        table
    }

    fn add(&mut self, host: &HostPattern, site: &Arc<Site>) {
        match host {
            HostPattern::Exact(name) => {
                self.exact.insert(name.as_str().into(), site.clone());
            }
            HostPattern::Suffix(suffix) => self.suffixes.push((suffix.as_str().into(), site.clone())),
            HostPattern::Any => self.any = Some(site.clone()),
        }
    }

    /// The site of an authority (lower case, with or without a port).
    pub fn site(&self, authority: &str) -> Option<&Arc<Site>> {
        let host = host_of(authority);
        self.exact
            .get(host)
            .or_else(|| self.suffixes.iter().find(|(suffix, _)| host.ends_with(&**suffix)).map(|(_, site)| site))
            .or(self.any.as_ref())
    }

    /// The site of that name.
    pub fn site_named(&self, name: &str) -> Option<&Arc<Site>> {
        self.all.iter().find(|site| &*site.name == name)
    }

    /// The sites in the order of the file.
    pub fn sites(&self) -> &[Arc<Site>] {
        &self.all
    }
}

/// The host of an authority without its port; an IPv6 address keeps its brackets.
pub fn host_of(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn host_of_drops_the_port_only() {
        for (authority, host) in
            [("a.example", "a.example"), ("a.example:8443", "a.example"), ("[::1]", "[::1]"), ("[::1]:80", "[::1]")]
        {
            assert_eq!(host_of(authority), host);
        }
    }
}
