//! [`PluginRegistry`]: uploads, activations, rollbacks, and the active plugin for a request.
//!
//! Always true:
//! - A reader sees one snapshot: records, loaded plugins and problems belong together.
//! - A change is made by one writer at a time, on the blocking pool, and goes on if the caller is dropped:
//!   `registry.json` first, the snapshot after it.
//! - At most one component is compiled at a time.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use brim_host::{Grants, Host, Plugin, PluginStats, RefusedPlugin};
use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::compile::Compiler;
use super::error::{ChangeRefusal, OpenError, UploadRefusal};
use super::files::{Files, Registry, hex};
use super::record::{DeclaredInputs, DeclaredQuery, DeclaredReads, PluginRecord, RegistryFile, VersionRecord};
use super::{NAME_BYTES_MAX, PLUGINS_MAX};

/// How long an upload waits for the one before it to be compiled.
const UPLOAD_WAIT_MAX: Duration = Duration::from_secs(20);

/// What a registry needs.
pub struct RegistryConfig {
    /// `data_dir/plugins`.
    pub dir: PathBuf,
    /// Size of a component.
    pub component_bytes_max: u64,
    /// Where components are compiled.
    pub compiler: Compiler,
    /// `[plugins.config]`: what plugins are configured with, by their name. One that is not named here is not granted the
    /// import `brim:rules/config`.
    pub configs: BTreeMap<String, BTreeMap<String, String>>,
}

/// The plugins of a node. Clones share it.
#[derive(Clone)]
pub struct PluginRegistry(Arc<Shared>);

struct Shared {
    host: Arc<Host>,
    files: Files,
    compiler: Compiler,
    configs: BTreeMap<String, BTreeMap<String, String>>,
    component_bytes_max: u64,
    snapshot: ArcSwap<Snapshot>,
    /// Held by the writer from reading the snapshot until it is replaced; only ever on the blocking pool.
    writer: Mutex<()>,
    compiling: Semaphore,
}

#[derive(Default, Clone)]
struct Snapshot {
    registry: RegistryFile,
    active: HashMap<String, Arc<ActivePlugin>>,
    problems: Vec<Problem>,
}

/// The active version of a plugin, loaded.
pub struct ActivePlugin {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// SHA-256 of the component in hex.
    pub digest: String,
    /// The loaded plugin.
    pub plugin: Plugin,
}

/// Something that went wrong at start and needs somebody's attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The plugin; `None`: the registry itself.
    pub plugin: Option<String>,
    /// What is wrong.
    pub reason: String,
}

/// An accepted upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// The version.
    pub version: VersionRecord,
    /// The same component had been uploaded before: no new version was made.
    pub known: bool,
}

/// How a version takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It decides.
    Live,
    /// It runs beside the live one and its decisions are compared. Not available yet.
    Shadow,
    /// It decides for a share of the keys. Not available yet.
    Canary,
}

/// One plugin as it is now.
#[derive(Clone)]
pub struct PluginView {
    /// Its name.
    pub name: String,
    /// Versions, and which is active.
    pub record: PluginRecord,
    /// What the active version has done since it became active. `None`: none is active, or it could not be loaded.
    pub stats: Option<PluginStats>,
    /// Why the active version is not running.
    pub problem: Option<String>,
}

impl PluginRegistry {
    /// Reads the registry and loads what is active. What does not load is reported by [`PluginRegistry::problems`].
    pub async fn open(config: RegistryConfig, host: Arc<Host>) -> Result<PluginRegistry, OpenError> {
        let RegistryConfig { dir, component_bytes_max, compiler, configs } = config;
        let directory = dir.clone();
        let opened = blocking(move || {
            let files = Files::open(&dir, &format!("{:016x}", brim_host::compatibility()))?;
            let registry = files.read_registry()?;
            Ok((files, registry))
        });
        let (files, registry) = opened.await.map_err(|source| OpenError::Directory { path: directory, source })?;
        let mut snapshot = Snapshot::default();
        match registry {
            Registry::Read(registry) => {
                files.remove_unused(&registry);
                snapshot.registry = registry;
            }
            Registry::Absent => snapshot.registry = RegistryFile::empty(),
            Registry::Damaged { reason, moved_to } => {
                let reason = format!("registry.json is damaged ({reason}) and was moved to {}", moved_to.display());
                tracing::error!(reason, "no plugin is active");
                snapshot.registry = RegistryFile::empty();
                snapshot.problems.push(Problem { plugin: None, reason });
            }
        }
        let registry = PluginRegistry(Arc::new(Shared {
            host,
            files,
            compiler,
            configs,
            component_bytes_max,
            snapshot: ArcSwap::default(),
            writer: Mutex::new(()),
            compiling: Semaphore::new(1),
        }));
        registry.load_active(&mut snapshot).await;
        registry.0.snapshot.store(Arc::new(snapshot));
        Ok(registry)
    }

