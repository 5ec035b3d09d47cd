//! Validation: is what is stored, or what the client has, still the current representation? (RFC 9111 §4.3, RFC 9110 §13)
//!
//! Always true:
//! - Strong comparison is used for `If-Match` and `If-Range`, weak comparison for `If-None-Match` and for selecting what a 304
//!   freshens.
//! - `If-None-Match` has precedence over `If-Modified-Since` (RFC 9110 §13.2.2).
//! - A 304 changes no field that describes the stored content: `Content-Length`, `Content-Encoding`, `Content-Range`,
//!   `Content-Type` (RFC 9111 §3.2), makes no weak entity tag strong, and no response match requests that it has not been
//!   compared with.
//! - What a 304 says to one client (`Set-Cookie`, fields that `no-cache` or `private` names) is given to that client and to the
//!   store only where a first response's would be.
//!
//! Not here: `Range` (`range`), when to validate (`reuse`).

use std::time::SystemTime;

use http::header::{
    AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG,
    EXPIRES, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, SET_COOKIE, TRAILER, VARY, VIA,
};
use http::{Method, StatusCode};

use crate::fields::{http_date, http_date_at, only_line, strip_hop_by_hop, trim_ows};
use crate::storable::{Refusal, RequestFacts, Storable, storable, stored_headers};
use crate::{CachePolicy, Nominated, ResponseDirectives, http_date_value};

/// More entity tags are not offered to the origin on a variant miss: it need not read a long list to say 304.
const OFFERED_TAGS_MAX: usize = 16;
/// More entity tags in one precondition are not looked at.
const LISTED_TAGS_MAX: usize = 256;

/// Makes a forward request conditional on the stored response's validators (RFC 9111 §4.3.1), in place of the conditions that
/// the client had for its own copy, and for the whole content. False: the stored response has no validator, and the request
/// is unconditional. `If-Match` and `If-Unmodified-Since` are the origin's to evaluate and stay.
pub fn make_conditional(forward: &mut HeaderMap, stored_headers: &HeaderMap) -> bool {
    remove_own_conditions(forward);
    let tag = only_line(stored_headers, &ETAG);
    let modified = only_line(stored_headers, &LAST_MODIFIED).filter(|line| http_date(line).is_some());
    if let Some(tag) = tag {
        forward.insert(IF_NONE_MATCH, tag.clone());
    }
    if let Some(modified) = modified {
        forward.insert(IF_MODIFIED_SINCE, modified.clone());
    }
    tag.is_some() || modified.is_some()
}

/// On a variant miss: offers the entity tags of the variants that are stored, so that a 304 can name the one that answers
/// (RFC 9111 §4.3.1). False: none has one, and the request is unconditional.
pub fn make_conditional_on_any<'a>(
    forward: &mut HeaderMap,
    stored_headers: impl IntoIterator<Item = &'a HeaderMap>,
) -> bool {
    remove_own_conditions(forward);
    let mut list: Vec<&[u8]> = Vec::new();
    for tag in stored_headers.into_iter().filter_map(|headers| only_line(headers, &ETAG)).take(OFFERED_TAGS_MAX) {
        // What is not written as an entity tag could not be told apart in a list.
        if EntityTag::of(tag.as_bytes()).is_some() && !list.contains(&tag.as_bytes()) {
            list.push(tag.as_bytes());
        }
    }
    match HeaderValue::from_bytes(&list.join(&b", "[..])) {
        Ok(value) if !list.is_empty() => {
            forward.insert(IF_NONE_MATCH, value);
            true
        }
        _ => false,
    }
}

fn remove_own_conditions(forward: &mut HeaderMap) {
    for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE, RANGE] {
        forward.remove(name);
    }
}

