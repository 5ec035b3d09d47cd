//! The first half of an explanation: request, route, key rule and key.

use brim_host::{InputKind, QueryUse};
use brim_semantics::{CacheKey, KeyMethod, MaxStale, PartValue};

use super::model::{DirectiveFact, InputFact, KeyFacts, KeyPartFact, PluginFacts, QueryWord, RequestFacts, RouteFacts};
use super::steps::Steps;
use super::text::{quoted, seconds, value};
use crate::config::CacheMode;
use crate::plugins::ActivePlugin;
use crate::request::accept::Inbound;
use crate::request::key;
use crate::request::key::QUERY_PARTS;
use crate::route::Route;

/// Digits of a digest that name it.
const DIGEST_CHARS: usize = 8;

/// The request as the stages see it.
pub(super) fn request(inbound: &Inbound, route: Option<&Route>) -> RequestFacts {
    let heeded = !route.is_some_and(|route| route.config.policy.ignore_request_directives);
    RequestFacts {
        method: inbound.method.to_string(),
        scheme: inbound.scheme.to_owned(),
        authority: inbound.authority.to_string(),
        path: inbound.path().to_owned(),
        query: inbound.uri.query().map(str::to_owned),
        directives: directives(inbound, heeded),
    }
}

fn directives(inbound: &Inbound, heeded: bool) -> Vec<DirectiveFact> {
    let said = &inbound.directives;
    let flag = |name: &str, is_said: bool| is_said.then(|| (name.to_owned(), None));
    let timed = |name: &str, span: Option<std::time::Duration>| span.map(|span| (name.to_owned(), Some(seconds(span))));
    let max_stale = said.max_stale.map(|max_stale| match max_stale {
        MaxStale::Any => ("max-stale".to_owned(), None),
        MaxStale::Within(limit) => ("max-stale".to_owned(), Some(seconds(limit))),
    });
    let all = [
        flag("no-cache", said.no_cache),
        flag("no-store", said.no_store),
        flag("only-if-cached", said.only_if_cached),
        flag("no-transform", said.no_transform),
        timed("max-age", said.max_age),
        timed("min-fresh", said.min_fresh),
        max_stale,
        timed("stale-if-error", said.stale_if_error),
    ];
    all.into_iter().flatten().map(|(name, value_s)| DirectiveFact { name, value_s, heeded }).collect()
}

/// What the request asks of caches, in words.
pub(super) fn tell_request(request: &RequestFacts, steps: &mut Steps) {
    let query = request.query.as_ref().map_or_else(String::new, |query| format!("?{query}"));
    let RequestFacts { method, scheme, authority, path, .. } = request;
    steps.say("request", format!("{method} {scheme}://{authority}{path}{query}"));
    for directive in &request.directives {
        let value = directive.value_s.map_or_else(String::new, |value| format!("={value}"));
        let heeded = if directive.heeded { "counts" } else { "is disregarded by the route" };
        steps.say("request", format!("its directive {}{value} {heeded} (RFC 9111 §5.2.1)", directive.name));
    }
}

/// The route's settings that decide about caching.
pub(super) fn route(route: &Route) -> RouteFacts {
    let (config, policy) = (&route.config, &route.config.policy);
    RouteFacts {
        site: route.site.to_string(),
        path: config.path.clone(),
        origin: config.origin.clone(),
        cache: config.cache == CacheMode::On,
        cache_key_plugin: config.cache_key_plugin.clone(),
        targeted_fields: policy.targeted_fields.iter().map(ToString::to_string).collect(),
        ignore_request_directives: policy.ignore_request_directives,
        store_set_cookie: policy.store_set_cookie,
        heuristic: policy.heuristic,
        heuristic_max_s: seconds(policy.heuristic_max),
        freshness_max_s: policy.freshness_max.map(seconds),
        stale_while_revalidate_s: policy.stale_while_revalidate.map(seconds),
        stale_if_error_s: policy.stale_if_error.map(seconds),
    }
}

