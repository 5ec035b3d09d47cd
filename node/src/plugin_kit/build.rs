//! A plugin's source made into a component.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use brim_host::{Grants, Host, HostConfig, HostError, RefusedPlugin};
use wit_component::ComponentEncoder;

use super::TARGET;

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is nothing to build.
    #[error("{} is not a plugin: there is no Cargo.toml with a package in it", dir.display())]
    NotAPlugin {
        /// The folder.
        dir: PathBuf,
    },
    /// Rust is missing.
    #[error("cannot run `{program}`: is Rust installed? (https://rustup.rs)")]
    NoRust {
        /// What was to be run.
        program: &'static str,
        /// Why it did not.
        #[source]
        source: io::Error,
    },
    /// Rust is there and cannot compile for plugins.
    #[error("the Rust target {TARGET} is not installed; run: rustup target add {TARGET}")]
    NoTarget,
    /// Cargo has said why.
    #[error("cargo could not build it")]
    Cargo,
    /// Cargo built something else than a plugin.
    #[error("{} builds no plugin: its Cargo.toml needs `[lib] crate-type = [\"cdylib\"]`", dir.display())]
    NoModule {
        /// The folder.
        dir: PathBuf,
    },
    /// The module is not one that can become a component.
    #[error("the module cannot be made into a component: {reason}")]
    Component {
        /// What is wrong with it.
        reason: String,
    },
    /// No rule is exported.
    #[error(
        "no rule is exported: `#[brim_sdk::plugin]` belongs on the `impl CacheKeyRule for …` or `impl InvalidationRule for …`"
    )]
    NoRule,
    /// A node would not take it either.
    #[error("a node would refuse it: {0}")]
    Refused(#[source] RefusedPlugin),
    /// It cannot be tried here.
    #[error("the component cannot be tried on this machine")]
    Host(#[from] HostError),
    /// A file could not be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Builds the plugin in `dir`; returns the path of its component, `dir/target/NAME.component.wasm`.
///
/// What the compiler says goes to standard error.
///
/// # Errors
/// Where Rust or its target is missing, the source does not compile, or a node would refuse the result.
pub fn build(dir: &Path) -> Result<PathBuf, BuildError> {
    let name = package_name(dir)?;
    check_target(dir)?;
    let module_path = compile(dir)?;
    let module = fs::read(&module_path).map_err(|source| BuildError::File { path: module_path, source })?;
    let component = component_of(&module)?;
    try_out(&name, &component)?;

    let target = dir.join("target");
    let path = target.join(format!("{name}.component.wasm"));
    let written = fs::create_dir_all(&target).and_then(|()| fs::write(&path, &component));
    written.map_err(|source| BuildError::File { path: path.clone(), source })?;
    Ok(path)
}

fn package_name(dir: &Path) -> Result<String, BuildError> {
    let not_a_plugin = || BuildError::NotAPlugin { dir: dir.to_owned() };
    let manifest = fs::read_to_string(dir.join("Cargo.toml")).map_err(|_| not_a_plugin())?;
    let manifest: toml::Table = manifest.parse().map_err(|_| not_a_plugin())?;
    let name = manifest.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
    name.map(str::to_owned).ok_or_else(not_a_plugin)
}

/// The target's library is a folder of the toolchain that this folder uses; there is none where it is not installed.
fn check_target(dir: &Path) -> Result<(), BuildError> {
    let asked = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(dir)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| BuildError::NoRust { program: "rustc", source })?;
    let libraries = PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim());
    if asked.status.success() && libraries.is_dir() { Ok(()) } else { Err(BuildError::NoTarget) }
}

/// Runs cargo; returns the path of the module.
fn compile(dir: &Path) -> Result<PathBuf, BuildError> {
    let built = Command::new("cargo")
        .args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"])
        // Not a shared folder that the environment may name: plugins made by `new` all call their library `plugin`.
        .args(["--target-dir", "target"])
        // These would take the place of the flags in the plugin's .cargo/config.toml, and with them the small stack.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| BuildError::NoRust { program: "cargo", source })?;
    if !built.status.success() {
        return Err(BuildError::Cargo);
    }
    let no_module = || BuildError::NoModule { dir: dir.to_owned() };
    let manifest = fs::canonicalize(dir.join("Cargo.toml")).map_err(|_| no_module())?;
    let messages = String::from_utf8_lossy(&built.stdout);
    messages.lines().rev().find_map(|message| module_of(message, &manifest)).ok_or_else(no_module)
}

/// The `.wasm` file that a message of cargo says this package's library became.
fn module_of(message: &str, manifest: &Path) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let is_module = message.get("reason")? == "compiler-artifact"
        && message.get("target")?.get("crate_types")?.as_array()?.iter().any(|kind| kind == "cdylib")
        && fs::canonicalize(message.get("manifest_path")?.as_str()?).ok()? == manifest;
    if !is_module {
        return None;
    }
    let mut files =
        message.get("filenames")?.as_array()?.iter().filter_map(serde_json::Value::as_str).map(PathBuf::from);
    files.find(|file| file.extension().is_some_and(|extension| extension == "wasm"))
}

