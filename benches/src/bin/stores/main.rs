//! Puts one workload into brim-store, into sled whole and into plain files, and reports what each costs.
//!
//! Always true:
//! - Every store gets the same responses in the same order, and each phase of each store is a process of its own: no
//!   store lives with another one's memory, and its peak is its own.
//! - What is read is checked. A wrong or a missing response ends the run; it is not a figure.
//! - A put is done when everything is on disk: the store's own flush and `syncfs` are part of its time.
//! - Every phase is bounded; the data is removed at the end.
//!
//! Not here: what single calls cost (`benches/store.rs`), how many requests hit (`hit_ratio`).

mod brim;
mod corpus;
mod files;
mod nothing;
mod open;
mod parent;
mod phase;
mod put;
mod read;
mod report;
mod sled_whole;
mod space;
mod subject;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::phase::{Order, Phase};
use crate::subject::Kind;

/// The allocator of the node, for all of them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compare brim-store with sled whole and with plain files.
#[derive(Debug, Clone, Parser)]
#[command(name = "stores")]
struct Args {
    /// Responses
    #[arg(long, value_name = "N", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(100..=2_000_000))]
    count: u64,
    /// Length of each measurement of reads
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Size of the stores that are opened anew; 0 leaves that out
    #[arg(long, value_name = "GIB", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=64))]
    open_gib: u64,
    /// The stores to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Kind::ALL)]
    stores: Vec<Kind>,
    /// The phases to measure; those that they need are run too
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Phase::ALL)]
    phases: Vec<Phase>,
    /// Where the data lies meanwhile; the system's temporary directory unless given
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// One phase of one store: what the processes of a run are told
    #[arg(long, hide = true, value_name = "JSON", value_parser = Order::parse)]
    order: Option<Order>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.order {
        Some(order) => phase::run(order).and_then(|figures| report::answer(&figures)),
        None => parent::run(&args).and_then(|run| report::print(&args, &run)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}
