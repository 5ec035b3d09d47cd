//! Values at pointers into a JSON content, so that a guest needs no parser. No guest is involved: the node's own rules use it too.
//!
//! Always true:
//! - A content is read once, from front to back, whatever the number of pointers; what no pointer leads to is checked and not kept.
//! - What is found is bounded: [`VALUES_MAX`] values, [`TEXT_BYTES_MAX`] a text, [`TEXTS_BYTES_MAX`] all texts together. Past a bound
//!   nothing is said to be known, never a part.
//! - Nesting is bounded by the parser (127 levels), so that no content overflows a stack.
//!
//! Not here: how much of a content is collected (`brim-node`).

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Pointers into one content.
pub const POINTERS_MAX: usize = 16;
/// A pointer as text.
pub const POINTER_BYTES_MAX: usize = 256;
/// Values of one content, of all pointers together.
pub const VALUES_MAX: usize = 10_000;
/// One text. What identifies a thing is shorter.
pub const TEXT_BYTES_MAX: usize = 1024;
/// All texts of one content together: a guest's memory and a waiting call's room on disk.
pub const TEXTS_BYTES_MAX: usize = 1024 * 1024;

/// A JSON pointer (RFC 6901). On an array, a segment `*` stands for every element.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pointer {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    /// Unescaped.
    name: String,
    /// Where it can be one, the place in an array.
    index: Option<usize>,
}

/// Why a text is no pointer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// RFC 6901 §3.
    #[error("a JSON pointer is empty or begins with `/`")]
    NoSlash,
    /// RFC 6901 §3.
    #[error("in a JSON pointer `~` stands before `0` (for `~`) or `1` (for `/`) only")]
    BadEscape,
    /// Longer than [`POINTER_BYTES_MAX`].
    #[error("a JSON pointer of {bytes} bytes; {POINTER_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

impl Pointer {
    /// Reads a pointer. The empty one leads to the whole content.
    ///
    /// # Errors
    /// Where RFC 6901 has no such pointer, or it is too long.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        if text.len() > POINTER_BYTES_MAX {
            return Err(PointerError::TooLong { bytes: text.len() });
        }
        let segments = match text.strip_prefix('/') {
            Some(rest) => rest.split('/').map(Segment::parse).collect::<Result<_, _>>()?,
            None if text.is_empty() => Vec::new(),
            None => return Err(PointerError::NoSlash),
        };
        Ok(Self { text: text.to_owned(), segments })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, PointerError> {
        let mut pieces = text.split('~');
        let mut name = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (letter, rest) = match piece.as_bytes().first() {
                Some(b'0') => ('~', &piece[1..]),
                Some(b'1') => ('/', &piece[1..]),
                _ => return Err(PointerError::BadEscape),
            };
            name.push(letter);
            name.push_str(rest);
        }
        // RFC 6901 §4: no leading zeros.
        let is_index = name == "0" || (!name.starts_with('0') && name.bytes().all(|byte| byte.is_ascii_digit()));
        let index = if is_index { name.parse().ok() } else { None };
        Ok(Self { name, index })
    }

    fn is_each(&self) -> bool {
        self.name == "*"
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl TryFrom<String> for Pointer {
    type Error = PointerError;

    fn try_from(text: String) -> Result<Self, PointerError> {
        Self::parse(&text)
    }
}

impl From<Pointer> for String {
    fn from(pointer: Pointer) -> Self {
        pointer.text
    }
}

/// A value in a content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the kinds speak for themselves")]
pub enum Value {
    Null,
    Flag(bool),
    Integer(i64),
    /// With a fraction or an exponent, or too large for an integer: then its digits are not exact.
    Number(f64),
    Text(String),
}

/// What was found in a content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Content {
    /// Not read.
    Undeclared,
    /// There is none.
    Empty,
    /// The values of each pointer, in the order of the pointers; those of one in the order of the content.
    Values(Vec<Vec<Value>>),
    /// Too long, or more or longer values than the bounds allow: nothing is known of it.
    TooLong,
    /// It is not JSON, or nested too deeply.
    NotJson,
}

