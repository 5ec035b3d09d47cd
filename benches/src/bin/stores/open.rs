//! A store of some size is opened anew.

use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use serde::{Deserialize, Serialize};

use crate::brim::Reading;
use crate::corpus::Corpus;
use crate::phase::{Order, Pages};
use crate::put::FIRST_VERSION;
use crate::usage;

/// Responses that are read afterwards: it is the store that was put.
const LOOKS: u64 = 100;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Until the call that opens it returned.
    pub(crate) returned_ms: f64,
    /// Until everything can be found.
    pub(crate) ready_ms: f64,
    /// Look-ups that were answered between the two.
    pub(crate) answers: u64,
    pub(crate) slowest_answer_us: f64,
    pub(crate) cpu_ms: f64,
    pub(crate) read_bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) peak_bytes: u64,
}

pub(crate) fn run(order: &Order, corpus: &Arc<Corpus>, pages: Pages) -> anyhow::Result<Figures> {
    let disk_bytes = usage::disk_bytes(&order.dir)?;
    if pages == Pages::Dropped {
        usage::drop_pages(&order.dir)?;
    }
    let (read, cpu, began) = (usage::read_bytes()?, usage::cpu(), Instant::now());
    let subject = order.kind.open(&order.dir, corpus, Reading::Seldom)?;
    let returned = began.elapsed();
    let meanwhile = subject.ready()?;
    let figures = Figures {
        returned_ms: returned.as_secs_f64() * 1e3,
        ready_ms: began.elapsed().as_secs_f64() * 1e3,
        answers: meanwhile.answers,
        slowest_answer_us: meanwhile.slowest.as_secs_f64() * 1e6,
        cpu_ms: (usage::cpu() - cpu).as_secs_f64() * 1e3,
        read_bytes: usage::read_bytes()? - read,
        disk_bytes,
        peak_bytes: usage::peak_bytes()?,
    };
    let mut session = subject.session()?;
    for number in (0..corpus.count).step_by(usize::try_from(corpus.count / LOOKS)?.max(1)) {
        let is_there = session.read(number, &mut |content| corpus.check_all(number, FIRST_VERSION, content))?;
        ensure!(is_there, "response {number} is missing after opening");
    }
    drop(session);
    subject.close()?;
    Ok(figures)
}
