//! What a forward request says about its way: `Via` (RFC 9110 §7.6.3), `Forwarded` (RFC 7239), `X-Forwarded-*`; and the fields
//! that some origins take for another method or URL.
//!
//! Always true:
//! - What a client says about its own address, scheme or host is replaced, unless the peer is trusted to have written it.
//! - No field that overrides method or URL passes unless the cache key depends on it (attacks A1, A5).
//!
//! Not here: which peers are trusted (configuration).

use std::borrow::Cow;
use std::fmt::Write;
use std::net::IpAddr;

use http::Version;
use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue, VIA};

use crate::CacheStatus;
use crate::fields::{is_token, list_members};

/// Fields by which some frameworks let a request change its method, URL, host, scheme or client address. A cache does not see
/// what they change, so they are not passed on. (`X-Forwarded-For`, `-Host` and `-Proto` are written by [`set_forwarded`].)
pub const OVERRIDE_FIELDS: &[&str] = &[
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-original-uri",
    "x-original-host",
    "x-original-method",
    "x-rewrite-url",
    "x-override-url",
    "x-http-destinationurl",
    "x-http-host-override",
    "x-host",
    "x-host-override",
    "x-forwarded",
    "x-forwarded-by",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-uri",
    "x-forwarded-url",
    "x-forwarded-protocol",
    "x-forwarder-for",
    "forwarded-for",
    "x-url-scheme",
    "x-scheme",
    "front-end-https",
    "x-base-url",
    "x-proxy-url",
    "x-real-ip",
    "x-real-host",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-originating-ip",
    "true-client-ip",
    "client-ip",
];

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Whether the peer's own `Forwarded` and `X-Forwarded-*` are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The peer is a client: what it says is replaced.
    Replace,
    /// The peer is a proxy of ours: what it says is kept and added to.
    Append,
}

/// What this node knows about a request by itself.
#[derive(Debug, Clone, Copy)]
pub struct ForwardedFacts<'a> {
    /// The peer's address.
    pub client: IpAddr,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The request's authority.
    pub authority: &'a str,
}

/// Appends this node to `Via`, with the protocol version that the message was received by.
pub fn append_via(headers: &mut HeaderMap, received: Version) {
    let value = match received {
        Version::HTTP_2 => HeaderValue::from_static("2 brim"),
        Version::HTTP_3 => HeaderValue::from_static("3 brim"),
        Version::HTTP_10 => HeaderValue::from_static("1.0 brim"),
        _ => HeaderValue::from_static("1.1 brim"),
    };
    headers.append(VIA, value);
}

/// How many nodes of this name a message has passed, by its `Via`: many of them are a loop.
pub fn via_passes(headers: &HeaderMap) -> usize {
    let by =
        |member: &[u8]| member.split(|byte| matches!(byte, b' ' | b'\t')).nth(1) == Some(CacheStatus::NAME.as_bytes());
    list_members(headers.get_all(VIA)).filter(|member| by(member)).count()
}

/// Writes `Forwarded`, `X-Forwarded-For`, `X-Forwarded-Host` and `X-Forwarded-Proto` of a forward request.
///
/// With [`Trust::Append`], host and scheme stay what the first trusted proxy saw.
pub fn set_forwarded(headers: &mut HeaderMap, facts: &ForwardedFacts<'_>, trust: Trust) {
    let scheme = match facts.scheme {
        "http" => Ok(HeaderValue::from_static("http")),
        "https" => Ok(HeaderValue::from_static("https")),
        other => HeaderValue::from_str(other),
    };
    let fields = [
        (FORWARDED, HeaderValue::try_from(forwarded_element(facts))),
        (X_FORWARDED_FOR.clone(), HeaderValue::try_from(facts.client.to_string())),
        (X_FORWARDED_HOST.clone(), HeaderValue::from_str(facts.authority)),
        (X_FORWARDED_PROTO.clone(), scheme),
    ];
    for (name, value) in fields {
        // An authority that is no field value was refused long before; it is not passed on here either.
        let Ok(value) = value else {
            headers.remove(name);
            continue;
        };
        let is_list = name == FORWARDED || name == X_FORWARDED_FOR;
        match trust {
            Trust::Append if is_list => {
                headers.append(name, value);
            }
            Trust::Append if headers.contains_key(&name) => {}
            Trust::Append | Trust::Replace => {
                headers.insert(name, value);
            }
        }
    }
}

/// RFC 7239 §4: values that are no tokens are quoted, IPv6 addresses are in brackets (§6).
fn forwarded_element(facts: &ForwardedFacts<'_>) -> String {
    let mut element = String::with_capacity(96 + facts.authority.len());
    // A `String` takes everything.
    let _ = match facts.client {
        IpAddr::V4(address) => write!(element, "for={address}"),
        IpAddr::V6(address) => write!(element, "for=\"[{address}]\""),
    };
    for (name, value) in [(";host=", facts.authority), (";proto=", facts.scheme)] {
        element.push_str(name);
        if is_token(value.as_bytes()) {
            element.push_str(value);
        } else {
            element.push('"');
            element.push_str(&escaped(value));
            element.push('"');
        }
    }
    element
}

fn escaped(text: &str) -> Cow<'_, str> {
    if text.contains(['\\', '"']) { text.replace('\\', "\\\\").replace('"', "\\\"").into() } else { text.into() }
}

