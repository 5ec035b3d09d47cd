//! What this process has used, and what a directory takes on disk.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::fs::Advice;
use rustix::time::{ClockId, clock_gettime};

/// User and system time of all threads of this process.
pub(crate) fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanoseconds.unwrap_or(0))
}

/// A number from a file of `Name: value` lines.
fn number_in(path: &str, name: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = value.and_then(|value| value.split_ascii_whitespace().next());
    number.with_context(|| format!("{path} has no {name}"))?.parse().with_context(|| format!("{name} in {path}"))
}

/// The most memory that was resident at once.
pub(crate) fn peak_bytes() -> anyhow::Result<u64> {
    Ok(number_in("/proc/self/status", "VmHWM")? * 1024)
}

/// What this process has had written to a disk. What it removed before it was written is not part of it.
pub(crate) fn written_bytes() -> anyhow::Result<u64> {
    let number = |name| number_in("/proc/self/io", name);
    Ok(number("write_bytes")?.saturating_sub(number("cancelled_write_bytes")?))
}

/// What this process has had read from a disk.
pub(crate) fn read_bytes() -> anyhow::Result<u64> {
    number_in("/proc/self/io", "read_bytes")
}

/// How many threads wanted a CPU in the last minute, on average.
pub(crate) fn load() -> anyhow::Result<String> {
    let text = fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    Ok(text.split_ascii_whitespace().next().unwrap_or_default().to_owned())
}

/// Calls `visit` with everything in and below a directory. What vanishes meanwhile is left out.
fn walk(dir: &Path, visit: &mut dyn FnMut(PathBuf, &fs::Metadata)) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            walk(&entry.path(), visit)?;
        }
        visit(entry.path(), &metadata);
    }
    Ok(())
}

/// What a directory takes on disk: blocks of files and of directories, not lengths.
pub(crate) fn disk_bytes(dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    walk(dir, &mut |_, metadata| bytes += metadata.blocks() * 512)?;
    Ok(bytes)
}

/// Everything written to the file system of a directory is on disk after this.
pub(crate) fn sync(dir: &Path) -> anyhow::Result<()> {
    rustix::fs::syncfs(File::open(dir)?).context("syncfs")
}

/// Takes the files below a directory out of the system's page cache, and only those: nobody else has to wait for it.
pub(crate) fn drop_pages(dir: &Path) -> anyhow::Result<()> {
    sync(dir)?;
    let mut files = Vec::new();
    walk(dir, &mut |path, metadata| files.extend(metadata.is_file().then_some(path)))?;
    for path in files {
        rustix::fs::fadvise(File::open(path)?, 0, None, Advice::DontNeed).context("fadvise")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_cpu_and_memory() {
        assert!(cpu() > Duration::ZERO);
        assert!(peak_bytes().unwrap() > 100_000);
        assert!(written_bytes().is_ok() && read_bytes().is_ok());
        assert!(number_in("/proc/self/status", "VmNone").is_err());
    }

    #[test]
    fn a_hole_takes_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let empty = disk_bytes(dir.path()).unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        let file = File::create(dir.path().join("below/file")).unwrap();
        file.set_len(10 << 20).unwrap();
        assert!(disk_bytes(dir.path()).unwrap() - empty < 1 << 20);
        fs::write(dir.path().join("below/file"), vec![1; 2 << 20]).unwrap();
        assert!(disk_bytes(dir.path()).unwrap() - empty >= 2 << 20);
        drop_pages(dir.path()).unwrap();
    }
}
