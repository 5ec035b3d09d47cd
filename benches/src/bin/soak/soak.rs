//! One soak: everything is started, sampled, killed now and then, and stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep_until, timeout};

use crate::door::Door;
use crate::keys::Keys;
use crate::metrics::{Sums, parse, sum};
use crate::node::{Budget, Node};
use crate::origin::Origin;
use crate::reader::{Choice, World};
use crate::sample::{Sample, Used};
use crate::tally::{Counts, Tally};
use crate::verdict::{Bounds, judge};
use crate::versions::Versions;
use crate::{Args, admin, process, purger, reader, report};

/// It ends after so many times the time that it was to take, whatever it has written.
const TIME_FACTOR_MAX: u32 = 4;
/// What one sample may wait for the node's figures: it is busy, and the machine may be too.
const METRICS_MAX: Duration = Duration::from_secs(20);
/// Failures to sample in a row that end it.
const SAMPLES_FAILED_MAX: u32 = 3;

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Done,
    TimeOver,
    /// SIGINT or SIGTERM.
    Told,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) end: End,
    pub(crate) samples: Vec<Sample>,
    pub(crate) counts: Counts,
    pub(crate) origin_requests: u64,
    pub(crate) origin_validated: u64,
    pub(crate) reasons: Vec<String>,
    disk_max: u64,
}

impl Outcome {
    pub(crate) fn times_written(&self) -> f64 {
        self.samples.last().map_or(0.0, |sample| times_written(sample, self.disk_max))
    }
}

fn times_written(sample: &Sample, disk_max: u64) -> f64 {
    sum(&sample.figures, "brim_store_written_bytes_total") / disk_max as f64
}

/// What a soak consists of while it runs.
struct Soak {
    world: Arc<World>,
    node: Node,
    clients: JoinHandle<()>,
    sums: Sums,
    samples: Vec<Sample>,
    began: Instant,
}

/// Soaks.
pub(crate) async fn run(args: &Args, bounds: Bounds) -> anyhow::Result<Outcome> {
    // First of all: from here on Ctrl-C ends it in order.
    let mut told = Told::new()?;
    let seed = args.seed.unwrap_or_else(|| u64::from(std::process::id()));
    let content_bytes = args.disk_max() * u64::from(args.key_space);
    let keys = Arc::new(Keys::make(seed, content_bytes)?);
    report::beginning(keys.count(), content_bytes, seed)?;
    let versions = Arc::new(Versions::new(&keys));
    let origin = Origin::start(Arc::clone(&keys), Arc::clone(&versions), args.origin_fault)?;
    let budget = Budget { disk_max: args.disk_max(), memory_max: args.memory_max() };
    let binary = process::brim_binary(args.brim.as_deref())?;
    let (node, addresses) = Node::start(binary, args.folder.as_deref(), origin.address, budget)?;
    let (door, tally, stop) = (Door::new(addresses), Tally::default(), AtomicBool::new(false));
    let world = Arc::new(World { door, keys, versions, tally, stop, seed });
    let clients = start_clients(&world, args)?;
    let mut soak = Soak { world, node, clients, sums: Sums::default(), samples: Vec::new(), began: Instant::now() };
    let end = soak.go(args, &mut told).await;
    let (samples, counts) = soak.stop()?;
    let mut reasons = judge(&samples, &counts, bounds);
    let end = end.unwrap_or_else(|error| {
        reasons.push(format!("it could not go on: {error:#}"));
        End::Told
    });
    Ok(Outcome {
        end,
        samples,
        counts,
        origin_requests: origin.requests(),
        origin_validated: origin.validated(),
        reasons,
        disk_max: bounds.disk_max,
    })
}

/// Readers and the purger, on a thread of their own.
fn start_clients(world: &Arc<World>, args: &Args) -> anyhow::Result<JoinHandle<()>> {
    let choose = |stream| Choice::new(&world.keys, world.seed, stream);
    let readers: Vec<Choice> = (1..=u64::from(args.connections)).map(choose).collect::<Result<_, _>>()?;
    let (purging, per_second) = (choose(0)?, args.purges);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let world = Arc::clone(world);
    let clients = async move {
        let mut tasks = tokio::task::JoinSet::new();
        if per_second > 0 {
            tasks.spawn(purger::purge(Arc::clone(&world), purging, per_second));
        }
        for choice in readers {
            tasks.spawn(reader::read(Arc::clone(&world), choice));
        }
        // Each ends when the world stops, for each of their waits has an end.
        tasks.join_all().await;
    };
    Ok(thread::Builder::new().name("clients".to_owned()).spawn(move || runtime.block_on(clients))?)
}

