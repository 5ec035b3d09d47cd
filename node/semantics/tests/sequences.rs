//! The rules at work one after the other: random sequences of requests, clock steps, purges, writes and changes at the origin,
//! played to a cache of a few lines that asks the crate for every decision, and to one that reckons with numbers alone, as RFC
//! 9111 is read naively. Both have to answer every request from the same place with the same content.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use brim_semantics::{
    CachePolicy, Nominated, PurgeState, Refusal, RequestDirectives, RequestFacts, Reuse, Storable, StoredMeta,
    freshened, http_date_value, invalidates, make_conditional, not_modified_selects, reuse, storable, stored_headers,
};
use brim_semantics::{Precondition, ResponseDirectives, evaluate};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use proptest::prelude::*;

/// When every sequence begins.
const BEGIN_SECONDS: u64 = 1_800_000_000;

/// What the origin sends with its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Manner {
    max_age: Option<u64>,
    window: Option<u64>,
    no_store: bool,
    private: bool,
    no_cache: bool,
    must_revalidate: bool,
    public: bool,
    varies: bool,
    tagged: bool,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    /// What `x-kind` says.
    kind: Option<u8>,
    authorized: bool,
    no_cache: bool,
    no_store: bool,
    max_age: Option<u64>,
    min_fresh: Option<u64>,
    max_stale: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Ask(Asked),
    Pass(u64),
    Purge { soft: bool },
    Write { status: u16 },
    Change { manner: Manner, content: bool },
}

/// Where an answer came from, what it was, and how old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Fresh { version: u32, age: u64 },
    Stale { version: u32, age: u64 },
    Validated { version: u32 },
    Forwarded { version: u32 },
}

/// In tens, so that what ends at the same second is met often.
fn seconds(most: u64) -> impl Strategy<Value = u64> {
    (0..most / 10).prop_map(|tens| tens * 10)
}

fn rare() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.12)
}

prop_compose! {
    fn any_manner()(
        max_age in prop::option::weighted(0.8, seconds(100)), window in prop::option::weighted(0.3, seconds(60)),
        (no_store, private, no_cache, must_revalidate, public) in (rare(), rare(), rare(), rare(), rare()),
        (varies, tagged) in (any::<bool>(), any::<bool>()),
    ) -> Manner {
        Manner { max_age, window, no_store, private, no_cache, must_revalidate, public, varies, tagged }
    }
}

prop_compose! {
    fn any_asked()(
        kind in prop::option::of(0_u8..2), (authorized, no_cache, no_store) in (rare(), rare(), rare()),
        max_age in prop::option::weighted(0.1, seconds(100)), min_fresh in prop::option::weighted(0.1, seconds(60)),
        max_stale in prop::option::weighted(0.2, seconds(100)),
    ) -> Asked {
        Asked { kind, authorized, no_cache, no_store, max_age, min_fresh, max_stale }
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => any_asked().prop_map(Event::Ask),
        5 => seconds(60).prop_map(Event::Pass),
        1 => any::<bool>().prop_map(|soft| Event::Purge { soft }),
        1 => prop_oneof![Just(200_u16), Just(303), Just(404), Just(500)].prop_map(|status| Event::Write { status }),
        2 => (any_manner(), any::<bool>()).prop_map(|(manner, content)| Event::Change { manner, content }),
    ]
}

/// The origin: its content is a number.
#[derive(Debug, Clone, Copy)]
struct Origin {
    manner: Manner,
    version: u32,
}

