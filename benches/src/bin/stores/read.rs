//! Random responses are read by one thread, then by four; each is checked.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use serde::{Deserialize, Serialize};

use crate::brim::Reading;
use crate::corpus::{Corpus, SEED};
use crate::phase::Order;
use crate::put::FIRST_VERSION;
use crate::subject::{Plan, Subject, histogram};
use crate::usage;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) one_thread: Rate,
    pub(crate) four_threads: Rate,
    pub(crate) peak_bytes: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) cpu_us_each: f64,
}

pub(crate) fn run(order: &Order, corpus: &Arc<Corpus>, reading: Reading) -> anyhow::Result<Figures> {
    let subject = order.kind.open(&order.dir, corpus, reading)?;
    subject.ready()?;
    subject.warm(FIRST_VERSION)?;
    let length = Duration::from_secs(order.seconds);
    let one_thread = measure(&*subject, corpus, 1, length)?;
    let four_threads = measure(&*subject, corpus, 4, length)?;
    let figures = Figures { one_thread, four_threads, peak_bytes: usage::peak_bytes()? };
    subject.close()?;
    Ok(figures)
}

fn measure(subject: &dyn Subject, corpus: &Arc<Corpus>, threads: u64, length: Duration) -> anyhow::Result<Rate> {
    let (cpu, began) = (usage::cpu(), Instant::now());
    let until = began + length;
    let work = |thread: u64| {
        let seed = SEED + thread;
        subject.session()?.read_until(&Plan { corpus: Arc::clone(corpus), version: FIRST_VERSION, seed, until })
    };
    let mut times = histogram()?;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().try_for_each(|thread| -> anyhow::Result<()> {
            let its_times = thread.join().map_err(|_| anyhow!("a reader panicked"))??;
            Ok(times.add(its_times)?)
        })
    })?;
    let elapsed = began.elapsed().as_secs_f64();
    let microseconds = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Rate {
        per_second: times.len() as f64 / elapsed,
        p50_us: microseconds(0.50),
        p99_us: microseconds(0.99),
        cpu_us_each: (usage::cpu() - cpu).as_secs_f64() * 1e6 / times.len().max(1) as f64,
    })
}
