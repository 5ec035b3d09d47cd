//! Board: what another request's fetch is for one that waited for it (RFC 9111 §4).
//!
//! Always true:
//! - A response that was waited for is not judged stale again: it is as new as the waiting request's own fetch would have made
//!   it. Whoever comes while its content still arrives (`is_late`) gets what the rules make of it by now.
//! - Nobody boards what a purge has named, another variant, or a part that lacks what is asked for or is of another
//!   representation than the parts that it would complete.
//!
//! Not here: waiting (`collapse`), fetching (`fetch`).

use std::sync::Arc;

use brim_semantics::{PurgeState, Reuse, StoredMeta};
use brim_store::{Following, ResponseHead, StoredResponse};

use super::Cache;
use super::accept::Inbound;
use super::collapse::Landing;
use super::exchange::Exchange;
use super::need::{Errand, Held, Need};
use super::ranges::{self, Growing};
use super::respond::Answer;
use crate::origin::ForwardError;
use crate::route::Route;

/// What another request's fetch is for a waiting one.
pub(super) enum Boarded {
    /// The answer.
    Answer(Box<Answer>),
    /// It landed for another variant: this is ours.
    OtherVariant(u64),
    /// A purge came after it began, or it broke off.
    TooLate,
    /// Its filler went away.
    Next,
    /// Nothing to share.
    Alone,
    /// What is asked for comes so late in it that a fetch of its own is quicker.
    FarAhead,
    /// The origin is in trouble: what is stale may do.
    ServerError,
    /// It failed.
    Failed(Arc<ForwardError>),
}

impl Boarded {
    fn other_variant(head: &ResponseHead, inbound: &Inbound) -> Self {
        let nominated = brim_semantics::Nominated::of(&head.headers, &inbound.headers);
        nominated.map_or(Self::Alone, |nominated| Self::OtherVariant(nominated.variant_hash()))
    }
}

impl Cache {
    /// What a landing is for a request that waited for it, or came after it (`is_late`).
    pub(super) fn board(
        &self,
        landing: Option<Landing>,
        is_late: bool,
        errand: &Errand,
        route: &Route,
        inbound: &Inbound,
        exchange: &mut Exchange,
    ) -> Boarded {
        match landing {
            Some(Landing::ServerError) => Boarded::ServerError,
            None | Some(Landing::Declined) => Boarded::Alone,
            Some(Landing::Abandoned) => Boarded::Next,
            Some(Landing::Failed(error)) => Boarded::Failed(error),
            Some(Landing::Stored(stored)) => self.board_stored(stored, is_late, errand, route, inbound, exchange),
            Some(Landing::Following(following)) => {
                self.board_growing(&following, is_late, errand, route, inbound, exchange)
            }
        }
    }

    fn board_growing(
        &self,
        following: &Arc<Following>,
        is_late: bool,
        errand: &Errand,
        route: &Route,
        inbound: &Inbound,
        exchange: &mut Exchange,
    ) -> Boarded {
        let head = following.head();
        if !head.nominated.matches(&inbound.headers) {
            return Boarded::other_variant(head, inbound);
        }
        if is_late && !self.is_usable(&head.meta, route, inbound) {
            return Boarded::TooLate;
        }
        let whole_max = self.snapshot.load().config.store.range_whole_max;
        if errand.may_go_apart && ranges::bytes_ahead(following, &inbound.method, &inbound.headers) > whole_max {
            return Boarded::FarAhead;
        }
        let answer = match (errand.completes(), &head.part) {
            (Some((_, gap)), Some(part)) if !gap.is_filled_by(part, &head.headers) => None,
            (Some((parts, _)), Some(_)) => {
                let needed = errand.needed_of_gap().unwrap_or_default();
                Growing::of_range(following, needed)
                    .map(|growing| Answer::Assembled(Box::new(parts.clone()), Some(Box::new(growing))))
            }
            _ => Growing::join(following, &inbound.method, &inbound.headers)
                .map(|growing| Answer::Following(Box::new(growing))),
        };
        // None: it broke off, a purge came after its beginning, or it lacks what is asked for.
        let Some(answer) = answer else {
            return if head.part.is_some() { Boarded::Alone } else { Boarded::TooLate };
        };
        exchange.is_collapsed = true;
        exchange.ttl_s = Some(head.meta.ttl_seconds(self.clock.now()));
        Boarded::Answer(Box::new(answer))
    }

    fn board_stored(
        &self,
        stored: Arc<StoredResponse>,
        is_late: bool,
        errand: &Errand,
        route: &Route,
        inbound: &Inbound,
        exchange: &mut Exchange,
    ) -> Boarded {
        if !stored.head.nominated.matches(&inbound.headers) {
            return Boarded::other_variant(&stored.head, inbound);
        }
        let is_outdated = is_late && !self.is_usable(&stored.head.meta, route, inbound);
        if is_outdated || self.store.purge_state(&stored) != PurgeState::Live {
            return Boarded::TooLate;
        }
        let held = match (&errand.need, stored.head.part) {
            (_, None) => Held::Whole(stored),
            (Need::Validate(held @ Held::Parts(parts), _), Some(_)) if parts.is_newest(&stored) => {
                held.clone().confirmed(stored)
            }
            (_, Some(_)) => return Boarded::Alone,
        };
        exchange.is_collapsed = true;
        exchange.ttl_s = Some(held.newest().head.meta.ttl_seconds(self.clock.now()));
        Boarded::Answer(Box::new(held.into_answer()))
    }

    fn is_usable(&self, meta: &StoredMeta, route: &Route, inbound: &Inbound) -> bool {
        let (now, policy) = (self.clock.now(), &route.config.policy);
        let reuse = brim_semantics::reuse(meta, &inbound.directives, PurgeState::Live, now, policy);
        matches!(reuse, Reuse::Fresh | Reuse::StaleAllowed { .. })
    }
}
