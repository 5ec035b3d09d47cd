//! What the disk holds beyond what is alive: after overwriting everything, and after removing half of it.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::brim::Reading;
use crate::corpus::{Corpus, SEED};
use crate::phase::Order;
use crate::put::{self, FIRST_VERSION, put_all};
use crate::subject::Subject;
use crate::usage;

/// How often everything is overwritten.
pub(crate) const OVERWRITES: u32 = 3;
const LAST_VERSION: u32 = FIRST_VERSION + OVERWRITES;

/// A store that has not shrunk for so long has settled.
const QUIET: Duration = Duration::from_secs(5);
/// Then it is measured, whether it has settled or not.
const SETTLE_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Of the puts, where there were some.
    pub(crate) puts: Option<put::Figures>,
    pub(crate) live_bytes: u64,
    /// Until everything was overwritten or removed.
    pub(crate) seconds: f64,
    /// As soon as that was done.
    pub(crate) disk_bytes_at_once: u64,
    pub(crate) disk_bytes: u64,
    /// From then until it last shrank.
    pub(crate) settled_seconds: f64,
    pub(crate) settling_cpu_seconds: f64,
    /// Everything that was done to settle included.
    pub(crate) written_bytes: u64,
    pub(crate) peak_bytes: u64,
}

/// Overwrites everything in random orders.
pub(crate) fn overwrite(order: &Order, corpus: &Arc<Corpus>) -> anyhow::Result<Figures> {
    let subject = order.kind.open(&order.dir, corpus, Reading::Seldom)?;
    subject.ready()?;
    let written = usage::written_bytes()?;
    let lists: Vec<_> =
        (FIRST_VERSION + 1..=LAST_VERSION).map(|version| (version, shuffled(corpus, version))).collect();
    let puts = put_all(&*subject, order, corpus, &lists)?;
    let settled = Settled::wait(&order.dir)?;
    let figures = settled.figures(puts.seconds, puts.live_bytes, written, Some(puts))?;
    subject.close()?;
    Ok(figures)
}

fn shuffled(corpus: &Corpus, version: u32) -> Vec<u64> {
    let mut numbers: Vec<u64> = (0..corpus.count).collect();
    numbers.shuffle(&mut SmallRng::seed_from_u64(SEED ^ u64::from(version)));
    numbers
}

/// Removes every even number.
pub(crate) fn remove(order: &Order, corpus: &Arc<Corpus>) -> anyhow::Result<Figures> {
    let subject = order.kind.open(&order.dir, corpus, Reading::Seldom)?;
    subject.ready()?;
    let (written, began) = (usage::written_bytes()?, Instant::now());
    subject.remove_even()?;
    subject.flush()?;
    usage::sync(&order.dir)?;
    let seconds = began.elapsed().as_secs_f64();
    let settled = Settled::wait(&order.dir)?;
    let figures = settled.figures(seconds, corpus.live_bytes(is_kept), written, None)?;
    verify(&*subject, corpus)?;
    subject.close()?;
    Ok(figures)
}

fn is_kept(number: u64) -> bool {
    number % 2 == 1
}

/// Every byte of what is kept is right, and nothing else is there.
fn verify(subject: &dyn Subject, corpus: &Corpus) -> anyhow::Result<()> {
    let mut session = subject.session()?;
    for number in 0..corpus.count {
        let is_there = session.read(number, &mut |content| corpus.check_all(number, LAST_VERSION, content))?;
        ensure!(is_there == is_kept(number), "response {number} is there: {is_there}");
    }
    Ok(())
}

struct Settled {
    at_once: u64,
    now: u64,
    after: Duration,
    cpu: Duration,
}

impl Settled {
    /// Waits until a directory does not shrink any more.
    fn wait(dir: &Path) -> anyhow::Result<Self> {
        let (cpu, began) = (usage::cpu(), Instant::now());
        let at_once = usage::disk_bytes(dir)?;
        let (mut now, mut after) = (at_once, Duration::ZERO);
        while began.elapsed() < after + QUIET && began.elapsed() < SETTLE_MAX {
            thread::sleep(LOOK_EVERY);
            let bytes = usage::disk_bytes(dir)?;
            if bytes < now {
                after = began.elapsed();
            }
            now = bytes;
        }
        Ok(Self { at_once, now, after, cpu: usage::cpu() - cpu })
    }

    fn figures(
        &self,
        seconds: f64,
        live_bytes: u64,
        written_before: u64,
        puts: Option<put::Figures>,
    ) -> anyhow::Result<Figures> {
        Ok(Figures {
            puts,
            live_bytes,
            seconds,
            disk_bytes_at_once: self.at_once,
            disk_bytes: self.now,
            settled_seconds: self.after.as_secs_f64(),
            settling_cpu_seconds: self.cpu.as_secs_f64(),
            written_bytes: usage::written_bytes()? - written_before,
            peak_bytes: usage::peak_bytes()?,
        })
    }
}
