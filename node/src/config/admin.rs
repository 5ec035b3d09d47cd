//! `[admin]`: the listener of the admin API, its token, and what holds purges back.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::reader::Section;
use super::{limits, listen};

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
    /// Purges that a token may ask for in a minute, unless it has a number of its own; 0 = any.
    pub purges_per_minute: u32,
    /// A purge that hits more stored responses has to be confirmed; none: no bound.
    pub blast_radius_max: Option<u64>,
    /// A purge that hits more than this percentage of the stored responses has to be confirmed; none: no bound.
    pub blast_radius_share: Option<u32>,
}

pub(super) fn read(section: Section<'_>, data_dir: &Path) -> AdminConfig {
    let config = AdminConfig {
        listen: section.value("listen").and_then(|value| listen::address(&value)).unwrap_or(ADMIN_ADDRESS),
        token_file: section.file("token_file").unwrap_or_else(|| data_dir.join(TOKEN_FILE)),
        purges_per_minute: section.count("purges_per_minute", &limits::PURGES_PER_MINUTE),
        blast_radius_max: section
            .value("blast_radius_max")
            .map(|_| section.count("blast_radius_max", &limits::BLAST_RADIUS_MAX)),
        blast_radius_share: section
            .value("blast_radius_share")
            .map(|_| section.count("blast_radius_share", &limits::BLAST_RADIUS_SHARE)),
    };
    section.finish();
    config
}
