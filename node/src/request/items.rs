//! Items: which pages of lists a write makes untrue, for a collection as plain REST has it (`[sites.routes.items]`).
//!
//! The keys of a type `product`:
//!
//! | key | who carries it | which writes purge it |
//! |---|---|---|
//! | `product:<id>` | the item, and each page with it | to this item |
//! | `product:lists` | every page | that may add or remove an item |
//! | `product:lists:selected` | every page that a parameter, a field or a plugin's key may filter or order | to any item |
//! | `product:unknown` | whatever is neither the item of its path nor a page whose items all have ids | to any item |
//! | `product:all` | everything below the route | whose effect cannot be told |
//!
//! Always true:
//! - A write that changes an item purges each stored response that may show it, or may now have to. Taken for granted is that language and
//!   format do not choose the items of a page; and, unless `order` is `mutable`, that a change neither moves an item within the list that nothing
//!   filters or orders, nor into or out of it.
//! - What is not understood is purged too often, never too seldom.
//!
//! Not here: reading the content (`tags`), purging (`invalidate`).

use std::collections::HashSet;

use http::{Method, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::config::{ItemRule, ListOrder};

/// A page with more items is taken for one that nothing is known of: each id is a key, and a response has only so many.
const IDS_MAX: usize = brim_semantics::SURROGATE_KEYS_MAX - 8;

/// What a request's path names below its route.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// The collection itself.
    Collection,
    /// One item, by its id.
    Item(String),
    /// Something below an item, or beside the items.
    Below,
}

/// A request, by what it names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page<'a> {
    /// The path of its route: that of the collection.
    pub(super) route_path: &'a str,
    /// What was asked for.
    pub(super) target: &'a Uri,
}

/// A response to a safe request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) status: StatusCode,
    /// Something besides the URL may have chosen what it shows: the content of a QUERY, a field that it nominates, a plugin's key.
    pub(super) is_chosen: bool,
    /// `None`: too long, encoded, or a part.
    pub(super) content: Option<&'a [u8]>,
}

impl Page<'_> {
    /// The surrogate keys of a response.
    pub(super) fn keys(&self, rule: &ItemRule, shown: Shown<'_>) -> Vec<String> {
        // What an error says of items is no item.
        let content = shown.content.filter(|_| shown.status == StatusCode::OK);
        let key = |rest: &str| format!("{}:{rest}", rule.kind);
        let mut keys = vec![key("all")];
        let parsed: Option<Value> = content.and_then(|content| serde_json::from_slice(content).ok());
        let place = self.place();
        if let Place::Item(id) = &place {
            keys.push(key(id));
        }
        let list = parsed.as_ref().and_then(|content| content.pointer(&rule.list)).and_then(Value::as_array);
        if let Some(items) = list {
            let ids: Vec<Option<String>> = items.iter().map(|item| id_of(item, rule)).collect();
            keys.push(key("lists"));
            if shown.is_chosen || self.is_selected(rule) {
                keys.push(key("lists:selected"));
            }
            let has_all = ids.iter().all(Option::is_some);
            let mut seen = HashSet::new();
            let mut distinct: Vec<String> = ids.into_iter().flatten().filter(|id| seen.insert(id.clone())).collect();
            if distinct.len() > IDS_MAX {
                distinct.clear();
            }
            if !has_all || distinct.len() < seen.len() || place != Place::Collection {
                keys.push(key("unknown"));
            }
            keys.extend(distinct.iter().map(|id| key(id)));
            return keys;
        }
        let own = parsed.as_ref().and_then(|content| id_of(content, rule));
        match (&place, &own) {
            // A parameter may have other items put into it.
            (Place::Item(id), Some(own)) if id == own && self.target.query().is_none() => {}
            _ => {
                keys.extend(own.map(|own| key(&own)));
                keys.push(key("unknown"));
                if place == Place::Collection {
                    keys.extend([key("lists"), key("lists:selected")]);
                }
            }
        }
        keys.dedup();
        keys
    }

    /// Whether the answer to a write may say which item it was: what stands in its path may be another name of it.
    pub(super) fn may_tell(&self, method: &Method) -> bool {
        matches!(method.as_str(), "PUT" | "PATCH" | "DELETE") && matches!(self.place(), Place::Item(_))
    }

    /// The surrogate keys that a write with this outcome purges. `content`: of its answer, as far as it could be read.
    pub(super) fn purged(
        &self,
        rule: &ItemRule,
        method: &Method,
        status: StatusCode,
        content: Option<&[u8]>,
    ) -> Vec<String> {
        let key = |rest: &str| format!("{}:{rest}", rule.kind);
        let is_made = status == StatusCode::CREATED;
        let told: Option<Value> = content.and_then(|content| serde_json::from_slice(content).ok());
        let told = told.as_ref().and_then(|content| id_of(content, rule));
        if let (Some(told), Place::Item(id)) = (&told, self.place())
            && *told != id
        {
            return vec![key("all")];
        }
        match (method.as_str(), self.place()) {
            ("PUT" | "PATCH", Place::Item(id)) if !is_made => {
                let mut keys = vec![key(&id), key("lists:selected"), key("unknown")];
                if rule.order == ListOrder::Mutable {
                    keys.push(key("lists"));
                }
                keys
            }
            ("PUT" | "PATCH" | "DELETE", Place::Item(id)) => {
                vec![key(&id), key("lists"), key("lists:selected"), key("unknown")]
            }
            // Any other answer leaves open what else it changed.
            ("POST", Place::Collection) if is_made => vec![key("lists"), key("lists:selected"), key("unknown")],
            _ => vec![key("all")],
        }
    }

    fn place(&self) -> Place {
        let below = self.target.path().strip_prefix(self.route_path.trim_end_matches('/'));
        let segments: Vec<&str> = below.unwrap_or_default().split('/').filter(|segment| !segment.is_empty()).collect();
        match (below, segments.as_slice()) {
            // `/items` is a prefix of `/items-old`, too.
            (Some(below), _) if !below.is_empty() && !below.starts_with('/') => Place::Below,
            (Some(_), []) => Place::Collection,
            (Some(_), [id]) => {
                let id = percent_decode_str(id).decode_utf8_lossy();
                Place::Item(brim_semantics::key_text(&id).into_owned())
            }
            _ => Place::Below,
        }
    }

    /// Whether a parameter may filter or order the list.
    fn is_selected(&self, rule: &ItemRule) -> bool {
        let parameters = self.target.query().unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty());
        parameters.map(|parameter| parameter.split_once('=').map_or(parameter, |(name, _)| name)).any(|name| {
            let name = percent_decode_str(name).decode_utf8_lossy();
            !rule.paging.iter().any(|paging| *paging == name)
        })
    }
}

