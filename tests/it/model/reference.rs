//! The rules of RFC 9111, RFC 5861 and RFC 9213 once more, as plainly as they can be written, for the test alone.
//!
//! Always true:
//! - Nothing here comes from the node: own parsing, own arithmetic, whole seconds, text as it stands in the fields.
//! - Where an RFC leaves a choice, the node's documented one is taken, and a comment says which.
//!
//! Not here: what is stored and in which order things happen (`cache`).

use std::time::SystemTime;

use super::origin::{SECRET, opaque};

/// A number of seconds counts as at most this (RFC 9111 §1.2.2).
const SECONDS_MAX: u64 = 1 << 31;

type Fields = [(&'static str, String)];

/// The values of all lines of a field.
fn lines<'a>(fields: &'a Fields, name: &str) -> Vec<&'a str> {
    fields.iter().filter(|(known, _)| *known == name).map(|(_, value)| value.as_str()).collect()
}

pub(super) fn line<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    lines(fields, name).first().copied()
}

fn date(text: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(text).ok()?;
    time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// The members of a list, split at commas outside of quotes.
fn members(line: &str) -> Vec<String> {
    let (mut found, mut member, mut is_quoted) = (Vec::new(), String::new(), false);
    for letter in line.chars() {
        is_quoted ^= letter == '"';
        if letter == ',' && !is_quoted {
            found.push(std::mem::take(&mut member));
        } else {
            member.push(letter);
        }
    }
    found.push(member);
    found.iter().map(|member| member.trim().to_owned()).filter(|member| !member.is_empty()).collect()
}

/// Directives in the order in which they stand, names in lower case, values without their quotes.
#[derive(Debug, Clone, Default)]
pub(super) struct Control {
    directives: Vec<(String, Option<String>)>,
    is_targeted: bool,
}

impl Control {
    pub(super) fn of_line(line: &str) -> Self {
        Self::of_members(members(line), false)
    }

    /// `CDN-Cache-Control` if it is valid and not empty, else `Cache-Control` (RFC 9213 §2.2).
    pub(super) fn of_response(fields: &Fields) -> Self {
        if let Some(targeted) = line(fields, "cdn-cache-control").and_then(dictionary) {
            return targeted;
        }
        Self::of_members(lines(fields, "cache-control").into_iter().flat_map(members).collect(), false)
    }

    fn of_members(members: Vec<String>, is_targeted: bool) -> Self {
        let split = |member: &String| match member.split_once('=') {
            None => (member.to_ascii_lowercase(), None),
            Some((name, value)) => (name.to_ascii_lowercase(), Some(value.trim_matches('"').to_owned())),
        };
        Self { directives: members.iter().map(split).collect(), is_targeted }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.directives.iter().any(|(known, _)| known == name)
    }

    /// With that name and no field names behind it.
    fn has_whole(&self, name: &str) -> bool {
        self.directives.iter().any(|(known, value)| known == name && value.is_none())
    }

    /// The shortest of several; what is no number is 0: stale, and no window (§4.2.1).
    pub(super) fn seconds(&self, name: &str) -> Option<u64> {
        let number = |text: &Option<String>| {
            let digits =
                text.as_deref().filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
            digits.map_or(0, |digits| digits.parse().unwrap_or(SECONDS_MAX).min(SECONDS_MAX))
        };
        self.directives.iter().filter(|(known, _)| known == name).map(|(_, value)| number(value)).min()
    }

    /// §5.2.2.4, §5.2.2.7: the field is not for everybody. Where `no-cache` stands alone too, every use is validated anyway.
    pub(super) fn withholds(&self, field: &str) -> bool {
        let is_named = |name: &str| {
            let named = self.directives.iter().filter(|(known, _)| known == name);
            named.filter_map(|(_, value)| value.as_deref()).any(|value| value.contains(field))
        };
        is_named("private") || (is_named("no-cache") && !self.has_whole("no-cache"))
    }
}

/// A Dictionary of structured fields (RFC 9651 §3.2), as far as the scripts have any; the last of equal keys counts.
fn dictionary(line: &str) -> Option<Control> {
    let mut control = Control { directives: Vec::new(), is_targeted: true };
    for member in line.split(',') {
        let member = member.trim().split(';').next().unwrap_or_default();
        let (key, value) = member.split_once('=').map_or((member, None), |(key, value)| (key, Some(value)));
        let is_key = key.starts_with(|letter: char| letter.is_ascii_lowercase() || letter == '*')
            && key
                .chars()
                .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "_-.*".contains(letter));
        if !is_key || value == Some("") {
            return None;
        }
        control.directives.retain(|(known, _)| known != key);
        if value != Some("?0") {
            control.directives.push((key.to_owned(), value.map(str::to_owned)));
        }
    }
    Some(control)
}

