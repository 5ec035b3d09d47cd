//! Files with mistakes: each mistake has its key path and says what would be right.

use super::*;

#[test]
fn all_mistakes_of_a_file_are_reported_together_in_its_order() {
    let text = r#"
lisen = 1
[listen]
http = ["localhost:80"]
threads = "many"
connections_max = 0
header_timeout = 10
[tls]
certificates = [{ cert = "c.pem" }]
[store]
disk_max = "10G"
[origins.api]
endpoints = []
conect_timeout = "2s"
[[sites]]
hosts = ["a.example", "A.example"]
[[sites.routes]]
path = "x"
origin = "apis"
"#;
    let errors = Config::parse(text, Path::new(BASE)).expect_err("full of mistakes");
    let expected = [
        "lisen: unknown key; did you mean `listen`? (line 2)",
        "listen.http[0]: \"localhost:80\" is not an address with a port, such as \"127.0.0.1:8080\" (line 4)",
        "listen.threads: expected a whole number, found the text \"many\" (line 5)",
        "listen.connections_max: 0 is below 1 (line 6)",
        "listen.header_timeout: 10 has no unit: write a duration such as \"500ms\" (line 7)",
        "tls.certificates[0].key: is missing (line 9)",
        "store.disk_max: \"10G\" is not a size: write a whole number and B, KiB, MiB, GiB or TiB (or kB, MB, GB, TB), such as \"10GiB\" (line 11)",
        "origins.api.endpoints: needs at least one endpoint, such as \"http://127.0.0.1:8000\" (line 13)",
        "origins.api.conect_timeout: unknown key; did you mean `connect_timeout`? (line 14)",
        "sites[0].hosts[1]: \"a.example\" is already at sites[0].hosts[0] (line 16)",
        "sites[0].routes[0].path: \"x\" does not begin with / (line 18)",
        "sites[0].routes[0].origin: there is no [origins.apis]; did you mean \"api\"? (line 19)",
    ];
    assert_eq!(errors.to_string(), expected.join("\n"));
}

#[test]
fn broken_syntax_is_reported_with_its_lines_and_nothing_else() {
    let errors = Config::parse("[listen]\nhttp = \nthreads = 1\n[store]\ndisk_max = 1GiB\n", Path::new(BASE))
        .expect_err("broken");
    assert!(errors.0.iter().all(|error| error.path.is_empty() && error.line.is_some()), "{errors}");
    let lines: Vec<_> = errors.0.iter().filter_map(|error| error.line).collect();
    assert!(lines.contains(&2) && lines.contains(&5), "{errors}");
    let errors = Config::parse("a = 1\na = 2\n", Path::new(BASE)).expect_err("a key twice");
    assert_eq!(errors.0[0].line, Some(2));
}

#[test]
fn an_empty_file_says_what_it_needs() {
    assert_eq!(errors(""), ["sites: needs at least one [[sites]]: nothing would be served"]);
}

