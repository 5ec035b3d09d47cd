//! Forward: the request as the origin gets it (RFC 9110 §7.6).
//!
//! Always true:
//! - Fields that make some origins read another method, URL or host are forwarded only where the key rule reads them.
//! - Fields of one hop end here; `Via` is appended; `Forwarded` and `X-Forwarded-*` are this node's own words.
//! - A request that may fill the store carries none of its client's conditions: those are answered from what is stored. Of its
//!   ranges it carries what `partial` decides.
//! - The query is the one that was keyed.
//!
//! Not here: connections, deadlines and endpoints (`origin`), what becomes of the response (`fill`).

use std::sync::Arc;

use brim_semantics::{ForwardedFacts, Trust};
use brim_store::StoredResponse;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, MAX_FORWARDS, RANGE, TE,
    UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use super::accept::Inbound;
use super::error::{BadRequest, RequestError};
use super::partial::Ask;
use crate::origin::ForwardBody;

/// What a forward request is for.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// To answer this client alone, as it asked.
    Pass,
    /// To become another protocol.
    Upgrade,
    /// To fill the store.
    Fill(&'a Ask),
    /// To validate a stored response, or replace it (RFC 9111 §4.3.1).
    Validate(&'a StoredResponse, &'a Ask),
    /// To fill the store with a variant, unless the origin names one of these that will do (RFC 9111 §4.1).
    Select(&'a [Arc<StoredResponse>], &'a Ask),
}

/// The request for the origin. `keyed`: the fields that the route's key rule declares. The content goes separately: only [`Purpose::Pass`] has any.
pub fn request(
    inbound: &Inbound,
    purpose: Purpose<'_>,
    keyed: &[HeaderName],
    body: ForwardBody,
) -> Result<Request<ForwardBody>, RequestError> {
    let mut headers = inbound.headers.clone();
    brim_semantics::strip_override_fields(&mut headers, keyed);
    let protocol = headers.get(UPGRADE).cloned();
    brim_semantics::strip_hop_by_hop(&mut headers);
    if inbound.takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let method = match purpose {
        Purpose::Pass => {
            // RFC 9110 §10.1.1: not without content, and HTTP/1.0 does not know it.
            if !inbound.has_content || inbound.version < Version::HTTP_11 {
                headers.remove(EXPECT);
            }
            inbound.method.clone()
        }
        Purpose::Upgrade => {
            remove_content_fields(&mut headers);
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.extend(protocol.map(|protocol| (UPGRADE, protocol)));
            inbound.method.clone()
        }
        Purpose::Fill(ask) => {
            let method = fetch_method(inbound, &mut headers);
            remove_conditions(&mut headers);
            ask.write_to(&mut headers, &inbound.headers);
            method
        }
        Purpose::Validate(stored, ask) => {
            let method = fetch_method(inbound, &mut headers);
            brim_semantics::make_conditional(&mut headers, &stored.head.headers);
            ask.write_to(&mut headers, &inbound.headers);
            method
        }
        Purpose::Select(others, ask) => {
            let method = fetch_method(inbound, &mut headers);
            let others = others.iter().map(|one| &one.head.headers);
            brim_semantics::make_conditional_on_any(&mut headers, others);
            ask.write_to(&mut headers, &inbound.headers);
            method
        }
    };
    if let Some(left) = forwards_left(&inbound.method, &headers) {
        headers.insert(MAX_FORWARDS, HeaderValue::from(left));
    }
    let authority = HeaderValue::from_str(&inbound.authority).map_err(|_| BadRequest::Host)?;
    headers.insert(HOST, authority);
    let facts = ForwardedFacts { client: inbound.client.ip(), scheme: inbound.scheme, authority: &inbound.authority };
    brim_semantics::set_forwarded(&mut headers, &facts, Trust::Replace);
    brim_semantics::append_via(&mut headers, inbound.version);
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = target(inbound)?;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    Ok(request)
}

/// GET, whatever the client's method, and without content; a QUERY is a question of its own, and its content says which.
fn fetch_method(inbound: &Inbound, headers: &mut HeaderMap) -> Method {
    remove_content_fields(headers);
    if inbound.query_content.is_some() { inbound.method.clone() } else { Method::GET }
}

/// `Max-Forwards` less this hop (RFC 9110 §7.6.2).
fn forwards_left(method: &Method, headers: &HeaderMap) -> Option<u32> {
    if *method != Method::OPTIONS && *method != Method::TRACE {
        return None;
    }
    headers.get(MAX_FORWARDS)?.to_str().ok()?.parse::<u32>().ok()?.checked_sub(1)
}

/// These requests have no content, or one whose length is known: an origin that was told another would read the next request
/// for it.
fn remove_content_fields(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    headers.remove(EXPECT);
}

/// What makes a request conditional or partial.
const CONDITIONS: [HeaderName; 4] = [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE, RANGE];

/// Whether the origin could answer less than the whole.
pub(super) fn has_conditions(headers: &HeaderMap) -> bool {
    CONDITIONS.iter().any(|name| headers.contains_key(name))
}

/// Takes out what makes a request conditional or partial.
pub(super) fn remove_conditions(headers: &mut HeaderMap) {
    for name in &CONDITIONS {
        headers.remove(name);
    }
}

/// The absolute target URI, with the query that was keyed.
pub fn target(inbound: &Inbound) -> Result<Uri, RequestError> {
    let path_and_query = match &inbound.query_replaced {
        None => inbound.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
        Some(None) => inbound.path().parse().map_err(|_| BadRequest::Target)?,
        Some(Some(query)) => format!("{}?{query}", inbound.path()).parse().map_err(|_| BadRequest::Target)?,
    };
    Uri::builder()
        .scheme(inbound.scheme)
        .authority(&*inbound.authority)
        .path_and_query(path_and_query)
        .build()
        .map_err(|_| BadRequest::Target.into())
}
