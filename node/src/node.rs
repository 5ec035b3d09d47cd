//! A running node: everything put together, started and stopped in order.
//!
//! Always true:
//! - A node that [`Node::start`] returned answers on all its addresses.
//! - Stopping goes in order, each step with a deadline: stop accepting, drain connections, finish fills, flush the store.
//! - A reload builds the whole new state first and swaps it in at once, or changes nothing.
//!
//! Not here: signals and the command line (`serve`).

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use brim_host::{Host, HostConfig};
use brim_store::{Store, StoreConfig};
use tokio::net::TcpListener;

use crate::admin::{
    self, AdminState, AdminToken, Audit, Confirmations, DrainRequest, NotDrained, OriginStatus, PurgeBounds,
    PurgeRates, Tokens,
};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ConfigErrors};
use crate::listen::{self, Drain, ListenContext, ListenCounters, Listeners, ThreadListeners, Tls};
use crate::origin::Origins;
use crate::plugins::{Compiler, PluginRegistry, RegistryConfig};
use crate::reload;
use crate::request::explain::explain;
use crate::request::refresh::{self, Refresher};
use crate::request::{Cache, Snapshot};
use crate::retry::Retries;
use crate::route::Routes;
use crate::status;
use crate::tasks::{Running, Tasks};
use crate::telemetry::{AccessLogError, Telemetry};

/// How long fills may go on after the last connection has ended.
const FILLS_FINISH_MAX: Duration = Duration::from_secs(5);
/// How long the flush of the store may take.
const STORE_CLOSE_MAX: Duration = Duration::from_secs(20);

/// What tests replace.
pub struct Parts {
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Where plugins are compiled.
    pub compiler: Compiler,
    /// The file that a reload reads again; none: a reload is refused.
    pub config_file: Option<PathBuf>,
}

