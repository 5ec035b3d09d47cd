//! The table of calls: which exist, who may make them, and the refusals that are the same for all.

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::AUTHORIZATION;
use http::{Method, StatusCode};

use super::problem::Problem;
use super::state::AdminState;
use super::{explain_calls, node_calls, origin_calls, plugin_calls, purge_calls};

/// How long a call may take, with reading its content.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// The same for calls that may have to compile a plugin, or wait for one to be compiled.
const PLUGIN_CALL_DEADLINE: Duration = Duration::from_secs(120);

/// Every call, as the refusals list them. A test holds this, the router and the OpenAPI document together.
pub(super) const CALLS: [(&str, &str); 17] = [
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/v1/openapi.json"),
    ("GET", "/v1/status"),
    ("POST", "/v1/purges"),
    ("GET", "/v1/purges/{id}"),
    ("GET", "/v1/plugins"),
    ("GET", "/v1/plugins/{name}"),
    ("PUT", "/v1/plugins/{name}"),
    ("POST", "/v1/plugins/{name}/activate"),
    ("POST", "/v1/plugins/{name}/rollback"),
    ("POST", "/v1/config/reload"),
    ("POST", "/v1/explain"),
    ("GET", "/v1/origins"),
    ("POST", "/v1/origins/{name}/drain"),
    ("HEAD", "of everything that has GET"),
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
        .route("/v1/purges", post(purge_calls::purge))
        .route("/v1/purges/{id}", get(purge_calls::receipt))
        .route("/v1/config/reload", post(node_calls::reload))
        .route("/v1/explain", post(explain_calls::explain))
        .route("/v1/origins", get(origin_calls::list))
        .route("/v1/origins/{name}/drain", post(origin_calls::drain))
        .route_layer(from_fn(|request, next| bounded(CALL_DEADLINE, request, next)));
    let guarded = others.merge(plugins).route_layer(from_fn_with_state(state.clone(), authorize));
    open.merge(guarded).fallback(no_such_call).method_not_allowed_fallback(no_such_method).with_state(state)
}

/// Lets only callers in that show the token. Runs before anything of the content is read.
async fn authorize(State(state): State<AdminState>, request: Request, next: Next) -> Response {
    let mut shown = request.headers().get_all(AUTHORIZATION).iter();
    let admitted = match (shown.next(), shown.next()) {
        (Some(value), None) => bearer(value.as_bytes()).is_some_and(|token| state.token.admits(token)),
        _ => false,
    };
    if admitted { next.run(request).await } else { Problem::unauthorized().into_response() }
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
    CALLS.map(|(method, path)| format!("{method} {path}")).join(", ")
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
