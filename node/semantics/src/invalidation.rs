//! What a request that may change things invalidates (RFC 9111 §4.4).
//!
//! Always true:
//! - Only a method known to be safe leaves stored responses alone; an unknown one invalidates.
//! - Only the target URI and URIs of the same origin are invalidated: nobody empties a stranger's cache.
//!
//! Not here: purges by operators (`brim-store`), groups of responses (`surrogate`).

use http::header::{CONTENT_LOCATION, HeaderMap, HeaderValue, LOCATION};
use http::{Method, StatusCode, Uri};

use crate::key::normal_authority;

/// More URIs from one response are not followed: one `Location` and one `Content-Location` are all that HTTP defines.
pub const INVALIDATION_TARGETS_MAX: usize = 8;

/// Whether a method is registered as safe (RFC 9110 §9.2.1; RFC 4918, RFC 3253, RFC 5323, RFC 10008).
pub fn is_safe(method: &Method) -> bool {
    matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE" | "QUERY" | "PROPFIND" | "REPORT" | "SEARCH")
}

/// Whether the target URI is to be invalidated: an unsafe or unknown method, and a response that is no error (2xx, 3xx).
pub fn invalidates(method: &Method, status: StatusCode) -> bool {
    !is_safe(method) && (status.is_success() || status.is_redirection())
}

/// What to invalidate: the target URI, then `Location` and `Content-Location` where they have the same origin.
///
/// `target` has scheme and authority.
pub fn invalidation_targets(target: &Uri, response: &HeaderMap) -> Vec<Uri> {
    let mut targets = vec![target.clone()];
    for line in response.get_all(LOCATION).iter().chain(response.get_all(CONTENT_LOCATION)) {
        let Some(uri) = resolve(target, HeaderValue::as_bytes(line)) else { continue };
        if targets.len() < INVALIDATION_TARGETS_MAX && has_same_origin(target, &uri) && !targets.contains(&uri) {
            targets.push(uri);
        }
    }
    targets
}

/// RFC 9110 §4.3.1: scheme, host and port.
fn has_same_origin(left: &Uri, right: &Uri) -> bool {
    let origin = |uri: &Uri| {
        let (scheme, authority) = (uri.scheme_str()?.to_ascii_lowercase(), uri.authority()?.as_str());
        let authority = normal_authority(&scheme, authority).into_owned();
        Some((scheme, authority))
    };
    origin(left).is_some_and(|left| origin(right) == Some(left))
}

/// Whether two absolute URIs are equal after scheme-based normalisation of their origins (RFC 9110 §4.2.3).
pub(crate) fn is_same_uri(left: &Uri, right: &Uri) -> bool {
    has_same_origin(left, right) && left.path() == right.path() && left.query() == right.query()
}

/// Resolves a URI reference against an absolute URI (RFC 3986 §5.2), without its fragment.
///
/// `None` where it is malformed, has another scheme than http and https, or userinfo, which RFC 9110 §4.2.4 makes an error.
pub(crate) fn resolve(base: &Uri, reference: &[u8]) -> Option<Uri> {
    let reference = str::from_utf8(reference).ok()?;
    let reference = reference.split('#').next().unwrap_or_default();
    let (scheme, authority) = (base.scheme_str()?, base.authority()?.as_str());
    if let Some((other, _)) = split_scheme(reference) {
        let is_http = other.eq_ignore_ascii_case("http") || other.eq_ignore_ascii_case("https");
        return if is_http { absolute(reference) } else { None };
    }
    if reference.starts_with("//") {
        return absolute(&format!("{scheme}:{reference}"));
    }
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    let (path, query) = match path {
        "" => (base.path().to_owned(), query.or_else(|| base.query())),
        _ if path.starts_with('/') => (without_dots(path), query),
        _ => {
            let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            (without_dots(&format!("{folder}/{path}")), query)
        }
    };
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{authority}{path}{query}").parse().ok()
}

fn absolute(reference: &str) -> Option<Uri> {
    let uri: Uri = reference.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str());
    if authority.contains('@') {
        return None;
    }
    if !uri.path().contains("/.") {
        return Some(uri);
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{authority}{}{query}", without_dots(uri.path())).parse().ok()
}

/// `scheme:` at the front of a reference (RFC 3986 §3.1).
fn split_scheme(reference: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = reference.split_once(':')?;
    let mut letters = scheme.bytes();
    let is_scheme = letters.next()?.is_ascii_alphabetic()
        && letters.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    is_scheme.then_some((scheme, rest))
}

