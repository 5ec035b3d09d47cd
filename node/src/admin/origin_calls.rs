//! Calls about origins: how their endpoints stand, and taking one out of service.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::{Extension, Json};

use super::audit::Note;
use super::body;
use super::model::{DrainRequest, OriginStatus, OriginsAnswer};
use super::problem::Problem;
use super::state::{AdminState, NotDrained};

/// How the endpoints of all origins stand, and why.
#[utoipa::path(get, path = "/v1/origins", tag = "origins", security(("token" = [])), responses(
    (status = 200, description = "The origins", body = OriginsAnswer),
    (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(state): State<AdminState>) -> Json<OriginsAnswer> {
    Json(OriginsAnswer { origins: (state.origins)() })
}

/// Takes an endpoint out of service, or puts it back. Requests under way are finished; new ones go to the others. It lasts until it is
/// taken back, the section of the origin changes, or the node restarts.
#[utoipa::path(post, path = "/v1/origins/{name}/drain", tag = "origins", security(("token" = [])), params(("name" = String, Path, description = "The origin")), request_body = DrainRequest, responses(
    (status = 200, description = "Done; how the origin stands now", body = OriginStatus),
    (status = 400, description = "Not JSON, or an unknown field", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "There is no such origin, or no such endpoint", body = Problem, content_type = "application/problem+json"),
    (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn drain(
    State(state): State<AdminState>,
    Extension(note): Extension<Note>,
    Path(name): Path<String>,
    content: Body,
) -> Result<Json<OriginStatus>, Problem> {
    let request: DrainRequest = body::json(content).await?;
    note.what(format!("{} {}", if request.drain { "drain" } else { "restore" }, request.endpoint));
    (state.drain)(&name, &request).map(Json).map_err(|why| match why {
        NotDrained::NoOrigin => Problem::not_found("unknown_origin", format!("there is no origin {name:?}")),
        NotDrained::NoEndpoint => Problem::not_found(
            "unknown_endpoint",
            format!("the origin {name:?} has no endpoint {:?}; GET /v1/origins lists them", request.endpoint),
        ),
    })
}