/// Whether a 304 is about this stored response (RFC 9111 §4.3.4). `only`: it is the only one that was offered.
///
/// The entity tag decides, else `Last-Modified`. In two places §4.3.4 is read by its purpose where `only` holds, because what the
/// origin was asked then leaves one answer: a 304 without any validator is about what was offered, though that has one; and a
/// strong tag is about a stored weak one that it equals weakly (§13.1.2 of RFC 9110 compares so, and servers that weaken the
/// tags of what they compress send 304 with the strong one).
pub fn not_modified_selects(not_modified: &HeaderMap, stored_headers: &HeaderMap, only: bool) -> bool {
    let stored_tag = only_line(stored_headers, &ETAG).map(HeaderValue::as_bytes);
    if not_modified.contains_key(ETAG) {
        // Several tags name nothing.
        let Some(tag) = only_line(not_modified, &ETAG).map(HeaderValue::as_bytes) else { return false };
        return match stored_tag {
            Some(stored) if is_weak(tag) => weakly_equal(tag, stored),
            Some(stored) => tag == stored || (only && weakly_equal(tag, stored)),
            None => false,
        };
    }
    match (only_line(not_modified, &LAST_MODIFIED), only_line(stored_headers, &LAST_MODIFIED)) {
        (Some(now), Some(then)) => now == then || (http_date(now).is_some() && http_date(now) == http_date(then)),
        _ => only,
    }
}

/// What there is in a 304, or in a HEAD response, to update stored fields with (RFC 9111 §3.2, §4.3.4, §4.3.5).
fn update_of(stored: &HeaderMap, not_modified: &HeaderMap) -> HeaderMap {
    let mut update = not_modified.clone();
    strip_hop_by_hop(&mut update);
    for name in NEVER_FRESHENED {
        update.remove(name);
    }
    if let (Some(now), Some(then)) = (only_line(&update, &ETAG), only_line(stored, &ETAG))
        && is_weak(then.as_bytes())
        && weakly_equal(now.as_bytes(), then.as_bytes())
    {
        // The stored content was never said to be the same byte for byte.
        update.remove(ETAG);
    }
    update
}

/// The stored fields with the update: a field of it replaces all lines of that name. An update without `Date` was made when it
/// arrived (RFC 9110 §6.6.1).
fn freshen(stored: &HeaderMap, mut update: HeaderMap, response_time: SystemTime) -> HeaderMap {
    if !update.contains_key(DATE) {
        update.insert(DATE, http_date_value(response_time));
    }
    let mut fresh = stored.clone();
    for name in update.keys() {
        fresh.remove(name);
    }
    for (name, value) in &update {
        fresh.append(name.clone(), value.clone());
    }
    fresh
}

/// §3.2; `Age` is reckoned, not stored; `Trailer` is about the content.
const NEVER_FRESHENED: [HeaderName; 7] =
    [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, AGE, TRAILER, VIA];

/// A freshened stored response.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Freshened {
    /// The updated fields.
    pub headers: HeaderMap,
    /// `Yes`: write both back. `No`: the 304 allows this use, but nothing of it may be stored (it says `no-store`, or answers a
    /// request with `Authorization`), or it nominates fields that the stored response does not: the stored response stays as it
    /// was, or goes.
    pub storable: Storable,
    /// Fields of the 304 that only the client whose request it answers gets, beside `headers`: `Set-Cookie`, unless the route
    /// stores those, and what `no-cache="…"` or `private="…"` names (RFC 9111 §5.2.2.4, §5.2.2.7).
    pub for_client: HeaderMap,
}

/// Freshens a stored response: its fields, and with them its age and lifetime.
///
/// `request` is the one that was forwarded, `status` the stored one, `not_modified` the 304 as received.
pub fn freshened(
    request: &RequestFacts<'_>,
    status: StatusCode,
    stored: &HeaderMap,
    not_modified: &HeaderMap,
    policy: &CachePolicy,
    request_time: SystemTime,
    response_time: SystemTime,
) -> Freshened {
    let mut update = update_of(stored, not_modified);
    let mut for_client = HeaderMap::new();
    if !policy.store_set_cookie {
        move_field(&SET_COOKIE, &mut update, &mut for_client);
    }
    let mut merged = freshen(stored, update, response_time);
    let directives = ResponseDirectives::parse(&merged, policy);
    let headers = stored_headers(&merged, &directives);
    // The age of a freshened response is that of the 304.
    for age in not_modified.get_all(AGE) {
        merged.append(AGE, age.clone());
    }
    // What a conditional HEAD freshens is the stored response to a GET.
    let method = if *request.method == Method::HEAD { &Method::GET } else { request.method };
    let request = RequestFacts { method, ..*request };
    let mut storable = storable(&request, status, &merged, policy, request_time, response_time);
    if matches!(storable, Storable::Yes(_)) && nominates_more(&merged, stored) {
        storable = Storable::No(Refusal::VaryChanged);
    }
    // Only what came with the 304: what an earlier response withheld was for another client.
    for name in directives.no_cache.fields().iter().chain(directives.private.fields()) {
        if not_modified.contains_key(name) {
            move_field(name, &mut merged, &mut for_client);
        }
    }
    Freshened { headers, storable, for_client }
}

