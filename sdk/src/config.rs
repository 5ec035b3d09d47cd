//! Values the operator wrote for this plugin in the node's configuration.
//!
//! A plugin that asks for them is refused by a node that does not grant it any.

/// The value of this name, if the operator wrote one. It does not change while the plugin is loaded.
///
/// In native tests: what [`crate::testing::set_config`] set on this thread.
#[must_use]
pub fn get(name: &str) -> Option<String> {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::brim::rules::config::get(name);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::config_value(name)
}
