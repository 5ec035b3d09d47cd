//! The JSON of an explanation: a fixed surface, also read by the command line.
//!
//! Always true:
//! - Times are RFC 3339, durations seconds with up to three decimals and `_s` in their name.
//! - What is not known, or does not apply, is left out or `null`; nothing is guessed.
//! - Values of fields that hold credentials are not told where they came from another client's request.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The answer of `POST /v1/explain`: what this node would do with a request now, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The request as the node understands it.
    pub request: RequestFacts,
    /// Its route; none: see `decision`.
    pub route: Option<RouteFacts>,
    /// The key rule of the route and what it said; none where the route has no rule, or the request did not come so far.
    pub plugin: Option<PluginFacts>,
    /// The cache key; none where the request does not reach the store: see `decision`.
    pub key: Option<KeyFacts>,
    /// What purges have to say.
    pub purge: PurgeFacts,
    /// What is stored under the key, newest first.
    pub candidates: Vec<Candidate>,
    /// Fetches of the same key by others; none where the request has no key.
    pub collapse: Option<CollapseFacts>,
    /// What comes of it.
    pub decision: Decision,
}

/// A request as the node understands it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestFacts {
    /// The method.
    pub method: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Host and port: lower case, without the scheme's default port. Empty where the request names none that is valid.
    pub authority: String,
    /// The path, nothing decoded.
    pub path: String,
    /// The query, without `?`.
    pub query: Option<String>,
    /// What `Cache-Control` and `Pragma` ask of this cache.
    pub directives: Vec<DirectiveFact>,
}

/// A cache directive of the request (RFC 9111 §5.2.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DirectiveFact {
    /// Its name.
    pub name: String,
    /// Its value; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_s: Option<f64>,
    /// False: the route disregards what clients ask for.
    pub heeded: bool,
}

/// A route and those of its settings that decide about caching.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RouteFacts {
    /// The site.
    pub site: String,
    /// The prefix that matched; the longest wins.
    pub path: String,
    /// The origin that it forwards to.
    pub origin: String,
    /// False: everything goes past the store.
    pub cache: bool,
    /// The plugin that shapes the key.
    pub cache_key_plugin: Option<String>,
    /// Fields that stand in for `Cache-Control`, most important first (RFC 9213).
    pub targeted_fields: Vec<String>,
    /// Whether clients' directives are disregarded.
    pub ignore_request_directives: bool,
    /// Whether responses that set cookies are stored.
    pub store_set_cookie: bool,
    /// Whether a lifetime is estimated where the origin names none.
    pub heuristic: bool,
    /// No estimated lifetime is longer.
    pub heuristic_max_s: f64,
    /// No lifetime is longer.
    pub freshness_max_s: Option<f64>,
    /// Extends the window of responses.
    pub stale_while_revalidate_s: Option<f64>,
    /// Extends the window of responses.
    pub stale_if_error_s: Option<f64>,
}

/// A key rule and what it said of the request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PluginFacts {
    /// The plugin's name.
    pub name: String,
    /// The active version; none: nothing is active, or it does not run.
    pub version: Option<u64>,
    /// SHA-256 of its component in hex; a part of every key that it makes.
    pub digest: Option<String>,
    /// Its declared inputs as it saw them: all it knows besides method, scheme and authority.
    pub inputs: Vec<InputFact>,
    /// `keep` or `replace`: what it made of the query.
    pub query: Option<QueryWord>,
    /// The query that is keyed and forwarded instead.
    pub query_replaced_by: Option<String>,
    /// Why it wants the request past the cache.
    pub bypass: Option<String>,
    /// How it failed.
    pub fault: Option<String>,
}

/// What a key rule made of the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum QueryWord {
    /// The client's own is keyed and forwarded.
    Keep,
    /// Another one is.
    Replace,
}

/// A declared input of a key rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InputFact {
    /// `header`, `cookie`, `query` or `path`.
    pub kind: String,
    /// Of a header or cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// None: the request does not have it.
    pub value: Option<String>,
}

/// The cache key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KeyFacts {
    /// As in the access log; the name of the stored response.
    pub hash: String,
    /// Everything it consists of.
    pub parts: Vec<KeyPartFact>,
}

/// A part of a cache key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KeyPartFact {
    /// `scheme`, `authority`, `site`, `method`, `path`, `query`, `rule`, or the name that the plugin gave it.
    pub name: String,
    /// None: absent, which is not the same as empty.
    pub value: Option<String>,
    /// `text`, `integer`, `flag` or `absent`; `bytes` that are shown as the text they are, or others in `hex`.
    pub kind: String,
    /// `scheme`, `authority`, `site`, `method`, `path`, `query`, `content`, or `plugin NAME@VERSION DIGEST`, cut to 8 digits.
    pub from: String,
}

/// What purges have to say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PurgeFacts {
    /// The newest purge.
    pub position: u64,
    /// A hard purge took away what was stored under the key, and it is remembered.
    pub was_purged: bool,
}

/// What purges have done to a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PurgeWord {
    /// Nothing.
    Live,
    /// Made stale.
    Soft,
    /// Made unusable.
    Hard,
}

