//! Native tests of a rule.
//!
//! ```
//! # use brim_sdk::{CacheKeyRule, Decision, Description, Failure, Request};
//! use brim_sdk::testing::{MockRequest, decide};
//! # struct Rule;
//! # impl CacheKeyRule for Rule {
//! #     fn describe() -> Description { Description::new("rule", "1.0.0").header("x-tenant") }
//! #     fn key(request: &Request) -> Result<Decision, Failure> { Ok(Decision::keep_query().part("tenant", request.header("x-tenant")?)) }
//! # }
//! let decision = decide::<Rule>(&MockRequest::get("https://shop.example/items").header("X-Tenant", "acme")).unwrap();
//! assert_eq!(decision.part_named("tenant"), Some(&b"acme"[..].into()));
//! ```
//!
//! An invalidation rule is asked by [`tags`] and [`purges`]; contents are JSON as the node would read it:
//!
//! ```
//! # use brim_sdk::{Content, Description, Failure, InvalidationRule, Reads, Request, Response, Tags};
//! use brim_sdk::testing::{MockRequest, MockResponse, tags};
//! # struct Rule;
//! # impl InvalidationRule for Rule {
//! #     fn describe() -> Description { Description::new("rule", "1.0.0") }
//! #     fn reads() -> Reads { Reads::nothing().response_value("/id") }
//! #     fn tags(_: &Request, response: &Response) -> Result<Tags, Failure> {
//! #         let Content::Values(values) = response.content() else { return Ok(Tags::none()) };
//! #         Ok(values.at("/id").iter().filter_map(|id| id.as_id()).fold(Tags::none(), |tags, id| tags.key(format!("item:{id}"))))
//! #     }
//! # }
//! let keys = tags::<Rule>(&MockRequest::get("/items/7"), &MockResponse::json(200, r#"{"id": 7}"#)).unwrap();
//! assert_eq!(keys.keys(), ["item:7"]);
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::{
    CacheKeyRule, Content, Decision, Failure, InvalidationRule, KEY_BYTES_MAX, KEYS_MAX, PURGES_MAX, Purges, Query,
    QueryInputs, Request, Response, Tags, URL_BYTES_MAX,
};

mod json;

pub use json::select;

thread_local! {
    static CONFIG: RefCell<BTreeMap<String, String>> = const { RefCell::new(BTreeMap::new()) };
}