impl Default for Parts {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), compiler: Compiler::this_executable(), config_file: None }
    }
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error("data_dir {}: {source}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store cannot be used at all, another process has it, for instance.
    #[error(transparent)]
    Store(#[from] brim_store::OpenError),
    /// The plugin engine.
    #[error("plugin engine: {0}")]
    Host(#[from] brim_host::HostError),
    /// The plugin registry.
    #[error(transparent)]
    Plugins(#[from] crate::plugins::OpenError),
    /// An origin's certificates or names.
    #[error(transparent)]
    Origins(#[from] crate::origin::OriginsError),
    /// The node's certificates.
    #[error(transparent)]
    Tls(#[from] listen::TlsError),
    /// An address of the data port.
    #[error(transparent)]
    Bind(#[from] listen::BindError),
    /// The address of the admin API.
    #[error("listen on {address} (admin.listen): {source}")]
    BindAdmin {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The admin token.
    #[error(transparent)]
    Token(#[from] admin::TokenError),
    /// Logs.
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    /// A thread or its runtime.
    #[error("start a thread: {0}")]
    Thread(io::Error),
}

/// A running node.
pub struct Node {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    admin_stop: Drain,
    admin_task: tokio::task::JoinHandle<()>,
    audit: Arc<Audit>,
    /// What goes on until the node stops. What it has not done then is on disk, or may be left.
    behind: [tokio::task::JoinHandle<()>; 3],
}

/// What the admin API and reloads reach.
pub(crate) struct Shared {
    pub(crate) cache: Arc<Cache>,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) counters: Arc<ListenCounters>,
    pub(crate) drain: Drain,
    pub(crate) started: Instant,
    pub(crate) http: Vec<SocketAddr>,
    pub(crate) https: Vec<SocketAddr>,
    pub(crate) admin: SocketAddr,
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) reloading: parking_lot::Mutex<()>,
}

impl Node {
    /// Starts a node on the current runtime, with threads of its own for the data port.
    pub async fn start(config: Config, parts: Parts) -> Result<Self, StartError> {
        make_data_dir(&config.data_dir)?;
        let listeners = Listeners::bind(&config.listen)?;
        let admin_listener = bind_admin(config.admin.listen)?;
        let (refresher, refreshing) = Refresher::new();
        let cache = Arc::new(make_cache(&config, &parts, refresher).await?);
        let tls = if config.listen.https.is_empty() {
            None
        } else {
            Some(Tls::new(&config.tls, &config.data_dir, parts.clock.now())?)
        };
        let admin_token = AdminToken::read_or_make(&config.admin.token_file)?;
        let shared = Arc::new(Shared {
            cache,
            tls,
            counters: Arc::default(),
            drain: Drain::default(),
            started: Instant::now(),
            http: listeners.http().to_vec(),
            https: listeners.https().to_vec(),
            admin: admin_listener.local_addr().map_err(StartError::Thread)?,
            config_file: parts.config_file,
            reloading: parking_lot::Mutex::default(),
        });
        status::tell_metrics(&shared);
        let threads = start_threads(&shared, listeners, &config)?;
        let admin_stop = Drain::default();
        let admin_state = admin_state(&shared, &config, admin_token).map_err(StartError::Thread)?;
        let audit = admin_state.audit.clone();
        let admin_task = tokio::spawn(serve_admin(admin_listener, admin_state, admin_stop.clone()));
        let reaper = tokio::spawn(tend_origins(shared.clone()));
        let retrying = tokio::spawn(shared.cache.retries.clone().run(shared.cache.clone()));
        let refreshing = tokio::spawn(refresh::run(shared.cache.clone(), refreshing));
        Ok(Self { shared, threads, admin_stop, admin_task, audit, behind: [reaper, retrying, refreshing] })
    }

    /// The real addresses of `listen.http`.
    pub fn http(&self) -> &[SocketAddr] {
        &self.shared.http
    }

    /// The real addresses of `listen.https`.
    pub fn https(&self) -> &[SocketAddr] {
        &self.shared.https
    }

    /// The real address of the admin API.
    pub fn admin(&self) -> SocketAddr {
        self.shared.admin
    }

    /// The request path and what it uses.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.shared.cache
    }

    /// Whether the disk tier of the store is still being opened: until then what it holds is not found.
    pub fn is_store_opening(&self) -> bool {
        self.shared.cache.store.stats().disk == brim_store::DiskState::Opening
    }

    /// Reads the configuration file again; applies it whole, or not at all.
    pub async fn reload(&self) -> Result<admin::ReloadReport, ConfigErrors> {
        reload::reload(&self.shared).await
    }

    /// Stops in order. Returns when everything that was promised is on disk.
    pub async fn stop(self) {
        let shared = self.shared;
        shared.drain.start();
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a data thread had panicked");
                }
            }
        });
        if joined.await.is_err() {
            tracing::error!("waiting for the data threads failed");
        }
        self.behind.iter().for_each(tokio::task::JoinHandle::abort);
        shared.cache.snapshot.load().origins.close();
        self.admin_stop.start();
        if self.admin_task.await.is_err() {
            tracing::error!("the admin API had panicked");
        }
        if tokio::time::timeout(STORE_CLOSE_MAX, shared.cache.store.close()).await.is_err() {
            tracing::error!("the store did not close within {STORE_CLOSE_MAX:?}");
        }
        let audit = self.audit;
        if tokio::task::spawn_blocking(move || audit.close()).await.is_err() {
            tracing::error!("closing the audit log failed");
        }
        shared.cache.telemetry.access_log.close();
    }
}

fn make_data_dir(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| StartError::DataDir { path: path.to_owned(), source })
}

fn bind_admin(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    bind().map_err(|source| StartError::BindAdmin { address, source })
}

