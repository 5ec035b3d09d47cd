//! Calls about invalidation rules that failed after a write and are asked again.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use http::StatusCode;

use super::audit::Note;
use super::model::{RetriesAnswer, RetryStatus};
use super::problem::Problem;
use super::state::AdminState;

/// The calls that wait, the oldest first.
#[utoipa::path(get, path = "/v1/retries", tag = "purges", security(("token" = [])), responses(
    (status = 200, description = "The calls that wait", body = RetriesAnswer),
    (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(state): State<AdminState>) -> Json<RetriesAnswer> {
    let waiting = state.retries.list().into_iter().map(|(id, retry)| RetryStatus {
        id,
        plugin: retry.plugin,
        site: retry.site,
        route: retry.route,
        target: retry.target,
        since: humantime::format_rfc3339_millis(retry.since).to_string(),
        failures: retry.failures,
        reason: retry.reason,
    });
    Json(RetriesAnswer { retries: waiting.collect() })
}

/// Gives a call up: what it would have purged stays stored.
#[utoipa::path(delete, path = "/v1/retries/{id}", tag = "purges", security(("token" = [])),
    params(("id" = u64, Path, description = "The number of the call")),
    responses(
        (status = 204, description = "Given up"),
        (status = 404, description = "No such call waits", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn give_up(
    State(state): State<AdminState>,
    Extension(note): Extension<Note>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    note.what(format!("retry {id}"));
    let unknown = || Problem::not_found("unknown_retry", format!("no call {id:?} waits; GET /v1/retries lists them"));
    let number: u64 = id.parse().map_err(|_| unknown())?;
    let retries = state.retries.clone();
    let removed = tokio::task::spawn_blocking(move || retries.remove(number)).await;
    match removed {
        Ok(Ok(true)) => Ok(StatusCode::NO_CONTENT),
        Ok(Ok(false)) => Err(unknown()),
        Ok(Err(error)) => Err(Problem::internal("removing a call that waits", &error)),
        Err(gone) => Err(Problem::internal("removing a call that waits", &gone)),
    }
}