/// The values at `pointers` of a content. Objects and arrays at a pointer's end are left out, but an element of an array that a `*` stands
/// for and in which nothing is found counts as one null. A name that an object has twice counts
/// twice: which of the two a reader believes is not known.
///
/// Pointers past [`POINTERS_MAX`] make it [`Content::TooLong`].
#[must_use]
pub fn select(content: &[u8], pointers: &[Pointer]) -> Content {
    if pointers.is_empty() {
        return Content::Undeclared;
    }
    if content.is_empty() {
        return Content::Empty;
    }
    if pointers.len() > POINTERS_MAX {
        return Content::TooLong;
    }
    let mut selection = Selection {
        pointers,
        found: vec![Vec::new(); pointers.len()],
        values_count: 0,
        texts_bytes: 0,
        is_too_long: false,
    };
    let all = Matching((0..pointers.len()).fold(0, |mask, pointer| mask | 1 << pointer));
    let mut parser = serde_json::Deserializer::from_slice(content);
    let place = Place { selection: &mut selection, matching: all, depth: 0 };
    let read = place.deserialize(&mut parser).and_then(|()| parser.end());
    match read {
        _ if selection.is_too_long => Content::TooLong,
        Ok(()) => Content::Values(selection.found),
        Err(_) => Content::NotJson,
    }
}

/// The pointers, one bit each, whose segments so far lead to a place.
#[derive(Clone, Copy)]
struct Matching(u16);

const _: () = assert!(POINTERS_MAX <= u16::BITS as usize, "a bit each");

struct Selection<'p> {
    pointers: &'p [Pointer],
    found: Vec<Vec<Value>>,
    values_count: usize,
    texts_bytes: usize,
    is_too_long: bool,
}

impl Selection<'_> {
    /// Of the pointers that lead to the container at `depth`, those that lead on through a segment.
    fn narrowed(&self, matching: Matching, depth: usize, leads_on: impl Fn(&Segment) -> bool) -> Matching {
        let mut left = matching.0;
        let mut narrowed = 0;
        while left != 0 {
            let pointer = left.trailing_zeros() as usize;
            left &= left - 1;
            if self.pointers[pointer].segments.get(depth).is_some_and(&leads_on) {
                narrowed |= 1 << pointer;
            }
        }
        Matching(narrowed)
    }

    /// How many values each of these pointers has found.
    fn counts(&self, matching: Matching) -> [usize; POINTERS_MAX] {
        let mut counts = [0; POINTERS_MAX];
        for (pointer, count) in counts.iter_mut().enumerate() {
            if matching.0 & (1 << pointer) != 0 {
                *count = self.found[pointer].len();
            }
        }
        counts
    }

    /// An element in which a pointer has found nothing is a null, so that the values of two pointers into the same elements belong together.
    /// False: past a bound.
    fn fill_in(&mut self, matching: Matching, before: &[usize; POINTERS_MAX]) -> bool {
        for (pointer, count) in before.iter().enumerate() {
            if matching.0 & (1 << pointer) != 0 && self.found[pointer].len() == *count {
                self.values_count += 1;
                self.is_too_long |= self.values_count > VALUES_MAX;
                self.found[pointer].push(Value::Null);
            }
        }
        !self.is_too_long
    }

    /// Keeps a value for the pointers that end at `depth`. False: past a bound.
    fn keep(&mut self, matching: Matching, depth: usize, text_bytes: usize, value: impl Fn() -> Value) -> bool {
        let mut left = matching.0;
        while left != 0 {
            let pointer = left.trailing_zeros() as usize;
            left &= left - 1;
            if self.pointers[pointer].segments.len() != depth {
                continue;
            }
            self.values_count += 1;
            self.texts_bytes += text_bytes;
            let is_within =
                self.values_count <= VALUES_MAX && self.texts_bytes <= TEXTS_BYTES_MAX && text_bytes <= TEXT_BYTES_MAX;
            if !is_within {
                self.is_too_long = true;
                return false;
            }
            self.found[pointer].push(value());
        }
        true
    }
}

