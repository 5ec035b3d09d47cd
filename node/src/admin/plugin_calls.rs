//! Calls about plugins.

use std::time::SystemTime;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use http::StatusCode;

use super::audit::Note;
use super::body;
use super::model::{ActivateRequest, ModeWord, PluginAnswer, PluginCalls, PluginList, PluginUploaded, PluginVersion};
use super::problem::Problem;
use super::state::AdminState;
use crate::plugins::{ChangeRefusal, Mode, PluginView};

/// Uploads a component as the next version of a plugin. It is not in use before it is activated.
#[utoipa::path(put, path = "/v1/plugins/{name}", tag = "plugins", security(("token" = [])),
    params(("name" = String, Path, description = "1 to 64 of a-z, 0-9 and '-', beginning with a letter")),
    request_body(content = Vec<u8>, content_type = "application/wasm", description = "The component"),
    responses(
        (status = 201, description = "Kept, under this version", body = PluginUploaded),
        (status = 413, description = "Too large", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Refused; `check` says by which check", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn upload(
    State(state): State<AdminState>,
    Extension(note): Extension<Note>,
    Path(name): Path<String>,
    content: Body,
) -> Result<(StatusCode, Json<PluginUploaded>), Problem> {
    let bytes_max = state.plugins.component_bytes_max();
    let component = body::bytes(content, bytes_max).await.map_err(|mut problem| {
        if problem.status == StatusCode::PAYLOAD_TOO_LARGE {
            problem.detail =
                format!("the component has more than the {bytes_max} bytes allowed by plugins.component_bytes_max");
            problem.check = Some("size".into());
        }
        problem
    })?;
    let uploaded = state.plugins.upload(&name, component, SystemTime::now()).await?;
    let version = uploaded.version;
    note.what(format!("version {}, digest {}", version.version, version.digest));
    let answer = PluginUploaded {
        name,
        version: version.version,
        digest: version.digest,
        declared_version: version.declared_version,
        hooks: version.hooks,
        inputs: version.inputs,
        known: uploaded.known,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// All plugins.
#[utoipa::path(get, path = "/v1/plugins", tag = "plugins", security(("token" = [])), responses(
    (status = 200, description = "The plugins", body = PluginList),
    (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(state): State<AdminState>) -> Json<PluginList> {
    let problems = state.plugins.problems().into_iter().filter(|problem| problem.plugin.is_none());
    Json(PluginList {
        plugins: state.plugins.list().into_iter().map(answer).collect(),
        problems: problems.map(|problem| problem.reason).collect(),
    })
}

/// One plugin.
#[utoipa::path(get, path = "/v1/plugins/{name}", tag = "plugins", security(("token" = [])),
    params(("name" = String, Path, description = "The plugin")),
    responses(
        (status = 200, description = "The plugin", body = PluginAnswer),
        (status = 404, description = "There is none of this name", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn show(
    State(state): State<AdminState>,
    Path(name): Path<String>,
) -> Result<Json<PluginAnswer>, Problem> {
    match state.plugins.get(&name) {
        Some(view) => Ok(Json(answer(view))),
        None => Err(ChangeRefusal::UnknownPlugin(name).into()),
    }
}

/// Makes a version the one in use, from the next request on.
#[utoipa::path(post, path = "/v1/plugins/{name}/activate", tag = "plugins", security(("token" = [])),
    params(("name" = String, Path, description = "The plugin")),
    request_body = ActivateRequest,
    responses(
        (status = 200, description = "The new state", body = PluginAnswer),
        (status = 404, description = "No such plugin or version", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The version does not load", body = Problem, content_type = "application/problem+json"),
        (status = 501, description = "The mode is not available in this version", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn activate(
    State(state): State<AdminState>,
    Extension(note): Extension<Note>,
    Path(name): Path<String>,
    content: Body,
) -> Result<Json<PluginAnswer>, Problem> {
    let request: ActivateRequest = body::json(content).await?;
    note.what(format!("version {}", request.version));
    let mode = match request.mode {
        ModeWord::Live => Mode::Live,
        ModeWord::Shadow => Mode::Shadow,
        ModeWord::Canary => Mode::Canary,
    };
    if mode != Mode::Canary && request.percent.is_some() {
        return Err(Problem::invalid("percent", "`percent` goes with mode \"canary\" only"));
    }
    let view = state.plugins.activate(&name, request.version, mode).await?;
    state.retries.try_soon();
    Ok(Json(answer(view)))
}

/// Brings back the version that was in use before.
#[utoipa::path(post, path = "/v1/plugins/{name}/rollback", tag = "plugins", security(("token" = [])),
    params(("name" = String, Path, description = "The plugin")),
    responses(
        (status = 200, description = "The new state", body = PluginAnswer),
        (status = 404, description = "No such plugin", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "There is no earlier version, or it does not load", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn rollback(
    State(state): State<AdminState>,
    Path(name): Path<String>,
) -> Result<Json<PluginAnswer>, Problem> {
    let view = state.plugins.rollback(&name).await?;
    state.retries.try_soon();
    Ok(Json(answer(view)))
}

fn answer(view: PluginView) -> PluginAnswer {
    let active = view.record.active;
    let versions = view.record.versions.into_iter().rev();
    PluginAnswer {
        name: view.name,
        active,
        previous: view.record.before.last().copied(),
        problem: view.problem,
        calls: view.stats.map(|stats| calls(&stats)),
        versions: versions.map(|version| PluginVersion { live: active == Some(version.version), version }).collect(),
    }
}

fn calls(stats: &brim_host::PluginStats) -> PluginCalls {
    PluginCalls {
        calls: stats.calls,
        memo_hits: stats.memo_hits,
        traps: stats.faults.total(),
        faults: stats
            .faults
            .by_kind()
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| (kind.to_owned(), count))
            .collect(),
        time_us: u64::try_from(stats.time.as_micros()).unwrap_or(u64::MAX),
    }
}
