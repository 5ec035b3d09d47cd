//! The JSON of the admin API: what calls take and answer. The command line reads the same types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::audit::AuditLine;
use super::tokens::Scope;
use crate::config::ConfigError;
use crate::plugins::{DeclaredInputs, VersionRecord};

/// What is to be purged: exactly one of `url`, `prefix`, `surrogate_keys`, `site`, `everything` and `match`. `surrogate_keys` may have a
/// `site` beside it, and `url` may have `headers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PurgeRequest {
    /// An absolute http or https URL: all variants of its responses, under both schemes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Beside `url`: only what a request with these fields, and no others, selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, FieldValues>>,
    /// An absolute http or https URL without a query: everything whose URL begins so, under both schemes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Everything that carries one of these surrogate keys; 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surrogate_keys: Option<Vec<String>>,
    /// Everything of a configured site; beside `surrogate_keys`: only of that site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// `true`: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub everything: Option<bool>,
    /// Everything of which all of this holds.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "match")]
    pub predicate: Option<MatchRequest>,
    /// Make stale instead of unusable: served while it is validated.
    #[serde(default)]
    pub soft: bool,
    /// After a soft purge: leave what it made stale to be validated when it is asked for, instead of validating what was asked for in
    /// the last minutes at once.
    #[serde(default, skip_serializing_if = "is_false")]
    pub on_demand: bool,
    /// Purge nothing; say what would be.
    #[serde(default)]
    pub dry_run: bool,
    /// Answer when what was hit is counted, and after a hard purge given back; after 25 s in any case.
    #[serde(default, skip_serializing_if = "is_false")]
    pub wait: bool,
    /// The `confirm` of a dry run: for a purge above the blast radius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<String>,
}

/// What a purge may say of stored responses. All that is given has to hold; at least one is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MatchRequest {
    /// Of this configured site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The host; `*` stands for any letters. Without a port: whatever the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path; `*` stands for any letters, `/` among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The status: `404`, `"4xx"`, `"500-599"` or a list of such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusPatterns>,
    /// Stored longer ago than this: `"10m"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_than: Option<String>,
    /// Stored within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub younger_than: Option<String>,
    /// The media type without its parameters; `*` stands for any letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The plugin version that made the key: its digest in hex, or `name@version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
}

/// A status, or a range of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a status is a number, \"4xx\", \"500-599\", or a list of such")]
pub enum StatusPattern {
    /// One.
    Code(u16),
    /// `"404"`, `"4xx"` or `"500-599"`.
    Range(String),
}

/// Statuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a status is a number, \"4xx\", \"500-599\", or a list of such")]
pub enum StatusPatterns {
    /// One pattern.
    One(StatusPattern),
    /// Any of these.
    Several(Vec<StatusPattern>),
}

impl StatusPatterns {
    /// The patterns.
    pub fn patterns(&self) -> &[StatusPattern] {
        match self {
            Self::One(pattern) => std::slice::from_ref(pattern),
            Self::Several(patterns) => patterns,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A request to be explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The absolute http or https URL that a client asks for.
    pub url: String,
    /// The method.
    #[serde(default = "get", skip_serializing_if = "is_get")]
    pub method: String,
    /// Its fields by name. `Host` stands in for the URL's authority.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, FieldValues>,
    /// Its content. That of a QUERY is in the key; of any other only that there is some counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

fn is_get(method: &String) -> bool {
    *method == get()
}

/// One line of a field, or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a field's value is a string, or a list of strings")]
pub enum FieldValues {
    /// One line.
    One(String),
    /// One line each.
    Several(Vec<String>),
}

impl FieldValues {
    /// The lines.
    pub fn lines(&self) -> &[String] {
        match self {
            Self::One(line) => std::slice::from_ref(line),
            Self::Several(lines) => lines,
        }
    }
}

/// Hard or soft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PurgeModeWord {
    /// Not usable any more.
    Hard,
    /// Stale.
    Soft,
}

/// What a purge names, as the node understood it. URLs stand without their scheme: both are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Purged {
    /// Everything; `true` where it is there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub everything: bool,
    /// A site; beside `surrogate_keys` theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// URLs that begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// A URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Only what a request with these fields selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, FieldValues>>,
    /// Responses with one of these surrogate keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surrogate_keys: Option<Vec<String>>,
    /// Responses with one of these groups (RFC 9875), of an authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// The authority of the groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Responses of which this holds.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "match")]
    pub predicate: Option<Matched>,
}

/// What a purge says of stored responses, with the ages as times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Matched {
    /// Of this site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The status, as `404` or `400-499`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<String>,
    /// Stored before, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_before: Option<String>,
    /// Stored at this time or later, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_after: Option<String>,
    /// The media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The digest of the plugin version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
}

