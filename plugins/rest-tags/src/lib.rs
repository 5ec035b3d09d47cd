//! The surrogate keys of a collection in plain REST, so that a write to one item purges the pages on which it appears.
//!
//! | key of the type `product` | who carries it | which writes purge it |
//! |---|---|---|
//! | `product:<id>` | the item, and each page with it | to this item |
//! | `product:lists` | every page of a list | that may add or remove an item |
//! | `product:lists:selected` | every page that may be filtered or ordered | to any item |
//! | `product:unknown` | what is neither an item nor a page whose items all have ids | to any item |
//! | `product:all` | everything | whose effect cannot be told |
//!
//! What is not understood is purged too often, never too seldom. Three things are taken for granted: what stands behind the collection in the path of an
//! item is its id, unless a content says otherwise; language and format say how a page shows its items, not which; and a change of an item neither moves it within a page that nothing filters or orders, nor into or
//! out of it.
//!
//! Configuration, all of it optional:
//!
//! | name | meaning | default |
//! |---|---|---|
//! | `type` | what the keys begin with | `item` |
//! | `list` | JSON pointer to the list in a page's content; empty: the content is the list | empty |
//! | `id` | JSON pointer to the id in an item | `/id` |
//! | `paging` | query parameters that choose a page and neither filter nor order | `page,per_page,page_size,limit,offset,cursor` |
//! | `path` | path of the collection; an item is one segment below it. Without it no path is known to be of an item, and every write purges all | none |

use brim_sdk::{
    Content, Description, Failure, InvalidationRule, KEY_BYTES_MAX, KEYS_MAX, Purges, Reads, Request, Response, Tags,
    Value, config, key_text,
};

/// Fields by which a client says in which form it would like an answer.
const FORM_FIELDS: [&[u8]; 3] = [b"accept", b"accept-encoding", b"accept-language"];
/// Keys besides those of the items: `all`, `lists`, `lists:selected`, `unknown`.
const OTHER_KEYS_MAX: usize = 4;

struct RestTags;

#[brim_sdk::plugin]
impl InvalidationRule for RestTags {
    fn describe() -> Description {
        Description::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
    }

    fn reads() -> Reads {
        let collection = Collection::configured();
        Reads::nothing()
            .response_header("vary")
            .response_value(&collection.list_ids)
            .response_value(&collection.id)
            .request_value(&collection.id)
    }

    fn tags(request: &Request, response: &Response) -> Result<Tags, Failure> {
        Ok(Collection::configured().tags(request, response))
    }

    fn purges(request: &Request, response: &Response) -> Result<Purges, Failure> {
        Ok(Collection::configured().purges(request, response))
    }
}

/// A collection as it is configured.
struct Collection {
    kind: String,
    /// Pointer to the ids on a page.
    list_ids: String,
    /// Pointer to the id in an item.
    id: String,
    paging: Vec<String>,
    path: Option<String>,
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Collection,
    Item(String),
    /// Something else, or unknown.
    Other,
}

impl Collection {
    fn configured() -> Self {
        let or = |name: &str, default: &str| config::get(name).unwrap_or_else(|| default.to_owned());
        let id = or("id", "/id");
        Self {
            kind: or("type", "item"),
            list_ids: format!("{}/*{id}", or("list", "")),
            id,
            paging: or("paging", "page,per_page,page_size,limit,offset,cursor")
                .split(',')
                .map(|name| name.trim().to_owned())
                .collect(),
            path: config::get("path").map(|path| path.trim_end_matches('/').to_owned()),
        }
    }

    fn key(&self, rest: &str) -> String {
        format!("{}:{rest}", key_text(&self.kind))
    }

    /// The id that a value is; none also where it is too long for a key.
    fn id_in(&self, value: &Value) -> Option<String> {
        value.as_id().map(String::from).filter(|id| self.key(id).len() <= KEY_BYTES_MAX)
    }

