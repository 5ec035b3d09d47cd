//! The invalidation hook: example plugins and one that misbehaves, as components under the real host.

mod common;

use std::time::{Duration, Instant};

use brim_host::{Grants, Hook, Host, HostConfig, Plugin, PluginFault, PluginPurge, RefusedPlugin, json};
use common::{TestExchange, TestRequest, component, configured, host, load, patient_host, plugin};
use http::{HeaderName, HeaderValue};

/// Far above the deadline of 5 ms: a loaded machine must not fail the test, a call that never ends must.
const BACK_WITHIN: Duration = Duration::from_millis(500);

fn rest_tags(host: &Host) -> Plugin {
    configured(host, "rest-tags", &[("type", "product"), ("list", "/items"), ("path", "/products")])
}

fn keys(purges: &[PluginPurge]) -> Vec<&str> {
    let [PluginPurge::SurrogateKeys(keys)] = purges else { panic!("{purges:?}") };
    keys.iter().map(|key| &**key).collect()
}

/// What a component exports decides what it is used for; what it declares may come from its configuration.
#[test]
fn a_plugin_says_which_hooks_it_has_and_what_they_read() {
    let host = host();
    let tags = rest_tags(&host);
    assert_eq!(tags.description().hooks, [Hook::Invalidation]);
    assert!(tags.has(Hook::Invalidation) && !tags.has(Hook::CacheKey));
    let inputs = tags.invalidation_inputs().expect("declared");
    let pointers: Vec<&str> = inputs.response_values.iter().map(json::Pointer::as_str).collect();
    assert_eq!(pointers, ["/items/*/id", "/id"]);

    let both = plugin(&host, "hostile");
    assert_eq!(both.description().hooks, [Hook::CacheKey, Hook::Invalidation]);
    assert_eq!(both.description().name, "hostile");
    assert!(TestRequest::get("/good").put_to(&both).is_ok());
    assert_eq!(TestExchange::of("GET", "/good", 200).tags(&both), Ok(vec!["path:/good".into()]));

    let key = plugin(&host, "device-key");
    assert!(!key.has(Hook::Invalidation) && key.invalidation_inputs().is_none());
}

#[test]
fn a_hook_that_is_not_there_is_a_fault() {
    let host = host();
    let key = plugin(&host, "device-key");
    let exchange = TestExchange::of("GET", "/", 200);
    assert_eq!(exchange.tags(&key), Err(PluginFault::NoHook));
    assert_eq!(exchange.purges(&key), Err(PluginFault::NoHook));
    assert_eq!(key.stats().faults.no_hook, 2);
    let tags = rest_tags(&host);
    assert_eq!(TestRequest::get("/").put_to(&tags), Err(PluginFault::NoHook));
    assert_eq!(tags.stats().faults.by_kind().last(), Some(&("no-hook", 1)));
}