/// Proof of a purge: it is durable, and no request after this answer gets what it named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PurgeReceipt {
    /// What `GET /v1/purges/{id}` takes.
    pub id: String,
    /// The position in the purge log: every purge up to here is in force.
    pub position: u64,
    /// Stored responses that it hit, as far as known.
    pub matched: u64,
    /// When, RFC 3339.
    pub applied_at: String,
    /// When it was on disk, RFC 3339.
    pub durable_at: String,
    /// When what it hit had been counted, and after a hard purge given back, RFC 3339; absent: not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaimed_at: Option<String>,
    /// Bytes of the contents that it hit.
    pub reclaimed_bytes: u64,
    /// Hard or soft.
    pub mode: PurgeModeWord,
    /// The id of the token that it was asked for with; `write` for what a request purged that was not safe, `retry` where its rule answered later.
    pub by: String,
    /// What it named. A URL whose query a plugin rewrites is purged under each of its forms.
    pub purged: Vec<Purged>,
    /// It had been made before under its idempotency key: nothing was done, this is the receipt of then.
    #[serde(default, skip_serializing_if = "is_false")]
    pub repeated: bool,
    /// How it stands at each node.
    pub nodes: Vec<PurgeNode>,
}

/// How a purge stands at a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PurgeNode {
    /// The node's name.
    pub node: String,
    /// The position in its purge log.
    pub position: u64,
    /// When it was on its disk, RFC 3339.
    pub durable_at: String,
    /// Stored responses that it hit there, as far as known.
    pub matched: u64,
    /// When they had been counted, and after a hard purge given back, RFC 3339; absent: not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaimed_at: Option<String>,
}

/// The answer of `GET /v1/purges`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PurgeList {
    /// Receipts, the newest first.
    pub purges: Vec<PurgeReceipt>,
    /// The `before` of the next page; absent: this was the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// The query of `GET /v1/purges`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PurgeListQuery {
    pub(super) before: Option<u64>,
    pub(super) limit: Option<u32>,
}

/// The query of `GET /v1/purges/{id}`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReceiptQuery {
    #[serde(default)]
    pub(super) wait: bool,
}

/// The query of `GET /v1/audit`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    pub(super) limit: Option<u32>,
}

/// What a purge would hit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DryRun {
    /// Always `true`.
    pub dry_run: bool,
    /// Stored responses.
    pub matched: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Some of them.
    pub examples: Vec<String>,
    /// Hits of the last five minutes, on everything.
    #[serde(default)]
    pub recent_hits: u64,
    /// The share of them that would have been misses, from 0 to 1, estimated; absent where there was no hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recent_share: Option<f64>,
    /// Shown as `confirm` within five minutes, it lets this very purge go beyond the blast radius.
    pub confirm: String,
    /// What it would name.
    pub purged: Vec<Purged>,
}

/// What a token is to be like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// For people: 1 to 64 letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What it may do; at least one.
    pub scopes: Vec<Scope>,
    /// Sites that it may purge; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<String>,
    /// It may purge only surrogate keys that begin so; none: all, and every other selector.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_prefixes: Vec<String>,
    /// Purges a minute; 0: any number; absent: as the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purges_per_minute: Option<u32>,
    /// How long it is good: `"30d"`; absent: until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<String>,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenAnswer {
    /// What receipts, the audit log and `DELETE /v1/tokens/{id}` call it.
    pub id: String,
    /// For people.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Sites that it may purge; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<String>,
    /// What surrogate keys that it may purge begin with; none: all, and every other selector.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_prefixes: Vec<String>,
    /// Purges a minute; absent: as the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purges_per_minute: Option<u32>,
    /// RFC 3339.
    pub created_at: String,
    /// The id of the token that made it.
    pub created_by: String,
    /// RFC 3339; absent: good until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// A new token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenMade {
    /// The secret: `Authorization: Bearer …`. The node does not keep it.
    pub token: String,
    /// The token.
    #[serde(flatten)]
    pub about: TokenAnswer,
}

/// The answer of `GET /v1/tokens`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    /// The oldest first.
    pub tokens: Vec<TokenAnswer>,
}

/// The answer of `GET /v1/audit`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditAnswer {
    /// The newest first.
    pub lines: Vec<AuditLine>,
}

