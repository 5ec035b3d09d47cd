//! Uploaded plugins: their versions, which of them is active, and the way back.
//!
//! Always true:
//! - A version is a component that was compiled in a limited child process, loaded and described before it was kept.
//! - What is active changes by one atomic write of `registry.json` first and one atomic swap in memory after it, so a
//!   crash shows either the old state or the new one.
//! - Nothing here lies in the cache's index: the cache may be thrown away, a rule may not.
//! - A plugin that cannot be loaded is reported and inactive; the node starts without it and its routes bypass the cache.
//!
//! Not here: running a hook (`brim_host`), building a component (`plugin_kit`), the HTTP calls (`admin`).

mod compile;
mod error;
mod files;
mod record;
mod registry;

pub use compile::{ChildCompiler, Compiler, compile_in_child};
pub use error::{ChangeRefusal, OpenError, UploadRefusal};
pub use record::{DeclaredInputs, DeclaredQuery, DeclaredReads, PluginRecord, VersionRecord};
pub use registry::{ActivePlugin, Mode, PluginRegistry, PluginView, Problem, RegistryConfig, Uploaded, is_plugin_name};

/// Versions of one plugin that are kept; the oldest that is neither active nor needed for a rollback goes first.
pub const VERSIONS_KEPT_MAX: usize = 10;
/// Plugins that one node keeps. Each costs a listing line and a load at start.
pub const PLUGINS_MAX: usize = 256;
/// Length of a plugin's name; it is part of URLs, file names and metric labels.
pub const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
pub(crate) mod tests;