async fn make_cache(config: &Config, parts: &Parts, refresher: Refresher) -> Result<Cache, StartError> {
    let store = Store::open(StoreConfig {
        disk_max: config.store.disk_max,
        memory_max: config.store.memory_max,
        object_max: config.store.object_max,
        finish_unread: config.store.finish_unread,
        ..StoreConfig::new(&config.data_dir)
    })
    .await?;
    let host = Arc::new(Host::new(host_config(config))?);
    let registry = RegistryConfig {
        dir: config.data_dir.join("plugins"),
        component_bytes_max: config.plugins.component_bytes_max,
        compiler: parts.compiler.clone(),
        configs: config.plugins.config.clone(),
    };
    let plugins = Arc::new(PluginRegistry::open(registry, host).await?);
    for problem in plugins.problems() {
        tracing::error!(
            plugin = problem.plugin.as_deref().unwrap_or("(registry)"),
            reason = problem.reason,
            "plugin not available"
        );
    }
    let origins = Origins::new(&config.origins)?;
    let telemetry = Telemetry::start(&config.log.access)?;
    let routes = Routes::new(&config.sites, &origins, &telemetry.metrics);
    Ok(Cache {
        snapshot: ArcSwap::from_pointee(Snapshot { config: config.clone(), routes, origins }),
        store,
        plugins,
        flights: crate::request::collapse::Flights::default(),
        clock: parts.clock.clone(),
        telemetry: Arc::new(telemetry),
        tasks: Tasks::default(),
        tag_budget: Arc::default(),
        refresher,
        retries: Retries::open(config.data_dir.join("retries")),
    })
}

fn host_config(config: &Config) -> HostConfig {
    HostConfig {
        key_deadline: config.plugins.key_deadline,
        invalidation_deadline: config.plugins.invalidation_deadline,
        memory_max: usize::try_from(config.plugins.memory_max).unwrap_or(usize::MAX),
        instances_max: config.plugins.instances_max,
        component_bytes_max: usize::try_from(config.plugins.component_bytes_max).unwrap_or(usize::MAX),
        ..HostConfig::default()
    }
}

fn start_threads(
    shared: &Arc<Shared>,
    listeners: Listeners,
    config: &Config,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let context = Arc::new(ListenContext {
        config: config.listen.clone(),
        tls: shared.tls.clone(),
        counters: shared.counters.clone(),
        drain: shared.drain.clone(),
    });
    let cache = &shared.cache;
    let serving = Tasks::default();
    let sockets = listeners.into_threads();
    // All before the first thread starts: a thread must not find the set drained because another has not begun.
    let guards: Vec<Running> = sockets.iter().map(|_| serving.hold()).collect();
    let mut threads = Vec::with_capacity(sockets.len());
    for (number, (sockets, guard)) in sockets.into_iter().zip(guards).enumerate() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let (context, cache, serving) = (context.clone(), cache.clone(), serving.clone());
        let run = move || {
            runtime.block_on(async move {
                serve_thread(sockets, context.clone(), cache.clone(), guard).await;
                finish_thread(&context, &cache, &serving).await;
            });
        };
        let name = format!("brim-{number}");
        threads.push(std::thread::Builder::new().name(name).spawn(run).map_err(StartError::Thread)?);
    }
    Ok(threads)
}

/// One data thread, from its first connection to its last.
async fn serve_thread(sockets: ThreadListeners, context: Arc<ListenContext>, cache: Arc<Cache>, _guard: Running) {
    match listen::serve(sockets, context, Arc::new(cache)).await {
        Ok(drained) if drained.aborted_count > 0 => {
            tracing::warn!(aborted_count = drained.aborted_count, "connections cut: the drain took too long");
        }
        Ok(_) => {}
        Err(error) => tracing::error!(%error, "a data thread cannot serve"),
    }
}

/// Keeps the thread's runtime until no thread needs it: a connection to an origin is driven by the thread that opened it,
/// whichever thread's request it serves.
async fn finish_thread(context: &ListenContext, cache: &Cache, serving: &Tasks) {
    context.drain.started().await;
    let limit = context.config.drain_timeout + FILLS_FINISH_MAX;
    if tokio::time::timeout(limit, serving.drained()).await.is_err() {
        tracing::warn!(count = serving.running_count(), "threads are still serving {limit:?} after the drain began");
    }
    if tokio::time::timeout(FILLS_FINISH_MAX, cache.tasks.drained()).await.is_err() {
        let count = cache.tasks.running_count();
        tracing::warn!(count, "fills cut: they took longer than {FILLS_FINISH_MAX:?} after the last connection");
    }
}

