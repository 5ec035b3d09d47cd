//! Interim responses of the origin (1xx, RFC 9110 §15.2, RFC 8297) on their way to the client whose request it is about.
//!
//! Always true:
//! - Only a forward that a client waits for is given a [`relay`]: who waits for another's fetch gets none, and a validation
//!   behind a response sends none.
//! - Nothing of them is stored or looked at: the final response alone decides.
//! - 100 is about the content of this node's own request: it sets the content of a client that waits for one free and ends here. 101 is a final response (`upgrade`).
//!
//! Not here: the bounds, and how they are written between the responses of a connection (`listen::interim`).

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, TRAILER};
use http::{HeaderMap, Request, StatusCode, Version};

use super::accept::Inbound;
use super::respond::strip_surrogate_fields;
use crate::config::RouteConfig;
use crate::origin::ForwardBody;
use crate::route::Route;
use crate::telemetry::{Family, Telemetry};

/// Lets `request` send on to the client of `inbound` what comes before the final response. An origin that is spoken to over HTTP/2
/// sends nothing on: hyper's client drops its interim responses.
pub(super) fn relay(
    telemetry: &Arc<Telemetry>,
    route: &Arc<Route>,
    inbound: &Inbound,
    request: &mut Request<ForwardBody>,
) {
    let Some(client) = inbound.connection.interim(inbound.version) else { return };
    let telemetry = telemetry.clone();
    let expectation = inbound.expectation.clone();
    let route = route.clone();
    hyper::ext::on_informational(request, move |response| {
        let status = response.status();
        if status == StatusCode::CONTINUE {
            if let Some(expectation) = &expectation {
                expectation.meet();
            }
            return;
        }
        let fields = fields(response.headers(), response.version(), Some(&route.config));
        let outcome = match client.send(status, &fields) {
            Ok(()) => "relayed",
            Err(reason) => {
                tracing::debug!(%status, %reason, "interim response dropped");
                "dropped"
            }
        };
        telemetry.metrics.count_labelled(Family::InterimResponses, &[outcome]);
    });
}

/// The fields that are sent on: as of a final response, and none that says how long a content is. There is none.
fn fields(received: &HeaderMap, version: Version, route: Option<&RouteConfig>) -> HeaderMap {
    let mut fields = received.clone();
    brim_semantics::strip_hop_by_hop(&mut fields);
    for name in [CONTENT_LENGTH, TRAILER] {
        fields.remove(name);
    }
    strip_surrogate_fields(&mut fields, route);
    brim_semantics::append_via(&mut fields, version);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(fields: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = fields.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    /// RFC 9110 §7.6.1, §8.6: what belongs to one hop, and what would frame a content that is not there, ends here.
    #[test]
    fn what_frames_or_belongs_to_one_hop_is_not_sent_on() {
        let mut received = HeaderMap::new();
        for (name, value) in [
            ("link", "</a.css>; rel=preload"),
            ("link", "</b.js>; rel=preload"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-sum"),
            ("upgrade", "h2c"),
            ("keep-alive", "timeout=1"),
            ("surrogate-key", "a b"),
            ("cache-groups", "\"a\""),
        ] {
            received.append(name, http::HeaderValue::from_static(value));
        }
        let sent = fields(&received, Version::HTTP_11, None);
        assert_eq!(names(&sent), ["link", "via"]);
        assert_eq!(sent.get_all("link").iter().count(), 2);
    }
}
