//! Whole commands against a real admin API: what they change there, and how they end.

use std::ffi::OsString;

use super::execute;
use crate::admin::tests::{TOKEN, TestAdmin};
use crate::plugins::tests::component;

/// Runs `brim LINE` on a thread of its own, as a process would.
async fn brim(line: &str) -> u8 {
    let args: Vec<OsString> = std::iter::once("brim").chain(line.split_whitespace()).map(OsString::from).collect();
    tokio::task::spawn_blocking(move || execute(args)).await.expect("no panic")
}

#[tokio::test]
async fn purges_reach_the_node() {
    let admin = TestAdmin::start().await;
    let node = format!("--admin http://{} --token {TOKEN}", admin.address);
    let position = || admin.state.store.position().0;
    assert_eq!(brim(&format!("purge url http://a/1 http://a/2 {node}")).await, 0);
    assert_eq!(position(), 2);
    assert_eq!(brim(&format!("purge key one two --soft --json {node}")).await, 0);
    assert_eq!(brim(&format!("purge prefix http://a/ {node}")).await, 0);
    assert_eq!(brim(&format!("purge site shop {node}")).await, 0);
    assert_eq!(position(), 5);
    assert_eq!(brim(&format!("purge all --dry-run {node}")).await, 0);
    assert_eq!(brim(&format!("purge all --dry-run --json {node}")).await, 0);
    assert_eq!(position(), 5);
    assert_eq!(brim(&format!("purge all {node}")).await, 0);
    assert_eq!(position(), 6);
    assert_eq!(brim(&format!("purge key one --site shop --idempotency-key k {node}")).await, 0);
    assert_eq!(brim(&format!("purge key one --site shop --idempotency-key k --wait {node}")).await, 0);
    assert_eq!(brim(&format!("purge url http://a/1 -H Accept:text/html --soft {node}")).await, 0);
    assert_eq!(brim(&format!("purge match --status 4xx --status 500 --path /a/* --older-than 1m {node}")).await, 0);
    assert_eq!(position(), 9, "a repeated one is made once");
    for line in
        ["purge list", "purge list --json --limit 2 --before 5", "purge show p-9 --wait", "purge show p-9 --json"]
    {
        assert_eq!(brim(&format!("{line} {node}")).await, 0, "{line}");
    }
    assert_eq!(brim(&format!("purge show p-99 {node}")).await, 1);
    assert_eq!(brim(&format!("purge show a/b {node}")).await, 2);
    assert_eq!(brim(&format!("purge list --soft {node}")).await, 2);
    assert_eq!(brim(&format!("purge url http://a/1 http://a/2 --confirm c {node}")).await, 2);
    assert_eq!(brim(&format!("purge match --status 600 {node}")).await, 1);
    assert_eq!(brim(&format!("purge site nowhere {node}")).await, 1);
    assert_eq!(brim(&format!("purge url not-a-url {node}")).await, 1);
    assert_eq!(position(), 9);
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked() {
    let admin = TestAdmin::start().await;
    let node = format!("--admin http://{} --token {TOKEN}", admin.address);
    let made =
        "token new ci --scope purge --scope read --site shop --key-prefix p: --purges-per-minute 5 --expires-in 1h";
    assert_eq!(brim(&format!("{made} {node}")).await, 0);
    assert_eq!(brim(&format!("token new other --scope read --json {node}")).await, 0);
    let tokens = admin.state.tokens.list();
    assert_eq!(tokens.len(), 2);
    for line in ["token list", "token list --json"] {
        assert_eq!(brim(&format!("{line} {node}")).await, 0, "{line}");
    }
    assert_eq!(brim(&format!("token new bad --scope read --site nowhere {node}")).await, 1);
    for token in &tokens {
        assert_eq!(brim(&format!("token revoke {} {node}", token.id)).await, 0);
        assert_eq!(brim(&format!("token revoke {} {node}", token.id)).await, 1);
    }
    assert_eq!(brim(&format!("token revoke a/b {node}")).await, 2);
    assert_eq!(admin.state.tokens.list(), []);
}

#[tokio::test]
async fn a_plugin_is_pushed_switched_and_rolled_back() {
    let admin = TestAdmin::start().await;
    let node = format!("--admin http://{} --token {TOKEN}", admin.address);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let active = || admin.state.plugins.active("tenant-key").map(|active| active.version);
    for (tag, flags, expected) in
        [("a", "--activate", Some(1)), ("b", "--activate --json", Some(2)), ("c", "", Some(2))]
    {
        let path = dir.path().join("tenant_key.component.wasm");
        std::fs::write(&path, component(tag)).expect("written");
        assert_eq!(brim(&format!("plugin push {} {flags} {node}", path.display())).await, 0);
        assert_eq!(active(), expected);
    }
    assert_eq!(brim(&format!("plugin activate tenant-key {node}")).await, 0);
    assert_eq!(active(), Some(3), "the newest, where no version is named");
    assert_eq!(brim(&format!("plugin rollback tenant-key {node}")).await, 0);
    assert_eq!(brim(&format!("plugin activate tenant-key 1 {node}")).await, 0);
    assert_eq!(active(), Some(1));
    for line in [
        "plugin list",
        "plugin list --json",
        "plugin list tenant-key",
        "plugin list tenant-key --json",
        "status",
        "status --json",
    ] {
        assert_eq!(brim(&format!("{line} {node}")).await, 0, "{line}");
    }
    assert_eq!(brim(&format!("plugin activate tenant-key 9 {node}")).await, 1);
    assert_eq!(brim(&format!("plugin list other {node}")).await, 1);
    assert_eq!(brim(&format!("plugin push {}/missing.wasm {node}", dir.path().display())).await, 1);
    let rubbish = dir.path().join("rubbish.wasm");
    std::fs::write(&rubbish, "rubbish").expect("written");
    assert_eq!(brim(&format!("plugin push {} {node}", rubbish.display())).await, 1);
    assert_eq!(brim(&format!("plugin rollback Not-A-Name {node}")).await, 2);
}

#[tokio::test]
async fn a_request_is_explained() {
    let admin = TestAdmin::start().await;
    let node = format!("--admin http://{} --token {TOKEN}", admin.address);
    assert_eq!(brim(&format!("explain http://a/ -H Accept:*/* {node}")).await, 0);
    assert_eq!(brim(&format!("explain http://a/ -X HEAD --json {node}")).await, 0);
    assert_eq!(brim(&format!("explain not-a-url {node}")).await, 1);
    assert_eq!(brim(&format!("explain http://a/ -X G\u{e9}T {node}")).await, 1);
    assert_eq!(brim(&format!("explain http://a/ -H novalue {node}")).await, 2);
}

#[tokio::test]
async fn what_the_client_cannot_do_says_so() {
    let admin = TestAdmin::start().await;
    let address = admin.address;
    assert_eq!(brim(&format!("status --admin http://{address} --token wrong")).await, 1);
    assert_eq!(brim(&format!("status --admin https://{address} --token {TOKEN}")).await, 2);
    assert_eq!(brim(&format!("status --admin {address} --token {TOKEN}")).await, 2);
    assert_eq!(brim(&format!("status --admin http://{address} --token-file /nonexistent")).await, 1);
    // Nobody listens on port 1.
    assert_eq!(brim(&format!("status --admin http://127.0.0.1:1 --token {TOKEN}")).await, 1);
}

#[tokio::test]
async fn usage_help_and_checks_end_as_promised() {
    assert_eq!(brim("--help").await, 0);
    assert_eq!(brim("--version").await, 0);
    assert_eq!(brim("purge --help").await, 0);
    assert_eq!(brim("").await, 2);
    assert_eq!(brim("warm").await, 2);
    assert_eq!(brim("purge url").await, 2);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("brim.toml");
    let check = format!("check -c {}", file.display());
    assert_eq!(brim(&check).await, 1, "there is no such file");
    let config = "[origins.api]\nendpoints = [\"http://127.0.0.1:8000\"]\n[[sites]]\nhosts = [\"*\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"api\"\n";
    std::fs::write(&file, config).expect("written");
    assert_eq!(brim(&check).await, 0);
    std::fs::write(&file, config.replace("origin = \"api\"", "origin = \"other\"")).expect("written");
    assert_eq!(brim(&check).await, 1);
    assert_eq!(brim(&format!("{check} --json")).await, 1);
}
