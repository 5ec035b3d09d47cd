//! What the admin API can reach of the node.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use brim_store::{Selector, Store};

use super::audit::Audit;
use super::confirm::Confirmations;
use super::model::{DrainRequest, NodeStatus, OriginStatus, ReloadReport};
use super::rate::PurgeRates;
use super::tokens::Tokens;
use crate::clock::Clock;
use crate::config::ConfigErrors;
use crate::plugins::PluginRegistry;
use crate::request::explain::{Supposed, model::Explanation};
use crate::retry::Retries;
use crate::tasks::Tasks;
use crate::telemetry::{Family, Throttle};

/// The outcome of a reload, when it is there.
pub type Reloading = Pin<Box<dyn Future<Output = Result<ReloadReport, ConfigErrors>> + Send>>;

/// An explanation, when it is there.
pub type Explaining = Pin<Box<dyn Future<Output = Explanation> + Send>>;

/// Further forms of a URL that is purged.
pub type ResolveUrl = dyn Fn(&PurgeUrl) -> Vec<Selector> + Send + Sync;

/// Takes an endpoint of the origin of this name out of service, or puts it back.
pub type DrainEndpoint = dyn Fn(&str, &DrainRequest) -> Result<OriginStatus, NotDrained> + Send + Sync;

/// The site that an authority belongs to.
pub type SiteOf = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Counts an event of this family with these labels.
pub type CountEvent = dyn Fn(Family, &[&str]) + Send + Sync;

/// What holds purges back. Only where one of the last two is there is anything counted before a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PurgeBounds {
    /// Purges of a token in a minute that has no number of its own; 0: any number.
    pub per_minute: u32,
    /// Stored responses that one purge may hit unconfirmed.
    pub blast_radius_max: Option<u64>,
    /// The same as a percentage of all stored responses.
    pub blast_radius_share: Option<u32>,
}

/// The node as the admin API sees it. Clones share everything.
#[derive(Clone)]
pub struct AdminState {
    /// What a caller must show one of.
    pub tokens: Arc<Tokens>,
    /// Where it is kept what callers did.
    pub audit: Arc<Audit>,
    /// Keeps calls without a valid token from filling the audit log.
    pub strangers: Arc<Throttle>,
    /// How often a token may purge.
    pub rates: Arc<PurgeRates>,
    /// What lets a purge go beyond the blast radius.
    pub confirmations: Arc<Confirmations>,
    /// What holds purges back.
    pub purge_bounds: PurgeBounds,
    /// What the node is called in receipts.
    pub node_name: Arc<str>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Counts an event by its labels.
    pub count: Arc<CountEvent>,
    /// Where purges go.
    pub store: Store,
    /// Where plugins go.
    pub plugins: Arc<PluginRegistry>,
    /// Where work goes that outlives its request.
    pub tasks: Tasks,
    /// Figures of the node.
    pub status: Arc<dyn Fn() -> NodeStatus + Send + Sync>,
    /// The text of `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Reads the configuration again and applies it whole, or not at all.
    pub reload: Arc<dyn Fn() -> Reloading + Send + Sync>,
    /// Whether the node takes requests; if not, why.
    pub ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Names of the configured sites.
    pub sites: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// The site that an authority belongs to, by its name.
    pub site_of: Arc<SiteOf>,
    /// Under which other URLs responses to this one are stored, because the route's plugin rewrites the query. The URL as
    /// it was given is purged in any case.
    pub resolve_url: Arc<ResolveUrl>,
    /// Has validated what a soft purge of these made stale, the most asked for first; false: too much waits already.
    pub refresh: Arc<dyn Fn(Vec<Selector>) -> bool + Send + Sync>,
    /// Invalidation rules that failed and are asked again.
    pub retries: Retries,
    /// Says what would become of a request, and why.
    pub explain: Arc<dyn Fn(Supposed) -> Explaining + Send + Sync>,
    /// The origins and how their endpoints stand.
    pub origins: Arc<dyn Fn() -> Vec<OriginStatus> + Send + Sync>,
    /// Takes an endpoint of an origin out of service, or puts it back.
    pub drain: Arc<DrainEndpoint>,
    /// Fields that a request on the data port may have.
    pub header_count_max: usize,
}

/// Why an endpoint is not taken out of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotDrained {
    /// There is no origin of this name.
    NoOrigin,
    /// The origin has no such endpoint.
    NoEndpoint,
}

/// A URL to purge, taken apart the way the key of a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeUrl {
    /// `http` or `https`. A purge covers both; a plugin may want to know.
    pub scheme: String,
    /// Lower case, without the scheme's default port.
    pub authority: String,
    /// The path, never empty.
    pub path: String,
    /// What follows the `?`, if there is one.
    pub query: Option<String>,
}
