//! Whether an endpoint is fit for requests: by what checks find, by what requests meet, by what an operator says.
//!
//! Always true:
//! - Checks and requests are judged apart: an endpoint is out as long as either says so. A check that succeeds ends an ejection: it
//!   is a later word on the same matter.
//! - Not more endpoints of an origin are ejected at a time than [`EjectionConfig::share_max`] allows, and one of several always
//!   may be.
//! - An endpoint that comes back grows into its share over `slow_start`.
//! - What is in order costs a request two atomic additions and no lock.
//!
//! Not here: making the checks (`check`), what happens when too many are out (`Origin::choose`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::EjectionConfig;

/// An endpoint that comes back begins with this part of its weight.
const SLOW_START_MIN: f64 = 0.1;
/// Requests in an interval before their success rate says anything.
const RATE_REQUESTS_MIN: u64 = 50;
/// Endpoints with enough requests before one of them can be an outlier.
const RATE_ENDPOINTS_MIN: usize = 3;
/// How many standard deviations below the mean a success rate is an outlier's, and how far below it has to be at least.
const RATE_DEVIATIONS: f64 = 1.9;
const RATE_DISTANCE_MIN: f64 = 0.1;

/// Why an endpoint gets no requests, or that it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// It gets its share of the requests.
    Healthy,
    /// Checks fail.
    Unhealthy,
    /// Requests failed; it is left alone for a while.
    Ejected,
    /// An operator takes it out of service.
    Draining,
}

impl EndpointState {
    /// All of them, as metrics name them.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Unhealthy, Self::Ejected, Self::Draining];

    /// The word for it in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
        }
    }
}

/// How an endpoint stands, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthSnapshot {
    /// Whether it gets requests.
    pub state: EndpointState,
    /// Why it does not.
    pub reason: Option<String>,
    /// Times it was ejected.
    pub ejections: u64,
    /// Checks that were made, and those of them that failed.
    pub checks: (u64, u64),
}

/// What the endpoints of one origin share: how many of them are ejected.
#[derive(Debug)]
pub(super) struct Ejections {
    config: EjectionConfig,
    slow_start: Duration,
    count: AtomicUsize,
    count_max: AtomicUsize,
}

impl Ejections {
    pub(super) fn new(config: &EjectionConfig, slow_start: Duration, endpoints: usize) -> Arc<Self> {
        let (count, count_max) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let ejections = Arc::new(Self { config: config.clone(), slow_start, count, count_max });
        ejections.of_endpoints(endpoints);
        ejections
    }

