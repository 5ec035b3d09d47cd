//! One stored response per tenant, and one for all spellings of a query.
//!
//! - The tenant header becomes part of the key, so that no tenant is answered with another's response.
//! - Parameters that only track clicks are dropped, from the key and from what the origin is asked.
//! - The rest is put in order of names; parameters with one name keep their order, since that may mean something.
//!
//! A request that names its tenant twice is not cached: the origin might believe the other line.

use brim_sdk::{CacheKeyRule, Decision, Description, Failure, Request};

/// The header field that names the tenant.
const TENANT: &str = "x-tenant";

/// Parameters that say where a click came from and change no answer.
const TRACKING: [&str; 11] =
    ["fbclid", "gclid", "dclid", "gbraid", "wbraid", "msclkid", "mc_cid", "mc_eid", "igshid", "yclid", "_ga"];

struct TenantKey;

#[brim_sdk::plugin]
impl CacheKeyRule for TenantKey {
    fn describe() -> Description {
        Description::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")).header(TENANT).query()
    }

    fn key(request: &Request) -> Result<Decision, Failure> {
        let mut query = request.query();
        query.retain(|parameter| !is_tracking(&parameter.name()));
        query.sort();
        Ok(Decision::replace_query(&query).part("tenant", request.header(TENANT)?))
    }
}

fn is_tracking(name: &[u8]) -> bool {
    name.starts_with(b"utm_") || TRACKING.iter().any(|tracking| tracking.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use brim_sdk::testing::{MockRequest, decide};
    use brim_sdk::{PartValue, QueryUse};

    use super::*;

    fn query_of(url: &str) -> Option<String> {
        match decide::<TenantKey>(&MockRequest::get(url)).expect("a decision").query_use() {
            QueryUse::Replace(query) => query.clone(),
            QueryUse::Keep => panic!("the query was kept"),
        }
    }

    #[test]
    fn tracking_is_dropped_and_the_rest_put_in_order() {
        assert_eq!(query_of("/items?b=2&utm_source=mail&a=1&gclid=x").as_deref(), Some("a=1&b=2"));
        assert_eq!(query_of("/items?%75tm_source=mail&c"), Some("c".to_owned()));
    }

    #[test]
    fn a_query_of_tracking_alone_is_no_query() {
        assert_eq!(query_of("/items?utm_source=mail"), None);
        assert_eq!(query_of("/items"), None);
    }

    #[test]
    fn parameters_of_one_name_keep_their_order() {
        assert_eq!(query_of("/items?tag=z&page=1&tag=a").as_deref(), Some("page=1&tag=z&tag=a"));
    }

    #[test]
    fn the_tenant_is_part_of_the_key() {
        let decision = decide::<TenantKey>(&MockRequest::get("/").header("X-Tenant", "acme")).expect("a decision");
        assert_eq!(decision.part_named("tenant"), Some(&b"acme"[..].into()));
    }

    #[test]
    fn no_tenant_is_not_the_empty_tenant() {
        let none = decide::<TenantKey>(&MockRequest::get("/")).expect("a decision");
        let empty = decide::<TenantKey>(&MockRequest::get("/").header("x-tenant", "")).expect("a decision");
        assert_eq!(none.part_named("tenant"), Some(&PartValue::Absent));
        assert_ne!(none, empty);
    }

    #[test]
    fn two_tenants_are_not_cached() {
        let request = MockRequest::get("/").header("x-tenant", "a").header("x-tenant", "b");
        assert!(decide::<TenantKey>(&request).is_err());
    }
}
