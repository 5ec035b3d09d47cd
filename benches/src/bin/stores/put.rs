//! Everything is put by two threads, until it is on disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::anyhow;
use serde::{Deserialize, Serialize};

use crate::brim::Reading;
use crate::corpus::Corpus;
use crate::phase::Order;
use crate::subject::Subject;
use crate::usage;

const THREADS: usize = 2;
/// The version that the first put gives.
pub(crate) const FIRST_VERSION: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) puts: u64,
    /// Until the last put was taken.
    pub(crate) taken_seconds: f64,
    /// Until the store's own flush was done.
    pub(crate) flushed_seconds: f64,
    /// Until everything was on disk.
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) written_bytes: u64,
    pub(crate) live_bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) peak_bytes: u64,
}

pub(crate) fn run(order: &Order, corpus: &Arc<Corpus>) -> anyhow::Result<Figures> {
    let subject = order.kind.open(&order.dir, corpus, Reading::Seldom)?;
    subject.ready()?;
    let numbers: Vec<u64> = (0..corpus.count).collect();
    let figures = put_all(&*subject, order, corpus, &[(FIRST_VERSION, numbers)])?;
    subject.close()?;
    Ok(figures)
}

/// Puts these versions of these numbers, one list after the other.
pub(crate) fn put_all(
    subject: &dyn Subject,
    order: &Order,
    corpus: &Corpus,
    lists: &[(u32, Vec<u64>)],
) -> anyhow::Result<Figures> {
    let (written, cpu, began) = (usage::written_bytes()?, usage::cpu(), Instant::now());
    for (version, numbers) in lists {
        put_list(subject, *version, numbers)?;
    }
    let taken_seconds = began.elapsed().as_secs_f64();
    subject.flush()?;
    let flushed_seconds = began.elapsed().as_secs_f64();
    usage::sync(&order.dir)?;
    Ok(Figures {
        puts: lists.iter().map(|(_, numbers)| numbers.len() as u64).sum(),
        taken_seconds,
        flushed_seconds,
        seconds: began.elapsed().as_secs_f64(),
        cpu_seconds: (usage::cpu() - cpu).as_secs_f64(),
        written_bytes: usage::written_bytes()? - written,
        live_bytes: corpus.live_bytes(|_| order.kind.keeps()),
        disk_bytes: usage::disk_bytes(&order.dir)?,
        peak_bytes: usage::peak_bytes()?,
    })
}

fn put_list(subject: &dyn Subject, version: u32, numbers: &[u64]) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut session = subject.session()?;
        while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
            session.put(*number, version)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a writer panicked"))?)
    })
}
