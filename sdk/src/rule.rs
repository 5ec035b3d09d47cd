//! What a plugin implements, and what it says about itself.

use crate::{Decision, Failure, Request};

/// Shapes the cache key of the requests of a route.
pub trait CacheKeyRule {
    /// Says what the rule is called and what it reads. Asked once, when the plugin is loaded.
    fn describe() -> Description;

    /// Decides what the key of this request is made of, besides method, scheme, authority, site and path.
    ///
    /// The answer must follow from the request alone: the node remembers it for equal inputs.
    ///
    /// # Errors
    /// A [`Failure`] makes this request bypass the cache; its message goes to the operator.
    fn key(request: &Request) -> Result<Decision, Failure>;
}

/// Which part of the query a rule reads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum QueryInputs {
    /// Nothing: the rule sees a request without a query.
    #[default]
    None,
    /// The query exactly as the client sent it.
    All,
    /// The parameters of these names, as sent and in the client's order.
    Named(Vec<String>),
}

/// A plugin's name and version, and what its cache-key rule reads. What is not declared is not passed to that rule; an invalidation
/// rule declares by [`reads`](crate::InvalidationRule::reads) instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) path: bool,
    pub(crate) query: QueryInputs,
    pub(crate) headers: Vec<String>,
    pub(crate) cookies: Vec<String>,
}

impl Description {
    /// A plugin that reads nothing yet beyond method, scheme and authority. The name has lower case letters, digits and `-`.
    #[must_use]
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            path: false,
            query: QueryInputs::None,
            headers: Vec::new(),
            cookies: Vec::new(),
        }
    }

    /// Declares the path. Leave it out where the rule does not need it: then one remembered decision serves all paths.
    #[must_use]
    pub fn path(mut self) -> Self {
        self.path = true;
        self
    }

    /// Declares the whole query.
    #[must_use]
    pub fn query(mut self) -> Self {
        self.query = QueryInputs::All;
        self
    }

    /// Declares the query parameters of these names.
    #[must_use]
    pub fn query_named(mut self, names: &[&str]) -> Self {
        self.query = QueryInputs::Named(names.iter().map(|&name| name.to_owned()).collect());
        self
    }

    /// Declares a header field, by its name in any case.
    #[must_use]
    pub fn header(mut self, name: &str) -> Self {
        self.headers.push(name.to_ascii_lowercase());
        self
    }

    /// Declares a cookie, by its exact name.
    #[must_use]
    pub fn cookie(mut self, name: &str) -> Self {
        self.cookies.push(name.to_owned());
        self
    }
}