/// Whether a stored response, once updated, would depend on request fields that it was not stored with.
fn nominates_more(merged: &HeaderMap, stored: &HeaderMap) -> bool {
    let names = |headers: &HeaderMap| Nominated::of(headers, &HeaderMap::new());
    match (names(merged), names(stored)) {
        (Ok(now), Ok(then)) => now.names().any(|name| !then.names().any(|known| known == name)),
        _ => true,
    }
}

/// Takes all lines of a field from one message to another that does not have it.
fn move_field(name: &HeaderName, from: &mut HeaderMap, to: &mut HeaderMap) {
    if NEVER_FRESHENED.contains(name) || to.contains_key(name) {
        return;
    }
    for line in from.get_all(name) {
        to.append(name.clone(), line.clone());
    }
    from.remove(name);
}

/// What a HEAD response means for the stored GET response (RFC 9111 §4.3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum HeadUpdate {
    /// It describes the same representation: freshen the stored response.
    Freshen,
    /// It describes another: the stored response is to be considered stale.
    Invalidate,
    /// It says nothing about it.
    Nothing,
}

/// Compares a HEAD response with the stored GET response that a GET would have selected.
///
/// Only a 200 says something (§4.3.5), and of a stored response with another status it says that it is no longer true.
/// `stored_length`: of the stored content in bytes, where it is known.
pub fn head_update(
    stored_status: StatusCode,
    stored: &HeaderMap,
    stored_length: Option<u64>,
    status: StatusCode,
    head: &HeaderMap,
) -> HeadUpdate {
    if status != StatusCode::OK {
        return HeadUpdate::Nothing;
    }
    // A field with several lines equals nothing.
    let same = |name: &HeaderName| {
        !head.contains_key(name)
            || only_line(head, name).is_some_and(|now| only_line(stored, name).is_some_and(|then| now == then))
    };
    let same_length = match (head.contains_key(CONTENT_LENGTH), stored_length) {
        (true, Some(then)) => only_line(head, &CONTENT_LENGTH).and_then(content_length) == Some(then),
        _ => true,
    };
    if stored_status == StatusCode::OK && same(&ETAG) && same(&LAST_MODIFIED) && same_length {
        HeadUpdate::Freshen
    } else {
        HeadUpdate::Invalidate
    }
}

