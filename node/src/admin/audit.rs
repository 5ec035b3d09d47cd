//! The audit log: who changed what through the admin API, and who was refused for want of rights. One JSON object a line.
//!
//! Always true:
//! - Nobody waits for the disk: lines go to a thread of its own over a queue of [`QUEUE_MAX`]. What is lost is counted and logged.
//! - A call has its line when all of it has ended, a purge also when its client has left.
//! - It takes at most [`FILES_OLD`] + 1 files of [`FILE_BYTES_MAX`] and one line. Only its user may read them.
//! - No secret is in it.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::telemetry::Throttle;

/// The file, in the data directory; older ones have `.1` to `.4` behind it.
pub const AUDIT_FILE: &str = "audit.log";
/// Bytes after which a new file is begun.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 20;
/// Old files that are kept.
pub(super) const FILES_OLD: usize = 4;
/// Lines that wait for the disk.
const QUEUE_MAX: usize = 1_024;
/// How long a reader waits for the lines before him, and the end of the node for the last ones.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// Bytes of one text in a line.
const TEXT_BYTES_MAX: usize = 1_024;
/// Bytes at the end of the files that are looked at for the newest lines.
const TAIL_BYTES_MAX: u64 = 4 << 20;

/// A line of the audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditLine {
    /// When the call came, RFC 3339.
    pub time: String,
    /// The id of the caller's token; none: no valid one was shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The address of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Method and path.
    pub call: String,
    /// The status that it was answered with; none: the caller had left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What it was about, in short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// The id of the receipt, of a purge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    /// Lines like this one that were held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_back: Option<u64>,
}

enum Message {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// What happened to the lines.
#[derive(Debug, Default)]
pub struct AuditCounts {
    /// Written.
    pub written: AtomicU64,
    /// Lost: the queue was full, or writing failed.
    pub dropped: AtomicU64,
}

/// The audit log of a node.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    queue: Mutex<Option<SyncSender<Message>>>,
    counts: Arc<AuditCounts>,
    losses: Throttle,
}

impl Audit {
    /// Starts the thread that writes to `data_dir`. The file is opened with the first line.
    pub fn start(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(AUDIT_FILE);
        let (queue, lines) = sync_channel(QUEUE_MAX);
        let counts = Arc::<AuditCounts>::default();
        let writer = Writer { path: path.clone(), bytes_max: FILE_BYTES_MAX, open: None, counts: counts.clone() };
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&lines))?;
        Ok(Self { path, queue: Mutex::new(Some(queue)), counts, losses: Throttle::default() })
    }

    /// How many lines were written and lost.
    pub fn counts(&self) -> &Arc<AuditCounts> {
        &self.counts
    }

    /// Hands a line to the thread, or loses it. Does not wait.
    pub fn write(&self, mut line: AuditLine) {
        for text in [Some(&mut line.call), line.what.as_mut()].into_iter().flatten() {
            cut(text);
        }
        let Ok(mut bytes) = serde_json::to_vec(&line) else { return };
        bytes.push(b'\n');
        let is_taken = self.queue.lock().as_ref().is_some_and(|queue| queue.try_send(Message::Line(bytes)).is_ok());
        if !is_taken {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            if let Some(held_back) = self.losses.admit() {
                tracing::error!(call = line.call, by = line.by, held_back, "audit: a line is lost, the queue is full");
            }
        }
    }

    /// Waits until everything before is written, for a bounded time. Blocks.
    fn flush(&self) {
        let (done, flushed) = sync_channel(1);
        let is_asked = self.queue.lock().as_ref().is_some_and(|queue| queue.try_send(Message::Flush(done)).is_ok());
        if is_asked {
            let _ = flushed.recv_timeout(FLUSH_MAX);
        }
    }

    /// The newest lines, the newest first. Blocks.
    pub fn newest(&self, count_max: usize) -> Vec<AuditLine> {
        self.flush();
        let mut found = Vec::new();
        let mut bytes_left = TAIL_BYTES_MAX;
        for number in 0..=FILES_OLD {
            if found.len() >= count_max || bytes_left == 0 {
                break;
            }
            let Ok(tail) = tail(&numbered(&self.path, number), bytes_left) else { continue };
            bytes_left -= tail.len() as u64;
            let lines = tail.split(|byte| *byte == b'\n').rev();
            // A line that a crash or the cut has left half is none.
            let lines = lines.filter_map(|line| serde_json::from_slice(line).ok());
            found.extend(lines.take(count_max - found.len()));
        }
        found
    }

    /// Writes what waits, for a bounded time, and takes nothing more. Blocks.
    pub fn close(&self) {
        self.flush();
        *self.queue.lock() = None;
    }
}

fn cut(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    if number == 0 { path.to_owned() } else { path.with_added_extension(number.to_string()) }
}

fn tail(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
    let mut tail = Vec::new();
    file.take(bytes_max).read_to_end(&mut tail)?;
    Ok(tail)
}