/// Figures of the node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// Version of Brim.
    pub version: String,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// The addresses it listens on, as URLs.
    pub listeners: Vec<String>,
    /// The configured sites.
    pub sites: Vec<String>,
    /// The store.
    pub store: StoreStatus,
    /// Requests on the data port since it started.
    pub requests: RequestStatus,
    /// The newest position in the purge log.
    pub purge_position: u64,
    /// Calls of invalidation rules that failed after a write and wait to be made again.
    #[serde(default)]
    pub invalidation_retries: u64,
    /// The configured origins.
    pub origins: Vec<OriginStatus>,
}

/// Calls of invalidation rules that failed after a write.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RetriesAnswer {
    /// The oldest first.
    pub retries: Vec<RetryStatus>,
}

/// A call of an invalidation rule that gave no answer, and is made again until it does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RetryStatus {
    /// Its number.
    pub id: u64,
    /// The plugin.
    pub plugin: String,
    /// The site of the route that the write went through.
    pub site: String,
    /// The route's path.
    pub route: String,
    /// What was written to.
    pub target: String,
    /// When it was to be made first.
    pub since: String,
    /// How often it has failed, as far as this process knows.
    pub failures: u32,
    /// Why, the last time.
    pub reason: String,
}

/// Figures of the store. Counters begin with the node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StoreStatus {
    /// Stored responses.
    pub responses: u64,
    /// Those of them that are on disk.
    #[serde(default)]
    pub responses_on_disk: u64,
    /// The disk tier: `opening`, `ready`, `paused` (read, not written), `failed` (another one is being made) or `closed`.
    #[serde(default)]
    pub disk: String,
    /// Why it is paused or has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_reason: Option<String>,
    /// Why purges are refused now, if they are: the purge log cannot be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purge_log_failure: Option<String>,
    /// Bytes on disk, index included.
    pub disk_bytes: u64,
    /// Bytes that it may take there.
    pub disk_bytes_max: u64,
    /// Something has to go before something is written, and a response is written once it was asked for twice.
    #[serde(default)]
    pub disk_full: bool,
    /// Segment files.
    #[serde(default)]
    pub segments: u64,
    /// Bytes in them.
    #[serde(default)]
    pub segment_bytes: u64,
    /// Bytes in them that stored responses need.
    #[serde(default)]
    pub live_bytes: u64,
    /// Bytes of the index.
    #[serde(default)]
    pub index_bytes: u64,
    /// Bytes of its entries.
    #[serde(default)]
    pub index_live_bytes: u64,
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// Bytes that it may take there.
    pub memory_bytes_max: u64,
    /// Cache keys in memory.
    #[serde(default)]
    pub memory_keys: u64,
    /// Bytes that wait to be written.
    #[serde(default)]
    pub queued_bytes: u64,
    /// Responses written to disk.
    #[serde(default)]
    pub writes: u64,
    /// Responses not written: no room, a full queue, a write that failed.
    #[serde(default)]
    pub writes_dropped: u64,
    /// Writes that failed.
    #[serde(default)]
    pub write_errors: u64,
    /// Responses not written to a full disk because they were asked for once.
    #[serde(default)]
    pub not_admitted: u64,
    /// Responses that were removed to make room.
    #[serde(default)]
    pub evicted: u64,
    /// Segments emptied for the dead bytes in them.
    #[serde(default)]
    pub segments_compacted: u64,
    /// Times the index was copied into a new database, for the space it had not given back.
    #[serde(default)]
    pub index_rebuilds: u64,
    /// Stored responses that could not be read, and are gone.
    #[serde(default)]
    pub unreadable: u64,
    /// Times the store on disk was set aside.
    #[serde(default)]
    pub quarantines: u64,
    /// Times it was given up because the disk did not answer.
    #[serde(default)]
    pub stalls: u64,
    /// Names and prefixes for which a purge is remembered.
    #[serde(default)]
    pub purge_marks: u64,
    /// Bytes of the purge log.
    #[serde(default)]
    pub purge_log_bytes: u64,
}

/// Figures of the requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestStatus {
    /// Requests answered.
    pub count: u64,
    /// Those answered from the store.
    pub hits: u64,
    /// Hits by requests that were answered from the store or by the origin, those past the cache included; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hit_ratio: Option<f64>,
}

/// Figures of an origin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OriginStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Its endpoints.
    pub endpoints: Vec<EndpointStatus>,
    /// SRV names that could not be looked up the last time, and why; the last good answer stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discovery_failures: Vec<String>,
}

