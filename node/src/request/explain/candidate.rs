//! The second half of an explanation: what is stored under the key, and what each of it is good for.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brim_semantics::{CachePolicy, FreshnessSource, LifetimeAccount, Part, PurgeState, Reuse, StoredMeta};
use brim_store::{Store, StoredResponse};
use http::HeaderMap;

use super::model::{Candidate, FreshnessFacts, NominatedFact, PartFact, PurgeWord, ReuseWord, Tier};
use super::steps::Steps;
use super::text::{others_value, quoted, seconds, span, time, value};
use crate::request::accept::Inbound;
use crate::route::Route;

/// Surrogate keys that are shown of one response.
const SURROGATE_KEYS_SHOWN_MAX: usize = 32;

/// What the candidates are judged by.
pub(super) struct Court<'a> {
    pub(super) store: &'a Store,
    pub(super) inbound: &'a Inbound,
    pub(super) route: &'a Route,
    pub(super) now: SystemTime,
    /// The one that the look-up chose.
    pub(super) selected: Vec<Arc<StoredResponse>>,
}

impl Court<'_> {
    /// All that is stored under the key, newest first.
    pub(super) fn candidates(&self, variants: &[Arc<StoredResponse>], steps: &mut Steps) -> Vec<Candidate> {
        let mut is_decided = false;
        let mut candidates = Vec::with_capacity(variants.len());
        for (number, stored) in (1..).zip(variants) {
            let candidate = self.candidate(stored, is_decided);
            is_decided |= candidate.selected;
            tell(number, &candidate, steps);
            candidates.push(candidate);
        }
        candidates
    }

    fn candidate(&self, stored: &Arc<StoredResponse>, is_decided: bool) -> Candidate {
        let (head, policy) = (&stored.head, &self.route.config.policy);
        let directives = &self.inbound.directives;
        let state = self.store.purge_state(stored);
        let purge = match state {
            PurgeState::Live => PurgeWord::Live,
            PurgeState::Soft => PurgeWord::Soft,
            PurgeState::Hard => PurgeWord::Hard,
        };
        let (reuse, why) = match brim_semantics::reuse(&head.meta, directives, state, self.now, policy) {
            Reuse::Fresh => (ReuseWord::Fresh, None),
            Reuse::StaleAllowed { .. } => (ReuseWord::StaleAllowed, None),
            Reuse::StaleWhileValidating { .. } => (ReuseWord::StaleWhileRevalidate, None),
            Reuse::MustValidate(why) => (ReuseWord::Validate, Some(why)),
            Reuse::Unusable => (ReuseWord::Unusable, None),
        };
        let selected = self.selected.iter().any(|selected| Arc::ptr_eq(selected, stored));
        let in_memory = stored.is_body_in_memory();
        Candidate {
            selected,
            why_not: if selected { None } else { Some(self.why_not(stored, state, is_decided)) },
            status: head.status.as_u16(),
            part: head.part.map(|part| part_fact(&part)),
            content_bytes: stored.content_length(),
            content_in: if in_memory { Tier::Memory } else { Tier::Disk },
            surrogate_keys_count: head.surrogate_keys.len() as u64,
            surrogate_keys: head
                .surrogate_keys
                .iter()
                .take(SURROGATE_KEYS_SHOWN_MAX)
                .map(|key| value(key.as_bytes()))
                .collect(),
            nominated: nominated(stored, self.inbound),
            fetched_at: head.fetched_at.0,
            purge,
            freshness: freshness(&head.meta, &head.headers, policy, self.now),
            reuse,
            validate_why: why.map(|why| why.as_detail().to_owned()),
            usable_on_error: brim_semantics::may_serve_on_error(&head.meta, directives, state, self.now, policy),
        }
    }

    fn why_not(&self, stored: &StoredResponse, state: PurgeState, is_decided: bool) -> String {
        if state == PurgeState::Hard {
            let position = stored.head.fetched_at;
            return format!("a hard purge names it that came after position {position}, where its fetch began");
        }
        match stored.head.nominated.first_difference(&self.inbound.headers) {
            Some(name) if !stored.head.nominated.matches_or_answers(&self.inbound.headers, &stored.head.headers) => {
                format!("the request differs in {name}, which its Vary nominates (RFC 9111 §4.1)")
            }
            _ if is_decided => "a newer one is selected (RFC 9111 §4.1)".to_owned(),
            _ if stored.head.part.is_some() => {
                "it is a part, and the parts lack some of what is asked for (RFC 9111 §3.3)".to_owned()
            }
            _ => "it is not usable for this request".to_owned(),
        }
    }
}

