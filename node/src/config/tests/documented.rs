//! `docs/configuration.md` says what the code does: its examples are read, its bounds compared, its keys all there.

use std::fmt::Display;

use super::super::limits::{self, Limit};
use super::super::units::{show_bytes, show_duration};
use super::accepted::EVERYTHING;
use super::*;

const PAGE: &str = include_str!("../../../../docs/configuration.md");

fn row<T: Copy, S: Display>(key: &str, limit: Limit<T>, show: impl Fn(T) -> S) -> String {
    format!("| `{key}` | {} | {} | {} |", show(limit.default), show(limit.min), show(limit.max))
}

#[test]
fn the_examples_of_the_page_are_accepted() {
    let blocks: Vec<_> = PAGE.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        good(block);
    }
}

#[test]
fn the_bounds_of_the_page_are_those_of_the_code() {
    let durations = [
        ("listen.handshake_timeout", limits::HANDSHAKE_TIMEOUT),
        ("listen.header_timeout", limits::HEADER_TIMEOUT),
        ("listen.idle_timeout", limits::IDLE_TIMEOUT),
        ("listen.body_idle_timeout", limits::BODY_IDLE_TIMEOUT),
        ("listen.drain_timeout", limits::DRAIN_TIMEOUT),
        ("plugins.key_deadline", limits::KEY_DEADLINE),
        ("plugins.invalidation_deadline", limits::INVALIDATION_DEADLINE),
        ("origins.<name>.connect_timeout", limits::CONNECT_TIMEOUT),
        ("origins.<name>.response_timeout", limits::RESPONSE_TIMEOUT),
        ("origins.<name>.body_idle_timeout", limits::BODY_IDLE_TIMEOUT),
        ("origins.<name>.idle_timeout", limits::ORIGIN_IDLE_TIMEOUT),
        ("origins.<name>.queue_timeout", limits::QUEUE_TIMEOUT),
        ("origins.<name>.connection_age_max", limits::CONNECTION_AGE_MAX),
        ("origins.<name>.slow_start", limits::SLOW_START),
        ("origins.<name>.health.interval", limits::CHECK_INTERVAL),
        ("origins.<name>.health.timeout", limits::CHECK_TIMEOUT),
        ("origins.<name>.ejection.time", limits::EJECTION_TIME),
        ("origins.<name>.ejection.time_max", limits::EJECTION_TIME_MAX),
        ("origins.<name>.ejection.interval", limits::EJECTION_INTERVAL),
        ("sites[].routes[].heuristic_max", limits::FRESHNESS),
    ];
    let sizes = [
        ("listen.head_bytes_max", limits::HEAD_BYTES_MAX),
        ("store.disk_max", limits::DISK_MAX),
        ("store.memory_max", limits::MEMORY_MAX),
        ("store.object_max", limits::OBJECT_MAX),
        ("store.range_whole_max", limits::RANGE_WHOLE_MAX),
        ("store.finish_unread", limits::FINISH_UNREAD),
        ("listen.query_content_max", limits::QUERY_CONTENT_MAX),
        ("plugins.memory_max", limits::PLUGIN_MEMORY_MAX),
        ("plugins.component_bytes_max", limits::COMPONENT_BYTES_MAX),
        ("sites[].routes[].tag_content_max", limits::TAG_CONTENT_MAX),
    ];
    let counts = [
        ("listen.connections_max", limits::CONNECTIONS_MAX),
        ("listen.header_count_max", limits::HEADER_COUNT_MAX),
        ("origins.<name>.connections_max", limits::ORIGIN_CONNECTIONS_MAX),
        ("origins.<name>.queue_max", limits::QUEUE_MAX),
        ("origins.<name>.connections_min", limits::ORIGIN_CONNECTIONS_MIN),
        ("origins.<name>.retries.max", limits::RETRIES_MAX),
        ("origins.<name>.requests_max", limits::REQUESTS_MAX),
    ];
    let small_counts = [
        ("listen.streams_max", limits::STREAMS_MAX),
        ("plugins.instances_max", limits::INSTANCES_MAX),
        ("origins.<name>.endpoints[].weight", limits::WEIGHT),
        ("origins.<name>.endpoints[].priority", limits::PRIORITY),
        ("admin.purges_per_minute", limits::PURGES_PER_MINUTE),
        ("origins.<name>.panic_threshold", limits::PANIC_THRESHOLD),
        ("origins.<name>.health.healthy_after", limits::HEALTHY_AFTER),
        ("origins.<name>.health.unhealthy_after", limits::UNHEALTHY_AFTER),
        ("origins.<name>.ejection.consecutive_errors", limits::CONSECUTIVE_ERRORS),
        ("origins.<name>.ejection.share_max", limits::EJECTION_SHARE_MAX),
        ("origins.<name>.retries.budget", limits::RETRY_BUDGET),
    ];
    let rows = durations.map(|(key, limit)| row(key, limit, show_duration)).into_iter();
    let rows = rows.chain(sizes.map(|(key, limit)| row(key, limit, show_bytes)));
    let rows = rows.chain(counts.map(|(key, limit)| row(key, limit, |count| count)));
    let requests = row("origins.<name>.connection_requests_max", limits::CONNECTION_REQUESTS_MAX, |count| count);
    let rows = rows.chain([requests]);
    let rows = rows.chain(small_counts.map(|(key, limit)| row(key, limit, |count| count)));
    let missing: Vec<_> = rows.filter(|row| !PAGE.contains(row)).collect();
    assert!(missing.is_empty(), "docs/configuration.md should say:\n{}", missing.join("\n"));
    assert!(PAGE.contains(&format!("| cores | {} | {} |", limits::THREADS.min, limits::THREADS.max)));
}

/// `EVERYTHING` holds every key: each has a row of its own.
#[test]
fn every_key_has_its_row() {
    let file: toml::Table = EVERYTHING.parse().unwrap();
    let mut keys = Vec::new();
    for (section, prefix) in
        [("listen", "listen"), ("tls", "tls"), ("admin", "admin"), ("store", "store"), ("log", "log")]
    {
        keys.extend(file[section].as_table().unwrap().keys().map(|key| format!("{prefix}.{key}")));
    }
    let plugins = file["plugins"].as_table().unwrap().keys().filter(|key| *key != "config");
    keys.extend(plugins.map(|key| format!("plugins.{key}")));
    let origin = file["origins"]["api"].as_table().unwrap();
    for (key, value) in origin {
        let path = format!("origins.<name>.{key}");
        match value.as_table().filter(|_| key != "tls_client") {
            Some(table) => keys.extend(table.keys().map(|key| format!("{path}.{key}"))),
            None => keys.push(path),
        }
    }
    keys.extend(["region".to_owned(), "node_name".to_owned(), "resolver.servers".to_owned()]);
    let site = &file["sites"][0];
    keys.extend(site.as_table().unwrap().keys().filter(|key| *key != "routes").map(|key| format!("sites[].{key}")));
    for route in site["routes"].as_array().unwrap() {
        for (key, value) in route.as_table().unwrap() {
            let path = format!("sites[].routes[].{key}");
            match value.as_table().filter(|_| key != "plugins") {
                Some(table) => keys.extend(table.keys().map(|key| format!("{path}.{key}"))),
                None => keys.push(path),
            }
        }
    }
    let missing: Vec<_> = keys.iter().filter(|key| !PAGE.contains(&format!("| `{key}` |"))).collect();
    assert!(missing.is_empty() && keys.len() > 50, "{missing:?}");
}
