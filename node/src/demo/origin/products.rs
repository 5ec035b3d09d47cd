//! `/products` and `/search`: lists in pages, single products in two languages, writes.

use std::sync::Arc;
use std::time::SystemTime;

use http::header::{CONTENT_LANGUAGE, CONTENT_LOCATION, ETAG, IF_MATCH, LINK, LOCATION, VARY};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::catalogue::{Catalogue, Draft, Part, Product, Selection, Sort, WriteError};
use super::language::Language;
use super::query::Query;
use super::respond::{Answer, NO_STORE, SURROGATE_KEY};

/// A larger page is refused: its surrogate keys alone would fill a head.
pub(super) const LIMIT_MAX: usize = 100;
const LIMIT_DEFAULT: usize = 20;
/// Far above any product, far below what could hurt.
const WRITE_BYTES_MAX: usize = 64 * 1024;

const LIST_CACHE_CONTROL: &str = "public, max-age=60, stale-while-revalidate=30";
const PRODUCT_CACHE_CONTROL: &str = "public, max-age=300";
/// What a link encodes: everything but the unreserved characters (RFC 3986 §2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const LIST_METHODS: &str = "GET, HEAD, POST";
const PRODUCT_METHODS: &str = "GET, HEAD, PUT, PATCH, DELETE";

pub(super) async fn list(
    catalogue: &Catalogue,
    method: &Method,
    query: &Query,
    headers: &HeaderMap,
    content: Incoming,
) -> Answer {
    match *method {
        Method::GET | Method::HEAD => list_part(catalogue, "/products", query, headers),
        Method::POST => match read_draft(content)
            .await
            .and_then(|draft| catalogue.create(draft, SystemTime::now()).map_err(refusal))
        {
            Ok(product) => {
                let path = format!("/products/{}", product.id);
                written(&product, headers).status(StatusCode::CREATED).field(LOCATION, &path)
            }
            Err(answer) => answer,
        },
        _ => Answer::method_not_allowed(LIST_METHODS),
    }
}

pub(super) fn search(catalogue: &Catalogue, query: &Query, headers: &HeaderMap) -> Answer {
    if query.get("q").is_none_or(str::is_empty) {
        return Answer::error(StatusCode::BAD_REQUEST, "`q` is needed: /search?q=lamp");
    }
    list_part(catalogue, "/search", query, headers)
}

pub(super) async fn product(
    catalogue: &Catalogue,
    id: u32,
    method: &Method,
    headers: &HeaderMap,
    content: Incoming,
) -> Answer {
    let now = SystemTime::now();
    let written = |outcome: Result<Arc<Product>, WriteError>| match outcome {
        Ok(product) => written(&product, headers),
        Err(error) => refusal(error),
    };
    match *method {
        Method::GET | Method::HEAD => match catalogue.get(id) {
            Some(product) => representation(&product, headers),
            None => refusal(WriteError::Unknown),
        },
        Method::PUT | Method::PATCH => match read_draft(content).await {
            Ok(draft) if *method == Method::PUT => written(catalogue.edit(
                id,
                |held| if_match(headers, held),
                |held| draft.whole(id, held.version.wrapping_add(1), now),
            )),
            Ok(draft) => written(catalogue.edit(id, |held| if_match(headers, held), |held| draft.changed(held, now))),
            Err(answer) => answer,
        },
        Method::DELETE => match catalogue.delete(id, |held| if_match(headers, held)) {
            Ok(()) => Answer::new(StatusCode::NO_CONTENT, super::body::text("")).cache_control(NO_STORE),
            Err(error) => refusal(error),
        },
        _ => Answer::method_not_allowed(PRODUCT_METHODS),
    }
}

/// The product in the language the client prefers.
fn representation(product: &Product, headers: &HeaderMap) -> Answer {
    let language = Language::preferred(headers);
    Answer::json(&Shown::of(product, language))
        .cache_control(PRODUCT_CACHE_CONTROL)
        .field(ETAG, &entity_tag(product, language))
        .last_modified(product.modified)
        .field(CONTENT_LANGUAGE, language.tag())
        .field(VARY, "accept-language")
        .field(SURROGATE_KEY, &format!("products product:{}", product.id))
}

/// What a write answers: the new representation, which nobody may keep in place of a GET.
fn written(product: &Product, headers: &HeaderMap) -> Answer {
    representation(product, headers)
        .cache_control(NO_STORE)
        .field(CONTENT_LOCATION, &format!("/products/{}", product.id))
}

