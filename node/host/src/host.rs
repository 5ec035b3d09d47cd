//! The host of all plugins of a node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::Digest;
use crate::config::{Grants, HostConfig};
use crate::engine::{HostError, Ticker, compile, running};
use crate::plugin::Plugin;
use crate::refused::RefusedPlugin;

/// Compiles, loads and bounds plugins. Clones share everything; the clock of deadlines ends with the last clone and plugin.
#[derive(Debug, Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

/// What a host and its plugins share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) config: HostConfig,
    pub(crate) ticker: Ticker,
    calls_max: u32,
    calls: AtomicU32,
}

impl Host {
    /// Sets up the engine, its pool and the clock of deadlines.
    ///
    /// # Errors
    /// Where this machine has no address space for a few instances, or cannot run compiled plugins at all.
    pub fn new(config: HostConfig) -> Result<Self, HostError> {
        let (engine, calls_max) = running(&config)?;
        let ticker = Ticker::start(engine.clone())?;
        Ok(Self { shared: Arc::new(Shared { engine, config, ticker, calls_max, calls: AtomicU32::new(0) }) })
    }

    /// Compiles a component. Takes time and memory that the component chooses: a node runs [`compile()`] in a child process instead.
    ///
    /// # Errors
    /// What is not a component, too large, or not valid.
    pub fn compile(&self, component: &[u8]) -> Result<Vec<u8>, RefusedPlugin> {
        compile(&self.shared.config, component)
    }

    /// Loads what [`compile()`] made on this machine, with the default [`Grants`].
    ///
    /// `compiled` is machine code and is run as such: pass only bytes this node compiled and kept where nobody else writes.
    ///
    /// # Errors
    /// Where it does not fit the contract, imports what is not granted, or does not describe itself within the limits.
    pub fn load(&self, name: &str, compiled: &[u8], digest: Digest) -> Result<Plugin, RefusedPlugin> {
        self.load_with(name, compiled, digest, &Grants::default())
    }

    /// [`Host::load`] with other grants.
    ///
    /// # Errors
    /// As for [`Host::load`].
    pub fn load_with(
        &self,
        name: &str,
        compiled: &[u8],
        digest: Digest,
        grants: &Grants,
    ) -> Result<Plugin, RefusedPlugin> {
        let component = self.deserialise(compiled)?;
        Plugin::load(&self.shared, name, &component, digest, grants)
    }

    #[allow(unsafe_code, reason = "compiled plugins are machine code")]
    fn deserialise(&self, compiled: &[u8]) -> Result<Component, RefusedPlugin> {
        // SAFETY: `load` demands bytes that this node's own `compile` made; wasmtime checks version and settings itself.
        unsafe { Component::deserialize(&self.shared.engine, compiled) }
            .map_err(|error| RefusedPlugin::Incompatible { reason: crate::refused::one_line(&error) })
    }
}

impl Shared {
    /// Room for one more call, given back on drop; none if as many run as may.
    pub(crate) fn permit(&self) -> Option<Permit<'_>> {
        let permit = Permit { calls: &self.calls };
        // The count stands before the check, so that two threads cannot both take the last place.
        let running = self.calls.fetch_add(1, Ordering::AcqRel);
        (running < self.calls_max).then_some(permit)
    }
}

#[derive(Debug)]
pub(crate) struct Permit<'a> {
    calls: &'a AtomicU32,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.calls.fetch_sub(1, Ordering::AcqRel);
    }
}
