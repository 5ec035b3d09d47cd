//! Accept: what a request must be before any rule looks at it (RFC 9110 §7, RFC 9112 §3).
//!
//! Always true:
//! - Fields that `Connection` names end here: what the origin does not get, no key and no `Vary` goes by.
//! - Behind this stage a request has one authority, lower case and without its scheme's default port, and a path that begins with `/`.
//!
//! Not here: sizes and counts of a head, which the listener limits; which fields are forwarded (`forward`).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use brim_semantics::RequestDirectives;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;

use super::error::{BadRequest, RequestError};
use crate::config::UpgradePolicy;
use crate::listen::{ConnectionInfo, Protocol};
use crate::origin::Expectation;

/// A request as the stages see it.
#[derive(Debug)]
pub struct Inbound {
    /// The method as sent.
    pub method: Method,
    /// `http` or `https`, by the connection it came on.
    pub scheme: &'static str,
    /// Host and, unless it is the scheme's own, port; lower case.
    pub authority: Box<str>,
    /// The path as sent, nothing decoded.
    pub uri: Uri,
    /// The query that is keyed and forwarded, where a cache-key rule replaced the client's.
    pub query_replaced: Option<Option<String>>,
    /// The fields as sent, without those that `Connection` names (RFC 9110 §7.6.1).
    pub headers: HeaderMap,
    /// What the request asks of caches (RFC 9111 §5.2.1).
    pub directives: RequestDirectives,
    /// The protocol version it came in.
    pub version: Version,
    /// The client's end of the connection.
    pub client: SocketAddr,
    /// The connection it came on.
    pub connection: Arc<ConnectionInfo>,
    /// Content follows, or may follow.
    pub has_content: bool,
    /// The content of a QUERY, once it was read for its key.
    pub query_content: Option<Bytes>,
    /// The content of a request that is not safe, where a rule reads it and it is short enough.
    pub write_content: Option<Bytes>,
    /// Bytes of content that have been read; counted where there is content.
    pub content_count: Option<Arc<AtomicU64>>,
    /// Where there is content that the client sends when it is asked for it.
    pub expectation: Option<Arc<Expectation>>,
    /// It takes trailer fields with its response (RFC 9110 §6.5.1).
    pub takes_trailers: bool,
    /// It asks for another protocol (RFC 9110 §7.8).
    pub is_upgrade: bool,
    /// The client's end of the tunnel that it may become.
    pub on_upgrade: Option<OnUpgrade>,
}

impl Inbound {
    /// Takes a request apart; nothing is checked yet, and the authority is still empty.
    pub fn new(request: Request<Incoming>, connection: Arc<ConnectionInfo>) -> (Self, Incoming) {
        let (mut parts, content) = request.into_parts();
        let has_content = !content.is_end_stream();
        join_cookies(&mut parts.headers, parts.version);
        let (is_upgrade, takes_trailers) = strip_connection_fields(&mut parts.headers, parts.version);
        let expectation = (has_content && expects_continue(&parts.headers, parts.version)).then(Arc::default);
        let inbound = Self {
            method: parts.method,
            scheme: if connection.tls.is_some() { "https" } else { "http" },
            authority: Box::default(),
            uri: parts.uri,
            query_replaced: None,
            directives: RequestDirectives::parse(&parts.headers),
            is_upgrade,
            takes_trailers,
            headers: parts.headers,
            version: parts.version,
            client: connection.peer,
            connection,
            on_upgrade: parts.extensions.remove::<OnUpgrade>(),
            query_content: None,
            write_content: None,
            has_content,
            content_count: has_content.then(Arc::default),
            expectation,
        };
        (inbound, content)
    }