#[test]
fn every_section_refuses_unknown_keys() {
    let rows = [
        (
            "colour = 1",
            "colour: unknown key; known here: data_dir, node_name, resolver, region, origins, listen, tls, admin, store, plugins, log, sites",
        ),
        ("[listen]\nhttps_port = 1", "listen.https_port: unknown key; known here: "),
        ("[tls]\ncertificate = 1", "tls.certificate: unknown key; did you mean `certificates`?"),
        (
            "[[tls.certificates]]\ncert = \"c\"\nkey = \"k\"\nchain = \"x\"",
            "tls.certificates[0].chain: unknown key; known here: cert, key",
        ),
        (
            "[admin]\ntoken = \"x\"",
            "admin.token: unknown key; known here: listen, token_file, purges_per_minute, blast_radius_max, blast_radius_share",
        ),
        ("[admin]\npurges_per_minute = -1", "admin.purges_per_minute: -1 is not within 0 to 1000000"),
        ("[admin]\nblast_radius_share = 101", "admin.blast_radius_share: 101 is above 100"),
        (
            "[admin]\nblast_radius_max = \"10\"",
            "admin.blast_radius_max: expected a whole number, found the text \"10\"",
        ),
        ("node_name = \"a b\"", "node_name: "),
        ("[store]\nmemorymax = \"1GiB\"", "store.memorymax: unknown key; did you mean `memory_max`?"),
        ("[plugins]\nkey-deadline = \"1ms\"", "plugins.key-deadline: unknown key; did you mean `key_deadline`?"),
        ("[log]\nacces = \"off\"", "log.acces: unknown key; did you mean `access`?"),
        ("[log]\naccess = { file = \"x\", mode = 1 }", "log.access.mode: unknown key; known here: file"),
    ];
    for (text, expected) in rows {
        let found = errors(&before_least(text));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(expected), "{found:?}");
    }
    assert_each(&[("ballance = 1", "origins.api.ballance: unknown key; did you mean `balance`?")], in_origin);
    let rows = [(
        "[{ url = \"http://a\", wieght = 2 }]",
        "origins.api.endpoints[0].wieght: unknown key; did you mean `weight`?",
    )];
    assert_each(&rows, with_endpoints);
    assert_each(&[("[\"*\"]\nhost = \"x\"", "sites[0].host: unknown key; did you mean `hosts`?")], with_hosts);
    let rows = [
        ("ttl = \"1s\"\ncach = \"on\"", "sites[0].routes[0].cach: unknown key; did you mean `cache`?"),
        (
            "plugins = { cache-key = \"x\" }",
            "sites[0].routes[0].plugins.cache-key: unknown key; did you mean `cache_key`?",
        ),
    ];
    let found = errors(&in_route(rows[0].0));
    assert_eq!(found.len(), 2);
    assert_eq!(found[1], rows[0].1);
    assert_each(&rows[1..], in_route);
}

#[test]
fn values_of_the_wrong_type_say_what_was_expected_and_found() {
    let rows = [
        ("data_dir = 1", "data_dir: expected a text in quotes, found the number 1"),
        ("data_dir = \"\"", "data_dir: is empty"),
        ("listen = \"127.0.0.1:80\"", "listen: expected a table, found the text \"127.0.0.1:80\""),
        (
            "[listen]\nhttp = \"127.0.0.1:80\"",
            "listen.http: expected a list in brackets, found the text \"127.0.0.1:80\"",
        ),
        ("[listen]\nhttp = [80]", "listen.http[0]: expected a text in quotes, found the number 80"),
        ("[listen]\nthreads = 1.5", "listen.threads: expected a whole number, found the number 1.5"),
        ("[listen]\nstreams_max = -1", "listen.streams_max: -1 is not within 1 to 10000"),
        (
            "[listen]\nstreams_max = 99999999999999999999",
            "listen.streams_max: 99999999999999999999 is not within 1 to 10000",
        ),
        ("[listen]\nidle_timeout = true", "listen.idle_timeout: expected a duration such as \"500ms\", found true"),
        ("[store]\ndisk_max = 1_000", "store.disk_max: 1000 has no unit: write a size such as \"64KiB\""),
        ("[tls]\ncertificates = [\"c.pem\"]", "tls.certificates[0]: expected a table, found the text \"c.pem\""),
        ("[plugins.config]\nx = 1", "plugins.config.x: expected a table, found the number 1"),
        ("[plugins.config.x]\ny = 1", "plugins.config.x.y: expected a text in quotes, found the number 1"),
        ("[log]\naccess = false", "log.access: expected \"off\", \"stdout\" or { file = \"PATH\" }, found false"),
        ("[log]\naccess = \"of\"", "log.access: \"of\" is not \"off\", \"stdout\" or { file = \"PATH\" }"),
        ("[log]\naccess = {}", "log.access.file: is missing"),
        ("[log]\nformat = \"xml\"", "log.format: \"xml\" is not one of \"text\", \"json\""),
    ];
    assert_each(&rows, before_least);
    let rows = [
        (
            "store_set_cookie = \"yes\"",
            "sites[0].routes[0].store_set_cookie: expected true or false, found the text \"yes\"",
        ),
        ("cache = true", "sites[0].routes[0].cache: expected a text in quotes, found true"),
        ("cache = \"of\"", "sites[0].routes[0].cache: \"of\" is not one of \"on\", \"off\""),
        ("plugins = \"x\"", "sites[0].routes[0].plugins: expected a table, found the text \"x\""),
        ("heuristic = 1979-05-27", "sites[0].routes[0].heuristic: expected true or false, found a date"),
    ];
    assert_each(&rows, in_route);
}

