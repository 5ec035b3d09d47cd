//! What an invalidation rule implements, is given and answers.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::{Description, Failure, Repeated, Request};

/// Surrogate keys of one response, and of all purges after one request: the node refuses an answer with more.
pub const KEYS_MAX: usize = 256;
/// Bytes of a surrogate key.
pub const KEY_BYTES_MAX: usize = 1024;
/// Purges after one request.
pub const PURGES_MAX: usize = 64;
/// Bytes of the URL or prefix of a purge.
pub const URL_BYTES_MAX: usize = 8 * 1024;

/// Says by what the responses of a route are purged, and what writes purge.
///
/// Both answers must follow from what the rule is given: the node may ask again. Where both hooks are in one component, `describe`
/// of the [`CacheKeyRule`](crate::CacheKeyRule) counts.
pub trait InvalidationRule {
    /// Says what the rule is called. What it reads is told by [`reads`](Self::reads).
    fn describe() -> Description;

    /// What the rule reads besides method, scheme, authority, path, query and status. Asked once, when the plugin is loaded; may follow
    /// from [`config`](crate::config), and must do without where there is none.
    fn reads() -> Reads {
        Reads::default()
    }

    /// The surrogate keys of a response that is about to be stored, besides those it has without the rule.
    ///
    /// # Errors
    /// A [`Failure`] makes this response not stored: what has not its keys could not be purged by them.
    fn tags(_request: &Request, _response: &Response) -> Result<Tags, Failure> {
        Ok(Tags::default())
    }

    /// What an unsafe request made obsolete. Asked after the origin answered it with 2xx or 3xx.
    ///
    /// # Errors
    /// After a [`Failure`] the node asks again later, from a queue that survives a restart.
    fn purges(_request: &Request, _response: &Response) -> Result<Purges, Failure> {
        Ok(Purges::none())
    }
}

/// What an invalidation rule reads. What is not declared is not passed to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reads {
    pub(crate) request_headers: Vec<String>,
    pub(crate) response_headers: Vec<String>,
    pub(crate) request_values: Vec<String>,
    pub(crate) response_values: Vec<String>,
}

impl Reads {
    /// Nothing yet.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Declares a header field of the request, by its name in any case.
    #[must_use]
    pub fn request_header(mut self, name: &str) -> Self {
        self.request_headers.push(name.to_ascii_lowercase());
        self
    }

    /// Declares a header field of the response, by its name in any case.
    #[must_use]
    pub fn response_header(mut self, name: &str) -> Self {
        self.response_headers.push(name.to_ascii_lowercase());
        self
    }

    /// Declares a place in the request's content: a JSON pointer (RFC 6901), in which `*` stands for every element of an array.
    #[must_use]
    pub fn request_value(mut self, pointer: &str) -> Self {
        self.request_values.push(pointer.to_owned());
        self
    }

    /// Declares a place in the response's content.
    #[must_use]
    pub fn response_value(mut self, pointer: &str) -> Self {
        self.response_values.push(pointer.to_owned());
        self
    }
}

/// A response, as far as the rule declared to read it.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) content: Content,
}

impl Response {
    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The value of a header field that may come once.
    ///
    /// # Errors
    /// [`Repeated`] where the response has the field more than once.
    pub fn header(&self, name: &str) -> Result<Option<&[u8]>, Repeated> {
        crate::request::only(crate::request::lines(&self.headers, name), name)
    }

    /// All lines of a header field, in the order of arrival.
    pub fn header_lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        crate::request::lines(&self.headers, name)
    }

    /// What was found in its content.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }
}

/// What was found in a content at the places that the rule declared.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Not read: the rule declared no place in it, or it is the request's and a response is about to be stored.
    Undeclared,
    /// There is none.
    Empty,
    /// The values.
    Values(Values),
    /// Too long to be read, encoded, cut off, or with too many or too long values: nothing is known of it.
    TooLong,
    /// It is not JSON, or nested too deeply.
    NotJson,
}

/// The values of each declared place.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    pub(crate) places: Vec<(String, Vec<Value>)>,
}

impl Values {
    /// The values at a place, in the order of the content; none where the pointer leads nowhere, or to objects and arrays. A name that
    /// an object has twice counts twice.
    ///
    /// # Panics
    /// Where the rule did not declare the place.
    #[must_use]
    pub fn at(&self, pointer: &str) -> &[Value] {
        let place = self.places.iter().find(|(declared, _)| declared == pointer);
        place.map(|(_, values)| values.as_slice()).unwrap_or_else(|| panic!("`reads` does not declare `{pointer}`"))
    }
}

