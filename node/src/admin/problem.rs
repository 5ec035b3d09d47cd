//! Problem details (RFC 9457): the one form in which the admin API refuses.

use axum::response::{IntoResponse, Response};
use brim_store::PurgeError;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::model::{ConfigMistake, DryRun};
use super::tokens::Scope;
use crate::plugins::{ChangeRefusal, UploadRefusal};

/// A refusal, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is, `code` says it more finely.
    #[serde(rename = "type")]
    pub kind: ProblemType,
    /// The reason phrase of the status.
    pub title: String,
    /// The status.
    pub status: u16,
    /// What is wrong and what would be right, for people.
    pub detail: String,
    /// What is wrong, one word for machines.
    pub code: String,
    /// The check that refused an uploaded plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub check: Option<Box<str>>,
    /// What only some refusals have.
    #[serde(flatten)]
    pub more: Box<ProblemMore>,
}

/// What only some refusals have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProblemMore {
    /// The mistakes of a configuration file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ConfigMistake>,
    /// The scopes of which one is wanting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Scope>,
    /// What the purge would hit, which is more than may be hit unconfirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<DryRun>,
    /// Seconds to wait; also in `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

/// The `type` of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum ProblemType {
    /// The only one.
    #[serde(rename = "about:blank")]
    AboutBlank,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Problem {
        Problem {
            kind: ProblemType::AboutBlank,
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            code: code.to_owned(),
            check: None,
            more: Box::default(),
        }
    }

    /// The caller may come in, but may not do this.
    pub(super) fn forbidden(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// The request's content is not the JSON that the call takes.
    pub(super) fn malformed(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    /// The JSON is right, a value in it is not.
    pub(super) fn invalid(code: &str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    pub(super) fn not_found(code: &str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, code, detail)
    }

    pub(super) fn unauthorized() -> Problem {
        let detail = "show a token: `Authorization: Bearer <token>`; the node keeps the admin token in its token file, and \
                      `brim token new` makes others";
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// Something of ours failed. The log has the details.
    pub(super) fn internal(what: &str, error: &(dyn std::error::Error + 'static)) -> Problem {
        tracing::error!(error, "admin: {what}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("{what} failed; the node's log says why"))
    }
}

impl From<UploadRefusal> for Problem {
    fn from(refusal: UploadRefusal) -> Problem {
        let status = match &refusal {
            UploadRefusal::Name(_) | UploadRefusal::Compile(_) | UploadRefusal::Load(_) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            UploadRefusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            UploadRefusal::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
            UploadRefusal::TooMany => StatusCode::CONFLICT,
            UploadRefusal::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            UploadRefusal::Disk(error) => return Problem::internal("keeping the plugin", error),
        };
        let mut problem = Problem::new(status, "plugin_refused", refusal.to_string());
        problem.check = Some(refusal.check().into());
        problem
    }
}

impl From<PurgeError> for Problem {
    fn from(error: PurgeError) -> Problem {
        match error {
            // The store has logged it, and tells it in the status.
            PurgeError::Log(_) => {
                let detail = format!("nothing was purged: {error}; try again when it can");
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "purge_log", detail)
            }
            PurgeError::NoAnswer => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no_answer", format!("{error}; purge again"))
            }
            PurgeError::TooLong(_) | PurgeError::TooMany(_) => Problem::invalid("too_long", error.to_string()),
            PurgeError::IdempotencyConflict(first) => Problem::invalid(
                "idempotency_key_reused",
                format!("this `Idempotency-Key` was used for another purge, {first}: a new purge takes a new key"),
            ),
            PurgeError::Busy(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", format!("{error}; try again")),
            PurgeError::Closed => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "closing", "the node is stopping"),
        }
    }
}

impl From<ChangeRefusal> for Problem {
    fn from(refusal: ChangeRefusal) -> Problem {
        let (status, code) = match &refusal {
            ChangeRefusal::UnknownPlugin(_) => (StatusCode::NOT_FOUND, "unknown_plugin"),
            ChangeRefusal::UnknownVersion { .. } => (StatusCode::NOT_FOUND, "unknown_version"),
            ChangeRefusal::Mode(_) => (StatusCode::NOT_IMPLEMENTED, "not_available"),
            ChangeRefusal::NothingBefore(_) => (StatusCode::CONFLICT, "nothing_before"),
            ChangeRefusal::Unloadable { .. } => (StatusCode::CONFLICT, "unloadable"),
            ChangeRefusal::Disk(error) => return Problem::internal("changing the active version", error),
        };
        Problem::new(status, code, refusal.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"brim\""));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        if let Some(seconds) = self.more.retry_after_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}
