//! What the stores have in common here.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::brim::{Brim, Reading};
use crate::corpus::Corpus;
use crate::files::Files;
use crate::nothing::Nothing;
use crate::sled_whole::SledWhole;

/// The stores that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// brim-store
    Brim,
    /// sled 0.34 with heads in one tree and contents in another
    Sled,
    /// A file for each response
    Files,
    /// Nothing is kept: what making the responses costs
    Nothing,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Brim, Self::Sled, Self::Files, Self::Nothing];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Brim => "brim-store",
            Self::Sled => "sled whole",
            Self::Files => "plain files",
            Self::Nothing => "(nothing kept)",
        }
    }

    /// Whether there is something to read afterwards.
    pub(crate) fn keeps(self) -> bool {
        self != Self::Nothing
    }

    /// Opens the store in a directory. `reading` says how brim-store is read, and so what it has in memory.
    pub(crate) fn open(self, dir: &Path, corpus: &Arc<Corpus>, reading: Reading) -> anyhow::Result<Box<dyn Subject>> {
        let corpus = Arc::clone(corpus);
        Ok(match self {
            Self::Brim => Box::new(Brim::open(dir, corpus, reading)?),
            Self::Sled => Box::new(SledWhole::open(dir, corpus)?),
            Self::Files => Box::new(Files::open(dir, corpus)?),
            Self::Nothing => Box::new(Nothing::new(corpus)),
        })
    }
}

/// A store under measurement.
pub(crate) trait Subject: Send + Sync {
    /// What one thread puts and reads with.
    fn session(&self) -> anyhow::Result<Box<dyn Session + '_>>;
    /// Waits until it has opened wholly; what it answered meanwhile.
    fn ready(&self) -> anyhow::Result<Meanwhile> {
        Ok(Meanwhile::default())
    }
    /// Everything that was put is durable as far as the store promises it; an error when something was left out.
    fn flush(&self) -> anyhow::Result<()>;
    /// Removes the responses with even numbers.
    fn remove_even(&self) -> anyhow::Result<()>;
    /// Reads all that will be read into what the store keeps in memory, as far as it does.
    fn warm(&self, version: u32) -> anyhow::Result<()>;
    /// Ends in order.
    fn close(&self) -> anyhow::Result<()>;
}

/// What a store answered while it opened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Meanwhile {
    /// Look-ups, each answered without an error.
    pub(crate) answers: u64,
    pub(crate) slowest: Duration,
}

/// What one thread puts and reads with.
pub(crate) trait Session {
    /// Hands a response over.
    fn put(&mut self, number: u64, version: u32) -> anyhow::Result<()>;
    /// Reads a response and gives its content to `check`. False: there is none.
    fn read(&mut self, number: u64, check: &mut Check<'_>) -> anyhow::Result<bool>;
    /// Reads random responses until the time has come.
    fn read_until(&mut self, plan: &Plan) -> anyhow::Result<Histogram<u64>>;
}

/// Looks at a content that was read.
pub(crate) type Check<'a> = dyn FnMut(&[u8]) -> anyhow::Result<()> + 'a;

/// What one thread reads.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) corpus: Arc<Corpus>,
    pub(crate) version: u32,
    pub(crate) seed: u64,
    pub(crate) until: Instant,
}

/// Nanoseconds, up to a minute, to one in a thousand.
pub(crate) fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(60_000_000_000, 3)?)
}

/// Reads one response after the other.
pub(crate) fn read_in_turn(session: &mut dyn Session, plan: &Plan) -> anyhow::Result<Histogram<u64>> {
    let mut random = SmallRng::seed_from_u64(plan.seed);
    let mut times = histogram()?;
    let mut before = Instant::now();
    while before < plan.until {
        let number = random.random_range(0..plan.corpus.count);
        let is_there = session.read(number, &mut |content| plan.corpus.check(number, plan.version, content))?;
        anyhow::ensure!(is_there, "response {number} is missing");
        let after = Instant::now();
        times.saturating_record(u64::try_from((after - before).as_nanos())?);
        before = after;
    }
    Ok(times)
}

/// Reads every response once, so that what the system and the store keep in memory is there.
pub(crate) fn read_each(session: &mut dyn Session, corpus: &Corpus, version: u32) -> anyhow::Result<()> {
    for number in 0..corpus.count {
        let is_there = session.read(number, &mut |content| corpus.check(number, version, content))?;
        anyhow::ensure!(is_there, "response {number} is missing");
    }
    Ok(())
}
