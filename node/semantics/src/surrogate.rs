//! What many stored responses are purged by: surrogate keys, and the groups of RFC 9875.
//!
//! Always true:
//! - A response has at most [`SURROGATE_KEYS_MAX`] keys of at most [`SURROGATE_KEY_BYTES_MAX`] bytes. What is left out is
//!   reported: a purge would not find the response, so the caller decides whether to store it.
//! - Keys are compared by their exact bytes, never as patterns.
//!
//! Not here: the purge clock and its log (`brim-store`), keys that rules and plugins add (`brim-node`).

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::LazyLock;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, List, ListEntry, Parser};

/// More keys of one response are left out: each costs an entry in the index.
pub const SURROGATE_KEYS_MAX: usize = 256;
/// A longer key is left out, not cut: the wrong responses must not be purged by what two keys have in common.
pub const SURROGATE_KEY_BYTES_MAX: usize = 1024;

/// A response field that carries surrogate keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyField {
    /// The field.
    pub name: HeaderName,
    /// What stands between two keys.
    pub separator: KeySeparator,
}

/// What stands between two keys of a [`KeyField`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySeparator {
    /// Spaces and tabs: a key may hold a comma.
    Space,
    /// Commas, with or without spaces around them.
    Comma,
}

impl KeyField {
    /// A field with the separator that its name is known for: a comma for `Cache-Tag` and its kin, else a space.
    pub fn named(name: HeaderName) -> Self {
        let is_tag = name.as_str() == "cache-tag" || name.as_str() == "edge-cache-tag";
        Self { name, separator: if is_tag { KeySeparator::Comma } else { KeySeparator::Space } }
    }

    /// `Surrogate-Key`, `Cache-Tag` and `xkey`: what origins send that were written for other caches.
    pub fn defaults() -> &'static [Self] {
        static DEFAULTS: LazyLock<Vec<KeyField>> = LazyLock::new(|| {
            ["surrogate-key", "cache-tag", "xkey"].map(|name| KeyField::named(HeaderName::from_static(name))).to_vec()
        });
        &DEFAULTS
    }
}

/// Surrogate keys, each once, in the order in which they came.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SurrogateKeys {
    found: Vec<Box<str>>,
    is_cut: bool,
}

static CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
static CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// The keys of a response: those of `fields`, and `Cache-Groups` (RFC 9875 §2). Each once, in their order.
pub fn surrogate_keys(headers: &HeaderMap, fields: &[KeyField]) -> SurrogateKeys {
    let mut keys = SurrogateKeys::default();
    for field in fields {
        for line in headers.get_all(&field.name) {
            // Bytes outside ASCII are allowed where they are UTF-8, as purges are.
            let Ok(line) = str::from_utf8(line.as_bytes()) else {
                keys.is_cut = true;
                continue;
            };
            match field.separator {
                KeySeparator::Space => line.split([' ', '\t']).for_each(|key| keys.add(key)),
                // A key with white space in it could not be named by a purge.
                KeySeparator::Comma => line.split([',', ' ', '\t']).for_each(|key| keys.add(key)),
            }
        }
    }
    keys.add_groups(headers, &CACHE_GROUPS);
    keys
}

/// The groups that a response to an unsafe request invalidates (RFC 9875 §3), for the origin of its target URI.
///
/// Ask only where [`crate::invalidates`] says so. True: a limit was reached, and some groups are left out.
pub fn invalidated_groups(headers: &HeaderMap) -> (Vec<Box<str>>, bool) {
    let mut keys = SurrogateKeys::default();
    keys.add_groups(headers, &CACHE_GROUP_INVALIDATION);
    (keys.found, keys.is_cut)
}

/// `text` as a part of a surrogate key: white space and control characters, which no key can hold, and `%` are percent-encoded, so that
/// two texts never become one key.
pub fn key_text(text: &str) -> Cow<'_, str> {
    let is_plain = |letter: char| !letter.is_whitespace() && !letter.is_control() && letter != '%';
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if is_plain(letter) {
            encoded.push(letter);
            continue;
        }
        for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    Cow::Owned(encoded)
}