impl Soak {
    /// Until it is done, its time is over or it is told to end.
    async fn go(&mut self, args: &Args, told: &mut Told) -> anyhow::Result<End> {
        let time = Duration::from_secs(60) * args.minutes;
        let every = Duration::from_secs(u64::from(args.sample_every));
        let mut random = SmallRng::seed_from_u64(self.world.seed);
        let mut kill_at = args.kill_every.map(|seconds| self.began + about(seconds, &mut random));
        let mut sample_at = self.began + every;
        let mut failed_count = 0;
        loop {
            let next = kill_at.map_or(sample_at, |kill_at| kill_at.min(sample_at));
            tokio::select! {
                () = sleep_until(next.into()) => {}
                () = told.wait() => return Ok(End::Told),
            }
            if kill_at.is_some_and(|kill_at| kill_at <= Instant::now()) {
                self.kill().await?;
                kill_at = args.kill_every.map(|seconds| Instant::now() + about(seconds, &mut random));
            }
            if sample_at > Instant::now() {
                continue;
            }
            sample_at = Instant::now() + every;
            if let Err(error) = self.sample().await {
                failed_count += 1;
                if failed_count >= SAMPLES_FAILED_MAX || self.node.id().is_err() {
                    return Err(error);
                }
                report::failure(&error);
                continue;
            }
            failed_count = 0;
            let written = self.samples.last().map_or(0.0, |sample| times_written(sample, args.disk_max()));
            if self.began.elapsed() >= time && written >= f64::from(args.times) {
                return Ok(End::Done);
            }
            if self.began.elapsed() >= time * TIME_FACTOR_MAX {
                return Ok(End::TimeOver);
            }
        }
    }

    async fn read_figures(&mut self) -> anyhow::Result<()> {
        let text = timeout(METRICS_MAX, admin::metrics(&self.world.door)).await;
        self.sums.update(parse(&text.with_context(|| format!("no figures within {METRICS_MAX:?}"))??));
        Ok(())
    }

    async fn sample(&mut self) -> anyhow::Result<()> {
        let process = self.node.id()?;
        self.read_figures().await?;
        let used = Used::of(process, &self.node.data())?;
        let sample = Sample::new(self.began.elapsed(), used, self.world.tally.take_window(), self.sums.all());
        report::warnings(&self.node.warnings())?;
        report::progress(&sample, self.world.tally.counts().faults.iter().sum())?;
        self.samples.push(sample);
        Ok(())
    }

    async fn kill(&mut self) -> anyhow::Result<()> {
        // Without them, what it has counted since the last sample is lost.
        if let Err(error) = self.read_figures().await {
            report::failure(&error);
        }
        report::warnings(&self.node.warnings())?;
        self.world.door.shut();
        let (addresses, took) = self.node.kill_and_restart()?;
        self.sums.end_process();
        self.world.door.reopen(addresses);
        self.world.tally.killed();
        report::killed(took)?;
        Ok(())
    }

    /// Stops the clients, then the node.
    fn stop(self) -> anyhow::Result<(Vec<Sample>, Counts)> {
        self.world.stop.store(true, SeqCst);
        self.clients.join().map_err(|_| anyhow!("the clients panicked"))?;
        drop(self.node);
        Ok((self.samples, self.world.tally.counts()))
    }
}

/// Half of it to one and a half of it, so that kills meet everything.
fn about(seconds: u32, random: &mut SmallRng) -> Duration {
    Duration::from_secs(u64::from(seconds)).mul_f64(random.random_range(0.5..1.5))
}

/// SIGINT or SIGTERM.
struct Told {
    interrupt: Signal,
    terminate: Signal,
}

impl Told {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Cancel safe: a signal that is not awaited is told the next time.
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
