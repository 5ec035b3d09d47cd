//! A sample: what the node uses at one moment, and what its clients saw since the last one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rustix::process::Pid;

use crate::metrics::Figures;
use crate::tally::{Window, percentile};

/// Unit of `st_blocks`, whatever the file system's own is (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// Requests of one kind in a window.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) count: usize,
    pub(crate) p50_us: Option<u32>,
    pub(crate) p99_us: Option<u32>,
}

/// One sample.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// Since the start.
    pub(crate) at: Duration,
    pub(crate) used: Used,
    pub(crate) hits: Seen,
    pub(crate) misses: Seen,
    /// The store's metrics, counters over all processes.
    pub(crate) figures: Figures,
}

/// What the system says.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) resident_bytes: u64,
    pub(crate) index_bytes: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) open_files: usize,
}

impl Used {
    /// Of a process and its data directory.
    pub(crate) fn of(process: Pid, data: &Path) -> anyhow::Result<Self> {
        let path = format!("/proc/{process}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let resident_bytes = resident_bytes(&status).with_context(|| format!("{path} is not as proc(5) says"))?;
        let open_files = fs::read_dir(format!("/proc/{process}/fd")).context("list the open files")?.count();
        let (index_bytes, segment_bytes) = (bytes_below(&data.join("index")), bytes_below(&data.join("seg")));
        Ok(Self { resident_bytes, index_bytes, segment_bytes, open_files })
    }
}

impl Seen {
    pub(crate) fn of(mut latencies_us: Vec<u32>) -> Self {
        let count = latencies_us.len();
        Self { count, p50_us: percentile(&mut latencies_us, 50), p99_us: percentile(&mut latencies_us, 99) }
    }
}

impl Sample {
    pub(crate) fn new(at: Duration, used: Used, window: Window, figures: Figures) -> Self {
        Self { at, used, hits: Seen::of(window.hits), misses: Seen::of(window.misses), figures }
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Bytes that the file system has given to the files below. What vanishes meanwhile does not count.
fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let bytes = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { bytes_below(&entry.path()) } else { metadata.blocks() * BLOCK_BYTES })
    });
    bytes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_bytes_are_found() {
        assert_eq!(resident_bytes("Name:\tbrim\nVmRSS:\t    1234 kB\nThreads:\t3\n"), Some(1234 * 1024));
        assert_eq!(resident_bytes("Name:\tbrim\n"), None);
    }

    #[test]
    fn blocks_count_and_not_lengths() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("seg")).unwrap();
        let sparse = fs::File::create(folder.path().join("seg/1")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        assert!(bytes_below(folder.path()) < 1 << 20);
        fs::write(folder.path().join("seg/2"), vec![1; 1 << 20]).unwrap();
        fs::File::open(folder.path().join("seg/2")).unwrap().sync_all().unwrap();
        assert!(bytes_below(folder.path()) >= 1 << 20);
        assert_eq!(bytes_below(&folder.path().join("none")), 0);
    }

    #[test]
    fn this_process_uses_something() {
        let folder = tempfile::tempdir().unwrap();
        let used = Used::of(rustix::process::getpid(), folder.path()).unwrap();
        assert!(used.resident_bytes > 0 && used.open_files > 0);
    }
}
