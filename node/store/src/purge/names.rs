//! What purges can name, as numbers: a stored response carries its names, a purge is matched against them.
//!
//! A name is a hash that includes its kind. Two names with the same number mean a purge too much, never one too few.

use brim_semantics::url_hash;
use xxhash_rust::xxh3::Xxh3;

use super::Selector;
use crate::response::Scope;

/// What purges can name about one stored response, computed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) site: u64,
    pub(crate) authority: u64,
    pub(crate) url: u64,
    /// Three for each surrogate key: the key in any site, in its own site, and of its own authority.
    pub(crate) keys: Box<[u64]>,
    pub(crate) path: Box<str>,
}

/// A selector as numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Matcher {
    Everything,
    /// Any of these.
    Named(Vec<u64>),
    Prefix {
        authority: u64,
        path_prefix: Box<str>,
    },
}

#[derive(Clone, Copy)]
enum Kind {
    Site = 1,
    Authority = 2,
    Url = 3,
    Key = 4,
    SiteKey = 5,
    AuthorityKey = 6,
}

fn name(kind: Kind, parts: &[&[u8]]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&[kind as u8]);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.digest()
}

fn url_name(authority: &str, path: &str, query: Option<&str>) -> u64 {
    name(Kind::Url, &[&url_hash(authority, path, query).0])
}

impl Names {
    pub(crate) fn of(scope: &Scope, surrogate_keys: &[Box<str>]) -> Self {
        let site = scope.site.as_bytes();
        let keys = surrogate_keys
            .iter()
            .map(|key| key.as_bytes())
            .flat_map(|key| {
                [
                    name(Kind::Key, &[key]),
                    name(Kind::SiteKey, &[site, key]),
                    name(Kind::AuthorityKey, &[scope.authority.as_bytes(), key]),
                ]
            })
            .collect();
        Self {
            site: name(Kind::Site, &[site]),
            authority: name(Kind::Authority, &[scope.authority.as_bytes()]),
            url: url_name(&scope.authority, &scope.path, scope.query.as_deref()),
            keys,
            path: scope.path.clone(),
        }
    }
}

impl Matcher {
    pub(crate) fn of(selector: &Selector) -> Self {
        match selector {
            Selector::Everything => Self::Everything,
            Selector::Site(site) => Self::Named(vec![name(Kind::Site, &[site.as_bytes()])]),
            Selector::Prefix { authority, path_prefix } => Self::Prefix {
                authority: name(Kind::Authority, &[authority.as_bytes()]),
                path_prefix: path_prefix.clone(),
            },
            Selector::Url { authority, path, query } => Self::Named(vec![url_name(authority, path, query.as_deref())]),
            Selector::SurrogateKeys { site: None, keys } => {
                Self::Named(keys.iter().map(|key| name(Kind::Key, &[key.as_bytes()])).collect())
            }
            Selector::SurrogateKeys { site: Some(site), keys } => {
                Self::Named(keys.iter().map(|key| name(Kind::SiteKey, &[site.as_bytes(), key.as_bytes()])).collect())
            }
            Selector::Groups { authority, groups } => {
                let group_name = |group: &str| name(Kind::AuthorityKey, &[authority.as_bytes(), group.as_bytes()]);
                Self::Named(groups.iter().map(|group| group_name(group)).collect())
            }
        }
    }

    pub(crate) fn matches(&self, names: &Names) -> bool {
        match self {
            Self::Everything => true,
            Self::Named(named) => {
                named.iter().any(|name| *name == names.site || *name == names.url || names.keys.contains(name))
            }
            Self::Prefix { authority, path_prefix } => {
                *authority == names.authority && names.path.starts_with(&**path_prefix)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let scope = Scope {
            site: "shop".into(),
            authority: "a.example".into(),
            path: "/list/1".into(),
            query: Some("p=2".into()),
        };
        Names::of(&scope, &["red".into(), "blue".into()])
    }

    #[test]
    fn selectors_match_what_they_name_and_nothing_else() {
        let url = |path: &str, query: Option<&str>| Selector::Url {
            authority: "a.example".into(),
            path: path.into(),
            query: query.map(Into::into),
        };
        let prefix = |authority: &str, prefix: &str| Selector::Prefix {
            authority: authority.into(),
            path_prefix: prefix.into(),
        };
        let keys = |site: Option<&str>, key: &str| Selector::SurrogateKeys {
            site: site.map(Into::into),
            keys: vec!["other".into(), key.into()],
        };
        let groups =
            |authority: &str, group: &str| Selector::Groups { authority: authority.into(), groups: vec![group.into()] };
        let cases = [
            (Selector::Everything, true),
            (Selector::Site("shop".into()), true),
            (Selector::Site("a.example".into()), false),
            (url("/list/1", Some("p=2")), true),
            (url("/list/1", None), false),
            (url("/list/2", Some("p=2")), false),
            (prefix("a.example", "/list"), true),
            (prefix("a.example", ""), true),
            (prefix("a.example", "/list/12"), false),
            (prefix("b.example", "/list"), false),
            (keys(None, "red"), true),
            (keys(None, "green"), false),
            (keys(Some("shop"), "blue"), true),
            (keys(Some("blog"), "blue"), false),
            (keys(None, "shop"), false),
            (groups("a.example", "red"), true),
            (groups("b.example", "red"), false),
            (groups("a.example", "green"), false),
        ];
        for (selector, expected) in cases {
            assert_eq!(Matcher::of(&selector).matches(&names()), expected, "{selector:?}");
        }
    }
}
