//! The configuration as its users meet it: a text goes in, a checked value or the whole list of mistakes comes out.

mod accepted;
mod documented;
mod refused;
mod refused_routing;

use std::path::Path;

use super::*;

const BASE: &str = "/etc/brim";

/// The least that a file must say.
const LEAST: &str = r#"
[origins.api]
endpoints = ["http://127.0.0.1:8000"]
[[sites]]
hosts = ["*"]
[[sites.routes]]
path = "/"
origin = "api"
"#;

fn good(text: &str) -> Config {
    Config::parse(text, Path::new(BASE)).unwrap_or_else(|errors| panic!("refused:\n{errors}\nin:\n{text}"))
}

fn errors(text: &str) -> Vec<String> {
    match Config::parse(text, Path::new(BASE)) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.0.iter().map(|error| format!("{}: {}", error.path, error.message)).collect(),
    }
}

/// Each row: a text put before or into the least file, and the one mistake it is.
fn assert_each(rows: &[(&str, &str)], whole: impl Fn(&str) -> String) {
    for (text, expected) in rows {
        assert_eq!(errors(&whole(text)), [*expected], "for:\n{text}");
    }
}

fn before_least(text: &str) -> String {
    format!("{text}\n{LEAST}")
}

/// `[origins.api]` with these lines added.
fn in_origin(text: &str) -> String {
    LEAST.replace("[[sites]]", &format!("{text}\n[[sites]]"))
}

/// `[origins.api]` with this list of endpoints.
fn with_endpoints(text: &str) -> String {
    LEAST.replace("[\"http://127.0.0.1:8000\"]", text)
}

/// `[[sites]]` with these hosts.
fn with_hosts(text: &str) -> String {
    LEAST.replace("[\"*\"]", text)
}

/// The only route with these lines added.
fn in_route(text: &str) -> String {
    format!("{LEAST}{text}\n")
}

fn only_route(config: &Config) -> &RouteConfig {
    &config.sites[0].routes[0]
}