/// The thread's side.
struct Writer {
    path: PathBuf,
    bytes_max: u64,
    open: Option<(File, u64)>,
    counts: Arc<AuditCounts>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        let mut waiting = VecDeque::new();
        let failures = Throttle::default();
        while let Ok(message) = messages.recv() {
            waiting.push_back(message);
            waiting.extend(messages.try_iter().take(QUEUE_MAX));
            while let Some(message) = waiting.pop_front() {
                match message {
                    Message::Line(line) => match self.write(&line) {
                        Ok(()) => {
                            self.counts.written.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            // The next line tries a new file.
                            self.open = None;
                            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
                            if let Some(held_back) = failures.admit() {
                                let path = self.path.display();
                                tracing::error!(%path, %error, held_back, "audit: a line is lost, the file cannot be written");
                            }
                        }
                    },
                    Message::Flush(done) => {
                        let _ = done.try_send(());
                    }
                }
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(_, bytes)| *bytes >= self.bytes_max) {
            self.open = None;
            self.rotate()?;
        }
        let (file, bytes) = match &mut self.open {
            Some(open) => open,
            None => {
                let mut file = OpenOptions::new().read(true).create(true).append(true).mode(0o600).open(&self.path)?;
                let mut bytes = file.metadata()?.len();
                if bytes > 0 && !ends_in_a_line(&mut file)? {
                    // A kill or a full disk has cut a line: the next one is not to be lost with it.
                    file.write_all(b"\n")?;
                    bytes += 1;
                }
                self.open.insert((file, bytes))
            }
        };
        file.write_all(line)?;
        *bytes += line.len() as u64;
        Ok(())
    }

    fn rotate(&self) -> io::Result<()> {
        for number in (0..FILES_OLD).rev() {
            match fs::rename(numbered(&self.path, number), numbered(&self.path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

fn ends_in_a_line(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// The line of a call that is under way: written when nobody holds it any more.
#[derive(Clone)]
pub(super) struct Note(Arc<Draft>);

struct Draft {
    line: Mutex<AuditLine>,
    is_kept: std::sync::atomic::AtomicBool,
    audit: Arc<Audit>,
}

impl Note {
    /// `is_kept`: it is written unless it turns out not to matter.
    pub(super) fn new(audit: &Arc<Audit>, line: AuditLine, is_kept: bool) -> Self {
        Self(Arc::new(Draft { line: Mutex::new(line), is_kept: is_kept.into(), audit: audit.clone() }))
    }

    pub(super) fn what(&self, what: impl Into<String>) {
        self.0.line.lock().what = Some(what.into());
    }

    pub(super) fn receipt(&self, id: &str) {
        self.0.line.lock().receipt = Some(id.to_owned());
    }

    pub(super) fn status(&self, status: u16) {
        self.0.line.lock().status = Some(status);
    }

    /// The call changes nothing, or is a refusal for want of rights after all.
    pub(super) fn keep(&self, is_kept: bool) {
        self.0.is_kept.store(is_kept, Ordering::Relaxed);
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if *self.is_kept.get_mut() {
            self.audit.write(std::mem::take(self.line.get_mut()));
        }
    }
}

/// The beginning of a line.
pub(super) fn line(now: SystemTime, peer: Option<SocketAddr>, call: String) -> AuditLine {
    let time = humantime::format_rfc3339_millis(now).to_string();
    AuditLine { time, peer: peer.map(|peer| peer.to_string()), call, ..AuditLine::default() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn numbered_line(number: usize) -> AuditLine {
        AuditLine { call: format!("POST /v1/purges {number}"), ..AuditLine::default() }
    }

    #[test]
    fn lines_are_read_back_the_newest_first() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let audit = Audit::start(dir.path()).expect("started");
        for number in 0..10 {
            audit.write(numbered_line(number));
        }
        assert_eq!(audit.newest(3), [numbered_line(9), numbered_line(8), numbered_line(7)]);
        assert_eq!(audit.newest(100).len(), 10);
        let path = dir.path().join(AUDIT_FILE);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        // What a crash has left half is passed over, and the next line is whole.
        audit.close();
        audit.write(numbered_line(10));
        assert_eq!(
            (audit.counts.written.load(Ordering::Relaxed), audit.counts.dropped.load(Ordering::Relaxed)),
            (10, 1)
        );
        let long = AuditLine { what: Some("é".repeat(2_000)), ..numbered_line(11) };
        let audit = Audit::start(dir.path()).expect("started");
        audit.write(long);
        let what = audit.newest(1)[0].what.clone().expect("it has one");
        assert!(what.len() < 1_030 && what.ends_with("é…"), "{what}");
    }

    #[test]
    fn files_are_rotated_and_the_oldest_goes() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join(AUDIT_FILE);
        let mut writer = Writer { path: path.clone(), bytes_max: 10, open: None, counts: Arc::default() };
        for number in 0..8 {
            writer.write(format!("line {number} of eight\n").as_bytes()).expect("written");
        }
        let kept: Vec<_> = (0..=FILES_OLD + 1).map(|number| fs::read_to_string(numbered(&path, number)).ok()).collect();
        let expected = |number: usize| Some(format!("line {number} of eight\n"));
        assert_eq!(kept, [expected(7), expected(6), expected(5), expected(4), expected(3), None]);
    }

    #[test]
    fn a_failing_disk_loses_lines_and_counts_them() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join(AUDIT_FILE)).expect("made");
        let audit = Audit::start(dir.path()).expect("started");
        audit.write(numbered_line(0));
        assert_eq!(audit.newest(1), []);
        assert_eq!(audit.counts.dropped.load(Ordering::Relaxed), 1);
        fs::remove_dir(dir.path().join(AUDIT_FILE)).expect("removed");
        audit.write(numbered_line(1));
        assert_eq!(audit.newest(1), [numbered_line(1)]);
    }

    #[test]
    fn a_note_is_written_once_when_the_last_holder_is_done() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let audit = Arc::new(Audit::start(dir.path()).expect("started"));
        let note = Note::new(&audit, numbered_line(0), true);
        let second = note.clone();
        drop(note);
        assert_eq!(audit.newest(9), []);
        second.receipt("p-1");
        drop(second);
        assert_eq!(audit.newest(9), [AuditLine { receipt: Some("p-1".to_owned()), ..numbered_line(0) }]);
        Note::new(&audit, numbered_line(1), true).keep(false);
        assert_eq!(audit.newest(9).len(), 1);
    }
}
