//! Varnish as a peer, with what its packages come with: bans, and the module xkey.
//!
//! Always true: its parameters are its defaults. Its log is in memory, where Linux has files in memory.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use rustix::process::Pid;

use crate::Peer;
use crate::cpu::Cpus;
use crate::origin::Origin;
use crate::process::Process;
use crate::program::{installed, version_of};
use crate::server::{Purging, Server};

/// Files in memory, where Linux has them.
const MEMORY_FOLDER: &str = "/dev/shm";
/// Its folder, in ours. It makes that itself.
const WORK_FOLDER: &str = "work";

/// Both: purges are methods of HTTP, and no client sees the keys.
const VCL_FOR_BOTH: &str = r#"
sub vcl_backend_response {
    set beresp.grace = 1h;
}
sub vcl_deliver {
    unset resp.http.surrogate-key;
    unset resp.http.tags;
    unset resp.http.xkey;
}
"#;
/// A ban looks at stored responses alone, so that the lurker can work on it. Its words cannot hold spaces: commas stand between the keys, and
/// the expression is text without a choice in it, the cheapest there is.
const VCL_BAN: &str = r#"
import std;
sub vcl_recv {
    if (req.method == "BAN") {
        if (std.ban("obj.http.tags ~ ," + req.http.x-key + ",")) {
            return (synth(200, "Banned"));
        }
        return (synth(400, std.ban_error()));
    }
}
sub vcl_backend_response {
    set beresp.http.tags = "," + regsuball(beresp.http.surrogate-key, " ", ",") + ",";
}
"#;
/// A soft purge of xkey leaves the response its grace: the next request gets it, and a fetch behind it.
const VCL_XKEY: &str = r#"
import xkey;
sub vcl_recv {
    if (req.method == "PURGE") {
        set req.http.x-count = xkey.purge(req.http.x-key);
        return (synth(200, req.http.x-count));
    }
    if (req.method == "SOFTPURGE") {
        set req.http.x-count = xkey.softpurge(req.http.x-key);
        return (synth(200, req.http.x-count));
    }
}
sub vcl_backend_response {
    set beresp.http.xkey = beresp.http.surrogate-key;
}
"#;

/// Starts it with 1 GiB of memory, on a port that the system chose.
pub(crate) fn start(peer: Peer, origin: &Origin, cpus: &Cpus) -> anyhow::Result<Server> {
    let missing =
        "is not installed: install Varnish (packages `varnish` and `varnish-modules`), or leave `--peers` away";
    let binary = installed("varnishd").with_context(|| format!("varnishd {missing}"))?;
    let admin = installed("varnishadm").with_context(|| format!("varnishadm {missing}"))?;
    let in_memory = Path::new(MEMORY_FOLDER);
    let parent = if in_memory.is_dir() { in_memory.to_owned() } else { std::env::temp_dir() };
    let folder = tempfile::tempdir_in(parent).context("make a folder for Varnish")?;
    let (file, work) = (folder.path().join("bench.vcl"), folder.path().join(WORK_FOLDER));
    fs::write(&file, vcl(peer, origin.address)).context("write Varnish's configuration")?;
    let mut command = Command::new(&binary);
    // The folder is this user's alone: a jail under another user could not read it.
    command.args(["-F", "-j", "none", "-a", "127.0.0.1:0", "-T", "127.0.0.1:0", "-s", "malloc,1g", "-n"]).arg(&work);
    let process = Process::start("varnishd", command.arg("-f").arg(&file), cpus)?;
    process.wait_for_line(|line| line.contains("Child launched OK").then_some(()))?;
    let address = listen_address(&told(&admin, folder.path(), "debug.listen_address")?).context("no address in it")?;
    let ids = ids(&told(&admin, folder.path(), "pid")?).context("no two processes in what Varnish says")?;
    let version = version_of(Command::new(&binary).arg("-V"))?;
    let hard = if peer == Peer::VarnishBan { "BAN" } else { "PURGE" };
    Ok(Server { version, address, purging: Purging::Vcl { hard, admin }, ids, process, folder })
}

fn vcl(peer: Peer, origin: SocketAddr) -> String {
    let purging = if peer == Peer::VarnishBan { VCL_BAN } else { VCL_XKEY };
    let (host, port) = (origin.ip(), origin.port());
    format!("vcl 4.1;\nbackend origin {{ .host = \"{host}\"; .port = \"{port}\"; }}\n{purging}{VCL_FOR_BOTH}")
}

/// Bans in its list: one more than nothing waits for, at least.
pub(crate) fn bans_count(server: &Server) -> anyhow::Result<usize> {
    let Purging::Vcl { admin, .. } = &server.purging else { return Ok(0) };
    Ok(told(admin, server.folder.path(), "ban.list")?.lines().skip(1).filter(|line| !line.trim().is_empty()).count())
}

/// What it answers to a command.
fn told(admin: &PathBuf, folder: &Path, command: &str) -> anyhow::Result<String> {
    let mut asked = Command::new(admin);
    let answer = asked.arg("-n").arg(folder.join(WORK_FOLDER)).arg(command).output().context("run varnishadm")?;
    let said = String::from_utf8_lossy(&[answer.stdout, answer.stderr].concat()).into_owned();
    ensure!(answer.status.success(), "varnishadm {command}: {said}");
    Ok(said)
}

/// `a0 127.0.0.1 43113`.
fn listen_address(said: &str) -> Option<SocketAddr> {
    let mut words = said.split_ascii_whitespace().skip(1);
    Some(SocketAddr::new(words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// `Master:      29113`, and the same for `Worker`.
fn ids(said: &str) -> Option<Vec<Pid>> {
    let id = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name))?;
        Pid::from_raw(line.trim().parse().ok()?)
    };
    Some(vec![id("Master:")?, id("Worker:")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varnish_says_about_itself_is_understood() {
        assert_eq!(listen_address("a0 127.0.0.1 43113\n\n"), Some(SocketAddr::from(([127, 0, 0, 1], 43113))));
        assert_eq!(listen_address("\n"), None);
        let both = [29113, 29132].map(|id| Pid::from_raw(id).unwrap());
        assert_eq!(ids("Master:      29113\nWorker:      29132\n\n"), Some(both.to_vec()));
        assert_eq!(ids("Master:      29113\n"), None);
    }
}