    /// There are so many endpoints now.
    pub(super) fn of_endpoints(&self, endpoints: usize) {
        let share = endpoints * usize::try_from(self.config.share_max).unwrap_or(0) / 100;
        // One that is alone has nobody to take its place.
        let count_max = if endpoints < 2 || self.config.share_max == 0 { 0 } else { share.max(1) };
        self.count_max.store(count_max, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        let max = self.count_max.load(Ordering::Relaxed);
        let more = |count: usize| (count < max).then_some(count + 1);
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Health {
    siblings: Arc<Ejections>,
    /// Something may be wrong: look at `state`.
    is_out: AtomicBool,
    /// It has come back and does not have its whole share yet.
    is_starting: AtomicBool,
    errors_in_a_row: AtomicU32,
    good: AtomicU64,
    bad: AtomicU64,
    ejections: AtomicU64,
    checks: AtomicU64,
    failed_checks: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the checks say, if any has ended.
    is_fit: Option<bool>,
    /// Checks in a row that say otherwise.
    contradictions: u32,
    check_failure: String,
    ejected_until: Option<Instant>,
    ejection_reason: String,
    /// Ejections without a long good time between them.
    repeated: u32,
    last_return: Option<Instant>,
    is_draining: bool,
    /// Checks in a row that succeeded.
    good_checks: u32,
}

impl State {
    fn is_usable(&self) -> bool {
        !self.is_draining && self.is_fit != Some(false) && self.ejected_until.is_none()
    }
}

impl Health {
    pub(super) fn new(siblings: Arc<Ejections>) -> Self {
        Self {
            siblings,
            is_out: AtomicBool::new(false),
            is_starting: AtomicBool::new(false),
            errors_in_a_row: AtomicU32::new(0),
            good: AtomicU64::new(0),
            bad: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            checks: AtomicU64::new(0),
            failed_checks: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// Whether it should get requests.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        if !self.is_out.load(Ordering::Relaxed) {
            return true;
        }
        let mut state = self.state.lock();
        self.end_ejection(&mut state, now, |until| until <= now);
        state.is_usable()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_out.load(Ordering::Relaxed) && self.state.lock().is_draining
    }

    /// The part of its weight that it gets, from a tenth to 1.
    pub(super) fn share(&self, now: Instant) -> f64 {
        if !self.is_starting.load(Ordering::Relaxed) {
            return 1.0;
        }
        let since = self.state.lock().last_return.map(|back| now.saturating_duration_since(back));
        match since {
            Some(since) if since < self.siblings.slow_start => {
                (since.as_secs_f64() / self.siblings.slow_start.as_secs_f64()).max(SLOW_START_MIN)
            }
            Some(_) | None => {
                self.is_starting.store(false, Ordering::Relaxed);
                1.0
            }
        }
    }

    /// A request went well to its end.
    pub(super) fn note_good(&self) {
        self.good.fetch_add(1, Ordering::Relaxed);
        if self.errors_in_a_row.load(Ordering::Relaxed) > 0 {
            self.errors_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// A request met what speaks against the endpoint.
    pub(super) fn note_bad(&self, now: Instant) {
        self.bad.fetch_add(1, Ordering::Relaxed);
        let errors = self.errors_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        let errors_max = self.siblings.config.consecutive_errors;
        if errors_max > 0 && errors >= errors_max {
            self.eject(format!("{errors} requests in a row failed"), now);
        }
    }

    /// Takes it out for a while, longer each time, if not too many are out already.
    fn eject(&self, reason: String, now: Instant) {
        let config = &self.siblings.config;
        let mut state = self.state.lock();
        if state.ejected_until.is_some() || !self.siblings.take() {
            return;
        }
        let was_good = state.last_return.is_some_and(|back| now.saturating_duration_since(back) >= config.time_max);
        state.repeated = if was_good { 1 } else { state.repeated.saturating_add(1) };
        let time = config.time.saturating_mul(state.repeated).min(config.time_max);
        tracing::warn!(reason, ?time, "endpoint ejected");
        state.ejected_until = Some(now + time);
        state.ejection_reason = reason;
        self.ejections.fetch_add(1, Ordering::Relaxed);
        self.errors_in_a_row.store(0, Ordering::Relaxed);
        self.is_out.store(true, Ordering::Relaxed);
    }

    fn end_ejection(&self, state: &mut State, now: Instant, is_over: impl Fn(Instant) -> bool) {
        if state.ejected_until.take_if(|until| is_over(*until)).is_some() {
            self.siblings.give_back();
            self.settle(state, now);
        }
    }

    /// After a change that may have made it usable.
    fn settle(&self, state: &mut State, now: Instant) {
        let is_usable = state.is_usable();
        if is_usable && self.is_out.load(Ordering::Relaxed) {
            state.last_return = Some(now);
            self.errors_in_a_row.store(0, Ordering::Relaxed);
            self.is_starting.store(!self.siblings.slow_start.is_zero(), Ordering::Relaxed);
        }
        self.is_out.store(!is_usable, Ordering::Relaxed);
    }

    /// What a check found. `after`: how many in a row change what is thought of it, for the better and for the worse; the very first
    /// one decides alone. True: it has come back.
    pub(super) fn checked(&self, found: Result<(), String>, after: (u32, u32), now: Instant) -> bool {
        self.checks.fetch_add(1, Ordering::Relaxed);
        self.failed_checks.fetch_add(u64::from(found.is_err()), Ordering::Relaxed);
        let mut state = self.state.lock();
        let was_usable = state.is_usable();
        let is_good = found.is_ok();
        if let Err(reason) = found {
            state.check_failure = reason;
        }
        state.contradictions = if state.is_fit == Some(is_good) { 0 } else { state.contradictions + 1 };
        let enough = if is_good { after.0 } else { after.1 };
        if state.contradictions > 0 && (state.is_fit.is_none() || state.contradictions >= enough) {
            if !is_good {
                tracing::warn!(reason = state.check_failure, "endpoint unhealthy");
            }
            (state.is_fit, state.contradictions) = (Some(is_good), 0);
        }
        state.good_checks = if is_good { state.good_checks.saturating_add(1) } else { 0 };
        if state.good_checks >= after.0 {
            self.end_ejection(&mut state, now, |_| true);
        }
        self.settle(&mut state, now);
        !was_usable && state.is_usable()
    }

    /// An operator takes it out of service, or back.
    pub(super) fn drain(&self, is_draining: bool, now: Instant) {
        let mut state = self.state.lock();
        state.is_draining = is_draining;
        self.settle(&mut state, now);
    }

    /// The endpoint is one no more: it does not count among the ejected.
    pub(super) fn leave(&self) {
        let mut state = self.state.lock();
        self.end_ejection(&mut state, Instant::now(), |_| true);
    }

    /// Requests that went well and badly since the last call.
    fn take_rate(&self) -> (u64, u64) {
        (self.good.swap(0, Ordering::Relaxed), self.bad.swap(0, Ordering::Relaxed))
    }

    pub(super) fn snapshot(&self, now: Instant) -> HealthSnapshot {
        let mut state = self.state.lock();
        self.end_ejection(&mut state, now, |until| until <= now);
        let (now_is, reason) = if state.is_draining {
            (EndpointState::Draining, Some("by the admin API".to_owned()))
        } else if state.is_fit == Some(false) {
            (EndpointState::Unhealthy, Some(state.check_failure.clone()))
        } else if state.ejected_until.is_some() {
            (EndpointState::Ejected, Some(state.ejection_reason.clone()))
        } else {
            (EndpointState::Healthy, None)
        };
        HealthSnapshot {
            state: now_is,
            reason,
            ejections: self.ejections.load(Ordering::Relaxed),
            checks: (self.checks.load(Ordering::Relaxed), self.failed_checks.load(Ordering::Relaxed)),
        }
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        if self.state.get_mut().ejected_until.is_some() {
            self.siblings.give_back();
        }
    }
}

/// Ejects whose requests went so much worse than those of the others in the interval that ends now.
pub(super) fn eject_outliers<'a>(all: impl Iterator<Item = &'a Health>, now: Instant) {
    let rates: Vec<(&Health, f64)> = all
        .filter_map(|health| {
            let (good, bad) = health.take_rate();
            (good + bad >= RATE_REQUESTS_MIN).then(|| (health, good as f64 / (good + bad) as f64))
        })
        .collect();
    if rates.len() < RATE_ENDPOINTS_MIN {
        return;
    }
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let deviation = (rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count).sqrt();
    // With few endpoints no rate is so many deviations away from the mean: a bound on that is half of their number's root.
    let deviations = RATE_DEVIATIONS.min((count - 1.0).sqrt() * 0.9);
    let floor = mean - (deviations * deviation).max(RATE_DISTANCE_MIN);
    for (health, rate) in rates {
        if rate < floor {
            health.eject(
                format!("{:.0} % of its requests went well, {:.0} % on average", rate * 100.0, mean * 100.0),
                now,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn config() -> EjectionConfig {
        EjectionConfig {
            consecutive_errors: 3,
            outliers: true,
            time: 10 * SECOND,
            time_max: 25 * SECOND,
            share_max: 50,
            interval: 10 * SECOND,
        }
    }

    fn endpoints(count: usize) -> Vec<Health> {
        let siblings = Ejections::new(&config(), 10 * SECOND, count);
        (0..count).map(|_| Health::new(Arc::clone(&siblings))).collect()
    }

    fn fail(health: &Health, times: u32, now: Instant) {
        (0..times).for_each(|_| health.note_bad(now));
    }

    #[test]
    fn errors_in_a_row_eject_for_longer_each_time() {
        let (all, start) = (endpoints(2), Instant::now());
        let one = &all[0];
        fail(one, 2, start);
        one.note_good();
        fail(one, 2, start);
        assert!(one.is_usable(start), "not in a row");
        fail(one, 1, start);
        assert!(!one.is_usable(start) && one.snapshot(start).state == EndpointState::Ejected);
        let mut now = start;
        for seconds in [10, 20, 25, 25] {
            now += seconds * SECOND - Duration::from_millis(1);
            assert!(!one.is_usable(now), "{seconds}");
            now += Duration::from_millis(1);
            assert!(one.is_usable(now), "{seconds}");
            fail(one, 3, now);
        }
        now += 25 * SECOND;
        assert!(one.is_usable(now));
        // A long good time: the next ejection is a first one.
        now += 25 * SECOND;
        fail(one, 3, now);
        assert!(!one.is_usable(now + 9 * SECOND) && one.is_usable(now + 10 * SECOND));
        assert_eq!(one.snapshot(now + 10 * SECOND).ejections, 6);
    }

    #[test]
    fn no_more_are_ejected_than_the_share_allows_and_never_the_only_one() {
        let (all, now) = (endpoints(5), Instant::now());
        all.iter().for_each(|health| fail(health, 3, now));
        assert_eq!(all.iter().filter(|health| !health.is_usable(now)).count(), 2);
        assert_eq!(all.iter().filter(|health| health.is_usable(now + 10 * SECOND)).count(), 5);
        fail(&all[4], 3, now + 10 * SECOND);
        assert!(!all[4].is_usable(now + 10 * SECOND), "the places of the others are free again");
        let alone = endpoints(1);
        fail(&alone[0], 100, now);
        assert!(alone[0].is_usable(now));
    }

    #[test]
    fn checks_decide_after_so_many_and_the_first_one_at_once() {
        let (all, now) = (endpoints(2), Instant::now());
        let check = |found: Result<(), &str>| all[0].checked(found.map_err(str::to_owned), (2, 3), now);
        assert!(!check(Err("refused")));
        assert!(!all[0].is_usable(now), "nothing good is known of it");
        assert!(!check(Ok(())));
        assert!(check(Ok(())), "it is back");
        assert!(all[0].is_usable(now));
        assert!(!check(Err("503")) && !check(Err("503")));
        assert!(all[0].is_usable(now));
        check(Err("503"));
        let snapshot = all[0].snapshot(now);
        assert_eq!((snapshot.state, snapshot.reason.as_deref()), (EndpointState::Unhealthy, Some("503")));
        assert_eq!(snapshot.checks, (6, 4));
    }

    #[test]
    fn a_check_that_succeeds_ends_an_ejection() {
        let (all, now) = (endpoints(2), Instant::now());
        fail(&all[0], 3, now);
        assert!(!all[0].is_usable(now));
        assert!(all[0].checked(Ok(()), (1, 3), now));
        assert!(all[0].is_usable(now));
        fail(&all[1], 3, now);
        assert!(!all[1].is_usable(now), "its place among the ejected is free");
    }

    #[test]
    fn one_that_comes_back_grows_into_its_share() {
        let (all, start) = (endpoints(2), Instant::now());
        assert_eq!(all[0].share(start), 1.0);
        fail(&all[0], 3, start);
        let back = start + 10 * SECOND;
        assert!(all[0].is_usable(back));
        assert_eq!(all[0].share(back), SLOW_START_MIN);
        assert_eq!(all[0].share(back + 5 * SECOND), 0.5);
        assert_eq!(all[0].share(back + 10 * SECOND), 1.0);
    }

    #[test]
    fn an_endpoint_that_goes_leaves_its_place_among_the_ejected() {
        let (mut all, now) = (endpoints(2), Instant::now());
        fail(&all[0], 3, now);
        assert!(!all[0].is_usable(now));
        all.remove(0);
        fail(&all[0], 3, now);
        assert!(!all[0].is_usable(now), "there is room for it");
    }

    #[test]
    fn draining_is_for_operators_alone_to_end() {
        let (all, now) = (endpoints(2), Instant::now());
        all[0].drain(true, now);
        all[0].checked(Ok(()), (1, 1), now);
        assert!(!all[0].is_usable(now) && all[0].is_draining());
        assert_eq!(all[0].snapshot(now).state, EndpointState::Draining);
        all[0].drain(false, now);
        assert!(all[0].is_usable(now) && !all[0].is_draining());
    }

    #[test]
    fn who_fails_much_more_often_than_the_others_is_ejected() {
        for (failures, out) in [([0, 0, 0, 40], 1), ([40, 40, 40, 40], 0), ([0, 1, 2, 6], 0), ([0, 0, 0, 0], 0)] {
            let (all, now) = (endpoints(4), Instant::now());
            for (health, failures) in all.iter().zip(failures) {
                for n in 0..100 {
                    if n % 2 == 0 && n / 2 < failures { health.note_bad(now) } else { health.note_good() }
                }
            }
            eject_outliers(all.iter(), now);
            assert_eq!(all.iter().filter(|health| !health.is_usable(now)).count(), out, "{failures:?}");
            eject_outliers(all.iter(), now);
        }
        // Few requests say little.
        let (all, now) = (endpoints(4), Instant::now());
        all.iter().for_each(|health| (0..20).for_each(|_| health.note_good()));
        (0..20).for_each(|n| if n % 2 == 0 { all[0].note_bad(now) } else { all[0].note_good() });
        eject_outliers(all.iter(), now);
        assert!(all[0].is_usable(now));
    }
}