/// Digits that fit (RFC 9110 §8.6).
fn content_length(line: &HeaderValue) -> Option<u64> {
    let text = line.to_str().ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// What a request's preconditions come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Precondition {
    /// Answer as if there were none.
    Proceed,
    /// 304, with [`not_modified_headers`].
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates preconditions against a stored response, in the order of RFC 9110 §13.2.2.
///
/// They are evaluated only where the answer would be a success (§13.2.1). `If-Match` and `If-Unmodified-Since` are not for a
/// cache to decide (RFC 9111 §4.3.2): ask [`has_origin_preconditions`] first and pass such a request on; they are evaluated
/// here for whoever answers in the origin's place.
///
/// `received`: when the stored response arrived, or was last validated. Where it has no `Last-Modified` it is its `Date`, and
/// where it has no `Date` that time, that `If-Modified-Since` is compared with (§4.3.2): what a client got before is not known
/// to be what is stored, so a condition that is older than both is answered with the whole response.
pub fn evaluate(
    method: &Method,
    request: &HeaderMap,
    status: StatusCode,
    stored_headers: &HeaderMap,
    received: SystemTime,
) -> Precondition {
    let date = |headers: &HeaderMap, name| only_line(headers, name).and_then(|line| http_date_at(line, received));
    if !status.is_success() {
        return Precondition::Proceed;
    }
    if request.contains_key(IF_MATCH) {
        if !lists_tag(request, &IF_MATCH, stored_headers, strongly_equal) {
            return Precondition::Failed;
        }
    } else if let Some(since) = date(request, &IF_UNMODIFIED_SINCE)
        && date(stored_headers, &LAST_MODIFIED).is_some_and(|modified| modified > since)
    {
        return Precondition::Failed;
    }
    let is_read = matches!(method.as_str(), "GET" | "HEAD" | "QUERY");
    if request.contains_key(IF_NONE_MATCH) {
        return match lists_tag(request, &IF_NONE_MATCH, stored_headers, weakly_equal) {
            true if is_read => Precondition::NotModified,
            true => Precondition::Failed,
            false => Precondition::Proceed,
        };
    }
    if !is_read {
        return Precondition::Proceed;
    }
    // What is no date, or several lines, is to be ignored (RFC 9110 §13.1.3).
    let Some(since) = date(request, &IF_MODIFIED_SINCE) else { return Precondition::Proceed };
    let modified = date(stored_headers, &LAST_MODIFIED).or_else(|| date(stored_headers, &DATE)).unwrap_or(received);
    if modified <= since { Precondition::NotModified } else { Precondition::Proceed }
}

/// Whether a request has preconditions that only the origin can evaluate (RFC 9111 §4.3.2).
pub fn has_origin_preconditions(request: &HeaderMap) -> bool {
    request.contains_key(IF_MATCH) || request.contains_key(IF_UNMODIFIED_SINCE)
}

/// The fields of a 304 made from a stored response (RFC 9110 §15.4.5): what a 200 would have had, without the metadata that
/// describes the content the client already has.
pub fn not_modified_headers(stored: &HeaderMap) -> HeaderMap {
    let mut headers = stored.clone();
    for name in [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_RANGE, TRAILER] {
        headers.remove(name);
    }
    for name in ["content-digest", "repr-digest", "digest", "content-md5"] {
        headers.remove(name);
    }
    if headers.contains_key(ETAG) {
        headers.remove(LAST_MODIFIED);
    }
    debug_assert!(
        [CACHE_CONTROL, EXPIRES, VARY].iter().all(|name| headers.contains_key(name) == stored.contains_key(name)),
        "what guides other caches stays"
    );
    headers
}

/// An entity tag as the RFC writes it (RFC 9110 §8.8.3).
struct EntityTag<'a> {
    opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    fn of(text: &'a [u8]) -> Option<Self> {
        match text.strip_prefix(b"W/").unwrap_or(text) {
            opaque @ [b'"', inner @ .., b'"'] if !inner.contains(&b'"') => Some(Self { opaque }),
            _ => None,
        }
    }
}

fn is_weak(tag: &[u8]) -> bool {
    tag.starts_with(b"W/")
}

/// RFC 9110 §8.8.3.2. Tags that are not quoted, as some origins write them, are compared as they are.
pub(crate) fn strongly_equal(left: &[u8], right: &[u8]) -> bool {
    !is_weak(left) && !is_weak(right) && left == right
}

fn weakly_equal(left: &[u8], right: &[u8]) -> bool {
    let opaque = |tag| EntityTag::of(tag).map_or(tag, |tag| tag.opaque);
    opaque(left) == opaque(right)
}

/// Whether a precondition is `*`, or lists the stored response's tag.
fn lists_tag(
    request: &HeaderMap,
    name: &HeaderName,
    stored_headers: &HeaderMap,
    is_equal: impl Fn(&[u8], &[u8]) -> bool,
) -> bool {
    let lines = || request.get_all(name).iter().map(|line| trim_ows(line.as_bytes()));
    if lines().any(|line| line == b"*") {
        return true;
    }
    let Some(stored) = only_line(stored_headers, &ETAG) else { return false };
    lines().flat_map(|line| Tags { rest: line }).take(LISTED_TAGS_MAX).any(|tag| is_equal(tag, stored.as_bytes()))
}

/// The tags of one line. Not `list_members`: a backslash in an entity tag is a character like any other.
struct Tags<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tags<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while let [b' ' | b'\t' | b',', rest @ ..] = self.rest {
            self.rest = rest;
        }
        let text = self.rest;
        let prefix = if is_weak(text) { 2 } else { 0 };
        let end = match text.get(prefix) {
            None if prefix == 0 => return None,
            Some(b'"') => {
                let close = text[prefix + 1..].iter().position(|byte| *byte == b'"');
                close.map_or(text.len(), |at| prefix + 1 + at + 1)
            }
            _ => text.iter().position(|byte| *byte == b',').unwrap_or(text.len()),
        };
        let (tag, rest) = text.split_at(end);
        self.rest = rest;
        Some(trim_ows(tag))
    }
}

#[cfg(test)]
mod tests;