/// A stored response under the key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Candidate {
    /// Whether the decision is about this one.
    pub selected: bool,
    /// Why not, if it is not.
    pub why_not: Option<String>,
    /// Its status.
    pub status: u16,
    /// Which bytes it holds, if it is a part (RFC 9110 §14.4).
    pub part: Option<PartFact>,
    /// Length of its content.
    pub content_bytes: Option<u64>,
    /// Where the content is.
    pub content_in: Tier,
    /// How many surrogate keys it can be purged by.
    pub surrogate_keys_count: u64,
    /// The first of them.
    pub surrogate_keys: Vec<String>,
    /// The fields that its `Vary` nominates (RFC 9111 §4.1).
    pub nominated: Vec<NominatedFact>,
    /// The purge position at which its fetch began: a later purge that names it holds for it.
    pub fetched_at: u64,
    /// What purges have done to it.
    pub purge: PurgeWord,
    /// Age and lifetime.
    pub freshness: FreshnessFacts,
    /// What may be done with it for this request, whether or not it is selected.
    pub reuse: ReuseWord,
    /// Why it has to be validated: a word of `Cache-Status`.
    pub validate_why: Option<String>,
    /// Whether it may stand in if the origin fails (RFC 9111 §4.2.4, RFC 5861 §4).
    pub usable_on_error: bool,
}

/// The place of a part in its representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PartFact {
    /// The position of its first byte.
    pub first: u64,
    /// The position of its last byte.
    pub last: u64,
    /// The length of the whole, in bytes.
    pub complete_bytes: u64,
}

/// Where a content is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// In memory, or there and on disk.
    Memory,
    /// On disk only.
    Disk,
}

/// A nominated field: how it was in the request that fetched the response, and how it is in this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NominatedFact {
    /// The field.
    pub name: String,
    /// None: that request did not have it. Of a field with credentials only the length is told.
    pub stored: Option<String>,
    /// None: this request does not have it.
    pub request: Option<String>,
    /// Whether the two match.
    pub matches: bool,
}

/// What may be done with a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReuseWord {
    /// Use it.
    Fresh,
    /// Use it stale: the request takes it.
    StaleAllowed,
    /// Use it stale, and validate it behind the response.
    StaleWhileRevalidate,
    /// Validate it first.
    Validate,
    /// Nothing.
    Unusable,
}

/// Age and lifetime of a stored response, figure by figure (RFC 9111 §4.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FreshnessFacts {
    /// Its `Date`.
    pub date: Option<String>,
    /// How old it looked by `Date` when it arrived.
    pub apparent_age_s: f64,
    /// The `Age` that was received; none where it was too small to show, because it is not kept.
    pub age_value_s: Option<f64>,
    /// From sending the request to the response's head.
    pub response_delay_s: f64,
    /// The greater of `apparent_age_s` and `age_value_s` plus `response_delay_s`.
    pub initial_age_s: f64,
    /// Since it arrived, or was validated last.
    pub resident_time_s: f64,
    /// `initial_age_s` plus `resident_time_s`.
    pub current_age_s: f64,
    /// How old it may become.
    pub lifetime_s: f64,
    /// `targeted`, `s-maxage`, `max-age`, `expires`, `heuristic` or `none`.
    pub lifetime_source: String,
    /// Where the lifetime was read, in words.
    pub lifetime_from: String,
    /// What is left of the lifetime; negative: stale for so long.
    pub remaining_s: f64,
    /// The response's own window (RFC 5861 §3).
    pub stale_while_revalidate_s: Option<f64>,
    /// The response's own window (RFC 5861 §4).
    pub stale_if_error_s: Option<f64>,
    /// Each use needs a validation.
    pub no_cache: bool,
    /// Not used stale, unless the response itself names a window.
    pub must_revalidate: bool,
}

/// Fetches of the same key by others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CollapseFacts {
    /// A fetch is under way: this request would wait for it.
    pub fetch_under_way: bool,
    /// Requests that wait for it.
    pub waiters_count: u64,
    /// A response of this key could not be shared a moment ago, for this reason: the request would be forwarded as asked.
    pub unshared_reason: Option<String>,
    /// For how long that is remembered.
    pub unshared_for_s: Option<f64>,
}

/// What would happen now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// In one word.
    pub action: Action,
    /// The value of `Cache-Status`, as far as it is known without asking the origin (RFC 9211).
    pub cache_status: String,
    /// Why it goes forward: the word of RFC 9211 §2.2.
    pub fwd: Option<String>,
    /// The reason in Brim's own words, as in `Cache-Status`, as far as it is known without asking the origin.
    pub detail: Option<String>,
    /// The status of the answer, where it does not depend on the origin.
    pub status: Option<u16>,
    /// `Content-Range` of that answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_range: Option<String>,
    /// What the origin would be asked.
    pub origin_request: Option<OriginRequest>,
    /// The decision line by line, each line `stage: what and why`.
    pub steps: Vec<String>,
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// A stored response answers.
    Hit,
    /// A stale one answers, and is validated behind the response.
    StaleWhileRevalidate,
    /// A stored response is validated first.
    Validate,
    /// The origin is asked; nothing stored is of use.
    Forward,
    /// The origin is asked, past the store.
    Bypass,
    /// The node refuses.
    Refused,
    /// The node answers by itself (OPTIONS or TRACE that may go no further).
    AnsweredHere,
}

/// What the origin would be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OriginRequest {
    /// The method.
    pub method: String,
    /// The target URI.
    pub url: String,
    /// The fields that make it conditional or partial.
    pub conditions: Vec<ConditionFact>,
}

/// A field that makes a request conditional or partial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConditionFact {
    /// The field.
    pub name: String,
    /// Its value.
    pub value: String,
}
