//! What a plugin says about itself, checked.

use http::HeaderName;

use crate::config::{COOKIES_MAX, HEADERS_MAX, PART_NAME_BYTES_MAX, QUERY_NAMES_MAX};
use crate::guest::bindings::exports::brim::rules::meta;
use crate::invalidation::InvalidationInputs;
use crate::text::clean;

const NAME_BYTES_MAX: usize = 64;
const VERSION_BYTES_MAX: usize = 64;
const INPUT_NAME_BYTES_MAX: usize = 256;

/// What a plugin says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Lower case letters, digits and `-`.
    pub name: String,
    /// The author's, for people.
    pub version: String,
    /// What it may be used for.
    pub hooks: Vec<Hook>,
    /// What its cache-key rule reads.
    pub inputs: Inputs,
    /// What its invalidation rule reads, where it has one.
    pub invalidation: Option<InvalidationInputs>,
}

/// A place in the request path where a plugin is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Shapes cache keys.
    CacheKey,
    /// Says by what responses are purged, and what writes purge.
    Invalidation,
}

impl Hook {
    /// As in configuration and in the admin API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CacheKey => "cache-key",
            Self::Invalidation => "invalidation",
        }
    }
}

/// What a plugin declared to read. It sees method, scheme and authority besides, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    /// In the order of the declaration, each once.
    pub headers: Vec<HeaderName>,
    /// Exact names, in the order of the declaration, each once.
    pub cookies: Vec<String>,
    /// Which part of the query.
    pub query: QueryInputs,
    /// Whether the path.
    pub path: bool,
}

/// Which part of the query a plugin reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryInputs {
    /// Nothing.
    None,
    /// All of it, as the client sent it.
    All,
    /// The parameters of these (decoded) names.
    Named(Vec<String>),
}

impl Description {
    /// Checks what a guest said; the error completes the sentence "`describe` says …".
    pub(crate) fn checked(said: meta::Description, hooks: Vec<Hook>) -> Result<Self, String> {
        if !is_plugin_name(&said.name) {
            return Err(format!(
                "a name that is none: `{}` (lower case letters, digits and `-`, a letter first, at most {NAME_BYTES_MAX})",
                clean(&said.name, NAME_BYTES_MAX)
            ));
        }
        if said.version.is_empty()
            || said.version.len() > VERSION_BYTES_MAX
            || !said.version.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(format!("a version that is none: `{}`", clean(&said.version, VERSION_BYTES_MAX)));
        }
        let inputs = Inputs {
            headers: headers(said.inputs.headers)?,
            cookies: names("cookies", said.inputs.cookies, COOKIES_MAX)?,
            query: match said.inputs.query {
                meta::QueryInputs::None => QueryInputs::None,
                meta::QueryInputs::All => QueryInputs::All,
                meta::QueryInputs::Named(named) => {
                    QueryInputs::Named(names("query parameters", named, QUERY_NAMES_MAX)?)
                }
            },
            path: said.inputs.path,
        };
        Ok(Self { name: said.name, version: said.version, hooks, inputs, invalidation: None })
    }
}

fn is_plugin_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

pub(crate) fn headers(said: Vec<String>) -> Result<Vec<HeaderName>, String> {
    let mut headers = Vec::new();
    for name in names("header fields", said, HEADERS_MAX)? {
        let header = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("the header field `{}`, which cannot be one", clean(&name, PART_NAME_BYTES_MAX)))?;
        if headers.contains(&header) {
            return Err(format!("the header field `{header}` twice"));
        }
        headers.push(header);
    }
    Ok(headers)
}

fn names(what: &str, said: Vec<String>, count_max: usize) -> Result<Vec<String>, String> {
    if said.len() > count_max {
        return Err(format!("{} {what}; {count_max} are allowed", said.len()));
    }
    let mut names: Vec<String> = Vec::new();
    for name in said {
        if name.is_empty() || name.len() > INPUT_NAME_BYTES_MAX {
            return Err(format!("{what} with an empty name or one above {INPUT_NAME_BYTES_MAX} bytes"));
        }
        if names.contains(&name) {
            return Err(format!("`{}` twice among {what}", clean(&name, PART_NAME_BYTES_MAX)));
        }
        names.push(name);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, headers: &[&str]) -> meta::Description {
        meta::Description {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            inputs: meta::Inputs {
                path: false,
                query: meta::QueryInputs::None,
                headers: headers.iter().map(|&header| header.to_owned()).collect(),
                cookies: Vec::new(),
            },
            extras: Vec::new(),
        }
    }

    fn checked(said: meta::Description) -> Result<Description, String> {
        Description::checked(said, vec![Hook::CacheKey])
    }

    #[test]
    fn names_are_checked() {
        assert!(checked(said("tenant-key", &["X-Tenant"])).is_ok());
        for name in ["", "Tenant", "1st", "a b", "a\n", &"a".repeat(65)] {
            assert!(checked(said(name, &[])).is_err(), "{name:?}");
        }
    }

    #[test]
    fn declared_fields_must_be_possible_unique_and_few() {
        assert!(checked(said("a", &["x y"])).is_err());
        assert!(checked(said("a", &["X-A", "x-a"])).is_err());
        let many: Vec<String> = (0..=HEADERS_MAX).map(|i| format!("x-{i}")).collect();
        assert!(checked(said("a", &many.iter().map(String::as_str).collect::<Vec<_>>())).is_err());
    }
}