    /// A request that nobody sent, to be explained: as an HTTP/1.1 client would send it over `scheme`, `target` in origin-form
    /// and `Host` among the fields. Content is what the fields announce.
    pub(super) fn supposed(
        method: Method,
        scheme: &'static str,
        target: Uri,
        mut headers: HeaderMap,
        content: Bytes,
    ) -> Self {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let has_content =
            !content.is_empty() || headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length > 0);
        let (is_upgrade, takes_trailers) = strip_connection_fields(&mut headers, Version::HTTP_11);
        let client = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            scheme,
            authority: Box::default(),
            uri: target,
            query_replaced: None,
            directives: RequestDirectives::parse(&headers),
            is_upgrade,
            takes_trailers,
            has_content,
            write_content: None,
            query_content: (method.as_str() == "QUERY").then_some(content),
            headers,
            version: Version::HTTP_11,
            client,
            connection: Arc::new(ConnectionInfo::new(client, client, None, Protocol::Http1)),
            on_upgrade: None,
            content_count: None,
            expectation: None,
            method,
        }
    }

    /// The path as sent.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// The query that is keyed and forwarded.
    pub fn query(&self) -> Option<&str> {
        match &self.query_replaced {
            Some(replaced) => replaced.as_deref(),
            None => self.uri.query(),
        }
    }

    /// Bytes of content that have been read so far.
    pub fn received_bytes(&self) -> u64 {
        self.content_count.as_ref().map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// True for the methods that a stored response can answer: GET and HEAD, and a QUERY whose content has been read.
    pub fn is_cacheable_method(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD || self.query_content.is_some()
    }

    /// True for QUERY (RFC 10008): safe, and answered according to its content.
    pub fn is_query(&self) -> bool {
        self.method.as_str() == "QUERY"
    }
}

/// Takes out the fields of this hop. Whether they ask for another protocol, and whether they take trailers.
fn strip_connection_fields(headers: &mut HeaderMap, version: Version) -> (bool, bool) {
    let is_upgrade = version == Version::HTTP_11 && wants_upgrade(headers);
    let takes_trailers = takes_trailers(headers);
    // An upgrade goes past every key, and needs these fields for its own.
    if !is_upgrade && headers.contains_key(CONNECTION) {
        brim_semantics::strip_hop_by_hop(headers);
    }
    (is_upgrade, takes_trailers)
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    let is_trailers = |coding: &str| coding.trim().eq_ignore_ascii_case("trailers");
    headers.get_all(TE).iter().any(|te| te.to_str().is_ok_and(|te| te.split(',').any(is_trailers)))
}

/// Times that a request may pass through nodes of this kind. A chain of tiers is short; a longer one is a loop.
pub const PASSES_MAX: usize = 8;

/// Checks a request and gives it its authority.
pub fn check(inbound: &mut Inbound, upgrade: UpgradePolicy) -> Result<(), RequestError> {
    if inbound.method == Method::CONNECT {
        return Err(RequestError::ConnectRefused);
    }
    // First of all, so that the log names it whatever follows.
    inbound.authority = authority(&inbound.uri, &inbound.headers, inbound.scheme)?;
    if inbound.version >= Version::HTTP_2 && names_other_host(inbound) {
        return Err(BadRequest::OtherHost.into());
    }
    if inbound.is_upgrade && upgrade == UpgradePolicy::Refuse {
        return Err(RequestError::UpgradeRefused);
    }
    if inbound.is_upgrade && inbound.has_content {
        return Err(BadRequest::UpgradeWithContent.into());
    }
    if brim_semantics::via_passes(&inbound.headers) >= PASSES_MAX {
        return Err(RequestError::Loop);
    }
    let is_server_wide = inbound.method == Method::OPTIONS && inbound.path() == "*";
    if !inbound.path().starts_with('/') && !is_server_wide {
        return Err(BadRequest::Target.into());
    }
    Ok(())
}

/// The authority of the target URI (RFC 9110 §7.1): an absolute target or `:authority` counts before `Host`.
fn authority(uri: &Uri, headers: &HeaderMap, scheme: &str) -> Result<Box<str>, BadRequest> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(BadRequest::SeveralHosts);
    }
    let named = match (uri.authority(), host) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host.to_str().map_err(|_| BadRequest::Host)?,
        (None, None) => return Err(BadRequest::NoHost),
    };
    if !is_plain_authority(named) {
        let parsed: http::uri::Authority = named.parse().map_err(|_| BadRequest::Host)?;
        if named.contains('@') || parsed.host().is_empty() {
            return Err(BadRequest::Host);
        }
    }
    Ok(brim_semantics::normal_authority(scheme, named).into_owned().into_boxed_str())
}

