//! What many stored responses are purged by: surrogate keys, and the groups of RFC 9875.
//!
//! Always true:
//! - A response has at most [`SURROGATE_KEYS_MAX`] keys of at most [`SURROGATE_KEY_BYTES_MAX`] bytes. What is left out is
//!   reported: a purge would not find the response, so the caller decides whether to store it.
//! - Keys are compared by their exact bytes, never as patterns.
//!
//! Not here: the purge clock and its log (`brim-store`).

use http::header::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, List, ListEntry, Parser};

/// More keys of one response are left out: each costs an entry in the index.
pub const SURROGATE_KEYS_MAX: usize = 256;
/// A longer key is left out, not cut: the wrong responses must not be purged by what two keys have in common.
pub const SURROGATE_KEY_BYTES_MAX: usize = 1024;

static SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
static CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
static CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// The keys of a response: `Surrogate-Key`, separated by spaces, and `Cache-Groups` (RFC 9875 §2). Each once, in their order.
///
/// True: a limit was reached, and some keys are left out.
pub fn surrogate_keys(headers: &HeaderMap) -> (Vec<Box<str>>, bool) {
    let mut keys = Keys::default();
    for line in headers.get_all(&SURROGATE_KEY) {
        // Bytes outside ASCII are allowed where they are UTF-8, as purges are.
        let Ok(line) = str::from_utf8(line.as_bytes()) else {
            keys.overflow = true;
            continue;
        };
        line.split([' ', '\t']).filter(|key| !key.is_empty()).for_each(|key| keys.add(key));
    }
    keys.add_groups(headers, &CACHE_GROUPS);
    (keys.found, keys.overflow)
}

/// The groups that a response to an unsafe request invalidates (RFC 9875 §3), for the origin of its target URI.
///
/// Ask only where [`crate::invalidates`] says so. True: a limit was reached, and some groups are left out.
pub fn invalidated_groups(headers: &HeaderMap) -> (Vec<Box<str>>, bool) {
    let mut keys = Keys::default();
    keys.add_groups(headers, &CACHE_GROUP_INVALIDATION);
    (keys.found, keys.overflow)
}

#[derive(Default)]
struct Keys {
    found: Vec<Box<str>>,
    overflow: bool,
}

impl Keys {
    fn add(&mut self, key: &str) {
        if self.found.iter().any(|known| **known == *key) {
            return;
        }
        if key.len() > SURROGATE_KEY_BYTES_MAX || self.found.len() == SURROGATE_KEYS_MAX {
            self.overflow = true;
            return;
        }
        self.found.push(key.into());
    }

    /// A list of strings, their parameters ignored. A field that is anything else is as if it were absent (RFC 9651 §4.2).
    fn add_groups(&mut self, headers: &HeaderMap, name: &HeaderName) {
        if !headers.contains_key(name) {
            return;
        }
        let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        let Ok(list) = Parser::new(&lines.join(&b", "[..])).parse::<List>() else { return };
        let groups: Option<Vec<&str>> = list.iter().map(group).collect();
        groups.unwrap_or_default().into_iter().for_each(|group| self.add(group));
    }
}

