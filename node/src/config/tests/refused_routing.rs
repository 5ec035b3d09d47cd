//! Mistakes on the way from a host to an endpoint: `[origins.<name>]`, `[[sites]]`, `[[sites.routes]]`.

use super::*;

#[test]
fn endpoints_are_scheme_host_and_port() {
    let accepted = [
        ("http://a", "http://a"),
        ("https://A.b:443/", "https://a.b"),
        ("http://a:443", "http://a:443"),
        ("https://[::1]:80", "https://[::1]:80"),
        ("HTTP://10.0.0.1:8000", "http://10.0.0.1:8000"),
    ];
    for (text, shown) in accepted {
        let config = good(&with_endpoints(&format!("[\"{text}\"]")));
        assert_eq!(config.origins["api"].endpoints[0].url.to_string(), shown);
    }
    for name in ["api", "_api.example.com", "_api._tcp.", "_a b._tcp.example.com", "_._tcp.example.com"] {
        let found = errors(&with_endpoints(&format!("[{{ srv = \"{name}\" }}]")));
        assert!(found.len() == 1 && found[0].contains("is not the name of a service"), "{name}: {found:?}");
    }
    let found = errors(&with_endpoints("[{ srv = \"_a._tcp.b\", weight = 2 }]"));
    assert!(found[0].contains("endpoints[0].weight: unknown key"), "{found:?}");
    let refused = [
        ("", "is not a URL such as \"http://127.0.0.1:8000\""),
        ("127.0.0.1:8000", "is not a URL such as \"http://127.0.0.1:8000\""),
        ("http://", "is not a URL such as \"http://127.0.0.1:8000\""),
        ("ftp://a", "has a scheme other than http and https"),
        ("http://a/v1", "has a path: an endpoint is scheme, host and port; the request's own path is forwarded"),
        ("http://a/?x", "has a path: an endpoint is scheme, host and port; the request's own path is forwarded"),
        ("http://u:p@a", "holds a user name: credentials do not belong into an address"),
        ("http://a:0", "has a port that is not within 1 to 65535"),
        ("http://a:99999", "has a port that is not within 1 to 65535"),
        ("http://a:", "has a port that is not within 1 to 65535"),
        ("http://a:x", "has a port that is not within 1 to 65535"),
        ("http://-a", "has a host that is neither a name nor an address"),
    ];
    for (text, why) in refused {
        let expected = format!("origins.api.endpoints[0]: \"{text}\" {why}");
        assert_eq!(errors(&with_endpoints(&format!("[\"{text}\"]"))), [expected]);
    }
    let rows = [
        (
            "[\"http://a\", \"http://A:80\"]",
            "origins.api.endpoints[1]: http://a is listed twice; give it a weight instead",
        ),
        ("[{ weight = 2 }]", "origins.api.endpoints[0].url: is missing"),
        ("[{ url = \"http://a\", weight = 0 }]", "origins.api.endpoints[0].weight: 0 is below 1"),
        (
            "[1]",
            "origins.api.endpoints[0]: expected a URL or { url = \"…\", weight = 2, region = \"eu\" }, found the number 1",
        ),
    ];
    assert_each(&rows, with_endpoints);
}

#[test]
fn an_origin_without_endpoints_is_a_mistake_once() {
    let text = LEAST.replace("endpoints = [\"http://127.0.0.1:8000\"]", "");
    assert_eq!(
        errors(&text),
        ["origins.api.endpoints: needs at least one endpoint, such as \"http://127.0.0.1:8000\""]
    );
    // The route that names it is right, and not reported.
    let text = LEAST.replace("[origins.api]\nendpoints = [\"http://127.0.0.1:8000\"]", "origins.api = 3");
    assert_eq!(errors(&text), ["origins.api: expected a table, found the number 3"]);
}

/// DESIGN.md names six policies; one works today.
#[test]
fn choices_and_bounds_of_origins_are_said() {
    let rows = [
        (
            "balance = \"random\"",
            "origins.api.balance: \"random\" is not one of \"round_robin\", \"least_connections\", \"power_of_two\", \"latency\", \"consistent_hash\", \"geographic\"",
        ),
        ("connections_min = 65", "origins.api.connections_min: 65 is more than connections_max"),
        ("panic_threshold = 101", "origins.api.panic_threshold: 101 is above 100"),
        ("health = {}", "origins.api.health.path: is missing"),
        ("health = { path = \"healthz\" }", "origins.api.health.path: \"healthz\" is not a path such as \"/healthz\""),
        (
            "health = { path = \"/\", status = [\"2xx\"] }",
            "origins.api.health.status[0]: \"2xx\" is not a status such as \"200\", nor a range such as \"200-299\"",
        ),
        (
            "health = { path = \"/\", status = [\"299-200\"] }",
            "origins.api.health.status[0]: \"299-200\" is not a status such as \"200\", nor a range such as \"200-299\"",
        ),
        ("retries = { status = [\"503\"] }", "origins.api.retries.status: has no effect without `idempotent = true`"),
        (
            "retries = { idempotent = true, hedge_percentile = 100 }",
            "origins.api.retries.hedge_percentile: 100 is above 99",
        ),
        ("ejection = { time = \"10m\" }", "origins.api.ejection.time: is longer than time_max"),
        (
            "ejection = { errors = 1 }",
            "origins.api.ejection.errors: unknown key; known here: consecutive_errors, outliers, time, time_max, share_max, interval",
        ),
        ("http2 = \"maybe\"", "origins.api.http2: \"maybe\" is not one of \"auto\", \"always\", \"never\""),
        ("host_header = \"x\"", "origins.api.host_header: \"x\" is not one of \"client\", \"endpoint\""),
        ("tls_server_name = \"a b\"", "origins.api.tls_server_name: \"a b\" is not a host name"),
    ];
    assert_each(&rows, in_origin);
}

