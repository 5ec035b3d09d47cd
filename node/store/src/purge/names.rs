//! What purges can name, as numbers: a stored response carries its names, a purge is matched against them.
//!
//! A name is a hash that includes its kind. Two names with the same number mean a purge too much, never one too few.

use std::time::SystemTime;

use brim_semantics::{KeyHash, Nominated, is_preferred_language, url_hash};
use http::header::{ACCEPT_LANGUAGE, CONTENT_LANGUAGE, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue};
use xxhash_rust::xxh3::Xxh3;

use super::Selector;
use super::predicate::{Predicate, VariantOf};
use crate::response::{ResponseHead, Scope};

/// What purges can name about one stored response, computed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) site: u64,
    pub(crate) authority: u64,
    pub(crate) url: u64,
    /// [`NAMES_A_KEY`] for each surrogate key: the key in any site, in its own site, and of its own authority.
    pub(crate) keys: Box<[u64]>,
    /// `None`: nothing is known of the response yet.
    pub(crate) facts: Option<Facts>,
    /// Authority, path, media type, language and nominated fields, one after the other: one allocation for all of them.
    texts: Box<str>,
    path_at: u32,
    type_at: u32,
    language_at: u32,
    nominated_at: u32,
}

const NAMES_A_KEY: usize = 3;

/// What predicates ask of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) status: u16,
    pub(crate) came: SystemTime,
    /// Of the cache key.
    pub(crate) key: u64,
    /// Of the digest of the plugin that made the key.
    pub(crate) plugin: u64,
    /// Of what the nominated fields were in the request.
    nominated: u64,
    /// The same without `Accept-Language`: a request that differs in that alone may be answered by the language it prefers.
    nominated_apart: u64,
}

/// A stored response as far as it has names.
pub(crate) struct Named<'a> {
    pub(crate) scope: &'a Scope,
    pub(crate) surrogate_keys: &'a [Box<str>],
    pub(crate) key: KeyHash,
    pub(crate) status: u16,
    pub(crate) came: SystemTime,
    pub(crate) content_type: &'a str,
    /// Of a response that nominates `Accept-Language`; else empty.
    pub(crate) language: &'a str,
    pub(crate) plugin: Option<&'a [u8; 32]>,
    pub(crate) nominated: &'a Nominated,
}

/// A selector as numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Matcher {
    Everything,
    /// Any of these, in ascending order.
    Named(Vec<u64>),
    Prefix {
        authority: u64,
        path_prefix: Box<str>,
    },
    Variant(VariantOf),
    Match(Predicate),
}

#[derive(Clone, Copy)]
enum Kind {
    Site = 1,
    Authority = 2,
    Url = 3,
    Key = 4,
    SiteKey = 5,
    AuthorityKey = 6,
    Plugin = 7,
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

pub(crate) fn site_name(site: &str) -> u64 {
    name(Kind::Site, &[site.as_bytes()])
}

pub(crate) fn plugin_name(digest: Option<&[u8; 32]>) -> u64 {
    digest.map_or(0, |digest| name(Kind::Plugin, &[digest]))
}

/// The first half of a key's hash: a collision purges too much.
pub(crate) fn key_name(hash: KeyHash) -> u64 {
    hash.0.first_chunk::<8>().map_or(0, |first| u64::from_le_bytes(*first))
}

/// `Content-Language`, where the response nominates `Accept-Language`; else empty.
pub(crate) fn language<'a>(headers: &'a HeaderMap, nominated: &Nominated) -> &'a str {
    let is_nominated = nominated.names().any(|name| name == ACCEPT_LANGUAGE);
    let language = headers.get(CONTENT_LANGUAGE).filter(|_| is_nominated);
    language.and_then(|language| language.to_str().ok()).unwrap_or_default()
}

/// The media type without parameters, in lower case; empty where there is none.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

impl Names {
    pub(crate) fn of(named: &Named<'_>) -> Self {
        let mut nominated = String::new();
        for field in named.nominated.names() {
            if !nominated.is_empty() {
                nominated.push(',');
            }
            nominated.push_str(field.as_str());
        }
        let facts = Facts {
            status: named.status,
            came: named.came,
            key: key_name(named.key),
            plugin: plugin_name(named.plugin),
            nominated: named.nominated.variant_hash(),
            nominated_apart: without_language(named.nominated).variant_hash(),
        };
        let texts = [named.content_type, named.language, &nominated];
        Self::with(named.scope, named.surrogate_keys, Some(facts), texts)
    }

