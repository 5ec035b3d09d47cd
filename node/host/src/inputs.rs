//! Cuts a request down to what a plugin declared.
//!
//! Always true:
//! - The bytes under which a decision is remembered and the request the guest sees come from the same functions, so a decision
//!   depends on nothing that is not in those bytes.
//! - The bytes are injective: each piece is preceded by its length.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::description::{Inputs, QueryInputs};
use crate::guest::bindings::brim::rules::types::{Cookie, Field};
use crate::guest::bindings::exports::brim::rules::cache_key::Request;

/// A request of which a cache key is wanted. The host passes on what the plugin declared.
#[derive(Debug, Clone, Copy)]
pub struct KeyRequest<'a> {
    /// As sent.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Lower case, without the default port.
    pub authority: &'a str,
    /// As sent.
    pub path: &'a str,
    /// As sent, without `?`.
    pub query: Option<&'a str>,
    /// All of them.
    pub headers: &'a HeaderMap,
}

/// A declared input, as a plugin sees it in a request; for explanations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenInput {
    /// What kind of input.
    pub kind: InputKind,
    /// Name of the field or cookie; empty for path and query.
    pub name: String,
    /// Its value; none where the request does not have it. A field or cookie that is there twice is two inputs.
    pub value: Option<Vec<u8>>,
}

/// Where an input is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputKind {
    /// A header field.
    Header,
    /// A cookie.
    Cookie,
    /// The query, or the declared parameters of it.
    Query,
    /// The path.
    Path,
}

impl Inputs {
    /// What the guest sees of a request besides method, scheme and authority.
    #[must_use]
    pub fn seen(&self, request: &KeyRequest<'_>) -> Vec<SeenInput> {
        let input = |kind, name: &str, value: Option<&[u8]>| SeenInput {
            kind,
            name: name.to_owned(),
            value: value.map(<[u8]>::to_vec),
        };
        let mut seen = Vec::new();
        for name in &self.headers {
            let before = seen.len();
            let lines = request.headers.get_all(name).iter();
            seen.extend(lines.map(|line| input(InputKind::Header, name.as_str(), Some(line.as_bytes()))));
            if seen.len() == before {
                seen.push(input(InputKind::Header, name.as_str(), None));
            }
        }
        for name in &self.cookies {
            let before = seen.len();
            let values = self.cookies_of(request).filter(|(found, _)| found == name);
            seen.extend(values.map(|(name, value)| input(InputKind::Cookie, name, Some(value))));
            if seen.len() == before {
                seen.push(input(InputKind::Cookie, name, None));
            }
        }
        if self.query != QueryInputs::None {
            let query = self.query_of(request);
            seen.push(input(InputKind::Query, "", query.as_deref().map(str::as_bytes)));
        }
        if self.path {
            seen.push(input(InputKind::Path, "", Some(self.path_of(request).as_bytes())));
        }
        seen
    }

    fn path_of<'a>(&self, request: &KeyRequest<'a>) -> &'a str {
        if self.path { request.path } else { "" }
    }

    fn query_of<'a>(&self, request: &KeyRequest<'a>) -> Option<Cow<'a, str>> {
        match &self.query {
            QueryInputs::None => None,
            QueryInputs::All => request.query.map(Cow::Borrowed),
            QueryInputs::Named(names) => named_parameters(request.query?, names).map(Cow::Owned),
        }
    }

    fn headers_of<'a>(&'a self, request: &KeyRequest<'a>) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
        let headers = request.headers;
        self.headers.iter().flat_map(move |name| headers.get_all(name).into_iter().map(move |value| (name, value)))
    }

    fn cookies_of<'a>(&'a self, request: &KeyRequest<'a>) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let headers = request.headers;
        self.cookies.iter().flat_map(move |name| {
            cookies(headers)
                .filter(move |(found, _)| *found == name.as_bytes())
                .map(move |(_, value)| (name.as_str(), value))
        })
    }

    /// Writes the declared inputs of a request as bytes; `out` is emptied first.
    pub(crate) fn write_bytes(&self, request: &KeyRequest<'_>, out: &mut Vec<u8>) {
        out.clear();
        piece(out, request.method.as_bytes());
        piece(out, request.scheme.as_bytes());
        piece(out, request.authority.as_bytes());
        piece(out, self.path_of(request).as_bytes());
        match self.query_of(request) {
            None => out.push(0),
            Some(query) => {
                out.push(1);
                piece(out, query.as_bytes());
            }
        }
        // A name is followed by its values and the next name, so what belongs to which is never in doubt.
        for (name, value) in self.headers_of(request) {
            piece(out, name.as_str().as_bytes());
            piece(out, value.as_bytes());
        }
        // No header is named by the empty string: this is where the cookies begin.
        piece(out, b"");
        for (name, value) in self.cookies_of(request) {
            piece(out, name.as_bytes());
            piece(out, value);
        }
    }

    /// Calls `with` with the request as the guest sees it.
    pub(crate) fn with_request<T>(&self, request: &KeyRequest<'_>, with: impl FnOnce(Request<'_>) -> T) -> T {
        let query = self.query_of(request);
        let headers: Vec<Field<'_>> = self
            .headers_of(request)
            .map(|(name, value)| Field { name: name.as_str(), value: value.as_bytes() })
            .collect();
        let cookies: Vec<Cookie<'_>> = self.cookies_of(request).map(|(name, value)| Cookie { name, value }).collect();
        with(Request {
            method: request.method,
            scheme: request.scheme,
            authority: request.authority,
            path: self.path_of(request),
            query: query.as_deref(),
            headers: &headers,
            cookies: &cookies,
            extras: &[],
        })
    }
}

