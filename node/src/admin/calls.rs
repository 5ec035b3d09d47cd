//! The table of calls: which exist, who may make them, and the refusals that are the same for all.

use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use http::header::AUTHORIZATION;
use http::{Method, StatusCode};

use super::audit::{self, Note};
use super::problem::Problem;
use super::server::Peer;
use super::state::AdminState;
use super::tokens::{Caller, Scope};
use super::{explain_calls, node_calls, origin_calls, plugin_calls, purge_calls, retry_calls, token_calls};
use crate::telemetry::Family;

/// How long a call may take, with reading its content.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// The same for calls that may have to compile a plugin, or wait for one to be compiled.
const PLUGIN_CALL_DEADLINE: Duration = Duration::from_secs(120);

/// Who may make a call, and whether it is written down.
#[derive(Debug, Clone, Copy)]
pub(super) enum Need {
    /// Nobody has to show anything.
    Nothing,
    /// It looks, for who has one of these scopes.
    Look(&'static [Scope]),
    /// It changes something, for who has this scope, and has its line in the audit log.
    Change(Scope),
}

/// Every call, as the refusals list them. A test holds this, the router and the OpenAPI document together.
pub(super) const CALLS: [(&str, &str, Need); 24] = [
    ("GET", "/healthz", Need::Nothing),
    ("GET", "/readyz", Need::Nothing),
    ("GET", "/metrics", Need::Nothing),
    ("GET", "/v1/openapi.json", Need::Look(&[Scope::Read])),
    ("GET", "/v1/status", Need::Look(&[Scope::Read])),
    ("POST", "/v1/purges", Need::Change(Scope::Purge)),
    ("GET", "/v1/purges", Need::Look(&[Scope::Read, Scope::Purge])),
    ("GET", "/v1/purges/{id}", Need::Look(&[Scope::Read, Scope::Purge])),
    ("GET", "/v1/plugins", Need::Look(&[Scope::Read, Scope::Plugins])),
    ("GET", "/v1/plugins/{name}", Need::Look(&[Scope::Read, Scope::Plugins])),
    ("PUT", "/v1/plugins/{name}", Need::Change(Scope::Plugins)),
    ("POST", "/v1/plugins/{name}/activate", Need::Change(Scope::Plugins)),
    ("POST", "/v1/plugins/{name}/rollback", Need::Change(Scope::Plugins)),
    ("POST", "/v1/config/reload", Need::Change(Scope::Admin)),
    ("POST", "/v1/explain", Need::Look(&[Scope::Read])),
    ("GET", "/v1/origins", Need::Look(&[Scope::Read])),
    ("POST", "/v1/origins/{name}/drain", Need::Change(Scope::Admin)),
    ("POST", "/v1/tokens", Need::Change(Scope::Admin)),
    ("GET", "/v1/tokens", Need::Look(&[Scope::Admin])),
    ("DELETE", "/v1/tokens/{id}", Need::Change(Scope::Admin)),
    ("GET", "/v1/audit", Need::Look(&[Scope::Admin])),
    ("GET", "/v1/retries", Need::Look(&[Scope::Read])),
    ("DELETE", "/v1/retries/{id}", Need::Change(Scope::Admin)),
    ("HEAD", "of everything that has GET", Need::Nothing),
];

pub(super) fn router(state: AdminState) -> Router {
    let open = Router::new()
        .route("/healthz", get(node_calls::healthz))
        .route("/readyz", get(node_calls::readyz))
        .route("/metrics", get(node_calls::metrics));
    let plugins = Router::new()
        .route("/v1/plugins", get(plugin_calls::list))
        .route("/v1/plugins/{name}", get(plugin_calls::show).put(plugin_calls::upload))
        .route("/v1/plugins/{name}/activate", post(plugin_calls::activate))
        .route("/v1/plugins/{name}/rollback", post(plugin_calls::rollback))
        .route_layer(from_fn(|request, next| bounded(PLUGIN_CALL_DEADLINE, request, next)));
    let others = Router::new()
        .route("/v1/openapi.json", get(node_calls::openapi))
        .route("/v1/status", get(node_calls::status))
        .route("/v1/purges", get(purge_calls::list).post(purge_calls::purge))
        .route("/v1/purges/{id}", get(purge_calls::receipt))
        .route("/v1/config/reload", post(node_calls::reload))
        .route("/v1/explain", post(explain_calls::explain))
        .route("/v1/origins", get(origin_calls::list))
        .route("/v1/origins/{name}/drain", post(origin_calls::drain))
        .route("/v1/tokens", get(token_calls::list).post(token_calls::make))
        .route("/v1/tokens/{id}", delete(token_calls::revoke))
        .route("/v1/audit", get(token_calls::audit))
        .route("/v1/retries", get(retry_calls::list))
        .route("/v1/retries/{id}", delete(retry_calls::give_up))
        .route_layer(from_fn(|request, next| bounded(CALL_DEADLINE, request, next)));
    let guarded = others.merge(plugins).route_layer(from_fn_with_state(state.clone(), authorize));
    open.merge(guarded).fallback(no_such_call).method_not_allowed_fallback(no_such_method).with_state(state)
}

/// Lets only callers in that show a token with the scope of the call, and has written down what changes something and who is refused.
/// Runs before anything of the content is read.
async fn authorize(
    State(state): State<AdminState>,
    peer: Option<Extension<Peer>>,
    path: MatchedPath,
    mut request: Request,
    next: Next,
) -> Response {
    let call = format!("{} {}", request.method(), request.uri().path());
    let mut line = audit::line(state.clock.now(), peer.map(|Extension(Peer(peer))| peer), call);
    let mut shown = request.headers().get_all(AUTHORIZATION).iter();
    let caller = match (shown.next(), shown.next()) {
        (Some(value), None) => bearer(value.as_bytes()).and_then(|token| state.tokens.caller(token, state.clock.now())),
        _ => None,
    };
    let Some(caller) = caller else {
        (state.count)(Family::AdminRefusals, &["unauthorized"]);
        // One line a second: nobody without a token can write the log full.
        if let Some(held_back) = state.strangers.admit() {
            line.status = Some(StatusCode::UNAUTHORIZED.as_u16());
            line.held_back = (held_back > 0).then_some(held_back);
            state.audit.write(line);
        }
        return Problem::unauthorized().into_response();
    };
    (line.by, line.name) = (Some(caller.id.to_string()), Some(caller.name.to_string()));
    let need = need(request.method(), path.as_str());
    let note = Note::new(&state.audit, line, matches!(need, Some(Need::Change(_))));
    let response = match need.map_or(Ok(()), |need| check(&caller, need)) {
        Ok(()) => {
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(note.clone());
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    };
    note.status(response.status().as_u16());
    if response.status() == StatusCode::FORBIDDEN {
        (state.count)(Family::AdminRefusals, &["forbidden"]);
        note.keep(true);
    }
    response
}

/// What a call needs; none: the method is refused by the router.
fn need(method: &Method, path: &str) -> Option<Need> {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    CALLS.iter().find(|(known, of, _)| *known == method && *of == path).map(|(_, _, need)| *need)
}

fn check(caller: &Caller, need: Need) -> Result<(), Problem> {
    let scopes = match &need {
        Need::Nothing => return Ok(()),
        Need::Look(scopes) => *scopes,
        Need::Change(scope) => std::slice::from_ref(scope),
    };
    if scopes.iter().any(|scope| caller.has(*scope)) {
        return Ok(());
    }
    let words: Vec<_> = scopes.iter().map(|scope| format!("{:?}", scope.as_str())).collect();
    let detail = format!("the token {:?} lacks the scope {}", caller.name, words.join(" or "));
    let mut problem = Problem::forbidden(detail);
    problem.more.scopes = scopes.to_vec();
    Err(problem)
}

/// The credentials after `Bearer `; the scheme's case does not matter (RFC 9110 §11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

async fn bounded(deadline: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail =
                format!("the call took longer than {deadline:?}; a purge that was begun is finished all the same");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "deadline", detail).into_response()
        }
    }
}

async fn no_such_call(request: Request) -> Problem {
    let detail = format!("{} is no call of this version of brim; there are: {}", request.uri().path(), listing());
    Problem::not_found("unknown_call", detail)
}

async fn no_such_method(method: Method, request: Request) -> Problem {
    let detail = format!("{method} is no method of {}; there are: {}", request.uri().path(), listing());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", detail)
}

fn listing() -> String {
    CALLS.map(|(method, path, _)| format!("{method} {path}")).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_takes_any_case_of_the_scheme_and_nothing_else() {
        assert_eq!(bearer(b"Bearer abc"), Some(b"abc".as_slice()));
        assert_eq!(bearer(b"bearer  abc "), Some(b"abc".as_slice()));
        assert_eq!(bearer(b"Basic YWJj"), None);
        assert_eq!(bearer(b"abc"), None);
        assert_eq!(bearer(b""), None);
    }
}
