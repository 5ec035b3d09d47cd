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

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::{CacheKeyRule, Decision, Failure, Query, QueryInputs, Request};

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
            },
        }
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
    use crate::Description;

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

    #[test]
    fn config_is_what_the_test_set() {
        assert_eq!(crate::config::get("limit"), None);
        set_config("limit", "3");
        assert_eq!(crate::config::get("limit").as_deref(), Some("3"));
    }
}
