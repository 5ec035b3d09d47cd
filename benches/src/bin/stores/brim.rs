//! brim-store, by its public interface.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail, ensure};
use brim_benches::{Responses, store};
use brim_store::{DiskState, Found, PurgeMode, Selector, Store, StoreConfig, Variants};
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use crate::corpus::Corpus;
use crate::subject::{Check, Meanwhile, Plan, Session, Subject, histogram, read_each, read_in_turn};

/// How it is read, and so what its memory tier holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reading {
    /// Hardly at all: the memory tier is as large as sled's cache.
    Seldom,
    /// `find`, everything being in memory.
    Memory,
    /// `load_blocking`, next to nothing being in memory.
    Blocking,
    /// `find` and `load`, one at a time, next to nothing being in memory.
    Load,
    /// The same, [`LOADS_AT_ONCE`] of them under way in each thread.
    Loads,
}

/// Loads that one thread waits for at once.
pub(crate) const LOADS_AT_ONCE: usize = 16;
/// Puts between two looks at how much waits to be written.
const PUTS_BETWEEN_LOOKS: u32 = 16;
/// What may wait to be written: beyond twice as much a response is not written, by design, and would cost too little.
const WAITING_BYTES_MAX: u64 = 4 << 20;
/// From opening to a disk tier that is ready.
const READY_MAX: Duration = Duration::from_secs(120);

impl Reading {
    fn memory_max(self, corpus: &Corpus) -> u64 {
        match self {
            Self::Seldom => 256 << 20,
            Self::Memory => 2 * corpus.live_bytes(|_| true) + (256 << 20),
            Self::Blocking | Self::Load | Self::Loads => 1 << 20,
        }
    }
}

pub(crate) struct Brim {
    runtime: Runtime,
    store: Store,
    corpus: Arc<Corpus>,
    reading: Reading,
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_time().build().context("start a runtime")
}

impl Brim {
    pub(crate) fn open(dir: &Path, corpus: Arc<Corpus>, reading: Reading) -> anyhow::Result<Self> {
        let runtime = runtime()?;
        // Nothing is evicted: that is another question.
        let disk_max = (4 * corpus.live_bytes(|_| true)).max(4 << 30);
        let memory_max = reading.memory_max(&corpus);
        let store = runtime.block_on(Store::open(StoreConfig { disk_max, memory_max, ..StoreConfig::new(dir) }))?;
        Ok(Self { runtime, store, corpus, reading })
    }

    fn brim_session(&self) -> anyhow::Result<BrimSession<'_>> {
        Ok(BrimSession { runtime: runtime()?, brim: self, puts: 0 })
    }
}

impl Subject for Brim {
    fn session(&self) -> anyhow::Result<Box<dyn Session + '_>> {
        Ok(Box::new(self.brim_session()?))
    }

    fn ready(&self) -> anyhow::Result<Meanwhile> {
        let mut meanwhile = Meanwhile::default();
        let began = Instant::now();
        while self.store.stats().disk != DiskState::Ready {
            ensure!(began.elapsed() < READY_MAX, "the disk tier is {:?} after {READY_MAX:?}", self.store.stats().disk);
            let key = Responses::key(meanwhile.answers % self.corpus.count)?;
            let asked = Instant::now();
            self.store.find(&key);
            meanwhile.slowest = meanwhile.slowest.max(asked.elapsed());
            meanwhile.answers += 1;
            thread::sleep(Duration::from_micros(100));
        }
        Ok(meanwhile)
    }

    fn flush(&self) -> anyhow::Result<()> {
        self.runtime.block_on(self.store.flush());
        let stats = self.store.stats();
        ensure!(stats.writes_dropped == 0 && stats.write_errors == 0, "some responses were not written: {stats:?}");
        Ok(())
    }

    fn remove_even(&self) -> anyhow::Result<()> {
        let selector = Selector::SurrogateKeys { site: None, keys: vec![Responses::parity(0).into()] };
        self.runtime.block_on(
            self.store
                .purge(brim_store::Purge::of(selector, PurgeMode::Hard, SystemTime::now()), brim_store::COUNT_WAIT),
        )?;
        Ok(())
    }

    fn warm(&self, version: u32) -> anyhow::Result<()> {
        read_each(&mut Loading(self), &self.corpus, version)?;
        if self.reading == Reading::Memory {
            let keys = self.store.stats().memory_keys;
            ensure!(keys == self.corpus.count, "{keys} of {} responses are in memory", self.corpus.count);
        }
        Ok(())
    }

    fn close(&self) -> anyhow::Result<()> {
        self.runtime.block_on(self.store.close());
        Ok(())
    }
}