    fn tags(&self, request: &Request, response: &Response) -> Tags {
        let unknown = || {
            ["all", "lists", "lists:selected", "unknown"].iter().fold(Tags::none(), |tags, key| tags.key(self.key(key)))
        };
        let Content::Values(values) = response.content() else { return unknown() };
        let (listed, own) = (values.at(&self.list_ids), values.at(&self.id));
        let place = self.place(request.path());
        if listed.is_empty() {
            // An item at its own place, and no parameter that could have put others into it.
            if let ([own], Place::Item(id), None) = (own, &place, request.raw_query())
                && self.id_in(own).as_ref() == Some(id)
                && response.status() == 200
            {
                return Tags::none().key(self.key("all")).key(self.key(id));
            }
            // An empty page, or something else.
            return own.iter().filter_map(|own| self.id_in(own)).fold(unknown(), |tags, id| tags.key(self.key(&id)));
        }
        let mut tags = Tags::none().key(self.key("all")).key(self.key("lists"));
        if place != Place::Collection || self.is_selected(request, response) {
            tags.add(self.key("lists:selected"));
        }
        let ids = listed.iter().chain(own).map(|value| self.id_in(value));
        if ids.clone().any(|id| id.is_none()) {
            tags.add(self.key("unknown"));
        }
        for id in ids.flatten() {
            tags.add(self.key(&id));
            if tags.keys().len() > KEYS_MAX - OTHER_KEYS_MAX {
                // More items than a response can have keys.
                return unknown();
            }
        }
        tags
    }

    fn purges(&self, request: &Request, response: &Response) -> Purges {
        let all = || Purges::none().key(self.key("all"));
        // A 201 says that there is an item more (RFC 9110 §9.3.4).
        let is_made = response.status() == 201;
        let (id, has_changed_lists) = match (request.method(), self.place(request.path())) {
            ("POST", Place::Collection) if is_made => (None, true),
            ("PUT" | "PATCH", Place::Item(id)) => (Some(id), is_made),
            ("DELETE", Place::Item(id)) => (Some(id), true),
            // Nobody knows what else it did.
            _ => return all(),
        };
        let Some(mut ids) = self.ids_in(response.content()) else { return all() };
        if ids.is_empty() {
            let Some(sent) = self.ids_in(request.content()) else { return all() };
            ids = sent;
        }
        if let Some(id) = id {
            // Another name of the item: what it is called on pages is another key, and perhaps not even this one.
            if ids.iter().any(|other| *other != id) || self.key(&id).len() > KEY_BYTES_MAX {
                return all();
            }
            ids.push(id);
        }
        let mut purges = Purges::none().key(self.key("lists:selected")).key(self.key("unknown"));
        ids.iter().for_each(|id| purges.add_key(self.key(id)));
        if has_changed_lists {
            purges.add_key(self.key("lists"));
        }
        purges
    }

    /// The ids that a content gives for itself; none where one of them is no id, or it could not be read.
    fn ids_in(&self, content: &Content) -> Option<Vec<String>> {
        match content {
            Content::Values(values) => values.at(&self.id).iter().map(|id| self.id_in(id)).collect(),
            // It may have had one.
            Content::TooLong => None,
            _ => Some(Vec::new()),
        }
    }

    fn place(&self, path: &str) -> Place {
        let Some(collection) = &self.path else { return Place::Other };
        match path.strip_prefix(collection.as_str()).map(|below| (below, below.trim_matches('/'))) {
            Some((_, "")) => Place::Collection,
            Some((below, id)) if below.starts_with('/') && !id.contains('/') => Place::Item(id_of_segment(id)),
            _ => Place::Other,
        }
    }

    /// Whether a parameter, a field or the content of a QUERY may filter or order the list.
    fn is_selected(&self, request: &Request, response: &Response) -> bool {
        let mut nominated = response.header_lines("vary").flat_map(|line| line.split(|byte| *byte == b','));
        let is_form = |name: &[u8]| FORM_FIELDS.iter().any(|form| name.trim_ascii().eq_ignore_ascii_case(form));
        if nominated.any(|name| !is_form(name)) || request.method() != "GET" {
            return true;
        }
        let query = request.query();
        let is_paging = |name: &[u8]| self.paging.iter().any(|paging| paging.as_bytes() == name);
        query.parameters().iter().any(|parameter| !is_paging(&parameter.name()))
    }
}

/// A segment of a path as an id: decoded, and as a key can hold it.
fn id_of_segment(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        let escape = segment_escape(*byte, after);
        bytes.push(escape.unwrap_or(*byte));
        if escape.is_some() {
            rest = &after[2..];
        }
    }
    key_text(&String::from_utf8_lossy(&bytes)).into_owned()
}

