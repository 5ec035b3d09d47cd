//! Purges what a webhook says has changed: for content that changes elsewhere than through the node.
//!
//! A POST with JSON content, one event or several:
//!
//! ```json
//! {"type": "product", "id": 42, "action": "updated"}
//! {"events": [{"type": "product", "id": 42, "action": "deleted"}, {"type": "product", "id": 7, "action": "created"}]}
//! {"keys": ["front-page"], "urls": ["/news"]}
//! ```
//!
//! An event purges the keys that `rest-tags` gives: of the item, of whatever is not understood and of lists that are filtered or ordered,
//! and of all lists unless the action is `updated`. An event without an id purges all of its type; one without a type all of the types that are
//! named, or the site where none is.
//!
//! The node asks after the receiver of the webhook answered it with 2xx or 3xx: who may send one is for the receiver to say.

use brim_sdk::{
    Content, Description, Failure, InvalidationRule, KEY_BYTES_MAX, KEYS_MAX, PURGES_MAX, Purges, Reads, Request,
    Response, Value, Values, key_text, log,
};

/// Where the types, ids and actions of events are: of one alone, and of many.
const EVENTS: [[&str; 3]; 2] = [["/type", "/id", "/action"], ["/events/*/type", "/events/*/id", "/events/*/action"]];
const KEYS: &str = "/keys/*";
const URLS: &str = "/urls/*";

struct WebhookPurge;

#[brim_sdk::plugin]
impl InvalidationRule for WebhookPurge {
    fn describe() -> Description {
        Description::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
    }

    fn reads() -> Reads {
        EVENTS.into_iter().flatten().chain([KEYS, URLS]).fold(Reads::nothing(), Reads::request_value)
    }

    fn purges(request: &Request, _: &Response) -> Result<Purges, Failure> {
        if request.method() != "POST" {
            return Ok(Purges::none());
        }
        match request.content() {
            Content::Values(values) => Ok(purges_of(values)),
            Content::TooLong => {
                log::warn("a webhook is too long to be read: the site is purged");
                Ok(Purges::none().site())
            }
            // The same would come of it another time, so this is no failure.
            Content::NotJson | Content::Empty | Content::Undeclared => {
                log::warn("a webhook has no JSON content: nothing is purged");
                Ok(Purges::none())
            }
        }
    }
}

fn purges_of(values: &Values) -> Purges {
    let mut purges = Purges::none();
    for [types, ids, actions] in EVENTS {
        add_events(&mut purges, values.at(types), values.at(ids), values.at(actions));
    }
    for key in texts(values.at(KEYS)) {
        match key.contains(|letter: char| letter.is_whitespace() || letter.is_control()) || key.is_empty() {
            true => log::warn("a webhook names a key with white space, which nothing carries"),
            false => purges.add_key(key),
        }
    }
    for url in texts(values.at(URLS)) {
        let is_url = ["/", "http://", "https://"].iter().any(|start| url.starts_with(start))
            && !url.contains(|letter: char| letter.is_whitespace() || letter.is_control());
        match is_url {
            true => purges.add_url(url),
            false => log::warn("a webhook names a URL that is none"),
        }
    }
    let is_long = purges.keys().iter().any(|key| key.len() > KEY_BYTES_MAX);
    if is_long || purges.keys().len() > KEYS_MAX || purges.urls().len() >= PURGES_MAX {
        log::warn("a webhook names more than one answer can purge: the site is purged");
        return Purges::none().site();
    }
    purges
}

fn add_events(purges: &mut Purges, types: &[Value], ids: &[Value], actions: &[Value]) {
    // Of several events each has one of each, or a null. Anything else leaves open which belong together.
    let is_whole = types.len() == ids.len();
    let has_actions = actions.len() == types.len();
    let kinds = || types.iter().map(|kind| kind.as_text().map(key_text));
    if kinds().any(|kind| kind.is_none()) || types.len() < ids.len() {
        log::warn("a webhook has an event without a type: all of the types that it names are purged");
        if kinds().all(|kind| kind.is_none()) {
            *purges = std::mem::replace(purges, Purges::none()).site();
        }
        kinds().flatten().for_each(|kind| purges.add_key(format!("{kind}:all")));
        return;
    }
    for (event, kind) in kinds().flatten().enumerate() {
        let id = if is_whole { ids.get(event).and_then(Value::as_id) } else { None };
        let id = id.filter(|id| kind.len() + 1 + id.len() <= KEY_BYTES_MAX);
        let Some(id) = id else {
            purges.add_key(format!("{kind}:all"));
            continue;
        };
        purges.add_key(format!("{kind}:{id}"));
        purges.add_key(format!("{kind}:lists:selected"));
        purges.add_key(format!("{kind}:unknown"));
        let is_update = has_actions && actions.get(event).and_then(Value::as_text) == Some("updated");
        if !is_update {
            purges.add_key(format!("{kind}:lists"));
        }
    }
}

