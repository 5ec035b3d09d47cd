//! Predicates: what a purge can say of stored responses without naming them.
//!
//! Always true:
//! - A predicate looks at one response and no clock: an age was made a time when the purge was asked for.
//! - No pattern is expensive: only `*`, at most [`PATTERN_STARS_MAX`] of them in [`PATTERN_BYTES_MAX`] bytes, matched without
//!   going back beyond the last one.
//! - Of a response that nothing is known of yet it is taken that the predicate holds.
//!
//! Not here: how many predicates are remembered (`clock`).

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::names::{Names, plugin_name, site_name};

/// Bytes of a pattern.
pub const PATTERN_BYTES_MAX: usize = 256;
/// `*` in a pattern.
pub const PATTERN_STARS_MAX: usize = 8;

/// What is said of stored responses: all that is given holds. With nothing given it holds for all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Predicate {
    /// Of this site.
    pub site: Option<Box<str>>,
    /// The authority matches: `*` stands for any letters. A pattern without a port matches whatever the port.
    pub host: Option<Box<str>>,
    /// The raw path matches: `*` stands for any letters, `/` among them.
    pub path: Option<Box<str>>,
    /// The status is in one of these ranges, both ends included; none: any status.
    pub statuses: Vec<(u16, u16)>,
    /// The response came before.
    pub stored_before: Option<SystemTime>,
    /// The response came at this time or later.
    pub stored_after: Option<SystemTime>,
    /// The media type, without parameters and in lower case, matches. A response without one matches `*` alone.
    pub content_type: Option<Box<str>>,
    /// The version of the plugin that made its key, by its digest.
    pub plugin: Option<[u8; 32]>,
}

impl Predicate {
    /// Bytes of text in it.
    pub(crate) fn text_bytes(&self) -> usize {
        let texts = [&self.site, &self.host, &self.path, &self.content_type];
        texts.into_iter().flatten().map(|text| text.len()).sum::<usize>() + 4 * self.statuses.len()
    }

    pub(crate) fn holds(&self, names: &Names) -> bool {
        let is_of =
            |wanted: &Option<Box<str>>, text: &str| wanted.as_ref().is_none_or(|pattern| matches(pattern, text));
        let host = |pattern: &str| {
            let authority = names.authority_text();
            matches(pattern, authority) || matches(pattern, without_port(authority))
        };
        let is_placed = self.site.as_ref().is_none_or(|site| site_name(site) == names.site)
            && self.host.as_ref().is_none_or(|pattern| host(pattern))
            && is_of(&self.path, names.path());
        let Some(facts) = &names.facts else { return is_placed };
        is_placed
            && (self.statuses.is_empty()
                || self.statuses.iter().any(|(from, to)| (*from..=*to).contains(&facts.status)))
            && self.stored_before.is_none_or(|before| facts.came < before)
            && self.stored_after.is_none_or(|after| facts.came >= after)
            && is_of(&self.content_type, names.content_type())
            && self.plugin.as_ref().is_none_or(|digest| plugin_name(Some(digest)) == facts.plugin)
    }
}

/// The fields of a request that selects one variant of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VariantOf {
    pub(crate) url: u64,
    pub(crate) keys: Vec<u64>,
    pub(crate) fields: Vec<(Box<str>, Box<[u8]>)>,
}

impl VariantOf {
    pub(crate) fn holds(&self, names: &Names) -> bool {
        if self.url != names.url {
            return false;
        }
        let Some(facts) = &names.facts else { return true };
        if !self.keys.is_empty() && !self.keys.contains(&facts.key) {
            return false;
        }
        let mut request = HeaderMap::new();
        for (name, value) in &self.fields {
            let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value))
            else {
                continue;
            };
            request.append(name, value);
        }
        names.is_selected_by(&request)
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    }
}

/// Whether a text matches a pattern in which `*` stands for any letters.
///
/// What follows a `*` is looked for at its first place: a later one could only make room for less. So no `*` before the last is ever
/// gone back to, and the effort is at most that of one search for each.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|start| text.strip_prefix(start)) else { return false };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As it is defined, by trying everything.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|at| naive(rest, &text[at..])),
            Some((letter, rest)) => text.first() == Some(letter) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_as_it_is_defined(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(matches(&pattern, &text), naive(pattern.as_bytes(), text.as_bytes()));
        }
    }

    #[test]
    fn a_port_is_part_of_a_host_only_where_the_pattern_has_one() {
        assert_eq!(without_port("a:81"), "a");
        assert_eq!(without_port("[::1]"), "[::1]");
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert!(matches("*.example", "shop.a.example") && !matches("*.example", "example"));
    }
}