/// A place in the content, and the pointers that lead there or further down.
struct Place<'s, 'p> {
    selection: &'s mut Selection<'p>,
    matching: Matching,
    depth: usize,
}

impl Place<'_, '_> {
    fn kept<E: serde::de::Error>(self, text_bytes: usize, value: impl Fn() -> Value) -> Result<(), E> {
        let is_kept = self.selection.keep(self.matching, self.depth, text_bytes, value);
        if is_kept { Ok(()) } else { Err(E::custom("past a bound")) }
    }
}

impl<'de> DeserializeSeed<'de> for Place<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.kept(0, || Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<(), E> {
        self.kept(0, || Value::Flag(flag))
    }

    fn visit_i64<E: serde::de::Error>(self, integer: i64) -> Result<(), E> {
        self.kept(0, || Value::Integer(integer))
    }

    fn visit_u64<E: serde::de::Error>(self, integer: u64) -> Result<(), E> {
        #[allow(clippy::cast_precision_loss, reason = "said in the value's documentation")]
        self.kept(0, || i64::try_from(integer).map_or(Value::Number(integer as f64), Value::Integer))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        self.kept(0, || Value::Number(number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.kept(text.len(), || Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Place { selection, matching, depth } = self;
        let each = selection.narrowed(matching, depth, Segment::is_each);
        let indexed = selection.narrowed(matching, depth, |segment| segment.index.is_some());
        for index in 0_usize.. {
            let here = selection.narrowed(indexed, depth, |segment| segment.index == Some(index));
            let matching = Matching(each.0 | here.0);
            let before = selection.counts(each);
            let place = Place { selection: &mut *selection, matching, depth: depth + 1 };
            if elements.next_element_seed(place)?.is_none() {
                break;
            }
            if !selection.fill_in(each, &before) {
                return Err(A::Error::custom("too long"));
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Place { selection, matching, depth } = self;
        while let Some(matching) = members.next_key_seed(Name { selection: &*selection, matching, depth })? {
            members.next_value_seed(Place { selection: &mut *selection, matching, depth: depth + 1 })?;
        }
        Ok(())
    }
}

/// The name of a member: becomes the pointers that lead on through it.
struct Name<'s, 'p> {
    selection: &'s Selection<'p>,
    matching: Matching,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_, '_> {
    type Value = Matching;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Matching, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_, '_> {
    type Value = Matching;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Matching, E> {
        Ok(self.selection.narrowed(self.matching, self.depth, |segment| segment.name == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(texts: &[&str]) -> Vec<Pointer> {
        texts.iter().map(|text| Pointer::parse(text).expect(text)).collect()
    }

    fn found(content: &str, texts: &[&str]) -> Vec<Vec<Value>> {
        match select(content.as_bytes(), &pointers(texts)) {
            Content::Values(values) => values,
            other => panic!("{content}: {other:?}"),
        }
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn values_are_found_in_the_order_of_the_content() {
        let page =
            r#"{"items": [{"id": 1}, {"id": "b", "tags": ["x", "y"]}, {"name": "c"}], "next": null, "more": true}"#;
        let found =
            found(page, &["/items/*/id", "/items/1/id", "/items/*/tags/*", "/next", "/more", "/none", "/items"]);
        let expected = [
            vec![Value::Integer(1), text("b"), Value::Null],
            vec![text("b")],
            vec![Value::Null, text("x"), text("y"), Value::Null],
            vec![Value::Null],
            vec![Value::Flag(true)],
            vec![],
            vec![],
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_page_that_is_an_array_and_a_content_that_is_a_value() {
        assert_eq!(
            found("[[1,2],[3]]", &["/*/*", "/0/1"]),
            [vec![Value::Integer(1), Value::Integer(2), Value::Integer(3)], vec![Value::Integer(2)]]
        );
        assert_eq!(found(" 7 ", &[""]), [[Value::Integer(7)]]);
    }

    /// RFC 6901 §5, and a name `*` of an object.
    #[test]
    fn names_are_unescaped_and_indices_have_no_leading_zeros() {
        let content = r#"{"a/b": 1, "m~n": 2, "": 3, "*": 4, "01": 5, "é": 6, "0": 7, "list": [8]}"#;
        let names = ["/a~1b", "/m~0n", "/", "/*", "/01", "/é", "/0", "/list/0", "/list/00", "/list/-"];
        let values = found(content, &names);
        for (at, value) in (1..=8).enumerate() {
            assert_eq!(values[at], [Value::Integer(value)], "{}", names[at]);
        }
        assert!(values[8].is_empty() && values[9].is_empty());
    }

    #[test]
    fn a_name_that_comes_twice_counts_twice() {
        assert_eq!(found(r#"{"id": 1, "id": 2}"#, &["/id"]), [[Value::Integer(1), Value::Integer(2)]]);
    }

    #[test]
    fn integers_are_exact_or_numbers() {
        let content = "[9223372036854775807, -9223372036854775808, 9223372036854775808, 1.0, 1e2]";
        let [values] = &found(content, &["/*"])[..] else { panic!("one list") };
        assert_eq!(values[..2], [Value::Integer(i64::MAX), Value::Integer(i64::MIN)]);
        assert_eq!(values[2..], [Value::Number(9_223_372_036_854_775_808.0), Value::Number(1.0), Value::Number(100.0)]);
    }

    #[test]
    fn past_a_bound_nothing_is_known() {
        let select = |content: String| select(content.as_bytes(), &pointers(&["/*"]));
        let list = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        assert!(matches!(select(list(VALUES_MAX)), Content::Values(values) if values[0].len() == VALUES_MAX));
        assert_eq!(select(list(VALUES_MAX + 1)), Content::TooLong);
        let texts =
            |bytes: usize, count: usize| format!("[{}]", vec![format!("\"{}\"", "x".repeat(bytes)); count].join(","));
        assert!(matches!(select(texts(TEXT_BYTES_MAX, 1)), Content::Values(_)));
        assert_eq!(select(texts(TEXT_BYTES_MAX + 1, 1)), Content::TooLong);
        assert_eq!(select(texts(TEXT_BYTES_MAX, TEXTS_BYTES_MAX / TEXT_BYTES_MAX + 1)), Content::TooLong);
        // What no pointer leads to may be as long as it likes.
        assert!(matches!(select(format!("[{{\"x\": {}}}]", texts(9000, 3))), Content::Values(_)));
    }

    #[test]
    fn what_is_no_json_is_told_apart_from_what_is_not_there() {
        for bad in ["{", "[1,]", "{\"id\": 1} x", "id=1", "\u{feff}1", "[\"\\ud800\"]", "nul", "[01]", " "] {
            assert_eq!(select(bad.as_bytes(), &pointers(&["/id"])), Content::NotJson, "{bad}");
        }
        assert_eq!(select(b"\"\xff\"", &pointers(&["/id"])), Content::NotJson);
        assert_eq!(select(b"", &pointers(&["/id"])), Content::Empty);
        assert_eq!(select(b"{", &[]), Content::Undeclared);
    }

    #[test]
    fn deep_nesting_is_refused_and_overflows_nothing() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(matches!(select(nested(127).as_bytes(), &pointers(&["/id"])), Content::Values(_)));
        for levels in [128, 1_000_000] {
            assert_eq!(select(nested(levels).as_bytes(), &pointers(&["/id"])), Content::NotJson);
        }
    }

    #[test]
    fn texts_that_are_no_pointers() {
        assert_eq!(Pointer::parse("id"), Err(PointerError::NoSlash));
        for bad in ["/a~", "/~2", "/a~b/c"] {
            assert_eq!(Pointer::parse(bad), Err(PointerError::BadEscape), "{bad}");
        }
        let long = format!("/{}", "x".repeat(POINTER_BYTES_MAX));
        assert_eq!(Pointer::parse(&long), Err(PointerError::TooLong { bytes: POINTER_BYTES_MAX + 1 }));
        assert_eq!(Pointer::parse("/items/*/id").expect("a pointer").to_string(), "/items/*/id");
    }
}