/// What a request asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Wishes(Control);

impl Wishes {
    /// `Pragma` counts where there is no `Cache-Control` (§5.4).
    pub(super) fn of(cache_control: Option<&str>, pragma: Option<&str>) -> Self {
        match (cache_control, pragma) {
            (Some(control), _) => Self(Control::of_line(control)),
            (None, Some("no-cache")) => Self(Control::of_line("no-cache")),
            (None, _) => Self::default(),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.has(name)
    }

    fn takes_stale(&self, stale_for: u64) -> bool {
        self.0.has_whole("max-stale") || self.0.seconds("max-stale").is_some_and(|limit| stale_for <= limit)
    }

    /// `max-age` is older than this, or 0, which asks for a validation.
    fn is_exceeded_by(&self, age: u64) -> bool {
        self.0.seconds("max-age").is_some_and(|limit| age > limit || limit == 0)
    }
}

/// What follows from a response's fields and from when it came.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    control: Control,
    pub(super) initial_age: u64,
    pub(super) lifetime: u64,
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Explicit,
    Heuristic,
    Nothing,
}

impl Facts {
    /// The request was sent and the response came at `now`: the test's clock stands still meanwhile.
    pub(super) fn of(status: u16, fields: &Fields, now: u64) -> Self {
        let control = Control::of_response(fields);
        let dated = line(fields, "date").and_then(date);
        // §4.2.3. Of a list in `Age` the first member counts (§5.1).
        let apparent = now.saturating_sub(dated.unwrap_or(now));
        let given = line(fields, "age").and_then(|age| age.split(',').next()?.trim().parse().ok()).unwrap_or(0);
        let (lifetime, source) = lifetime(status, fields, &control, dated.unwrap_or(now));
        Self { control, initial_age: apparent.max(given), lifetime, source }
    }

    fn must_revalidate(&self) -> bool {
        self.control.has("must-revalidate") || self.control.has("proxy-revalidate") || self.control.has("s-maxage")
    }

    /// A window of RFC 5861. The node's choice: `s-maxage` alone does not close it, the others do.
    fn window(&self, name: &str) -> Option<u64> {
        let is_closed = ["must-revalidate", "proxy-revalidate"].iter().any(|name| self.control.has(name));
        self.control.seconds(name).filter(|_| !is_closed && !self.control.has_whole("no-cache"))
    }

    /// §4.2.4; and the node's choice: what never had a lifetime is not used stale.
    fn forbids_stale(&self) -> bool {
        self.must_revalidate() || self.source == Source::Nothing
    }

    pub(super) fn withholds(&self, field: &str) -> bool {
        self.control.withholds(field)
    }
}

fn is_heuristic(status: u16) -> bool {
    [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501].contains(&status)
}