#[test]
fn hosts_are_names_wildcards_or_addresses_without_port() {
    let rows = [
        ("[]", "sites[0].hosts: needs at least one host, or \"*\" for any"),
        ("[\"a.example:80\"]", "sites[0].hosts[0]: \"a.example:80\" has a port: a host is written without"),
        ("[\"http://a\"]", "sites[0].hosts[0]: \"http://a\" is not a host name"),
        ("[\"a.*.example\"]", "sites[0].hosts[0]: \"a.*.example\" is not a host name"),
        ("[\"\"]", "sites[0].hosts[0]: \"\" is not a host name"),
        ("[\"[::g]\"]", "sites[0].hosts[0]: \"[::g]\" is not an IPv6 address"),
        ("[\"*\", \"*\"]", "sites[0].hosts[1]: \"*\" is already at sites[0].hosts[0]"),
        (
            "[\"*\"]\nname = \"a b\"",
            "sites[0].name: \"a b\" is not a name: letters, digits, -, _ and ., beginning with a letter or digit, at most 64",
        ),
    ];
    assert_each(&rows, with_hosts);
}

#[test]
fn sites_share_neither_hosts_nor_names() {
    let second = |text: &str| format!("{LEAST}\n[[sites]]\n{text}\nroutes = [{{ path = \"/\", origin = \"api\" }}]\n");
    assert_eq!(good(&second("hosts = [\"b\"]")).sites.len(), 2);
    assert_each(
        &[
            ("hosts = [\"*\"]", "sites[1].hosts[0]: \"*\" is already at sites[0].hosts[0]"),
            (
                "hosts = [\"c\", \"b\"]\nname = \"b\"\n[[sites]]\nhosts = [\"b.c\"]\nname = \"b\"",
                "sites[1].routes: needs at least one [[sites.routes]]: every request would be refused",
            ),
        ][..1],
        second,
    );
    let found = errors(&second(
        "name = \"n\"\nhosts = [\"b\"]\nroutes = [{ path = \"/\", origin = \"api\" }]\n[[sites]]\nname = \"n\"\nhosts = [\"c\"]",
    ));
    assert_eq!(found, ["sites[2].name: \"n\" is the name of sites[1] too"]);
}

