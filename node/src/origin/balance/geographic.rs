//! Geographic: the nearest region first, farther ones when the near ones are full or out.
//!
//! The node's own region is nearest; of the others the one with the shortest measured round trip, give or take
//! [`ROUND_TRIP_SLACK`]. Within what is equally near the least busy is chosen.

use std::time::Duration;

use super::{Candidate, cheapest, load};

/// Round trips that differ by less are alike: this part of the shortest, and at least a millisecond.
const ROUND_TRIP_SLACK: f64 = 0.25;
const ROUND_TRIP_SLACK_MIN: Duration = Duration::from_millis(1);

/// Whose turn it is among equals.
#[derive(Debug, Default)]
pub(crate) struct Geographic {
    turn: usize,
}

impl Geographic {
    /// See [`super::Balancer::choose`].
    pub(crate) fn choose<C: Candidate>(&mut self, candidates: &[C], eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let has_room = |place: usize| eligible(place) && !candidates[place].is_full();
        let best = self.nearest(candidates, has_room);
        // If all are full, the request waits at the nearest.
        let best = best.or_else(|| self.nearest(candidates, &eligible))?;
        self.turn = best + 1;
        Some(best)
    }

    fn nearest<C: Candidate>(&self, candidates: &[C], usable: impl Fn(usize) -> bool) -> Option<usize> {
        let places = || (0..candidates.len()).filter(|place| usable(*place));
        let distance = places().map(|place| candidates[place].distance()).min()?;
        let near = |place: &usize| candidates[*place].distance() == distance;
        let shortest = places().filter(near).filter_map(|place| candidates[place].round_trip()).min();
        let limit = shortest.map(|shortest| shortest + shortest.mul_f64(ROUND_TRIP_SLACK).max(ROUND_TRIP_SLACK_MIN));
        // One that was never connected to is as near as any: a request will tell.
        let is_short = |place: usize| match (candidates[place].round_trip(), limit) {
            (Some(round_trip), Some(limit)) => round_trip <= limit,
            (None, _) | (_, None) => true,
        };
        cheapest(candidates, self.turn, |place| usable(place) && near(&place) && is_short(place), load)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Sample, shares, weighted};
    use super::*;

    /// Two here, two near, one far.
    fn three_regions() -> Vec<Sample> {
        let mut candidates = weighted(&[1; 5]);
        for (candidate, (distance, round_trip_ms)) in
            candidates.iter_mut().zip([(0, 2), (0, 2), (1, 20), (1, 22), (1, 90)])
        {
            (candidate.distance, candidate.round_trip_ms) = (distance, Some(round_trip_ms));
        }
        candidates
    }

    fn of(candidates: &[Sample], eligible: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut policy = Geographic::default();
        shares(candidates.len(), 100, || policy.choose(candidates, &eligible).expect("one"))
    }

    #[test]
    fn the_own_region_comes_first_and_is_shared_evenly() {
        assert_eq!(of(&three_regions(), |_| true), [50, 50, 0, 0, 0]);
    }

    #[test]
    fn the_measured_round_trip_decides_between_other_regions() {
        assert_eq!(of(&three_regions(), |place| place > 1), [0, 0, 50, 50, 0]);
        assert_eq!(of(&three_regions(), |place| place > 3), [0, 0, 0, 0, 100]);
    }

    #[test]
    fn a_full_region_spills_over_and_when_all_are_full_the_nearest_waits() {
        let mut candidates = three_regions();
        candidates[0].is_full = true;
        assert_eq!(of(&candidates, |_| true), [0, 100, 0, 0, 0]);
        candidates[1].is_full = true;
        assert_eq!(of(&candidates, |_| true), [0, 0, 50, 50, 0]);
        candidates.iter_mut().for_each(|candidate| candidate.is_full = true);
        assert_eq!(of(&candidates, |_| true), [50, 50, 0, 0, 0]);
    }

    #[test]
    fn one_that_was_never_measured_is_tried() {
        let mut candidates = three_regions();
        candidates[4].round_trip_ms = None;
        assert!(of(&candidates, |place| place > 1)[4] > 30);
    }
}
