//! The call that explains a request.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::body;
use super::model::{ExplainRequest, FieldValues};
use super::problem::Problem;
use super::selectors::absolute_url;
use super::state::AdminState;
use crate::request::explain::{Supposed, model::Explanation};

/// Says what this node would do with a request now, and why. Nothing is asked of an origin and nothing changes.
#[utoipa::path(post, path = "/v1/explain", tag = "explain", security(("token" = [])), request_body = ExplainRequest, responses(
    (status = 200, description = "The decision, line by line; also where the request itself would be refused", body = Explanation),
    (status = 400, description = "Not JSON, or an unknown field", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "A value is not right", body = Problem, content_type = "application/problem+json"),
    (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn explain(State(state): State<AdminState>, content: Body) -> Result<Json<Explanation>, Problem> {
    let request: ExplainRequest = body::json(content).await?;
    let supposed = supposed(&request, state.header_count_max)?;
    Ok(Json((state.explain)(supposed).await))
}

/// The request as an HTTP/1.1 client would send it: the path in its first line, the authority in `Host`.
fn supposed(request: &ExplainRequest, header_count_max: usize) -> Result<Supposed, Problem> {
    let (scheme, url) = absolute_url("url", &request.url)?;
    let invalid_method = |_| Problem::invalid("method", format!("`method` {:?} is no method", request.method));
    let method = Method::from_bytes(request.method.as_bytes()).map_err(invalid_method)?;
    let mut headers = headers(&request.headers, header_count_max)?;
    if !headers.contains_key(HOST) {
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let host = HeaderValue::from_str(authority).map_err(|error| Problem::invalid("url", error.to_string()))?;
        headers.insert(HOST, host);
    }
    let target = url.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let content = Bytes::from(request.content.clone().unwrap_or_default());
    Ok(Supposed { method, scheme, target: Uri::from(target), headers, content })
}

/// Fields as JSON has them, checked as the data port checks them.
pub(super) fn headers(fields: &BTreeMap<String, FieldValues>, header_count_max: usize) -> Result<HeaderMap, Problem> {
    let invalid = |detail: String| Problem::invalid("headers", detail);
    let count: usize = fields.values().map(|values| values.lines().len()).sum();
    if count > header_count_max {
        let detail = format!("{count} fields: the data port answers 431 to more than {header_count_max}");
        return Err(invalid(detail));
    }
    let mut headers = HeaderMap::new();
    for (name, values) in fields {
        let field = HeaderName::from_bytes(name.as_bytes());
        let field = field.map_err(|_| invalid(format!("{name:?} is no name of a field")))?;
        for line in values.lines() {
            // White space around a value is none of it (RFC 9110 §5.5).
            let value = HeaderValue::from_bytes(line.trim_matches([' ', '\t']).as_bytes());
            headers.append(&field, value.map_err(|_| invalid(format!("{line:?} is no value of {name}")))?);
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(request: Value) -> Result<Supposed, Problem> {
        supposed(&serde_json::from_value(request).expect("the JSON that the call takes"), 3)
    }

    #[test]
    fn a_url_becomes_what_an_http1_client_would_send() {
        let supposed = read(json!({"url": "HTTPS://Shop.Example:443/a%20b?c=d"})).expect("a request");
        assert_eq!((supposed.scheme, supposed.method), ("https", Method::GET));
        assert_eq!(supposed.target, "/a%20b?c=d");
        assert_eq!(supposed.headers[HOST], "Shop.Example:443");
        let headers = json!({"Host": "other", "x-a": [" 1 ", "2"]});
        let supposed =
            read(json!({"url": "http://127.0.0.1:8080", "method": "PURGE", "headers": headers})).expect("a request");
        assert_eq!((supposed.method.as_str(), supposed.target.path()), ("PURGE", "/"));
        assert_eq!(supposed.headers.get_all(HOST).iter().collect::<Vec<_>>(), ["other"]);
        assert_eq!(supposed.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn what_is_not_right_says_which_value() {
        let url = "http://a/";
        for (request, code, words) in [
            (json!({"url": "/a"}), "url", "must be absolute"),
            (json!({"url": "ftp://a/"}), "url", "http or https"),
            (json!({"url": "http://a/#b"}), "url", "fragment"),
            (json!({"url": "http://u@a/"}), "url", "user"),
            (json!({"url": format!("http://a/{}", "x".repeat(9000))}), "url", "more than 8192 bytes"),
            (json!({"url": url, "method": "GE T"}), "method", "no method"),
            (json!({"url": url, "method": ""}), "method", "no method"),
            (json!({"url": url, "headers": {"a b": "1"}}), "headers", "no name of a field"),
            (json!({"url": url, "headers": {"a": "1\r\nb: 2"}}), "headers", "no value of a"),
            (json!({"url": url, "headers": {"a": ["1", "2"], "b": ["1", "2"]}}), "headers", "answers 431"),
        ] {
            let problem = read(request.clone()).expect_err("a refusal");
            assert_eq!((problem.status, problem.code.as_str()), (422, code), "{request}");
            assert!(problem.detail.contains(words), "{}", problem.detail);
        }
    }
}
