//! The node: started in its directory, killed, and started there again.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::cpu::Cpus;
use crate::door::Addresses;
use crate::keys::SITES;
use crate::process::Process;

/// A running node, and the directory that outlives its processes.
pub(crate) struct Node {
    binary: PathBuf,
    // Dropped before the folder that it writes to.
    process: Option<Process>,
    folder: TempDir,
    /// Lines of its log that were told already.
    told: Vec<String>,
}

/// What the node is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) disk_max: u64,
    pub(crate) memory_max: u64,
}

impl Node {
    /// Makes its directory, below `parent` if one is given, and starts it.
    pub(crate) fn start(
        binary: PathBuf,
        parent: Option<&Path>,
        origin: SocketAddr,
        budget: Budget,
    ) -> anyhow::Result<(Self, Addresses)> {
        let mut made = tempfile::Builder::new();
        made.prefix("brim-soak-");
        let folder = parent.map_or_else(|| made.tempdir(), |parent| made.tempdir_in(parent));
        let folder = folder.context("make a folder for the node")?;
        std::fs::write(folder.path().join("brim.toml"), config(origin, budget)).context("write the configuration")?;
        let mut node = Self { binary, process: None, folder, told: Vec::new() };
        let addresses = node.start_process()?;
        Ok((node, addresses))
    }

    /// Kills it with SIGKILL and starts it again. Returns where it is now, and how long it took to listen.
    pub(crate) fn kill_and_restart(&mut self) -> anyhow::Result<(Addresses, Duration)> {
        if let Some(mut process) = self.process.take() {
            process.check_running()?;
            kill_process(process.id(), Signal::KILL).context("kill the node")?;
        }
        let began = Instant::now();
        Ok((self.start_process()?, began.elapsed()))
    }

    fn start_process(&mut self) -> anyhow::Result<Addresses> {
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--log-format", "json", "--config"]).arg(self.folder.path().join("brim.toml"));
        // Ctrl-C is for this program: it stops the node last.
        command.env_remove("BRIM_LOG").process_group(0);
        let process = Process::start("brim", &mut command, &Cpus::Shared)?;
        let (http, admin) = process.wait_for_line(listening)?;
        self.process = Some(process);
        let token = std::fs::read_to_string(self.data().join("admin.token")).context("read the admin token")?;
        Ok(Addresses { http, admin, token: token.trim().to_owned() })
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What it has warned of since the last time, as far as its log is kept.
    pub(crate) fn warnings(&mut self) -> Vec<String> {
        let lines = self.process.as_ref().map(Process::last_lines).unwrap_or_default();
        let is_new = |line: &&String| is_warning(line) && !self.told.contains(line);
        let warnings = lines.iter().filter(is_new).cloned().collect();
        self.told = lines;
        warnings
    }

    /// Its process. An error if it has ended by itself.
    pub(crate) fn id(&mut self) -> anyhow::Result<Pid> {
        let process = self.process.as_mut().context("the node is not running")?;
        process.check_running()?;
        Ok(process.id())
    }
}

fn config(origin: SocketAddr, budget: Budget) -> String {
    let Budget { disk_max, memory_max } = budget;
    let mut config = format!(
        r#"data_dir = "data"
[listen]
http = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
[store]
disk_max = "{disk_max}B"
memory_max = "{memory_max}B"
[log]
access = "off"
[origins.origin]
endpoints = ["http://{origin}"]
connections_max = 64
"#
    );
    for host in SITES {
        config.push_str(&format!(
            "[[sites]]\nname = \"{host}\"\nhosts = [\"{host}\"]\n[[sites.routes]]\npath = \"/\"\norigin = \"origin\"\n"
        ));
    }
    config
}

/// The addresses in the line of the log that says `listening`.
fn listening(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let address = |name: &str| line[name].as_str()?.parse().ok();
    (line["message"] == "listening").then(|| Some((address("http")?, address("admin")?)))?
}

fn is_warning(line: &str) -> bool {
    let level = serde_json::from_str(line).ok().and_then(|line: Value| Some(line["level"].as_str()?.to_owned()));
    // What is no line of the log, such as a panic, is as remarkable.
    level.is_none_or(|level| level == "WARN" || level == "ERROR")
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

    #[test]
    fn warnings_and_what_is_no_line_of_the_log_are_told() {
        assert!(is_warning(r#"{"level":"WARN","message":"a"}"#));
        assert!(is_warning(r#"{"level":"ERROR","message":"a"}"#));
        assert!(is_warning("thread 'main' panicked"));
        assert!(!is_warning(r#"{"level":"INFO","message":"listening"}"#));
    }
}