/// What [`crate::config::get`] answers on this thread from now on.
pub fn set_config(name: &str, value: &str) {
    CONFIG.with_borrow_mut(|config| config.insert(name.to_owned(), value.to_owned()));
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn config_value(name: &str) -> Option<String> {
    CONFIG.with_borrow(|config| config.get(name).cloned())
}

/// A whole request, as a client would send it.
#[derive(Debug, Clone)]
pub struct MockRequest {
    whole: Request,
    content: MockContent,
}

#[derive(Debug, Clone)]
enum MockContent {
    Whole(Vec<u8>),
    TooLong,
}

impl MockContent {
    fn found(&self, pointers: &[String]) -> Content {
        match self {
            _ if pointers.is_empty() => Content::Undeclared,
            Self::TooLong => Content::TooLong,
            Self::Whole(content) => select(content, pointers),
        }
    }
}

impl MockRequest {
    /// A GET of this URL. Without a scheme it is a path at `https://example.com`.
    #[must_use]
    pub fn get(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
        let (authority, target) = rest.find(['/', '?']).map_or((rest, ""), |start| rest.split_at(start));
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
        Self {
            whole: Request {
                method: "GET".to_owned(),
                scheme: scheme.to_ascii_lowercase(),
                authority: or(authority, "example.com").to_ascii_lowercase(),
                path: or(path, "/"),
                query: query.map(str::to_owned),
                headers: Vec::new(),
                cookies: Vec::new(),
                content: Content::Undeclared,
            },
            content: MockContent::Whole(Vec::new()),
        }
    }

    /// A request of another method than GET.
    #[must_use]
    pub fn of(method: &str, url: &str) -> Self {
        Self::get(url).method(method)
    }

    /// Gives it this content. What is not JSON is allowed: the rule is told so.
    #[must_use]
    pub fn json(mut self, content: &str) -> Self {
        self.content = MockContent::Whole(content.into());
        self
    }

    /// Gives it a content of which the node would know nothing.
    #[must_use]
    pub fn too_long(mut self) -> Self {
        self.content = MockContent::TooLong;
        self
    }

    /// Another method than GET.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.whole.method);
        self
    }

    /// Adds a header field line.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.whole.headers.push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    /// Adds a cookie.
    #[must_use]
    pub fn cookie(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.whole.cookies.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// What the node would pass to the rule: the declared inputs and nothing else.
    #[must_use]
    pub fn seen_by<R: CacheKeyRule>(&self) -> Request {
        let declared = R::describe();
        let whole = &self.whole;
        let query = match &declared.query {
            QueryInputs::None => None,
            QueryInputs::All => whole.query.clone(),
            QueryInputs::Named(names) => {
                let mut query = Query::parse(whole.query.as_deref());
                query.retain(|parameter| names.iter().any(|name| name.as_bytes() == &*parameter.name()));
                query.serialise()
            }
        };
        Request {
            path: if declared.path { whole.path.clone() } else { String::new() },
            query,
            headers: in_order(&declared.headers, &whole.headers),
            cookies: in_order(&declared.cookies, &whole.cookies),
            ..whole.clone()
        }
    }
}

/// A response, as the origin would send it.
#[derive(Debug, Clone)]
pub struct MockResponse {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    content: MockContent,
}

impl MockResponse {
    /// A response without content.
    #[must_use]
    pub fn of(status: u16) -> Self {
        Self { status, headers: Vec::new(), content: MockContent::Whole(Vec::new()) }
    }

    /// A response with this content. What is not JSON is allowed: the rule is told so.
    #[must_use]
    pub fn json(status: u16, content: &str) -> Self {
        Self { content: MockContent::Whole(content.into()), ..Self::of(status) }
    }

    /// A response with a content of which the node would know nothing: too long, or encoded.
    #[must_use]
    pub fn too_long(status: u16) -> Self {
        Self { content: MockContent::TooLong, ..Self::of(status) }
    }

    /// Adds a header field line.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }
}

/// What the node would pass to an invalidation rule: what the rule declared and nothing else. The request's content only for `purges`.
fn exchange<R: InvalidationRule>(
    request: &MockRequest,
    response: &MockResponse,
    is_write: bool,
) -> (Request, Response) {
    let reads = R::reads();
    let content = if is_write { request.content.found(&reads.request_values) } else { Content::Undeclared };
    let seen_request = Request {
        headers: in_order(&reads.request_headers, &request.whole.headers),
        cookies: Vec::new(),
        content,
        ..request.whole.clone()
    };
    let seen_response = Response {
        status: response.status,
        headers: in_order(&reads.response_headers, &response.headers),
        content: response.content.found(&reads.response_values),
    };
    (seen_request, seen_response)
}

/// The surrogate keys that the rule gives a response.
///
/// # Errors
/// The rule's own [`Failure`], or one that says why the node would refuse its answer.
pub fn tags<R: InvalidationRule>(request: &MockRequest, response: &MockResponse) -> Result<Tags, Failure> {
    let (request, response) = exchange::<R>(request, response, false);
    let tags = R::tags(&request, &response)?;
    check_keys(&tags.keys)?;
    Ok(tags)
}

/// What the rule purges after a write.
///
/// # Errors
/// The rule's own [`Failure`], or one that says why the node would refuse its answer.
pub fn purges<R: InvalidationRule>(request: &MockRequest, response: &MockResponse) -> Result<Purges, Failure> {
    let (request, response) = exchange::<R>(request, response, true);
    let purges = R::purges(&request, &response)?;
    check_keys(&purges.keys)?;
    let count =
        usize::from(!purges.keys.is_empty()) + purges.urls.len() + purges.prefixes.len() + usize::from(purges.site);
    if count > PURGES_MAX {
        return Err(refused(format!("{count} purges; {PURGES_MAX} are allowed")));
    }
    for url in purges.urls.iter().chain(&purges.prefixes) {
        let scheme_end = url.find("://").map_or("", |end| &url[..end]).to_ascii_lowercase();
        let is_whole = url.starts_with('/') || scheme_end == "http" || scheme_end == "https";
        if !is_whole || url.len() > URL_BYTES_MAX || has_gaps(url) {
            return Err(refused(format!("a purge of `{url}`")));
        }
    }
    Ok(purges)
}

fn check_keys(keys: &[String]) -> Result<(), Failure> {
    if keys.len() > KEYS_MAX {
        return Err(refused(format!("{} surrogate keys; {KEYS_MAX} are allowed", keys.len())));
    }
    match keys.iter().find(|key| key.is_empty() || key.len() > KEY_BYTES_MAX || has_gaps(key)) {
        Some(key) => Err(refused(format!("the surrogate key `{key}`"))),
        None => Ok(()),
    }
}

fn has_gaps(text: &str) -> bool {
    text.chars().any(|letter| letter.is_whitespace() || letter.is_control())
}

fn refused(what: String) -> Failure {
    Failure::new(format!("the node would refuse the answer: {what}"))
}

fn in_order(names: &[String], all: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    names.iter().flat_map(|name| all.iter().filter(move |(found, _)| found == name)).cloned().collect()
}

/// Runs the rule on what it would see of this request.
///
/// # Errors
/// The rule's own [`Failure`].
pub fn decide<R: CacheKeyRule>(request: &MockRequest) -> Result<Decision, Failure> {
    R::key(&request.seen_by::<R>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Description, Reads, Value};

    struct Echo;
    impl CacheKeyRule for Echo {
        fn describe() -> Description {
            Description::new("echo", "1.0.0").header("X-A").cookie("c").query_named(&["q"])
        }
        fn key(request: &Request) -> Result<Decision, Failure> {
            Ok(Decision::keep_query().part("a", request.header("x-a")?).part("c", request.cookie("c")?))
        }
    }

    #[test]
    fn a_rule_sees_what_it_declared_and_nothing_else() {
        let request = MockRequest::get("HTTPS://Shop.Example/p?z=1&q=2&%71=3")
            .header("x-a", "1")
            .header("x-b", "2")
            .cookie("c", "3")
            .cookie("d", "4");
        let seen = request.seen_by::<Echo>();
        assert_eq!((seen.scheme(), seen.authority(), seen.path()), ("https", "shop.example", ""));
        assert_eq!(seen.raw_query(), Some("q=2&%71=3"));
        assert_eq!(seen.headers, [("x-a".to_owned(), b"1".to_vec())]);
        assert_eq!(seen.cookies, [("c".to_owned(), b"3".to_vec())]);
    }

    #[test]
    fn a_repeated_field_is_a_failure() {
        let request = MockRequest::get("/").header("x-a", "1").header("X-A", "2");
        assert_eq!(decide::<Echo>(&request), Err(Failure::new("`x-a` comes more than once")));
    }

    struct Page;
    impl InvalidationRule for Page {
        fn describe() -> Description {
            Description::new("page", "1.0.0")
        }
        fn reads() -> Reads {
            Reads::nothing()
                .request_header("X-A")
                .response_header("x-b")
                .request_value("/id")
                .response_value("/items/*/id")
        }
        fn tags(request: &Request, response: &Response) -> Result<Tags, Failure> {
            assert_eq!(request.content(), &Content::Undeclared);
            assert_eq!((request.path(), request.raw_query()), ("/items", Some("page=1")));
            let mut tags = Tags::none();
            if let Content::Values(values) = response.content() {
                values.at("/items/*/id").iter().filter_map(Value::as_text).for_each(|id| tags.add(id));
            }
            Ok(tags)
        }
        fn purges(request: &Request, response: &Response) -> Result<Purges, Failure> {
            assert_eq!(response.content(), &Content::TooLong);
            assert!(request.header("x-a")?.is_some() && request.header("x-c")?.is_none());
            let Content::Values(values) = request.content() else { return Err(Failure::new("no content")) };
            Ok(values.at("/id").iter().filter_map(Value::as_text).fold(Purges::none(), |purges, url| purges.url(url)))
        }
    }

    #[test]
    fn an_invalidation_rule_sees_values_and_declared_fields() {
        let request = MockRequest::get("/items?page=1").json("{}");
        let keys = |content| tags::<Page>(&request, &MockResponse::json(200, content));
        assert_eq!(keys(r#"{"items": [{"id": "a"}, {"id": "b"}]}"#).expect("keys").keys(), ["a", "b"]);
        assert!(keys("<html>").expect("none").keys().is_empty());
        let write = MockRequest::of("PUT", "/items").header("x-a", "1").header("x-c", "1");
        let purged = purges::<Page>(&write.clone().json(r#"{"id": "/x"}"#), &MockResponse::too_long(200));
        assert_eq!(purged.expect("purges").urls(), ["/x"]);
        assert_eq!(purges::<Page>(&write, &MockResponse::too_long(200)), Err(Failure::new("no content")));
    }

    #[test]
    fn answers_that_the_node_refuses_fail_in_a_test() {
        let request = MockRequest::get("/items?page=1");
        let content = |ids: String| MockResponse::json(200, &format!(r#"{{"items": [{ids}]}}"#));
        let many: Vec<String> = (0..=KEYS_MAX).map(|id| format!(r#"{{"id": "{id}"}}"#)).collect();
        assert!(tags::<Page>(&request, &content(many.join(","))).is_err());
        assert!(tags::<Page>(&request, &content(r#"{"id": "a b"}"#.to_owned())).is_err());
        let write = MockRequest::of("PUT", "/items").header("x-a", "1").json(r#"{"id": "ftp://x"}"#);
        assert!(purges::<Page>(&write, &MockResponse::too_long(200)).is_err());
    }

    #[test]
    fn config_is_what_the_test_set() {
        assert_eq!(crate::config::get("limit"), None);
        set_config("limit", "3");
        assert_eq!(crate::config::get("limit").as_deref(), Some("3"));
    }
}
