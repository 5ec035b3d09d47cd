//! Why a plugin is not taken.

use crate::fault::PluginFault;

/// Why a component cannot become a plugin of this node. The message is what the person who uploads it reads.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RefusedPlugin {
    /// Larger than the operator allows.
    #[error("the component has {bytes} bytes; {bytes_max} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A module that was not made into a component.
    #[error("this is a core module, not a component: `brim plugin build` makes one of it")]
    CoreModule,
    /// Anything else.
    #[error("this is not a WebAssembly component")]
    NotAComponent,
    /// It does not validate, or needs something that is switched off.
    #[error("the component is not valid here: {reason}")]
    Invalid {
        /// What the compiler said.
        reason: String,
    },
    /// Compiled by another wasmtime, for another processor or with other settings. Compiling it again helps.
    #[error("the compiled plugin is not of this version of the node: {reason}")]
    Incompatible {
        /// What differs.
        reason: String,
    },
    /// It wants something that it is not granted.
    #[error("it imports `{import}`, which is not granted")]
    NotGranted {
        /// The import's name.
        import: String,
    },
    /// It does not export what a plugin must.
    #[error("it does not export `{export}`")]
    MissingExport {
        /// The export's name.
        export: &'static str,
    },
    /// Without a hook there is nothing to ask it.
    #[error(
        "it exports no hook: `brim:rules/cache-key@1`, `brim:rules/invalidation@1` or both belong beside `brim:rules/meta@1`"
    )]
    NoHook,
    /// An import or export has the right name and another type.
    #[error("it does not fit `brim:rules`: {reason}")]
    WrongType {
        /// What does not fit.
        reason: String,
    },
    /// `describe` failed.
    #[error("`describe` failed: {0}")]
    Describe(#[source] PluginFault),
    /// `reads` of the invalidation hook failed.
    #[error("`reads` failed: {0}")]
    Reads(#[source] PluginFault),
    /// `reads` of the invalidation hook says something it must not.
    #[error("`reads` says {reason}")]
    Inputs {
        /// What is wrong with it.
        reason: String,
    },
    /// `describe` says something it must not.
    #[error("`describe` says {reason}")]
    Description {
        /// What is wrong with it.
        reason: String,
    },
}

/// A wasmtime error with its causes, as one line without control characters.
pub(crate) fn one_line(error: &wasmtime::Error) -> String {
    crate::text::clean(&format!("{error:#}"), 1024)
}
