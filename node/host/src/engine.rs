//! The wasmtime engines: one that only compiles, one that runs with a pool of memory, and the clock of deadlines.
//!
//! Always true:
//! - Both engines generate the same code, so what a child process compiled is loaded by the node. Whatever would change the code
//!   stands in [`code_config`].
//! - The ticker sleeps while no plugin is loaded, and ends with the [`Ticker`].

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::config::{HostConfig, KEEP_RESIDENT_BYTES, TICK};
use crate::refused::{RefusedPlugin, one_line};

/// Fewer slots than this are not worth running with.
const POOL_SLOTS_MIN: u32 = 4;
/// Slots above the calls that may run at once, for plugins being loaded and instances being torn down.
const POOL_SLOTS_SPARE: u32 = 4;
/// Host stack a guest may use, well below the 2 MiB of a thread. The SDK's shadow stack (32 KiB) ends first.
const WASM_STACK_BYTES_MAX: usize = 512 * 1024;
/// A rule's functions and vtables; `brim plugin build`'s are below 100.
const TABLE_ELEMENTS_MAX: usize = 10_000;

/// Why there can be no plugin host on this machine.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Not even the smallest pool could be reserved.
    #[error(
        "cannot reserve address space for {slots} plugin instances (4 GiB each, not memory): {reason}; \
         is there a limit on virtual memory (`ulimit -v`)?"
    )]
    AddressSpace {
        /// What was tried last.
        slots: u32,
        /// What the system said.
        reason: String,
    },
    /// This machine cannot run compiled plugins.
    #[error("cannot set up the plugin engine: {reason}")]
    Engine {
        /// What wasmtime said.
        reason: String,
    },
    /// No thread for the clock of deadlines.
    #[error("cannot start the clock of plugin deadlines")]
    Ticker(#[from] std::io::Error),
}

/// Everything that shapes generated code.
fn code_config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        // A decision is a pure function of its inputs: not-a-number has one bit pattern.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .max_wasm_stack(WASM_STACK_BYTES_MAX)
        // Source positions of traps: the name section is stripped from release builds, so they would say nothing.
        .generate_address_map(false);
    config
}

/// Compiles a component for this machine. Needs no [`Host`](crate::Host) and no pool, so that a child process with little address
/// space can do it: a component can make its compiler slow or large, and that must not happen in the node.
///
/// # Errors
/// What is not a component, too large, or not valid.
pub fn compile(config: &HostConfig, component: &[u8]) -> Result<Vec<u8>, RefusedPlugin> {
    if component.len() > config.component_bytes_max {
        return Err(RefusedPlugin::TooLarge { bytes: component.len(), bytes_max: config.component_bytes_max });
    }
    match component {
        [b'\0', b'a', b's', b'm', _, _, 1, 0, ..] => {}
        [b'\0', b'a', b's', b'm', 1, 0, 0, 0, ..] => return Err(RefusedPlugin::CoreModule),
        _ => return Err(RefusedPlugin::NotAComponent),
    }
    let invalid = |error: wasmtime::Error| RefusedPlugin::Invalid { reason: one_line(&error) };
    let engine = Engine::new(&code_config()).map_err(invalid)?;
    engine.precompile_component(component).map_err(invalid)
}

/// Changes whenever compiled plugins of before can no longer be loaded: another wasmtime, other settings, another processor.
/// Belongs into the name of a file that keeps one.
#[must_use]
pub fn compatibility() -> u64 {
    let mut hasher = DefaultHasher::new();
    if let Ok(engine) = Engine::new(&code_config()) {
        engine.precompile_compatibility_hash().hash(&mut hasher);
    }
    hasher.finish()
}

/// The engine that runs plugins, and how many calls it has room for.
///
/// Where the address space does not suffice for all, fewer run at once; that is said in the log and is no error.
pub(crate) fn running(config: &HostConfig) -> Result<(Engine, u32), HostError> {
    let wanted = config.instances_max.max(1);
    let mut calls = wanted;
    loop {
        let slots = calls + POOL_SLOTS_SPARE;
        let mut settings = code_config();
        settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(config, slots)));
        match Engine::new(&settings) {
            Ok(engine) if calls == wanted => return Ok((engine, calls)),
            Ok(engine) => {
                tracing::warn!(wanted, calls, "address space is short: fewer plugin calls run at once");
                return Ok((engine, calls));
            }
            Err(_) if calls > POOL_SLOTS_MIN => calls = (calls / 2).max(POOL_SLOTS_MIN),
            Err(error) => {
                let reason = one_line(&error);
                // Without a pool there is no address space to run out of: what fails then is something else.
                return Err(match Engine::new(&code_config()) {
                    Ok(_) => HostError::AddressSpace { slots, reason },
                    Err(_) => HostError::Engine { reason },
                });
            }
        }
    }
}

fn pool(config: &HostConfig, slots: u32) -> PoolingAllocationConfig {
    // A component of `brim plugin build` is three core instances (the rule and two adapters) with one memory and two tables.
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots * 4)
        .total_memories(slots)
        .total_tables(slots * 3)
        .max_core_instances_per_component(8)
        .max_memories_per_component(1)
        .max_tables_per_component(4)
        .max_memory_size(config.memory_max)
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(TABLE_ELEMENTS_MAX * size_of::<usize>());
    pool
}

/// The thread that advances the engine's epoch once a [`TICK`].
#[derive(Debug)]
pub(crate) struct Ticker {
    state: Arc<(Mutex<TickerState>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct TickerState {
    plugins_count: usize,
    stopped: bool,
}

impl Ticker {
    pub(crate) fn start(engine: Engine) -> std::io::Result<Self> {
        let state = Arc::new((Mutex::new(TickerState::default()), Condvar::new()));
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new().name("brim-epoch".to_owned()).spawn(move || tick(&engine, &shared))?;
        Ok(Self { state, thread: Some(thread) })
    }

    /// One more plugin needs deadlines.
    pub(crate) fn plugin_added(&self) {
        self.state.0.lock().plugins_count += 1;
        self.state.1.notify_all();
    }

    /// One plugin fewer needs deadlines.
    pub(crate) fn plugin_removed(&self) {
        self.state.0.lock().plugins_count -= 1;
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.0.lock().stopped = true;
        self.state.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // It only ticks; should it have panicked, there is nothing left to save.
            let _ = thread.join();
        }
    }
}

fn tick(engine: &Engine, shared: &(Mutex<TickerState>, Condvar)) {
    let (state, changed) = shared;
    loop {
        let mut state = state.lock();
        while state.plugins_count == 0 && !state.stopped {
            changed.wait(&mut state);
        }
        if state.stopped {
            return;
        }
        drop(state);
        std::thread::sleep(TICK);
        engine.increment_epoch();
    }
}
