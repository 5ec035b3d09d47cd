//! The counters of the node, and the answer to `GET /metrics`.
//!
//! Always true:
//! - Counting a request takes no lock and no allocation: its counters are indices into `shards::Counters`.
//! - Series are bounded: [`SITES_MAX`] sites, [`LABELLED_MAX`] combinations of labels of rare events; what is over is counted
//!   in a series of its own or in `brim_metrics_series_dropped_total`.
//! - What others count themselves (listeners, store, origins, plugins) is asked for when somebody scrapes, never copied before.
//!
//! Not here: names and meanings (`families`), the text format (`exposition`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use brim_semantics::ForwardReason;
use parking_lot::{Mutex, RwLock};

use super::exposition::Scrape;
use super::families::Family;
use super::histogram::{self, BOUNDS_US, BUCKETS};
use super::record::{AccessRecord, Outcome};
use super::shards::Counters;

/// Sites with series of their own; later ones share [`OTHER_SITE`]. A thousand sites are 22 000 series at most.
pub const SITES_MAX: usize = 1_000;
/// The site label of those over [`SITES_MAX`].
pub const OTHER_SITE: &str = "other";
/// Combinations of labels of [`Metrics::count_labelled`]; there are some dozen in practice.
pub const LABELLED_MAX: usize = 2_000;

/// The outcomes that a metric tells apart.
const OUTCOMES: [&str; 4] = ["hit", "forward", "collapsed", "refused"];
const HIT: usize = 0;
/// Classes of status; what is none of them cannot be sent.
const STATUSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const REASONS: [ForwardReason; 8] = [
    ForwardReason::Bypass,
    ForwardReason::Method,
    ForwardReason::UriMiss,
    ForwardReason::VaryMiss,
    ForwardReason::Miss,
    ForwardReason::Request,
    ForwardReason::Stale,
    ForwardReason::Partial,
];

fn outcome_index(record: &AccessRecord<'_>) -> usize {
    match record.outcome {
        Outcome::Hit => HIT,
        Outcome::Forward(_) if record.is_collapsed => 2,
        Outcome::Forward(_) => 1,
        Outcome::Refused => 3,
    }
}

fn status_index(status: u16) -> usize {
    usize::from((status / 100).clamp(1, 5)) - 1
}

/// Where the counters of a site are.
mod site_at {
    pub(super) const REQUESTS: usize = 0;
    pub(super) const SENT: usize = super::OUTCOMES.len() * super::STATUSES.len();
    pub(super) const RECEIVED: usize = SENT + 1;
    pub(super) const KEYS_CUT: usize = RECEIVED + 1;
    pub(super) const UNTAGGED: usize = KEYS_CUT + 1;
    pub(super) const CONTENTS_UNREAD: usize = UNTAGGED + 1;
    pub(super) const INVALIDATION_FAILURES: usize = CONTENTS_UNREAD + 1;
    pub(super) const COUNT: usize = INVALIDATION_FAILURES + 1;
}

/// Where the counters of the node are.
mod node_at {
    use super::BUCKETS;
    /// Buckets and the sum in microseconds.
    pub(super) const HISTOGRAM: usize = BUCKETS + 1;
    pub(super) const REASONS: usize = 0;
    pub(super) const STORED: usize = REASONS + super::REASONS.len();
    pub(super) const FORWARD: usize = STORED + 1;
    pub(super) const REQUEST: usize = FORWARD + HISTOGRAM;
    pub(super) const COUNT: usize = REQUEST + super::OUTCOMES.len() * HISTOGRAM;
}

/// The counters of one site: found once, when the routes are built, and kept with the site.
#[derive(Debug)]
pub struct SiteMetrics(Counters<{ site_at::COUNT }>);

/// Requests of the whole node, for `/v1/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// All of them.
    pub requests: u64,
    /// Answered from the store.
    pub hits: u64,
    /// Answered by a forward request of their own.
    pub forwards: u64,
    /// Answered by another request's forward.
    pub collapsed: u64,
    /// Answered by the node itself.
    pub refused: u64,
}

impl Totals {
    /// Hits by all requests that the cache could have answered; 0 before the first.
    pub fn hit_ratio(&self) -> f64 {
        let asked = self.hits + self.forwards + self.collapsed;
        // Above 2^53 requests the last digits are lost, which no ratio shows.
        if asked == 0 { 0.0 } else { self.hits as f64 / asked as f64 }
    }
}

