//! A server's process: started on its CPU, stopped whatever happens.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use crate::cpu::Cpus;

/// From the start of a server to its first answer.
pub(crate) const START_MAX: Duration = Duration::from_secs(15);
/// From being told to end to the end; then it is killed.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Lines of its log that are shown when it does not start.
const LAST_LINES: usize = 12;
/// Lines that wait to be looked at; of what comes while nobody looks, only the last lines are kept.
const LINES_MAX: usize = 64;

/// A process that ends with its owner.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    lines: Receiver<String>,
    last: Arc<LastLines>,
}

type LastLines = Mutex<VecDeque<String>>;

impl Process {
    /// Starts it. Its standard error is read to the end, so that it never waits for a reader.
    pub(crate) fn start(name: &'static str, command: &mut Command, cpus: &Cpus) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let spawned = cpus.on_server(|| command.spawn())?;
        let mut child = spawned.with_context(|| format!("start {}", command.get_program().display()))?;
        let (sender, lines) = sync_channel(LINES_MAX);
        let last = Arc::new(LastLines::default());
        if let Some(log) = child.stderr.take() {
            let last = Arc::clone(&last);
            thread::spawn(move || follow(log, &last, |line| drop(sender.try_send(line))));
        }
        Ok(Self { name, child, lines, last })
    }

    /// Waits for a line of its log in which `find` finds something.
    pub(crate) fn wait_for_line<T>(&self, mut find: impl FnMut(&str) -> Option<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + START_MAX;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(found) = find(&line) {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{} did not start within {START_MAX:?}{}", self.name, self.log())
                }
                Err(RecvTimeoutError::Disconnected) => bail!("{} ended while it started{}", self.name, self.log()),
            }
        }
    }

    /// Whether it has ended by itself.
    pub(crate) fn check_running(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}{}", self.name, self.log()),
        }
    }

    /// Its id.
    pub(crate) fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The last lines of its log.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.last.lock().iter().cloned().collect()
    }

    fn log(&self) -> String {
        let lines: String = self.last_lines().iter().map(|line| format!("\n  {line}")).collect();
        if lines.is_empty() { lines } else { format!("; it said:{lines}") }
    }
}

fn follow(log: impl Read, last: &LastLines, mut tell: impl FnMut(String)) {
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        {
            let mut last = last.lock();
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            last.push_back(line.clone());
        }
        tell(line);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill_process(self.id(), Signal::TERM);
        let deadline = Instant::now() + STOP_MAX;
        while Instant::now() < deadline {
            if let Ok(Some(_)) | Err(_) = self.child.try_wait() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The node's binary: the one that was asked for, or the one that cargo put beside this program.
pub(crate) fn brim_binary(asked: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = match asked {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().context("find this program")?.with_file_name("brim"),
    };
    if path.is_file() {
        return Ok(path);
    }
    bail!(
        "there is no node at {}: run `cargo build --release -p brim-node` first, or name one with --brim",
        path.display()
    )
}