/// A product as clients see it. A struct, because its fields keep their order.
#[derive(Serialize)]
struct Shown<'a> {
    id: u32,
    name: &'a str,
    category: &'a str,
    price_cents: u32,
    stock: u32,
    version: u32,
}

impl<'a> Shown<'a> {
    fn of(product: &'a Product, language: Language) -> Self {
        Self {
            id: product.id,
            name: product.name(language),
            category: product.category,
            price_cents: product.price_cents,
            stock: product.stock,
            version: product.version,
        }
    }
}

/// A part of a list as clients see it.
#[derive(Serialize)]
struct ShownPart<'a> {
    items: Vec<Shown<'a>>,
    total: usize,
    next: Option<&'a str>,
}

fn entity_tag(product: &Product, language: Language) -> String {
    format!("\"product-{}-v{}-{}\"", product.id, product.version, language.tag())
}

/// RFC 9110 §13.1.1, with the tag of either language: a write is to the product, not to a translation of it.
fn if_match(headers: &HeaderMap, product: &Product) -> bool {
    !headers.contains_key(IF_MATCH)
        || [Language::English, Language::German].into_iter().any(|language| {
            HeaderValue::from_str(&entity_tag(product, language))
                .is_ok_and(|tag| super::respond::names_tag(headers, &IF_MATCH, &tag))
        })
}

async fn read_draft(content: Incoming) -> Result<Draft, Answer> {
    let content = Limited::new(content, WRITE_BYTES_MAX)
        .collect()
        .await
        .map_err(|_| Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "the content is cut off or larger than 64 KiB"))?;
    serde_json::from_slice(&content.to_bytes())
        .map_err(|error| Answer::error(StatusCode::BAD_REQUEST, &format!("not a product: {error}")))
}

fn refusal(error: WriteError) -> Answer {
    let status = match error {
        WriteError::Unknown => StatusCode::NOT_FOUND,
        WriteError::Incomplete | WriteError::Name | WriteError::Category => StatusCode::UNPROCESSABLE_ENTITY,
        WriteError::Full => StatusCode::INSUFFICIENT_STORAGE,
        WriteError::Precondition => StatusCode::PRECONDITION_FAILED,
    };
    Answer::error(status, &error.to_string())
}

/// Which part of a list is asked for: `page` and `limit`, or `offset` and `limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Paging {
    offset: usize,
    limit: usize,
    by_page: bool,
}

impl Paging {
    fn of(query: &Query) -> Result<Self, &'static str> {
        let limit = match query.number("limit") {
            None => LIMIT_DEFAULT,
            Some(Some(limit @ 1..=LIMIT_MAX)) => limit,
            Some(_) => return Err("`limit` is a number from 1 to 100"),
        };
        match (query.number("page"), query.number("offset")) {
            (Some(_), Some(_)) => Err("`page` and `offset` exclude each other"),
            (None, None) => Ok(Self { offset: 0, limit, by_page: true }),
            (None, Some(Some(offset))) => Ok(Self { offset, limit, by_page: false }),
            (Some(Some(page @ 1..)), None) => {
                Ok(Self { offset: (page - 1).saturating_mul(limit), limit, by_page: true })
            }
            (Some(_), None) => Err("`page` is a number from 1"),
            (None, Some(None)) => Err("`offset` is a number from 0"),
        }
    }

    /// The path and query of the part that begins at `offset`; filters stay.
    fn target(self, path: &str, query: &Query, offset: usize) -> String {
        let mut target = format!("{path}?");
        for name in ["q", "category", "sort"] {
            if let Some(value) = query.get(name) {
                target.push_str(&format!("{name}={}&", utf8_percent_encode(value, RESERVED)));
            }
        }
        let (name, value) = if self.by_page { ("page", offset / self.limit + 1) } else { ("offset", offset) };
        target.push_str(&format!("{name}={value}&limit={}", self.limit));
        target
    }

    /// `next`, `prev`, `first` and `last`, as far as they are (RFC 8288).
    fn links(self, path: &str, query: &Query, total: usize) -> Vec<(&'static str, String)> {
        let target = |offset| self.target(path, query, offset);
        let mut links = vec![("first", target(0))];
        if self.offset > 0 {
            links.push(("prev", target(self.offset.saturating_sub(self.limit))));
        }
        if self.offset.saturating_add(self.limit) < total {
            links.push(("next", target(self.offset + self.limit)));
        }
        links.push(("last", target(total.saturating_sub(1) / self.limit * self.limit)));
        links
    }
}