type Source = Box<dyn Fn(&mut Scrape) + Send + Sync>;
type Labelled = BTreeMap<(Family, Vec<String>), u64>;

/// All counters of a node.
pub struct Metrics {
    node: Counters<{ node_at::COUNT }>,
    /// Requests that belong to no site.
    no_site: SiteMetrics,
    sites: RwLock<BTreeMap<String, Arc<SiteMetrics>>>,
    labelled: Mutex<Labelled>,
    sources: Mutex<Vec<Source>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("totals", &self.totals()).finish_non_exhaustive()
    }
}

impl Metrics {
    /// All at 0.
    pub fn new() -> Self {
        Self {
            node: Counters::new(),
            no_site: SiteMetrics(Counters::new()),
            sites: RwLock::default(),
            labelled: Mutex::default(),
            sources: Mutex::default(),
        }
    }

    /// The counters of a site. They outlive the site, so that its counts never fall back. Takes a lock: ask once, keep it.
    pub fn site(&self, name: &str) -> Arc<SiteMetrics> {
        if let Some(site) = self.sites.read().get(name) {
            return site.clone();
        }
        let mut sites = self.sites.write();
        let name = if sites.len() < SITES_MAX || sites.contains_key(name) { name } else { OTHER_SITE };
        sites.entry(name.to_owned()).or_insert_with(|| Arc::new(SiteMetrics(Counters::new()))).clone()
    }

    /// Counts a finished request.
    pub fn request(&self, site: Option<&SiteMetrics>, record: &AccessRecord<'_>) {
        let SiteMetrics(site) = site.unwrap_or(&self.no_site);
        let outcome = outcome_index(record);
        site.add(site_at::REQUESTS + outcome * STATUSES.len() + status_index(record.status), 1);
        if record.sent_bytes > 0 {
            site.add(site_at::SENT, record.sent_bytes);
        }
        if record.received_bytes > 0 {
            site.add(site_at::RECEIVED, record.received_bytes);
        }
        self.observe(node_at::REQUEST + outcome * node_at::HISTOGRAM, record.times.total);
        if let Outcome::Forward(reason) = record.outcome {
            if let Some(place) = REASONS.iter().position(|known| *known == reason) {
                self.node.add(node_at::REASONS + place, 1);
            }
            if !record.times.forward.is_zero() {
                self.observe(node_at::FORWARD, record.times.forward);
            }
        }
        if record.is_stored {
            self.node.add(node_at::STORED, 1);
        }
    }

    /// Counts a rare event by its labels, such as a reload. Takes a lock and allocates: not for requests.
    pub fn count_labelled(&self, family: Family, labels: &[&str]) {
        let mut labelled = self.labelled.lock();
        let key = (family, labels.iter().map(|label| (*label).to_owned()).collect());
        let is_full = labelled.len() >= LABELLED_MAX && !labelled.contains_key(&key);
        let key = if is_full { (Family::SeriesDropped, Vec::new()) } else { key };
        *labelled.entry(key).or_default() += 1;
    }

    /// Asks `source` for samples at every scrape. It should answer at once and set each series once.
    pub fn on_scrape(&self, source: impl Fn(&mut Scrape) + Send + Sync + 'static) {
        self.sources.lock().push(Box::new(source));
    }

    /// Requests of the whole node.
    pub fn totals(&self) -> Totals {
        let mut by_outcome = [0_u64; OUTCOMES.len()];
        let sites = self.sites.read();
        for site in sites.values().map(Arc::as_ref).chain([&self.no_site]) {
            for (outcome, total) in by_outcome.iter_mut().enumerate() {
                *total += site.requests(outcome);
            }
        }
        let [hits, forwards, collapsed, refused] = by_outcome;
        Totals { requests: by_outcome.iter().sum(), hits, forwards, collapsed, refused }
    }

