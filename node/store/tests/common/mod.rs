//! A key and a head for the tests that count what their process allocates.

use std::time::SystemTime;

use brim_semantics::{
    CacheKey, CachePolicy, KeyMethod, Nominated, RequestFacts, Storable, StoredMeta, Target, storable,
};
use brim_store::{Position, ResponseHead, Scope};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

pub(crate) const AUTHORITY: &str = "api.example.com";

pub(crate) fn key(path: &str) -> CacheKey {
    let target = Target { scheme: "https", authority: AUTHORITY, site: "api", path, query: None, rule: None };
    CacheKey::new(KeyMethod::Get, &target, &[]).expect("a short key")
}

fn meta(headers: &HeaderMap) -> StoredMeta {
    let (request, now) = (HeaderMap::new(), SystemTime::now());
    let target = Uri::from_static("https://api.example.com/");
    let facts = RequestFacts { method: &Method::GET, headers: &request, target: &target };
    match storable(&facts, StatusCode::OK, headers, &CachePolicy::default(), now, now) {
        Storable::Yes(meta) => meta,
        Storable::No(refusal) => panic!("not storable: {refusal:?}"),
    }
}

pub(crate) fn head(path: &str, fields: &[(&'static str, &'static str)], fetched_at: Position) -> ResponseHead {
    let field =
        |(name, value): &(&'static str, &'static str)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let headers: HeaderMap = fields.iter().map(field).collect();
    ResponseHead {
        key: key(path),
        scope: Scope { site: "api".into(), authority: AUTHORITY.into(), path: path.into(), query: None },
        status: StatusCode::OK,
        part: None,
        meta: meta(&headers),
        headers,
        nominated: Nominated::default(),
        surrogate_keys: vec!["products".into()],
        content_keys: Vec::new(),
        fetched_at,
        plugin: None,
    }
}
