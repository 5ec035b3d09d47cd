//! The registry with a real component: built once, and told apart by a custom section that changes its digest alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use brim_host::{Host, HostConfig};
use bytes::Bytes;

use super::*;

/// What a component begins with.
pub(crate) const COMPONENT_MAGIC: &[u8] = b"\0asm\x0d\0\x01\0";
const COMPONENT_BYTES_MAX: u64 = 1 << 20;

/// A component that loads; `tag` makes it another one.
pub(crate) fn component(tag: &str) -> Bytes {
    static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let plugin =
            crate::plugin_kit::new(dir.path(), "rule", crate::plugin_kit::NewHook::CacheKey, None).expect("made");
        fs::read(crate::plugin_kit::build(&plugin).expect("built")).expect("read")
    });
    let tag_bytes = u8::try_from(tag.len()).expect("a short tag");
    // Section 0 (custom), its size, the length of its name, its name.
    let section = [&[0, tag_bytes + 1, tag_bytes], tag.as_bytes()].concat();
    [built.as_slice(), &section].concat().into()
}

pub(crate) async fn registry(dir: &Path) -> PluginRegistry {
    let host = Host::new(HostConfig { instances_max: 4, ..HostConfig::default() }).expect("a host");
    let config = RegistryConfig {
        dir: dir.to_owned(),
        component_bytes_max: COMPONENT_BYTES_MAX,
        compiler: Compiler::InProcess,
        configs: BTreeMap::new(),
    };
    PluginRegistry::open(config, Arc::new(host)).await.expect("opened")
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

async fn upload(registry: &PluginRegistry, tag: &str) -> u64 {
    registry.upload("rule", component(tag), at(7)).await.expect("taken").version.version
}

fn active(registry: &PluginRegistry) -> Option<u64> {
    registry.active("rule").map(|active| active.version)
}

#[tokio::test]
async fn an_upload_is_kept_and_described_but_not_in_use() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let registry = registry(dir.path()).await;
    let uploaded = registry.upload("rule", component("a"), at(7)).await.expect("taken");
    assert!(!uploaded.known);
    assert_eq!((uploaded.version.version, uploaded.version.uploaded_at), (1, 7));
    assert_eq!(uploaded.version.hooks, ["cache-key"]);
    assert_eq!(uploaded.version.digest.len(), 64);
    assert_eq!(active(&registry), None);
    let again = registry.upload("rule", component("a"), at(8)).await.expect("taken");
    assert!(again.known);
    assert_eq!(again.version, uploaded.version);
    assert_eq!(upload(&registry, "b").await, 2);
}

/// What a plugin has and reads is what people see before they use it.
#[tokio::test]
async fn an_invalidation_plugin_is_described_by_what_it_reads() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let made = crate::plugin_kit::new(dir.path(), "tags", crate::plugin_kit::NewHook::Invalidation, None);
    let built = crate::plugin_kit::build(&made.expect("made")).expect("built");
    let component = fs::read(built).expect("read");
    let before = registry(&dir.path().join("registry")).await;
    let uploaded = before.upload("tags", component.into(), at(7)).await.expect("taken").version;
    assert_eq!(uploaded.hooks, ["invalidation"]);
    let reads = uploaded.inputs.invalidation.clone().expect("declared");
    assert_eq!(reads.response_values, ["/author/id", "/articles/*/author/id"]);
    assert_eq!(reads, DeclaredReads { response_values: reads.response_values.clone(), ..DeclaredReads::default() });
    before.activate("tags", uploaded.version, Mode::Live).await.expect("active");
    drop(before);
    let after = registry(&dir.path().join("registry")).await;
    assert_eq!(after.get("tags").expect("known").record.versions, [uploaded]);
    assert!(after.active("tags").expect("active").plugin.has(brim_host::Hook::Invalidation));
}

#[tokio::test]
async fn versions_activations_and_the_way_back_survive_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let before = registry(dir.path()).await;
    for tag in ["a", "b"] {
        let version = upload(&before, tag).await;
        before.activate("rule", version, Mode::Live).await.expect("active");
    }
    let digest = before.active("rule").expect("active").digest.clone();
    drop(before);

    let after = registry(dir.path()).await;
    assert_eq!(active(&after), Some(2));
    assert_eq!(after.active("rule").expect("active").digest, digest);
    assert!(after.problems().is_empty());
    let view = after.rollback("rule").await.expect("rolled back");
    assert_eq!((view.record.active, active(&after)), (Some(1), Some(1)));
    assert!(matches!(after.rollback("rule").await, Err(ChangeRefusal::NothingBefore(_))));
    drop(after);
    assert_eq!(active(&registry(dir.path()).await), Some(1));
}

