//! The access log: one JSON line a request, written by a thread of its own in batches.
//!
//! Request threads append to a buffer of their own shard; the writer swaps full buffers for empty ones and writes them. So a
//! line costs its formatting and an uncontended lock, and no allocation, no system call and no wake-up while there is traffic.
//!
//! Always true:
//! - Appending never waits for the disk. A shard that holds [`SHARD_BYTES_MAX`] drops further lines, and counts them.
//! - A line is written whole or not at all, unless the disk itself fails within it.
//! - Lines of one thread keep their order; between threads it may differ within [`GATHER`] (each line has its time).
//! - What was appended before [`AccessLogger::close`] is written before it returns, unless the target hangs for [`CLOSE_MAX`].

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;

use super::record::{AccessRecord, Stamp};
use super::shards::{shard_count, shard_of_thread};
use crate::config::AccessLog;

/// Bytes that wait in one shard: about 5 000 lines. One line more may pass it.
pub const SHARD_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long the writer lets lines gather after the first one.
pub const GATHER: Duration = Duration::from_millis(20);
/// How long [`AccessLogger::close`] waits for a target that hangs.
pub const CLOSE_MAX: Duration = Duration::from_secs(2);
/// A buffer that grew larger in a peak is given back to the system.
const BUFFER_KEPT_BYTES: usize = 256 * 1024;

/// The access log cannot be written where it should be.
#[derive(Debug, thiserror::Error)]
pub enum AccessLogError {
    /// The file cannot be opened for appending.
    #[error("open access log {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No thread for the writer.
    #[error("start the thread of the access log")]
    Thread(#[source] io::Error),
}

/// Takes records, and writes them behind the back of the requests.
#[derive(Debug)]
pub struct AccessLogger {
    shared: Arc<Shared>,
    writer: Thread,
    /// Closed by the writer when it has ended.
    ended: Mutex<Receiver<()>>,
}

#[derive(Debug)]
struct Shared {
    shards: Box<[Mutex<Shard>]>,
    is_on: AtomicBool,
    is_writer_idle: AtomicBool,
    is_closing: AtomicBool,
    /// What the writer shall write to from now on.
    new_target: Mutex<Option<Target>>,
    /// Where the log goes now, to open it again.
    current: Mutex<AccessLog>,
    written: AtomicU64,
    dropped: AtomicU64,
}

/// A buffer with its own cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    lines: Vec<u8>,
    stamp: Stamp,
}

#[derive(Debug)]
enum Target {
    Off,
    Stdout,
    File(File),
    #[cfg(test)]
    Test(tests::Gate),
}

impl AccessLogger {
    /// Opens the target and starts the writer.
    pub fn start(to: &AccessLog) -> Result<Self, AccessLogError> {
        Self::start_with(to.clone(), Target::open(to)?)
    }

    fn start_with(current: AccessLog, target: Target) -> Result<Self, AccessLogError> {
        let shared = Arc::new(Shared {
            shards: (0..shard_count()).map(|_| Mutex::default()).collect(),
            is_on: AtomicBool::new(!matches!(target, Target::Off)),
            is_writer_idle: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            new_target: Mutex::new(None),
            current: Mutex::new(current),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let (end, ended) = sync_channel(0);
        let run = {
            let shared = shared.clone();
            move || Writer { shared, target, spare: Vec::new(), is_failing: false }.run(&end)
        };
        let thread = thread::Builder::new().name("brim-access-log".to_owned());
        let handle = thread.spawn(run).map_err(AccessLogError::Thread)?;
        Ok(Self { shared, writer: handle.thread().clone(), ended: Mutex::new(ended) })
    }

    /// Appends the line of a request, or drops it if the writer is too far behind.
    pub fn append(&self, record: &AccessRecord<'_>) {
        if !self.shared.is_on.load(Relaxed) {
            return;
        }
        let shards = &self.shared.shards;
        let mut shard = shards[shard_of_thread(shards.len())].lock();
        let Shard { lines, stamp } = &mut *shard;
        if lines.len() >= SHARD_BYTES_MAX {
            self.shared.dropped.fetch_add(1, Relaxed);
            return;
        }
        let is_first = lines.is_empty();
        record.write_line(stamp, lines);
        drop(shard);
        if is_first {
            self.wake();
        }
    }

    /// Opens the file anew, after something has moved it away. If that fails, the old one is kept.
    pub fn reopen(&self) -> Result<(), AccessLogError> {
        let current = self.shared.current.lock().clone();
        self.retarget(&current)
    }

    /// Writes to another target from now on; lines that were appended before may go to either.
    fn retarget(&self, to: &AccessLog) -> Result<(), AccessLogError> {
        let target = Target::open(to)?;
        self.shared.is_on.store(!matches!(target, Target::Off), Relaxed);
        *self.shared.new_target.lock() = Some(target);
        *self.shared.current.lock() = to.clone();
        self.wake();
        Ok(())
    }

    /// Lines written so far.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Relaxed)
    }

    /// Lines dropped so far: the queue was full, or writing failed.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }

    /// Writes what was appended and ends the writer. Later lines are not taken. Blocks, at most [`CLOSE_MAX`].
    pub fn close(&self) {
        self.shared.is_on.store(false, Relaxed);
        if self.shared.is_closing.swap(true, Relaxed) {
            return;
        }
        self.writer.unpark();
        // Disconnected is what a writer that has ended looks like; a timeout leaves it to the end of the process.
        let _ = self.ended.lock().recv_timeout(CLOSE_MAX);
    }

    /// Whoever makes a shard non-empty wakes the writer. One that is not idle will look at all shards before it parks: it
    /// says that it is idle *before* it looks, and the shard's lock orders the two.
    fn wake(&self) {
        if self.shared.is_writer_idle.swap(false, std::sync::atomic::Ordering::SeqCst) {
            self.writer.unpark();
        }
    }
}

impl Drop for AccessLogger {
    fn drop(&mut self) {
        self.close();
    }
}

impl Target {
    fn open(to: &AccessLog) -> Result<Self, AccessLogError> {
        match to {
            AccessLog::Off => Ok(Self::Off),
            AccessLog::Stdout => Ok(Self::Stdout),
            AccessLog::File(path) => append_to(path).map(Self::File),
        }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Off => Ok(()),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines).and_then(|()| stdout.flush())
            }
            Self::File(file) => file.write_all(lines),
            #[cfg(test)]
            Self::Test(gate) => gate.write(lines),
        }
    }
}

