//! The request line of a forward request: which form of target, which `Host`.
//!
//! Always true: the same request can be made ready again, for another endpoint or another version of HTTP.

use http::header::{CONNECTION, HOST, TE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Uri, Version};

use crate::config::HostHeader;

/// What the endpoint adds to a request line.
#[derive(Debug, Clone)]
pub(super) struct TargetRules {
    pub(super) authority: Authority,
    pub(super) host: HeaderValue,
    pub(super) host_header: HostHeader,
    pub(super) scheme: Scheme,
}

impl TargetRules {
    /// Origin-form with a `Host` field (RFC 9112 §3.2.1). An error is the reason why the request cannot be sent.
    pub(super) fn make_http1<B>(&self, request: &mut Request<B>) -> Result<(), &'static str> {
        check(request)?;
        match self.host_header {
            HostHeader::Endpoint => {
                request.headers_mut().insert(HOST, self.host.clone());
            }
            HostHeader::Client if request.headers().contains_key(HOST) => {}
            HostHeader::Client => {
                let host = match request.uri().authority() {
                    Some(authority) => {
                        HeaderValue::from_str(authority.as_str()).map_err(|_| "its authority is no Host")?
                    }
                    None => self.host.clone(),
                };
                request.headers_mut().insert(HOST, host);
            }
        }
        if request.uri().scheme().is_some() || request.uri().authority().is_some() {
            *request.uri_mut() = path_and_query(request.uri()).into();
        }
        let te = HeaderValue::from_static("TE");
        let headers = request.headers_mut();
        if headers.contains_key(TE) && !headers.get_all(CONNECTION).iter().any(|value| value == te) {
            // RFC 9110 §10.1.4: it is for the next hop only.
            headers.append(CONNECTION, te);
        }
        *request.version_mut() = Version::HTTP_11;
        Ok(())
    }

    /// `:scheme` and `:authority` instead of `Host` (RFC 9113 §8.3.1).
    pub(super) fn make_http2<B>(&self, request: &mut Request<B>) -> Result<(), &'static str> {
        check(request)?;
        let host = request.headers_mut().remove(HOST);
        request.headers_mut().remove(CONNECTION);
        let authority = match (self.host_header, host, request.uri().authority()) {
            (HostHeader::Endpoint, _, _) | (HostHeader::Client, None, None) => self.authority.clone(),
            (HostHeader::Client, Some(host), _) => {
                Authority::try_from(host.as_bytes()).map_err(|_| "its Host is no authority")?
            }
            (HostHeader::Client, None, Some(authority)) => authority.clone(),
        };
        let target = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(authority)
            .path_and_query(path_and_query(request.uri()));
        *request.uri_mut() = target.build().map_err(|_| "its target is no URI")?;
        *request.version_mut() = Version::HTTP_2;
        Ok(())
    }
}

fn check<B>(request: &Request<B>) -> Result<(), &'static str> {
    if request.method() == Method::CONNECT {
        return Err("CONNECT makes a tunnel");
    }
    if request.headers().get_all(HOST).iter().nth(1).is_some() {
        return Err("it has more than one Host");
    }
    Ok(())
}

fn path_and_query(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(host_header: HostHeader) -> TargetRules {
        TargetRules {
            authority: Authority::from_static("origin.test:8000"),
            host: HeaderValue::from_static("origin.test:8000"),
            host_header,
            scheme: Scheme::HTTPS,
        }
    }

    fn request(target: &str, host: Option<&str>) -> Request<()> {
        let mut request = Request::builder().uri(target);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn http1_has_origin_form_and_host() {
        for (target, host, rule, sent, sent_host) in [
            ("/a?b=1", Some("shop.test"), HostHeader::Client, "/a?b=1", "shop.test"),
            ("https://shop.test/a", None, HostHeader::Client, "/a", "shop.test"),
            ("https://other.test/a", Some("shop.test"), HostHeader::Client, "/a", "shop.test"),
            ("/a", None, HostHeader::Client, "/a", "origin.test:8000"),
            ("/a", Some("shop.test"), HostHeader::Endpoint, "/a", "origin.test:8000"),
            ("https://shop.test", None, HostHeader::Client, "/", "shop.test"),
            ("*", Some("shop.test"), HostHeader::Client, "*", "shop.test"),
        ] {
            let mut request = request(target, host);
            rules(rule).make_http1(&mut request).expect("sendable");
            assert_eq!(request.uri().to_string(), sent);
            assert_eq!(request.headers()[HOST], sent_host);
            assert_eq!(request.version(), Version::HTTP_11);
        }
    }

    #[test]
    fn http2_has_scheme_and_authority_and_no_host() {
        for (target, host, rule, sent) in [
            ("/a?b=1", Some("shop.test"), HostHeader::Client, "https://shop.test/a?b=1"),
            ("http://shop.test/a", None, HostHeader::Client, "https://shop.test/a"),
            ("/a", Some("shop.test"), HostHeader::Endpoint, "https://origin.test:8000/a"),
            ("/a", None, HostHeader::Client, "https://origin.test:8000/a"),
        ] {
            let mut request = request(target, host);
            rules(rule).make_http2(&mut request).expect("sendable");
            assert_eq!(request.uri().to_string(), sent);
            assert!(!request.headers().contains_key(HOST));
        }
    }

    #[test]
    fn a_request_can_be_made_ready_again_for_the_other_version() {
        let mut request = request("/a", Some("shop.test"));
        rules(HostHeader::Client).make_http2(&mut request).expect("sendable");
        rules(HostHeader::Client).make_http1(&mut request).expect("sendable");
        assert_eq!(request.uri(), "/a");
        assert_eq!(request.headers()[HOST], "shop.test");
    }

    #[test]
    fn what_has_no_one_target_is_refused() {
        let mut two_hosts = request("/a", Some("shop.test"));
        two_hosts.headers_mut().append(HOST, HeaderValue::from_static("other.test"));
        assert!(rules(HostHeader::Client).make_http1(&mut two_hosts).is_err());
        assert!(rules(HostHeader::Client).make_http2(&mut two_hosts).is_err());
        let mut bad_host = request("/a", Some("a b"));
        assert!(rules(HostHeader::Client).make_http2(&mut bad_host).is_err());
    }
}