    /// All samples of this moment.
    pub fn scrape(&self) -> Scrape {
        let mut scrape = Scrape::new();
        for (place, reason) in REASONS.into_iter().enumerate() {
            scrape.set(Family::Forwards, &[reason.as_str()], self.node.sum(node_at::REASONS + place));
        }
        scrape.set(Family::ResponsesStored, &[], self.node.sum(node_at::STORED));
        for (outcome, label) in OUTCOMES.into_iter().enumerate() {
            self.histogram(
                &mut scrape,
                Family::RequestDuration,
                &[label],
                node_at::REQUEST + outcome * node_at::HISTOGRAM,
            );
        }
        self.histogram(&mut scrape, Family::ForwardDuration, &[], node_at::FORWARD);
        self.no_site.sample("", &mut scrape);
        for (name, site) in self.sites.read().iter() {
            site.sample(name, &mut scrape);
        }
        let labelled = self.labelled.lock();
        for ((family, labels), count) in labelled.iter() {
            let labels: Vec<_> = labels.iter().map(String::as_str).collect();
            scrape.set(*family, &labels, *count);
        }
        if !labelled.contains_key(&(Family::SeriesDropped, Vec::new())) {
            scrape.set(Family::SeriesDropped, &[], 0_u64);
        }
        drop(labelled);
        for source in self.sources.lock().iter() {
            source(&mut scrape);
        }
        scrape
    }