/// What the route's rule saw and said; `active` as the key stage had it.
pub(super) fn plugin(name: &str, active: Option<&ActivePlugin>, inbound: &Inbound, steps: &mut Steps) -> PluginFacts {
    let mut facts = PluginFacts {
        name: name.to_owned(),
        version: active.map(|active| active.version),
        digest: active.map(|active| active.digest.clone()),
        inputs: Vec::new(),
        query: None,
        query_replaced_by: None,
        bypass: None,
        fault: None,
    };
    let Some(active) = active else {
        steps.say("plugin", format!("{name}: no version is active, or it does not run"));
        return facts;
    };
    let request = key::key_request(inbound);
    steps.say("plugin", label(active).trim_start_matches("plugin "));
    for input in active.plugin.description().inputs.seen(&request) {
        let (kind, is_named) = match input.kind {
            InputKind::Header => ("header", true),
            InputKind::Cookie => ("cookie", true),
            InputKind::Query => ("query", false),
            InputKind::Path => ("path", false),
        };
        let input = InputFact {
            kind: kind.to_owned(),
            name: is_named.then_some(input.name),
            value: input.value.as_deref().map(value),
        };
        let name = input.name.as_deref().map_or_else(String::new, |name| format!(" {name}"));
        steps.say("plugin", format!("reads {kind}{name}: {}", quoted(input.value.as_deref())));
        facts.inputs.push(input);
    }
    // The key stage has asked already: a decision is remembered, a fault is not, and its text is wanted here.
    match active.plugin.cache_key(&request) {
        Ok(decision) => {
            facts.bypass.clone_from(&decision.bypass);
            (facts.query, facts.query_replaced_by) = match &decision.query {
                QueryUse::Keep => (Some(QueryWord::Keep), None),
                QueryUse::Replace(query) => (Some(QueryWord::Replace), query.clone()),
            };
            if let Some(reason) = &facts.bypass {
                steps.say("plugin", format!("wants it past the cache: {reason}"));
            }
            if facts.query == Some(QueryWord::Replace) {
                let query = quoted(facts.query_replaced_by.as_deref());
                steps.say("plugin", format!("the query that is keyed and forwarded: {query}"));
            }
        }
        Err(fault) => {
            steps.say("plugin", format!("failed: {fault}"));
            facts.fault = Some(fault.to_string());
        }
    }
    facts
}

/// `plugin tenant-key@3 423616bc`.
fn label(active: &ActivePlugin) -> String {
    let digest = active.digest.get(..DIGEST_CHARS).unwrap_or(&active.digest);
    format!("plugin {}@{} {digest}", active.name, active.version)
}

/// What a key consists of, and where each part comes from.
pub(super) fn key(
    key: &CacheKey,
    active: Option<&ActivePlugin>,
    is_query_replaced: bool,
    steps: &mut Steps,
) -> KeyFacts {
    let described = key.describe();
    let by_rule = active.map_or_else(String::new, label);
    let text = |name: &str, value: Option<String>, from: &str| KeyPartFact {
        name: name.to_owned(),
        kind: if value.is_some() { "text" } else { "absent" }.to_owned(),
        value,
        from: from.to_owned(),
    };
    let method = match described.method {
        KeyMethod::Get => "GET",
        KeyMethod::Query => "QUERY",
    };
    let query_from = if is_query_replaced { by_rule.as_str() } else { "query" };
    let mut parts = vec![
        text("method", Some(method.to_owned()), "method"),
        text("scheme", Some(described.scheme), "scheme"),
        text("authority", Some(described.authority), "authority"),
        text("site", Some(described.site), "site"),
        text("path", Some(described.path), "path"),
        text("query", described.query, query_from),
    ];
    if let Some(digest) = described.rule {
        let hex = hex(&digest);
        parts.push(KeyPartFact { kind: "hex".to_owned(), ..text("rule", Some(hex), &by_rule) });
    }
    let by_rule_count = match described.method {
        KeyMethod::Get => described.parts.len(),
        KeyMethod::Query => described.parts.len().saturating_sub(QUERY_PARTS),
    };
    for (at, part) in described.parts.into_iter().enumerate() {
        let from = if at < by_rule_count { by_rule.clone() } else { part.name.clone() };
        let (kind, value) = match part.value {
            PartValue::Text(text) => ("text", Some(text)),
            PartValue::Bytes(bytes) => readable(bytes),
            PartValue::Integer(number) => ("integer", Some(number.to_string())),
            PartValue::Flag(flag) => ("flag", Some(flag.to_string())),
            PartValue::Absent => ("absent", None),
        };
        parts.push(KeyPartFact { name: part.name, value, kind: kind.to_owned(), from });
    }
    let hash = key.hash().to_string();
    steps.say("key", hash.clone());
    for part in &parts {
        let from = if part.name == part.from { String::new() } else { format!(" (from {})", part.from) };
        let value = part.value.as_deref().map(|text| value(text.as_bytes()));
        steps.say("key", format!("{}: {}{from}", part.name, quoted(value.as_deref())));
    }
    KeyFacts { hash, parts }
}

/// Bytes as text where they are some, else in hex.
fn readable(bytes: Vec<u8>) -> (&'static str, Option<String>) {
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => ("bytes", Some(text)),
        Ok(text) => ("hex", Some(hex(text.as_bytes()))),
        Err(other) => ("hex", Some(hex(other.as_bytes()))),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