/// Wraps a core module by the description of its world that the SDK's bindings left in it.
fn component_of(module: &[u8]) -> Result<Vec<u8>, BuildError> {
    // The causes matter here: the outermost message only says what was being done.
    let encoded = ComponentEncoder::default().validate(true).module(module).and_then(|mut encoder| encoder.encode());
    encoded.map_err(|error| BuildError::Component { reason: format!("{error:#}") })
}

/// Loads the component as a node would. Which imports a node grants is the node's to say: here all are.
fn try_out(name: &str, component: &[u8]) -> Result<(), BuildError> {
    let host = Host::new(HostConfig { instances_max: 1, ..HostConfig::default() })?;
    let grants = Grants { config: Some(std::collections::BTreeMap::new()), ..Grants::default() };
    let loaded = host.compile(component).and_then(|compiled| host.load_with(name, &compiled, [0; 32], &grants));
    match loaded {
        Ok(_) => Ok(()),
        Err(RefusedPlugin::MissingExport { .. } | RefusedPlugin::NoHook) => Err(BuildError::NoRule),
        Err(refused) => Err(BuildError::Refused(refused)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_kit::{NewHook, new};

    fn cargo_test(dir: &Path) -> bool {
        Command::new("cargo")
            .args(["test", "--quiet", "--offline"])
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_TARGET_DIR")
            .current_dir(dir)
            .stdout(Stdio::null())
            .status()
            .expect("cargo runs")
            .success()
    }

    /// The promise of `brim plugin new`: it builds and passes its tests as it is, here in a folder outside the repository.
    #[test]
    fn a_new_plugin_passes_its_tests_and_becomes_a_component() {
        let parent = tempfile::tempdir().expect("a folder");
        // A word of Rust is a good name of a plugin.
        let dir = new(parent.path(), "fn", NewHook::CacheKey, None).expect("a plugin");
        assert!(cargo_test(&dir));
        let component = build(&dir).expect("a component");
        assert_eq!(component, dir.join("target/fn.component.wasm"));
        assert!(fs::metadata(&component).expect("a file").len() < 64 * 1024);
    }

    #[test]
    fn a_new_invalidation_plugin_does_so_too() {
        let parent = tempfile::tempdir().expect("a folder");
        let dir = new(parent.path(), "author-tags", NewHook::Invalidation, None).expect("a plugin");
        assert!(cargo_test(&dir));
        let component = fs::read(build(&dir).expect("a component")).expect("a file");
        assert!(component.len() < 64 * 1024, "{}", component.len());
        let host = Host::new(HostConfig { instances_max: 1, ..HostConfig::default() }).expect("a host");
        let compiled = host.compile(&component).expect("compiles");
        let plugin = host.load("author-tags", &compiled, [0; 32]).expect("loads without any grant but the log");
        assert_eq!(plugin.description().hooks, [brim_host::Hook::Invalidation]);
        assert_eq!(plugin.description().name, "author-tags");
    }

    #[test]
    fn a_plugin_without_an_exported_rule_is_told_so() {
        let parent = tempfile::tempdir().expect("a folder");
        let dir = new(parent.path(), "unexported", NewHook::CacheKey, None).expect("a plugin");
        let source = dir.join("src/lib.rs");
        let text = fs::read_to_string(&source).expect("a file").replace("#[brim_sdk::plugin]", "");
        fs::write(&source, text).expect("a file");
        assert!(matches!(build(&dir), Err(BuildError::NoRule)));
    }

    #[test]
    fn source_that_does_not_compile_is_cargos_to_explain() {
        let parent = tempfile::tempdir().expect("a folder");
        let dir = new(parent.path(), "broken", NewHook::CacheKey, None).expect("a plugin");
        fs::write(dir.join("src/lib.rs"), "fn {").expect("a file");
        assert!(matches!(build(&dir), Err(BuildError::Cargo)));
    }

    #[test]
    fn what_is_no_plugin_is_told_so() {
        let parent = tempfile::tempdir().expect("a folder");
        assert!(matches!(build(parent.path()), Err(BuildError::NotAPlugin { .. })));
        let dir = new(parent.path(), "program", NewHook::CacheKey, None).expect("a plugin");
        let manifest = fs::read_to_string(dir.join("Cargo.toml")).expect("a file").replace("\"cdylib\"", "\"rlib\"");
        fs::write(dir.join("Cargo.toml"), manifest).expect("a file");
        assert!(matches!(build(&dir), Err(BuildError::NoModule { .. })));
    }
}