/// Readable for the group: a log holds addresses and queries of clients.
fn append_to(path: &Path) -> Result<File, AccessLogError> {
    let open = OpenOptions::new().append(true).create(true).mode(0o640).open(path);
    open.map_err(|source| AccessLogError::Open { path: path.to_owned(), source })
}

/// The other side, on its own thread.
struct Writer {
    shared: Arc<Shared>,
    target: Target,
    /// An empty buffer to put in the place of a full one.
    spare: Vec<u8>,
    is_failing: bool,
}

impl Writer {
    /// `_end` is dropped at the end, which is what [`AccessLogger::close`] waits for.
    fn run(mut self, _end: &SyncSender<()>) {
        while !self.shared.is_closing.load(Relaxed) {
            self.wait_for_work();
            thread::sleep(GATHER);
            self.drain();
        }
        self.drain();
    }

    fn wait_for_work(&self) {
        self.shared.is_writer_idle.store(true, std::sync::atomic::Ordering::SeqCst);
        let has_work = |shared: &Shared| {
            shared.is_closing.load(Relaxed)
                || shared.new_target.lock().is_some()
                || shared.shards.iter().any(|shard| !shard.lock().lines.is_empty())
        };
        while !has_work(&self.shared) {
            // Woken for nothing at times, which the loop allows for.
            thread::park();
            self.shared.is_writer_idle.store(true, std::sync::atomic::Ordering::SeqCst);
        }
        self.shared.is_writer_idle.store(false, std::sync::atomic::Ordering::SeqCst);
    }

    fn drain(&mut self) {
        let new_target = self.shared.new_target.lock().take();
        if let Some(target) = new_target {
            self.target = target;
            self.is_failing = false;
        }
        let shared = self.shared.clone();
        for shard in &shared.shards {
            let spare = std::mem::take(&mut self.spare);
            let mut lines = std::mem::replace(&mut shard.lock().lines, spare);
            if !lines.is_empty() {
                self.write(&lines);
                lines.clear();
            }
            lines.shrink_to(BUFFER_KEPT_BYTES);
            self.spare = lines;
        }
    }

