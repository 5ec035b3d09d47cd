//! The record of one request: filled by the stages, read by Cache-Status, the access log and the metrics.
//!
//! Always true:
//! - A stage only adds; what is written here decides nothing.
//! - The words are those of RFC 9211 and of the stages.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use brim_semantics::{ForwardReason, KeyHash};
use http::{HeaderName, StatusCode};

use crate::origin::Endpoint;
use crate::plugins::ActivePlugin;
use crate::route::Route;
use crate::telemetry::{Outcome, StageTimes};

/// What is known of a request and of its answer.
pub struct Exchange {
    /// When the request's head had been read, for durations.
    pub started: Instant,
    /// The same, for the rules and the log.
    pub time: SystemTime,
    /// The route, once found.
    pub route: Option<Arc<Route>>,
    /// The cache key's hash, once derived.
    pub key: Option<KeyHash>,
    /// How it was answered.
    pub outcome: Outcome,
    /// The status that the origin sent, if it was asked.
    pub forward_status: Option<StatusCode>,
    /// The origin's response was stored, or a stored one freshened by it.
    pub is_stored: bool,
    /// The response belongs to another request's fetch.
    pub is_collapsed: bool,
    /// Freshness lifetime minus age, in seconds, of a response that is in the store.
    pub ttl_s: Option<i64>,
    /// The reason, where the outcome alone does not say it.
    pub detail: Option<Cow<'static, str>>,
    /// The endpoint that answered.
    pub endpoint: Option<Arc<Endpoint>>,
    /// The plugin that shaped the key.
    pub plugin: Option<Arc<ActivePlugin>>,
    /// How it failed, if it did.
    pub plugin_fault: Option<&'static str>,
    /// How long the stages took.
    pub times: StageTimes,
}

impl Exchange {
    /// A record for a request whose head has just been read.
    pub fn begin(time: SystemTime) -> Self {
        Self {
            started: Instant::now(),
            time,
            route: None,
            key: None,
            outcome: Outcome::Refused,
            forward_status: None,
            is_stored: false,
            is_collapsed: false,
            ttl_s: None,
            detail: None,
            endpoint: None,
            plugin: None,
            plugin_fault: None,
            times: StageTimes::default(),
        }
    }

    /// The request goes, or went, to the origin.
    pub fn forwarded(&mut self, reason: ForwardReason) {
        self.outcome = Outcome::Forward(reason);
    }

    /// The fields that the key rule declared: they are in the key, so the origin may see them.
    pub fn keyed_fields(&self) -> &[HeaderName] {
        self.plugin.as_ref().map_or(&[], |active| &active.plugin.description().inputs.headers)
    }

    /// Notes a reason; the first one stays, because later ones follow from it.
    pub fn explain(&mut self, detail: impl Into<Cow<'static, str>>) {
        if self.detail.is_none() {
            self.detail = Some(detail.into());
        }
    }
}
