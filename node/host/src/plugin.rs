//! A loaded plugin, and a call of it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};
use wasmtime::Store;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Instance, InstancePre};

use crate::Digest;
use crate::config::{DECISION_BYTES_MAX, DESCRIBE_DEADLINE, Grants, INVALIDATION_BYTES_MAX, REASON_BYTES_MAX};
use crate::deadline::Deadline;
use crate::decision::KeyDecision;
use crate::description::{Description, Hook};
use crate::fault::PluginFault;
use crate::guest::bindings::brim::rules::types::Failure;
use crate::guest::bindings::exports::brim::rules::{cache_key, invalidation, meta};
use crate::guest::{Call, Granted, granted_imports, linker, store};
use crate::host::Shared;
use crate::inputs::KeyRequest;
use crate::invalidation::{InvalidationCall, InvalidationInputs, PluginPurge, checked_purges, checked_tags};
use crate::json::Content;
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
    guest: Guest,
    memo: Memo,
    counters: Counters,
}

/// A component ready to be instantiated, and the places of its exports. A hook it does not have is none.
struct Guest {
    pre: InstancePre<Call>,
    meta: meta::GuestIndices,
    cache_key: Option<cache_key::GuestIndices>,
    invalidation: Option<invalidation::GuestIndices>,
}

/// What one call may use.
#[derive(Clone, Copy)]
struct Limits {
    deadline: Duration,
    answer_bytes_max: usize,
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
        let hooks = check_exports(host, component)?;
        let wrong_type = |error: wasmtime::Error| RefusedPlugin::WrongType { reason: one_line(&error) };
        let linker = linker(&host.engine, grants).map_err(wrong_type)?;
        let pre: InstancePre<Call> = linker.instantiate_pre(component).map_err(wrong_type)?;
        let guest = Guest::new(pre, &hooks).map_err(wrong_type)?;
        let granted = Arc::new(Granted { log: GuestLog::new(name), config: grants.config.clone().unwrap_or_default() });

        // From here on deadlines are needed; the guard gives the count back if `describe` is refused.
        let ticking = Ticking::begin(host);
        let limits = Limits { deadline: DESCRIBE_DEADLINE, answer_bytes_max: DECISION_BYTES_MAX };
        let typed = in_guest(host, &granted, &guest, limits, |instance, store| Ok(guest.check_types(instance, store)));
        typed.map_err(RefusedPlugin::Describe)?.map_err(wrong_type)?;
        let said = in_guest(host, &granted, &guest, limits, |instance, store| {
            guest.meta.load(&mut *store, instance)?.call_describe(store)
        });
        let mut description = Description::checked(said.map_err(RefusedPlugin::Describe)?, hooks)
            .map_err(|reason| RefusedPlugin::Description { reason })?;
        if let Some(exports) = &guest.invalidation {
            let said = in_guest(host, &granted, &guest, limits, |instance, store| {
                exports.load(&mut *store, instance)?.call_reads(store)
            });
            let inputs = InvalidationInputs::checked(said.map_err(RefusedPlugin::Reads)?)
                .map_err(|reason| RefusedPlugin::Inputs { reason })?;
            description.invalidation = Some(inputs);
        }
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

    /// Whether it can be asked at this place of the request path.
    #[must_use]
    pub fn has(&self, hook: Hook) -> bool {
        self.loaded.description.hooks.contains(&hook)
    }