/// True if `Host` is there beside `:authority` and names another one (RFC 9113 §8.3.1). Over HTTP/1.1 the authority of an
/// absolute target counts, and `Host` is not heard (RFC 9112 §3.2.2).
fn names_other_host(inbound: &Inbound) -> bool {
    let is_same = |host: &HeaderValue| {
        host.to_str().is_ok_and(|host| *brim_semantics::normal_authority(inbound.scheme, host) == *inbound.authority)
    };
    inbound.uri.authority().is_some() && inbound.headers.get(HOST).is_some_and(|host| !is_same(host))
}

/// True for a name or an IPv4 address in lower case, with or without a port of digits: valid without a closer look.
fn is_plain_authority(named: &str) -> bool {
    let (host, port) = named.split_once(':').unwrap_or((named, "80"));
    let is_name_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
    !host.is_empty()
        && host.bytes().all(is_name_byte)
        && (1..=5).contains(&port.len())
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok()
}

/// HTTP/2 clients may cut `Cookie` into crumbs; origins expect one line (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap, version: Version) {
    if version != Version::HTTP_2 || headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

/// True if the request asks for another protocol. `h2c` is none: RFC 9113 §3.1 lets a server ignore it, and clients try it unasked.
fn wants_upgrade(headers: &HeaderMap) -> bool {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let is_named = named.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    is_named
        && headers.get_all(UPGRADE).iter().any(|value| {
            value.to_str().map_or(true, |protocols| {
                protocols.split(',').any(|protocol| !protocol.trim().eq_ignore_ascii_case("h2c"))
            })
        })
}

/// True if the client waits for 100 and will get it: from hyper's server, which knows it for HTTP/1.1 alone and looks at the
/// last line.
fn expects_continue(headers: &HeaderMap, version: Version) -> bool {
    version == Version::HTTP_11
        && headers
            .get_all(EXPECT)
            .iter()
            .next_back()
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn an_authority_comes_from_the_target_before_host_and_is_normal() {
        let uri: Uri = "http://A.Example:80/x".parse().unwrap();
        assert_eq!(&*authority(&uri, &headers(&[("host", "other")]), "http").unwrap(), "a.example");
        let uri: Uri = "/x".parse().unwrap();
        assert_eq!(&*authority(&uri, &headers(&[("host", "B.example:8443")]), "https").unwrap(), "b.example:8443");
    }

    #[test]
    fn a_missing_doubled_or_malformed_host_is_refused() {
        let uri: Uri = "/x".parse().unwrap();
        assert_eq!(authority(&uri, &HeaderMap::new(), "http"), Err(BadRequest::NoHost));
        for host in ["user@a.example", "a.example/x", "", "a b"] {
            assert_eq!(authority(&uri, &headers(&[("host", host)]), "http"), Err(BadRequest::Host), "{host:?}");
        }
        let mut twice = headers(&[("host", "a")]);
        twice.append(HOST, HeaderValue::from_static("b"));
        assert_eq!(authority(&uri, &twice, "http"), Err(BadRequest::SeveralHosts));
    }

    /// The short way says yes only where the long way does.
    #[test]
    fn a_plain_authority_is_a_valid_one() {
        for named in ["a", "a.example", "a.example:8443", "127.0.0.1:80", "x-y.z"] {
            assert!(is_plain_authority(named) && named.parse::<http::uri::Authority>().is_ok(), "{named}");
        }
        for named in ["", ":80", "a:", "a:x", "a:99999", "A", "a b", "a@b", "[::1]", "a/b", "a_b", "a:1:2"] {
            assert!(!is_plain_authority(named), "{named}");
        }
    }

    #[test]
    fn only_a_real_upgrade_counts() {
        for (fields, expected) in [
            (&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")][..], true),
            (&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c")], false),
            (&[("upgrade", "websocket")], false),
            (&[("connection", "upgrade")], false),
        ] {
            assert_eq!(wants_upgrade(&headers(fields)), expected, "{fields:?}");
        }
    }
}