fn texts(values: &[Value]) -> impl Iterator<Item = &str> {
    values.iter().filter_map(Value::as_text)
}

#[cfg(test)]
mod tests {
    use brim_sdk::testing::{MockRequest, MockResponse, purges};

    use super::*;

    fn purged(content: &str) -> Purges {
        let request = MockRequest::of("POST", "/hooks/shop").json(content);
        purges::<WebhookPurge>(&request, &MockResponse::of(204)).expect("purges")
    }

    #[test]
    fn an_update_purges_the_item_and_selections() {
        let purged = purged(r#"{"type": "product", "id": 42, "action": "updated"}"#);
        assert_eq!(purged.keys(), ["product:42", "product:lists:selected", "product:unknown"]);
    }

    #[test]
    fn what_is_made_or_removed_purges_the_lists() {
        for action in [r#", "action": "created""#, r#", "action": "deleted""#, r#", "action": "moved""#, ""] {
            let purged = purged(&format!(r#"{{"type": "product", "id": "a b"{action}}}"#));
            assert!(purged.keys().contains(&"product:lists".to_owned()), "{action}");
            assert_eq!(purged.keys()[0], "product:a%20b");
        }
    }

    /// What belongs together is told by the places, not by the lengths.
    #[test]
    fn an_event_that_lacks_something_purges_more() {
        let found = |content: &str| {
            let mut keys = purged(content).keys().to_vec();
            keys.sort();
            keys
        };
        let update = |kind: &str, id: u64| format!(r#"{{"type": "{kind}", "id": {id}, "action": "updated"}}"#);
        let without_id = format!(r#"{{"events": [{}, {{"type": "q"}}]}}"#, update("p", 1));
        assert_eq!(found(&without_id), ["p:1", "p:lists:selected", "p:unknown", "q:all"]);
        let without_action = format!(r#"{{"events": [{{"type": "p", "id": 1}}, {}]}}"#, update("p", 2));
        assert!(found(&without_action).contains(&"p:lists".to_owned()));
        let without_type = format!(r#"{{"events": [{}, {{"id": 3, "action": "updated"}}]}}"#, update("p", 1));
        assert_eq!(found(&without_type), ["p:all"]);
        assert!(purged(r#"{"events": [{"id": 3}]}"#).purges_site());
        assert!(purged(r#"{"id": 3, "action": "updated"}"#).purges_site());
    }

    #[test]
    fn events_come_together() {
        let purged = purged(
            r#"{"events": [{"type": "p", "id": 1, "action": "updated"}, {"type": "q", "id": 2, "action": "deleted"}]}"#,
        );
        let expected = ["p:1", "p:lists:selected", "p:unknown", "q:2", "q:lists:selected", "q:unknown", "q:lists"];
        assert_eq!(purged.keys(), expected);
    }

    #[test]
    fn an_event_without_its_id_purges_all_of_its_type() {
        let purged = purged(r#"{"events": [{"type": "p"}, {"type": "q", "id": 2}]}"#);
        assert_eq!(purged.keys(), ["p:all", "q:2", "q:lists:selected", "q:unknown", "q:lists"]);
    }

    #[test]
    fn keys_and_urls_are_purged_as_named() {
        let purged =
            purged(r#"{"keys": ["front", "a b", 7, ""], "urls": ["/news?x=1", "https://a/b", "news", "ftp://a/"]}"#);
        assert_eq!(purged.keys(), ["front"]);
        assert_eq!(purged.urls(), ["/news?x=1", "https://a/b"]);
    }

    #[test]
    fn more_than_fits_purges_the_site() {
        let list = |count: usize| (0..count).map(|i| format!("\"/{i}\"")).collect::<Vec<_>>().join(",");
        assert!(purged(&format!(r#"{{"keys": [{}]}}"#, list(257))).purges_site());
        assert!(purged(&format!(r#"{{"urls": [{}]}}"#, list(64))).purges_site());
        assert!(!purged(&format!(r#"{{"keys": [{}], "urls": [{}]}}"#, list(256), list(63))).purges_site());
        assert!(purged(&format!(r#"{{"type": "{}", "id": 1}}"#, "x".repeat(1020))).purges_site());
        let long = purges::<WebhookPurge>(&MockRequest::of("POST", "/").too_long(), &MockResponse::of(200));
        assert!(long.expect("purges").purges_site());
    }

    #[test]
    fn what_is_no_webhook_purges_nothing() {
        assert_eq!(purged("type=product"), Purges::none());
        assert_eq!(purged("[]"), Purges::none());
        let put = MockRequest::of("PUT", "/").json(r#"{"type": "p", "id": 1}"#);
        assert_eq!(purges::<WebhookPurge>(&put, &MockResponse::of(200)), Ok(Purges::none()));
    }
}
