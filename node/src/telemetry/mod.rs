//! What the node says about itself: metrics, the access log, its own log.
//!
//! Always true:
//! - Telling never fails a request and never makes one wait: what cannot be told is dropped and counted.
//! - One record a request, [`AccessRecord`], feeds both the access log and the metrics, so they never disagree.
//! - The words are those of RFC 9211 and of the stages.
//!
//! Not here: what is measured (the stages fill the record; stores, origins and plugins keep counters of their own, which
//! are read when somebody scrapes).

pub mod access_log;
mod exposition;
mod families;
mod histogram;
mod json;
pub mod log;
pub mod metrics;
mod record;
mod shards;
mod throttle;

pub use self::access_log::{AccessLogError, AccessLogger};
pub use self::exposition::{CONTENT_TYPE, Number, Scrape};
pub use self::families::{Family, Kind, documentation};
pub use self::metrics::{Metrics, SiteMetrics, Totals};
pub use self::record::{AccessRecord, Outcome, StageTimes};
pub use self::throttle::Throttle;

use crate::config::AccessLog;

/// Metrics and access log of a node.
#[derive(Debug)]
pub struct Telemetry {
    /// Counters, and what is asked when somebody scrapes.
    pub metrics: Metrics,
    /// One JSON line a request.
    pub access_log: AccessLogger,
}

impl Telemetry {
    /// Starts the access log's writer.
    pub fn start(access_log: &AccessLog) -> Result<Self, AccessLogError> {
        Ok(Self { metrics: Metrics::new(), access_log: AccessLogger::start(access_log)? })
    }

    /// A request has been answered and its content sent, or given up. `site` is `None` if none was found.
    pub fn request(&self, site: Option<&SiteMetrics>, record: &AccessRecord<'_>) {
        self.metrics.request(site, record);
        self.access_log.append(record);
    }

    /// The answer to `GET /metrics`, of the type [`CONTENT_TYPE`].
    pub fn scrape(&self) -> String {
        let mut scrape = self.metrics.scrape();
        scrape.set(Family::AccessLogLines, &[], self.access_log.written());
        scrape.set(Family::AccessLogDropped, &[], self.access_log.dropped());
        scrape.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::record::tests::record;
    use super::*;

    #[test]
    fn one_record_feeds_the_metrics_and_the_access_log() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let telemetry = Telemetry::start(&AccessLog::File(file.clone())).unwrap();
        let site = telemetry.metrics.site("shop");
        telemetry.request(Some(&site), &record());
        telemetry.access_log.close();
        assert_eq!(std::fs::read_to_string(file).unwrap().lines().count(), 1);
        let text = telemetry.scrape();
        assert!(text.contains("brim_requests_total{site=\"shop\",outcome=\"hit\",status=\"2xx\"} 1\n"), "{text}");
        assert!(text.contains("brim_access_log_lines_total 1\n"), "{text}");
        assert!(text.contains("brim_access_log_dropped_total 0\n"), "{text}");
    }
}