    fn observe(&self, at: usize, duration: std::time::Duration) {
        self.node.add(at + histogram::bucket(duration), 1);
        self.node.add(at + BUCKETS, u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    fn histogram(&self, scrape: &mut Scrape, family: Family, labels: &[&str], at: usize) {
        let seconds = |us: u64| std::time::Duration::from_micros(us).as_secs_f64();
        let buckets: [u64; BUCKETS] = std::array::from_fn(|bucket| self.node.sum(at + bucket));
        scrape.histogram(family, labels, &BOUNDS_US.map(seconds), &buckets, seconds(self.node.sum(at + BUCKETS)));
    }
}

impl SiteMetrics {
    /// Counts a response of which some surrogate keys cannot be kept.
    pub fn note_keys_cut(&self) {
        self.0.add(site_at::KEYS_CUT, 1);
    }

    /// Counts a response that is not stored for want of a plugin's surrogate keys.
    pub fn note_untagged(&self) {
        self.0.add(site_at::UNTAGGED, 1);
    }

    /// Counts a content that a rule was to read and cannot.
    pub fn note_content_unread(&self) {
        self.0.add(site_at::CONTENTS_UNREAD, 1);
    }

    /// Counts a write of which the plugin could not say what it purges.
    pub fn note_invalidation_failed(&self) {
        self.0.add(site_at::INVALIDATION_FAILURES, 1);
    }

    fn requests(&self, outcome: usize) -> u64 {
        (0..STATUSES.len()).map(|status| self.0.sum(site_at::REQUESTS + outcome * STATUSES.len() + status)).sum()
    }

    /// Requests that never happened in this combination have no series.
    fn sample(&self, name: &str, scrape: &mut Scrape) {
        for (outcome, outcome_label) in OUTCOMES.into_iter().enumerate() {
            for (status, status_label) in STATUSES.into_iter().enumerate() {
                let count = self.0.sum(site_at::REQUESTS + outcome * STATUSES.len() + status);
                if count > 0 {
                    scrape.set(Family::Requests, &[name, outcome_label, status_label], count);
                }
            }
        }
        scrape.set(Family::CacheHits, &[name], self.requests(HIT));
        scrape.set(Family::BytesSent, &[name], self.0.sum(site_at::SENT));
        scrape.set(Family::BytesReceived, &[name], self.0.sum(site_at::RECEIVED));
        scrape.set(Family::SurrogateKeysCut, &[name], self.0.sum(site_at::KEYS_CUT));
        scrape.set(Family::Untagged, &[name], self.0.sum(site_at::UNTAGGED));
        scrape.set(Family::ContentsUnread, &[name], self.0.sum(site_at::CONTENTS_UNREAD));
        scrape.set(Family::InvalidationFailures, &[name], self.0.sum(site_at::INVALIDATION_FAILURES));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::super::record::tests::record;
    use super::*;

    fn text(metrics: &Metrics) -> String {
        metrics.scrape().finish()
    }

    #[track_caller]
    fn assert_has(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "no line {line} in:\n{text}");
    }

    #[test]
    fn a_request_is_counted_once_in_each_family_it_belongs_to() {
        let metrics = Metrics::new();
        let site = metrics.site("shop");
        metrics.request(Some(&site), &record());
        let times = crate::telemetry::StageTimes { forward: Duration::from_millis(3), ..record().times };
        let miss =
            AccessRecord { outcome: Outcome::Forward(ForwardReason::UriMiss), times, is_stored: true, ..record() };
        metrics.request(Some(&site), &miss);
        metrics.request(Some(&site), &AccessRecord { is_collapsed: true, is_stored: false, ..miss.clone() });
        metrics.request(None, &AccessRecord { outcome: Outcome::Refused, status: 421, ..record() });
        let text = text(&metrics);
        assert_has(&text, "brim_requests_total{site=\"shop\",outcome=\"hit\",status=\"2xx\"} 1");
        assert_has(&text, "brim_requests_total{site=\"shop\",outcome=\"forward\",status=\"2xx\"} 1");
        assert_has(&text, "brim_requests_total{site=\"shop\",outcome=\"collapsed\",status=\"2xx\"} 1");
        assert_has(&text, "brim_requests_total{site=\"\",outcome=\"refused\",status=\"4xx\"} 1");
        assert_has(&text, "brim_cache_hits_total{site=\"shop\"} 1");
        assert_has(&text, "brim_forwards_total{reason=\"uri-miss\"} 2");
        assert_has(&text, "brim_forwards_total{reason=\"stale\"} 0");
        assert_has(&text, "brim_forward_duration_seconds_bucket{le=\"0.0025\"} 0");
        assert_has(&text, "brim_forward_duration_seconds_bucket{le=\"0.005\"} 2");
        assert_has(&text, "brim_request_duration_seconds_count{outcome=\"hit\"} 1");
        assert_has(&text, "brim_responses_stored_total 1");
        assert_has(&text, "brim_sent_bytes_total{site=\"shop\"} 3702");
        let totals = metrics.totals();
        assert_eq!(totals, Totals { requests: 4, hits: 1, forwards: 1, collapsed: 1, refused: 1 });
        assert!((totals.hit_ratio() - 1.0 / 3.0).abs() < 1e-9);
        assert!(Totals::default().hit_ratio().abs() < 1e-9);
    }

    #[test]
    fn labelled_counts_and_what_others_count_have_their_series() {
        let metrics = Metrics::new();
        metrics.count_labelled(Family::ConfigReloads, &["applied"]);
        metrics.count_labelled(Family::ConfigReloads, &["applied"]);
        metrics.on_scrape(|scrape| scrape.set(Family::StoreMemoryBytes, &[], 77_u64));
        let text = text(&metrics);
        assert_has(&text, "brim_config_reloads_total{outcome=\"applied\"} 2");
        assert_has(&text, "brim_store_memory_bytes 77");
    }

    /// The limits are reached here, with what then happens.
    #[test]
    fn sites_and_labels_are_bounded() {
        let metrics = Metrics::new();
        for number in 0..=SITES_MAX {
            metrics.site(&format!("site-{number}"));
        }
        assert!(Arc::ptr_eq(&metrics.site("one more"), &metrics.site(OTHER_SITE)));
        assert!(!Arc::ptr_eq(&metrics.site("site-0"), &metrics.site(OTHER_SITE)));
        for number in 0..LABELLED_MAX + 3 {
            metrics.count_labelled(Family::ConfigReloads, &[&number.to_string()]);
        }
        assert_has(&text(&metrics), "brim_metrics_series_dropped_total 3");
    }

    /// Two samples of one series make Prometheus drop the whole scrape.
    #[test]
    fn no_series_is_exposed_twice() {
        let metrics = Metrics::new();
        metrics.request(Some(&metrics.site("a")), &record());
        metrics.request(None, &record());
        let text = text(&metrics);
        let series: Vec<_> =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' ')).collect();
        let distinct: BTreeSet<_> = series.iter().map(|(series, _)| series).collect();
        assert_eq!(series.len(), distinct.len(), "{text}");
    }

    #[test]
    fn every_status_falls_into_a_class() {
        for (status, class) in [(100, "1xx"), (200, "2xx"), (304, "3xx"), (404, "4xx"), (599, "5xx"), (999, "5xx")] {
            assert_eq!(STATUSES[status_index(status)], class);
        }
    }
}
