//! `[admin]`: the listener of the admin API and its token.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::listen;
use super::reader::Section;

/// `admin.listen` when the file does not say: only this machine.
pub const ADMIN_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900);
/// Where the token is kept when the file does not say, in the data directory.
pub const TOKEN_FILE: &str = "admin.token";

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// The admin API's own listener.
    pub listen: SocketAddr,
    /// Made at the first start if it is not there.
    pub token_file: PathBuf,
}

pub(super) fn read(section: Section<'_>, data_dir: &Path) -> AdminConfig {
    let config = AdminConfig {
        listen: section.value("listen").and_then(|value| listen::address(&value)).unwrap_or(ADMIN_ADDRESS),
        token_file: section.file("token_file").unwrap_or_else(|| data_dir.join(TOKEN_FILE)),
    };
    section.finish();
    config
}
