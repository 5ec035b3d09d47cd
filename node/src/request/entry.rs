//! Entry: what the response to a request becomes in the store (RFC 9111 §3).
//!
//! Always true:
//! - Whether a response is stored is decided here, for every method, by `brim_semantics::storable` and the limits.
//! - A content cut short is aborted, never stored as complete.
//! - What is stored takes the place of what it makes outdated: parts of another representation, or within it.
//!
//! Not here: sending the request (`fill`), who else waits for it (`collapse`).

use std::sync::Arc;
use std::time::SystemTime;

use brim_semantics::{CacheKey, Nominated, Part, Qualified, Refusal, RequestFacts, ResponseDirectives, Storable};
use brim_store::{Fill, FillError, Finished, Found, Position, ResponseHead, Scope, StoredResponse};
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::BodyExt;

use super::accept::Inbound;
use super::partial::{Ask, PARTS_MAX};
use super::tags::{Awaited, Tags};
use super::{Cache, respond};
use crate::origin::OriginBody;
use crate::route::Route;

/// Fields that `no-cache="field"` or `private="field"` keeps out of the store (RFC 9111 §5.2.2.4, §5.2.2.7): for the client that
/// caused the fetch, and nobody else.
pub(super) type Withheld = HeaderMap;

/// What Cache-Status says of surrogate keys that were left out.
pub(super) const KEYS_CUT: &str = "surrogate-keys-overflow";

/// A response that is being stored.
pub(super) struct Begun {
    pub(super) fill: Fill,
    pub(super) withheld: Withheld,
    /// Surrogate keys that come with the content.
    pub(super) awaited: Option<Awaited>,
    /// Some were left out, and the route wants it so.
    pub(super) is_cut: bool,
}

/// Why a response is for its client only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Declined {
    /// A rule forbids to store it.
    Refused(Refusal),
    /// It is larger than `store.object_max`.
    TooLarge,
    /// It carries more or longer surrogate keys than can be kept.
    SurrogateKeys,
    /// The plugin that would give it its surrogate keys is missing or failed; the word says how.
    Tags(&'static str),
}

impl Declined {
    /// What Cache-Status and the access log call it.
    pub(super) fn as_detail(self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.as_detail(),
            Self::TooLarge => "too-large",
            Self::SurrogateKeys => KEYS_CUT,
            Self::Tags(detail) => detail,
        }
    }

    /// True if the request's own fields forbid it: what is stored for others stays.
    fn is_by_request(self) -> bool {
        match self {
            Self::Refused(refusal) => {
                matches!(refusal, Refusal::RequestNoStore | Refusal::Authorization | Refusal::Method)
            }
            Self::TooLarge | Self::SurrogateKeys | Self::Tags(_) => false,
        }
    }
}

/// When a fetch went out, and when its head came back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// When the request was sent.
    pub(super) request: SystemTime,
    /// When the response's head arrived.
    pub(super) response: SystemTime,
    /// The purge position that the response is as old as.
    pub(super) fetched_at: Position,
}

/// What a 304 made of the stored response.
pub(super) enum Freshening {
    /// As fresh as the 304 makes it; the fields are for the asking client only.
    Kept(Arc<StoredResponse>, Withheld),
    /// The 304 forbids to keep it; it may still answer this request, with these fields.
    Forbidden(Declined, Withheld),
}

/// What the response to a request is stored as.
pub(super) struct Entry {
    pub(super) cache: Arc<Cache>,
    pub(super) route: Arc<Route>,
    pub(super) key: CacheKey,
    /// The method that the origin gets.
    pub(super) method: Method,
    /// The request's own fields: what `Vary` nominates is read from them.
    pub(super) inbound_headers: HeaderMap,
    pub(super) target: Uri,
    pub(super) plugin: Option<[u8; 32]>,
}

impl Entry {
    /// For the response to `inbound`, fetched with `method`.
    pub(super) fn new(
        cache: &Arc<Cache>,
        route: &Arc<Route>,
        key: CacheKey,
        method: Method,
        inbound: &Inbound,
        target: Uri,
        plugin: Option<[u8; 32]>,
    ) -> Self {
        Self {
            cache: cache.clone(),
            route: route.clone(),
            key,
            method,
            inbound_headers: inbound.headers.clone(),
            target,
            plugin,
        }
    }