fn part_fact(part: &Part) -> PartFact {
    PartFact { first: part.start, last: part.end - 1, complete_bytes: part.complete_length }
}

fn nominated(stored: &StoredResponse, inbound: &Inbound) -> Vec<NominatedFact> {
    let compared = stored.head.nominated.compared(&inbound.headers);
    let facts = compared.map(|field| NominatedFact {
        name: field.name.to_string(),
        stored: field.stored.map(|bytes| others_value(field.name, bytes)),
        request: field.asked.as_deref().map(value),
        matches: field.matches,
    });
    facts.collect()
}

/// A candidate in words; those of the freshness only of one that counts.
fn tell(number: usize, candidate: &Candidate, steps: &mut Steps) {
    let mut say = |text: String| steps.say("candidate", format!("{number}: {text}"));
    let length = candidate.content_bytes.map_or_else(
        || "content".to_owned(),
        |bytes| {
            let noun = if bytes == 1 { "byte" } else { "bytes" };
            format!("{bytes} {noun}")
        },
    );
    let tier = match candidate.content_in {
        Tier::Memory => "in memory",
        Tier::Disk => "on disk",
    };
    let purge = match candidate.purge {
        PurgeWord::Live => "not purged",
        PurgeWord::Soft => "soft-purged",
        PurgeWord::Hard => "hard-purged",
    };
    say(format!(
        "status {}, {length} {tier}, fetched at purge position {}, {purge}",
        candidate.status, candidate.fetched_at
    ));
    if let Some(part) = &candidate.part {
        say(format!("holds bytes {}-{} of {}", part.first, part.last, part.complete_bytes));
    }
    for field in &candidate.nominated {
        let (stored, request) = (quoted(field.stored.as_deref()), quoted(field.request.as_deref()));
        let verdict = if field.matches { "matches" } else { "differs" };
        say(format!("Vary: {} {verdict}: stored {stored}, request {request}", field.name));
    }
    if let Some(why_not) = &candidate.why_not {
        say(format!("not selected: {why_not}"));
        return;
    }
    say(match candidate.nominated.iter().any(|field| !field.matches) {
        false => "selected".to_owned(),
        true => "selected: its one Content-Language is the one the request prefers (RFC 9110 §12.5.4)".to_owned(),
    });
    tell_freshness(&candidate.freshness, steps);
}

fn tell_freshness(facts: &FreshnessFacts, steps: &mut Steps) {
    let span = |seconds: f64| span(Duration::from_secs_f64(seconds.abs()));
    let mut say = |text: String| steps.say("freshness", text);
    let (delay, apparent) = (span(facts.response_delay_s), span(facts.apparent_age_s));
    let initial = span(facts.initial_age_s);
    say(match facts.age_value_s {
        Some(age) => format!(
            "initial age {initial}: Age {} + response delay {delay}; by its Date {apparent} (RFC 9111 §4.2.3)",
            span(age)
        ),
        None => format!("initial age {initial}: by its Date {apparent}; response delay {delay} (RFC 9111 §4.2.3)"),
    });
    let resident = span(facts.resident_time_s);
    say(format!("current age {}: initial age {initial} + resident time {resident}", span(facts.current_age_s)));
    say(format!("lifetime {}: {}", span(facts.lifetime_s), facts.lifetime_from));
    let remaining = span(facts.remaining_s);
    say(if facts.remaining_s > 0.0 { format!("fresh for {remaining} more") } else { format!("stale for {remaining}") });
    if let Some(window) = facts.stale_while_revalidate_s {
        say(format!("served stale for {} while it is validated (stale-while-revalidate, RFC 5861 §3)", span(window)));
    }
    if let Some(window) = facts.stale_if_error_s {
        say(format!("stands in stale for {} if the origin fails (stale-if-error, RFC 5861 §4)", span(window)));
    }
    if facts.no_cache {
        say("no-cache: each use needs a validation (RFC 9111 §5.2.2.4)".to_owned());
    }
    if facts.must_revalidate {
        say("must-revalidate, proxy-revalidate or s-maxage: not used stale by itself (RFC 9111 §5.2.2.2)".to_owned());
    }
}

