//! Responses made from a number and a version, as brim-store takes them and as plain text for others.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::bail;
use brim_semantics::{
    CacheKey, CachePolicy, KeyMethod, Nominated, RequestFacts, Storable, StoredMeta, Target, storable,
};
use brim_store::{Finished, Position, ResponseHead, Scope, Store};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

const SITE: &str = "api";
const AUTHORITY: &str = "api.example.com";
/// The surrogate keys that every even and every odd number has.
const PARITIES: [&str; 2] = ["even", "odd"];

/// The fields of every response but its `ETag`: about 600 bytes, as an API behind a framework and a proxy sends them.
const FIELDS: [(&str, &str); 13] = [
    ("content-type", "application/json; charset=utf-8"),
    ("cache-control", "public, max-age=86400, stale-while-revalidate=600"),
    ("date", "Mon, 23 Nov 2026 08:12:31 GMT"),
    ("last-modified", "Sun, 22 Nov 2026 21:40:06 GMT"),
    ("content-language", "en"),
    ("vary", "accept-encoding"),
    ("server", "nginx"),
    ("access-control-allow-origin", "https://www.example.com"),
    ("strict-transport-security", "max-age=63072000; includeSubDomains; preload"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("x-content-type-options", "nosniff"),
    ("x-request-id", "7b4c1f0e-5f3a-4b1e-9a51-2f6f0d8f9c11"),
    ("link", "</v2/products?page=2>; rel=\"next\", </v2/products?page=40>; rel=\"last\""),
];

/// Makes keys and heads.
#[derive(Debug)]
pub struct Responses {
    headers: HeaderMap,
    meta: StoredMeta,
    nominated: Nominated,
    site: Arc<str>,
}

fn path(number: u64) -> String {
    format!("/v2/products/{number}/details")
}

fn etag(number: u64, version: u32) -> String {
    format!("\"{number:016x}-{version:08x}\"")
}

impl Responses {
    /// Decides once what is the same for all.
    pub fn new() -> anyhow::Result<Self> {
        let mut headers = HeaderMap::new();
        for (name, value) in FIELDS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let request = HeaderMap::new();
        let (target, now) = (Uri::from_static("https://api.example.com/"), SystemTime::now());
        let facts = RequestFacts { method: &Method::GET, headers: &request, target: &target };
        let meta = match storable(&facts, StatusCode::OK, &headers, &CachePolicy::default(), now, now) {
            Storable::Yes(meta) => meta,
            Storable::No(refusal) => bail!("the sample response may not be stored: {}", refusal.as_detail()),
        };
        let Ok(nominated) = Nominated::of(&headers, &request) else {
            bail!("the sample response varies on everything")
        };
        Ok(Self { headers, meta, nominated, site: SITE.into() })
    }

    /// The cache key of a number.
    pub fn key(number: u64) -> anyhow::Result<CacheKey> {
        let path = path(number);
        let target = Target { scheme: "https", authority: AUTHORITY, site: SITE, path: &path, query: None, rule: None };
        Ok(CacheKey::new(KeyMethod::Get, &target, &[])?)
    }

    /// The head of a number as brim-store takes it.
    pub fn head(&self, number: u64, version: u32, fetched_at: Position) -> anyhow::Result<ResponseHead> {
        let mut headers = self.headers.clone();
        headers.insert(http::header::ETAG, HeaderValue::try_from(etag(number, version))?);
        let scope =
            Scope { site: Arc::clone(&self.site), authority: AUTHORITY.into(), path: path(number).into(), query: None };
        Ok(ResponseHead {
            key: Self::key(number)?,
            scope,
            status: StatusCode::OK,
            part: None,
            meta: self.meta.clone(),
            headers,
            nominated: self.nominated.clone(),
            surrogate_keys: vec![Self::parity(number).into(), format!("product-{number}").into()],
            content_keys: Vec::new(),
            fetched_at,
            plugin: None,
        })
    }

    /// The same head as text.
    pub fn head_text(number: u64, version: u32) -> String {
        let mut text = String::with_capacity(1024);
        text.push_str("HTTP/1.1 200 OK\r\n");
        for (name, value) in FIELDS {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let _ = write!(text, "etag: {}\r\n\r\n", etag(number, version));
        text
    }

    /// The surrogate key that half of the numbers have.
    pub fn parity(number: u64) -> &'static str {
        PARITIES[usize::from(number % 2 == 1)]
    }
}

/// Stores a response. An error is a mistake of the measurement: everything it stores fits.
pub async fn store(store: &Store, head: ResponseHead, content: Bytes) -> anyhow::Result<()> {
    let mut fill = store.begin(head, Some(content.len() as u64));
    fill.append(content).await?;
    match fill.finish(None).await {
        Finished::Stored(_) => Ok(()),
        Finished::NotStored(reason) => bail!("a response is not stored: {}", reason.as_detail()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_about_600_bytes_of_fields() {
        let text = Responses::head_text(60_000, 3);
        assert!((550..700).contains(&text.len()), "{}", text.len());
        let head = Responses::new().unwrap().head(60_000, 3, Position(0)).unwrap();
        assert_eq!(head.headers.len(), FIELDS.len() + 1);
        assert_ne!(Responses::key(1).unwrap().hash(), Responses::key(2).unwrap().hash());
    }
}
