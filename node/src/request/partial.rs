//! Partial content: what stored parts answer, and what has to be asked for (RFC 9110 §14, RFC 9111 §3.3, §3.4).
//!
//! Always true:
//! - Parts are put together only where they have the same strong validator; one part alone answers what lies within it.
//! - The newest part's fields are those of what is put together (§3.4).
//! - What is put together with a fetch is asked for with `If-Range`: the origin gives that part of the same representation, or
//!   the whole of another.
//!
//! Not here: reading ranges (`brim_semantics::ranges`), sending them (`ranges`).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use brim_semantics::{Missing, Part, Precondition, RangeDecision};
use brim_store::StoredResponse;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use http::{Method, StatusCode};

use super::accept::Inbound;
use crate::origin::OriginBody;

/// Parts kept of one variant; the oldest make room. They count among the variants of their key.
pub const PARTS_MAX: usize = 16;

/// Stored parts of one representation, and what a request wants of it.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The newest: its fields and its freshness are those of the whole.
    newest: Arc<StoredResponse>,
    /// The others; a complete response among them holds all there is.
    others: Vec<Arc<StoredResponse>>,
    complete_length: u64,
    /// What the request wants.
    pub wanted: RangeDecision,
}

impl Parts {
    /// `newest` and those of `older` that can be put together with it, for `inbound`. `None`: `newest` is no part, or the
    /// request is one that parts do not answer.
    pub fn new<'a>(
        newest: &Arc<StoredResponse>,
        older: impl Iterator<Item = &'a Arc<StoredResponse>>,
        inbound: &Inbound,
    ) -> Option<Self> {
        let complete_length = newest.head.part?.complete_length;
        if inbound.method != Method::GET {
            return None;
        }
        let belongs = |one: &&Arc<StoredResponse>| {
            place_of(one).is_some_and(|part| part.complete_length == complete_length)
                && brim_semantics::has_same_strong_validator(&one.head.headers, &newest.head.headers)
        };
        let wanted = wanted(&inbound.method, &inbound.headers, &newest.head.headers, complete_length);
        Some(Self { newest: newest.clone(), others: older.filter(belongs).cloned().collect(), complete_length, wanted })
    }

    /// The newest of them, which a validation is about.
    pub fn newest(&self) -> &Arc<StoredResponse> {
        &self.newest
    }

    /// The length of the representation.
    pub fn complete_length(&self) -> u64 {
        self.complete_length
    }

    /// Whether `freshened` is the newest of them as a validation left it, and not another request's newest part.
    pub fn is_newest(&self, freshened: &StoredResponse) -> bool {
        freshened.head.part == self.newest.head.part
            && (self.others.is_empty()
                || brim_semantics::has_same_strong_validator(&freshened.head.headers, &self.newest.head.headers))
    }

    /// The same with the newest in its freshened form.
    pub fn with_newest(&self, freshened: Arc<StoredResponse>) -> Self {
        Self { newest: freshened, ..self.clone() }
    }

    /// Each with its place, the newest first.
    pub fn all(&self) -> impl Iterator<Item = (Part, &Arc<StoredResponse>)> {
        std::iter::once(&self.newest).chain(&self.others).filter_map(|one| Some((place_of(one)?, one)))
    }

    /// The part that holds the byte at `position`, and the one that goes furthest if there are several.
    pub fn holding(&self, position: u64) -> Option<(Part, &Arc<StoredResponse>)> {
        self.all().filter(|(part, _)| part.range().contains(&position)).max_by_key(|(part, _)| part.end)
    }

    fn missing(&self, range: &Range<u64>) -> Missing {
        brim_semantics::missing(self.all().map(|(part, _)| part.range()), range)
    }

    /// Whether nothing has to be fetched for what is wanted.
    pub fn suffice(&self, inbound: &Inbound) -> bool {
        let (headers, received) = (&self.newest.head.headers, self.newest.head.meta.response_time);
        let evaluated = brim_semantics::evaluate(&inbound.method, &inbound.headers, StatusCode::OK, headers, received);
        if evaluated != Precondition::Proceed {
            return true;
        }
        match &self.wanted {
            RangeDecision::Unsatisfiable => true,
            RangeDecision::Whole => self.missing(&(0..self.complete_length)) == Missing::Nothing,
            RangeDecision::One(range) => self.missing(range) == Missing::Nothing,
            RangeDecision::Many(ranges) => ranges.iter().all(|range| self.missing(range) == Missing::Nothing),
        }
    }

    /// What to ask for where they do not suffice. Of a representation of at most `whole_max` bytes all is fetched.
    pub fn ask(&self, whole_max: u64) -> Ask {
        let is_small = self.complete_length <= whole_max;
        let wanted = match &self.wanted {
            RangeDecision::One(range) if !is_small => range.clone(),
            RangeDecision::One(_) | RangeDecision::Whole => 0..self.complete_length,
            RangeDecision::Many(_) if is_small => 0..self.complete_length,
            RangeDecision::Many(_) | RangeDecision::Unsatisfiable => return Ask::AsAsked,
        };
        match (self.missing(&wanted), brim_semantics::strong_validator(&self.newest.head.headers)) {
            (Missing::One(range), Some(validator)) => Ask::Range(Gap {
                range,
                complete_length: self.complete_length,
                validator: validator.clone(),
                coding: self.newest.head.headers.get(CONTENT_ENCODING).cloned(),
            }),
            _ if is_small || self.wanted == RangeDecision::Whole => Ask::Whole,
            _ => Ask::AsAsked,
        }
    }
}