    /// What its invalidation rule reads, if it has one.
    #[must_use]
    pub fn invalidation_inputs(&self) -> Option<&InvalidationInputs> {
        self.loaded.description.invalidation.as_ref()
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
    /// Where there is no decision; the request then bypasses the cache. A fault is not remembered. [`PluginFault::NoHook`] where the
    /// component shapes no keys.
    pub fn cache_key(&self, request: &KeyRequest<'_>) -> Result<Arc<KeyDecision>, PluginFault> {
        let loaded = &*self.loaded;
        loaded.counters.calls.fetch_add(1, Relaxed);
        if loaded.guest.cache_key.is_none() {
            return Err(PluginFault::NoHook).inspect_err(|fault| loaded.counters.failed(fault));
        }
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

    /// What a call of the invalidation hook sees: request and response cut down to what the plugin declared. Owned, so that it can wait
    /// in a queue on disk and be run again.
    ///
    /// The contents are what [`json::select`](crate::json::select) found at [`InvalidationInputs::request_values`] and
    /// [`InvalidationInputs::response_values`].
    #[must_use]
    pub fn invalidation_call(
        &self,
        request: &KeyRequest<'_>,
        request_content: Content,
        status: StatusCode,
        response_headers: &HeaderMap,
        response_content: Content,
    ) -> InvalidationCall {
        let declared = self.invalidation_inputs();
        InvalidationCall::new(declared, request, request_content, status, response_headers, response_content)
    }

    /// Asks for the surrogate keys of a response: at most 256, of 1 to 1024 bytes, without white space and control characters.
    ///
    /// Blocks the thread until `invalidation_deadline` and a tick of its time are used at most. Nothing is remembered.
    ///
    /// # Errors
    /// Where there is no answer: the response must not be stored.
    pub fn tags(&self, call: &InvalidationCall) -> Result<Vec<Box<str>>, PluginFault> {
        self.loaded.counters.tags_calls.fetch_add(1, Relaxed);
        let said = self.loaded.ask_invalidation(|exports, declared, instance, store| {
            let guest = exports.load(&mut *store, instance)?;
            call.with_guest_types(declared, |request, response| guest.call_tags(store, request, response))
        });
        self.loaded.checked(said, checked_tags)
    }

    /// Asks what an unsafe request made obsolete: at most 64 purges, with 256 surrogate keys among them.
    ///
    /// Blocks the thread until `invalidation_deadline` and a tick of its time are used at most. Nothing is remembered.
    ///
    /// # Errors
    /// Where there is no answer: the call is to be made again.
    pub fn purges(&self, call: &InvalidationCall) -> Result<Vec<PluginPurge>, PluginFault> {
        self.loaded.counters.purges_calls.fetch_add(1, Relaxed);
        let said = self.loaded.ask_invalidation(|exports, declared, instance, store| {
            let guest = exports.load(&mut *store, instance)?;
            call.with_guest_types(declared, |request, response| guest.call_purges(store, request, response))
        });
        self.loaded.checked(said, checked_purges)
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
        let Some(exports) = &self.guest.cache_key else {
            return Err(PluginFault::NoHook);
        };
        let limits = Limits { deadline: self.host.config.key_deadline, answer_bytes_max: DECISION_BYTES_MAX };
        let said = self.run(limits, |instance, store| {
            let guest = exports.load(&mut *store, instance)?;
            self.description.inputs.with_request(request, |request| guest.call_key(store, request))
        });
        decided(said, KeyDecision::checked)
    }

    /// Asks the invalidation rule in a fresh instance.
    fn ask_invalidation<T>(
        &self,
        call: impl FnOnce(
            &invalidation::GuestIndices,
            &InvalidationInputs,
            &Instance,
            &mut Store<Call>,
        ) -> wasmtime::Result<T>,
    ) -> Result<T, PluginFault> {
        self.counters.calls.fetch_add(1, Relaxed);
        let (Some(exports), Some(declared)) = (&self.guest.invalidation, &self.description.invalidation) else {
            return Err(PluginFault::NoHook);
        };
        let deadline = self.host.config.invalidation_deadline;
        let limits = Limits { deadline, answer_bytes_max: INVALIDATION_BYTES_MAX };
        self.run(limits, |instance, store| call(exports, declared, instance, store))
    }

    /// What a guest said, checked, and counted if it is a fault.
    fn checked<S, T>(
        &self,
        said: Result<Result<S, Failure>, PluginFault>,
        check: impl FnOnce(S) -> Result<T, String>,
    ) -> Result<T, PluginFault> {
        decided(said, check).inspect_err(|fault| self.counters.failed(fault))
    }

    /// Calls into a fresh instance if as many calls as may run do not run yet.
    fn run<T>(
        &self,
        limits: Limits,
        call: impl FnOnce(&Instance, &mut Store<Call>) -> wasmtime::Result<T>,
    ) -> Result<T, PluginFault> {
        let Some(_permit) = self.host.permit() else {
            return Err(PluginFault::Busy);
        };
        let began = Instant::now();
        let said = in_guest(&self.host, &self.granted, &self.guest, limits, call);
        self.counters.ran_for(began.elapsed());
        said
    }
}

/// What a guest said, checked.
fn decided<S, T>(
    said: Result<Result<S, Failure>, PluginFault>,
    check: impl FnOnce(S) -> Result<T, String>,
) -> Result<T, PluginFault> {
    match said? {
        Ok(said) => check(said).map_err(PluginFault::BadOutput),
        Err(failure) => Err(PluginFault::Rejected(clean(&failure.message, REASON_BYTES_MAX))),
    }
}

impl Guest {
    fn new(pre: InstancePre<Call>, hooks: &[Hook]) -> wasmtime::Result<Self> {
        let has = |hook| hooks.contains(&hook);
        Ok(Self {
            meta: meta::GuestIndices::new(&pre)?,
            cache_key: has(Hook::CacheKey).then(|| cache_key::GuestIndices::new(&pre)).transpose()?,
            invalidation: has(Hook::Invalidation).then(|| invalidation::GuestIndices::new(&pre)).transpose()?,
            pre,
        })
    }

    /// Whether all exports have the types of the contract: what has not is refused at load, not at a request.
    fn check_types(&self, instance: &Instance, store: &mut Store<Call>) -> wasmtime::Result<()> {
        self.meta.load(&mut *store, instance)?;
        if let Some(exports) = &self.cache_key {
            exports.load(&mut *store, instance)?;
        }
        if let Some(exports) = &self.invalidation {
            exports.load(&mut *store, instance)?;
        }
        Ok(())
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
    guest: &Guest,
    limits: Limits,
    call: impl FnOnce(&Instance, &mut Store<Call>) -> wasmtime::Result<T>,
) -> Result<T, PluginFault> {
    let deadline = Deadline::begin(limits.deadline);
    let mut store = store(&host.engine, granted, host.config.memory_max, deadline, limits.answer_bytes_max);
    let said = guest.pre.instantiate(&mut store).and_then(|instance| call(&instance, &mut store));
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

/// Which hooks a component has. It is refused where it has none, or does not describe itself.
fn check_exports(host: &Shared, component: &Component) -> Result<Vec<Hook>, RefusedPlugin> {
    let component = component.component_type();
    let has = |export: &str| {
        component
            .exports(&host.engine)
            .any(|(name, _)| name.strip_prefix(export).is_some_and(|rest| rest.starts_with('.')))
    };
    let export = "brim:rules/meta@1";
    if !has(export) {
        return Err(RefusedPlugin::MissingExport { export });
    }
    let hooks = [(Hook::CacheKey, "brim:rules/cache-key@1"), (Hook::Invalidation, "brim:rules/invalidation@1")];
    let hooks: Vec<Hook> = hooks.into_iter().filter(|(_, export)| has(export)).map(|(hook, _)| hook).collect();
    if hooks.is_empty() { Err(RefusedPlugin::NoHook) } else { Ok(hooks) }
}
