//! The endpoints of an origin at one moment, and which of them a request may go to.
//!
//! Always true: a request keeps the group that it began with, so that places mean the same for all its attempts; what has been
//! taken out of a newer one still finishes what it has.
//!
//! Not here: which of those that are eligible is chosen (`balance`), what makes an endpoint unfit (`health`).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::balance::Balancer;
use super::endpoint::Endpoint;
use crate::config::limits;

/// See the module.
#[derive(Debug)]
pub(super) struct Group {
    endpoints: Box<[Arc<Endpoint>]>,
    /// The places of the endpoints by priority, those that come first at the beginning.
    tiers: Box<[Box<[usize]>]>,
}

impl Group {
    /// Endpoints beyond [`limits::ENDPOINTS_MAX`] are left out.
    pub(super) fn new(endpoints: impl Iterator<Item = Arc<Endpoint>>) -> Self {
        let endpoints: Box<[_]> = endpoints.take(limits::ENDPOINTS_MAX).collect();
        let mut tiers = BTreeMap::<u32, Vec<usize>>::new();
        for (place, endpoint) in endpoints.iter().enumerate() {
            tiers.entry(endpoint.priority()).or_default().push(place);
        }
        Self { endpoints, tiers: tiers.into_values().map(Vec::into_boxed_slice).collect() }
    }

    pub(super) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The endpoint for a request, among those that were not tried.
    ///
    /// The first tier counts of which enough are in order, by `panic_threshold` in percent; if there is none, the first one that
    /// has any left, in order or not: when nearly everything fails, it is more likely that health is judged wrongly than that the
    /// last ones bear it all.
    pub(super) fn choose(
        &self,
        balancer: &Mutex<Balancer>,
        panic_threshold: usize,
        tried: &[usize],
        affinity: Option<u64>,
    ) -> Option<usize> {
        if let [only] = &*self.endpoints {
            let is_open = tried.is_empty() && !only.health().is_draining();
            return is_open.then_some(0);
        }
        let now = Instant::now();
        let health = |place: &usize| self.endpoints[*place].health();
        let is_open = |place: usize| !tried.contains(&place);
        let balance = |eligible: &dyn Fn(usize) -> bool| balancer.lock().choose(&self.endpoints, affinity, eligible);
        for tier in &self.tiers {
            let usable = Places::of(tier.iter().copied().filter(|place| health(place).is_usable(now)));
            let in_service = || tier.iter().filter(|place| !health(place).is_draining()).count();
            let is_enough = usable.count() == tier.len()
                || (usable.count() > 0 && usable.count() * 100 >= panic_threshold * in_service());
            if is_enough && let Some(place) = balance(&|place| usable.has(place) && is_open(place)) {
                return Some(place);
            }
        }
        self.tiers.iter().find_map(|tier| {
            let in_service = tier.iter().copied().filter(|place| !health(place).is_draining());
            let left = Places::of(in_service.filter(|place| is_open(*place)));
            balance(&|place| left.has(place))
        })
    }
}

/// Places of endpoints, at most [`limits::ENDPOINTS_MAX`] of them.
#[derive(Default)]
struct Places([u64; limits::ENDPOINTS_MAX.div_ceil(64)]);

impl Places {
    fn of(places: impl Iterator<Item = usize>) -> Self {
        let mut all = Self::default();
        places.for_each(|place| all.0[place / 64] |= 1 << (place % 64));
        all
    }

    fn has(&self, place: usize) -> bool {
        self.0[place / 64] & (1 << (place % 64)) != 0
    }

    fn count(&self) -> usize {
        self.0.iter().map(|bits| bits.count_ones() as usize).sum()
    }
}
