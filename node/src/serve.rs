//! `brim serve`: a node, the signals that it obeys, and how it ends.
//!
//! Always true:
//! - The first log line with the word `listening` comes once the node answers, with the real addresses.
//! - SIGHUP reloads; SIGTERM and SIGINT drain and end with success; a second one ends at once.

use std::path::Path;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::ServeArgs;
use crate::config::{Config, ConfigErrors};
use crate::node::{Node, Parts, StartError};
use crate::telemetry;

/// Why `brim serve` ends with a failure.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration file.
    #[error("{path}:\n{errors}")]
    Config {
        /// The file.
        path: String,
        /// All that is wrong with it.
        errors: ConfigErrors,
    },
    /// The process log.
    #[error(transparent)]
    Log(#[from] telemetry::log::LogError),
    /// The node.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The runtime or the signals.
    #[error("set up the process: {0}")]
    Process(#[from] std::io::Error),
}

/// Runs a node until it is told to end.
pub fn run(args: &ServeArgs) -> Result<(), ServeError> {
    let config = load(&args.config)?;
    let format = args.log_format.map_or(config.log.format, Into::into);
    telemetry::log::init(format)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(config, &args.config));
    // Told twice, the process does not wait for what still runs on threads of its own.
    runtime.shutdown_background();
    ended
}

fn load(path: &Path) -> Result<Config, ServeError> {
    Config::load(path).map_err(|errors| ServeError::Config { path: path.display().to_string(), errors })
}

async fn serve(config: Config, path: &Path) -> Result<(), ServeError> {
    let mut signals = Signals::new()?;
    let parts = Parts { config_file: Some(path.to_owned()), ..Parts::default() };
    let node = Node::start(config, parts).await?;
    announce(&node);
    while let Told::Reload = signals.next().await {
        if let Err(errors) = node.reload().await {
            tracing::error!(%errors, "configuration rejected: nothing was changed");
        }
    }
    tracing::info!("draining: no new connections, requests in flight are answered");
    tokio::select! {
        () = node.stop() => tracing::info!("stopped"),
        () = signals.end_again() => tracing::warn!("told twice: ended at once"),
    }
    Ok(())
}

/// The line that says where the node answers.
pub(crate) fn announce(node: &Node) {
    let list =
        |addresses: &[std::net::SocketAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    tracing::info!(
        http = list(node.http()),
        https = list(node.https()),
        admin = %node.admin(),
        version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
}

/// What the process has been told.
pub(crate) enum Told {
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    End,
}

/// The signals of the process.
pub(crate) struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over. From here on none of them ends the process by itself.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next one. Cancel safe: a signal that came is kept until it is asked for.
    pub(crate) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.hangup.recv() => Told::Reload,
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
        }
    }

    /// Waits for SIGTERM or SIGINT.
    pub(crate) async fn end_again(&mut self) {
        while !matches!(self.next().await, Told::End) {}
    }
}