    fn facts(&self) -> RequestFacts<'_> {
        RequestFacts { method: &self.method, headers: &self.inbound_headers, target: &self.target }
    }

    /// Begins to store a response, if that may be done. `ask`: what its request asked for.
    pub(super) fn begin(&self, response: &Response<OriginBody>, times: Times, ask: &Ask) -> Result<Begun, Declined> {
        let (mut head, length, withheld) = self.head(response, times, ask)?;
        let tags = self.tags(response.status(), response.headers());
        let Tags { keys, content_keys, is_cut, awaited } =
            tags.inspect_err(|declined| self.note_untagged(*declined))?;
        if is_cut {
            self.note_untagged(Declined::SurrogateKeys);
        }
        head.surrogate_keys = keys;
        head.content_keys = content_keys;
        let fill = self.cache.store.begin(head, length);
        let fill = if awaited.is_some() { fill.awaiting_keys() } else { fill };
        Ok(Begun { fill, withheld, awaited, is_cut })
    }

    /// What is stored of a response besides its content and its surrogate keys, the length of the content where it is known, and what
    /// is not stored.
    pub(super) fn head(
        &self,
        response: &Response<OriginBody>,
        times: Times,
        ask: &Ask,
    ) -> Result<(ResponseHead, Option<u64>, Withheld), Declined> {
        let (policy, status, fields) = (&self.route.config.policy, response.status(), response.headers());
        let meta = match brim_semantics::storable(&self.facts(), status, fields, policy, times.request, times.response)
        {
            Storable::Yes(meta) => meta,
            Storable::No(refusal) => return Err(Declined::Refused(refusal)),
        };
        if is_about_ranges(status) && *ask == Ask::Whole {
            // Nobody asked for a range: whatever it is, it is no answer to another request.
            return Err(Declined::Refused(Refusal::Partial));
        }
        if status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(Declined::Refused(Refusal::Status));
        }
        let nominated =
            Nominated::of(fields, &self.inbound_headers).map_err(|_| Declined::Refused(Refusal::VaryStar))?;
        let part = Part::of_response(status, fields);
        let length = response.body().size_hint().exact().or(part.map(|part| part.len()));
        let object_max = self.cache.snapshot.load().config.store.object_max;
        if length.is_some_and(|length| length > object_max) {
            return Err(Declined::TooLarge);
        }
        let directives = ResponseDirectives::parse(fields, policy);
        let mut headers = brim_semantics::stored_headers(fields, &directives);
        let withheld = withheld(fields, &directives);
        respond::prepare(&mut headers, response.version(), times.response);
        let head = ResponseHead {
            key: self.key.clone(),
            scope: self.scope(),
            status,
            headers,
            nominated,
            part,
            meta,
            surrogate_keys: Vec::new(),
            content_keys: Vec::new(),
            fetched_at: times.fetched_at,
            plugin: self.plugin,
        };
        Ok((head, length, withheld))
    }

    fn scope(&self) -> Scope {
        Scope {
            site: self.route.site.clone(),
            authority: self.target.authority().map_or("", |authority| authority.as_str()).into(),
            path: self.target.path().into(),
            query: self.target.query().map(Into::into),
        }
    }

    /// RFC 9111 §4.3.4: the stored response with the fields of the 304, as fresh as the 304 makes it.
    pub(super) fn freshen(&self, stored: &Arc<StoredResponse>, fields: &HeaderMap, times: Times) -> Freshening {
        let (policy, status) = (&self.route.config.policy, stored.head.status);
        let freshened = brim_semantics::freshened(
            &self.facts(),
            status,
            &stored.head.headers,
            fields,
            policy,
            times.request,
            times.response,
        );
        match freshened.storable {
            Storable::Yes(meta) => {
                let keys = match self.tags_again(stored, &freshened.headers) {
                    Ok(keys) => keys.into_vec(),
                    Err(declined) => {
                        self.cache.store.remove(&self.key);
                        return Freshening::Forbidden(declined, freshened.for_client);
                    }
                };
                let kept = self.cache.store.freshen(stored, freshened.headers, meta, times.fetched_at, keys);
                Freshening::Kept(kept, freshened.for_client)
            }
            Storable::No(refusal) => {
                let declined = Declined::Refused(refusal);
                // What this request's own fields forbid takes nothing from the others.
                if !declined.is_by_request() {
                    self.cache.store.remove(&self.key);
                }
                Freshening::Forbidden(declined, freshened.for_client)
            }
        }
    }

    /// Begins to store again, as the variant of this request, what a 304 has named as its answer (RFC 9111 §4.1).
    pub(super) fn begin_copy(&self, selected: &StoredResponse) -> Option<Fill> {
        let mut head = selected.head.clone();
        head.nominated = Nominated::of(&head.headers, &self.inbound_headers).ok()?;
        // Keys may come from fields of the request, and this is another request.
        let keys = self.tags_again(selected, &head.headers).ok()?;
        for key in keys.into_vec() {
            if !head.surrogate_keys.contains(&key) {
                head.surrogate_keys.push(key);
            }
        }
        Some(self.cache.store.begin(head, selected.content_length()).in_background())
    }

    /// Moves the stored content of `selected` into a fill.
    pub(super) async fn copy(&self, mut fill: Fill, selected: &StoredResponse) {
        let mut content = selected.read();
        while let Some(data) = content.next().await {
            let appended = match data {
                Ok(data) => fill.append(data).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = appended {
                tracing::warn!(target = %self.target, error, "a variant that the origin named is not stored again");
                return;
            }
        }
        fill.finish(selected.trailers().cloned()).await;
    }

    /// Moves the origin's content into a fill. True: it is stored. While somebody `is_joining`, it counts as read.
    pub(super) async fn pump(
        &self,
        mut fill: Fill,
        mut awaited: Option<Awaited>,
        mut content: OriginBody,
        is_joining: impl Fn() -> bool,
    ) -> bool {
        let following = fill.follower();
        // Of the last byte only: until that comes it holds nothing back.
        let last = content.size_hint().exact().map_or(u64::MAX, |length| length.max(1)) - 1;
        let mut place_holder = if is_joining() { following.read_range(last..last + 1) } else { None };
        let mut trailers = None;
        while let Some(frame) = content.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    tracing::warn!(target = %self.target, error = %respond::chain(&error), "the origin's response was cut short: not stored");
                    return false;
                }
            };
            if place_holder.is_some() && !is_joining() {
                place_holder = None;
            }
            match frame.into_data() {
                Ok(data) => {
                    if let Some(awaited) = &mut awaited {
                        awaited.push(&data);
                    }
                    if let Err(error) = fill.append(data).await {
                        self.note_abort(&error);
                        return false;
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        match self.finish(fill, awaited, trailers).await {
            Finished::Stored(stored) => {
                self.drop_outdated(&stored);
                true
            }
            Finished::NotStored(reason) => {
                tracing::debug!(target = %self.target, ?reason, "response not stored");
                false
            }
        }
    }

    /// The end of a fill, with the keys that its content gave.
    async fn finish(&self, fill: Fill, awaited: Option<Awaited>, trailers: Option<HeaderMap>) -> Finished {
        let Some(awaited) = awaited else { return fill.finish(trailers).await };
        match awaited.keys(self).await {
            Ok(keys) => fill.finish_with_keys(trailers, keys).await,
            Err(declined) => {
                self.note_untagged(declined);
                fill.finish_unstored(trailers).await
            }
        }
    }

    /// Counts a response whose surrogate keys cannot all be had.
    pub(super) fn note_untagged(&self, declined: Declined) {
        match declined {
            Declined::SurrogateKeys => {
                self.route.metrics.note_keys_cut();
                tracing::debug!(target = %self.target, "more or longer surrogate keys than can be kept");
            }
            Declined::Tags(_) => self.route.metrics.note_untagged(),
            Declined::Refused(_) | Declined::TooLarge => {}
        }
    }

    fn note_abort(&self, error: &FillError) {
        match error {
            FillError::Unwanted => tracing::debug!(target = %self.target, %error, "fill ended"),
            FillError::TooLong(_) => tracing::warn!(target = %self.target, %error, "fill aborted"),
        }
    }

    /// Takes out the stored parts that nothing will be put together with any more.
    fn drop_outdated(&self, stored: &Arc<StoredResponse>) {
        let Found::Memory(variants) = self.cache.store.find(&self.key) else { return };
        let (mut kept_count, mut is_older) = (0, false);
        for other in variants.iter().filter(|other| other.head.nominated == stored.head.nominated) {
            let is_itself = Arc::ptr_eq(other, stored);
            is_older |= is_itself;
            let Some(part) = other.head.part else { continue };
            let is_outdated = if brim_semantics::has_same_strong_validator(&other.head.headers, &stored.head.headers) {
                stored.head.part.is_none_or(|new| new.covers(&part.range()))
            } else {
                // A long content may end when a newer one has begun: newest first is the order of the variants.
                is_older
            };
            kept_count += 1;
            if !is_itself && (is_outdated || kept_count > PARTS_MAX) {
                self.cache.store.remove_response(other);
            }
        }
    }
}

fn is_about_ranges(status: StatusCode) -> bool {
    status == StatusCode::PARTIAL_CONTENT || status == StatusCode::RANGE_NOT_SATISFIABLE
}

fn withheld(headers: &HeaderMap, directives: &ResponseDirectives) -> Withheld {
    let named = [&directives.no_cache, &directives.private].into_iter().filter_map(|qualified| match qualified {
        Qualified::Fields(names) => Some(names),
        Qualified::Absent | Qualified::Whole => None,
    });
    let mut withheld = Withheld::new();
    for name in named.flatten().filter(|name| !brim_semantics::is_hop_by_hop(name)) {
        if !withheld.contains_key(name) {
            withheld.extend(headers.get_all(name).iter().map(|value| (name.clone(), value.clone())));
        }
    }
    withheld
}