/// §4.2.1, §4.2.2.
fn lifetime(status: u16, fields: &Fields, control: &Control, dated: u64) -> (u64, Source) {
    if let Some(seconds) = control.seconds("s-maxage").or(control.seconds("max-age")) {
        return (seconds, Source::Explicit);
    }
    // A targeted field replaces `Expires` as well (RFC 9213 §2.2).
    if let Some(expires) = line(fields, "expires").filter(|_| !control.is_targeted) {
        return (date(expires).unwrap_or(0).saturating_sub(dated), Source::Explicit);
    }
    match line(fields, "last-modified").and_then(date) {
        Some(modified) if (is_heuristic(status) || control.has("public")) && modified <= dated => {
            ((dated - modified) / 10, Source::Heuristic)
        }
        _ => (0, Source::Nothing),
    }
}

/// Whose fields forbid to store a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Request,
    Response,
}

/// §3, for a response to GET: who forbids to store it.
pub(super) fn refusal(
    status: u16,
    fields: &Fields,
    facts: &Facts,
    wishes: &Wishes,
    is_authorized: bool,
) -> Option<Refusal> {
    let control = &facts.control;
    if wishes.has("no-store") {
        return Some(Refusal::Request);
    }
    let is_understood = status != 299;
    let is_refused = if control.has("must-understand") { !is_understood } else { control.has("no-store") };
    if is_refused || control.has_whole("private") {
        return Some(Refusal::Response);
    }
    let is_shared = ["public", "must-revalidate", "s-maxage"].iter().any(|name| control.has(name));
    if is_authorized && !is_shared {
        return Some(Refusal::Request);
    }
    // The node's choice by default, whatever the response says of itself.
    let sets_cookie = !lines(fields, "set-cookie").is_empty();
    let varies_on_all = lines(fields, "vary").iter().any(|names| names.split(',').any(|name| name.trim() == "*"));
    let has_validator = line(fields, "etag").is_some() || line(fields, "last-modified").is_some();
    // Of no use: it could neither be used nor validated. Nor would an error without a lifetime be worth a validation.
    let needs_validator = control.has_whole("no-cache");
    let may_be_estimated = is_heuristic(status) || control.has("public");
    let is_of_use = facts.source != Source::Nothing || (may_be_estimated && has_validator && status < 400);
    let is_refused = sets_cookie || varies_on_all || (needs_validator && !has_validator) || !is_of_use;
    is_refused.then_some(Refusal::Response)
}

/// What may be done with a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Hit,
    HitWhileValidating,
    /// Validated first; whether it was the request that asked for it.
    Validate {
        is_requested: bool,
    },
}

/// §4, RFC 5861 §3. `is_soft`: a soft purge has made it stale.
pub(super) fn usable(facts: &Facts, age: u64, is_soft: bool, wishes: &Wishes) -> Use {
    let Wishes(asked) = wishes;
    if facts.control.has_whole("no-cache") {
        return Use::Validate { is_requested: false };
    }
    if asked.has("no-cache") || wishes.is_exceeded_by(age) {
        return Use::Validate { is_requested: true };
    }
    let is_young = facts.lifetime > age;
    let is_fresh = is_young && !is_soft;
    if asked.seconds("min-fresh").is_some_and(|wanted| !is_fresh || facts.lifetime - age < wanted) {
        return Use::Validate { is_requested: true };
    }
    if is_fresh {
        return Use::Hit;
    }
    let stale_for = age.saturating_sub(facts.lifetime);
    let own_window = facts.window("stale-while-revalidate");
    // An operator's soft purge is leave to use once more what would be fresh by its age.
    let is_in_window = match is_soft && is_young {
        true => !facts.must_revalidate() || own_window.is_some(),
        false => own_window.is_some_and(|window| stale_for < window),
    };
    // §5.2.1.1: who names a max-age takes nothing stale, unless max-stale says so.
    let is_refused = asked.has("max-age") && !wishes.takes_stale(stale_for);
    if is_in_window && !is_refused {
        return Use::HitWhileValidating;
    }
    if !is_soft && !facts.forbids_stale() && wishes.takes_stale(stale_for) {
        return Use::Hit;
    }
    Use::Validate { is_requested: false }
}

