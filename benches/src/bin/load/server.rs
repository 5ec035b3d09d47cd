//! The servers that are measured, and where they listen.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::cpu::Cpus;
use crate::origin::Origin;
use crate::process::{Process, START_MAX};
use crate::program::version_of;
use crate::tls::Certificate;
use crate::workload::{Protocol, Workload};

/// A running server.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    /// It has a cache.
    pub(crate) caches: bool,
    /// What it says it is.
    pub(crate) version: String,
    pub(crate) addresses: Addresses,
    // Dropped before the folder that it writes to.
    pub(crate) process: Process,
    pub(crate) _folder: TempDir,
}

/// Where a server listens. Some need a port for each version of HTTP without TLS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) http1: SocketAddr,
    pub(crate) http2: SocketAddr,
    pub(crate) tls: SocketAddr,
}

impl Server {
    pub(crate) fn serves(&self, workload: Workload) -> bool {
        self.caches || workload == Workload::Proxy
    }
}

/// Most servers do not say which port they were given, so they are told some that were free a moment ago.
pub(crate) fn free_addresses() -> anyhow::Result<Addresses> {
    let bind = || TcpListener::bind(("127.0.0.1", 0)).context("find a free port");
    let held = [bind()?, bind()?, bind()?];
    let [http1, http2, tls] = held.each_ref().map(TcpListener::local_addr);
    Ok(Addresses { http1: http1?, http2: http2?, tls: tls? })
}

/// Waits until somebody listens there.
pub(crate) fn wait_for(process: &mut Process, address: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_MAX;
    while TcpStream::connect(address).is_err() {
        process.check_running()?;
        if Instant::now() > deadline {
            bail!("the server did not start within {START_MAX:?}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

impl Addresses {
    pub(crate) fn of(&self, workload: Workload) -> SocketAddr {
        match (workload.is_tls(), workload.protocol()) {
            (true, _) => self.tls,
            (false, Protocol::Http1) => self.http1,
            (false, Protocol::Http2) => self.http2,
        }
    }
}

/// Starts `brim serve` as a user would, with one thread for its one CPU, and without its access log: the peers write none.
pub(crate) fn start_brim(
    binary: &Path,
    origin: &Origin,
    certificate: &Certificate,
    cpus: &Cpus,
) -> anyhow::Result<Server> {
    let folder = tempfile::tempdir().context("make a folder for the node")?;
    let config = folder.path().join("brim.toml");
    std::fs::write(&config, brim_config(folder.path(), origin, certificate))
        .context("write the node's configuration")?;
    let mut command = Command::new(binary);
    command.args(["serve", "--log-format", "json", "--config"]).arg(&config).env_remove("BRIM_LOG");
    let process = Process::start("brim", &mut command, cpus)?;
    let (http, https) = process.wait_for_line(listening)?;
    let addresses = Addresses { http1: http, http2: http, tls: https };
    let version = version_of(Command::new(binary).arg("--version"))?;
    Ok(Server { name: "brim", caches: true, version, addresses, process, _folder: folder })
}

fn brim_config(folder: &Path, origin: &Origin, certificate: &Certificate) -> String {
    format!(
        r#"data_dir = "{data}"
[listen]
http = ["127.0.0.1:0"]
https = ["127.0.0.1:0"]
threads = 1
[tls]
certificates = [{{ cert = "{cert}", key = "{key}" }}]
[admin]
listen = "127.0.0.1:0"
[store]
disk_max = "1GiB"
memory_max = "256MiB"
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
[[sites.routes]]
path = "/pass"
origin = "origin"
cache = "off"
"#,
        data = folder.join("data").display(),
        cert = certificate.cert.display(),
        key = certificate.key.display(),
        origin = origin.address,
    )
}

/// The addresses in the line of the log that says `listening`.
fn listening(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let address = |name: &str| line[name].as_str()?.parse().ok();
    (line["message"] == "listening").then(|| Some((address("http")?, address("https")?)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_are_in_one_line_of_the_log() {
        assert_eq!(listening("not JSON"), None);
        assert_eq!(listening(r#"{"message":"opened"}"#), None);
        let line = r#"{"level":"INFO","message":"listening","http":"127.0.0.1:1","https":"127.0.0.1:2","admin":"127.0.0.1:3"}"#;
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(listening(line), Some((address(1), address(2))));
    }
}