#[test]
fn bounds_are_part_of_what_is_accepted() {
    let accepted = [
        "[listen]\nhead_bytes_max = \"8KiB\"",
        "[listen]\nhead_bytes_max = \"1MiB\"",
        "[store]\ndisk_max = \"64MiB\"",
        "[store]\nmemory_max = \"1MiB\"",
        "[plugins]\nkey_deadline = \"1s\"",
        "[listen]\nconnections_max = 1_000_000",
        "[listen]\nthreads = 0x10",
    ];
    for text in accepted {
        good(&before_least(text));
    }
    assert_eq!(good(&before_least("[listen]\nthreads = 0x10")).listen.threads, 16);
    let rows = [
        ("[listen]\nhead_bytes_max = \"8191B\"", "listen.head_bytes_max: 8191B is below 8KiB"),
        ("[listen]\nhead_bytes_max = \"2MiB\"", "listen.head_bytes_max: 2MiB is above 1MiB"),
        ("[listen]\nthreads = 257", "listen.threads: 257 is above 256"),
        ("[listen]\nhandshake_timeout = \"0s\"", "listen.handshake_timeout: 0ms is below 100ms"),
        ("[store]\ndisk_max = \"63MiB\"", "store.disk_max: 63MiB is below 64MiB"),
        ("[plugins]\nkey_deadline = \"2s\"", "plugins.key_deadline: 2s is above 1s"),
        ("[plugins]\ninstances_max = 0", "plugins.instances_max: 0 is below 1"),
    ];
    assert_each(&rows, before_least);
    assert_each(&[("queue_timeout = \"1h\"", "origins.api.queue_timeout: 1h is above 2m")], in_origin);
}

/// The longest content cannot be longer than the store; the default gives way, a written value is a mistake.
#[test]
fn object_max_never_exceeds_disk_max() {
    assert_eq!(good(&before_least("[store]\ndisk_max = \"1GiB\"")).store.object_max, 1 << 30);
    let rows = [(
        "[store]\ndisk_max = \"1GiB\"\nobject_max = \"2GiB\"",
        "store.object_max: is more than `disk_max`: such a response could never be kept",
    )];
    assert_each(&rows, before_least);
}

#[test]
fn listeners_need_addresses_of_their_own() {
    assert!(good(&before_least("[listen]\nhttps = [\"127.0.0.1:0\"]")).listen.http.is_empty());
    good(&before_least("[listen]\nhttp = [\"127.0.0.1:0\", \"127.0.0.1:0\"]"));
    let rows = [
        ("[listen]\nhttp = []", "listen.http: `http` and `https` are both empty: nothing would be served"),
        (
            "[listen]\nhttp = [\"1.2.3.4:80\"]\nhttps = [\"1.2.3.4:80\"]",
            "listen: 1.2.3.4:80 is used by more than one listener",
        ),
        ("[admin]\nlisten = \"127.0.0.1:8080\"", "listen: 127.0.0.1:8080 is used by more than one listener"),
        (
            "[admin]\nlisten = \"9900\"",
            "admin.listen: \"9900\" is not an address with a port, such as \"127.0.0.1:8080\"",
        ),
    ];
    assert_each(&rows, before_least);
}

#[test]
fn loading_looks_for_the_file_and_for_the_certificates_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("brim.toml");
    let missing = Config::load(&file).expect_err("not there");
    assert!(missing.to_string().starts_with("cannot read "), "{missing}");

    std::fs::write(&file, before_least("[[tls.certificates]]\ncert = \"c.pem\"\nkey = \"k.pem\"\n")).unwrap();
    let errors = Config::load(&file).expect_err("no certificate").0;
    let paths: Vec<_> = errors.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(paths, ["tls.certificates[0].cert", "tls.certificates[0].key"]);
    assert!(errors[0].message.contains("there is no file"), "{errors:?}");

    std::fs::write(dir.path().join("c.pem"), "").unwrap();
    std::fs::write(dir.path().join("k.pem"), "").unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(config.tls.certificates[0].cert, dir.path().join("c.pem"));
    assert_eq!(config.data_dir, dir.path().join("brim-data"));
}
