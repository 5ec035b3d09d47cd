//! The node, started as a user would.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::cpu::Cpus;
use crate::origin::Origin;
use crate::process::Process;
use crate::program::version_of;
use crate::server::{Purging, Server};

/// Starts `brim serve` in a new directory, with as much memory for responses as the peers have, and as many purges as its client likes.
pub(crate) fn start(binary: &Path, threads: u32, origin: &Origin, cpus: &Cpus) -> anyhow::Result<Server> {
    let folder = tempfile::tempdir().context("make a folder for the node")?;
    let file = folder.path().join("brim.toml");
    std::fs::write(&file, config(threads, origin)).context("write the node's configuration")?;
    let mut command = Command::new(binary);
    command.args(["serve", "--log-format", "json", "--config"]).arg(&file).env_remove("BRIM_LOG");
    let process = Process::start("brim", &mut command, cpus)?;
    let (address, admin) = process.wait_for_line(listening)?;
    let token = folder.path().join("data").join("admin.token");
    let token = std::fs::read_to_string(token).context("read the admin token")?.trim().to_owned();
    let version = version_of(Command::new(binary).arg("--version"))?;
    let purging = Purging::AdminApi { address: admin, token };
    Ok(Server { version, address, purging, ids: vec![process.id()], process, folder })
}

fn config(threads: u32, origin: &Origin) -> String {
    format!(
        r#"data_dir = "data"
[listen]
http = ["127.0.0.1:0"]
threads = {threads}
[admin]
listen = "127.0.0.1:0"
purges_per_minute = 0
[store]
disk_max = "2GiB"
memory_max = "1GiB"
[log]
access = "off"
[origins.origin]
endpoints = ["http://{origin}"]
connections_max = 64
[[sites]]
hosts = ["*"]
[[sites.routes]]
path = "/"
origin = "origin"
"#,
        origin = origin.address,
    )
}

/// The addresses in the line of the log that says `listening`.
fn listening(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let address = |name: &str| line[name].as_str()?.parse().ok();
    (line["message"] == "listening").then(|| Some((address("http")?, address("admin")?)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_are_in_one_line_of_the_log() {
        assert_eq!(listening("not JSON"), None);
        assert_eq!(listening(r#"{"message":"opened"}"#), None);
        let line = r#"{"message":"listening","http":"127.0.0.1:1","https":"","admin":"127.0.0.1:3"}"#;
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(listening(line), Some((address(1), address(3))));
    }
}
