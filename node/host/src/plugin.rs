//! A loaded plugin, and a call of it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use wasmtime::Store;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre};

use crate::Digest;
use crate::config::{DESCRIBE_DEADLINE, Grants, REASON_BYTES_MAX};
use crate::deadline::Deadline;
use crate::decision::KeyDecision;
use crate::description::Description;
use crate::fault::PluginFault;
use crate::guest::bindings::{CacheKeyPlugin, CacheKeyPluginPre};
use crate::guest::{Call, Granted, granted_imports, linker, store};
use crate::host::Shared;
use crate::inputs::KeyRequest;
use crate::log::GuestLog;
use crate::memo::Memo;
use crate::refused::{RefusedPlugin, one_line};
use crate::stats::{Counters, PluginStats};
use crate::text::clean;

/// A version of a plugin, ready to be called on any thread. Clones share everything.
#[derive(Clone)]
pub struct Plugin {
    loaded: Arc<Loaded>,
}

struct Loaded {
    host: Arc<Shared>,
    digest: Digest,
    description: Description,
    granted: Arc<Granted>,
    guest: CacheKeyPluginPre<Call>,
    memo: Memo,
    counters: Counters,
}

thread_local! {
    /// The inputs of the call at hand: kept, so that a remembered decision costs no allocation.
    static INPUTS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Plugin {
    pub(crate) fn load(
        host: &Arc<Shared>,
        name: &str,
        component: &Component,
        digest: Digest,
        grants: &Grants,
    ) -> Result<Self, RefusedPlugin> {
        check_imports(host, component, grants)?;
        check_exports(host, component)?;
        let wrong_type = |error: wasmtime::Error| RefusedPlugin::WrongType { reason: one_line(&error) };
        let linker = linker(&host.engine, grants).map_err(wrong_type)?;
        let pre: InstancePre<Call> = linker.instantiate_pre(component).map_err(wrong_type)?;
        let guest = CacheKeyPluginPre::new(pre).map_err(wrong_type)?;
        let granted = Arc::new(Granted { log: GuestLog::new(name), config: grants.config.clone().unwrap_or_default() });

        // From here on deadlines are needed; the guard gives the count back if `describe` is refused.
        let ticking = Ticking::begin(host);
        let said = in_guest(host, &granted, &guest, DESCRIBE_DEADLINE, |instance, store| {
            instance.brim_rules_meta().call_describe(store)
        });
        let description = Description::checked(said.map_err(RefusedPlugin::Describe)?)
            .map_err(|reason| RefusedPlugin::Description { reason })?;
        ticking.keep();
        let memo = Memo::new(&host.config);
        let loaded =
            Loaded { host: Arc::clone(host), digest, description, granted, guest, memo, counters: Counters::default() };
        Ok(Self { loaded: Arc::new(loaded) })
    }

    /// The component's identity.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.loaded.digest
    }

    /// What it says about itself.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.loaded.description
    }

    /// What it did since it was loaded.
    #[must_use]
    pub fn stats(&self) -> PluginStats {
        self.loaded.counters.read(self.loaded.granted.log.dropped())
    }

    /// Asks the rule for the key of a request; equal inputs are answered from memory.
    ///
    /// Blocks the thread until `key_deadline` and a tick of its time are used at most.
    ///
    /// # Errors
    /// Where there is no decision; the request then bypasses the cache. A fault is not remembered.
    pub fn cache_key(&self, request: &KeyRequest<'_>) -> Result<Arc<KeyDecision>, PluginFault> {
        let loaded = &*self.loaded;
        loaded.counters.calls.fetch_add(1, Relaxed);
        INPUTS.with_borrow_mut(|inputs| {
            loaded.description.inputs.write_bytes(request, inputs);
            if let Some(decision) = loaded.memo.find(inputs) {
                loaded.counters.memo_hits.fetch_add(1, Relaxed);
                return Ok(decision);
            }
            let decided = loaded.decide(request).inspect_err(|fault| loaded.counters.failed(fault))?;
            let decision = Arc::new(decided);
            loaded.memo.remember(inputs, &decision);
            Ok(decision)
        })
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Plugin").field("description", &self.loaded.description).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Runs the rule in a fresh instance.
    fn decide(&self, request: &KeyRequest<'_>) -> Result<KeyDecision, PluginFault> {
        let Some(_permit) = self.host.permit() else {
            return Err(PluginFault::Busy);
        };
        let began = Instant::now();
        let said =
            in_guest(&self.host, &self.granted, &self.guest, self.host.config.key_deadline, |instance, store| {
                self.description
                    .inputs
                    .with_request(request, |request| instance.brim_rules_cache_key().call_key(store, request))
            });
        self.counters.ran_for(began.elapsed());
        match said? {
            Ok(decision) => KeyDecision::checked(decision).map_err(PluginFault::BadOutput),
            Err(failure) => Err(PluginFault::Rejected(clean(&failure.message, REASON_BYTES_MAX))),
        }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.host.ticker.plugin_removed();
    }
}

/// A plugin counted with the ticker, and taken out again unless kept.
struct Ticking<'a> {
    host: &'a Shared,
}

impl<'a> Ticking<'a> {
    fn begin(host: &'a Shared) -> Self {
        host.ticker.plugin_added();
        Self { host }
    }

    /// The count now belongs to the loaded plugin.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.host.ticker.plugin_removed();
    }
}

/// Calls into a fresh instance under all limits, and says what went wrong if it did.
fn in_guest<T>(
    host: &Shared,
    granted: &Arc<Granted>,
    guest: &CacheKeyPluginPre<Call>,
    deadline: Duration,
    call: impl FnOnce(&CacheKeyPlugin, &mut Store<Call>) -> wasmtime::Result<T>,
) -> Result<T, PluginFault> {
    let mut store = store(&host.engine, granted, host.config.memory_max, Deadline::begin(deadline));
    let said = guest.instantiate(&mut store).and_then(|instance| call(&instance, &mut store));
    said.map_err(|error| {
        let state = store.data_mut();
        PluginFault::of(&error, state.memory_refused, state.panic.take())
    })
}

/// Refuses the first import that is neither granted nor a mere group of types.
fn check_imports(host: &Shared, component: &Component, grants: &Grants) -> Result<(), RefusedPlugin> {
    for (name, import) in component.component_type().imports(&host.engine) {
        let is_granted = granted_imports(grants).any(|granted| name.starts_with(granted));
        if !is_granted && !is_only_types(host, &import.ty) {
            return Err(RefusedPlugin::NotGranted { import: clean(name, REASON_BYTES_MAX) });
        }
    }
    Ok(())
}

fn is_only_types(host: &Shared, import: &ComponentItem) -> bool {
    match import {
        ComponentItem::ComponentInstance(instance) => {
            instance.exports(&host.engine).all(|(_, export)| matches!(export.ty, ComponentItem::Type(_)))
        }
        ComponentItem::Type(_) => true,
        _ => false,
    }
}

fn check_exports(host: &Shared, component: &Component) -> Result<(), RefusedPlugin> {
    for export in ["brim:rules/meta@1", "brim:rules/cache-key@1"] {
        let is_there = component
            .component_type()
            .exports(&host.engine)
            .any(|(name, _)| name.strip_prefix(export).is_some_and(|rest| rest.starts_with('.')));
        if !is_there {
            return Err(RefusedPlugin::MissingExport { export });
        }
    }
    Ok(())
}
