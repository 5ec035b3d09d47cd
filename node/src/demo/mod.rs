//! `brim demo`: a sample origin, a node before it with the example plugins, and a tour of commands to copy.
//!
//! Always true:
//! - The node is the one that `brim serve` runs, configured by a text as a user would write it.
//! - Plugins come in through the admin API, as everybody's do.
//! - A port that is taken is said, and the next free one used.
//! - Ctrl-C ends node and origin in order; a data directory that was made for the demo is removed.

pub mod origin;
mod tour;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::{DemoArgs, DemoOriginArgs};
use crate::config::{Config, ConfigErrors, LogFormat};
use crate::listen::Drain;
use crate::node::{Node, Parts, StartError};
use crate::serve::{Signals, Told, announce};
use crate::telemetry;

use origin::{DemoOptions, DemoOrigin};

/// Ports after the wanted one that are tried.
const PORTS_TRIED_MAX: u16 = 50;
/// The example plugins that the demo's routes use.
const EXAMPLES: [&str; 2] = ["tenant-key", "device-key"];

/// Why the demo ends with a failure.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A system call.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The demo's own configuration: a mistake of ours, or of `--data-dir`.
    #[error("{0}")]
    Config(ConfigErrors),
    /// The node.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The process log.
    #[error(transparent)]
    Log(#[from] telemetry::log::LogError),
}

fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> DemoError {
    let what = what.into();
    |source| DemoError::System { what, source }
}

/// Runs the demo until Ctrl-C.
pub fn run(args: &DemoArgs) -> Result<(), DemoError> {
    telemetry::log::init(LogFormat::Text)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system("start a runtime"))?;
    let (data_dir, is_temporary) = match &args.data_dir {
        Some(dir) => (dir.clone(), false),
        None => (temporary_dir()?, true),
    };
    let ended = runtime.block_on(demo(args, &data_dir));
    runtime.shutdown_background();
    if is_temporary && let Err(error) = std::fs::remove_dir_all(&data_dir) {
        tracing::warn!(dir = %data_dir.display(), %error, "the demo's data directory is left behind");
    }
    ended
}

/// A directory that nobody else has made: the admin token will lie in it.
fn temporary_dir() -> Result<PathBuf, DemoError> {
    use std::os::unix::fs::DirBuilderExt;
    let mut name = [0; 8];
    rustix::rand::getrandom(&mut name, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| system("make a random name")(error.into()))?;
    let dir = std::env::temp_dir().join(format!("brim-demo-{:016x}", u64::from_be_bytes(name)));
    std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(system(format!("make {}", dir.display())))?;
    Ok(dir)
}

/// Runs the sample origin alone until Ctrl-C.
pub fn run_origin(args: &DemoOriginArgs) -> Result<(), DemoError> {
    telemetry::log::init(LogFormat::Text)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system("start a runtime"))?;
    runtime.block_on(async {
        let mut signals = Signals::new().map_err(system("take the signals over"))?;
        let origin = DemoOrigin::bind(args.listen, options(args)).await;
        let origin = origin.map_err(system(format!("listen on {}", args.listen)))?;
        tracing::info!(http = %origin.local_addr(), "listening");
        origin.run(signals.end_again()).await;
        Ok(())
    })
}

fn options(args: &DemoOriginArgs) -> DemoOptions {
    DemoOptions {
        delay: Duration::from_millis(args.delay_ms),
        report_delay: Duration::from_millis(args.report_delay_ms),
        products: usize::try_from(args.products).unwrap_or(usize::MAX),
    }
}