    /// The active version of the plugin `name`, if there is one and it runs. Cheap: one atomic load and one look-up.
    pub fn active(&self, name: &str) -> Option<Arc<ActivePlugin>> {
        self.0.snapshot.load().active.get(name).cloned()
    }

    /// The size that a component may have.
    pub fn component_bytes_max(&self) -> u64 {
        self.0.component_bytes_max
    }

    /// What went wrong at start and still does.
    pub fn problems(&self) -> Vec<Problem> {
        self.0.snapshot.load().problems.clone()
    }

    /// All plugins by name.
    pub fn list(&self) -> Vec<PluginView> {
        let snapshot = self.0.snapshot.load();
        snapshot.registry.plugins.iter().map(|(name, record)| snapshot.view(name, record)).collect()
    }

    /// The plugin `name`.
    pub fn get(&self, name: &str) -> Option<PluginView> {
        let snapshot = self.0.snapshot.load();
        snapshot.registry.plugins.get(name).map(|record| snapshot.view(name, record))
    }

    /// Takes a component through every check and keeps it as the next version of `name`. It is not active by that.
    ///
    /// The same component again is the same version again.
    pub async fn upload(&self, name: &str, component: Bytes, now: SystemTime) -> Result<Uploaded, UploadRefusal> {
        self.check_upload(name, &component)?;
        let permit = tokio::time::timeout(UPLOAD_WAIT_MAX, self.0.compiling.acquire());
        let Ok(Ok(_permit)) = permit.await else { return Err(UploadRefusal::Busy(UPLOAD_WAIT_MAX)) };
        let checksum: brim_host::Digest = Sha256::digest(&component).into();
        let digest = hex(&checksum);
        if let Some(version) = self.known_version(name, &digest) {
            return Ok(Uploaded { version, known: true });
        }
        let compiled = self.0.compiler.compile(component.clone()).await.map_err(UploadRefusal::Compile)?;
        let (shared, name) = (self.0.clone(), name.to_owned());
        let kept = tokio::task::spawn_blocking(move || {
            let plugin = shared.load(&name, &compiled, checksum).map_err(UploadRefusal::Load)?;
            shared.files.write_component(&digest, &component).map_err(UploadRefusal::Disk)?;
            shared.files.write_compiled(&digest, &compiled).map_err(UploadRefusal::Disk)?;
            let record = describe(&plugin, digest, component.len() as u64, now);
            shared.add_version(&name, record)
        });
        let version = kept.await.map_err(|_| UploadRefusal::Panicked)??;
        Ok(Uploaded { version, known: false })
    }

    /// Makes a kept version the active one: the next request uses it.
    pub async fn activate(&self, name: &str, version: u64, mode: Mode) -> Result<PluginView, ChangeRefusal> {
        match mode {
            Mode::Live => {}
            Mode::Shadow => return Err(ChangeRefusal::Mode("shadow")),
            Mode::Canary => return Err(ChangeRefusal::Mode("canary")),
        }
        let view = self.get(name).ok_or_else(|| ChangeRefusal::UnknownPlugin(name.to_owned()))?;
        let record = view.record.version(version).ok_or_else(|| ChangeRefusal::UnknownVersion {
            name: name.to_owned(),
            version,
            kept: view.record.versions.iter().map(|kept| kept.version.to_string()).collect::<Vec<_>>().join(", "),
        })?;
        self.make_active(name, record, |plugin, version| plugin.activate(version)).await
    }

    /// Goes back to the version that was active before. Going back again goes further back, never forward.
    pub async fn rollback(&self, name: &str) -> Result<PluginView, ChangeRefusal> {
        let view = self.get(name).ok_or_else(|| ChangeRefusal::UnknownPlugin(name.to_owned()))?;
        let before = view.record.before.last().and_then(|&version| view.record.version(version));
        let record = before.ok_or_else(|| ChangeRefusal::NothingBefore(name.to_owned()))?;
        self.make_active(name, record, |plugin, version| {
            // Somebody else may have rolled back meanwhile: then this version is active already.
            if plugin.before.last() == Some(&version) {
                plugin.roll_back();
            }
        })
        .await
    }

