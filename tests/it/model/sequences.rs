//! What the sequences are made of: requests with what the origin would answer, clock steps, purges.
//!
//! Always true:
//! - Fields come from short lists of values on both sides of each rule, so that few steps meet one another often.
//!
//! Not here: what ought to happen (`reference`, `cache`).

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::cache::Ask;
use super::origin::{Expires, Script};

pub(super) const URLS: usize = 2;
pub(super) const SURROGATE_KEYS: [&str; 2] = ["one", "two"];
const STEPS_MAX: usize = 24;

#[derive(Debug, Clone)]
pub(super) enum Step {
    Ask(Ask, Box<Script>),
    Wait(u64),
    PurgeUrl { url: usize, is_soft: bool },
    PurgeKey { key: &'static str, is_soft: bool },
}

pub(super) fn sequences() -> impl Strategy<Value = Vec<Step>> {
    let steps = prop_oneof![
        8 => (ask(), script()).prop_map(|(ask, script)| asking(ask, script)),
        3 => select(vec![0, 1, 2, 4, 5, 6, 9, 10, 11, 20, 40]).prop_map(Step::Wait),
        1 => (0..URLS, any::<bool>()).prop_map(|(url, is_soft)| Step::PurgeUrl { url, is_soft }),
        1 => (select(&SURROGATE_KEYS[..]), any::<bool>()).prop_map(|(key, is_soft)| Step::PurgeKey { key, is_soft }),
    ];
    prop::collection::vec(steps, 1..STEPS_MAX)
}

/// The answer to a POST that is kept for later GETs is another matter (RFC 9110 §9.3.3), with tests of its own.
fn asking(ask: Ask, script: Script) -> Step {
    let content_location = script.content_location.filter(|url| ask.method != "POST" || *url != ask.url);
    Step::Ask(ask, Box::new(Script { content_location, ..script }))
}

/// Nothing most of the time.
fn sometimes(values: &'static [&'static str]) -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![5 => Just(None), 1 => select(values).prop_map(Some)]
}

fn ask() -> impl Strategy<Value = Ask> {
    const CONTROLS: &[&str] = &[
        "no-cache",
        "no-store",
        "max-age=0",
        "max-age=5",
        "max-age=20",
        "min-fresh=3",
        "min-fresh=10",
        "max-stale",
        "max-stale=5",
        "only-if-cached",
        "max-age=5, max-stale=10",
        "only-if-cached, max-stale",
        "stale-if-error=20",
        "no-cache, only-if-cached",
        "max-stale=5, max-stale=1",
        "No-Cache",
        "unknown, max-age=10",
    ];
    let method = prop_oneof![16 => Just("GET"), 2 => Just("HEAD"), 1 => Just("POST"), 1 => Just("PUT")];
    let nominated = (sometimes(&["1", "2"]), sometimes(&["1"]));
    let control = prop_oneof![2 => Just(None), 1 => select(CONTROLS).prop_map(Some)];
    let conditions = sometimes(&["\"a\"", "W/\"a\"", "\"b\", \"c\"", "*"]);
    let pragma = sometimes(&["no-cache", "other"]);
    let is_authorized = prop::bool::weighted(0.1);
    (method, 0..URLS, control, pragma, conditions, is_authorized, nominated).prop_map(
        |(method, url, control, pragma, if_none_match, is_authorized, (a, b))| {
            // A condition on a write is for the origin, and a POST here has nothing to compare.
            let if_none_match = if_none_match.filter(|_| matches!(method, "GET" | "HEAD"));
            Ask { method, url, control, pragma, if_none_match, is_authorized, nominated: [("x-a", a), ("x-b", b)] }
        },
    )
}

fn script() -> impl Strategy<Value = Script> {
    const LIFETIMES: &[&str] = &[
        "max-age=0",
        "max-age=5",
        "max-age=20",
        "s-maxage=10",
        "s-maxage=0",
        "max-age=abc",
        "max-age=\"7\"",
        "max-age=99999999999",
    ];
    const OTHERS: &[&str] = &[
        "no-cache",
        "no-store",
        "private",
        "public",
        "must-revalidate",
        "proxy-revalidate",
        "must-understand",
        "Public",
        "stale-while-revalidate=10",
        "stale-if-error=10",
        "no-cache=\"x-secret\"",
        "private=\"x-secret, x-b\"",
        "immutable",
        "unknown=\"a, no-store\"",
        "stale-while-revalidate=5",
        "stale-if-error=0",
    ];
    const TARGETED: &[&str] = &[
        "max-age=8",
        "max-age=30, stale-while-revalidate=10",
        "no-store",
        "max-age=8;p=1, private",
        "MAX-AGE=5",
        "max-age=1, max-age=12",
        "max-age=",
        "public, s-maxage=6",
        "no-cache",
        "private=?0, max-age=9",
    ];
    const VARIES: &[&str] = &["x-a", "X-A, x-b", "x-b", "x-b, x-a", "*", "x-a, *"];
    let lifetimes = prop_oneof![
        2 => Just(Vec::new()),
        6 => select(LIFETIMES).prop_map(|one| vec![one]),
        1 => subsequence(LIFETIMES, 2),
    ];
    let others = prop_oneof![
        4 => Just(Vec::new()),
        3 => select(OTHERS).prop_map(|one| vec![one]),
        1 => subsequence(OTHERS, 2..4),
    ];
    let control = (lifetimes, others, any::<bool>(), sometimes(TARGETED));
    let expires = prop_oneof![
        4 => Just(None),
        2 => select(vec![-10, 0, 5, 20]).prop_map(|seconds| Some(Expires::In(seconds))),
        1 => Just(Some(Expires::Invalid)),
    ];
    let date = prop_oneof![2 => Just(None), 3 => Just(Some(0)), 1 => select(vec![-7, -2, 4, 30]).prop_map(Some)];
    let times = (expires, date, sometimes(&["0", "3", "15", "x", "4, 90"]));
    let validators = (
        prop_oneof![1 => Just(None), 2 => select(vec!["\"a\"", "\"b\"", "W/\"a\""]).prop_map(Some)],
        prop_oneof![2 => Just(None), 1 => select(vec![100, 250]).prop_map(Some)],
    );
    let status =
        prop_oneof![14 => Just(200), 5 => select(vec![203, 204, 301, 404, 410, 299]), 3 => select(vec![500, 503])];
    let location = || prop_oneof![4 => Just(None), 1 => (0..URLS).prop_map(Some)];
    let rest = (
        sometimes(VARIES),
        prop::bool::weighted(0.05),
        sometimes(&SURROGATE_KEYS),
        location(),
        location(),
        any::<bool>(),
        prop::bool::weighted(0.07),
    );
    (status, control, times, validators, rest).prop_map(
        |(status, (lifetimes, others, is_split, targeted), (expires, date, age), (etag, modified), rest)| {
            let (vary, sets_cookie, surrogate_key, location, content_location, is_brief, drops) = rest;
            let control = lifetimes.into_iter().chain(others).collect();
            Script {
                status,
                control,
                is_split,
                targeted,
                expires,
                date,
                age,
                etag,
                modified,
                vary,
                sets_cookie,
                surrogate_key,
                location,
                content_location,
                is_brief,
                drops,
            }
        },
    )
}
