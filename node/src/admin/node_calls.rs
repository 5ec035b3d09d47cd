//! Calls about the node itself: health, metrics, status, configuration, and the description of the API.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::model::{ConfigMistake, PluginSummary, ReloadReport, StatusAnswer};
use super::openapi;
use super::problem::Problem;
use super::state::AdminState;

/// Whether the process answers at all.
#[utoipa::path(get, path = "/healthz", tag = "node", responses((status = 200, description = "It does", body = String, content_type = "text/plain")))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the node takes requests.
#[utoipa::path(get, path = "/readyz", tag = "node", responses(
    (status = 200, description = "It does", body = String, content_type = "text/plain"),
    (status = 503, description = "It does not, and why", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn readyz(State(state): State<AdminState>) -> Result<&'static str, Problem> {
    match (state.ready)() {
        Ok(()) => Ok("ready\n"),
        Err(reason) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", reason)),
    }
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "node", responses((status = 200, description = "Metrics", body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(state): State<AdminState>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (state.metrics)())
}

/// Figures of the node.
#[utoipa::path(get, path = "/v1/status", tag = "node", security(("token" = [])), responses(
    (status = 200, description = "Figures", body = StatusAnswer),
    (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn status(State(state): State<AdminState>) -> Json<StatusAnswer> {
    let summary = |view: crate::plugins::PluginView| PluginSummary {
        name: view.name,
        active: view.record.active,
        problem: view.problem,
    };
    Json(StatusAnswer { node: (state.status)(), plugins: state.plugins.list().into_iter().map(summary).collect() })
}

/// Reads the configuration file again and applies it whole, or rejects it whole.
#[utoipa::path(post, path = "/v1/config/reload", tag = "node", security(("token" = [])), responses(
    (status = 200, description = "Applied", body = ReloadReport),
    (status = 422, description = "Rejected; `errors` has every mistake, and the old configuration stays in force", body = Problem, content_type = "application/problem+json"),
    (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn reload(State(state): State<AdminState>) -> Result<Json<ReloadReport>, Problem> {
    let (answer, reloaded) = tokio::sync::oneshot::channel();
    let reloading = (state.reload)();
    // A task of its own: a reload that began is not left half done when the client goes away.
    state.tasks.spawn("reload", async move {
        let _ = answer.send(reloading.await);
    });
    match reloaded.await {
        Ok(Ok(report)) => Ok(Json(report)),
        Ok(Err(errors)) => {
            let mut problem = Problem::invalid(
                "config",
                format!("the configuration is rejected and the old one stays in force:\n{errors}"),
            );
            problem.more.errors = errors.0.into_iter().map(ConfigMistake::from).collect();
            Err(problem)
        }
        Err(gone) => Err(Problem::internal("reloading", &gone)),
    }
}

/// This description.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "node", security(("token" = [])), responses(
    (status = 200, description = "The OpenAPI document", body = Object),
    (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], openapi::document())
}