/// Removes [`OVERRIDE_FIELDS`], but for those that are part of the cache key.
pub fn strip_override_fields(headers: &mut HeaderMap, keyed: &[HeaderName]) {
    // CGI, WSGI and their like make one variable of `X_Host` and `X-Host`.
    let is_override = |name: &HeaderName| {
        let text = name.as_str();
        let is_named = OVERRIDE_FIELDS.contains(&text) || (text.contains('_') && is_disguised(text, keyed));
        is_named && !keyed.contains(name)
    };
    // A pass over the few fields that there are, instead of looking for each of the names.
    let overriding: Vec<HeaderName> = headers.keys().filter(|name| is_override(name)).cloned().collect();
    for name in overriding {
        headers.remove(name);
    }
}

fn is_disguised(name: &str, keyed: &[HeaderName]) -> bool {
    let dashed = name.replace('_', "-");
    // What looks like a keyed field to the origin would speak for it without being in the key.
    keyed.iter().any(|keyed| keyed.as_str() == dashed)
        || OVERRIDE_FIELDS.contains(&dashed.as_str())
        || dashed == "forwarded"
        || dashed.starts_with("x-forwarded-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn texts(headers: &HeaderMap, name: &str) -> Vec<String> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    /// An underscore in place of a dash makes the same variable for some origins.
    #[test]
    fn disguised_override_fields_go_too() {
        let mut message = headers(&[
            ("x_forwarded_host", "evil"),
            ("x_http_method_override", "DELETE"),
            ("x-forwarded_proto", "http"),
            ("x_mine", "kept"),
        ]);
        let mut keyed = message.clone();
        strip_override_fields(&mut message, &[]);
        assert_eq!(message.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x_mine"]);
        strip_override_fields(&mut keyed, &[HeaderName::from_static("x-mine")]);
        assert!(keyed.is_empty(), "what looks like a keyed field goes too");
    }

    /// RFC 9110 §7.6.3: the version the message came by, behind what is there.
    #[test]
    fn via_names_the_received_version() {
        let mut message = headers(&[("via", "1.0 fred, 1.1 brim (x)")]);
        append_via(&mut message, Version::HTTP_11);
        append_via(&mut message, Version::HTTP_2);
        assert_eq!(texts(&message, "via"), ["1.0 fred, 1.1 brim (x)", "1.1 brim", "2 brim"]);
        assert_eq!(via_passes(&message), 3);
        assert_eq!(via_passes(&headers(&[("via", "1.1 brimful, 1.1 a brim, brim")])), 0);
        assert_eq!(via_passes(&HeaderMap::new()), 0);
    }

    /// Attack A1: a client's word about itself is not passed on.
    #[test]
    fn clients_cannot_speak_for_themselves() {
        let mut request = headers(&[
            ("forwarded", "for=evil"),
            ("x-forwarded-for", "evil"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-proto", "evil"),
        ]);
        let facts = ForwardedFacts { client: "::1".parse().unwrap(), scheme: "https", authority: "example.com:8443" };
        set_forwarded(&mut request, &facts, Trust::Replace);
        assert_eq!(texts(&request, "forwarded"), ["for=\"[::1]\";host=\"example.com:8443\";proto=https"]);
        assert_eq!(texts(&request, "x-forwarded-for"), ["::1"]);
        assert_eq!(texts(&request, "x-forwarded-host"), ["example.com:8443"]);
        assert_eq!(texts(&request, "x-forwarded-proto"), ["https"]);
    }

    /// RFC 7239 §4: proxies add to what is there.
    #[test]
    fn a_trusted_proxy_is_believed() {
        let mut request = headers(&[
            ("forwarded", "for=192.0.2.1"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
        ]);
        let facts = ForwardedFacts { client: "192.0.2.9".parse().unwrap(), scheme: "http", authority: "example.com" };
        set_forwarded(&mut request, &facts, Trust::Append);
        assert_eq!(texts(&request, "forwarded"), ["for=192.0.2.1", "for=192.0.2.9;host=example.com;proto=http"]);
        assert_eq!(texts(&request, "x-forwarded-for"), ["192.0.2.1", "192.0.2.9"]);
        assert_eq!(texts(&request, "x-forwarded-proto"), ["https"]);
        assert_eq!(texts(&request, "x-forwarded-host"), ["example.com"]);
    }

    #[test]
    fn a_quoted_host_stays_quoted() {
        let facts = ForwardedFacts { client: "192.0.2.9".parse().unwrap(), scheme: "http", authority: "a\"\\;b" };
        assert_eq!(forwarded_element(&facts), r#"for=192.0.2.9;host="a\"\\;b";proto=http"#);
    }

    /// Attack A5: what changes the method or the URL behind the cache's back is not passed on, unless it is keyed.
    #[test]
    fn overrides_pass_only_where_they_are_keyed() {
        let mut request =
            headers(&[("x-http-method-override", "DELETE"), ("x-original-url", "/admin"), ("x-other", "1")]);
        strip_override_fields(&mut request, &[HeaderName::from_static("x-original-url")]);
        assert_eq!(request, headers(&[("x-original-url", "/admin"), ("x-other", "1")]));
        for name in OVERRIDE_FIELDS {
            assert_eq!(
                HeaderName::from_bytes(name.as_bytes()).unwrap().as_str(),
                *name,
                "lower case, and a field name"
            );
        }
    }
}