    pub(crate) fn of_head(head: &ResponseHead) -> Self {
        Self::of(&Named {
            scope: &head.scope,
            surrogate_keys: &head.surrogate_keys,
            key: head.key.hash(),
            status: head.status.as_u16(),
            came: head.meta.response_time,
            content_type: &media_type(&head.headers),
            language: language(&head.headers, &head.nominated),
            plugin: head.plugin.as_ref(),
            nominated: &head.nominated,
        })
    }

    /// Of a response of which no more is known.
    pub(crate) fn of_scope(scope: &Scope, surrogate_keys: &[Box<str>]) -> Self {
        Self::with(scope, surrogate_keys, None, ["", "", ""])
    }

    fn with(
        scope: &Scope,
        surrogate_keys: &[Box<str>],
        facts: Option<Facts>,
        [content_type, language, nominated]: [&str; 3],
    ) -> Self {
        let texts = [&*scope.authority, &*scope.path, content_type, language, nominated].concat().into_boxed_str();
        let at = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let path_at = scope.authority.len();
        let type_at = path_at + scope.path.len();
        Self {
            site: site_name(&scope.site),
            authority: name(Kind::Authority, &[scope.authority.as_bytes()]),
            url: url_name(&scope.authority, &scope.path, scope.query.as_deref()),
            keys: key_names(scope, surrogate_keys),
            facts,
            path_at: at(path_at),
            type_at: at(type_at),
            language_at: at(type_at + content_type.len()),
            nominated_at: at(type_at + content_type.len() + language.len()),
            texts,
        }
    }

    /// The same response with these surrogate keys.
    pub(crate) fn with_keys(&self, scope: &Scope, surrogate_keys: &[Box<str>]) -> Self {
        Self { keys: key_names(scope, surrogate_keys), ..self.clone() }
    }

    fn text(&self, from: u32, to: u32) -> &str {
        self.texts.get(from as usize..to as usize).unwrap_or_default()
    }

    pub(crate) fn authority_text(&self) -> &str {
        self.text(0, self.path_at)
    }

    pub(crate) fn path(&self) -> &str {
        self.text(self.path_at, self.type_at)
    }

    pub(crate) fn content_type(&self) -> &str {
        self.text(self.type_at, self.language_at)
    }

    /// Whether a request with these fields is answered by it among the variants of its key (RFC 9111 §4.1).
    pub(crate) fn is_selected_by(&self, request: &HeaderMap) -> bool {
        let Some(facts) = &self.facts else { return true };
        let mut fields = HeaderMap::new();
        let nominated = self.texts.get(self.nominated_at as usize..).unwrap_or_default();
        if let Ok(value) = HeaderValue::from_str(nominated) {
            fields.insert(VARY, value);
        }
        // What cannot be told is taken to be meant.
        let Ok(asked) = Nominated::of(&fields, request) else { return true };
        if asked.variant_hash() == facts.nominated {
            return true;
        }
        if let Ok(language) = HeaderValue::from_str(self.text(self.language_at, self.nominated_at)) {
            fields.insert(CONTENT_LANGUAGE, language);
        }
        without_language(&asked).variant_hash() == facts.nominated_apart && is_preferred_language(request, &fields)
    }

    /// The names by which it is found, see [`Target::names`]: its URL, and each surrogate key as it is in any site.
    pub(crate) fn carried(&self) -> impl Iterator<Item = u64> {
        std::iter::once(self.url).chain(self.keys.iter().copied().step_by(NAMES_A_KEY))
    }

    /// Bytes that it takes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.texts.len() + size_of_val(&*self.keys)
    }
}

/// What a purge, or a look at what one would hit, aims at.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    matchers: Vec<Matcher>,
    /// Whatever it hits carries one of these ([`Names::carried`]); `None`: it may hit others.
    pub(crate) names: Option<Vec<u64>>,
}

impl Target {
    pub(crate) fn of(selectors: &[Selector]) -> Self {
        let names: Option<Vec<Vec<u64>>> = selectors.iter().map(carried_names).collect();
        Self { matchers: selectors.iter().map(Matcher::of).collect(), names: names.map(|names| names.concat()) }
    }

    pub(crate) fn matches(&self, names: &Names) -> bool {
        self.matchers.iter().any(|matcher| matcher.matches(names))
    }
}

