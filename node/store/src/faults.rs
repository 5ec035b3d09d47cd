//! Where tests make a store fail, wait or die: one point before each step that writes or asks the index.
//!
//! Always true:
//! - Outside this crate's own tests no point does anything, and the calls cost nothing.
//! - Points belong to one store, so that tests beside each other do not disturb each other.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A step that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Step {
    SegmentCreate,
    SegmentAppend,
    SegmentSeal,
    SegmentSync,
    SegmentRead,
    SegmentRemove,
    IndexOpen,
    IndexGet,
    IndexPut,
    IndexRemove,
    IndexFlush,
    IndexSwitch,
    LogAppend,
    LogSync,
    LogCheckpoint,
    LogRename,
    Format,
    Quarantine,
}

/// The points of one store.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    #[cfg(test)]
    plan: std::sync::Arc<plan::Plan>,
}

#[cfg(not(test))]
#[expect(clippy::unused_self, reason = "the same calls as in tests")]
impl Faults {
    #[inline]
    pub(crate) fn at(&self, _: Step) -> io::Result<()> {
        Ok(())
    }

    #[inline]
    pub(crate) fn write_all_at(&self, _: Step, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }
}

#[cfg(test)]
impl Faults {
    pub(crate) fn at(&self, step: Step) -> io::Result<()> {
        match self.plan.next(step) {
            None | Some(Fault::Tear) => Ok(()),
            Some(fault) => self.plan.perform(fault),
        }
    }

    pub(crate) fn write_all_at(&self, step: Step, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.plan.next(step) {
            None => file.write_all_at(bytes, offset),
            Some(Fault::Tear) => {
                file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
                self.plan.perform(Fault::Kill)
            }
            Some(fault) => self.plan.perform(fault),
        }
    }

    /// From the `skipped + 1`-th time on, for so many times, the step does this.
    pub(crate) fn plan(&self, step: Step, skipped: u64, times: u64, fault: Fault) {
        self.plan.add(step, skipped, times, fault);
    }

    /// Nothing fails any more, and what was held goes on.
    pub(crate) fn clear(&self) {
        self.plan.clear();
    }
}

#[cfg(test)]
pub(crate) use plan::Fault;

#[cfg(test)]
mod plan {
    use std::collections::HashMap;
    use std::io;

    use parking_lot::{Condvar, Mutex};
    use rustix::io::Errno;

    use super::Step;

    /// What happens at a point.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Fault {
        /// An input/output error.
        Io,
        /// No space left on the device.
        NoSpace,
        /// Read-only file system.
        ReadOnly,
        /// It waits until the plan is cleared.
        Hold,
        /// The process is killed before the step.
        Kill,
        /// Half is written, then the process is killed.
        Tear,
    }

    #[derive(Debug, Clone, Copy)]
    struct Entry {
        skipped: u64,
        times: u64,
        fault: Fault,
    }

    #[derive(Debug, Default)]
    struct Inner {
        entries: HashMap<Step, Entry>,
        generation: u64,
    }

    #[derive(Debug, Default)]
    pub(crate) struct Plan {
        inner: Mutex<Inner>,
        cleared: Condvar,
    }

    impl Plan {
        pub(super) fn add(&self, step: Step, skipped: u64, times: u64, fault: Fault) {
            self.inner.lock().entries.insert(step, Entry { skipped, times, fault });
        }

        pub(super) fn clear(&self) {
            let mut inner = self.inner.lock();
            inner.entries.clear();
            inner.generation += 1;
            self.cleared.notify_all();
        }

        pub(super) fn next(&self, step: Step) -> Option<Fault> {
            let mut inner = self.inner.lock();
            let entry = inner.entries.get_mut(&step)?;
            if entry.skipped > 0 {
                entry.skipped -= 1;
                return None;
            }
            entry.times = entry.times.checked_sub(1)?;
            Some(entry.fault)
        }

        pub(super) fn perform(&self, fault: Fault) -> io::Result<()> {
            match fault {
                Fault::Io => Err(Errno::IO.into()),
                Fault::NoSpace => Err(Errno::NOSPC.into()),
                Fault::ReadOnly => Err(Errno::ROFS.into()),
                Fault::Hold => {
                    let mut inner = self.inner.lock();
                    let generation = inner.generation;
                    while inner.generation == generation {
                        self.cleared.wait(&mut inner);
                    }
                    Ok(())
                }
                Fault::Kill | Fault::Tear => {
                    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                    unreachable!("killed")
                }
            }
        }
    }
}
