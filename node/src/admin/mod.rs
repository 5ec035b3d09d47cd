//! The admin API: JSON over HTTP/1.1 on a listener of its own.
//!
//! Always true:
//! - Everything below `/v1/` needs the token; health and metrics do not, and neither do they say anything secret.
//! - A refusal is a problem detail (RFC 9457) that says what to do instead; details of the inside go to the log.
//! - A purge that was begun is finished, also when its client goes away.
//! - Connections, bodies and times have limits of their own: the admin API cannot starve the data path.
//!
//! Not here: what a purge or a plugin does (`brim_store`, `plugins`), what the metrics say (`telemetry`).

mod body;
mod calls;
mod explain_calls;
mod model;
mod node_calls;
mod openapi;
mod origin_calls;
mod plugin_calls;
mod problem;
mod purge_calls;
mod server;
mod state;
mod token;

pub use model::{
    ActivateRequest, ConfigMistake, DrainRequest, DryRun, EndpointStatus, ExplainRequest, FieldValues, ModeWord,
    NodeStatus, OriginStatus, OriginsAnswer, PluginAnswer, PluginCalls, PluginList, PluginSummary, PluginUploaded,
    PluginVersion, PurgeModeWord, PurgeReceipt, PurgeRequest, Purged, ReloadReport, RequestStatus, StatusAnswer,
    StoreStatus,
};
pub use openapi::document as openapi_document;
pub use problem::{Problem, ProblemType};
pub use server::serve;
pub use state::{AdminState, DrainEndpoint, Explaining, NotDrained, PurgeUrl, Reloading, ResolveUrl};
pub use token::{AdminToken, TokenError};

#[cfg(test)]
pub(crate) mod tests;