/// §4.2.4, RFC 5861 §4: may it stand in for an origin that fails? The node's choice where nobody names a window: it may.
pub(super) fn usable_on_error(facts: &Facts, age: u64, wishes: &Wishes) -> bool {
    let Wishes(asked) = wishes;
    if facts.control.has_whole("no-cache")
        || asked.has("no-cache")
        || asked.has("min-fresh")
        || wishes.is_exceeded_by(age)
    {
        return false;
    }
    if age < facts.lifetime {
        return true;
    }
    let stale_for = age - facts.lifetime;
    if !facts.forbids_stale() && wishes.takes_stale(stale_for) {
        return true;
    }
    let asked_window = asked.seconds("stale-if-error").filter(|_| !facts.forbids_stale());
    match facts.window("stale-if-error").max(asked_window) {
        Some(window) => stale_for < window,
        None => !facts.forbids_stale() && !asked.has("max-age"),
    }
}

pub(super) fn is_server_error(status: u16) -> bool {
    [500, 502, 503, 504].contains(&status)
}

/// RFC 9110 §13.1.2: does the client have it already?
pub(super) fn is_named(if_none_match: Option<&str>, status: u16, fields: &Fields) -> bool {
    let Some(tags) = if_none_match.filter(|_| (200..300).contains(&status)) else { return false };
    let own = line(fields, "etag");
    tags.split(',').map(str::trim).any(|tag| tag == "*" || own.is_some_and(|own| opaque(own) == opaque(tag)))
}

/// §4.3.4: is a 304 about the one stored response that was offered?
pub(super) fn is_about(not_modified: &Fields, stored: &Fields) -> bool {
    if let Some(tag) = line(not_modified, "etag") {
        return line(stored, "etag").is_some_and(|stored| opaque(stored) == opaque(tag));
    }
    match (line(not_modified, "last-modified"), line(stored, "last-modified")) {
        (Some(now), Some(then)) => now == then,
        _ => true,
    }
}

/// §4.3.4: is a 304 about this one of several that were offered? A strong tag is that of one alone.
pub(super) fn names(not_modified: &Fields, stored: &Fields) -> bool {
    let is_strong = |tag: &str| !tag.starts_with("W/");
    match (line(not_modified, "etag"), line(stored, "etag")) {
        (Some(tag), Some(stored)) if is_strong(tag) => tag == stored,
        (Some(tag), Some(stored)) => opaque(tag) == opaque(stored),
        _ => false,
    }
}

/// §4.3.5: does the response to a HEAD describe what is stored?
pub(super) fn is_described(head: &Fields, length: usize, stored: &Fields, stored_length: usize) -> bool {
    let is_same = |name| line(head, name).is_none_or(|value| line(stored, name) == Some(value));
    is_same("etag") && is_same("last-modified") && length == stored_length
}

/// §3.2: the fields of a 304 (or of a HEAD response) take the place of the stored ones.
pub(super) fn updated(stored: &Fields, update: &Fields) -> Vec<(&'static str, String)> {
    const KEPT: [&str; 2] = ["set-cookie", "age"];
    // The node's choice: a weak tag stays weak, for the stored content was never said to be the same byte for byte.
    let stays_weak = match (line(stored, "etag"), line(update, "etag")) {
        (Some(then), Some(now)) => then.starts_with("W/") && opaque(then) == opaque(now),
        _ => false,
    };
    let replaces =
        |name: &str| !KEPT.contains(&name) && (name != "etag" || !stays_weak) && line(update, name).is_some();
    let kept = stored.iter().filter(|(name, _)| !replaces(name));
    kept.chain(update.iter().filter(|(name, _)| replaces(name))).cloned().collect()
}

/// §3.1: what is stored of a response's fields.
pub(super) fn stored_part(fields: &Fields, facts: &Facts) -> Vec<(&'static str, String)> {
    let is_kept = |name: &str| name != "age" && !(name == SECRET && facts.withholds(SECRET));
    fields.iter().filter(|(name, _)| is_kept(name)).cloned().collect()
}