async fn serve_admin(listener: TcpListener, state: AdminState, stop: Drain) {
    admin::serve(listener, state, stop.started()).await;
}

fn admin_state(shared: &Arc<Shared>, config: &Config, token: AdminToken) -> io::Result<AdminState> {
    let cache = &shared.cache;
    let (for_status, for_metrics, for_reload, for_ready) =
        (shared.clone(), shared.clone(), shared.clone(), shared.clone());
    let (for_sites, for_urls, for_explanations) = (cache.clone(), cache.clone(), cache.clone());
    let (for_origins, for_drains) = (cache.clone(), cache.clone());
    let (for_site_of, for_counts, for_refreshes) = (cache.clone(), cache.clone(), cache.clone());
    let audit = Arc::new(Audit::start(&config.data_dir)?);
    status::tell_audit(&cache.telemetry.metrics, audit.counts().clone());
    Ok(AdminState {
        tokens: Arc::new(Tokens::open(&config.data_dir, token)),
        audit,
        strangers: Arc::default(),
        rates: Arc::new(PurgeRates::default()),
        confirmations: Arc::new(Confirmations::new()?),
        purge_bounds: PurgeBounds {
            per_minute: config.admin.purges_per_minute,
            blast_radius_max: config.admin.blast_radius_max,
            blast_radius_share: config.admin.blast_radius_share,
        },
        node_name: config.node_name.clone().unwrap_or_else(host_name).into(),
        clock: cache.clock.clone(),
        count: Arc::new(move |family, labels| for_counts.telemetry.metrics.count_labelled(family, labels)),
        refresh: Arc::new(move |selectors| for_refreshes.refresher.refresh(selectors)),
        site_of: Arc::new(move |authority| {
            for_site_of.snapshot.load().routes.site(authority).map(|site| site.name.to_string())
        }),
        store: cache.store.clone(),
        retries: cache.retries.clone(),
        plugins: cache.plugins.clone(),
        tasks: cache.tasks.clone(),
        status: Arc::new(move || status::node_status(&for_status)),
        metrics: Arc::new(move || for_metrics.cache.telemetry.scrape()),
        reload: Arc::new(move || {
            let shared = for_reload.clone();
            Box::pin(async move { reload::reload(&shared).await })
        }),
        ready: Arc::new(move || if for_ready.drain.is_started() { Err("draining".into()) } else { Ok(()) }),
        sites: Arc::new(move || {
            for_sites.snapshot.load().routes.sites().iter().map(|site| site.name.to_string()).collect()
        }),
        resolve_url: Arc::new(move |url| crate::request::key::rewritten_urls(&for_urls, url)),
        explain: Arc::new(move |supposed| {
            let cache = for_explanations.clone();
            Box::pin(async move { explain(&cache, supposed).await })
        }),
        origins: Arc::new(move || {
            let origins = for_origins.snapshot.load().origins.snapshot();
            origins.into_iter().map(status::origin_status).collect()
        }),
        drain: Arc::new(move |name, request| drain(&for_drains, name, request)),
        header_count_max: cache.snapshot.load().config.listen.header_count_max,
    })
}

/// What the system calls this machine.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn drain(cache: &Cache, name: &str, request: &DrainRequest) -> Result<OriginStatus, NotDrained> {
    let origin = cache.snapshot.load().origins.get(name).ok_or(NotDrained::NoOrigin)?;
    if !origin.drain(&request.endpoint, request.drain) {
        return Err(NotDrained::NoEndpoint);
    }
    tracing::info!(origin = name, endpoint = request.endpoint, drain = request.drain, "endpoint drained or put back");
    Ok(status::origin_status(origin.snapshot()))
}

/// Tends the origins, also those that a reload put in their place.
async fn tend_origins(shared: Arc<Shared>) {
    loop {
        let snapshot = shared.cache.snapshot.load_full();
        let _ = tokio::time::timeout(Duration::from_secs(1), snapshot.origins.tend()).await;
    }
}
