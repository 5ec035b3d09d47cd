//! Why a plugin, or a change to which version is active, was refused.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use brim_host::RefusedPlugin;

use super::{NAME_BYTES_MAX, PLUGINS_MAX};

/// Why the registry itself could not be opened. A damaged registry file is not such a reason, see `PluginRegistry::problems`.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made or read.
    #[error("plugin directory {}", path.display())]
    Directory {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why an uploaded component did not become a version.
#[derive(Debug, thiserror::Error)]
pub enum UploadRefusal {
    /// The name cannot be used.
    #[error("plugin name {0:?}: use 1 to {NAME_BYTES_MAX} of a-z, 0-9 and '-', beginning with a letter")]
    Name(String),
    /// More bytes than configured.
    #[error("the component has {bytes} bytes, more than the {bytes_max} allowed by plugins.component_bytes_max")]
    TooLarge {
        /// Bytes received.
        bytes: u64,
        /// The configured bound.
        bytes_max: u64,
    },
    /// The compiler refused the component, or ran into its limits.
    #[error("{0}")]
    Compile(String),
    /// The host refused the compiled component: an import, an export, its `describe`.
    #[error("{0}")]
    Load(#[source] RefusedPlugin),
    /// Our own mistake while it was loaded.
    #[error("loading the component panicked")]
    Panicked,
    /// Too many plugins on this node.
    #[error("this node keeps {PLUGINS_MAX} plugins already")]
    TooMany,
    /// Other uploads were in the way for too long.
    #[error("another upload has kept the compiler busy for {0:?}; try again")]
    Busy(Duration),
    /// The disk refused.
    #[error("keeping the component")]
    Disk(#[source] io::Error),
}

impl UploadRefusal {
    /// Which check refused, one word for machines. No `_` arm: a new check has to choose its word.
    pub fn check(&self) -> &'static str {
        match self {
            Self::Name(_) => "name",
            Self::TooLarge { .. } => "size",
            Self::Compile(_) => "compile",
            Self::Load(refused) => match refused {
                RefusedPlugin::TooLarge { .. } => "size",
                RefusedPlugin::CoreModule | RefusedPlugin::NotAComponent => "format",
                RefusedPlugin::Invalid { .. } => "compile",
                RefusedPlugin::Incompatible { .. } => "load",
                RefusedPlugin::NotGranted { .. } => "imports",
                RefusedPlugin::MissingExport { .. } | RefusedPlugin::NoHook => "exports",
                RefusedPlugin::WrongType { .. } => "interface",
                RefusedPlugin::Describe(_) | RefusedPlugin::Description { .. } => "describe",
                RefusedPlugin::Reads(_) | RefusedPlugin::Inputs { .. } => "reads",
            },
            Self::Panicked => "load",
            Self::TooMany => "count",
            Self::Busy(_) => "busy",
            Self::Disk(_) => "disk",
        }
    }
}

/// Why the active version stayed what it was.
#[derive(Debug, thiserror::Error)]
pub enum ChangeRefusal {
    /// Nobody uploaded a plugin of this name.
    #[error("no plugin is named {0:?}")]
    UnknownPlugin(String),
    /// The plugin has no such version, or it is no longer kept.
    #[error("plugin {name:?} has no version {version}; kept: {kept}")]
    UnknownVersion {
        /// The plugin.
        name: String,
        /// The version asked for.
        version: u64,
        /// The versions there are.
        kept: String,
    },
    /// A mode that this version of Brim does not have.
    #[error("mode {0:?} is not available in this version of brim; use \"live\"")]
    Mode(&'static str),
    /// No version was active before the present one.
    #[error("plugin {0:?} has no earlier active version to go back to")]
    NothingBefore(String),
    /// The version was kept but does not load any more.
    #[error("version {version} of plugin {name:?} does not load: {reason}")]
    Unloadable {
        /// The plugin.
        name: String,
        /// The version asked for.
        version: u64,
        /// Why.
        reason: String,
    },
    /// The disk refused, or somebody changed the plugin at the same moment.
    #[error("writing the plugin registry")]
    Disk(#[source] io::Error),
}
