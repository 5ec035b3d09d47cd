//! Calls about tokens, and the audit log.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use http::StatusCode;

use super::audit::Note;
use super::body;
use super::model::{AuditAnswer, AuditQuery, TokenAnswer, TokenList, TokenMade, TokenRequest};
use super::problem::Problem;
use super::state::AdminState;
use super::tokens::{Caller, NewToken, Scope, TokenRecord, TokensError};
use crate::config::{check_name, limits, parse_duration};

/// Sites and surrogate key prefixes of one token, each.
const MEMBERS_MAX: usize = 100;
/// Bytes of a surrogate key prefix.
const PREFIX_BYTES_MAX: usize = 256;
/// Lines of the audit log in one answer.
const AUDIT_LINES: u32 = 100;
const AUDIT_LINES_MAX: u32 = 1_000;

/// Makes a token. Its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", security(("token" = [])), request_body = TokenRequest, responses(
    (status = 201, description = "Made; `token` is shown this once", body = TokenMade),
    (status = 400, description = "Not JSON, or an unknown field or scope", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "There are as many tokens as there may be", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "A value is not right", body = Problem, content_type = "application/problem+json"),
    (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn make(
    State(state): State<AdminState>,
    Extension(caller): Extension<Arc<Caller>>,
    Extension(note): Extension<Note>,
    content: Body,
) -> Result<(StatusCode, Json<TokenMade>), Problem> {
    let request: TokenRequest = body::json(content).await?;
    let new = new_token(&state, request)?;
    let (tokens, now) = (state.tokens.clone(), state.clock.now());
    // In the task that makes it: it is made also if the caller leaves, and then has its line all the same.
    let making = move || {
        let made = tokens.make(new, &caller.id, now);
        if let Ok((record, _)) = &made {
            note.what(format!("token {} ({})", record.id, record.name));
        }
        made
    };
    let made = tokio::task::spawn_blocking(making).await.map_err(|gone| Problem::internal("making a token", &gone))?;
    let (record, token) = made?;
    tracing::info!(id = record.id, name = record.name, "token made");
    Ok((StatusCode::CREATED, Json(TokenMade { token, about: answer(record) })))
}

/// All tokens but that of the token file. No secret is in it.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", security(("token" = [])), responses(
    (status = 200, description = "The tokens", body = TokenList),
    (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(state): State<AdminState>) -> Json<TokenList> {
    let mut tokens: Vec<_> = state.tokens.list().into_iter().map(answer).collect();
    tokens.sort_by(|one, other| (&one.created_at, &one.id).cmp(&(&other.created_at, &other.id)));
    Json(TokenList { tokens })
}

/// Revokes a token: from the next call on it lets nobody in.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens", security(("token" = [])),
    params(("id" = String, Path, description = "The id of the token")),
    responses(
        (status = 200, description = "Revoked", body = TokenAnswer),
        (status = 404, description = "There is none of this id", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn revoke(
    State(state): State<AdminState>,
    Extension(note): Extension<Note>,
    Path(id): Path<String>,
) -> Result<Json<TokenAnswer>, Problem> {
    let tokens = state.tokens.clone();
    let revoking = tokio::task::spawn_blocking(move || tokens.revoke(&id));
    let record = revoking.await.map_err(|gone| Problem::internal("revoking a token", &gone))??;
    note.what(format!("token {} ({})", record.id, record.name));
    tracing::info!(id = record.id, name = record.name, "token revoked");
    Ok(Json(answer(record)))
}

/// The newest lines of the audit log, the newest first.
#[utoipa::path(get, path = "/v1/audit", tag = "tokens", security(("token" = [])),
    params(("limit" = Option<u32>, Query, description = "1 to 1000; 100 if absent")),
    responses(
        (status = 200, description = "The lines", body = AuditAnswer),
        (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn audit(
    State(state): State<AdminState>,
    query: Result<Query<AuditQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<AuditAnswer>, Problem> {
    let Query(query) = query.map_err(|error| Problem::malformed(error.body_text()))?;
    let limit = query.limit.unwrap_or(AUDIT_LINES);
    if !(1..=AUDIT_LINES_MAX).contains(&limit) {
        return Err(Problem::invalid("limit", format!("`limit` is from 1 to {AUDIT_LINES_MAX}")));
    }
    let audit = state.audit.clone();
    let reading = tokio::task::spawn_blocking(move || audit.newest(limit as usize));
    let lines = reading.await.map_err(|gone| Problem::internal("reading the audit log", &gone))?;
    Ok(Json(AuditAnswer { lines }))
}

fn new_token(state: &AdminState, request: TokenRequest) -> Result<NewToken, Problem> {
    let TokenRequest { name, mut scopes, sites, key_prefixes, purges_per_minute, expires_in } = request;
    check_name(&name).map_err(|message| Problem::invalid("name", format!("`name`: {message}")))?;
    scopes.sort_unstable();
    scopes.dedup();
    if scopes.is_empty() {
        return Err(Problem::invalid(
            "scopes",
            "`scopes` needs at least one of \"read\", \"purge\", \"plugins\", \"admin\"",
        ));
    }
    let is_bounded = !sites.is_empty() || !key_prefixes.is_empty();
    if is_bounded && (scopes.contains(&Scope::Admin) || scopes.contains(&Scope::Plugins)) {
        let detail = "`scopes`: \"admin\" may do everything, and plugins serve all sites; a token with `sites` or `key_prefixes` \
                      takes \"purge\" and \"read\" alone";
        return Err(Problem::invalid("scopes", detail));
    }
    for (field, members) in [("sites", &sites), ("key_prefixes", &key_prefixes)] {
        if members.len() > MEMBERS_MAX {
            return Err(Problem::invalid(field, format!("`{field}` has more than {MEMBERS_MAX} members")));
        }
    }
    let known = (state.sites)();
    if let Some((at, site)) = sites.iter().enumerate().find(|(_, site)| !known.contains(site)) {
        let detail = format!("`sites[{at}]`: no site is named {site:?}; there are: {}", known.join(", "));
        return Err(Problem::invalid("unknown_site", detail));
    }
    let is_wrong = |prefix: &str| {
        prefix.is_empty()
            || prefix.len() > PREFIX_BYTES_MAX
            || prefix.contains(|c: char| c.is_whitespace() || c.is_control())
    };
    if let Some((at, prefix)) = key_prefixes.iter().enumerate().find(|(_, prefix)| is_wrong(prefix)) {
        let detail = format!("`key_prefixes[{at}]` {prefix:?}: 1 to {PREFIX_BYTES_MAX} bytes and no white space");
        return Err(Problem::invalid("key_prefixes", detail));
    }
    let most = limits::PURGES_PER_MINUTE.max;
    if purges_per_minute.is_some_and(|number| number > most) {
        return Err(Problem::invalid(
            "purges_per_minute",
            format!("`purges_per_minute` is from 0 (any number) to {most}"),
        ));
    }
    let expires_in = expires_in.as_deref().map(parse_duration).transpose();
    let expires_in =
        expires_in.map_err(|message| Problem::invalid("expires_in", format!("`expires_in`: {message}")))?;
    if expires_in.is_some_and(|time| time.as_secs() == 0) {
        return Err(Problem::invalid("expires_in", "`expires_in` is at least \"1s\""));
    }
    Ok(NewToken { name, scopes, sites, key_prefixes, purges_per_minute, expires_in })
}

fn answer(record: TokenRecord) -> TokenAnswer {
    let time = |seconds: u64| {
        // The last second that can be written stands for all later ones.
        let seconds = seconds.min(253_402_300_799);
        humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).to_string()
    };
    TokenAnswer {
        created_at: time(record.created_at),
        expires_at: record.expires_at.map(time),
        id: record.id,
        name: record.name,
        scopes: record.scopes,
        sites: record.sites,
        key_prefixes: record.key_prefixes,
        purges_per_minute: record.purges_per_minute,
        created_by: record.created_by,
    }
}

impl From<TokensError> for Problem {
    fn from(error: TokensError) -> Problem {
        match &error {
            TokensError::TooMany => Problem::new(StatusCode::CONFLICT, "too_many_tokens", error.to_string()),
            TokensError::Unknown(_) => Problem::not_found("unknown_token", error.to_string()),
            TokensError::Disk(_) => {
                let detail = format!("nothing has changed: {error}; try again when it can");
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "token_file", detail)
            }
        }
    }
}
