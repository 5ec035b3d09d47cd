//! The configuration: one TOML file, checked once, then plain values that cannot be wrong.
//!
//! Always true:
//! - A [`Config`] exists only if nothing in its file is wrong; nobody after this module checks again.
//! - All mistakes of a file are reported together, each with its key path and line: unknown keys, wrong types, values out of
//!   range, names that refer to nothing.
//! - Reading looks at no clock, no network and no environment. Only [`Config::load`] looks at files: the file itself, and
//!   whether the certificates that it names are there.
//! - Relative paths count from the directory of the file, not from where the node was started.
//!
//! Not here: what a value does (the module that uses it), applying a changed file to a running node (`reload` in the node).

mod admin;
mod error;
pub mod limits;
mod listen;
mod log;
mod origin;
mod plugins;
mod reader;
mod site;
mod store;
mod suggest;
mod tagging;
pub mod template;
mod tls;
mod units;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

pub use self::admin::{ADMIN_ADDRESS, AdminConfig, TOKEN_FILE};
pub use self::error::{ConfigError, ConfigErrors};
pub use self::listen::{HTTP_ADDRESS, ListenConfig, UpgradePolicy};
pub use self::log::{AccessLog, LogFormat, LogSection};
pub use self::origin::{
    Balance, CheckConfig, EjectionConfig, EndpointConfig, EndpointUrl, HostHeader, Http2, OriginConfig, RetryConfig,
    ServiceConfig,
};
pub use self::plugins::PluginsSection;
pub(crate) use self::site::check_name;
pub use self::site::{CacheMode, HostPattern, RouteConfig, SiteConfig};
pub use self::store::StoreSection;
pub use self::tagging::{ItemRule, KeyOverflow, ListOrder, TaggingConfig, WritesConfig};
pub use self::tls::{CertificateFiles, TlsConfig};
pub(crate) use self::units::duration as parse_duration;

use self::error::Sink;
use self::reader::Section;

/// `data_dir` when the file does not say: beside the file.
pub const DATA_DIR: &str = "brim-data";

/// A whole configuration, valid by construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where everything lives that must survive a restart.
    pub data_dir: PathBuf,
    /// What the node is called in receipts; none: as its host is.
    pub node_name: Option<String>,
    /// `[listen]`
    pub listen: ListenConfig,
    /// `[tls]`
    pub tls: TlsConfig,
    /// `[admin]`
    pub admin: AdminConfig,
    /// `[store]`
    pub store: StoreSection,
    /// `[plugins]`
    pub plugins: PluginsSection,
    /// `[log]`
    pub log: LogSection,
    /// `[origins.<name>]`, by name.
    pub origins: BTreeMap<String, OriginConfig>,
    /// `[[sites]]`, in the order of the file.
    pub sites: Vec<SiteConfig>,
}

impl Config {
    /// Reads and checks a file. A file that cannot be read is one mistake without a key path.
    pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
        let cannot = |error: std::io::Error| {
            let message = format!("cannot read {}: {error}", path.display());
            ConfigErrors(vec![ConfigError { path: String::new(), line: None, message }])
        };
        let text = std::fs::read_to_string(path).map_err(cannot)?;
        let path = std::path::absolute(path).map_err(cannot)?;
        read(&Context::new(&text, path.parent().unwrap_or(Path::new("/")), true))
    }

    /// Checks the text of a file that would lie in `base_dir`. Whether the files that it names are there is not looked at.
    pub fn parse(text: &str, base_dir: &Path) -> Result<Config, ConfigErrors> {
        read(&Context::new(text, base_dir, false))
    }
}

/// What the readers of all sections share.
struct Context<'a> {
    text: &'a str,
    base_dir: &'a Path,
    look_at_files: bool,
    sink: Sink,
}

impl<'a> Context<'a> {
    fn new(text: &'a str, base_dir: &'a Path, look_at_files: bool) -> Self {
        Context { text, base_dir, look_at_files, sink: Sink::default() }
    }

    /// A relative path counts from the directory of the file; `.` is left out.
    fn path(&self, text: &str) -> PathBuf {
        self.base_dir.join(text).components().collect()
    }

    /// The line of a byte offset, counted from 1.
    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        before.filter(|byte| **byte == b'\n').count() + 1
    }
}

fn read(context: &Context<'_>) -> Result<Config, ConfigErrors> {
    let (table, syntax_errors) = DeTable::parse_recoverable(context.text);
    if !syntax_errors.is_empty() {
        // What could be made out of a file with broken syntax is not what its author meant: only the syntax is reported.
        let mistake = |error: &toml::de::Error| {
            let line = error.span().map(|span| context.line(span.start));
            ConfigError { path: String::new(), line, message: error.message().to_owned() }
        };
        return Err(ConfigErrors(syntax_errors.iter().map(mistake).collect()));
    }
    let config = read_sections(context, Section::root(context, table.get_ref()));
    context.sink.finish(config)
}

fn read_sections(context: &Context<'_>, root: Section<'_>) -> Config {
    let data_dir = root.file("data_dir").unwrap_or_else(|| context.path(DATA_DIR));
    let node_name = root.value("node_name").and_then(|value| {
        let name = value.text()?;
        match check_name(name) {
            Ok(()) => Some(name.to_owned()),
            Err(message) => value.fail(message),
        }
    });
    let resolver = root.section("resolver");
    let servers = resolver.list("servers").iter().filter_map(listen::address).collect();
    resolver.finish();
    let common = origin::Common { region: root.text("region"), resolver: servers };
    let origins = origin::read(&root.section("origins"), &common);
    let config = Config {
        node_name,
        listen: listen::read(root.section("listen")),
        tls: tls::read(root.section("tls")),
        admin: admin::read(root.section("admin"), &data_dir),
        store: store::read(root.section("store")),
        plugins: plugins::read(root.section("plugins")),
        log: log::read(root.section("log")),
        sites: site::read(&root, &origins),
        origins: origins.into_checked(),
        data_dir,
    };
    listen::refuse_shared_addresses(&root, &config.listen, &config.admin);
    root.finish();
    config
}
