//! Writes the SDK's guest bindings from the WIT package.
//!
//! The bindings are checked in, so that a plugin builds without a bindings generator: no download, no procedural macro that
//! parses WIT on every build, and a plugin's only dependency is the SDK beside it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use wit_bindgen_core::{Files, WorldGenerator as _, wit_parser::Resolve};

fn main() -> anyhow::Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(here.join("../../wit"))?;
    let world = resolve.select_world(&[package], Some("cache-key-plugin"))?;

    let mut generator = wit_bindgen_rust::Opts {
        runtime_path: Some("crate::rt".to_owned()),
        default_bindings_module: Some("$crate::bindings".to_owned()),
        export_macro_name: Some("__export_cache_key_plugin".to_owned()),
        pub_export_macro: true,
        disable_run_ctors_once_workaround: true,
        ..Default::default()
    }
    .build();
    let mut files = Files::default();
    generator.generate(&mut resolve, world, &mut files)?;

    let out = here.join("../src/bindings.rs");
    let (_, source) = files.iter().next().context("nothing was generated")?;
    std::fs::write(&out, source).with_context(|| format!("cannot write {}", out.display()))?;
    let formatted = Command::new("rustfmt").args(["--edition", "2024"]).arg(&out).status()?;
    ensure!(formatted.success(), "rustfmt refused the bindings");
    Ok(())
}
