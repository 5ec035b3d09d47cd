//! Soaks a real node: minutes or hours of reads and purges over a store that is much smaller than what is asked for.
//!
//! Always true:
//! - Every answer is checked to its last byte: right key, right length, and no version that an acknowledged purge has ruled out.
//! - What a kill cuts off is excused, wrong content and stale content never are.
//! - It ends by itself, after four times its time at the latest, and by SIGINT or SIGTERM in order; each wait has a deadline.
//! - Whether it was good is decided by `verdict`, and is the exit status.
//!
//! Not here: what a request costs (`load`).

mod admin;
mod connection;
mod content;
#[path = "../load/cpu.rs"]
#[allow(dead_code, reason = "`load` pins its servers and counts their time; here they run wherever they like")]
mod cpu;
mod door;
mod keys;
mod metrics;
mod node;
mod origin;
#[path = "../load/process.rs"]
mod process;
mod purger;
mod quarter;
mod reader;
mod report;
mod sample;
mod soak;
mod tally;
mod verdict;
mod versions;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use crate::origin::OriginFault;
use crate::verdict::Bounds;

/// Fewer allocations in the clients leave more of the machine to the node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MIB: u64 = 1024 * 1024;

/// Soak a node over loopback: is it still right, bounded and fast after its disk was written many times over?
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Args {
    /// At least so long; four times that if not enough has been written by then
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    minutes: u32,
    /// Until so many times the disk budget has been written
    #[arg(long, value_name = "N", default_value_t = 20)]
    times: u32,
    /// Kill the node with SIGKILL about as often, and start it again in its directory
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    kill_every: Option<u32>,
    /// The node's store.disk_max
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(64..=65_536))]
    disk_mib: u32,
    /// The node's store.memory_max
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    memory_mib: u32,
    /// What the process may use beside store.memory_max
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    overhead_mib: u32,
    /// Content of all keys, in disk budgets
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    key_space: u32,
    /// Connections that read
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    connections: u32,
    /// Purges a second; 0 for none
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1000))]
    purges: u32,
    /// Seconds between two samples
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=3600))]
    sample_every: u32,
    /// Of all random choices; another one each time unless given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where the node's directory is made; the system's folder for temporary files unless given
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// The node's binary; the one beside this program unless given
    #[arg(long, value_name = "FILE")]
    brim: Option<PathBuf>,
    /// Let the origin answer wrongly now and then, to see the soak fail
    #[arg(long, value_enum)]
    origin_fault: Option<OriginFault>,
}

impl Args {
    fn disk_max(&self) -> u64 {
        u64::from(self.disk_mib) * MIB
    }

    fn memory_max(&self) -> u64 {
        u64::from(self.memory_mib) * MIB
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}

/// Whether it was good.
fn run(args: &Args) -> anyhow::Result<bool> {
    let bounds =
        Bounds { disk_max: args.disk_max(), resident_max: args.memory_max() + u64::from(args.overhead_mib) * MIB };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let outcome = runtime.block_on(soak::run(args, bounds))?;
    report::print(&outcome, bounds)?;
    Ok(outcome.reasons.is_empty())
}
