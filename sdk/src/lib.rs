//! Write Brim plugins in Rust.
//!
//! A plugin is a type that implements [`CacheKeyRule`] or [`InvalidationRule`], with [`macro@plugin`] on the implementation:
//!
//! ```
//! use brim_sdk::{CacheKeyRule, Decision, Description, Failure, Request};
//!
//! struct LanguageKey;
//!
//! #[brim_sdk::plugin]
//! impl CacheKeyRule for LanguageKey {
//!     fn describe() -> Description {
//!         Description::new("language-key", "1.0.0").cookie("lang")
//!     }
//!
//!     fn key(request: &Request) -> Result<Decision, Failure> {
//!         Ok(Decision::keep_query().part("language", request.cookie("lang")?))
//!     }
//! }
//! ```
//!
//! A component may have both hooks: `#[brim_sdk::plugin(also = InvalidationRule)]` on `impl CacheKeyRule for …` exports the type's
//! [`InvalidationRule`] as well.
//!
//! Always true:
//! - A rule depends on nothing of WebAssembly: `cargo test` runs it natively, with [`testing::MockRequest`].
//! - A rule sees what it declared in `describe` or `reads`, and nothing else. It has no clock, no randomness and no network, and starts
//!   afresh for each request, so a static variable remembers nothing.
//! - A cache-key rule that fails or panics costs its own request the cache: the request is forwarded and the response not stored. So
//!   does `tags` of an invalidation rule; `purges` is asked again.
//!
//! Not here: making a component of the compiled plugin (`brim plugin build`).
#![deny(unsafe_code, missing_docs, unreachable_pub)]

mod arena;
pub mod config;
mod decision;
mod invalidation;
pub mod log;
mod query;
mod request;
mod rule;
pub mod testing;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[allow(unsafe_code, missing_docs, unreachable_pub, reason = "generated from wit/ by sdk/bindgen")]
#[rustfmt::skip]
pub mod bindings;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
#[cfg(target_arch = "wasm32")]
mod rt;
#[cfg(target_arch = "wasm32")]
#[rustfmt::skip]
mod worlds;

pub use brim_sdk_macros::plugin;
pub use decision::{Decision, Failure, PartValue, QueryUse};
pub use invalidation::{
    Content, InvalidationRule, KEY_BYTES_MAX, KEYS_MAX, PURGES_MAX, Purges, Reads, Response, Tags, URL_BYTES_MAX,
    Value, Values, key_text,
};
pub use query::{Parameter, Query};
pub use request::{Repeated, Request};
pub use rule::{CacheKeyRule, Description, QueryInputs};