fn carried_names(selector: &Selector) -> Option<Vec<u64>> {
    let of_keys = |keys: &[Box<str>]| keys.iter().map(|key| name(Kind::Key, &[key.as_bytes()])).collect();
    match selector {
        Selector::Url { authority, path, query } | Selector::Variant { authority, path, query, .. } => {
            Some(vec![url_name(authority, path, query.as_deref())])
        }
        Selector::SurrogateKeys { keys, .. } | Selector::Groups { groups: keys, .. } => Some(of_keys(keys)),
        Selector::Everything | Selector::Site(_) | Selector::Prefix { .. } | Selector::Match(_) => None,
    }
}

/// The nominated fields but `Accept-Language`.
fn without_language(nominated: &Nominated) -> Nominated {
    nominated.without(&ACCEPT_LANGUAGE)
}

fn key_names(scope: &Scope, surrogate_keys: &[Box<str>]) -> Box<[u64]> {
    let (site, authority) = (scope.site.as_bytes(), scope.authority.as_bytes());
    let names_of = |key: &str| -> [u64; NAMES_A_KEY] {
        let key = key.as_bytes();
        [name(Kind::Key, &[key]), name(Kind::SiteKey, &[site, key]), name(Kind::AuthorityKey, &[authority, key])]
    };
    surrogate_keys.iter().flat_map(|key| names_of(key)).collect()
}

impl Matcher {
    fn named(names: impl Iterator<Item = u64>) -> Self {
        let mut names: Vec<u64> = names.collect();
        names.sort_unstable();
        names.dedup();
        Self::Named(names)
    }

    pub(crate) fn of(selector: &Selector) -> Self {
        match selector {
            Selector::Everything => Self::Everything,
            Selector::Site(site) => Self::Named(vec![site_name(site)]),
            Selector::Prefix { authority, path_prefix } => Self::Prefix {
                authority: name(Kind::Authority, &[authority.as_bytes()]),
                path_prefix: path_prefix.clone(),
            },
            Selector::Url { authority, path, query } => Self::Named(vec![url_name(authority, path, query.as_deref())]),
            Selector::SurrogateKeys { site: None, keys } => {
                Self::named(keys.iter().map(|key| name(Kind::Key, &[key.as_bytes()])))
            }
            Selector::SurrogateKeys { site: Some(site), keys } => {
                Self::named(keys.iter().map(|key| name(Kind::SiteKey, &[site.as_bytes(), key.as_bytes()])))
            }
            Selector::Groups { authority, groups } => {
                let group_name = |group: &str| name(Kind::AuthorityKey, &[authority.as_bytes(), group.as_bytes()]);
                Self::named(groups.iter().map(|group| group_name(group)))
            }
            Selector::Variant { authority, path, query, keys, fields } => Self::Variant(VariantOf {
                url: url_name(authority, path, query.as_deref()),
                keys: keys.iter().map(|hash| key_name(*hash)).collect(),
                fields: fields.clone(),
            }),
            Selector::Match(predicate) => Self::Match(predicate.clone()),
        }
    }

    /// The name of something that holds all that a predicate can hold for; none: everything does.
    pub(crate) fn cover(&self) -> Option<u64> {
        match self {
            Self::Variant(variant) => Some(variant.url),
            Self::Match(predicate) => predicate.site.as_deref().map(site_name),
            Self::Everything | Self::Named(_) | Self::Prefix { .. } => None,
        }
    }

    pub(crate) fn matches(&self, names: &Names) -> bool {
        match self {
            Self::Everything => true,
            Self::Named(named) => {
                let is_named = |name: &u64| named.binary_search(name).is_ok();
                is_named(&names.site) || is_named(&names.url) || names.keys.iter().any(is_named)
            }
            Self::Prefix { authority, path_prefix } => {
                *authority == names.authority && names.path().starts_with(&**path_prefix)
            }
            Self::Variant(variant) => variant.holds(names),
            Self::Match(predicate) => predicate.holds(names),
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
        let mut head = crate::tests::support::head("/list/1", crate::Position(0));
        head.scope = scope;
        head.surrogate_keys = vec!["red".into(), "blue".into()];
        Names::of_head(&head)
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
            let (target, names) = (Target::of(std::slice::from_ref(&selector)), names());
            assert_eq!(target.matches(&names), expected, "{selector:?}");
            let is_found = |sought: Vec<u64>| names.carried().any(|name| sought.contains(&name));
            assert!(!expected || target.names.is_none_or(is_found), "{selector:?}");
        }
    }
}