    /// Loads `version`, then lets `change` name it in the record, then shows it to requests.
    async fn make_active(
        &self,
        name: &str,
        version: &VersionRecord,
        change: impl FnOnce(&mut PluginRecord, u64) + Send + 'static,
    ) -> Result<PluginView, ChangeRefusal> {
        let loaded = self.load(name, version).await.map_err(|reason| ChangeRefusal::Unloadable {
            name: name.to_owned(),
            version: version.version,
            reason,
        })?;
        let shared = self.0.clone();
        let changed = blocking(move || {
            let (name, version) = (loaded.name.clone(), loaded.version);
            shared.change(|snapshot| {
                let plugin =
                    snapshot.registry.plugins.get_mut(&name).filter(|plugin| plugin.version(version).is_some());
                let plugin =
                    plugin.ok_or_else(|| io::Error::other("the version was replaced at this moment; try again"))?;
                change(plugin, version);
                if plugin.active == Some(version) {
                    snapshot.active.insert(name.clone(), Arc::new(loaded));
                    snapshot.problems.retain(|problem| problem.plugin.as_deref() != Some(&name));
                }
                Ok(())
            })
        });
        changed.await.map_err(ChangeRefusal::Disk)?;
        tracing::info!(plugin = name, version = version.version, digest = version.digest, "plugin version is active");
        self.get(name).ok_or_else(|| ChangeRefusal::UnknownPlugin(name.to_owned()))
    }

    fn check_upload(&self, name: &str, component: &[u8]) -> Result<(), UploadRefusal> {
        if !is_plugin_name(name) {
            return Err(UploadRefusal::Name(name.to_owned()));
        }
        let (bytes, bytes_max) = (component.len() as u64, self.0.component_bytes_max);
        if bytes > bytes_max {
            return Err(UploadRefusal::TooLarge { bytes, bytes_max });
        }
        // Magic, version, layer: the compiler would say the same, but it takes a process to ask it.
        match component {
            [b'\0', b'a', b's', b'm', _, _, 1, 0, ..] => {}
            [b'\0', b'a', b's', b'm', 1, 0, 0, 0, ..] => return Err(UploadRefusal::Load(RefusedPlugin::CoreModule)),
            _ => return Err(UploadRefusal::Load(RefusedPlugin::NotAComponent)),
        }
        let snapshot = self.0.snapshot.load();
        if snapshot.registry.plugins.len() >= PLUGINS_MAX && !snapshot.registry.plugins.contains_key(name) {
            return Err(UploadRefusal::TooMany);
        }
        Ok(())
    }

    fn known_version(&self, name: &str, digest: &str) -> Option<VersionRecord> {
        self.0.snapshot.load().registry.plugins.get(name)?.with_digest(digest).cloned()
    }

    async fn load_active(&self, snapshot: &mut Snapshot) {
        for (name, record) in &snapshot.registry.plugins {
            let Some(version) = record.active.and_then(|active| record.version(active)) else { continue };
            match self.load(name, version).await {
                Ok(loaded) => {
                    snapshot.active.insert(name.clone(), Arc::new(loaded));
                }
                Err(reason) => {
                    tracing::error!(
                        plugin = name,
                        version = version.version,
                        reason,
                        "plugin does not load; its routes bypass the cache"
                    );
                    let reason = format!("version {}: {reason}", version.version);
                    snapshot.problems.push(Problem { plugin: Some(name.clone()), reason });
                }
            }
        }
    }

    /// Loads a kept version; what is compiled is used if it is readable and loads, else it is compiled again.
    async fn load(&self, name: &str, version: &VersionRecord) -> Result<ActivePlugin, String> {
        let digest = version.digest.clone();
        let shared = self.0.clone();
        let compiled = blocking({
            let digest = digest.clone();
            move || Ok(shared.files.read_compiled(&digest))
        });
        if let Some(compiled) = compiled.await.ok().flatten() {
            match self.instantiate(name, version, compiled).await {
                Ok(loaded) => return Ok(loaded),
                Err(reason) => {
                    tracing::warn!(plugin = name, reason, "a compiled module does not load and is made again")
                }
            }
        }
        let shared = self.0.clone();
        let component = blocking({
            let digest = digest.clone();
            move || shared.files.read_component(&digest)
        });
        let component = component.await.map_err(|error| format!("its component cannot be read: {error}"))?;
        let compiled = self.0.compiler.compile(component.into()).await?;
        let shared = self.0.clone();
        let kept = blocking(move || shared.files.write_compiled(&digest, &compiled).map(|()| compiled));
        let compiled = kept.await.map_err(|error| format!("its compiled module cannot be kept: {error}"))?;
        self.instantiate(name, version, compiled).await
    }