/// RFC 3986 §5.2.4, for a path that starts with a slash.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments = path.split('/').skip(1);
    let ends_in_folder = matches!(path.rsplit('/').next(), Some("." | ".."));
    for segment in segments {
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    // An empty last segment is the trailing slash itself; a dot in its place leaves one.
    if ends_in_folder {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 9111 §4.4: every method that is not known to be safe, where the response is no error.
    #[test]
    fn unsafe_and_unknown_methods_invalidate() {
        let cases = [
            ("GET", 200, false),
            ("HEAD", 200, false),
            ("OPTIONS", 200, false),
            ("QUERY", 200, false),
            ("POST", 200, true),
            ("PUT", 204, true),
            ("DELETE", 200, true),
            ("PATCH", 200, true),
            ("M-SEARCH", 200, true),
            ("FOO", 200, true),
            ("get", 200, true),
            ("POST", 201, true),
            ("POST", 303, true),
            ("POST", 304, true),
            ("POST", 100, false),
            ("POST", 400, false),
            ("POST", 404, false),
            ("PUT", 500, false),
            ("PUT", 599, false),
        ];
        for (method, status, expected) in cases {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(invalidates(&method, StatusCode::from_u16(status).unwrap()), expected, "{method} {status}");
        }
    }

    fn targets(lines: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let target = Uri::from_static("https://example.com/a/b?c=d");
        invalidation_targets(&target, &headers).iter().skip(1).map(ToString::to_string).collect()
    }

    /// RFC 9111 §4.4: `Location` and `Content-Location`, of the same origin only.
    #[test]
    fn only_the_same_origin_is_invalidated() {
        let one = |value| targets(&[("location", value)]);
        assert_eq!(one("/x"), ["https://example.com/x"]);
        assert_eq!(one("https://example.com/x?y#z"), ["https://example.com/x?y"]);
        assert_eq!(one("https://EXAMPLE.com:443/x").len(), 1);
        assert_eq!(one("//example.com/x"), ["https://example.com/x"]);
        for other in [
            "http://example.com/x",
            "https://example.org/x",
            "https://example.com:8443/x",
            "//a/x",
            "mailto:a@b",
            "urn:x",
        ] {
            assert!(one(other).is_empty(), "{other}");
        }
        assert!(one("").is_empty(), "the target URI itself is there already");
        assert_eq!(one("https://example.com/b/../x"), ["https://example.com/x"]);
        assert_eq!(one("../x"), ["https://example.com/x"]);
        for malformed in
            ["https://u@example.com/x", "https://example.com@evil.example/x", "https:/x", "https:x", "/\\ b"]
        {
            assert!(one(malformed).is_empty(), "{malformed}");
        }
        let both = targets(&[("location", "/x"), ("content-location", "/y"), ("content-location", "/x")]);
        assert_eq!(both, ["https://example.com/x", "https://example.com/y"]);
        let many: Vec<_> = ["/1", "/2", "/3", "/4", "/5", "/6", "/7", "/8", "/9"].map(|path| ("location", path)).into();
        assert_eq!(targets(&many).len(), INVALIDATION_TARGETS_MAX - 1);
    }

    /// RFC 3986 §5.4, as far as http URIs go.
    #[test]
    fn references_are_resolved() {
        let base = Uri::from_static("http://a/b/c/d;p?q");
        let cases = [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q"),
            ("g#s", "http://a/b/c/g"),
            ("g?y#s", "http://a/b/c/g?y"),
            (";x", "http://a/b/c/;x"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("./", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../g", "http://a/g"),
            ("../../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g.", "http://a/b/c/g."),
            ("..g", "http://a/b/c/..g"),
            ("./g/.", "http://a/b/c/g/"),
            ("g/../h", "http://a/b/c/h"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
            ("http://a/x/./y/../z?q", "http://a/x/z?q"),
            ("//g/x/..", "http://g/"),
            ("/x//.", "http://a/x//"),
            ("/x//..", "http://a/x/"),
            ("/x//", "http://a/x//"),
        ];
        for (reference, expected) in cases {
            assert_eq!(resolve(&base, reference.as_bytes()), Some(expected.parse().unwrap()), "{reference}");
        }
        for malformed in ["http://", "http://u@a/g", "//u:p@a/g", "/a b", "http://[::1", "/\u{7f}"] {
            assert_eq!(resolve(&base, malformed.as_bytes()), None, "{malformed}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Nothing but the registered safe methods leaves the store alone; no error invalidates.
        #[test]
        fn unknown_methods_are_unsafe(name in "[A-Za-z!#-]{1,12}", status in 100_u16..1000) {
            let (method, code) = (Method::from_bytes(name.as_bytes()).unwrap(), StatusCode::from_u16(status).unwrap());
            let expected = !is_safe(&method) && (200..400).contains(&status);
            prop_assert_eq!(invalidates(&method, code), expected);
            prop_assert!(!is_safe(&method) || name.bytes().all(|byte| byte.is_ascii_uppercase()));
        }

        /// Whatever a response says, only its own origin is touched, and nothing panics.
        #[test]
        fn no_reference_leaves_the_origin(
            text in "(https?:)?(//)?[a-z@.:]{0,12}[ -~]{0,20}", bytes in proptest::collection::vec(any::<u8>(), 0..30),
        ) {
            let target = Uri::from_static("https://example.com/a/b?c=d");
            let mut response = HeaderMap::new();
            for line in [HeaderValue::from_bytes(text.as_bytes()), HeaderValue::from_bytes(&bytes)].into_iter().flatten() {
                response.append(LOCATION, line.clone());
                response.append(CONTENT_LOCATION, line);
            }
            for uri in invalidation_targets(&target, &response) {
                prop_assert!(has_same_origin(&target, &uri), "{}", uri);
                prop_assert!(!uri.path().split('/').any(|segment| segment == ".."), "{}", uri);
            }
        }
    }
}
