//! Templates: texts with values of a request in them, such as `tenant:{header.x-tenant}`.
//!
//! Always true:
//! - A template is checked when the file is read: what it names exists in every request, or the whole text is left out.
//! - A value never adds to a text what the text's kind cannot hold: white space in a surrogate key, delimiters in a URL.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::limits;

/// Everything but the unreserved characters of RFC 3986 §2.3, as far as ASCII goes.
const DELIMITERS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'!')
    .add(b'"')
    .add(b'#')
    .add(b'$')
    .add(b'%')
    .add(b'&')
    .add(b'\'')
    .add(b'(')
    .add(b')')
    .add(b'*')
    .add(b'+')
    .add(b',')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A text with values of a request in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// `{header.NAME}`: the value of a field of the request; nothing if it is absent, comes twice or is no text.
    Header(HeaderName),
    /// `{query.NAME}`: the value of the first parameter of this name.
    Query(String),
    /// `{path.N}`: the N-th segment of the path, from 1.
    Path(usize),
    /// `{host}`: host and port.
    Host,
}

/// The request that a template is filled in from.
#[derive(Debug, Clone, Copy)]
pub struct TemplateValues<'a> {
    /// Lower case, without the default port.
    pub authority: &'a str,
    /// As sent.
    pub path: &'a str,
    /// As sent, without `?`.
    pub query: Option<&'a str>,
    /// All of them.
    pub headers: &'a HeaderMap,
}

impl Template {
    /// Reads a template; the error completes "…: ".
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > limits::TEMPLATE_BYTES_MAX {
            return Err(format!("\"{text}\" has not 1 to {} bytes", limits::TEMPLATE_BYTES_MAX));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(|| format!("\"{text}\": a {{ without its }}"))?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::named(name).ok_or_else(|| {
                format!("\"{text}\": {{{name}}} is none of {{header.NAME}}, {{query.NAME}}, {{path.N}} (N from 1) and {{host}}")
            })?);
            rest = after;
        }
        if rest.contains('}') || pieces.iter().any(|piece| matches!(piece, Piece::Text(text) if text.contains('}'))) {
            return Err(format!("\"{text}\": a }} without its {{"));
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    /// As a surrogate key. `None`: the request has not all of the values.
    pub fn key(&self, values: &TemplateValues<'_>) -> Option<String> {
        self.filled(|piece| {
            let value = piece.value(values)?;
            Some(match piece {
                Piece::Text(_) => value,
                // One id is one key, however its path or query spells it.
                Piece::Path(_) | Piece::Query(_) => {
                    let decoded = percent_decode_str(&value).decode_utf8_lossy().into_owned();
                    Cow::Owned(brim_semantics::key_text(&decoded).into_owned())
                }
                Piece::Header(_) | Piece::Host => Cow::Owned(brim_semantics::key_text(&value).into_owned()),
            })
        })
    }

    /// As a path and query. `None`: the request has not all of the values.
    pub fn url(&self, values: &TemplateValues<'_>) -> Option<String> {
        self.filled(|piece| {
            let value = piece.value(values)?;
            Some(match piece {
                // A segment and a parameter stand in a URL already.
                Piece::Text(_) | Piece::Path(_) | Piece::Query(_) => value,
                Piece::Header(_) | Piece::Host => Cow::Owned(utf8_percent_encode(&value, DELIMITERS).to_string()),
            })
        })
    }

    fn filled<'a>(&'a self, value: impl Fn(&'a Piece) -> Option<Cow<'a, str>>) -> Option<String> {
        self.0.iter().map(value).collect()
    }

    /// The text before the first value.
    pub(super) fn start(&self) -> &str {
        match self.0.first() {
            Some(Piece::Text(text)) => text,
            _ => "",
        }
    }

    /// The texts between the values.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| if let Piece::Text(text) = piece { Some(text.as_str()) } else { None })
    }
}

impl Piece {
    fn named(name: &str) -> Option<Self> {
        if name == "host" {
            return Some(Self::Host);
        }
        let (kind, name) = name.split_once('.')?;
        match kind {
            "header" => HeaderName::from_bytes(name.as_bytes()).ok().map(Self::Header),
            "query" if !name.is_empty() => Some(Self::Query(name.to_owned())),
            "path" => name.parse().ok().filter(|&number| number > 0).map(Self::Path),
            _ => None,
        }
    }

