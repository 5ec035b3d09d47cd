//! How many requests hit, by what the disk tier evicts and admits: models at the granularity of bytes, and the real store.
//!
//! Always true:
//! - Every policy and the real store meet the same trace: the same keys in the same order, with the same lengths. All seeds
//!   are fixed and printed.
//! - The hot set's requests are the same whatever crawl is mixed into them, so that its hit ratios can be compared.
//! - What the real store returns is checked, and waited for: a response is found or missed by policy, never because the
//!   disk had not caught up.
//!
//! Not here: what a hit or a miss costs (`stores`, `benches/store.rs`).

mod admission;
mod lru;
mod policy;
mod real;
mod report;
mod segments;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use brim_benches::Lengths;
use clap::Parser;

use crate::policy::{Outcome, Plan};
use crate::real::Measured;
use crate::trace::{SEED, Trace};

/// The allocator of the node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Hit ratios of eviction and admission policies, and of the real store.
#[derive(Debug, Clone, Parser)]
#[command(name = "hit-ratio")]
struct Args {
    /// Keys of the hot set
    #[arg(long, value_name = "N", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(100..=5_000_000))]
    keys: u64,
    /// Requests for the hot set that are counted; a third as many come before, to fill the disk
    #[arg(long, value_name = "N", default_value_t = 150_000, value_parser = clap::value_parser!(u64).range(100..=50_000_000))]
    requests: u64,
    /// Exponents of the hot set's Zipf distribution
    #[arg(long, value_name = "S", value_delimiter = ',', default_values_t = [0.8, 1.0])]
    exponents: Vec<f64>,
    /// Per cent of all requests that are for keys never seen again
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', default_values_t = [0, 20, 90],
        value_parser = clap::value_parser!(u8).range(0..=95))]
    crawls: Vec<u8>,
    /// Median length of a response in bytes; their logarithms deviate by 1.1
    #[arg(long, value_name = "BYTES", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(256..=65_536))]
    median: u32,
    /// Disk budget
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(16..=65_536))]
    disk_mib: u64,
    /// The models alone
    #[arg(long)]
    models_only: bool,
    /// Where the store's data lies meanwhile; the system's temporary directory unless given
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// One exponent and one share of crawl.
struct Case {
    exponent: f64,
    crawl_percent: u8,
    outcomes: Vec<(String, Outcome)>,
    measured: Option<Measured>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let began = Instant::now();
    let count = usize::try_from(args.keys).context("so many keys do not fit")?;
    let lengths = Lengths::log_normal(count, args.median, 1.1, (256, 200 * 1024), SEED)?;
    let plan = Plan::new(args.disk_mib << 20, &lengths);
    let mut cases = Vec::new();
    for exponent in &args.exponents {
        for crawl_percent in &args.crawls {
            let trace = || Trace::new(args.keys, args.requests, *exponent, *crawl_percent);
            let mut outcomes = Vec::new();
            for (name, mut policy) in policy::all(&plan) {
                outcomes.push((name, policy::play(trace()?, &lengths, &mut *policy)));
            }
            let measured = match args.models_only {
                true => None,
                false => Some(real::play(trace()?, &lengths, &plan, args.dir.as_deref())?),
            };
            if let Some(measured) = &measured {
                let as_measured = plan.with_capacity(measured.capacity(&plan));
                let mut policy = policy::reinserting(&as_measured);
                let outcome = policy::play(trace()?, &lengths, &mut policy);
                outcomes.push((policy::AS_MEASURED.to_owned(), outcome));
                outcomes.push((real::NAME.to_owned(), measured.outcome));
            }
            report::progress(*exponent, *crawl_percent, began.elapsed())?;
            cases.push(Case { exponent: *exponent, crawl_percent: *crawl_percent, outcomes, measured });
        }
    }
    report::print(args, &plan, &lengths, &cases, began.elapsed())
}