#[tokio::test]
async fn compiled_modules_are_made_again_when_missing_or_damaged() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let before = registry(dir.path()).await;
    let version = upload(&before, "a").await;
    before.activate("rule", version, Mode::Live).await.expect("active");
    let digest = before.active("rule").expect("active").digest.clone();
    drop(before);
    let compiled = dir.path().join("compiled").join(format!("{:016x}", brim_host::compatibility())).join(&digest);
    let whole = fs::read(&compiled).expect("kept");

    let mut damaged = whole.clone();
    *damaged.last_mut().expect("not empty") ^= 1;
    fs::write(&compiled, damaged).expect("written");
    assert_eq!(active(&registry(dir.path()).await), Some(version));
    assert_eq!(fs::read(&compiled).expect("kept").len(), whole.len());

    fs::remove_file(&compiled).expect("removed");
    assert_eq!(active(&registry(dir.path()).await), Some(version));
    assert!(compiled.exists());
}

/// The node starts, says so, and routes of the plugin find no active version: they bypass the cache.
#[tokio::test]
async fn a_plugin_that_no_longer_loads_is_reported() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let before = registry(dir.path()).await;
    let version = upload(&before, "a").await;
    before.activate("rule", version, Mode::Live).await.expect("active");
    let digest = before.active("rule").expect("active").digest.clone();
    drop(before);
    fs::write(dir.path().join("components").join(format!("{digest}.wasm")), b"other").expect("written");
    fs::remove_dir_all(dir.path().join("compiled")).expect("removed");

    let after = registry(dir.path()).await;
    assert_eq!(active(&after), None);
    let problem = after.get("rule").expect("known").problem.expect("reported");
    assert!(problem.contains("digest"), "{problem}");
    assert!(matches!(after.activate("rule", version, Mode::Live).await, Err(ChangeRefusal::Unloadable { .. })));
    // A new version mends it.
    let version = upload(&after, "b").await;
    after.activate("rule", version, Mode::Live).await.expect("active");
    assert_eq!((active(&after), after.problems().len()), (Some(version), 0));
}

#[tokio::test]
async fn a_damaged_registry_is_moved_aside_and_reported() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    drop(registry(dir.path()).await);
    fs::write(dir.path().join("registry.json"), b"{\"format\": 1,").expect("written");
    let after = registry(dir.path()).await;
    assert!(after.list().is_empty());
    let [problem] = after.problems().try_into().expect("one problem");
    assert!(problem.plugin.is_none() && problem.reason.contains("registry.damaged-"), "{problem:?}");
}

#[tokio::test]
async fn each_refusal_says_which_check() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let registry = registry(dir.path()).await;
    let broken = [COMPONENT_MAGIC, b"bad"].concat();
    let large = vec![0; usize::try_from(COMPONENT_BYTES_MAX).expect("small") + 1];
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("Rule", broken.clone(), "name"),
        ("../rule", broken.clone(), "name"),
        ("rule", large, "size"),
        ("rule", b"(component)".to_vec(), "format"),
        ("rule", b"\0asm\x01\0\0\0".to_vec(), "format"),
        ("rule", broken, "compile"),
    ];
    for (name, bytes, check) in cases {
        let refusal = registry.upload(name, bytes.into(), at(0)).await.expect_err(check);
        assert_eq!(refusal.check(), check, "{refusal}");
    }
    assert!(registry.list().is_empty(), "a refused component leaves nothing behind");
}

#[tokio::test]
async fn only_kept_versions_go_live_and_only_live() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let registry = registry(dir.path()).await;
    upload(&registry, "a").await;
    let refused = async |name, version, mode| registry.activate(name, version, mode).await.err().expect("refused");
    assert!(matches!(refused("other", 1, Mode::Live).await, ChangeRefusal::UnknownPlugin(_)));
    assert!(matches!(refused("rule", 2, Mode::Live).await, ChangeRefusal::UnknownVersion { .. }));
    for mode in [Mode::Shadow, Mode::Canary] {
        assert!(refused("rule", 1, mode).await.to_string().contains("not available in this version"));
    }
    assert_eq!(active(&registry), None);
}

/// Many writers at once: every upload gets a number of its own, and nothing is lost.
#[tokio::test]
async fn uploads_at_once_do_not_lose_each_other() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let registry = registry(dir.path()).await;
    let tasks: Vec<_> = ["a", "b", "c", "d"]
        .map(|tag| {
            let registry = registry.clone();
            tokio::spawn(async move { upload(&registry, tag).await })
        })
        .into_iter()
        .collect();
    let mut versions = Vec::new();
    for task in tasks {
        versions.push(task.await.expect("uploaded"));
    }
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4]);
    assert_eq!(registry.get("rule").expect("known").record.versions.len(), 4);
}
