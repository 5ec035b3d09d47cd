//! Heads and contents whole in sled 0.34: one tree for each.

use std::path::Path;
use std::sync::Arc;

use anyhow::ensure;
use brim_benches::Responses;
use hdrhistogram::Histogram;

use crate::corpus::Corpus;
use crate::subject::{Check, Plan, Session, Subject, read_each, read_in_turn};

const CACHE_BYTES: u64 = 256 << 20;
const FLUSH_EVERY_MS: u64 = 500;

pub(crate) struct SledWhole {
    db: sled::Db,
    heads: sled::Tree,
    contents: sled::Tree,
    corpus: Arc<Corpus>,
}

impl SledWhole {
    pub(crate) fn open(dir: &Path, corpus: Arc<Corpus>) -> anyhow::Result<Self> {
        let config = sled::Config::new().path(dir).mode(sled::Mode::LowSpace);
        let db = config.cache_capacity(CACHE_BYTES).flush_every_ms(Some(FLUSH_EVERY_MS)).open()?;
        Ok(Self { heads: db.open_tree("heads")?, contents: db.open_tree("contents")?, db, corpus })
    }
}

impl Subject for SledWhole {
    fn session(&self) -> anyhow::Result<Box<dyn Session + '_>> {
        Ok(Box::new(Trees(self)))
    }

    fn flush(&self) -> anyhow::Result<()> {
        self.db.flush()?;
        Ok(())
    }

    fn remove_even(&self) -> anyhow::Result<()> {
        for number in (0..self.corpus.count).step_by(2) {
            let key = Responses::key(number)?.hash().0;
            self.heads.remove(key)?;
            self.contents.remove(key)?;
        }
        Ok(())
    }

    fn warm(&self, version: u32) -> anyhow::Result<()> {
        read_each(&mut Trees(self), &self.corpus, version)
    }

    fn close(&self) -> anyhow::Result<()> {
        self.flush()
    }
}

struct Trees<'a>(&'a SledWhole);

impl Session for Trees<'_> {
    fn put(&mut self, number: u64, version: u32) -> anyhow::Result<()> {
        let key = Responses::key(number)?.hash().0;
        self.0.heads.insert(key, Responses::head_text(number, version).into_bytes())?;
        self.0.contents.insert(key, self.0.corpus.content(number, version))?;
        Ok(())
    }

    fn read(&mut self, number: u64, check: &mut Check<'_>) -> anyhow::Result<bool> {
        let key = Responses::key(number)?.hash().0;
        let (Some(head), Some(content)) = (self.0.heads.get(key)?, self.0.contents.get(key)?) else {
            return Ok(false);
        };
        ensure!(head.starts_with(b"HTTP/1.1 "), "response {number} has no head");
        check(&content)?;
        Ok(true)
    }

    fn read_until(&mut self, plan: &Plan) -> anyhow::Result<Histogram<u64>> {
        read_in_turn(self, plan)
    }
}
