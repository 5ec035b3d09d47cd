//! Reload: a changed configuration file, applied whole or rejected whole.
//!
//! Always true:
//! - What is in force changes by one swap; a request sees the old configuration or the new one.
//! - What cannot change while a node runs is a mistake of the new file, reported with the others.
//! - Certificates are read again also where the file has not changed.
//! - An origin whose section has not changed keeps its connections.

use std::sync::Arc;

use crate::admin::ReloadReport;
use crate::config::{Config, ConfigError, ConfigErrors};
use crate::node::Shared;
use crate::origin::Origins;
use crate::request::Snapshot;
use crate::route::Routes;
use crate::telemetry::Family;

/// Reads the file again.
pub(crate) async fn reload(shared: &Arc<Shared>) -> Result<ReloadReport, ConfigErrors> {
    let shared = shared.clone();
    let reloaded = tokio::task::spawn_blocking(move || {
        let _one_at_a_time = shared.reloading.lock();
        let outcome = apply(&shared);
        let label = if outcome.is_ok() { "applied" } else { "rejected" };
        shared.cache.telemetry.metrics.count_labelled(Family::ConfigReloads, &[label]);
        outcome
    });
    reloaded.await.unwrap_or_else(|_| Err(mistake("", "the reload failed inside; nothing was changed")))
}

fn apply(shared: &Shared) -> Result<ReloadReport, ConfigErrors> {
    // Whatever becomes of the file: a rotated log must not be written to any longer.
    if let Err(error) = shared.cache.telemetry.access_log.reopen() {
        tracing::error!(%error, "the access log could not be opened again: lines go to the old file");
    }
    let Some(path) = &shared.config_file else {
        return Err(mistake("", "this node was not started from a file"));
    };
    let config = Config::load(path)?;
    let old = shared.cache.snapshot.load_full();
    let fixed = fixed_changes(&old.config, &config);
    if !fixed.is_empty() {
        return Err(ConfigErrors(fixed));
    }
    let origins = Origins::successor(&config.origins, &old.config.origins, &old.origins)
        .map_err(|error| mistake("origins", &error.to_string()))?;
    let routes = Routes::new(&config.sites, &origins, &shared.cache.telemetry.metrics);
    if let Some(tls) = &shared.tls {
        tls.reload(&config.tls, shared.cache.clock.now())
            .map_err(|error| mistake("tls.certificates", &error.to_string()))?;
    }
    let report = ReloadReport { sites: config.sites.len(), origins: config.origins.len() };
    shared.cache.snapshot.store(Arc::new(Snapshot { config, routes, origins }));
    tracing::info!(path = %path.display(), "configuration reloaded");
    Ok(report)
}

/// What a running node cannot change.
fn fixed_changes(old: &Config, new: &Config) -> Vec<ConfigError> {
    let sections = [
        ("data_dir", old.data_dir != new.data_dir),
        ("node_name", old.node_name != new.node_name),
        ("listen", old.listen != new.listen),
        ("admin", old.admin != new.admin),
        ("store", old.store != new.store),
        ("plugins", old.plugins != new.plugins),
        ("log", old.log != new.log),
    ];
    let changed = sections.into_iter().filter(|(_, is_changed)| *is_changed);
    changed
        .map(|(section, _)| error(section, "cannot change while the node runs: restart it, or put the old value back"))
        .collect()
}

fn error(path: &str, message: &str) -> ConfigError {
    ConfigError { path: path.into(), line: None, message: message.into() }
}

fn mistake(path: &str, message: &str) -> ConfigErrors {
    ConfigErrors(vec![error(path, message)])
}