/// Which bytes of the representation a stored response holds; of an empty one, none.
fn place_of(stored: &StoredResponse) -> Option<Part> {
    let whole = || stored.content_length().filter(|length| *length > 0 && stored.head.status == StatusCode::OK);
    stored.head.part.or_else(|| whole().map(|length| Part { start: 0, end: length, complete_length: length }))
}

/// What a request wants of a representation of which parts are stored.
fn wanted(method: &Method, request: &HeaderMap, headers: &HeaderMap, complete_length: u64) -> RangeDecision {
    brim_semantics::ranges(method, request, StatusCode::OK, headers, complete_length)
}

/// The bytes that stored parts lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Their positions.
    pub range: Range<u64>,
    complete_length: u64,
    validator: HeaderValue,
    coding: Option<HeaderValue>,
}

impl Gap {
    /// Whether a part with these fields holds the bytes, and they are of the same representation (RFC 9111 §3.4).
    pub fn is_filled_by(&self, part: &Part, headers: &HeaderMap) -> bool {
        part.covers(&self.range)
            && part.complete_length == self.complete_length
            && brim_semantics::strong_validator(headers) == Some(&self.validator)
            && headers.get(CONTENT_ENCODING) == self.coding.as_ref()
    }
}

/// What of a representation a forward request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// All of it.
    Whole,
    /// The range that the client asks for, in its own words.
    AsAsked,
    /// What stored parts lack, if it is still the same representation.
    Range(Gap),
}

impl Ask {
    /// For a request about whose representation nothing is known: ranges are forwarded as they are, because the whole may be
    /// very long; the length that the answer tells decides the next time.
    pub fn unknown(inbound: &Inbound) -> Self {
        Self::of_client(&inbound.method, &inbound.headers)
    }

    /// What a request with this method and these fields asks for.
    pub fn of_client(method: &Method, headers: &HeaderMap) -> Self {
        let is_ranged = *method == Method::GET && brim_semantics::asks_for_ranges(headers);
        if is_ranged { Self::AsAsked } else { Self::Whole }
    }

    /// Whether requests for it share nothing with requests for the whole: a number to tell flights apart by, 0 for the whole.
    pub fn distinction(&self, inbound: &Inbound) -> u64 {
        let mut hasher = DefaultHasher::new();
        match self {
            Self::Whole => return 0,
            Self::AsAsked => {
                for value in [RANGE, IF_RANGE].iter().flat_map(|name| inbound.headers.get_all(name)) {
                    value.as_bytes().hash(&mut hasher);
                }
            }
            // The same bytes of another representation are not the same.
            Self::Range(gap) => {
                (&gap.range, gap.complete_length, gap.validator.as_bytes()).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// Puts `Range` and `If-Range` into a forward request whose own have been taken out.
    ///
    /// The client's `If-Range` goes with its range also beside conditions about what is stored: those are evaluated first (RFC 9110
    /// §13.2.2), and where they do not hold, a part is no answer to a client that has the beginning of something else.
    pub fn write_to(&self, forward: &mut HeaderMap, inbound: &HeaderMap) {
        match self {
            Self::Whole => {}
            Self::AsAsked => {
                forward.extend(inbound.get(RANGE).map(|range| (RANGE, range.clone())));
                forward.extend(inbound.get(IF_RANGE).map(|condition| (IF_RANGE, condition.clone())));
            }
            Self::Range(gap) => {
                let (first, last) = (gap.range.start, gap.range.end.saturating_sub(1));
                let range = if gap.range.end == gap.complete_length {
                    format!("bytes={first}-")
                } else {
                    format!("bytes={first}-{last}")
                };
                if let Ok(range) = HeaderValue::try_from(range) {
                    forward.insert(RANGE, range);
                    forward.insert(IF_RANGE, gap.validator.clone());
                }
            }
        }
    }

    /// Whether a response is none to what was asked: another part than the one that was missing, or a part of something else.
    pub fn is_missed_by(&self, response: &http::Response<OriginBody>) -> bool {
        let Self::Range(gap) = self else { return false };
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let part = Part::of_response(response.status(), response.headers());
                !part.is_some_and(|part| gap.is_filled_by(&part, response.headers()))
            }
            StatusCode::NOT_MODIFIED | StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE => true,
            _ => false,
        }
    }
}

/// The fields of a part without those that say which part it is.
pub(super) fn without_part(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(CONTENT_RANGE);
    headers.remove(CONTENT_LENGTH);
    headers
}