    /// `None`: absent, empty, or not to be told.
    fn value<'a>(&'a self, values: &TemplateValues<'a>) -> Option<Cow<'a, str>> {
        let value = match self {
            Self::Text(text) => Some(text.as_str()),
            Self::Header(name) => {
                let mut lines = values.headers.get_all(name).iter();
                match (lines.next(), lines.next()) {
                    (Some(line), None) => str::from_utf8(line.as_bytes()).ok().map(str::trim),
                    _ => None,
                }
            }
            Self::Query(wanted) => values.query.and_then(|query| {
                query.split('&').filter_map(|parameter| parameter.split_once('=')).find_map(|(name, value)| {
                    (percent_decode_str(name).decode_utf8_lossy() == wanted.as_str()).then_some(value)
                })
            }),
            Self::Path(number) => values.path.split('/').nth(*number),
            Self::Host => Some(values.authority),
        };
        value.filter(|value| !value.is_empty()).map(Cow::Borrowed)
    }
}

/// As written in the file.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Header(name) => write!(f, "{{header.{name}}}"),
            Piece::Query(name) => write!(f, "{{query.{name}}}"),
            Piece::Path(number) => write!(f, "{{path.{number}}}"),
            Piece::Host => f.write_str("{host}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(
        template: &str,
        path: &str,
        headers: &[(&'static str, &'static str)],
    ) -> (Option<String>, Option<String>) {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect();
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let values = TemplateValues { authority: "a.example:81", path, query, headers: &headers };
        let template = Template::parse(template).expect("a template");
        (template.key(&values), template.url(&values))
    }

    #[test]
    fn values_of_the_request_are_filled_in() {
        let both = |text: &str| (Some(text.to_owned()), Some(text.to_owned()));
        assert_eq!(filled("catalogue", "/", &[]), both("catalogue"));
        assert_eq!(filled("tenant:{header.X-Tenant}", "/", &[("x-tenant", " acme ")]), both("tenant:acme"));
        assert_eq!(filled("{path.2}-{path.1}", "/a/b/c", &[]), both("b-a"));
        assert_eq!(filled("q:{query.a b}", "/?x=1&a%20b=2&a%20b=3", &[]), both("q:2"));
        let (key, url) = filled("/on/{host}", "/", &[]);
        assert_eq!((key.as_deref(), url.as_deref()), (Some("/on/a.example:81"), Some("/on/a.example%3A81")));
    }

    /// One id is one key, however a path spells it; a header's value stays within its place in a URL.
    #[test]
    fn values_cannot_say_more_than_a_value() {
        let (key, url) = filled("p:{path.1}", "/a%20b%25", &[]);
        assert_eq!((key.as_deref(), url.as_deref()), (Some("p:a%20b%25"), Some("p:a%20b%25")));
        assert_eq!(filled("p:{path.1}", "/%61", &[]).0.as_deref(), Some("p:a"));
        let (key, url) = filled("/u/{header.x}", "/", &[("x", "a b/../?c")]);
        assert_eq!((key.as_deref(), url.as_deref()), (Some("/u/a%20b/../?c"), Some("/u/a%20b%2F..%2F%3Fc")));
    }

    #[test]
    fn what_a_request_has_not_leaves_the_whole_text_out() {
        for (template, path) in [
            ("t:{header.x}", "/"),
            ("t:{path.3}", "/a/b"),
            ("t:{path.2}", "/a/"),
            ("t:{query.q}", "/?q="),
            ("{query.q}", "/?q"),
        ] {
            assert_eq!(filled(template, path, &[]), (None, None), "{template}");
        }
        assert_eq!(filled("t:{header.x}", "/", &[("x", "1"), ("x", "2")]), (None, None), "which of the two?");
    }

    #[test]
    fn mistakes_are_told() {
        for text in ["", "{", "a}", "{a}", "{header.}", "{path.0}", "{path.x}", "{query.}", "{header.a b}", "}{host}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
        assert!(Template::parse(&"x".repeat(limits::TEMPLATE_BYTES_MAX + 1)).is_err());
        let text = "a{header.x-a}b{path.1}{query.q}{host}c";
        assert_eq!(Template::parse(text).expect("a template").to_string(), text);
    }
}
