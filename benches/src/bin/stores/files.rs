//! A file for each response: the length of its head, the head, the content. Written under another name and renamed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use brim_benches::Responses;
use hdrhistogram::Histogram;

use crate::corpus::Corpus;
use crate::subject::{Check, Plan, Session, Subject, read_each, read_in_turn};

const LENGTH_BYTES: usize = 4;

pub(crate) struct Files {
    dir: PathBuf,
    corpus: Arc<Corpus>,
    next_temporary: AtomicU64,
}

impl Files {
    /// Makes all directories at once: a cache that has run for a while has them.
    pub(crate) fn open(dir: &Path, corpus: Arc<Corpus>) -> anyhow::Result<Self> {
        for first in 0..16 {
            for second in 0..256 {
                fs::create_dir_all(dir.join(format!("{first:x}/{second:02x}")))?;
            }
        }
        Ok(Self { dir: dir.to_owned(), corpus, next_temporary: AtomicU64::new(0) })
    }

    /// Two levels of directories, 16 × 256, by the first digits of the name.
    fn path(&self, number: u64) -> anyhow::Result<PathBuf> {
        let name = Responses::key(number)?.hash().to_string();
        Ok(self.dir.join(&name[..1]).join(&name[1..3]).join(&name))
    }
}

impl Subject for Files {
    fn session(&self) -> anyhow::Result<Box<dyn Session + '_>> {
        Ok(Box::new(InFiles(self)))
    }

    /// What makes it durable is `syncfs`, as for the others.
    fn flush(&self) -> anyhow::Result<()> {
        Ok(())
    }

    fn remove_even(&self) -> anyhow::Result<()> {
        for number in (0..self.corpus.count).step_by(2) {
            fs::remove_file(self.path(number)?)?;
        }
        Ok(())
    }

    fn warm(&self, version: u32) -> anyhow::Result<()> {
        read_each(&mut InFiles(self), &self.corpus, version)
    }

    fn close(&self) -> anyhow::Result<()> {
        Ok(())
    }
}

struct InFiles<'a>(&'a Files);

impl Session for InFiles<'_> {
    fn put(&mut self, number: u64, version: u32) -> anyhow::Result<()> {
        let head = Responses::head_text(number, version);
        let content = self.0.corpus.content(number, version);
        let mut bytes = Vec::with_capacity(LENGTH_BYTES + head.len() + content.len());
        bytes.extend_from_slice(&u32::try_from(head.len())?.to_le_bytes());
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(&content);
        let path = self.0.path(number)?;
        let temporary = path.with_file_name(format!("new-{}", self.0.next_temporary.fetch_add(1, Ordering::Relaxed)));
        fs::write(&temporary, &bytes)?;
        fs::rename(&temporary, &path)?;
        Ok(())
    }

    fn read(&mut self, number: u64, check: &mut Check<'_>) -> anyhow::Result<bool> {
        let bytes = match fs::read(self.0.path(number)?) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().context("a file without a length")?;
        let (head, content) =
            rest.split_at_checked(u32::from_le_bytes(*length) as usize).context("a file without a head")?;
        ensure!(head.starts_with(b"HTTP/1.1 "), "response {number} has no head");
        check(content)?;
        Ok(true)
    }

    fn read_until(&mut self, plan: &Plan) -> anyhow::Result<Histogram<u64>> {
        read_in_turn(self, plan)
    }
}