    async fn instantiate(
        &self,
        name: &str,
        version: &VersionRecord,
        compiled: Vec<u8>,
    ) -> Result<ActivePlugin, String> {
        let checksum = unhex(&version.digest).ok_or("its digest in registry.json is malformed")?;
        let (shared, plugin_name) = (self.0.clone(), name.to_owned());
        let loaded = tokio::task::spawn_blocking(move || shared.load(&plugin_name, &compiled, checksum));
        let plugin = match loaded.await {
            Ok(result) => result.map_err(|refused| refused.to_string())?,
            Err(_) => return Err("loading panicked".to_owned()),
        };
        Ok(ActivePlugin { name: name.to_owned(), version: version.version, digest: version.digest.clone(), plugin })
    }
}

impl Shared {
    /// Checks a compiled plugin against what it is granted, and has it describe itself. Blocks.
    fn load(&self, name: &str, compiled: &[u8], digest: brim_host::Digest) -> Result<Plugin, RefusedPlugin> {
        let grants = Grants { config: self.configs.get(name).cloned(), ..Grants::default() };
        self.host.load_with(name, compiled, digest, &grants)
    }

    fn add_version(&self, name: &str, record: VersionRecord) -> Result<VersionRecord, UploadRefusal> {
        let mut added = None;
        self.change(|snapshot| {
            let plugin = snapshot.registry.plugins.entry(name.to_owned()).or_default();
            let version = plugin.add(record);
            added = plugin.version(version).cloned();
            Ok(())
        })
        .map_err(UploadRefusal::Disk)?;
        added.ok_or_else(|| UploadRefusal::Disk(io::Error::other("the newest version is always kept")))
    }

    /// One change: `registry.json` first, then what requests see. Nothing changes on an error.
    fn change(&self, change: impl FnOnce(&mut Snapshot) -> io::Result<()>) -> io::Result<()> {
        let _writer = self.writer.lock();
        let mut snapshot = Snapshot::clone(&self.snapshot.load());
        change(&mut snapshot)?;
        self.files.write_registry(&snapshot.registry)?;
        self.snapshot.store(Arc::new(snapshot));
        Ok(())
    }
}

impl Snapshot {
    fn view(&self, name: &str, record: &PluginRecord) -> PluginView {
        let problem = self.problems.iter().find(|problem| problem.plugin.as_deref() == Some(name));
        PluginView {
            name: name.to_owned(),
            record: record.clone(),
            stats: self.active.get(name).map(|active| active.plugin.stats()),
            problem: problem.map(|problem| problem.reason.clone()),
        }
    }
}

/// Whether `name` may name a plugin: 1 to [`NAME_BYTES_MAX`] of a-z, 0-9 and '-', beginning with a letter.
pub fn is_plugin_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(allowed)
}

fn describe(plugin: &Plugin, digest: String, component_bytes: u64, now: SystemTime) -> VersionRecord {
    let description = plugin.description();
    let inputs = &description.inputs;
    VersionRecord {
        version: 0,
        digest,
        declared_name: description.name.clone(),
        declared_version: description.version.clone(),
        hooks: description.hooks.iter().map(|hook| hook.as_str().to_owned()).collect(),
        inputs: DeclaredInputs {
            headers: inputs.headers.iter().map(ToString::to_string).collect(),
            cookies: inputs.cookies.clone(),
            query: match &inputs.query {
                brim_host::QueryInputs::None => DeclaredQuery::None,
                brim_host::QueryInputs::All => DeclaredQuery::All,
                brim_host::QueryInputs::Named(names) => DeclaredQuery::Named(names.clone()),
            },
            path: inputs.path,
            invalidation: description.invalidation.as_ref().map(declared_reads),
        },
        component_bytes,
        uploaded_at: now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
    }
}

fn declared_reads(inputs: &brim_host::InvalidationInputs) -> DeclaredReads {
    let names = |names: &[http::HeaderName]| names.iter().map(ToString::to_string).collect();
    let pointers = |pointers: &[brim_host::json::Pointer]| pointers.iter().map(ToString::to_string).collect();
    DeclaredReads {
        request_headers: names(&inputs.request_headers),
        response_headers: names(&inputs.response_headers),
        request_values: pointers(&inputs.request_values),
        response_values: pointers(&inputs.response_values),
    }
}

fn unhex(text: &str) -> Option<brim_host::Digest> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
