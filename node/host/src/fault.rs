//! What a call of a guest can end in, besides a decision.

use wasmtime::{PoolConcurrencyLimitError, Trap};

use crate::refused::one_line;

/// Why a call gave no decision. The request it was for bypasses the cache.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginFault {
    /// It was still running at its deadline.
    #[error("it was still running at its deadline and was stopped")]
    Deadline,
    /// It wanted more memory than it may have.
    #[error("it wanted more memory than it may have")]
    Memory,
    /// It did what a guest cannot do.
    #[error("it trapped: {0}")]
    Trap(String),
    /// It panicked; with the message and the place.
    #[error("it {0}")]
    Panicked(String),
    /// The rule itself said that it has no decision.
    #[error("it gave no decision: {0}")]
    Rejected(String),
    /// It answered what is no valid decision.
    #[error("its answer is not valid: {0}")]
    BadOutput(String),
    /// As many calls as may run at once are running.
    #[error("too many plugin calls are running")]
    Busy,
    /// The component has no such hook.
    #[error("it has no rule for this hook")]
    NoHook,
}

impl PluginFault {
    /// One word for Cache-Status and metrics. No `_` arm: a new fault has to choose its word.
    #[must_use]
    pub fn as_detail(&self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Trap(_) => "trap",
            Self::Panicked(_) => "panicked",
            Self::Rejected(_) => "rejected",
            Self::BadOutput(_) => "bad-output",
            Self::Busy => "busy",
            Self::NoHook => "no-hook",
        }
    }

    /// What an error of wasmtime means, with what the store noticed during the call.
    pub(crate) fn of(error: &wasmtime::Error, memory_refused: bool, panic: Option<String>) -> Self {
        let trap = error.downcast_ref::<Trap>();
        if memory_refused {
            return Self::Memory;
        }
        if let Some(message) = panic {
            return Self::Panicked(message);
        }
        if error.is::<PoolConcurrencyLimitError>() {
            return Self::Busy;
        }
        match trap {
            Some(Trap::Interrupt) => Self::Deadline,
            Some(trap) => Self::Trap(trap.to_string()),
            // The guest ran to its end; its answer could not be read (too long, a bad pointer, text that is not UTF-8).
            None => Self::BadOutput(one_line(error)),
        }
    }
}