fn piece(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&bytes.len().to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The cookies of all `Cookie` lines in order (RFC 6265 §5.4); what has no `=` is none.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(header::COOKIE).into_iter().map(HeaderValue::as_bytes);
    lines.flat_map(|line| line.split(|&byte| byte == b';')).filter_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let (name, value) = pair.split_at(equals);
        Some((name.trim_ascii(), value.get(1..)?.trim_ascii()))
    })
}

/// The parameters of these names, as sent and in order; `&` alone separates, names are compared decoded.
fn named_parameters(query: &str, names: &[String]) -> Option<String> {
    let mut joined: Option<String> = None;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let name = decoded(parameter.split_once('=').map_or(parameter, |(name, _)| name));
        if !names.iter().any(|wanted| wanted.as_bytes() == &*name) {
            continue;
        }
        match &mut joined {
            None => joined = Some(parameter.to_owned()),
            Some(joined) => {
                joined.push('&');
                joined.push_str(parameter);
            }
        }
    }
    joined
}

/// Decodes `%XX` and `+`. The same rule as the SDK's `Query`, which a test holds it to.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text.as_bytes());
    }
    let hex = |digit: Option<&u8>| {
        digit.and_then(|&digit| char::from(digit).to_digit(16)).and_then(|digit| u8::try_from(digit).ok())
    };
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        out.push(match (byte, hex(bytes.get(at)), hex(bytes.get(at + 1))) {
            (b'+', _, _) => b' ',
            (b'%', Some(high), Some(low)) => {
                at += 2;
                high << 4 | low
            }
            _ => byte,
        });
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(query: QueryInputs) -> Inputs {
        Inputs { headers: vec![HeaderName::from_static("x-a")], cookies: vec!["c".to_owned()], query, path: false }
    }

    fn bytes(inputs: &Inputs, path: &str, query: Option<&str>, headers: &[(&'static str, &'static str)]) -> Vec<u8> {
        let headers: HeaderMap = headers
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let request = KeyRequest { method: "GET", scheme: "https", authority: "a", path, query, headers: &headers };
        let mut out = vec![1, 2, 3];
        inputs.write_bytes(&request, &mut out);
        out
    }

    #[test]
    fn what_is_not_declared_changes_nothing() {
        let inputs = inputs(QueryInputs::Named(vec!["q".to_owned()]));
        let one = bytes(&inputs, "/1", Some("q=1&z=1"), &[("x-a", "1"), ("x-b", "1"), ("cookie", "c=1; d=1")]);
        let two = bytes(&inputs, "/2", Some("z=2&q=1"), &[("x-b", "2"), ("x-a", "1"), ("cookie", "d=2;c=1")]);
        assert_eq!(one, two);
    }

    #[test]
    fn what_is_declared_changes_the_bytes() {
        let inputs = inputs(QueryInputs::All);
        let all = [
            bytes(&inputs, "/", None, &[]),
            bytes(&inputs, "/", Some(""), &[]),
            bytes(&inputs, "/", Some("q"), &[]),
            bytes(&inputs, "/", None, &[("x-a", "")]),
            bytes(&inputs, "/", None, &[("x-a", "1")]),
            bytes(&inputs, "/", None, &[("cookie", "c=1")]),
            bytes(&inputs, "/", None, &[("cookie", "c=1; c=1")]),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all.iter().skip(i + 1).all(|other| other != one), "{i}");
        }
    }

    #[test]
    fn what_a_guest_sees_can_be_told() {
        let inputs = Inputs { path: true, ..inputs(QueryInputs::Named(vec!["q".to_owned()])) };
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("c=1; d=2; c=3"));
        let query = Some("z=1&q=2");
        let request =
            KeyRequest { method: "GET", scheme: "https", authority: "a", path: "/p", query, headers: &headers };
        let seen = inputs.seen(&request);
        let seen: Vec<_> = seen.iter().map(|input| (input.kind, input.name.as_str(), input.value.as_deref())).collect();
        let expected = [
            (InputKind::Header, "x-a", None),
            (InputKind::Cookie, "c", Some(&b"1"[..])),
            (InputKind::Cookie, "c", Some(b"3")),
            (InputKind::Query, "", Some(b"q=2")),
            (InputKind::Path, "", Some(b"/p")),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn parameters_are_cut_as_the_sdk_would() {
        let names = ["a b".to_owned(), "q".to_owned(), "%".to_owned()];
        for query in ["", "q", "q=1", "%71=1&x", "a+b=1&a%20b=2&ab", "%=1&%4=2", "q=1;x=2", "&&q&", "%zz&q%", "%2"] {
            let mut sdk = brim_sdk::Query::parse(Some(query));
            sdk.retain(|parameter| names.iter().any(|name| name.as_bytes() == &*parameter.name()));
            assert_eq!(named_parameters(query, &names), sdk.serialise(), "{query}");
        }
    }

    #[test]
    fn cookies_come_from_all_lines() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1;b ; c = x=y "));
        headers.append(header::COOKIE, HeaderValue::from_static("a=2"));
        let all: Vec<_> = cookies(&headers).collect();
        assert_eq!(all, [(&b"a"[..], &b"1"[..]), (b"c", b"x=y"), (b"a", b"2")]);
    }
}
