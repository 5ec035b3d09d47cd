//! What is done for an endpoint without a request: its name looked up, its round trip measured, connections kept open, checks made.
//!
//! Always true: each is one small task at a time, begun when its time has come, and bounded by the deadlines of what it does.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::{check, connect};
use crate::config::{Balance, CheckConfig, OriginConfig};

/// How often the round trip is measured, where a policy goes by it.
const MEASURE_EVERY: Duration = Duration::from_secs(30);
/// Connections that are to be kept open are opened no more often.
const WARMING_PAUSE: Duration = Duration::from_secs(1);

/// When what is due.
#[derive(Debug)]
pub(super) struct Upkeep {
    checks: Option<Checks>,
    /// When connections are next made that are kept open.
    next_warming: Mutex<Instant>,
    /// `None`: no policy goes by it.
    next_measurement: Option<Mutex<Instant>>,
}

/// The checks of one endpoint.
#[derive(Debug)]
struct Checks {
    config: CheckConfig,
    /// `None`: one is under way.
    next: Mutex<Option<Instant>>,
}

impl Upkeep {
    pub(super) fn of(origin: &OriginConfig) -> Self {
        let now = Instant::now();
        Self {
            checks: origin.health.clone().map(|config| Checks { config, next: Mutex::new(Some(now)) }),
            next_warming: Mutex::new(now),
            next_measurement: (origin.balance == Balance::Geographic).then(|| Mutex::new(now)),
        }
    }
}

impl Endpoint {
    /// What is to be done now and then: closing what is too old, opening what is to be kept open, checking.
    pub(super) fn tend(self: &Arc<Self>, now: Instant, reaps: bool) {
        if reaps {
            self.pool().reap(now);
        }
        // An ejection ends when its time is over, also where nobody asks.
        self.health().is_usable(now);
        self.resolve(now);
        self.measure(now);
        self.warm(now);
        self.check(now);
    }

    /// Looks its name up when that is due.
    fn resolve(self: &Arc<Self>, now: Instant) {
        if !self.addresses().is_due(now) {
            return;
        }
        let endpoint = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(addresses) = endpoint.addresses().refresh().await {
                tracing::info!(endpoint = %endpoint.name(), ?addresses, "resolved");
                endpoint.pool().leave_all_but(addresses);
            }
        });
    }

    /// Measures the round trip now and then, where a policy goes by it: kept connections say nothing new of it.
    fn measure(self: &Arc<Self>, now: Instant) {
        let Some(next) = &self.upkeep.next_measurement else { return };
        let mut next = next.lock();
        if *next > now {
            return;
        }
        *next = now + MEASURE_EVERY;
        let endpoint = Arc::clone(self);
        tokio::spawn(async move {
            // It notes how long it took.
            let _ = connect::open_stream(&endpoint, Instant::now() + endpoint.connect_timeout()).await;
        });
    }

    /// Opens connections that are to be kept open, as many as are missing. After one that failed it waits.
    fn warm(self: &Arc<Self>, now: Instant) {
        if self.limits.connections_min == 0 || !self.health().is_usable(now) {
            return;
        }
        if *self.upkeep.next_warming.lock() > now {
            return;
        }
        while let Some(permit) = self.pool().permit_below_floor() {
            // What an endpoint closes at once is not opened again at once.
            *self.upkeep.next_warming.lock() = now + WARMING_PAUSE;
            let endpoint = Arc::clone(self);
            tokio::spawn(async move {
                match connect::connect(&endpoint, permit).await {
                    Ok(lease) => {
                        endpoint.stats().count_warmed();
                        // Unused, it goes to the pool.
                        drop(lease);
                    }
                    Err(error) => {
                        tracing::debug!(endpoint = %endpoint.name(), error = error.as_detail(), "a connection that is to be kept open");
                    }
                }
            });
        }
    }

    /// Begins a check when its time has come.
    fn check(self: &Arc<Self>, now: Instant) {
        let Some(checks) = &self.upkeep.checks else { return };
        if checks.next.lock().take_if(|next| *next <= now).is_none() {
            return;
        }
        let endpoint = Arc::clone(self);
        tokio::spawn(async move {
            let Some(Checks { config, next }) = &endpoint.upkeep.checks else { return };
            let found = check::check(&endpoint, config).await;
            let after = (config.healthy_after, config.unhealthy_after);
            if endpoint.health().checked(found, after, Instant::now()) {
                tracing::info!(endpoint = %endpoint.name(), "endpoint is back");
            }
            *next.lock() = Some(Instant::now() + check::pause(config));
        });
    }
}
