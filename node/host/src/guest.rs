//! The guest's world as the host sees it: bindings of `brim:rules`, what a call may use, and the imports.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Engine, ResourceLimiter, Store, UpdateDeadline};

use crate::config::{Grants, LOG_LINE_BYTES_MAX, LOG_LINES_PER_CALL_MAX};
use crate::deadline::Deadline;
use crate::log::{GuestLog, Level};
use crate::text::clean;

/// Generated from `wit/`.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit",
        // A component has the exports of some of its interfaces at least; each is looked up by itself.
        world: "every-hook-plugin",
        ownership: Borrowing { duplicate_if_necessary: true },
        imports: { default: trappable },
    });
}

use bindings::brim::rules::{config, log};

/// Components a plugin may bring: its own memory, and a few small instances around it.
const TABLE_ELEMENTS_MAX: usize = 10_000;

/// What is granted to one plugin, shared by its calls.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) log: GuestLog,
    pub(crate) config: BTreeMap<String, String>,
}

/// The state of one call, and what it may use.
#[derive(Debug)]
pub(crate) struct Call {
    granted: Arc<Granted>,
    deadline: Deadline,
    memory_max: usize,
    lines_count: u32,
    /// The guest wanted more memory than it may have.
    pub(crate) memory_refused: bool,
    /// What the guest said just before it trapped.
    pub(crate) panic: Option<String>,
}

/// A fresh store for one call.
pub(crate) fn store(
    engine: &Engine,
    granted: &Arc<Granted>,
    memory_max: usize,
    deadline: Deadline,
    answer_bytes_max: usize,
) -> Store<Call> {
    let ticks = deadline.ticks();
    let granted = Arc::clone(granted);
    let mut store =
        Store::new(engine, Call { granted, deadline, memory_max, lines_count: 0, memory_refused: false, panic: None });
    store.limiter(|call| call);
    store.set_hostcall_fuel(answer_bytes_max);
    store.set_epoch_deadline(ticks);
    store.epoch_deadline_callback(|call| {
        let is_over = call.data().deadline.is_over();
        Ok(if is_over { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) })
    });
    store
}

/// A linker that offers exactly what is granted.
pub(crate) fn linker(engine: &Engine, grants: &Grants) -> wasmtime::Result<Linker<Call>> {
    let mut linker = Linker::new(engine);
    if grants.log {
        log::add_to_linker::<_, HasSelf<_>>(&mut linker, |call| call)?;
    }
    if grants.config.is_some() {
        config::add_to_linker::<_, HasSelf<_>>(&mut linker, |call| call)?;
    }
    Ok(linker)
}

/// The interfaces a linker of these grants offers.
pub(crate) fn granted_imports(grants: &Grants) -> impl Iterator<Item = &'static str> {
    let log = grants.log.then_some("brim:rules/log@1.");
    let config = grants.config.is_some().then_some("brim:rules/config@1.");
    log.into_iter().chain(config)
}

impl ResourceLimiter for Call {
    fn memory_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired <= self.memory_max {
            return Ok(true);
        }
        self.memory_refused = true;
        // Not `false`: a guest that goes on without its memory would report something else than the reason.
        Err(wasmtime::Error::msg("memory limit"))
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}

impl log::Host for Call {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        self.lines_count = self.lines_count.saturating_add(1);
        if self.lines_count > LOG_LINES_PER_CALL_MAX {
            self.granted.log.drop_line();
            return Ok(());
        }
        let level = match level {
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        self.granted.log.write(level, &message);
        Ok(())
    }

    fn panicking(&mut self, message: String) -> wasmtime::Result<()> {
        self.panic = Some(clean(&message, LOG_LINE_BYTES_MAX));
        Ok(())
    }
}

impl config::Host for Call {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        Ok(self.granted.config.get(&name).cloned())
    }
}