impl SurrogateKeys {
    /// Adds a key that is not empty. One that passes a limit is left out, and [`Self::is_cut`] says so.
    pub fn add(&mut self, key: &str) {
        if key.is_empty() || self.found.iter().any(|known| **known == *key) {
            return;
        }
        if key.len() > SURROGATE_KEY_BYTES_MAX || self.found.len() == SURROGATE_KEYS_MAX {
            self.is_cut = true;
            return;
        }
        self.found.push(key.into());
    }

    /// A limit was reached, or a key was no text: some keys are left out, and a purge by one of them would not find the response.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The keys so far.
    pub fn as_slice(&self) -> &[Box<str>] {
        &self.found
    }

    /// The keys.
    pub fn into_vec(self) -> Vec<Box<str>> {
        self.found
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
        let keys = surrogate_keys(&headers(lines), KeyField::defaults());
        assert!(!keys.is_cut());
        keys.as_slice().iter().map(ToString::to_string).collect()
    }

    /// What a limit leaves, and whether it left anything out.
    fn cut(headers: &HeaderMap) -> (usize, bool) {
        let keys = surrogate_keys(headers, KeyField::defaults());
        (keys.as_slice().len(), keys.is_cut())
    }

    #[test]
    fn surrogate_keys_are_separated_by_spaces() {
        assert_eq!(keys(&[("surrogate-key", "a  b\tc "), ("surrogate-key", "d a")]), ["a", "b", "c", "d"]);
        assert_eq!(keys(&[("surrogate-key", "a,b A a* ä")]), ["a,b", "A", "a*", "ä"]);
        assert!(keys(&[]).is_empty());
        assert!(keys(&[("surrogate-key", "  ")]).is_empty());
    }

    /// What origins send that were written for other caches, each in its own way.
    #[test]
    fn other_fields_carry_keys_too() {
        assert_eq!(
            keys(&[("cache-tag", "a, b,c d"), ("xkey", "e f,g"), ("xkey", "h")]),
            ["a", "b", "c", "d", "e", "f,g", "h"]
        );
        assert_eq!(keys(&[("surrogate-key", "a b"), ("cache-tag", "b,c")]), ["a", "b", "c"]);
        let fields = [KeyField::named(HeaderName::from_static("x-tags"))];
        let found =
            surrogate_keys(&headers(&[("surrogate-key", "a"), ("x-tags", "b"), ("cache-groups", "\"c\"")]), &fields);
        assert_eq!(found.into_vec(), ["b".into(), "c".into()] as [Box<str>; 2]);
    }

    #[test]
    fn a_text_becomes_a_part_of_a_key_and_no_other_text_the_same() {
        for (text, part) in
            [("a:b,c/ä", "a:b,c/ä"), ("a b", "a%20b"), ("a%20b", "a%2520b"), ("a\n", "a%0A"), ("\u{a0}", "%C2%A0")]
        {
            assert_eq!(key_text(text), part);
        }
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
        assert_eq!(cut(&headers(&[("surrogate-key", &format!("a {long} {} b", &long[1..]))])), (3, true));
        let many = (0..=SURROGATE_KEYS_MAX).map(|at| at.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(cut(&headers(&[("surrogate-key", &many)])), (SURROGATE_KEYS_MAX, true));
        let repeated = "a ".repeat(SURROGATE_KEYS_MAX * 2);
        assert_eq!(keys(&[("surrogate-key", &repeated)]), ["a"]);
        let mut headers = HeaderMap::new();
        headers.append("surrogate-key", HeaderValue::from_bytes(b"a \xff").unwrap());
        assert_eq!(cut(&headers), (0, true));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "[\"a, ;=\\\\()]{0,30}") {
            let mut fields = HeaderMap::new();
            for line in [HeaderValue::from_bytes(&bytes), HeaderValue::from_bytes(text.as_bytes())].into_iter().flatten() {
                let fields_of_keys = KeyField::defaults().iter().map(|field| &field.name);
                for name in fields_of_keys.chain([&CACHE_GROUPS, &CACHE_GROUP_INVALIDATION]) {
                    fields.append(name, line.clone());
                }
            }
            let keys = surrogate_keys(&fields, KeyField::defaults()).into_vec();
            prop_assert!(keys.len() <= SURROGATE_KEYS_MAX && keys.iter().all(|key| key.len() <= SURROGATE_KEY_BYTES_MAX));
            let _ = invalidated_groups(&fields);
        }
    }
}
