//! nginx as a peer, with the settings that were its fastest for small responses in memory.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::cpu::Cpus;
use crate::origin::Origin;
use crate::process::Process;
use crate::program::{installed, version_of};
use crate::server::{Addresses, Server, free_addresses, wait_for};
use crate::tls::Certificate;

/// Files in memory, where Linux has them.
const MEMORY_FOLDER: &str = "/dev/shm";

/// Starts it, with its cache in memory.
pub(crate) fn start(origin: &Origin, certificate: &Certificate, cpus: &Cpus) -> anyhow::Result<Server> {
    let binary = installed("nginx").context("nginx is not installed: install it, or leave `--peers nginx` away")?;
    let in_memory = Path::new(MEMORY_FOLDER);
    let parent = if in_memory.is_dir() { in_memory.to_owned() } else { std::env::temp_dir() };
    let folder = tempfile::tempdir_in(parent).context("make a folder for nginx")?;
    let addresses = free_addresses()?;
    let config = folder.path().join("nginx.conf");
    fs::write(&config, text(folder.path(), &addresses, origin, certificate)).context("write nginx's configuration")?;
    let mut command = Command::new(&binary);
    command.arg("-p").arg(folder.path()).arg("-c").arg(&config).args(["-e", "stderr"]);
    let mut process = Process::start("nginx", &mut command, cpus)?;
    wait_for(&mut process, addresses.http1)?;
    let said = version_of(Command::new(&binary).arg("-v"))?;
    let version = said.trim_start_matches("nginx version: ").to_owned();
    Ok(Server { name: "nginx", caches: true, version, addresses, process, _folder: folder })
}

fn text(folder: &Path, addresses: &Addresses, origin: &Origin, certificate: &Certificate) -> String {
    let Addresses { http1, http2, tls } = addresses;
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {}/{kind};\n", folder.display()))
        .concat();
    format!(
        r#"daemon off;
# One process, whose CPU time is all there is.
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
{temporary}
    proxy_cache_path {folder}/cache keys_zone=cache:64m max_size=1g inactive=1h use_temp_path=off;
    sendfile off;
    open_file_cache max=500 inactive=60s;
    keepalive_requests 1000000000;
    upstream origin {{ server {origin}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen {http1} reuseport;
        listen {http2} http2 reuseport;
        listen {tls} ssl http2 reuseport;
        ssl_certificate {cert};
        ssl_certificate_key {key};
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_cache cache;
            proxy_cache_key $scheme$http_host$request_uri;
            add_header X-Cache $upstream_cache_status;
        }}
        location /pass/ {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header Via "1.1 nginx";
            add_header Via "1.1 nginx";
        }}
    }}
}}
"#,
        folder = folder.display(),
        origin = SocketAddr::to_string(&origin.address),
        cert = certificate.cert.display(),
        key = certificate.key.display(),
    )
}
