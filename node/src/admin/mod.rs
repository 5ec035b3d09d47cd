//! The admin API: JSON over HTTP/1.1 on a listener of its own.
//!
//! Always true:
//! - Everything below `/v1/` needs a token with the right scope; health and metrics do not, and neither do they say anything secret.
//! - Every call that changes something, and every refusal for want of rights, has its line in the audit log.
//! - A refusal is a problem detail (RFC 9457) that says what to do instead; details of the inside go to the log.
//! - A purge that was begun is finished, also when its client goes away.
//! - Connections, bodies and times have limits of their own: the admin API cannot starve the data path.
//!
//! Not here: what a purge or a plugin does (`brim_store`, `plugins`), what the metrics say (`telemetry`).

mod audit;
mod body;
mod calls;
mod confirm;
mod explain_calls;
mod model;
mod node_calls;
mod openapi;
mod origin_calls;
mod plugin_calls;
mod problem;
mod purge_calls;
mod rate;
mod retry_calls;
mod rights;
mod selectors;
mod server;
mod state;
mod token;
mod token_calls;
mod tokens;

pub use audit::{AUDIT_FILE, Audit, AuditCounts, AuditLine};
pub use confirm::Confirmations;
pub use model::{
    ActivateRequest, AuditAnswer, ConfigMistake, DrainRequest, DryRun, EndpointStatus, ExplainRequest, FieldValues,
    MatchRequest, Matched, ModeWord, NodeStatus, OriginStatus, OriginsAnswer, PluginAnswer, PluginCalls, PluginList,
    PluginSummary, PluginUploaded, PluginVersion, PurgeList, PurgeModeWord, PurgeNode, PurgeReceipt, PurgeRequest,
    Purged, ReloadReport, RequestStatus, RetriesAnswer, RetryStatus, StatusAnswer, StatusPattern, StatusPatterns,
    StoreStatus, TokenAnswer, TokenList, TokenMade, TokenRequest,
};
pub use openapi::document as openapi_document;
pub use problem::{Problem, ProblemMore, ProblemType};
pub use rate::PurgeRates;
pub use server::serve;
pub use state::{
    AdminState, CountEvent, DrainEndpoint, Explaining, NotDrained, PurgeBounds, PurgeUrl, Reloading, ResolveUrl, SiteOf,
};
pub use token::{AdminToken, TokenError};
pub use tokens::{ADMIN_ID, Caller, NewToken, Scope, TOKENS_FILE, TokenRecord, Tokens, TokensError};

#[cfg(test)]
pub(crate) mod tests;