/// Figures of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EndpointStatus {
    /// Its URL.
    pub url: String,
    /// `healthy`, `unhealthy` (checks fail), `ejected` (requests failed) or `draining`. Only the first gets requests, unless nearly
    /// all endpoints are unhealthy or ejected.
    #[serde(default)]
    pub state: String,
    /// Why it is not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why its name could not be looked up the last time; the last good answer stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve_failure: Option<String>,
    /// Its share of the requests.
    #[serde(default)]
    pub weight: u32,
    /// Used when none of a lower number is in order.
    #[serde(default)]
    pub priority: u32,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Open connections.
    pub connections: u64,
    /// Of these, connections that serve no request.
    #[serde(default)]
    pub connections_idle: u64,
    /// Requests that it has not answered to their end.
    #[serde(default)]
    pub in_flight: u64,
    /// Requests that wait for a connection.
    #[serde(default)]
    pub waiting: u64,
    /// Milliseconds until the head of an answer, the worst of late counting most; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// Milliseconds of a TCP handshake; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
    /// Requests sent to it.
    pub requests: u64,
    /// Those that gave no usable response.
    pub failures: u64,
    /// Times it was ejected.
    #[serde(default)]
    pub ejections: u64,
    /// Checks made.
    #[serde(default)]
    pub checks: u64,
    /// Checks that failed.
    #[serde(default)]
    pub checks_failed: u64,
}

/// The answer of `GET /v1/origins`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OriginsAnswer {
    /// The configured origins, by name.
    pub origins: Vec<OriginStatus>,
}

/// The content of `POST /v1/origins/{name}/drain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// The URL of the endpoint, as `GET /v1/origins` has it.
    pub endpoint: String,
    /// `true` takes it out of service, `false` puts it back.
    pub drain: bool,
}

/// The answer of `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusAnswer {
    /// Figures of the node.
    #[serde(flatten)]
    pub node: NodeStatus,
    /// Its plugins.
    pub plugins: Vec<PluginSummary>,
}

/// A plugin in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PluginSummary {
    /// Its name.
    pub name: String,
    /// The active version.
    pub active: Option<u64>,
    /// Why it is not running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The answer to an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PluginUploaded {
    /// The plugin.
    pub name: String,
    /// The version that it now has.
    pub version: u64,
    /// SHA-256 of the component in hex.
    pub digest: String,
    /// The version that the component gives itself.
    pub declared_version: String,
    /// Its hooks.
    pub hooks: Vec<String>,
    /// What its rules read of a request.
    pub inputs: DeclaredInputs,
    /// This very component was there already, under this version.
    pub known: bool,
}

/// The answer of `GET /v1/plugins`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PluginList {
    /// The plugins by name.
    pub plugins: Vec<PluginAnswer>,
    /// What went wrong with the registry as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// A plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PluginAnswer {
    /// Its name.
    pub name: String,
    /// The version in use.
    pub active: Option<u64>,
    /// The version that a rollback would bring back.
    pub previous: Option<u64>,
    /// Why the active version is not running; its routes bypass the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What the active version has done since it was loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<PluginCalls>,
    /// The kept versions, newest first.
    pub versions: Vec<PluginVersion>,
}

/// A version, and whether it is the one in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PluginVersion {
    /// Whether requests use it.
    pub live: bool,
    /// The version.
    #[serde(flatten)]
    pub version: VersionRecord,
}

/// What a plugin has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PluginCalls {
    /// Decisions asked of it, with those remembered.
    pub calls: u64,
    /// Decisions that were remembered.
    pub memo_hits: u64,
    /// Calls that failed, all kinds.
    pub traps: u64,
    /// Calls that failed, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Time spent in the guest, microseconds.
    pub time_us: u64,
}

/// Which version becomes active, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ActivateRequest {
    /// The version.
    pub version: u64,
    /// How it takes part. Only `live` is available in this version.
    #[serde(default)]
    pub mode: ModeWord,
    /// Goes with `canary`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
}

/// How a version takes part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModeWord {
    /// It decides.
    #[default]
    Live,
    /// It is compared with the live one. Not available.
    Shadow,
    /// It decides for a share of the keys. Not available.
    Canary,
}

/// The configuration that a reload put into force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReloadReport {
    /// Sites in it.
    pub sites: usize,
    /// Origins in it.
    pub origins: usize,
}

/// A mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigMistake {
    /// The key path.
    pub path: String,
    /// The line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl From<ConfigError> for ConfigMistake {
    fn from(error: ConfigError) -> ConfigMistake {
        let ConfigError { path, line, message } = error;
        ConfigMistake { path, line, message }
    }
}
