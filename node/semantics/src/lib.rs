//! The rules of HTTP caching as pure functions: RFC 9110, 9111, 5861, 8246, 9211, 9213, 9875.
//!
//! Each file is about one noun, opens with its section, and has its table tests beside it.
//!
//! Always true:
//! - No function does IO, reads a clock, logs, waits or keeps state: the time is an argument, the outcome an enum.
//! - No input makes a function panic, or takes more than time linear in its length (times the constant limits named `…_MAX`).
//! - Where a peer's words can be read in two ways, the more restrictive reading counts: an invalid restriction restricts most,
//!   an invalid permission permits nothing.
//!
//! Not here: which route, origin or plugin a request meets (`brim-node`), where responses are kept (`brim-store`).

mod cache_status;
mod delta;
mod directives;
mod fields;
mod forwarded;
mod freshness;
mod invalidation;
mod key;
mod part;
mod policy;
mod range;
mod reuse;
mod storable;
mod surrogate;
mod validation;
mod vary;

pub use cache_status::{CacheStatus, ForwardReason};
pub use delta::DELTA_SECONDS_MAX;
pub use directives::{ControlSource, MaxStale, Qualified, RequestDirectives, ResponseDirectives};
pub use fields::{http_date, http_date_at, http_date_value, is_hop_by_hop, list_members, strip_hop_by_hop};
pub use forwarded::{
    ForwardedFacts, OVERRIDE_FIELDS, Trust, append_via, set_forwarded, strip_override_fields, via_passes,
};
pub use freshness::{AgeAccount, FreshnessSource, LifetimeAccount, StoredMeta};
pub use invalidation::{INVALIDATION_TARGETS_MAX, invalidates, invalidation_targets, is_safe};
pub use key::{
    CACHE_KEY_BYTES_MAX, CacheKey, KEY_PARTS_MAX, KeyDescription, KeyHash, KeyMethod, KeyPart, KeyTooLong,
    MalformedKey, PartValue, Target, normal_authority, url_hash,
};
pub use part::{Missing, Part, has_same_strong_validator, missing, strong_validator};
pub use policy::CachePolicy;
pub use range::{RANGES_MAX, RangeDecision, asks_for_ranges, content_range, ranges, unsatisfied_content_range};
pub use reuse::{PurgeState, Reuse, Why, is_server_error, may_serve_on_error, reuse};
pub use storable::{Refusal, RequestFacts, Storable, storable, stored_headers};
pub use surrogate::{
    KeyField, KeySeparator, SURROGATE_KEY_BYTES_MAX, SURROGATE_KEYS_MAX, SurrogateKeys, invalidated_groups, key_text,
    surrogate_keys,
};
pub use validation::{
    Freshened, HeadUpdate, Precondition, evaluate, freshened, has_origin_preconditions, head_update, make_conditional,
    make_conditional_on_any, not_modified_headers, not_modified_selects,
};
pub use vary::{ComparedField, NOMINATED_FIELDS_MAX, Nominated, VaryStar, is_preferred_language};
