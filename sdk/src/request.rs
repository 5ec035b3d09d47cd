//! What a rule is given.

use core::fmt;

use crate::{Content, Failure, Query};

/// The declared inputs of one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub(crate) method: String,
    pub(crate) scheme: String,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) cookies: Vec<(String, Vec<u8>)>,
    pub(crate) content: Content,
}

impl Request {
    /// `GET`, `HEAD` and so on.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// `https` or `http`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Host, and the port where it is not the scheme's own; lower case.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The path as the client sent it; to a cache-key rule, empty unless declared.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The declared part of the query, split into parameters.
    #[must_use]
    pub fn query(&self) -> Query<'_> {
        Query::parse(self.query.as_deref())
    }

    /// The declared part of the query as the client sent it.
    #[must_use]
    pub fn raw_query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The value of a header field that may come once.
    ///
    /// # Errors
    /// [`Repeated`] where the request has the field more than once. Taking one of them would let a client choose a key by one
    /// line and the origin's answer by the other.
    pub fn header(&self, name: &str) -> Result<Option<&[u8]>, Repeated> {
        only(lines(&self.headers, name), name)
    }

    /// All lines of a header field, in the order of arrival.
    pub fn header_lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        lines(&self.headers, name)
    }

    /// The value of a cookie that may come once.
    ///
    /// # Errors
    /// [`Repeated`] where the request has the cookie more than once.
    pub fn cookie(&self, name: &str) -> Result<Option<&[u8]>, Repeated> {
        only(self.cookies.iter().filter(|(cookie, _)| cookie == name).map(|(_, value)| value.as_slice()), name)
    }

    /// What was found in its content; to a cache-key rule, nothing.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }
}

pub(crate) fn lines<'a, 'n>(
    headers: &'a [(String, Vec<u8>)],
    name: &'n str,
) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
    headers.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
}

pub(crate) fn only<'a>(mut values: impl Iterator<Item = &'a [u8]>, name: &str) -> Result<Option<&'a [u8]>, Repeated> {
    let first = values.next();
    if values.next().is_some() {
        return Err(Repeated { name: name.to_owned() });
    }
    Ok(first)
}

/// A field or cookie that may come once came more often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated {
    name: String,
}

impl fmt::Display for Repeated {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` comes more than once", self.name)
    }
}

impl core::error::Error for Repeated {}

impl From<Repeated> for Failure {
    fn from(repeated: Repeated) -> Self {
        Self::new(repeated.to_string())
    }
}
