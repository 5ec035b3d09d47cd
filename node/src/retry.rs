//! Invalidation rules that failed after a write, kept on disk until they have answered.
//!
//! Always true:
//! - A call is on disk before the client of its write gets its answer; it leaves the queue when its purge is durable, or when an operator
//!   gives it up.
//! - At most [`RETRIES_MAX`] wait. What finds no room, or no disk, is refused: the caller then purges more than it would have had to.
//! - What a rule is shown lies on disk alone; one call is read and asked again at a time, all of them at growing intervals.
//!
//! Not here: what the rule is asked and what becomes of its answer (`request::invalidate`).

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use brim_host::{InvalidationCall, PluginFault};
use http::Uri;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::request::{Cache, invalidate};

/// Calls that wait at a time.
pub const RETRIES_MAX: usize = 1_024;
/// Bytes of one of them on disk.
const RETRY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Until the first further try, and the longest time between two.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A call of an invalidation rule that gave no answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Retry {
    /// The plugin.
    pub plugin: String,
    /// The site of the route that the write went through.
    pub site: String,
    /// The route's path.
    pub route: String,
    /// What was written to.
    pub target: String,
    /// What the rule is shown; none in [`Retries::list`].
    pub call: Option<InvalidationCall>,
    /// When it was to be asked first.
    pub since: SystemTime,
    /// How often it has failed.
    pub failures: u32,
    /// Why, the last time.
    pub reason: String,
}

impl Retry {
    pub(crate) fn new(
        plugin: &str,
        site: &str,
        route: &str,
        target: &Uri,
        call: InvalidationCall,
        fault: &PluginFault,
        now: SystemTime,
    ) -> Self {
        let (plugin, site, route) = (plugin.to_owned(), site.to_owned(), route.to_owned());
        let (target, reason) = (target.to_string(), fault.to_string());
        Self { plugin, site, route, target, call: Some(call), since: now, failures: 1, reason }
    }
}

/// The queue. Clones share it.
#[derive(Debug, Clone)]
pub struct Retries(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    waiting: Mutex<BTreeMap<u64, Kept>>,
    /// For [`RETRIES_MAX`] of them, those that are being written included.
    room: Arc<Semaphore>,
    next: AtomicU64,
    /// Something came, or a plugin has changed.
    wake: Notify,
}

#[derive(Debug)]
struct Kept {
    /// Without its call.
    retry: Retry,
    _room: Option<OwnedSemaphorePermit>,
}

impl Kept {
    fn new(retry: Retry, room: Option<OwnedSemaphorePermit>) -> Self {
        Self { retry: Retry { call: None, ..retry }, _room: room }
    }
}

/// Why a call cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// [`RETRIES_MAX`] wait.
    #[error("{RETRIES_MAX} failed invalidation calls wait already")]
    Full,
    /// It is longer than 4 MiB.
    #[error("the call is longer than {RETRY_BYTES_MAX} bytes")]
    TooLong,
    /// The disk refuses.
    #[error("the call cannot be written: {0}")]
    Disk(#[from] io::Error),
}

