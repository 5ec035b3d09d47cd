//! HAProxy as a peer: a proxy without a cache, one thread, connections to the origin kept and shared. It tells the origin who asked, as
//! the node does, but for `Forwarded`.

use std::fs;
use std::process::Command;

use anyhow::Context;

use crate::cpu::Cpus;
use crate::origin::Origin;
use crate::process::Process;
use crate::program::{installed, version_of};
use crate::server::{Server, free_addresses, wait_for};

/// Starts it; it speaks HTTP/1.1 without TLS alone.
pub(crate) fn start(origin: &Origin, cpus: &Cpus) -> anyhow::Result<Server> {
    let binary =
        installed("haproxy").context("HAProxy is not installed: install it, or leave `--peers haproxy` away")?;
    let folder = tempfile::tempdir().context("make a folder for HAProxy")?;
    let addresses = free_addresses()?;
    let config = folder.path().join("haproxy.cfg");
    let text = format!(
        r"global
    maxconn 4096
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
    option forwardfor
frontend in
    bind {listen}
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(Host)]
    http-request add-header Via 1.1\ haproxy
    http-response add-header Via 1.1\ haproxy
    default_backend origin
backend origin
    server origin {origin} pool-max-conn 64
",
        listen = addresses.http1,
        origin = origin.address,
    );
    fs::write(&config, text).context("write HAProxy's configuration")?;
    let mut command = Command::new(&binary);
    command.arg("-db").arg("-f").arg(&config);
    let mut process = Process::start("haproxy", &mut command, cpus)?;
    wait_for(&mut process, addresses.http1)?;
    let version = version_of(Command::new(&binary).arg("-v"))?;
    Ok(Server { name: "haproxy", caches: false, version, addresses, process, _folder: folder })
}