impl Origin {
    fn fields(&self, now: u64) -> HeaderMap {
        let Manner { max_age, window, no_store, private, no_cache, must_revalidate, public, varies, tagged } =
            self.manner;
        let mut fields = HeaderMap::new();
        fields.insert("date", http_date_value(at(now)));
        let flags = [
            (no_store, "no-store"),
            (private, "private"),
            (no_cache, "no-cache"),
            (must_revalidate, "must-revalidate"),
            (public, "public"),
        ];
        // Always there, so that a 304 replaces all of it.
        fields.append("cache-control", HeaderValue::from_static("x"));
        for (_, directive) in flags.iter().filter(|(is_set, _)| *is_set) {
            fields.append("cache-control", HeaderValue::from_static(directive));
        }
        for (name, seconds) in [("max-age", max_age), ("stale-while-revalidate", window)] {
            if let Some(seconds) = seconds {
                fields.append(
                    "cache-control",
                    HeaderValue::try_from(format!("{name}={seconds}")).expect("visible ASCII"),
                );
            }
        }
        if tagged {
            fields.insert("etag", HeaderValue::try_from(format!("\"{}\"", self.version)).expect("visible ASCII"));
        }
        if varies {
            fields.insert("vary", HeaderValue::from_static("X-Kind"));
        }
        fields
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(BEGIN_SECONDS + seconds)
}

impl Asked {
    fn fields(&self) -> HeaderMap {
        let mut fields = HeaderMap::new();
        if let Some(kind) = self.kind {
            fields.insert("x-kind", HeaderValue::from(u16::from(kind)));
        }
        if self.authorized {
            fields.insert("authorization", HeaderValue::from_static("Basic x"));
        }
        for (_, directive) in [(self.no_cache, "no-cache"), (self.no_store, "no-store")].iter().filter(|(set, _)| *set)
        {
            fields.append("cache-control", HeaderValue::from_static(directive));
        }
        for (name, seconds) in [("max-age", self.max_age), ("min-fresh", self.min_fresh), ("max-stale", self.max_stale)]
        {
            if let Some(seconds) = seconds {
                fields.append(
                    "cache-control",
                    HeaderValue::try_from(format!("{name}={seconds}")).expect("visible ASCII"),
                );
            }
        }
        fields
    }
}

/// A cache that asks the crate.
#[derive(Default)]
struct ByTheCrate {
    stored: Vec<Stored>,
}

struct Stored {
    nominated: Nominated,
    fields: HeaderMap,
    meta: StoredMeta,
    purge: PurgeState,
    version: u32,
}

impl ByTheCrate {
    fn ask(&mut self, asked: &Asked, origin: &Origin, now: u64) -> Answer {
        let (fields, policy, target) = (asked.fields(), CachePolicy::default(), Uri::from_static("https://a/"));
        let facts = RequestFacts { method: &Method::GET, headers: &fields, target: &target };
        let directives = RequestDirectives::parse(&fields);
        let found = self.stored.iter().position(|stored| {
            stored.nominated.matches(&fields)
                && reuse(&stored.meta, &directives, stored.purge, at(now), &policy) != Reuse::Unusable
        });
        let Some(found) = found else { return self.forward(&facts, origin, now, &policy) };
        let stored = &self.stored[found];
        let (version, age) = (stored.version, stored.meta.current_age(at(now)).as_secs());
        match reuse(&stored.meta, &directives, stored.purge, at(now), &policy) {
            Reuse::Fresh => return Answer::Fresh { version, age },
            Reuse::StaleAllowed { .. } | Reuse::StaleWhileValidating { .. } => return Answer::Stale { version, age },
            Reuse::MustValidate(_) | Reuse::Unusable => {}
        }
        let mut forward = fields.clone();
        make_conditional(&mut forward, &stored.fields);
        let theirs = origin.fields(now);
        if evaluate(&Method::GET, &forward, StatusCode::OK, &theirs, at(now)) != Precondition::NotModified {
            self.stored.remove(found);
            return self.forward(&facts, origin, now, &policy);
        }
        assert!(not_modified_selects(&theirs, &stored.fields, true));
        let fresh = freshened(&facts, StatusCode::OK, &stored.fields, &theirs, &policy, at(now), at(now));
        match fresh.storable {
            Storable::Yes(meta) => {
                let mut stored = self.stored.remove(found);
                (stored.fields, stored.meta, stored.purge) = (fresh.headers, meta, PurgeState::Live);
                self.stored.insert(0, stored);
            }
            Storable::No(Refusal::RequestNoStore | Refusal::Authorization) => {}
            Storable::No(_) => self.stored.clear(),
        }
        Answer::Validated { version }
    }

    fn forward(&mut self, facts: &RequestFacts<'_>, origin: &Origin, now: u64, policy: &CachePolicy) -> Answer {
        let fields = origin.fields(now);
        if let Storable::Yes(meta) = storable(facts, StatusCode::OK, &fields, policy, at(now), at(now)) {
            let nominated = Nominated::of(&fields, facts.headers).expect("one field name");
            self.stored.retain(|stored| stored.nominated != nominated);
            let fields = stored_headers(&fields, &ResponseDirectives::parse(&fields, policy));
            let purge = PurgeState::Live;
            self.stored.insert(0, Stored { nominated, fields, meta, purge, version: origin.version });
        }
        Answer::Forwarded { version: origin.version }
    }

