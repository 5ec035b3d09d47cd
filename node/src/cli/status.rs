//! `brim status`.

use std::time::Duration;

use super::args::ClientOptions;
use super::client::Client;
use super::error::CliError;
use super::print;
use crate::admin::StatusAnswer;

pub(super) fn run(options: &ClientOptions) -> Result<(), CliError> {
    let answer: StatusAnswer = Client::new(options)?.get("/v1/status")?;
    if options.json {
        return print::json(&answer);
    }
    for line in lines(&answer) {
        print::line(line);
    }
    Ok(())
}

fn lines(answer: &StatusAnswer) -> Vec<String> {
    let node = &answer.node;
    let (store, requests) = (&node.store, &node.requests);
    let ratio = requests.hit_ratio.map(|ratio| format!(", hit ratio {:.1} %", ratio * 100.0)).unwrap_or_default();
    let mut lines = vec![
        format!(
            "brim      {}, up {}",
            node.version,
            humantime::format_duration(Duration::from_secs(node.uptime_seconds))
        ),
        format!("listening {}", node.listeners.join(", ")),
        format!("sites     {}", node.sites.join(", ")),
        format!(
            "store     {}, {} on disk; disk {} of {}{}, memory {} of {}",
            print::count(store.responses, "stored response"),
            store.responses_on_disk,
            print::bytes(store.disk_bytes),
            print::bytes(store.disk_bytes_max),
            if store.disk_full { " (full)" } else { "" },
            print::bytes(store.memory_bytes),
            print::bytes(store.memory_bytes_max)
        ),
        format!("requests  {}, {}{ratio}", print::count(requests.count, "request"), print::count(requests.hits, "hit")),
        format!("purges    position {}", node.purge_position),
    ];
    if !matches!(store.disk.as_str(), "ready" | "") {
        let reason = store.disk_reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        lines.insert(4, format!("disk      {}{reason}", store.disk.to_uppercase()));
    }
    if node.invalidation_retries > 0 {
        let waiting = print::count(node.invalidation_retries, "invalidation rule");
        lines.push(format!("purges    {waiting} failed after a write and will be asked again: GET /v1/retries"));
    }
    if let Some(failure) = &store.purge_log_failure {
        lines.push(format!("purges    REFUSED: the purge log cannot be written: {failure}"));
    }
    for origin in &node.origins {
        for endpoint in &origin.endpoints {
            let state = match (endpoint.state.as_str(), &endpoint.reason) {
                ("" | "healthy", _) => String::new(),
                (state, Some(reason)) => format!("{} ({reason}); ", state.to_uppercase()),
                (state, None) => format!("{}; ", state.to_uppercase()),
            };
            lines.push(format!(
                "origin    {} {}: {state}{}, {}, {}",
                origin.name,
                endpoint.url,
                print::count(endpoint.connections, "connection"),
                print::count(endpoint.requests, "request"),
                print::count(endpoint.failures, "failure")
            ));
        }
    }
    for plugin in &answer.plugins {
        let state = match (&plugin.problem, plugin.active) {
            (Some(problem), _) => format!("NOT RUNNING, its routes bypass the cache: {problem}"),
            (None, Some(version)) => format!("version {version} in use"),
            (None, None) => "no version in use".to_owned(),
        };
        lines.push(format!("plugin    {}: {state}", plugin.name));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{NodeStatus, PluginSummary, RequestStatus, StoreStatus};

    #[test]
    fn a_disk_that_takes_no_writes_is_said_loudly() {
        let store = StoreStatus {
            disk: "paused".to_owned(),
            disk_reason: Some("full".to_owned()),
            purge_log_failure: Some("no space".to_owned()),
            ..StoreStatus::default()
        };
        let node = NodeStatus { store, ..NodeStatus::default() };
        let lines = lines(&StatusAnswer { node, plugins: Vec::new() });
        assert_eq!(lines[4], "disk      PAUSED: full");
        assert_eq!(
            lines.last().map(String::as_str),
            Some("purges    REFUSED: the purge log cannot be written: no space")
        );
    }

    #[test]
    fn a_plugin_that_does_not_run_is_said_loudly() {
        let requests = RequestStatus { count: 10, hits: 9, hit_ratio: Some(0.9) };
        let node = NodeStatus { version: "1.2.3".to_owned(), uptime_seconds: 61, requests, ..NodeStatus::default() };
        let broken = PluginSummary {
            name: "rule".to_owned(),
            active: Some(2),
            problem: Some("its component is gone".to_owned()),
        };
        let lines = lines(&StatusAnswer { node, plugins: vec![broken] });
        assert_eq!(lines[0], "brim      1.2.3, up 1m 1s");
        assert_eq!(lines[4], "requests  10 requests, 9 hits, hit ratio 90.0 %");
        assert_eq!(
            lines.last().map(String::as_str),
            Some("plugin    rule: NOT RUNNING, its routes bypass the cache: its component is gone")
        );
    }
}