async fn demo(args: &DemoArgs, data_dir: &Path) -> Result<(), DemoError> {
    let mut signals = Signals::new().map_err(system("take the signals over"))?;
    let origin_address = free(args.origin, "the sample origin")?;
    let origin = DemoOrigin::bind(origin_address, DemoOptions::default()).await;
    let origin = origin.map_err(system(format!("listen on {origin_address}")))?;
    let origin_address = origin.local_addr();
    let stop_origin = Drain::default();
    let origin = tokio::spawn(origin.run(stop_origin.started()));

    let addresses = Addresses {
        http: free(args.http, "HTTP")?,
        https: free(args.https, "HTTPS")?,
        admin: free(args.admin, "the admin API")?,
        origin: origin_address,
    };
    let config = Config::parse(&addresses.config(data_dir), data_dir).map_err(DemoError::Config)?;
    let node = Node::start(config, Parts::default()).await?;
    announce(&node);
    let token_file = data_dir.join(crate::config::TOKEN_FILE);
    let is_up = tokio::select! {
        uploaded = upload_examples(&args.plugins, node.admin(), &token_file) => {
            tour::print(&node, origin_address, &token_file, &uploaded);
            true
        }
        () = signals.end_again() => false,
    };
    while is_up && matches!(signals.next().await, Told::Reload) {
        tracing::info!("the demo has no configuration file to reload");
    }
    tracing::info!("stopping");
    tokio::select! {
        () = node.stop() => {}
        () = signals.end_again() => tracing::warn!("told twice: ended at once"),
    }
    stop_origin.start();
    if origin.await.is_err() {
        tracing::error!("the sample origin had panicked");
    }
    Ok(())
}

/// Where everything listens.
struct Addresses {
    http: SocketAddr,
    https: SocketAddr,
    admin: SocketAddr,
    origin: SocketAddr,
}

impl Addresses {
    /// The file that a user would write.
    fn config(&self, data_dir: &Path) -> String {
        let Self { http, https, admin, origin } = self;
        let data_dir = data_dir.display();
        format!(
            r#"data_dir = "{data_dir}"
[listen]
http = ["{http}"]
https = ["{https}"]
[admin]
listen = "{admin}"
[log]
access = "off"
[origins.catalogue]
endpoints = ["http://{origin}"]
[[sites]]
name = "demo"
hosts = ["*"]
[[sites.routes]]
path = "/"
origin = "catalogue"
[[sites.routes]]
path = "/products"
origin = "catalogue"
[sites.routes.items]
list = "/items"
id = "/id"
type = "product"
[[sites.routes]]
path = "/catalogue"
origin = "catalogue"
plugins = {{ cache_key = "tenant-key" }}
[[sites.routes]]
path = "/search"
origin = "catalogue"
plugins = {{ cache_key = "tenant-key" }}
[[sites.routes]]
path = "/home"
origin = "catalogue"
plugins = {{ cache_key = "device-key" }}
"#
        )
    }
}

/// The wanted address, or the next one whose port is free.
fn free(wanted: SocketAddr, what: &str) -> Result<SocketAddr, DemoError> {
    let mut address = wanted;
    for offset in 0..=PORTS_TRIED_MAX {
        address.set_port(wanted.port().saturating_add(if wanted.port() == 0 { 0 } else { offset }));
        match TcpListener::bind(address) {
            Ok(_) => {
                if address != wanted {
                    tracing::warn!(
                        "port {} is in use by another process: {what} is on port {} instead",
                        wanted.port(),
                        address.port()
                    );
                }
                return Ok(address);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(system(format!("listen on {address} for {what}"))(error)),
        }
    }
    Err(system(format!("listen on {wanted} for {what}, or on one of the {PORTS_TRIED_MAX} ports after it"))(
        std::io::ErrorKind::AddrInUse.into(),
    ))
}

/// Builds and uploads the examples with the commands that a user has. The names of those that are in use.
async fn upload_examples(plugins: &Path, admin: SocketAddr, token_file: &Path) -> Vec<&'static str> {
    let mut uploaded = Vec::new();
    for name in EXAMPLES {
        let dir = plugins.join(name);
        if !dir.is_dir() {
            tracing::warn!(dir = %dir.display(), "example plugin not found: its routes go past the cache (see --plugins)");
            continue;
        }
        if push(dir, admin, token_file.to_owned()).await {
            uploaded.push(name);
        } else {
            tracing::warn!(name, "example plugin not uploaded: its routes go past the cache");
        }
    }
    uploaded
}

async fn push(dir: PathBuf, admin: SocketAddr, token_file: PathBuf) -> bool {
    let admin = format!("http://{admin}");
    let arguments = ["brim", "plugin", "push", "--activate", "--admin", &admin].map(std::ffi::OsString::from);
    let arguments =
        arguments.into_iter().chain(["--token-file".into(), token_file.into(), dir.into()]).collect::<Vec<_>>();
    let pushed = tokio::task::spawn_blocking(move || crate::cli::run(arguments)).await;
    pushed.is_ok_and(|exit| exit == std::process::ExitCode::SUCCESS)
}
