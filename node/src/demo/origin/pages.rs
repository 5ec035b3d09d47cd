//! Resources that are slow, private, or differ by who asks: `/reports/sales`, `/me`, `/catalogue`, `/home`, `/`.

use std::hash::{DefaultHasher, Hasher};

use http::header::{AUTHORIZATION, USER_AGENT, VARY, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::catalogue::{Catalogue, Selection, Sort};
use super::respond::{Answer, SURROGATE_KEY};

/// Who asks for the catalogue. The origin deliberately sends no `Vary` for it, as so many an API does: it takes the
/// `tenant-key` plugin to cache it rightly.
pub(super) const X_TENANT: HeaderName = HeaderName::from_static("x-tenant");
const TENANT_BYTES_MAX: usize = 64;
const CATALOGUE_ITEMS: usize = 10;

const INDEX: &str = "The sample origin of Brim: a product catalogue.\n
  GET  /products?page=1&limit=20&sort=-price&category=books
  GET  /products/1            PUT, PATCH, DELETE, and POST /products
  GET  /search?q=lamp
  GET  /catalogue             by X-Tenant
  GET  /home                  by User-Agent
  GET  /me                    by Authorization
  GET  /reports/sales         slow
  GET  /bytes/1000000         and ?chunked=1
  GET  /slow/500              in milliseconds
  GET  /status/503            and ?cache-control=max-age%3D10
  GET  /headers
  GET  /trailers
  POST /echo\n";

pub(super) fn index() -> Answer {
    Answer::content("text/plain; charset=utf-8", INDEX).cache_control("public, max-age=60")
}

/// What is in stock, by category. The wait that makes it slow is the caller's.
pub(super) fn sales_report(catalogue: &Catalogue) -> Answer {
    Answer::json(&json!({ "report": "sales", "worth_cents_by_category": catalogue.worth_by_category() }))
        .cache_control("public, max-age=300, stale-while-revalidate=60, stale-if-error=3600")
        .field(SURROGATE_KEY, "reports products")
}

/// The account of whoever presents a credential; the credential itself is not repeated.
pub(super) fn me(headers: &HeaderMap) -> Answer {
    let Some(credential) = headers.get(AUTHORIZATION) else {
        return Answer::error(StatusCode::UNAUTHORIZED, "who are you? Send Authorization: Bearer …")
            .field(WWW_AUTHENTICATE, "Bearer");
    };
    let account = number_of(credential.as_bytes());
    Answer::json(&json!({ "account": format!("{account:016x}"), "points": account % 1000 }))
        .cache_control("private, max-age=60")
        .field(VARY, "authorization")
}

#[derive(Serialize)]
struct TenantPrices<'a> {
    tenant: &'a str,
    price_percent: u64,
    items: Vec<Priced<'a>>,
}

#[derive(Serialize)]
struct Priced<'a> {
    id: u32,
    name: &'a str,
    price_cents: u64,
}

/// The cheapest products at the prices of one tenant.
pub(super) fn tenant_catalogue(catalogue: &Catalogue, headers: &HeaderMap) -> Answer {
    let tenant = match headers.get(X_TENANT).map(|value| value.to_str()) {
        None => "public",
        Some(Ok(name)) if !name.is_empty() && name.len() <= TENANT_BYTES_MAX => name,
        Some(_) => return Answer::error(StatusCode::BAD_REQUEST, "X-Tenant is a name of 1 to 64 characters"),
    };
    // Between 80 and 119 per cent, the same for a tenant at any time.
    let percent = 80 + number_of(tenant.as_bytes()) % 40;
    let part = catalogue.select(&Selection {
        category: None,
        words: None,
        sort: Sort::Price,
        descending: false,
        offset: 0,
        limit: CATALOGUE_ITEMS,
    });
    let items = part.items.iter().map(|product| Priced {
        id: product.id,
        name: &product.name_en,
        price_cents: u64::from(product.price_cents) * percent / 100,
    });
    Answer::json(&TenantPrices { tenant, price_percent: percent, items: items.collect() })
        .cache_control("public, max-age=120")
        .field(SURROGATE_KEY, "catalogue products")
}

/// A page laid out for a class of devices, again without `Vary`: `User-Agent` has so many values that a cache which
/// keeps one response for each never hits. The `device-key` plugin folds them to the same three classes.
pub(super) fn home(headers: &HeaderMap) -> Answer {
    let device = device_class(headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default());
    let columns = match device {
        "mobile" => 1,
        "tablet" => 2,
        _ => 4,
    };
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<title>Catalogue</title>\n\
         <body class=\"{device}\" style=\"columns: {columns}\">\n<h1>Catalogue for a {device} device</h1>\n\
         <p><a href=\"/products\">All products</a></p>\n</body>\n</html>\n"
    );
    Answer::content("text/html; charset=utf-8", page).cache_control("public, max-age=120").field(SURROGATE_KEY, "home")
}

fn device_class(user_agent: &str) -> &'static str {
    let names = |word: &str| user_agent.contains(word);
    if names("iPad") || names("Tablet") || (names("Android") && !names("Mobile")) {
        "tablet"
    } else if names("Mobi") || names("iPhone") {
        "mobile"
    } else {
        "desktop"
    }
}

fn number_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use http::header::CACHE_CONTROL;
    use http::{HeaderValue, Method};

    use super::*;

    #[test]
    fn user_agents_fold_to_three_classes() {
        for (user_agent, expected) in [
            ("Mozilla/5.0 (Windows NT 10.0; Win64; x64)", "desktop"),
            ("Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Mobile/15E148", "mobile"),
            ("Mozilla/5.0 (Linux; Android 16; Pixel 10) Mobile Safari/537.36", "mobile"),
            ("Mozilla/5.0 (Linux; Android 16; SM-X710) Safari/537.36", "tablet"),
            ("Mozilla/5.0 (iPad; CPU OS 19_0 like Mac OS X) Mobile/15E148", "tablet"),
            ("curl/8.14", "desktop"),
            ("", "desktop"),
        ] {
            assert_eq!(device_class(user_agent), expected, "{user_agent}");
        }
    }

    #[test]
    fn an_account_is_private_and_needs_a_credential() {
        let mut headers = HeaderMap::new();
        let response = me(&headers).into_response(&Method::GET, &headers);
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer one"));
        let response = me(&headers).into_response(&Method::GET, &headers);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[CACHE_CONTROL], "private, max-age=60");
    }

    #[test]
    fn a_tenant_that_is_no_name_is_refused() {
        let catalogue = Catalogue::seeded(10);
        for (tenant, expected) in [("acme", StatusCode::OK), ("", StatusCode::BAD_REQUEST)] {
            let mut headers = HeaderMap::new();
            headers.insert(X_TENANT, HeaderValue::from_static(tenant));
            let response = tenant_catalogue(&catalogue, &headers).into_response(&Method::GET, &headers);
            assert_eq!(response.status(), expected, "{tenant:?}");
        }
    }
}