impl Retries {
    /// The queue in `dir`. What is there and cannot be read is left, and told to the log.
    pub fn open(dir: PathBuf) -> Self {
        // Before the first call is written: a directory that its parent does not know yet would be lost with it.
        let synced = || dir.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all());
        if let Err(error) = fs::create_dir_all(&dir).and_then(|()| synced()) {
            tracing::warn!(dir = %dir.display(), %error, "calls of invalidation rules that fail cannot be kept");
        }
        let mut waiting = BTreeMap::new();
        let room = Arc::new(Semaphore::new(RETRIES_MAX));
        // One that cannot be read refuses the first push as well.
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let mut newest = 0;
        for entry in entries {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                // Of a crash while it was written: its client got no answer.
                let _ = fs::remove_file(&path);
                continue;
            }
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            let Some(number) = number.filter(|_| path.extension().is_some_and(|extension| extension == "json")) else {
                continue;
            };
            newest = newest.max(number);
            match read(&path) {
                Ok(retry) => {
                    waiting.insert(number, Kept::new(retry, room.clone().try_acquire_owned().ok()));
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "an invalidation that waits cannot be read; purge its site by hand");
                }
            }
        }
        Self(Arc::new(Shared {
            dir,
            waiting: Mutex::new(waiting),
            room,
            next: AtomicU64::new(newest + 1),
            wake: Notify::new(),
        }))
    }

    /// Keeps a call. It is on disk when this returns Ok.
    ///
    /// # Errors
    /// No room, too long, or a disk that refuses.
    pub async fn push(&self, retry: Retry) -> Result<(), RetryError> {
        let shared = Arc::clone(&self.0);
        let room = shared.room.clone().try_acquire_owned().map_err(|_| RetryError::Full)?;
        let bytes = serde_json::to_vec(&retry).map_err(io::Error::from)?;
        if bytes.len() > RETRY_BYTES_MAX {
            return Err(RetryError::TooLong);
        }
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let written = tokio::task::spawn_blocking(move || {
            write(&shared.dir, number, &bytes)?;
            shared.waiting.lock().insert(number, Kept::new(retry, Some(room)));
            shared.wake.notify_one();
            Ok(())
        });
        written.await.map_err(|_| io::Error::other("the node is ending"))?
    }

    /// Those that wait, with their numbers, the oldest first.
    pub fn list(&self) -> Vec<(u64, Retry)> {
        self.0.waiting.lock().iter().map(|(number, kept)| (*number, kept.retry.clone())).collect()
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.0.waiting.lock().len()
    }

    /// Gives one up: what it would have purged stays. False: there is none of this number.
    ///
    /// # Errors
    /// A disk that refuses: it would be back after a restart, and is kept.
    pub fn remove(&self, number: u64) -> io::Result<bool> {
        if !self.0.waiting.lock().contains_key(&number) {
            return Ok(false);
        }
        match fs::remove_file(path(&self.0.dir, number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(self.0.waiting.lock().remove(&number).is_some())
    }

    /// Has all that wait asked again soon: a plugin has changed.
    pub fn try_soon(&self) {
        self.0.wake.notify_one();
    }

    /// Asks again, for ever. Cancel safe: a call leaves the queue only after its purge is durable.
    pub(crate) async fn run(self, cache: Arc<Cache>) {
        let mut pause = PAUSE;
        loop {
            if self.count() == 0 {
                self.0.wake.notified().await;
                pause = PAUSE;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.0.wake.notified() => {
                    pause = PAUSE;
                    tokio::time::sleep(pause).await;
                }
            }
            let was = self.count();
            self.once(&cache).await;
            pause = if self.count() < was { PAUSE } else { (pause * 2).min(PAUSE_MAX) };
        }
    }

    /// Asks each of those that wait once.
    async fn once(&self, cache: &Arc<Cache>) {
        for (number, waiting) in self.list() {
            let dir = self.0.dir.clone();
            let outcome = match tokio::task::spawn_blocking(move || read(&path(&dir, number))).await {
                Ok(Ok(retry)) => invalidate::again(cache, &retry).await,
                Ok(Err(error)) => Err(format!("it cannot be read: {error}")),
                Err(_) => return,
            };
            match outcome {
                Ok(()) => {
                    let (plugin, target) = (waiting.plugin, waiting.target);
                    tracing::info!(plugin, target, "a rule that had failed has said what a write purges");
                    if let Err(error) = self.remove(number) {
                        tracing::warn!(%error, "a call that was answered stays on disk and will be asked again");
                    }
                }
                Err(reason) => {
                    if let Some(kept) = self.0.waiting.lock().get_mut(&number) {
                        kept.retry.failures = kept.retry.failures.saturating_add(1);
                        kept.retry.reason = reason;
                    }
                }
            }
        }
    }
}

fn read(path: &Path) -> io::Result<Retry> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number}.json"))
}

/// Written aside, synced, renamed: a crash leaves no half call.
fn write(dir: &Path, number: u64, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let aside = dir.join(format!("{number}.tmp"));
    // It holds what clients have sent.
    let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&aside);
    let written = file.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(error) = written {
        let _ = fs::remove_file(&aside);
        return Err(error);
    }
    fs::rename(&aside, path(dir, number))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(reason: &str) -> Retry {
        Retry {
            plugin: "rule".to_owned(),
            site: "shop".to_owned(),
            route: "/".to_owned(),
            target: "http://a.example/".to_owned(),
            call: None,
            since: SystemTime::UNIX_EPOCH,
            failures: 1,
            reason: reason.to_owned(),
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_until_one_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let retries = Retries::open(dir.path().join("retries"));
        retries.push(retry("first")).await.unwrap();
        let others = retries.0.room.clone().try_acquire_many_owned(u32::try_from(RETRIES_MAX).unwrap() - 1).unwrap();
        assert!(matches!(retries.push(retry("more")).await, Err(RetryError::Full)));
        let first = retries.list()[0].0;
        assert!(retries.remove(first).unwrap());
        retries.push(retry("more")).await.unwrap();
        assert_eq!(retries.count(), 1);
        drop(others);
        let long = retry(&"x".repeat(RETRY_BYTES_MAX));
        assert!(matches!(retries.push(long).await, Err(RetryError::TooLong)));
    }

    /// What a crash has left of one is none; one that cannot be read keeps its number, and is left to the operator.
    #[tokio::test]
    async fn what_was_kept_is_there_again_and_keeps_its_room() {
        let dir = tempfile::tempdir().unwrap();
        Retries::open(dir.path().to_owned()).push(retry("kept")).await.unwrap();
        fs::write(dir.path().join("7.tmp"), "half").unwrap();
        fs::write(path(dir.path(), 9), "{").unwrap();
        let retries = Retries::open(dir.path().to_owned());
        let list = retries.list();
        assert_eq!((list.len(), &*list[0].1.reason), (1, "kept"));
        assert_eq!(retries.0.room.available_permits(), RETRIES_MAX - 1);
        assert!(!dir.path().join("7.tmp").exists() && path(dir.path(), 9).exists());
        retries.push(retry("next")).await.unwrap();
        assert_eq!(retries.list()[1].0, 10);
    }

    #[tokio::test]
    async fn a_disk_that_refuses_keeps_nothing_and_takes_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("retries");
        fs::write(&file, "no directory").unwrap();
        let retries = Retries::open(file);
        assert!(matches!(retries.push(retry("lost")).await, Err(RetryError::Disk(_))));
        assert_eq!((retries.count(), retries.0.room.available_permits()), (0, RETRIES_MAX));
    }
}
