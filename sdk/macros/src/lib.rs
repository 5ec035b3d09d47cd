//! The `#[plugin]` attribute of `brim-sdk`.
//!
//! Always true:
//! - The annotated `impl` is passed on unchanged, so that the rule also compiles and is tested natively.
//! - The export is emitted for `wasm32` only; elsewhere the rule is merely named, so that it does not count as dead code.
//!
//! Reads the tokens by hand: what it needs from them is one type name, and a parser crate would be most of a plugin's build time.
#![deny(unsafe_code, missing_docs)]

use proc_macro::{TokenStream, TokenTree};

/// Makes the rule of the annotated `impl CacheKeyRule for Rule` the one this plugin exports.
///
/// ```ignore
/// #[brim_sdk::plugin]
/// impl CacheKeyRule for TenantKey { /* … */ }
/// ```
#[proc_macro_attribute]
pub fn plugin(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let export = if arguments.is_empty() { export_of(item.clone()) } else { Err("#[plugin] takes no arguments") };
    let extra = match export {
        Ok(export) => export,
        Err(message) => format!("::core::compile_error!({message:?});"),
    };
    let mut output = item;
    // The text is built from a fixed frame and one identifier, so it always lexes; if it ever did not, the rule alone is passed on.
    output.extend(extra.parse::<TokenStream>().unwrap_or_default());
    output
}

/// The export for the type that follows `for` in `impl … CacheKeyRule for Type { … }`.
fn export_of(item: TokenStream) -> Result<String, &'static str> {
    let mut tokens = item.into_iter().skip_while(|token| !is_word(token, "impl"));
    if tokens.next().is_none() {
        return Err("#[plugin] belongs on `impl CacheKeyRule for …`");
    }
    let of_trait: Vec<TokenTree> = tokens.by_ref().take_while(|token| !is_word(token, "for")).collect();
    if !of_trait.last().is_some_and(|token| is_word(token, "CacheKeyRule")) {
        return Err("#[plugin] belongs on `impl CacheKeyRule for …`");
    }
    let (Some(TokenTree::Ident(rule)), Some(TokenTree::Group(_))) = (tokens.next(), tokens.next()) else {
        return Err("#[plugin] wants a rule that is a plain type of this module, without generics");
    };
    Ok(format!(
        "#[cfg(target_arch = \"wasm32\")] const _: () = {{ \
             type Exported = ::brim_sdk::guest::Exported<{rule}>; \
             ::brim_sdk::bindings::__export_cache_key_plugin!(Exported with_types_in ::brim_sdk::bindings); \
         }}; \
         #[cfg(not(target_arch = \"wasm32\"))] const _: fn() = || {{ \
             let _ = <{rule} as ::brim_sdk::CacheKeyRule>::describe; \
             let _ = <{rule} as ::brim_sdk::CacheKeyRule>::key; \
         }};"
    ))
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident.to_string() == word)
}
