//! The real store with the same trace: found, loaded or filled, as requests do it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use brim_benches::{Contents, Lengths, Responses, store};
use brim_store::{Found, Store, StoreConfig, StoreStats};
use tempfile::TempDir;

use crate::policy::{Outcome, Plan};
use crate::trace::{SEED, Trace};

/// Its name in the tables.
pub(crate) const NAME: &str = "**brim-store**";
/// Small, so that the disk tier decides.
const MEMORY_BYTES: u64 = 2 << 20;
/// Fills between two waits for the writer: what waits is on no tier if it does not fit into memory.
const FILLS_AT_ONCE: u64 = 16;
const CATCH_UP_MAX: Duration = Duration::from_secs(30);

/// What the real store came to.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) outcome: Outcome,
    /// Hits that needed no disk.
    pub(crate) memory_hits: u64,
    /// Bytes of the index, which its budget counts, on average.
    pub(crate) index_bytes: u64,
    pub(crate) stats: StoreStats,
    pub(crate) seconds: f64,
}

impl Measured {
    /// What the budget left for segments.
    pub(crate) fn capacity(&self, plan: &Plan) -> u64 {
        plan.disk_max.saturating_sub(self.index_bytes.min(plan.disk_max / 2))
    }
}

struct Player<'a> {
    store: Store,
    responses: Responses,
    contents: Contents,
    lengths: &'a Lengths,
    fills: u64,
    memory_hits: u64,
}

/// Plays a trace.
pub(crate) fn play(trace: Trace, lengths: &Lengths, plan: &Plan, dir: Option<&Path>) -> anyhow::Result<Measured> {
    let dir = match dir {
        Some(dir) => TempDir::new_in(dir),
        None => TempDir::new(),
    }
    .context("make a directory for the data")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().context("start a runtime")?;
    runtime.block_on(async {
        let config = StoreConfig { disk_max: plan.disk_max, memory_max: MEMORY_BYTES, ..StoreConfig::new(dir.path()) };
        let mut player = Player {
            store: Store::open(config).await?,
            responses: Responses::new()?,
            contents: Contents::new(SEED),
            lengths,
            fills: 0,
            memory_hits: 0,
        };
        let measured = player.play(trace).await;
        player.store.close().await;
        measured
    })
}

impl Player<'_> {
    async fn play(&mut self, trace: Trace) -> anyhow::Result<Measured> {
        const LOOK_EVERY: u64 = 1024;
        let began = Instant::now();
        let mut outcome = Outcome::default();
        let mut written_before = 0;
        let (mut looks, mut index_bytes) = (0, 0);
        for request in trace {
            let is_hit = self.hits(request.number).await?;
            if !is_hit {
                self.fill(request.number).await?;
            }
            if !request.is_counted {
                continue;
            }
            if outcome.requests == 0 {
                self.store.flush().await;
                self.memory_hits = 0;
                written_before = written(&self.store.stats());
            }
            outcome.count(request.is_hot, is_hit);
            if outcome.requests.is_multiple_of(LOOK_EVERY) {
                looks += 1;
                index_bytes += self.store.stats().index_bytes;
            }
        }
        self.store.flush().await;
        let stats = self.store.stats();
        outcome.written = written(&stats) - written_before;
        ensure!(stats.write_errors == 0 && stats.damaged == 0, "the store had trouble: {stats:?}");
        let (memory_hits, seconds) = (self.memory_hits, began.elapsed().as_secs_f64());
        Ok(Measured { outcome, memory_hits, index_bytes: index_bytes / looks.max(1), stats, seconds })
    }

    async fn hits(&mut self, number: u64) -> anyhow::Result<bool> {
        let key = Responses::key(number)?;
        let found = match self.store.find(&key) {
            Found::Memory(variants) => {
                self.memory_hits += 1;
                Some(variants)
            }
            Found::OnDisk => self.store.load(&key).await,
            Found::Absent => None,
        };
        let Some(variants) = found else { return Ok(false) };
        let content = variants.first().context("a key without a response")?.body().context("a body not in memory")?;
        let is_right = self.contents.has_stamps(number, 0, self.lengths.of(number), &content);
        ensure!(is_right, "response {number} is another one");
        Ok(true)
    }

    async fn fill(&mut self, number: u64) -> anyhow::Result<()> {
        let head = self.responses.head(number, 0, self.store.position())?;
        let content = self.contents.make(number, 0, self.lengths.of(number));
        store(&self.store, head, content.into()).await?;
        self.fills += 1;
        if self.fills.is_multiple_of(FILLS_AT_ONCE) {
            self.catch_up()?;
        }
        Ok(())
    }

    /// Waits until nothing waits for the writer. Unlike a flush it does not have the disk sync.
    fn catch_up(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.store.stats().queued_bytes > 0 {
            ensure!(began.elapsed() < CATCH_UP_MAX, "the writer hangs: {:?}", self.store.stats());
            std::thread::sleep(Duration::from_micros(20));
        }
        Ok(())
    }
}

fn written(stats: &StoreStats) -> u64 {
    stats.writes + stats.moved
}