fn group(entry: &ListEntry) -> Option<&str> {
    match entry {
        ListEntry::Item(item) => match &item.bare_item {
            BareItem::String(text) => Some(text.as_str()),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn keys(lines: &[(&'static str, &str)]) -> Vec<String> {
        let (keys, overflow) = surrogate_keys(&headers(lines));
        assert!(!overflow);
        keys.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn surrogate_keys_are_separated_by_spaces() {
        assert_eq!(keys(&[("surrogate-key", "a  b\tc "), ("surrogate-key", "d a")]), ["a", "b", "c", "d"]);
        assert_eq!(keys(&[("surrogate-key", "a,b A a* ä")]), ["a,b", "A", "a*", "ä"]);
        assert!(keys(&[]).is_empty());
        assert!(keys(&[("surrogate-key", "  ")]).is_empty());
    }

    /// RFC 9875 §2: a list of strings.
    #[test]
    fn cache_groups_are_a_list_of_strings() {
        assert_eq!(keys(&[("cache-groups", "\"a\", \"b c\";x=1"), ("cache-groups", "\"d\"")]), ["a", "b c", "d"]);
        assert_eq!(keys(&[("surrogate-key", "a b"), ("cache-groups", "\"a\", \"c\"")]), ["a", "b", "c"]);
        for malformed in ["a", "\"a\", b", "\"a", "(\"a\")", "\"a\",", "1", "\"ä\""] {
            assert!(keys(&[("cache-groups", malformed)]).is_empty(), "{malformed}");
        }
        let (groups, overflow) =
            invalidated_groups(&headers(&[("cache-group-invalidation", "\"a\", \"b\""), ("cache-groups", "\"c\"")]));
        assert_eq!((groups.len(), overflow), (2, false));
    }

    /// RFC 9875 §3: a list of strings too; parameters say nothing, and one field does not speak for the other.
    #[test]
    fn invalidated_groups_are_a_list_of_strings() {
        let groups = |lines: &[(&'static str, &str)]| -> Vec<String> {
            invalidated_groups(&headers(lines)).0.iter().map(ToString::to_string).collect()
        };
        let field = "cache-group-invalidation";
        assert_eq!(groups(&[(field, "\"a\";x, \"b\""), (field, "\"a\", \"c, d\"")]), ["a", "b", "c, d"]);
        assert_eq!(groups(&[(field, "\"A\", \"a\"")]), ["A", "a"], "compared character by character (§2.1)");
        assert_eq!(groups(&[(field, r#""a\"b\\""#)]), [r#"a"b\"#]);
        assert!(groups(&[("cache-groups", "\"a\""), ("surrogate-key", "a")]).is_empty());
        for malformed in ["a", "\"a\", b", "\"a\", 1", "\"a\",", "", "\"a", "(\"a\")", "\"a\";X=1", "\"\u{e4}\""] {
            assert!(groups(&[(field, malformed)]).is_empty(), "{malformed}");
        }
        assert!(groups(&[(field, "\"a\""), (field, "x")]).is_empty(), "several lines are one list");
    }

    #[test]
    fn what_passes_a_limit_is_reported() {
        let long = "x".repeat(SURROGATE_KEY_BYTES_MAX + 1);
        let (found, overflow) = surrogate_keys(&headers(&[("surrogate-key", &format!("a {long} {} b", &long[1..]))]));
        assert_eq!((found.len(), overflow), (3, true));
        let many = (0..=SURROGATE_KEYS_MAX).map(|at| at.to_string()).collect::<Vec<_>>().join(" ");
        let (found, overflow) = surrogate_keys(&headers(&[("surrogate-key", &many)]));
        assert_eq!((found.len(), overflow), (SURROGATE_KEYS_MAX, true));
        let repeated = "a ".repeat(SURROGATE_KEYS_MAX * 2);
        assert_eq!(keys(&[("surrogate-key", &repeated)]), ["a"]);
        let (found, overflow) = {
            let mut headers = HeaderMap::new();
            headers.append("surrogate-key", HeaderValue::from_bytes(b"a \xff").unwrap());
            surrogate_keys(&headers)
        };
        assert_eq!((found.len(), overflow), (0, true));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "[\"a, ;=\\\\()]{0,30}") {
            let mut fields = HeaderMap::new();
            for line in [HeaderValue::from_bytes(&bytes), HeaderValue::from_bytes(text.as_bytes())].into_iter().flatten() {
                for name in [&SURROGATE_KEY, &CACHE_GROUPS, &CACHE_GROUP_INVALIDATION] {
                    fields.append(name, line.clone());
                }
            }
            let (keys, _) = surrogate_keys(&fields);
            prop_assert!(keys.len() <= SURROGATE_KEYS_MAX && keys.iter().all(|key| key.len() <= SURROGATE_KEY_BYTES_MAX));
            let _ = invalidated_groups(&fields);
        }
    }
}