fn list_part(catalogue: &Catalogue, path: &str, query: &Query, headers: &HeaderMap) -> Answer {
    let paging = match Paging::of(query) {
        Ok(paging) => paging,
        Err(message) => return Answer::error(StatusCode::BAD_REQUEST, message),
    };
    let order = query.get("sort").unwrap_or("id");
    let sort = match order.trim_start_matches('-') {
        "id" => Sort::Id,
        "name" => Sort::Name,
        "price" => Sort::Price,
        _ => return Answer::error(StatusCode::BAD_REQUEST, "`sort` is id, name or price; with - before it descending"),
    };
    let words = query.get("q").map(str::to_lowercase);
    let part = catalogue.select(&Selection {
        category: query.get("category"),
        words: words.as_deref(),
        sort,
        descending: order.starts_with('-'),
        offset: paging.offset,
        limit: paging.limit,
    });
    let links = paging.links(path, query, part.total);
    list_answer(&part, &links, Language::preferred(headers))
}

fn list_answer(part: &Part, links: &[(&'static str, String)], language: Language) -> Answer {
    let items: Vec<_> = part.items.iter().map(|product| Shown::of(product, language)).collect();
    let next = links.iter().find(|(relation, _)| *relation == "next").map(|(_, target)| target.as_str());
    let link_field: Vec<_> = links.iter().map(|(relation, target)| format!("<{target}>; rel=\"{relation}\"")).collect();
    // A list carries the key of each product in it, so that purging one product purges the pages that show it.
    let mut surrogate_keys = String::from("products");
    for product in &part.items {
        surrogate_keys.push_str(&format!(" product:{}", product.id));
    }
    Answer::json(&ShownPart { items, total: part.total, next })
        .cache_control(LIST_CACHE_CONTROL)
        .field(LINK, &link_field.join(", "))
        .field(CONTENT_LANGUAGE, language.tag())
        .field(VARY, "accept-language")
        .field(SURROGATE_KEY, &surrogate_keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(Some(text))
    }

    #[test]
    fn paging_is_by_page_or_by_offset() {
        let paging = |text| Paging::of(&query(text)).map(|paging| (paging.offset, paging.limit));
        assert_eq!(paging(""), Ok((0, 20)));
        assert_eq!(paging("page=3&limit=10"), Ok((20, 10)));
        assert_eq!(paging("offset=7&limit=100"), Ok((7, 100)));
        for refused in ["limit=0", "limit=101", "limit=x", "page=0", "page=-1", "offset=x", "page=1&offset=0"] {
            assert!(paging(refused).is_err(), "{refused}");
        }
        assert_eq!(paging(&format!("page={}&limit=100", usize::MAX)), Ok((usize::MAX, 100)));
    }

    #[test]
    fn links_keep_the_filters_and_stop_at_the_ends() {
        let query = query("category=books&sort=-price&page=2&limit=10&utm_source=mail");
        let paging = Paging::of(&query).expect("a good query");
        assert_eq!(
            paging.links("/products", &query, 25),
            [
                ("first", "/products?category=books&sort=-price&page=1&limit=10".to_owned()),
                ("prev", "/products?category=books&sort=-price&page=1&limit=10".to_owned()),
                ("next", "/products?category=books&sort=-price&page=3&limit=10".to_owned()),
                ("last", "/products?category=books&sort=-price&page=3&limit=10".to_owned()),
            ]
        );
        let relations =
            |total| paging.links("/products", &query, total).into_iter().map(|(rel, _)| rel).collect::<Vec<_>>();
        assert_eq!(relations(20), ["first", "prev", "last"]);
    }

    #[test]
    fn a_list_names_the_surrogate_key_of_each_product() {
        let answer = list_part(&Catalogue::seeded(50), "/products", &query("limit=3"), &HeaderMap::new());
        let response = answer.into_response(&Method::GET, &HeaderMap::new());
        assert_eq!(response.headers()[SURROGATE_KEY], "products product:1 product:2 product:3");
        assert_eq!(response.headers()[VARY], "accept-language");
    }
}
