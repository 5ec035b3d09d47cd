//! Makes the responses, as brim-store is given them, and keeps none: what the measurement itself costs.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::bail;
use brim_store::Position;
use hdrhistogram::Histogram;

use crate::corpus::Corpus;
use crate::subject::{Check, Plan, Session, Subject};

pub(crate) struct Nothing {
    corpus: Arc<Corpus>,
}

impl Nothing {
    pub(crate) fn new(corpus: Arc<Corpus>) -> Self {
        Self { corpus }
    }
}

impl Subject for Nothing {
    fn session(&self) -> anyhow::Result<Box<dyn Session + '_>> {
        Ok(Box::new(Made(&self.corpus)))
    }

    fn flush(&self) -> anyhow::Result<()> {
        Ok(())
    }

    fn remove_even(&self) -> anyhow::Result<()> {
        Ok(())
    }

    fn warm(&self, _: u32) -> anyhow::Result<()> {
        Ok(())
    }

    fn close(&self) -> anyhow::Result<()> {
        Ok(())
    }
}

struct Made<'a>(&'a Corpus);

impl Session for Made<'_> {
    fn put(&mut self, number: u64, version: u32) -> anyhow::Result<()> {
        black_box(self.0.responses.head(number, version, Position(0))?);
        black_box(self.0.content(number, version));
        Ok(())
    }

    fn read(&mut self, _: u64, _: &mut Check<'_>) -> anyhow::Result<bool> {
        Ok(false)
    }

    fn read_until(&mut self, _: &Plan) -> anyhow::Result<Histogram<u64>> {
        bail!("nothing is kept, so nothing can be read")
    }
}