fn freshness(meta: &StoredMeta, headers: &HeaderMap, policy: &CachePolicy, now: SystemTime) -> FreshnessFacts {
    let age = meta.age_account(headers, now);
    let remaining_s = match meta.freshness_lifetime.checked_sub(age.current_age) {
        Some(left) => seconds(left),
        None => -seconds(age.current_age - meta.freshness_lifetime),
    };
    FreshnessFacts {
        date: age.date_value.map(time),
        apparent_age_s: seconds(age.apparent_age),
        age_value_s: age.age_value.map(seconds),
        response_delay_s: seconds(age.response_delay),
        initial_age_s: seconds(age.initial_age),
        resident_time_s: seconds(age.resident_time),
        current_age_s: seconds(age.current_age),
        lifetime_s: seconds(meta.freshness_lifetime),
        lifetime_source: source_word(meta.freshness_source).to_owned(),
        lifetime_from: match meta.lifetime_account(headers, policy) {
            Some(account) => lifetime_from(&account, meta, age.date_value),
            None => "reckoned when it was stored; the fields that are kept and the settings of today give another one"
                .to_owned(),
        },
        remaining_s,
        stale_while_revalidate_s: meta.stale_while_revalidate.map(seconds),
        stale_if_error_s: meta.stale_if_error.map(seconds),
        no_cache: meta.no_cache,
        must_revalidate: meta.must_revalidate,
    }
}

fn source_word(source: FreshnessSource) -> &'static str {
    match source {
        FreshnessSource::Targeted => "targeted",
        FreshnessSource::SMaxage => "s-maxage",
        FreshnessSource::MaxAge => "max-age",
        FreshnessSource::Expires => "expires",
        FreshnessSource::Heuristic => "heuristic",
        FreshnessSource::None => "none",
    }
}

fn lifetime_from(account: &LifetimeAccount, meta: &StoredMeta, date: Option<SystemTime>) -> String {
    let field = account.field.as_ref().map_or("", |name| name.as_str());
    let directive = account.directive.map_or_else(String::new, |name| format!("{name}={}", seconds(account.named)));
    let since = date.map_or_else(|| "its arrival".to_owned(), |date| format!("Date {}", time(date)));
    let mut text = match account.source {
        FreshnessSource::Targeted => {
            format!("{directive} of {field}, which stands in for Cache-Control and Expires (RFC 9213 §2.2)")
        }
        FreshnessSource::SMaxage => format!("{directive} of {field} (RFC 9111 §5.2.2.10)"),
        FreshnessSource::MaxAge => format!("{directive} of {field} (RFC 9111 §5.2.2.1)"),
        FreshnessSource::Expires => match account.expires {
            Some(expires) => format!("Expires {} less {since} (RFC 9111 §5.3)", time(expires)),
            None => "Expires is no date, which means in the past (RFC 9111 §5.3)".to_owned(),
        },
        FreshnessSource::Heuristic => {
            let modified = account.last_modified.map_or_else(String::new, time);
            format!("estimated, a tenth of the time from Last-Modified {modified} to {since} (RFC 9111 §4.2.2)")
        }
        FreshnessSource::None => {
            return "none named and none to estimate: used after a validation only (RFC 9111 §4.2.1)".to_owned();
        }
    };
    if account.named > meta.freshness_lifetime {
        text.push_str(&format!("; {} cut by the route's freshness_max or heuristic_max", span(account.named)));
    }
    text
}
