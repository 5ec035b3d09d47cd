//! The example plugins as components under the real host.

mod common;

use std::sync::Arc;

use brim_host::{Grants, Hook, PluginFault, QueryInputs, QueryUse, RefusedPlugin};
use brim_semantics::PartValue;
use common::{TestRequest, component, componentised, host, load, plugin};

fn part<'a>(decision: &'a brim_host::KeyDecision, name: &str) -> Option<&'a PartValue> {
    decision.parts.iter().find(|part| part.name == name).map(|part| &part.value)
}

#[test]
fn a_plugin_describes_itself() {
    let host = host();
    let tenant = plugin(&host, "tenant-key");
    let description = tenant.description();
    assert_eq!((description.name.as_str(), description.version.as_str()), ("tenant-key", "1.0.0"));
    assert_eq!(description.hooks, [Hook::CacheKey]);
    assert_eq!(description.inputs.headers, ["x-tenant"]);
    assert_eq!(description.inputs.query, QueryInputs::All);
    assert!(!description.inputs.path);
    assert_eq!(tenant.digest(), [7; 32]);
}

#[test]
fn tenant_key_keys_the_tenant_and_a_canonical_query() {
    let tenant = plugin(&host(), "tenant-key");
    let decision =
        TestRequest::get("/items?b=2&utm_source=x&a=1").header("x-tenant", "acme").put_to(&tenant).expect("a decision");
    assert_eq!(decision.query, QueryUse::Replace(Some("a=1&b=2".to_owned())));
    assert_eq!(part(&decision, "tenant"), Some(&PartValue::Bytes(b"acme".to_vec())));
    let nobody = TestRequest::get("/items").put_to(&tenant).expect("a decision");
    assert_eq!(nobody.query, QueryUse::Replace(None));
    assert_eq!(part(&nobody, "tenant"), Some(&PartValue::Absent));
}

#[test]
fn device_key_folds_user_agents() {
    let device = plugin(&host(), "device-key");
    let decision = TestRequest::get("/")
        .header("user-agent", "Mozilla/5.0 (iPhone) Mobile/15E148")
        .put_to(&device)
        .expect("a decision");
    assert_eq!(part(&decision, "device"), Some(&PartValue::Text("mobile".to_owned())));
    assert_eq!(decision.query, QueryUse::Keep);
}

/// Equal inputs are answered from memory, and what is not declared makes no input differ.
#[test]
fn decisions_are_remembered_by_their_declared_inputs() {
    let device = plugin(&host(), "device-key");
    let first = TestRequest::get("/a?q=1")
        .header("user-agent", "curl")
        .header("x-other", "1")
        .put_to(&device)
        .expect("a decision");
    let again = TestRequest::get("/b?q=2")
        .header("user-agent", "curl")
        .header("x-other", "2")
        .put_to(&device)
        .expect("a decision");
    assert!(Arc::ptr_eq(&first, &again));
    TestRequest::get("/a").header("user-agent", "wget").put_to(&device).expect("a decision");
    let stats = device.stats();
    assert_eq!((stats.calls, stats.memo_hits, stats.faults.total()), (3, 1, 0));
    assert!(stats.time >= stats.time_max && !stats.time_max.is_zero());
}

#[test]
fn a_rejection_carries_the_rules_message() {
    let tenant = plugin(&host(), "tenant-key");
    let fault =
        TestRequest::get("/").header("x-tenant", "a").header("x-tenant", "b").put_to(&tenant).expect_err("a fault");
    assert_eq!(fault, PluginFault::Rejected("`x-tenant` comes more than once".to_owned()));
    assert_eq!(tenant.stats().faults.rejected, 1);
}

#[test]
fn many_threads_call_one_plugin() {
    let device = plugin(&host(), "device-key");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let device = &device;
            scope.spawn(move || {
                for i in 0..200 {
                    TestRequest::get("/")
                        .header("user-agent", &format!("{thread} {i}"))
                        .put_to(device)
                        .expect("a decision");
                }
            });
        }
    });
    assert_eq!(device.stats().calls, 800);
}

/// What one host compiled, another loads: the node compiles in a child process.
#[test]
fn a_compiled_plugin_is_loaded_by_another_host() {
    let config = brim_host::HostConfig::default();
    let compiled = brim_host::compile(&config, &component("device-key")).expect("compiles");
    assert!(host().load("device", &compiled, [1; 32]).is_ok());
    assert_eq!(brim_host::compatibility(), brim_host::compatibility());
}