#[test]
fn routes_need_a_path_and_an_origin_of_their_own() {
    let rows = [
        (
            "[[sites.routes]]\npath = \"/\"\norigin = \"api\"",
            "sites[0].routes[1].path: \"/\" is already the path of sites[0].routes[0]",
        ),
        ("[[sites.routes]]\norigin = \"api\"", "sites[0].routes[1].path: is missing"),
        ("[[sites.routes]]\npath = \"/x\"", "sites[0].routes[1].origin: is missing"),
        (
            "[[sites.routes]]\npath = \"/x\"\norigin = \"zebra\"",
            "sites[0].routes[1].origin: there is no [origins.zebra]",
        ),
        (
            "[[sites.routes]]\npath = \"/x/*\"\norigin = \"api\"",
            "sites[0].routes[1].path: \"/x/*\" holds a *: a path is a prefix, \"/api/\" covers everything below it",
        ),
        (
            "[[sites.routes]]\npath = \"/x?y\"\norigin = \"api\"",
            "sites[0].routes[1].path: \"/x?y\" holds what no path can: write it percent-encoded, without query",
        ),
        (
            "[[sites.routes]]\npath = \"/é\"\norigin = \"api\"",
            "sites[0].routes[1].path: \"/é\" holds what no path can: write it percent-encoded, without query",
        ),
        (
            "plugins = { invalidation = \"a b\" }",
            "sites[0].routes[0].plugins.invalidation: \"a b\" is not a name: letters, digits, -, _ and ., beginning with a letter or digit, at most 64",
        ),
        (
            "plugins = { cache_key = \"../x\" }",
            "sites[0].routes[0].plugins.cache_key: \"../x\" is not a name: letters, digits, -, _ and ., beginning with a letter or digit, at most 64",
        ),
        ("targeted_fields = [\"a b\"]", "sites[0].routes[0].targeted_fields[0]: \"a b\" is not a field name"),
        (
            "targeted_fields = [\"Cache-Control\"]",
            "sites[0].routes[0].targeted_fields[0]: Cache-Control is no targeted field: it is read anyway",
        ),
        ("targeted_fields = [\"a\", \"A\"]", "sites[0].routes[0].targeted_fields[1]: \"a\" is listed twice"),
        (
            "surrogate_keys = [\"a b\"]",
            "sites[0].routes[0].surrogate_keys[0]: \"a b\" holds white space, which no surrogate key can",
        ),
        (
            "surrogate_keys = [\"{path.0}\"]",
            "sites[0].routes[0].surrogate_keys[0]: \"{path.0}\": {path.0} is none of {header.NAME}, {query.NAME}, {path.N} (N from 1) and {host}",
        ),
        ("surrogate_key_fields = [\"a b\"]", "sites[0].routes[0].surrogate_key_fields[0]: \"a b\" is not a field name"),
        (
            "surrogate_key_fields = [\"Cache-Groups\"]",
            "sites[0].routes[0].surrogate_key_fields[0]: Cache-Groups is read anyway",
        ),
        (
            "surrogate_key_fields = [\"xkey\", \"Xkey\"]",
            "sites[0].routes[0].surrogate_key_fields[1]: \"xkey\" is listed twice",
        ),
        (
            "surrogate_key_fields = [{ field = \"a\", separator = \"|\" }]",
            "sites[0].routes[0].surrogate_key_fields[0].separator: \"|\" is not one of \"space\", \"comma\"",
        ),
        (
            "surrogate_key_fields = [1]",
            "sites[0].routes[0].surrogate_key_fields[0]: expected a field name, or { field = \"…\", separator = \"…\" }, found the number 1",
        ),
        (
            "surrogate_keys_overflow = \"x\"",
            "sites[0].routes[0].surrogate_keys_overflow: \"x\" is not one of \"refuse\", \"cut\"",
        ),
        ("tag_content_max = \"1GiB\"", "sites[0].routes[0].tag_content_max: 1GiB is above 16MiB"),
        (
            "items = { list = \"items\", id = \"/id\", type = \"x\" }",
            "sites[0].routes[0].items.list: \"items\" is not a JSON pointer (RFC 6901), such as \"/data/items\"",
        ),
        (
            "items = { list = \"/~2\", id = \"/id\", type = \"x\" }",
            "sites[0].routes[0].items.list: \"/~2\" is not a JSON pointer (RFC 6901), such as \"/data/items\"",
        ),
        (
            "items = { list = \"\", id = \"\", type = \"x\" }",
            "sites[0].routes[0].items.id: is the item itself: an id is below it, such as \"/id\"",
        ),
        ("items = { list = \"\", type = \"x\" }", "sites[0].routes[0].items.id: is missing"),
        (
            "writes = { urls = [\"//other/x\"] }",
            "sites[0].routes[0].writes.urls[0]: \"//other/x\" is not a path with or without query: it begins with one / and is percent-encoded",
        ),
        (
            "writes = { urls = [\"{path.1}\"] }",
            "sites[0].routes[0].writes.urls[0]: \"{path.1}\" is not a path with or without query: it begins with one / and is percent-encoded",
        ),
        (
            "writes = { prefixes = [\"/a?b\"] }",
            "sites[0].routes[0].writes.prefixes[0]: \"/a?b\": a prefix ends before the query",
        ),
        ("stale_if_error = \"1000d\"", "sites[0].routes[0].stale_if_error: 1000d is above 366d"),
    ];
    assert_each(&rows, in_route);
    assert!(only_route(&good(&in_route("targeted_fields = []"))).policy.targeted_fields.is_empty());
    let without = LEAST.split("[[sites.routes]]").next().unwrap();
    assert_eq!(
        errors(without),
        ["sites[0].routes: needs at least one [[sites.routes]]: every request would be refused"]
    );
}

#[test]
fn names_become_metrics_and_file_names_and_are_limited() {
    let text = LEAST.replace("origins.api", "origins.\"a b\"").replace("\"api\"", "\"a b\"");
    let found = errors(&text);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("origins.\"a b\": \"a b\" is not a name"), "{found:?}");
    let rows = [(
        "[plugins.config.\"../x\"]\na = \"b\"",
        "plugins.config.\"../x\": \"../x\" is not a name: letters, digits, -, _ and ., beginning with a letter or digit, at most 64",
    )];
    assert_each(&rows, before_least);
    let long = format!("[plugins.config.x]\na = \"{}\"", "v".repeat(limits::PLUGIN_CONFIG_VALUE_BYTES_MAX + 1));
    assert_eq!(errors(&before_least(&long)), ["plugins.config.x.a: has 4097 bytes, more than 4096"]);
    let many: String = (0..=limits::PLUGIN_CONFIG_ENTRIES_MAX).map(|n| format!("k{n} = \"v\"\n")).collect();
    assert_eq!(
        errors(&before_least(&format!("[plugins.config.x]\n{many}"))),
        ["plugins.config.x: has 65 entries, more than 64"]
    );
}