/// The id of an item, as it stands in a key. A number is the same id as its text.
fn id_of(item: &Value, rule: &ItemRule) -> Option<String> {
    match item.pointer(&rule.id)? {
        Value::String(text) if !text.is_empty() => Some(brim_semantics::key_text(text).into_owned()),
        // One that was rounded, or written in another way, is not what a path calls it.
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> ItemRule {
        ItemRule {
            list: "/items".to_owned(),
            id: "/id".to_owned(),
            kind: "p".to_owned(),
            paging: ["page", "limit"].map(str::to_owned).to_vec(),
            order: ListOrder::Stable,
        }
    }

    fn keys(target: &str, content: Option<&str>) -> Vec<String> {
        let shown = Shown { status: StatusCode::OK, is_chosen: false, content: content.map(str::as_bytes) };
        keys_of(target, shown)
    }

    fn keys_of(target: &str, shown: Shown<'_>) -> Vec<String> {
        let target = format!("http://a{target}").parse().unwrap();
        let mut keys = Page { route_path: "/api/p", target: &target }.keys(&rule(), shown);
        keys.sort();
        keys
    }

    fn purged(method: &str, target: &str, status: u16) -> Vec<String> {
        let target = format!("http://a{target}").parse().unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        let mut keys = Page { route_path: "/api/p", target: &target }.purged(
            &rule(),
            &Method::from_bytes(method.as_bytes()).unwrap(),
            status,
            None,
        );
        keys.sort();
        keys
    }

    #[test]
    fn a_page_carries_its_items() {
        let content = Some(r#"{"items": [{"id": 7}, {"id": "a b"}, {"id": 7}]}"#);
        assert_eq!(keys("/api/p", content), ["p:7", "p:a%20b", "p:all", "p:lists"]);
        assert_eq!(keys("/api/p/?page=2&limit=3", content), ["p:7", "p:a%20b", "p:all", "p:lists"]);
        let selected = ["p:7", "p:a%20b", "p:all", "p:lists", "p:lists:selected"];
        assert_eq!(keys("/api/p?page=2&colour=red", content), selected);
        assert_eq!(keys("/api/p?sort", content), selected);
        assert_eq!(keys("/api/p", Some(r#"{"items": []}"#)), ["p:all", "p:lists"]);
    }

    /// What a page shows and cannot be told is purged by every write.
    #[test]
    fn what_is_not_understood_is_unknown() {
        let all = ["p:all", "p:lists", "p:lists:selected", "p:unknown"];
        for content in [None, Some(""), Some("<p>"), Some("{}"), Some(r#"{"items": 3}"#)] {
            assert_eq!(keys("/api/p", content), all, "{content:?}");
        }
        assert_eq!(keys("/api/p", Some(r#"{"items": [{"id": 1}, {}]}"#)), ["p:1", "p:all", "p:lists", "p:unknown"]);
        assert_eq!(keys("/api/p/count", Some("3")), ["p:all", "p:count", "p:unknown"]);
        assert_eq!(keys("/api/p/latest", Some(r#"{"id": 9}"#)), ["p:9", "p:all", "p:latest", "p:unknown"]);
        assert_eq!(keys("/api/p/7/parts", Some("[]")), ["p:all", "p:unknown"]);
        assert_eq!(keys("/api/p-old", Some("{}")), ["p:all", "p:unknown"]);
        assert_eq!(
            keys("/api/p/top", Some(r#"{"items": [{"id": 1}]}"#)),
            ["p:1", "p:all", "p:lists", "p:top", "p:unknown"]
        );
    }

    /// A number that is not written as a path would write it names no item.
    #[test]
    fn an_id_is_a_text_or_a_whole_number() {
        let unknown = ["p:all", "p:lists", "p:unknown"];
        for id in ["1.0", "1e3", "12345678901234567890123", "null", "{}", "\"\""] {
            assert_eq!(keys("/api/p", Some(&format!("{{\"items\": [{{\"id\": {id}}}]}}"))), unknown, "{id}");
        }
        let (least, most) = (i64::MIN, u64::MAX);
        let found = keys("/api/p", Some(&format!("{{\"items\": [{{\"id\": {least}}}, {{\"id\": {most}}}]}}")));
        assert!(found.contains(&format!("p:{least}")) && found.contains(&format!("p:{most}")), "{found:?}");
    }

    #[test]
    fn a_page_of_too_many_items_is_unknown() {
        let page = |count: usize| {
            let items = (0..count).map(|id| format!("{{\"id\": {id}}}")).collect::<Vec<_>>().join(",");
            keys("/api/p", Some(&format!("{{\"items\": [{items}]}}")))
        };
        assert_eq!(page(IDS_MAX).len(), IDS_MAX + 2);
        assert_eq!(page(IDS_MAX + 1), ["p:all", "p:lists", "p:unknown"]);
    }

    /// An error that repeats the id is not the item, and a list that something else than its URL has chosen is a selected one.
    #[test]
    fn errors_are_unknown_and_chosen_pages_selected() {
        let content = Some(&br#"{"id": 7}"#[..]);
        let gone = Shown { status: StatusCode::NOT_FOUND, is_chosen: false, content };
        assert_eq!(keys_of("/api/p/7", gone), ["p:7", "p:all", "p:unknown"]);
        let content = Some(&br#"{"items": [{"id": 7}]}"#[..]);
        let chosen = Shown { status: StatusCode::OK, is_chosen: true, content };
        assert_eq!(keys_of("/api/p", chosen), ["p:7", "p:all", "p:lists", "p:lists:selected"]);
    }

    #[test]
    fn an_item_carries_its_id() {
        assert_eq!(keys("/api/p/7", Some(r#"{"id": 7}"#)), ["p:7", "p:all"]);
        assert_eq!(keys("/api/p/7", Some(r#"{"id": "7"}"#)), ["p:7", "p:all"]);
        assert_eq!(keys("/api/p/a%20b", Some(r#"{"id": "a b"}"#)), ["p:a%20b", "p:all"]);
        assert_eq!(keys("/api/p/7?expand=parts", Some(r#"{"id": 7}"#)), ["p:7", "p:all", "p:unknown"]);
        assert_eq!(keys("/api/p/8", Some(r#"{"error": "not found"}"#)), ["p:8", "p:all", "p:unknown"]);
    }

    /// `/api/p/me` is another name of an item, and its answer tells.
    #[test]
    fn a_write_by_another_name_purges_all() {
        let target = "http://a/api/p/me".parse().unwrap();
        let page = Page { route_path: "/api/p", target: &target };
        let purged =
            |content: Option<&str>| page.purged(&rule(), &Method::PATCH, StatusCode::OK, content.map(str::as_bytes));
        assert_eq!(purged(Some(r#"{"id": 42}"#)), ["p:all"]);
        for content in [None, Some(r#"{"id": "me"}"#), Some("{}"), Some("")] {
            assert_eq!(purged(content), ["p:me", "p:lists:selected", "p:unknown"], "{content:?}");
        }
        assert!(page.may_tell(&Method::PATCH) && !page.may_tell(&Method::POST));
    }

    #[test]
    fn a_write_purges_what_it_may_have_changed() {
        let changed = ["p:7", "p:lists:selected", "p:unknown"];
        assert_eq!(purged("PUT", "/api/p/7", 200), changed);
        assert_eq!(purged("PATCH", "/api/p/7/", 204), changed);
        let made_or_gone = ["p:7", "p:lists", "p:lists:selected", "p:unknown"];
        assert_eq!(purged("PUT", "/api/p/7", 201), made_or_gone);
        assert_eq!(purged("DELETE", "/api/p/7", 204), made_or_gone);
        assert_eq!(purged("POST", "/api/p", 201), ["p:lists", "p:lists:selected", "p:unknown"]);
        for (method, target) in [
            ("POST", "/api/p"),
            ("POST", "/api/p/7"),
            ("PATCH", "/api/p"),
            ("PUT", "/api/p/7/parts"),
            ("MOVE", "/api/p/7"),
        ] {
            assert_eq!(purged(method, target, 200), ["p:all"], "{method} {target}");
        }
    }
}
