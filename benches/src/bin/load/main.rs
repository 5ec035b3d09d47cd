//! Drives a real node over loopback and reports what a request costs it.
//!
//! Always true:
//! - The server has one CPU, everything else (clients, origin) another one, where the machine has two.
//! - What is compared is the server's own CPU time a request; requests per second say as much about the client.
//! - A workload that is not what its name says (a hit that asks the origin, a miss that does not) is an error, not a figure.
//! - Every step has a deadline, and what was started is stopped.
//!
//! Not here: what single functions cost (`benches/semantics.rs`, `store.rs`, `host.rs`).

mod client;
mod cpu;
mod haproxy;
mod measure;
mod nginx;
mod origin;
mod paced;
mod process;
mod program;
mod report;
mod server;
mod spread;
mod tls;
mod tool;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, ValueEnum};

use crate::measure::Bench;
use crate::workload::Workload;

/// Fewer allocations in the client mean more of its CPU for requests.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure a node over loopback: CPU microseconds a request.
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Args {
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Workload::ALL)]
    workload: Vec<Workload>,
    /// Length of one measurement
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Measurements of each workload; all workloads and servers take turns
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Measure these beside the node, where they are installed
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Measure the times of `proxy` too: of all servers, and of the origin itself; alone, and at half the rate that the slowest server reached
    #[arg(long)]
    times: bool,
    /// What sends the requests
    #[arg(long, value_enum, default_value_t = ClientChoice::Auto)]
    client: ClientChoice,
    /// The node's binary; the one beside this program unless given
    #[arg(long, value_name = "FILE")]
    brim: Option<PathBuf>,
}

/// Another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// `proxy_cache` in memory; without it for the workload `proxy`
    Nginx,
    /// For the workload `proxy` alone
    Haproxy,
}

/// What sends the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ClientChoice {
    /// `wrk` and `h2load` where they are installed
    Auto,
    /// The client in this program
    Own,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let cpus = cpu::Cpus::claim()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let (rows, times) = runtime.block_on(async {
        let mut bench = Bench::start(args, &cpus)?;
        let measured = async {
            let rows = bench.run(args).await?;
            let times = if args.times { bench.times(args, &rows)? } else { Vec::new() };
            anyhow::Ok((rows, times))
        };
        let measured = measured.await;
        bench.stop();
        measured
    })?;
    report::print(&rows, &cpus, args)?;
    report::print_times(&times)
}