fn segment_escape(byte: u8, after: &[u8]) -> Option<u8> {
    let digit = |at: usize| after.get(at).and_then(|&digit| char::from(digit).to_digit(16));
    let (high, low) = (digit(0)?, digit(1)?);
    if byte == b'%' { u8::try_from(high << 4 | low).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use brim_sdk::testing::{MockRequest, MockResponse, purges, set_config, tags};

    use super::*;

    fn configure() {
        set_config("type", "p");
        set_config("list", "/items");
        set_config("path", "/p/");
    }

    fn keys_of(url: &str, response: &MockResponse) -> Vec<String> {
        configure();
        let mut keys = tags::<RestTags>(&MockRequest::get(url), response).expect("keys").keys().to_vec();
        keys.sort();
        keys
    }

    fn keys(url: &str, content: &str) -> Vec<String> {
        keys_of(url, &MockResponse::json(200, content))
    }

    fn purged(request: &MockRequest, response: &MockResponse) -> Vec<String> {
        configure();
        let purges = purges::<RestTags>(request, response).expect("purges");
        assert!(purges.urls().is_empty() && purges.prefixes().is_empty() && !purges.purges_site());
        let mut keys = purges.keys().to_vec();
        keys.sort();
        keys
    }

    #[test]
    fn a_page_carries_its_items() {
        let page = r#"{"items": [{"id": 7}, {"id": "a b"}, {"id": 7}]}"#;
        for url in ["/p", "/p?page=2&limit=3", "/p?%70age=2"] {
            assert_eq!(keys(url, page), ["p:7", "p:a%20b", "p:all", "p:lists"], "{url}");
        }
        for url in ["/p?page=2&colour=red", "/p?sort"] {
            assert_eq!(keys(url, page), ["p:7", "p:a%20b", "p:all", "p:lists", "p:lists:selected"], "{url}");
        }
    }

    #[test]
    fn an_item_carries_its_id() {
        assert_eq!(keys("/p/7", r#"{"id": 7}"#), ["p:7", "p:all"]);
        assert_eq!(keys("/p/a%202", r#"{"id": "a 2"}"#), ["p:a%202", "p:all"]);
        let unknown = ["p:9", "p:all", "p:lists", "p:lists:selected", "p:unknown"];
        assert_eq!(keys("/p/latest", r#"{"id": 9}"#), unknown);
        assert_eq!(keys("/p/9?expand=x", r#"{"id": 9}"#), unknown);
    }

    #[test]
    fn what_is_not_understood_is_purged_by_every_write() {
        let unknown = ["p:all", "p:lists", "p:lists:selected", "p:unknown"];
        for content in ["", "<p>", "{}", r#"{"items": []}"#, r#"{"items": 3}"#, r#"{"error": "none"}"#] {
            assert_eq!(keys("/p", content), unknown, "{content}");
        }
        assert_eq!(keys_of("/p", &MockResponse::too_long(200)), unknown);
        assert_eq!(
            keys("/p", r#"{"items": [{"id": 1}, {"id": 1.5}, {"id": null}]}"#),
            ["p:1", "p:all", "p:lists", "p:unknown"]
        );
        let long: Vec<String> = (0..300).map(|id| format!(r#"{{"id": {id}}}"#)).collect();
        assert_eq!(keys("/p", &format!(r#"{{"items": [{}]}}"#, long.join(","))), unknown);
    }

    #[test]
    fn a_list_elsewhere_than_at_the_collection_is_a_selection() {
        let page = r#"{"items": [{"id": 1}]}"#;
        assert_eq!(keys("/p/", page), ["p:1", "p:all", "p:lists"]);
        for url in ["/p/top", "/shops/3/p", "/pp"] {
            assert_eq!(keys(url, page), ["p:1", "p:all", "p:lists", "p:lists:selected"], "{url}");
        }
    }

    #[test]
    fn a_list_can_be_the_content_itself() {
        configure();
        set_config("list", "");
        set_config("id", "/key");
        let response = MockResponse::json(200, r#"[{"key": "x"}]"#);
        let tags = tags::<RestTags>(&MockRequest::get("/p"), &response).expect("keys");
        assert_eq!(tags.keys(), ["p:all", "p:lists", "p:x"]);
    }

    /// Chosen by something else than its URL.
    #[test]
    fn a_list_that_a_field_or_a_content_has_chosen_is_a_selection() {
        let page = MockResponse::json(200, r#"{"items": [{"id": 1}]}"#);
        let selected = ["p:1", "p:all", "p:lists", "p:lists:selected"];
        for form in ["Accept-Encoding", "accept, Accept-Language,accept-encoding"] {
            assert_eq!(keys_of("/p", &page.clone().header("vary", form)), ["p:1", "p:all", "p:lists"]);
        }
        for other in ["X-Filter", "*", "accept-language, x-filter"] {
            assert_eq!(keys_of("/p", &page.clone().header("vary", other)), selected);
        }
        let mut keys = tags::<RestTags>(&MockRequest::of("QUERY", "/p"), &page).expect("keys").keys().to_vec();
        keys.sort();
        assert_eq!(keys, selected);
    }

    /// An item without an id, or with one that is none, is not an item less.
    #[test]
    fn a_page_with_an_item_that_has_no_id_is_unknown() {
        for other in ["{}", r#"{"id": {"v": 2}}"#, "7", "[]"] {
            let page = format!(r#"{{"items": [{{"id": 1}}, {other}]}}"#);
            assert_eq!(keys("/p", &page), ["p:1", "p:all", "p:lists", "p:unknown"], "{other}");
        }
    }

    #[test]
    fn a_changed_item_purges_its_pages_and_the_selections() {
        let changed = ["p:7", "p:lists:selected", "p:unknown"];
        for method in ["PUT", "PATCH"] {
            assert_eq!(purged(&MockRequest::of(method, "/p/7"), &MockResponse::of(204)), changed);
            assert_eq!(purged(&MockRequest::of(method, "/p/7/"), &MockResponse::json(200, r#"{"id": "7"}"#)), changed);
        }
    }

    #[test]
    fn what_is_made_or_removed_purges_the_lists() {
        let lists = ["p:7", "p:lists", "p:lists:selected", "p:unknown"];
        assert_eq!(purged(&MockRequest::of("PUT", "/p/7"), &MockResponse::of(201)), lists);
        assert_eq!(purged(&MockRequest::of("DELETE", "/p/7"), &MockResponse::of(204)), lists);
        assert_eq!(purged(&MockRequest::of("POST", "/p"), &MockResponse::json(201, r#"{"id": 7}"#)), lists);
    }

    #[test]
    fn a_write_to_nobody_knows_what_purges_all() {
        for (method, url) in [("POST", "/p"), ("DELETE", "/p"), ("PUT", "/p/7/stock")] {
            assert_eq!(purged(&MockRequest::of(method, url), &MockResponse::of(204)), ["p:all"], "{method} {url}");
        }
        let inexact = MockResponse::json(201, r#"{"id": 18446744073709551616}"#);
        assert_eq!(purged(&MockRequest::of("POST", "/p"), &inexact), ["p:all"]);
        let long = MockRequest::of("PUT", &format!("/p/1{}", "x".repeat(KEY_BYTES_MAX)));
        assert_eq!(purged(&long, &MockResponse::of(204)), ["p:all"]);
        let other = MockResponse::json(200, r#"{"id": 42}"#);
        for (method, url) in [("PATCH", "/p/me"), ("POST", "/p/42"), ("PATCH", "/p"), ("POST", "/p")] {
            assert_eq!(purged(&MockRequest::of(method, url), &other), ["p:all"], "{method} {url}");
        }
        let below = MockResponse::json(200, r#"{"id": 99}"#);
        assert_eq!(purged(&MockRequest::of("PUT", "/p/7/parts/99"), &below), ["p:all"]);
        assert_eq!(purged(&MockRequest::of("DELETE", "/p/slug"), &MockResponse::of(204))[3], "p:unknown");
    }

    /// Without the collection's path no path is known to be of an item.
    #[test]
    fn without_a_path_every_write_purges_all() {
        set_config("type", "p");
        for (method, url) in [("PUT", "/orders/7/lines/2"), ("PUT", "/p/7"), ("POST", "/p"), ("DELETE", "/p/7")] {
            let purged = purges::<RestTags>(&MockRequest::of(method, url), &MockResponse::of(201)).expect("purges");
            assert_eq!(purged.keys(), ["p:all"], "{method} {url}");
        }
    }
}