    fn purge(&mut self, soft: bool) {
        for stored in &mut self.stored {
            stored.purge = match (soft, stored.purge) {
                (false, _) | (_, PurgeState::Hard) => PurgeState::Hard,
                (true, _) => PurgeState::Soft,
            };
        }
    }
}

/// A cache that reckons.
#[derive(Default)]
struct Naive {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    /// `None`: for every kind.
    kind: Option<Option<u8>>,
    since: u64,
    manner: Manner,
    version: u32,
    soft: bool,
}

impl Entry {
    /// True: fresh. False: stale, but it may be used. `None`: it has to be validated.
    fn may_be_used(&self, asked: &Asked, now: u64) -> Option<bool> {
        let (manner, age) = (self.manner, now - self.since);
        let lifetime = manner.max_age.unwrap_or(0);
        if manner.no_cache || asked.no_cache || asked.max_age.is_some_and(|limit| limit == 0 || age > limit) {
            return None;
        }
        let is_fresh = age < lifetime && !self.soft;
        if asked.min_fresh.is_some_and(|seconds| !is_fresh || lifetime - age < seconds) {
            return None;
        }
        if is_fresh {
            return Some(true);
        }
        let stale_for = age.saturating_sub(lifetime);
        let client_takes = asked.max_stale.is_some_and(|limit| stale_for <= limit);
        let client_bars = asked.max_age.is_some() && !client_takes;
        let in_window = match self.soft && age < lifetime {
            true => !manner.must_revalidate,
            false => !manner.must_revalidate && manner.window.is_some_and(|window| stale_for < window),
        };
        let by_client = client_takes && !self.soft && !manner.must_revalidate && manner.max_age.is_some();
        ((in_window && !client_bars) || by_client).then_some(false)
    }
}

impl Naive {
    fn ask(&mut self, asked: &Asked, origin: &Origin, now: u64) -> Answer {
        let found = self.entries.iter().position(|entry| entry.kind.is_none_or(|kind| kind == asked.kind));
        let Some(found) = found else { return self.forward(asked, origin, now) };
        let entry = self.entries[found];
        let (version, age) = (entry.version, now - entry.since);
        match entry.may_be_used(asked, now) {
            Some(true) => return Answer::Fresh { version, age },
            Some(false) => return Answer::Stale { version, age },
            None => {}
        }
        if !(entry.manner.tagged && origin.manner.tagged && version == origin.version) {
            self.entries.remove(found);
            return self.forward(asked, origin, now);
        }
        let is_forbidden = origin.manner.no_store || origin.manner.private;
        let is_refused =
            is_forbidden || (is_shareable(asked, &origin.manner) && origin.manner.varies && entry.kind.is_none());
        // What only this request may not be stored for takes nothing from the others.
        if is_refused && !asked.no_store {
            self.entries.clear();
        } else if is_shareable(asked, &origin.manner) {
            self.entries.remove(found);
            self.entries.insert(0, Entry { since: now, manner: origin.manner, soft: false, ..entry });
        }
        Answer::Validated { version }
    }

    fn forward(&mut self, asked: &Asked, origin: &Origin, now: u64) -> Answer {
        let (manner, version) = (origin.manner, origin.version);
        let is_of_use = manner.tagged || (manner.max_age.is_some() && !manner.no_cache);
        if !manner.no_store && !manner.private && is_of_use && is_shareable(asked, &manner) {
            let kind = manner.varies.then_some(asked.kind);
            self.entries.retain(|entry| entry.kind != kind);
            self.entries.insert(0, Entry { kind, since: now, manner, version, soft: false });
        }
        Answer::Forwarded { version }
    }
}

fn is_shareable(asked: &Asked, manner: &Manner) -> bool {
    !asked.no_store && (!asked.authorized || manner.public || manner.must_revalidate)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn both_caches_answer_alike(manner in any_manner(), events in prop::collection::vec(any_event(), 1..60)) {
        let (mut crates, mut naive) = (ByTheCrate::default(), Naive::default());
        let mut origin = Origin { manner, version: 1 };
        let mut now = 0;
        for (step, event) in events.iter().enumerate() {
            match *event {
                Event::Pass(seconds) => now += seconds,
                Event::Change { manner, content } => {
                    origin = Origin { manner, version: origin.version + u32::from(content) };
                }
                Event::Purge { soft } => {
                    crates.purge(soft);
                    naive.entries.iter_mut().for_each(|entry| entry.soft = true);
                    if !soft {
                        naive.entries.clear();
                    }
                }
                Event::Write { status } => {
                    if invalidates(&Method::POST, StatusCode::from_u16(status).unwrap()) {
                        crates.stored.clear();
                    }
                    if status < 400 {
                        naive.entries.clear();
                    }
                }
                Event::Ask(asked) => {
                    let (one, other) = (crates.ask(&asked, &origin, now), naive.ask(&asked, &origin, now));
                    prop_assert_eq!(one, other, "step {}: {:?}", step, event);
                }
            }
        }
    }
}