/// A value in a content.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the kinds speak for themselves")]
pub enum Value {
    Null,
    Flag(bool),
    Integer(i64),
    /// With a fraction or an exponent, or too large for an integer: then its digits are not exact.
    Number(f64),
    Text(String),
}

impl Value {
    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// As a part of a surrogate key, by [`key_text`]; only what can identify something: an integer, or a text that is not empty.
    #[must_use]
    pub fn as_id(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Integer(integer) => Some(Cow::Owned(integer.to_string())),
            Self::Text(text) if !text.is_empty() => Some(key_text(text)),
            // The digits of a number need not be those that were sent.
            _ => None,
        }
    }
}

/// A text as a part of a surrogate key: what no key can hold (white space, control characters) is percent-encoded, and so is `%`, so
/// that two texts never become one.
#[must_use]
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
            // Writing to a text cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    Cow::Owned(encoded)
}

/// The surrogate keys of a response, each once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tags {
    pub(crate) keys: Vec<String>,
}

impl Tags {
    /// None yet.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a key: 1 to [`KEY_BYTES_MAX`] bytes without white space and control characters; see [`key_text`].
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.add(key);
        self
    }

    /// As [`key`](Self::key), in place.
    pub fn add(&mut self, key: impl Into<String>) {
        add_once(&mut self.keys, key.into());
    }

    /// The keys in the order in which they were added.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.keys
    }
}

/// What a write makes obsolete, of the request's site.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Purges {
    pub(crate) keys: Vec<String>,
    pub(crate) urls: Vec<String>,
    pub(crate) prefixes: Vec<String>,
    pub(crate) site: bool,
}

impl Purges {
    /// Nothing yet.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Responses with this surrogate key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.add_key(key);
        self
    }

    /// All variants of this URL: absolute, or a path with or without a query at the request's authority.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.add_url(url);
        self
    }

    /// Responses whose URL begins with this: absolute, or a path at the request's authority.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        add_once(&mut self.prefixes, prefix.into());
        self
    }

    /// All responses of the site.
    #[must_use]
    pub fn site(mut self) -> Self {
        self.site = true;
        self
    }

    /// As [`key`](Self::key), in place.
    pub fn add_key(&mut self, key: impl Into<String>) {
        add_once(&mut self.keys, key.into());
    }

    /// As [`url`](Self::url), in place.
    pub fn add_url(&mut self, url: impl Into<String>) {
        add_once(&mut self.urls, url.into());
    }

    /// The surrogate keys.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// The URLs.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The prefixes.
    #[must_use]
    pub fn prefixes(&self) -> &[String] {
        &self.prefixes
    }

    /// Whether the whole site is purged.
    #[must_use]
    pub fn purges_site(&self) -> bool {
        self.site
    }
}

/// Past what any answer may hold nothing is compared any more: the node refuses the answer anyway.
fn add_once(texts: &mut Vec<String>, text: String) {
    if texts.len() > KEYS_MAX || !texts.contains(&text) {
        texts.push(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_exact_or_none() {
        assert_eq!(Value::Integer(-7).as_id().as_deref(), Some("-7"));
        assert_eq!(Value::Text("a b%".to_owned()).as_id().as_deref(), Some("a%20b%25"));
        for none in [Value::Null, Value::Flag(true), Value::Number(1.0), Value::Text(String::new())] {
            assert_eq!(none.as_id(), None, "{none:?}");
        }
    }

    #[test]
    fn two_texts_never_become_one_key() {
        let texts = ["a b", "a%20b", "a\u{a0}b", "a\nb", "ab", "é"];
        for (i, one) in texts.iter().enumerate() {
            assert!(!key_text(one).contains(char::is_whitespace));
            assert!(texts.iter().skip(i + 1).all(|other| key_text(one) != key_text(other)), "{one:?}");
        }
    }

    #[test]
    fn keys_come_once() {
        assert_eq!(Tags::none().key("a").key("b").key("a").keys(), ["a", "b"]);
        assert_eq!(Purges::none().key("a").key("a").url("/a").keys(), ["a"]);
    }
}