    fn write(&mut self, lines: &[u8]) {
        let count = u64::try_from(lines.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(u64::MAX);
        match self.target.write(lines) {
            Ok(()) => {
                self.shared.written.fetch_add(count, Relaxed);
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("the access log can be written again");
                }
            }
            Err(error) => {
                self.shared.dropped.fetch_add(count, Relaxed);
                // Said once, not once a batch: a full disk stays full for a while.
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(%error, "the access log cannot be written; its lines are dropped");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::record::tests::record;
    use super::*;

    /// A target that hangs until it is opened, then keeps or refuses what is written.
    #[derive(Debug, Clone, Default)]
    pub(super) struct Gate(Arc<(Mutex<GateState>, parking_lot::Condvar)>);

    #[derive(Debug, Default)]
    struct GateState {
        is_open: bool,
        is_broken: bool,
        kept: Vec<u8>,
    }

    impl Gate {
        pub(super) fn write(&self, lines: &[u8]) -> io::Result<()> {
            let mut state = self.0.0.lock();
            self.0.1.wait_while(&mut state, |state| !state.is_open);
            if state.is_broken {
                return Err(io::Error::other("broken"));
            }
            state.kept.extend_from_slice(lines);
            Ok(())
        }

        fn open(&self) {
            self.0.0.lock().is_open = true;
            self.0.1.notify_all();
        }

        fn kept_lines(&self) -> usize {
            self.0.0.lock().kept.iter().filter(|byte| **byte == b'\n').count()
        }
    }

    fn logger_to(gate: &Gate) -> AccessLogger {
        AccessLogger::start_with(AccessLog::Stdout, Target::Test(gate.clone())).unwrap()
    }

    #[track_caller]
    fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_so() {
            assert!(Instant::now() < deadline, "never: {what}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn lines_of(file: &Path) -> Vec<String> {
        std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_line_of_every_thread_is_written_once_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let logger = AccessLogger::start(&AccessLog::File(file.clone())).unwrap();
        thread::scope(|scope| {
            for thread in 0..4 {
                let logger = &logger;
                scope.spawn(move || {
                    for number in 0..500 {
                        let path = format!("/{thread}/{number}");
                        logger.append(&AccessRecord { path_and_query: &path, ..record() });
                    }
                });
            }
        });
        logger.close();
        let mut paths: Vec<_> = lines_of(&file)
            .iter()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["path"].as_str().unwrap().to_owned())
            .collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!((paths.len(), logger.written(), logger.dropped()), (2_000, 2_000, 0));
        assert!(paths.contains(&"/3/499".to_owned()));
    }

    #[test]
    fn a_line_is_written_without_waiting_for_more() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let logger = AccessLogger::start(&AccessLog::File(file.clone())).unwrap();
        for expected in 1..=3 {
            logger.append(&record());
            eventually("the line is there", || lines_of(&file).len() == expected);
        }
    }

    /// The bound of the queue, with what happens then: requests go on, lines are dropped and counted.
    #[test]
    fn a_target_that_hangs_costs_lines_not_requests() {
        let gate = Gate::default();
        let logger = logger_to(&gate);
        let long = "x".repeat(100_000);
        let record = AccessRecord { path_and_query: &long, ..record() };
        let count = 3 * SHARD_BYTES_MAX / long.len();
        for _ in 0..count {
            logger.append(&record);
        }
        assert!(logger.dropped() > 0, "one shard and what the writer holds are less than three shards");
        gate.open();
        logger.close();
        let kept = u64::try_from(gate.kept_lines()).unwrap();
        assert_eq!(kept, logger.written());
        assert_eq!(kept + logger.dropped(), u64::try_from(count).unwrap());
    }

    #[test]
    fn a_target_that_fails_costs_lines_until_it_works_again() {
        let gate = Gate::default();
        gate.open();
        gate.0.0.lock().is_broken = true;
        let logger = logger_to(&gate);
        logger.append(&record());
        eventually("the line is dropped", || logger.dropped() == 1);
        gate.0.0.lock().is_broken = false;
        logger.append(&record());
        eventually("the next one is written", || logger.written() == 1);
    }

    #[test]
    fn closing_does_not_wait_for_ever() {
        let logger = logger_to(&Gate::default());
        logger.append(&record());
        let began = Instant::now();
        logger.close();
        assert!(began.elapsed() >= CLOSE_MAX && began.elapsed() < CLOSE_MAX * 3);
        drop(logger);
        assert!(began.elapsed() < CLOSE_MAX * 3, "what is closed is not waited for again");
    }

    /// What logrotate does: move the file away, send SIGHUP.
    #[test]
    fn reopening_begins_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let (file, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let logger = AccessLogger::start(&AccessLog::File(file.clone())).unwrap();
        logger.append(&record());
        eventually("the first line is there", || lines_of(&file).len() == 1);
        std::fs::rename(&file, &moved).unwrap();
        logger.append(&record());
        eventually("until then the moved file is written", || lines_of(&moved).len() == 2);
        logger.reopen().unwrap();
        logger.append(&record());
        logger.close();
        assert_eq!((lines_of(&moved).len(), lines_of(&file).len()), (2, 1));
    }

    #[test]
    fn a_target_that_cannot_be_opened_is_an_error_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let nowhere = AccessLog::File(dir.path().join("no/such/dir/access.log"));
        assert!(matches!(AccessLogger::start(&nowhere), Err(AccessLogError::Open { .. })));
        let logger = AccessLogger::start(&AccessLog::File(file.clone())).unwrap();
        assert!(logger.retarget(&nowhere).is_err());
        logger.append(&record());
        logger.close();
        assert_eq!(lines_of(&file).len(), 1);
    }

    #[test]
    fn off_takes_nothing_and_can_be_turned_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let logger = AccessLogger::start(&AccessLog::Off).unwrap();
        logger.append(&record());
        logger.retarget(&AccessLog::File(file.clone())).unwrap();
        logger.append(&record());
        logger.close();
        assert_eq!((lines_of(&file).len(), logger.written(), logger.dropped()), (1, 1, 0));
    }
}
