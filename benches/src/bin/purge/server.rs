//! A server that is measured: where it is, how it is told to purge, what it has used.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::Pid;
use tempfile::TempDir;

use crate::Mode;
use crate::connection::Connection;
use crate::cpu;
use crate::origin::Origin;
use crate::process::Process;

/// A server that uses no CPU for so long, while the origin is asked for nothing, is quiet.
const QUIET: Duration = Duration::from_millis(100);

/// A running server.
pub(crate) struct Server {
    /// What it says it is.
    pub(crate) version: String,
    /// Where responses are.
    pub(crate) address: SocketAddr,
    pub(crate) purging: Purging,
    /// Of all its processes.
    pub(crate) ids: Vec<Pid>,
    // Dropped before the folder that it writes to.
    pub(crate) process: Process,
    pub(crate) folder: TempDir,
}

/// How it is told to purge.
#[derive(Debug, Clone)]
pub(crate) enum Purging {
    /// Through the admin API.
    AdminApi { address: SocketAddr, token: String },
    /// By methods that its VCL understands: `BAN`, and `PURGE` and `SOFTPURGE` of xkey.
    Vcl { hard: &'static str, admin: PathBuf },
}

impl Server {
    /// A connection for purges.
    pub(crate) fn open_for_purges(&self) -> anyhow::Result<Connection> {
        match &self.purging {
            Purging::AdminApi { address, .. } => Connection::open(*address),
            Purging::Vcl { .. } => Connection::open(self.address),
        }
    }

    /// Purges a key, and waits for the acknowledgement.
    pub(crate) fn purge(&self, connection: &mut Connection, key: &str, mode: Mode) -> anyhow::Result<()> {
        let (request, expected) = match &self.purging {
            Purging::AdminApi { address, token } => {
                let content = serde_json::json!({ "surrogate_keys": [key], "soft": mode == Mode::Soft }).to_string();
                let length = content.len();
                let head = format!(
                    "POST /v1/purges HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json"
                );
                (format!("{head}\r\nContent-Length: {length}\r\n\r\n{content}"), 201)
            }
            Purging::Vcl { hard, .. } => {
                let method = if mode == Mode::Soft { "SOFTPURGE" } else { hard };
                (format!("{method} / HTTP/1.1\r\nHost: bench\r\nX-Key: {key}\r\n\r\n"), 200)
            }
        };
        connection.send(&request)?;
        let answer = connection.receive().with_context(|| format!("purge {key:?}"))?;
        let said = String::from_utf8_lossy(answer.content);
        ensure!(answer.status == expected, "the purge of {key:?} was answered with {}: {said}", answer.status);
        Ok(())
    }

    /// User and system time of all its processes.
    pub(crate) fn cpu(&mut self) -> anyhow::Result<Duration> {
        self.process.check_running()?;
        self.ids.iter().map(|id| cpu::used(*id)).sum()
    }

    /// Resident memory of all its processes; what they share counts in each.
    pub(crate) fn memory_mib(&self) -> anyhow::Result<f64> {
        let resident = |id: &Pid| {
            let path = format!("/proc/{id}/status");
            let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            resident_kib(&status).with_context(|| format!("{path} has no VmRSS"))
        };
        Ok(self.ids.iter().map(resident).sum::<anyhow::Result<u64>>()? as f64 / 1024.0)
    }

    /// Waits until it is quiet, or for so long. What it does after that is a part of what is measured next.
    pub(crate) fn quiet(&mut self, origin: &Origin, wait_max: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + wait_max;
        let mut before = (self.cpu()?, origin.requests());
        while Instant::now() < deadline {
            std::thread::sleep(QUIET);
            let now = (self.cpu()?, origin.requests());
            if now == before {
                break;
            }
            before = now;
        }
        Ok(())
    }
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_one_line_of_the_status() {
        assert_eq!(resident_kib("Name:\tbrim\nVmHWM:\t  9000 kB\nVmRSS:\t    5256 kB\n"), Some(5256));
        assert_eq!(resident_kib("Name:\tbrim\n"), None);
    }
}
