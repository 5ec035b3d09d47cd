//! Which CPU a process runs on, and how much of it a process has used.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs that server and clients are kept on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cpus {
    /// Each its own.
    Pinned { server: usize, clients: usize },
    /// The machine has one; both share it.
    Shared,
}

impl Cpus {
    /// Takes the first two CPUs that this process may use. From here on this thread, and all that it starts, runs on the
    /// clients' CPU.
    pub(crate) fn claim() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(None).context("ask for the CPUs of this process")?;
        let mut numbers = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        let (Some(server), Some(clients)) = (numbers.next(), numbers.next()) else { return Ok(Self::Shared) };
        pin(clients)?;
        Ok(Self::Pinned { server, clients })
    }

    /// Runs `start` on the server's CPU: a process that it starts stays there.
    pub(crate) fn on_server<R>(self, start: impl FnOnce() -> R) -> anyhow::Result<R> {
        let Self::Pinned { server, clients } = self else { return Ok(start()) };
        pin(server)?;
        let started = start();
        pin(clients)?;
        Ok(started)
    }
}

fn pin(cpu: usize) -> anyhow::Result<()> {
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).with_context(|| format!("move to CPU {cpu}"))
}

/// User and system time of a process and all its threads, also those that have ended. Counted in ticks, usually of 10 ms.
pub(crate) fn used(process: Pid) -> anyhow::Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}: has the server ended?"))?;
    let ticks = ticks(&stat).with_context(|| format!("{path} is not as proc(5) says"))?;
    // There are 100 ticks in a second on every Linux of today, but it is not ours to know.
    let nanoseconds = u128::from(ticks) * 1_000_000_000 / u128::from(rustix::param::clock_ticks_per_second());
    Ok(Duration::from_nanos(u64::try_from(nanoseconds)?))
}

/// Fields 14 and 15 of proc(5). The second one, the name, may hold spaces and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut times = after_name.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "77 (a (b) c) S 1 77 77 0 -1 4194304 100 0 0 0 250 31 9 9 20 0 4 0 12345 1 2";
        assert_eq!(ticks(stat), Some(281));
        assert_eq!(ticks("77 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_used_some() {
        assert!(used(rustix::process::getpid()).is_ok());
    }
}