#[test]
fn what_is_no_component_is_refused() {
    let host = host();
    assert!(matches!(host.compile(b"hello"), Err(RefusedPlugin::NotAComponent)));
    assert!(matches!(host.compile(b"\0asm\x01\0\0\0"), Err(RefusedPlugin::CoreModule)));
    assert!(matches!(host.compile(b"\0asm\x0d\0\x01\0rubbish"), Err(RefusedPlugin::Invalid { .. })));
    let small = brim_host::HostConfig { component_bytes_max: 1000, ..brim_host::HostConfig::default() };
    assert!(matches!(brim_host::compile(&small, &component("device-key")), Err(RefusedPlugin::TooLarge { .. })));
}

#[test]
fn compiled_bytes_of_something_else_are_incompatible() {
    assert!(matches!(host().load("x", b"not compiled by anybody", [0; 32]), Err(RefusedPlugin::Incompatible { .. })));
}

#[test]
fn a_component_that_exports_no_rule_is_refused() {
    let empty = wat::parse_str("(component)").expect("wat");
    let refused = load(&host(), &empty, &Grants::default()).expect_err("refused");
    assert_eq!(refused.to_string(), "it does not export `brim:rules/meta@1`");
}

/// A component says by its exports what it may be used for, and a refusal says what is missing.
#[test]
fn a_component_without_a_hook_is_refused() {
    let refused = |exports: &str| {
        let component = wat::parse_str(format!("(component (instance $i) {exports})")).expect("wat");
        load(&host(), &component, &Grants::default()).expect_err("refused")
    };
    let meta = r#"(export "brim:rules/meta@1.0.0" (instance $i))"#;
    let invalidation = r#"(export "brim:rules/invalidation@1.0.0" (instance $i))"#;
    let none = refused(meta);
    assert!(matches!(none, RefusedPlugin::NoHook));
    assert!(none.to_string().contains("brim:rules/invalidation@1"), "{none}");
    assert!(matches!(refused(invalidation), RefusedPlugin::MissingExport { export: "brim:rules/meta@1" }));
    let later = r#"(export "brim:rules/invalidation@2.0.0" (instance $i))"#;
    assert!(matches!(refused(&format!("{meta}{later}")), RefusedPlugin::NoHook));
    assert!(matches!(refused(&format!("{meta}{invalidation}")), RefusedPlugin::WrongType { .. }));
}

#[test]
fn an_import_that_is_not_granted_is_refused_by_name() {
    let wasi = wat::parse_str(
        r#"(component
            (import "wasi:random/random@0.2.0" (instance (export "get-random-u64" (func (result u64))))))"#,
    )
    .expect("wat");
    let refused = load(&host(), &wasi, &Grants::default()).expect_err("refused");
    assert_eq!(refused.to_string(), "it imports `wasi:random/random@0.2.0`, which is not granted");
}

/// Even what the world has must be granted: `log` is by default, `config` is not.
#[test]
fn imports_of_the_world_need_a_grant_too() {
    let host = host();
    let silent = Grants { log: false, config: None };
    let refused = load(&host, &component("tenant-key"), &silent).expect_err("refused");
    assert!(matches!(refused, RefusedPlugin::NotGranted { import } if import == "brim:rules/log@1.0.0"));

    let component = component("configured");
    let refused = load(&host, &component, &Grants::default()).expect_err("refused");
    assert!(matches!(refused, RefusedPlugin::NotGranted { import } if import == "brim:rules/config@1.0.0"));

    let config = [("shards".to_owned(), "4".to_owned())].into_iter().collect();
    let configured = load(&host, &component, &Grants { log: true, config: Some(config) }).expect("granted");
    let decision = TestRequest::get("/").put_to(&configured).expect("a decision");
    assert_eq!(part(&decision, "shards"), Some(&PartValue::Text("4".to_owned())));
    assert_eq!(part(&decision, "missing"), Some(&PartValue::Absent));
}

#[test]
fn a_module_that_was_not_made_by_the_sdk_works_as_well() {
    // The encoder takes any module with the world in a custom section; `componentised` is what `brim plugin build` does.
    assert!(componentised(&wat::parse_str("(module)").expect("wat")).starts_with(b"\0asm"));
}