/// What a request does.
async fn load(store: &Store, number: u64) -> anyhow::Result<Option<Arc<Variants>>> {
    let key = Responses::key(number)?;
    Ok(match store.find(&key) {
        Found::Memory(variants) => Some(variants),
        Found::OnDisk => store.load(&key).await,
        Found::Absent => None,
    })
}

fn check_first(variants: &Variants, check: &mut Check<'_>) -> anyhow::Result<()> {
    let response = variants.first().context("a key without a response")?;
    check(&response.body().context("a body that is not in memory")?)
}

struct BrimSession<'a> {
    runtime: Runtime,
    brim: &'a Brim,
    puts: u32,
}

impl BrimSession<'_> {
    /// A request would go on; this waits until the disk has caught up, so that everything is written.
    fn pace(&mut self) {
        self.puts += 1;
        if self.puts.is_multiple_of(PUTS_BETWEEN_LOOKS) {
            while self.brim.store.stats().queued_bytes > WAITING_BYTES_MAX {
                thread::sleep(Duration::from_micros(200));
            }
        }
    }
}

impl Session for BrimSession<'_> {
    fn put(&mut self, number: u64, version: u32) -> anyhow::Result<()> {
        let (kept, corpus) = (&self.brim.store, &self.brim.corpus);
        let head = corpus.responses.head(number, version, kept.position())?;
        self.runtime.block_on(store(kept, head, corpus.content(number, version).into()))?;
        self.pace();
        Ok(())
    }

    fn read(&mut self, number: u64, check: &mut Check<'_>) -> anyhow::Result<bool> {
        let store = &self.brim.store;
        let found = match self.brim.reading {
            Reading::Memory => match store.find(&Responses::key(number)?) {
                Found::Memory(variants) => Some(variants),
                Found::OnDisk | Found::Absent => bail!("response {number} is not in memory"),
            },
            Reading::Seldom | Reading::Blocking => store.load_blocking(&Responses::key(number)?),
            Reading::Load | Reading::Loads => self.runtime.block_on(load(store, number))?,
        };
        let Some(variants) = found else { return Ok(false) };
        check_first(&variants, check)?;
        Ok(true)
    }

    fn read_until(&mut self, plan: &Plan) -> anyhow::Result<Histogram<u64>> {
        if self.brim.reading != Reading::Loads {
            return read_in_turn(self, plan);
        }
        let tasks = LocalSet::new();
        let readers: Vec<_> = (0..LOADS_AT_ONCE)
            .map(|task| tasks.spawn_local(load_in_turn(self.brim.store.clone(), plan.clone(), task as u64)))
            .collect();
        let mut times = histogram()?;
        self.runtime.block_on(tasks);
        for reader in readers {
            times.add(self.runtime.block_on(reader)??)?;
        }
        Ok(times)
    }
}

/// Loads one response after the other.
async fn load_in_turn(store: Store, plan: Plan, task: u64) -> anyhow::Result<Histogram<u64>> {
    let mut random = SmallRng::seed_from_u64(plan.seed ^ task << 32);
    let mut times = histogram()?;
    loop {
        let before = Instant::now();
        if before >= plan.until {
            return Ok(times);
        }
        let number = random.random_range(0..plan.corpus.count);
        let variants = load(&store, number).await?.with_context(|| format!("response {number} is missing"))?;
        check_first(&variants, &mut |content| plan.corpus.check(number, plan.version, content))?;
        times.saturating_record(u64::try_from(before.elapsed().as_nanos())?);
    }
}

/// Takes everything into memory that fits.
struct Loading<'a>(&'a Brim);

impl Session for Loading<'_> {
    fn put(&mut self, _: u64, _: u32) -> anyhow::Result<()> {
        bail!("this only reads")
    }

    fn read(&mut self, number: u64, check: &mut Check<'_>) -> anyhow::Result<bool> {
        let Some(variants) = self.0.store.load_blocking(&Responses::key(number)?) else { return Ok(false) };
        check_first(&variants, check)?;
        Ok(true)
    }

    fn read_until(&mut self, plan: &Plan) -> anyhow::Result<Histogram<u64>> {
        read_in_turn(self, plan)
    }
}