#[test]
fn rest_tags_tags_pages_and_purges_them_after_a_write() {
    let tags = rest_tags(&host());
    let page = TestExchange::of("GET", "/products?page=2&colour=red", 200)
        .answered(r#"{"items": [{"id": 1, "name": "x"}, {"id": "b c"}], "next": null}"#);
    let found = page.tags(&tags).expect("keys");
    let expected = ["product:all", "product:lists", "product:lists:selected", "product:1", "product:b%20c"];
    assert_eq!(found, expected.map(Into::into));

    let put = TestExchange::of("PUT", "/products/1", 200).sent(r#"{"name": "y"}"#).answered(r#"{"id": 1}"#);
    assert_eq!(keys(&put.purges(&tags).expect("purges")), ["product:lists:selected", "product:unknown", "product:1"]);
    let post = TestExchange::of("POST", "/products", 201).sent(r#"{"name": "z"}"#).answered("");
    assert_eq!(
        keys(&post.purges(&tags).expect("purges")),
        ["product:lists:selected", "product:unknown", "product:lists"]
    );
    let stats = tags.stats();
    assert_eq!((stats.calls, stats.tags_calls, stats.purges_calls, stats.memo_hits), (3, 1, 2, 0));
    assert_eq!(stats.faults.total(), 0);
}

#[test]
fn webhook_purge_purges_what_is_named() {
    let webhook = plugin(&host(), "webhook-purge");
    let hook = |content| TestExchange::of("POST", "/hook", 204).sent(content).purges(&webhook).expect("purges");
    let deleted = hook(r#"{"type": "product", "id": 42, "action": "deleted"}"#);
    assert_eq!(keys(&deleted), ["product:42", "product:lists:selected", "product:unknown", "product:lists"]);
    let named = hook(r#"{"keys": ["front"], "urls": ["/news", "https://a.example/"]}"#);
    let expected = [
        PluginPurge::SurrogateKeys(vec!["front".into()]),
        PluginPurge::Url("/news".to_owned()),
        PluginPurge::Url("https://a.example/".to_owned()),
    ];
    assert_eq!(named, expected);
    assert!(TestExchange::of("GET", "/", 200).tags(&webhook).expect("none").is_empty());
}

#[test]
fn the_guest_sees_what_it_declared_and_nothing_else() {
    let hostile = plugin(&host(), "hostile");
    let mut exchange = TestExchange::of("PATCH", "/seen?a=1", 202)
        .sent(r#"{"id": [1, 2], "id": 3, "secret": 4}"#)
        .answered(r#"{"items": [{"id": -1}, {"id": null}, {"id": true}, {"id": 0.5}, {"id": "é"}, {"id": {}}]}"#);
    exchange.request = exchange.request.header("x-seen", "1").header("x-hidden", "1").header("x-seen", "2");
    exchange.response_headers.append(HeaderName::from_static("x-seen"), HeaderValue::from_static("3"));
    exchange.response_headers.append(HeaderName::from_static("x-hidden"), HeaderValue::from_static("3"));
    let seen = exchange.purges(&hostile).expect("purges");
    let expected = "PATCH;shop.example/seen?a=1;seen=2;hidden=0;[Integer(3)];\
                    202;seen=1;hidden=0;[Integer(-1),Null,Flag(true),Number(0.5),Text(\"é\"),Null]";
    assert_eq!(keys(&seen), [expected]);

    let none = TestExchange::of("DELETE", "/seen", 204).answered("<html>").tags(&hostile).expect("keys");
    assert_eq!(&*none[0], "DELETE;shop.example/seen?-;seen=0;hidden=0;Empty;204;seen=0;hidden=0;NotJson");
}

/// A call can wait on disk, and be run by another version of the plugin than it was made for.
#[test]
fn a_call_survives_its_queue_and_a_new_version() {
    let host = host();
    let tags = rest_tags(&host);
    let put = TestExchange::of("PUT", "/products/5", 200).sent(r#"{"id": 5, "sku": 7}"#);
    let written = serde_json::to_vec(&put.call(&tags)).expect("written");
    let read: brim_host::InvalidationCall = serde_json::from_slice(&written).expect("read");
    assert_eq!(read, put.call(&tags));
    assert_eq!(keys(&tags.purges(&read).expect("purges"))[2], "product:5");
    // The values are none of the pointers that this one declares: nothing is known of the content.
    let by_sku = configured(&host, "rest-tags", &[("type", "product"), ("path", "/products"), ("id", "/sku")]);
    assert_eq!(keys(&by_sku.purges(&read).expect("purges")), ["product:all"]);
    let both = plugin(&host, "hostile");
    assert!(both.purges(&read).is_ok());
}

/// As many values as are ever selected go in, within the deadline of a production host but for the slowest machine.
#[test]
fn the_longest_lists_reach_the_guest() {
    let tags = configured(&patient_host(), "rest-tags", &[("list", "/items"), ("path", "/items")]);
    let items: Vec<String> = (0..json::VALUES_MAX).map(|id| format!("{{\"id\":{id}}}")).collect();
    let page = TestExchange::of("GET", "/items", 200).answered(&format!(r#"{{"items":[{}]}}"#, items.join(",")));
    let found = page.tags(&tags).expect("keys");
    assert!(found.contains(&"item:unknown".into()) && found.len() == 4, "{}", found.len());
    let text = "x".repeat(json::TEXT_BYTES_MAX);
    let items: Vec<String> =
        (0..json::TEXTS_BYTES_MAX / json::TEXT_BYTES_MAX).map(|_| format!("{{\"id\":\"{text}\"}}")).collect();
    let page = TestExchange::of("GET", "/items", 200).answered(&format!(r#"{{"items":[{}]}}"#, items.join(",")));
    // Such a text is too long for a key with its type.
    assert_eq!(page.tags(&tags).expect("keys"), ["item:all", "item:lists", "item:unknown"].map(Into::into));
}

/// Puts the path to a hook of the hostile plugin; checks that control is back and that it then answers as ever.
fn fault_of<T: std::fmt::Debug>(
    plugin: &Plugin,
    path: &str,
    ask: fn(&TestExchange, &Plugin) -> Result<T, PluginFault>,
) -> PluginFault {
    let began = Instant::now();
    let fault = ask(&TestExchange::of("PUT", path, 200), plugin).expect_err(path);
    assert!(began.elapsed() < BACK_WITHIN, "{path}: {:?}", began.elapsed());
    assert!(ask(&TestExchange::of("PUT", "/good", 200), plugin).is_ok(), "the call after {path} is fine");
    fault
}

#[test]
fn misbehaviour_is_a_fault_of_its_kind() {
    let hostile = plugin(&host(), "hostile");
    assert_eq!(fault_of(&hostile, "/loop", TestExchange::tags), PluginFault::Deadline);
    assert_eq!(fault_of(&hostile, "/loop", TestExchange::purges), PluginFault::Deadline);
    let rejected = PluginFault::Rejected("rejected on purpose".to_owned());
    assert_eq!(fault_of(&hostile, "/reject", TestExchange::tags), rejected);
    assert_eq!(fault_of(&hostile, "/reject", TestExchange::purges), rejected);
    for fault in [fault_of(&hostile, "/panic", TestExchange::tags), fault_of(&hostile, "/panic", TestExchange::purges)]
    {
        assert!(matches!(&fault, PluginFault::Panicked(message) if message.contains("on purpose")), "{fault:?}");
    }
    for fault in [fault_of(&hostile, "/trap", TestExchange::tags), fault_of(&hostile, "/trap", TestExchange::purges)] {
        assert!(matches!(fault, PluginFault::Trap(_)), "{fault:?}");
    }
    let faults = hostile.stats().faults;
    assert_eq!((faults.deadline, faults.rejected, faults.panicked, faults.trap), (2, 2, 2, 2));
    assert_eq!(fault_of(&plugin(&patient_host(), "hostile"), "/memory", TestExchange::tags), PluginFault::Memory);
}

#[test]
fn answers_that_are_not_valid_are_refused() {
    let hostile = plugin(&patient_host(), "hostile");
    for (path, why) in [
        ("/garbage/keys", "256 are allowed"),
        ("/garbage/many", "fuel"),
        ("/garbage/huge", "fuel"),
        ("/garbage/long", "the surrogate key"),
        ("/garbage/empty", "the surrogate key"),
        ("/garbage/space", "the surrogate key `a b`"),
        ("/garbage/control", "the surrogate key `a b`"),
    ] {
        let fault = fault_of(&hostile, path, TestExchange::tags);
        assert!(matches!(&fault, PluginFault::BadOutput(message) if message.contains(why)), "{path}: {fault:?}");
    }
    for (path, why) in [
        ("/garbage/purges", "64 are allowed"),
        ("/garbage/keys", "more than 256 surrogate keys"),
        ("/garbage/key", "the surrogate key"),
        ("/garbage/url", "a purge of `items/1`"),
        ("/garbage/scheme", "a purge of"),
        ("/garbage/prefix", "a purge of `/a  b`"),
        ("/garbage/long", "a purge of"),
    ] {
        let fault = fault_of(&hostile, path, TestExchange::purges);
        assert!(matches!(&fault, PluginFault::BadOutput(message) if message.contains(why)), "{path}: {fault:?}");
    }
}

/// The bounds of what passes to the host at once leave room for the largest valid answers.
#[test]
fn the_largest_valid_answers_pass() {
    let hostile = plugin(&patient_host(), "hostile");
    let largest = TestExchange::of("PUT", "/largest", 200);
    let tags = largest.tags(&hostile).expect("keys");
    assert!(tags.len() == 256 && tags.iter().all(|key| key.len() == 1024));
    assert_eq!(largest.purges(&hostile).expect("purges").len(), 64);
    let all = TestExchange::of("PUT", "/good", 200).purges(&hostile).expect("purges");
    let expected = [
        PluginPurge::SurrogateKeys(vec!["a".into(), "b".into()]),
        PluginPurge::Url("/u?q".to_owned()),
        PluginPurge::Prefix("https://a/p".to_owned()),
        PluginPurge::Site,
    ];
    assert_eq!(all, expected);
}

#[test]
fn more_calls_than_may_run_at_once_are_told_so() {
    let config =
        HostConfig { instances_max: 1, invalidation_deadline: Duration::from_millis(200), ..HostConfig::default() };
    let hostile = plugin(&Host::new(config).expect("a host"), "hostile");
    std::thread::scope(|scope| {
        // Takes the one place as soon as it is free, and holds it until the deadline.
        let looping = scope.spawn(|| {
            loop {
                match TestExchange::of("GET", "/loop", 200).tags(&hostile) {
                    Err(PluginFault::Busy) => std::thread::yield_now(),
                    ended => break ended,
                }
            }
        });
        let mut busy = false;
        while !busy && !looping.is_finished() {
            busy = TestExchange::of("GET", "/good", 200).tags(&hostile) == Err(PluginFault::Busy);
        }
        assert!(busy, "the one place was taken");
        assert_eq!(looping.join().expect("no panic"), Err(PluginFault::Deadline));
    });
}

/// A place that cannot be one is told when the plugin is loaded.
#[test]
fn declarations_are_checked_at_load() {
    let refused = |id: &str| {
        let config = [("id".to_owned(), id.to_owned())].into_iter().collect();
        let grants = Grants { log: true, config: Some(config) };
        load(&host(), &component("rest-tags"), &grants).expect_err("refused")
    };
    let wrong = refused("id");
    assert!(matches!(wrong, RefusedPlugin::Inputs { .. }));
    assert_eq!(wrong.to_string(), "`reads` says `id`, but a JSON pointer is empty or begins with `/`");
    assert!(matches!(refused("/~"), RefusedPlugin::Inputs { .. }));
    assert!(matches!(refused(&format!("/{}", "x".repeat(256))), RefusedPlugin::Inputs { .. }));
}

/// A native test of a rule finds the values that a node finds.
#[test]
fn the_sdk_reads_json_as_the_host_does() {
    let pointers = ["", "/id", "/items/*/id", "/*", "/0", "/*/*", "/items/1/id", "/a~1b", "/m~0n", "/items/*/tags/*"];
    let texts: Vec<String> = pointers.map(str::to_owned).into();
    let parsed: Vec<json::Pointer> = pointers.iter().map(|text| json::Pointer::parse(text).expect(text)).collect();
    let check = |content: &[u8]| {
        let sdk = brim_sdk::testing::select(content, &texts);
        let host = json::select(content, &parsed);
        assert_eq!(as_host(sdk, &texts), host, "{:?}", String::from_utf8_lossy(content));
        host
    };
    let text = "x".repeat(json::TEXT_BYTES_MAX + 1);
    let long_text = format!("{{\"id\": \"{text}\"}}");
    let long_list = format!("[{}1]", "1,".repeat(json::VALUES_MAX));
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let (deep, deeper) = (nested(127), nested(128));
    let samples = [
        r#"{"items": [{"id": 1, "tags": ["a", "b\u00e9\ud83d\ude00\n"]}, {"id": "x\"y\\"}, [], {}], "id": null, "a/b": true}"#,
        r#"{"m~n": -0, "id": 1e3, "id": 0.25, "id": -12, "id": 9223372036854775808, "id": -9223372036854775809}"#,
        r#"[0, -0.0, 1E+2, 1e-2, 12345678901234567890, "", "\/\b\f\r\t", [[]], {"id": false}]"#,
        "[1e400]",
        "[1.]",
        "[.5]",
        "[+1]",
        "[01]",
        "[-]",
        "[1e]",
        "[\"\\ud800\"]",
        "[\"\\udc00\"]",
        "[\"\\ud800\\u0041\"]",
        "[\"\\x\"]",
        "[\"a\u{1}\"]",
        "{\"a\" 1}",
        "{a: 1}",
        "{\"a\": 1,}",
        "[1 2]",
        "truefalse",
        "nulls",
        " ",
        "\u{a0}1",
        "",
        " 7 ",
        "\"t\"",
        "{\"*\": 1}",
        &long_text,
        &long_list,
        &deep,
        &deeper,
    ];
    let mut outcomes = Vec::new();
    for sample in samples {
        outcomes.push(check(sample.as_bytes()));
    }
    for kind in [json::Content::Empty, json::Content::TooLong, json::Content::NotJson] {
        assert!(outcomes.contains(&kind), "{kind:?} is among the samples");
    }
    check(b"[\"\xff\"]");

    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..20_000 {
        let mut content = random.choice(&samples[..3]).expect("one").to_string().into_bytes();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..content.len());
            match random.u8(..3) {
                0 => drop(content.remove(at)),
                1 => content.insert(at, *random.choice(b"{}[]\",:\\u0e-. 1").expect("one")),
                _ => content[at] = *random.choice(b"{}[]\",:\\u0e-. 1").expect("one"),
            }
        }
        check(&content);
    }
}

fn as_host(content: brim_sdk::Content, pointers: &[String]) -> json::Content {
    let value = |value: &brim_sdk::Value| match value.clone() {
        brim_sdk::Value::Null => json::Value::Null,
        brim_sdk::Value::Flag(flag) => json::Value::Flag(flag),
        brim_sdk::Value::Integer(integer) => json::Value::Integer(integer),
        brim_sdk::Value::Number(number) => json::Value::Number(number),
        brim_sdk::Value::Text(text) => json::Value::Text(text),
    };
    match content {
        brim_sdk::Content::Undeclared => json::Content::Undeclared,
        brim_sdk::Content::Empty => json::Content::Empty,
        brim_sdk::Content::TooLong => json::Content::TooLong,
        brim_sdk::Content::NotJson => json::Content::NotJson,
        brim_sdk::Content::Values(values) => {
            json::Content::Values(pointers.iter().map(|at| values.at(at).iter().map(value).collect()).collect())
        }
    }
}
