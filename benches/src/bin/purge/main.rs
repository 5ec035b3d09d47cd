//! Measures what purging a surrogate key costs, at once and later, in a node and in Varnish with its two ways to do it.
//!
//! Always true:
//! - The server has one CPU, client and origin another one, where the machine has two. Every measurement has a server of its own,
//!   that nothing was purged from before; servers and modes take turns.
//! - Every answer is checked. After the acknowledgement of a hard purge an old answer ends the run, and so does a hit that asks the
//!   origin, or a response without the key that is gone.
//! - Every step has a deadline, and what was started is stopped.
//!
//! Not here: what a request costs otherwise (`load`), and whether purges hold through kills and weeks (`soak`).

mod connection;
#[path = "../load/cpu.rs"]
mod cpu;
mod node;
mod origin;
mod pass;
#[path = "../load/process.rs"]
#[allow(dead_code, reason = "`soak` reads the last lines of a log")]
mod process;
#[path = "../load/program.rs"]
mod program;
mod report;
mod round;
mod server;
#[path = "../load/spread.rs"]
mod spread;
mod varnish;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::cpu::Cpus;
use crate::origin::Origin;
use crate::round::Row;

/// Fewer allocations in the client leave more of its CPU for requests.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure over loopback what a purge by surrogate key costs: until it is acknowledged, until it is seen, and in later hits.
#[derive(Debug, Parser)]
#[command(name = "purge")]
struct Args {
    /// Responses that carry the key that is purged
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..=1_000_000))]
    responses: u64,
    /// Purges of keys that nothing carries, before later hits are measured
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    purges: u32,
    /// Connections on each of which the next request must see the purge
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=256))]
    connections: u64,
    /// Measurements of each server and mode
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// How to purge
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Mode::Hard, Mode::Soft])]
    modes: Vec<Mode>,
    /// Measure these beside the node
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Measure once more after Varnish's ban lurker has gone over all responses; a minute or two for each round
    #[arg(long)]
    lurker: bool,
    /// Threads of the node that serve
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// The node's binary; the one beside this program unless given
    #[arg(long, value_name = "FILE")]
    brim: Option<PathBuf>,
}

/// What a purge does to stored responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Takes them away
    Hard,
    /// Makes them stale; Varnish has that with xkey alone
    Soft,
}

/// Varnish, and how it purges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// A ban, to which each response is held when it is next asked for
    VarnishBan,
    /// The module xkey, which keeps an index by key
    VarnishXkey,
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Brim,
    Peer(Peer),
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Self::Brim => "brim",
            Self::Peer(Peer::VarnishBan) => "varnish, ban",
            Self::Peer(Peer::VarnishXkey) => "varnish, xkey",
        }
    }

    fn purges(self, mode: Mode) -> bool {
        mode == Mode::Hard || self != Self::Peer(Peer::VarnishBan)
    }
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
    let cpus = Cpus::claim()?;
    let origin = Origin::start(args.responses, args.connections)?;
    let subjects: Vec<Subject> =
        [Subject::Brim].into_iter().chain(args.peers.iter().copied().map(Subject::Peer)).collect();
    let mut rows = Vec::new();
    for mode in &args.modes {
        for subject in subjects.iter().filter(|subject| subject.purges(*mode)) {
            rows.push(Row { mode: *mode, subject: *subject, version: String::new(), figures: Vec::new() });
        }
    }
    for round in 1..=args.rounds {
        for row in &mut rows {
            round::measure(args, &cpus, &origin, row)?;
            report::progress(round, row)?;
        }
    }
    report::print(&rows, &cpus, args)
}
