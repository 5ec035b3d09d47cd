//! Need: why the origin is asked, and what is there to fall back on.
//!
//! Always true:
//! - Only what a validation is about ([`Need::held`]) may answer in place of an origin that fails.
//! - Requests that ask for different bytes, or for the same bytes of different representations, collapse apart.
//!
//! Not here: which it is (`lookup`), what parts there are and lack (`partial`), asking (`fetch`).

use std::ops::Range;
use std::sync::Arc;

use brim_semantics::{ForwardReason, RangeDecision, Why};
use brim_store::StoredResponse;

use super::accept::Inbound;
use super::exchange::Exchange;
use super::forward::Purpose;
use super::lookup::{self, Absent};
use super::partial::{Ask, Gap, Parts};
use super::respond::Answer;

/// What is stored for a request: a complete response, or parts that suffice.
#[derive(Debug, Clone)]
pub enum Held {
    /// All of the representation.
    Whole(Arc<StoredResponse>),
    /// As much of it as is asked for.
    Parts(Parts),
}

impl Held {
    /// The response whose fields and freshness count.
    pub fn newest(&self) -> &Arc<StoredResponse> {
        match self {
            Self::Whole(stored) => stored,
            Self::Parts(parts) => parts.newest(),
        }
    }

    /// All that the answer is made of, the newest first.
    pub(super) fn all(&self) -> Vec<Arc<StoredResponse>> {
        match self {
            Self::Whole(stored) => vec![stored.clone()],
            Self::Parts(parts) => parts.all().map(|(_, stored)| stored.clone()).collect(),
        }
    }

    /// The answer that it is.
    pub fn into_answer(self) -> Answer {
        match self {
            Self::Whole(stored) => Answer::Stored(stored),
            Self::Parts(parts) => Answer::Assembled(Box::new(parts), None),
        }
    }

    /// The same after the origin confirmed it.
    pub fn confirmed(self, freshened: Arc<StoredResponse>) -> Self {
        match self {
            Self::Whole(_) => Self::Whole(freshened),
            Self::Parts(parts) => Self::Parts(parts.with_newest(freshened)),
        }
    }
}

/// Why the origin is asked.
#[derive(Debug, Clone)]
pub(super) enum Need {
    /// Nothing usable is stored.
    Fetch(Absent),
    /// Other variants are stored: the origin may name one of them by its entity tag (RFC 9111 §4.1). The hash of the variant
    /// that this request is.
    Select(Vec<Arc<StoredResponse>>, u64),
    /// What is stored has to be confirmed.
    Validate(Held, Why),
    /// Parts are stored that lack some of what is asked for.
    Complete(Parts),
}

/// What is asked of the origin, and why.
#[derive(Debug, Clone)]
pub(super) struct Errand {
    pub(super) need: Need,
    pub(super) ask: Ask,
    /// Whether it may leave another one's fetch for one of its own, because what it wants lies far ahead.
    pub(super) may_go_apart: bool,
}

impl Errand {
    /// For `need`; of a representation of at most `whole_max` bytes all is fetched.
    pub(super) fn new(need: Need, inbound: &Inbound, whole_max: u64) -> Self {
        let ask = match &need {
            Need::Fetch(_) | Need::Select(..) => Ask::unknown(inbound),
            Need::Validate(Held::Whole(_), _) => Ask::Whole,
            Need::Validate(Held::Parts(_), _) => Ask::unknown(inbound),
            Need::Complete(parts) => parts.ask(whole_max),
        };
        let may_go_apart = ask != Ask::AsAsked;
        Self { need, ask, may_go_apart }
    }

    /// For a request whose answer may not be stored: what is stored cannot be completed with it.
    pub(super) fn alone(self, inbound: &Inbound) -> Self {
        match self.ask {
            Ask::Range(_) => Self { ask: Ask::unknown(inbound), ..self },
            Ask::Whole | Ask::AsAsked => self,
        }
    }

    /// The variant to collapse on; requests for different parts go their own ways.
    pub(super) fn flight_variant(&self, inbound: &Inbound) -> u64 {
        self.variant(inbound) ^ self.ask.distinction(inbound)
    }

    /// The variant that the request is, as far as stored responses tell.
    pub(super) fn variant(&self, inbound: &Inbound) -> u64 {
        match &self.need {
            Need::Fetch(_) => 0,
            Need::Select(_, variant) => *variant,
            Need::Validate(held, _) => lookup::variant_of(held.newest(), inbound),
            Need::Complete(parts) => lookup::variant_of(parts.newest(), inbound),
        }
    }

    /// What the forward request is for.
    pub(super) fn purpose(&self) -> Purpose<'_> {
        match &self.need {
            Need::Validate(held, _) => Purpose::Validate(held.newest(), &self.ask),
            Need::Select(others, _) => Purpose::Select(others, &self.ask),
            Need::Fetch(_) | Need::Complete(_) => Purpose::Fill(&self.ask),
        }
    }

    /// Whether more is fetched than the request needs: all of a short representation. Nobody reads the rest of it.
    pub(super) fn fetches_ahead(&self) -> bool {
        match (&self.need, &self.ask) {
            (Need::Complete(parts), Ask::Whole | Ask::Range(_)) => parts.wanted != RangeDecision::Whole,
            _ => false,
        }
    }

    /// The gap to fill, and the parts around it.
    pub(super) fn completes(&self) -> Option<(&Parts, &Gap)> {
        match (&self.need, &self.ask) {
            (Need::Complete(parts), Ask::Range(gap)) => Some((parts, gap)),
            _ => None,
        }
    }

    /// What of the gap this request needs itself.
    pub(super) fn needed_of_gap(&self) -> Option<Range<u64>> {
        let (parts, gap) = self.completes()?;
        let wanted = match &parts.wanted {
            RangeDecision::One(range) => range.clone(),
            _ => 0..parts.complete_length(),
        };
        Some(gap.range.start.max(wanted.start)..gap.range.end.min(wanted.end))
    }
}

impl Need {
    /// What the record says of it.
    pub(super) fn note(&self, exchange: &mut Exchange) {
        match self {
            Self::Fetch(absent) => {
                exchange.forwarded(absent.forward_reason());
                if *absent == Absent::Purged {
                    exchange.explain("purged");
                }
            }
            Self::Select(..) => exchange.forwarded(ForwardReason::VaryMiss),
            Self::Validate(_, why) => {
                exchange.forwarded(if why.is_requested() { ForwardReason::Request } else { ForwardReason::Stale });
                // `fwd=stale` says it already.
                if *why != Why::Stale {
                    exchange.explain(why.as_detail());
                }
            }
            Self::Complete(_) => exchange.forwarded(ForwardReason::Partial),
        }
    }

    /// What has to be confirmed.
    pub(super) fn held(&self) -> Option<&Held> {
        match self {
            Self::Validate(held, _) => Some(held),
            Self::Fetch(_) | Self::Select(..) | Self::Complete(_) => None,
        }
    }

    /// The stored responses that a 304 may be about.
    pub(super) fn offers(&self) -> Vec<Arc<StoredResponse>> {
        match self {
            Self::Validate(held, _) => vec![held.newest().clone()],
            Self::Select(others, _) => others.clone(),
            Self::Fetch(_) | Self::Complete(_) => Vec::new(),
        }
    }

    pub(super) fn is_about(&self, stored: &Arc<StoredResponse>) -> bool {
        self.held().is_some_and(|held| Arc::ptr_eq(held.newest(), stored))
    }
}
