//! The `#[plugin]` attribute of `brim-sdk`.
//!
//! Always true:
//! - The annotated `impl` is passed on unchanged, so that the rule also compiles and is tested natively.
//! - The export is emitted for `wasm32` only; elsewhere the rule is merely named, so that it does not count as dead code.
//!
//! Reads the tokens by hand: what it needs from them is one type name, and a parser crate would be most of a plugin's build time.
#![deny(unsafe_code, missing_docs)]

use proc_macro::{TokenStream, TokenTree};

/// Makes the rule of the annotated `impl CacheKeyRule for Rule` or `impl InvalidationRule for Rule` the one this plugin exports.
///
/// ```ignore
/// #[brim_sdk::plugin]
/// impl CacheKeyRule for TenantKey { /* … */ }
/// ```
///
/// A component with both hooks is one type with both rules; the attribute stands on the first only:
///
/// ```ignore
/// #[brim_sdk::plugin(also = InvalidationRule)]
/// impl CacheKeyRule for Shop { /* … */ }
/// impl InvalidationRule for Shop { /* … */ }
/// ```
#[proc_macro_attribute]
pub fn plugin(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let export = parsed(arguments, item.clone()).map(|(hook, rule)| export_of(hook, &rule));
    let extra = match export {
        Ok(export) => export,
        Err(message) => format!("::core::compile_error!({message:?});"),
    };
    let mut output = item;
    // The text is built from a fixed frame and one identifier, so it always lexes; if it ever did not, the rule alone is passed on.
    output.extend(extra.parse::<TokenStream>().unwrap_or_default());
    output
}

/// What a plugin exports.
#[derive(Clone, Copy)]
enum Hooks {
    CacheKey,
    Invalidation,
    Both,
}

/// The hooks, and the type that follows `for` in `impl … Rule for Type { … }`.
fn parsed(arguments: TokenStream, item: TokenStream) -> Result<(Hooks, String), &'static str> {
    const MISPLACED: &str = "#[plugin] belongs on `impl CacheKeyRule for …` or `impl InvalidationRule for …`";
    let mut tokens = item.into_iter().skip_while(|token| !is_word(token, "impl"));
    if tokens.next().is_none() {
        return Err(MISPLACED);
    }
    let of_trait: Vec<TokenTree> = tokens.by_ref().take_while(|token| !is_word(token, "for")).collect();
    let is_of = |word| of_trait.last().is_some_and(|token| is_word(token, word));
    let arguments = arguments.to_string().replace(' ', "");
    let hooks = match (is_of("CacheKeyRule"), is_of("InvalidationRule"), arguments.as_str()) {
        (true, _, "") => Hooks::CacheKey,
        (true, _, "also=InvalidationRule") => Hooks::Both,
        (_, true, "") => Hooks::Invalidation,
        (false, false, _) => return Err(MISPLACED),
        _ => return Err("#[plugin] takes nothing, or `also = InvalidationRule` on `impl CacheKeyRule for …`"),
    };
    match (tokens.next(), tokens.next()) {
        (Some(TokenTree::Ident(rule)), Some(TokenTree::Group(_))) => Ok((hooks, rule.to_string())),
        _ => Err("#[plugin] wants a rule that is a plain type of this module, without generics"),
    }
}

fn export_of(hooks: Hooks, rule: &str) -> String {
    let (exported, world) = match hooks {
        Hooks::CacheKey => ("ExportedCacheKey", "__export_cache_key_plugin"),
        Hooks::Invalidation => ("ExportedInvalidation", "__export_invalidation_plugin"),
        Hooks::Both => ("ExportedEveryHook", "__export_every_hook_plugin"),
    };
    let key = ["describe", "key"].map(|name| format!("let _ = <{rule} as ::brim_sdk::CacheKeyRule>::{name};")).concat();
    let invalidation = ["describe", "reads", "tags", "purges"]
        .map(|name| format!("let _ = <{rule} as ::brim_sdk::InvalidationRule>::{name};"))
        .concat();
    let named = match hooks {
        Hooks::CacheKey => key,
        Hooks::Invalidation => invalidation,
        Hooks::Both => key + &invalidation,
    };
    format!(
        "#[cfg(target_arch = \"wasm32\")] const _: () = {{ \
             type Exported = ::brim_sdk::guest::{exported}<{rule}>; \
             ::brim_sdk::{world}!(Exported); \
         }}; \
         #[cfg(not(target_arch = \"wasm32\"))] const _: fn() = || {{ {named} }};"
    )
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident.to_string() == word)
}
