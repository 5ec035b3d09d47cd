//! What `brim plugin new` and `brim plugin build` do on a developer's machine.
//!
//! Always true:
//! - A new plugin builds and passes its tests as it is, wherever it lies and without any registry: the binary carries the SDK's
//!   source, the SDK has no dependencies, and its bindings to the contract are generated beforehand.
//! - What `build` hands over was loaded under a node's limits: a node that grants its imports takes it.
//!
//! Not here: sending a component to a node (`cli`), keeping it there (`plugins`).

mod build;
mod new;
mod sdk;

pub use build::{BuildError, build};
pub use new::{NewError, NewHook, new};

/// The one target of plugins. It has no system interface at all, so neither has a plugin.
pub const TARGET: &str = "wasm32-unknown-unknown";
