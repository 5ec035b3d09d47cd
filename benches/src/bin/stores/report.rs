//! What is printed: progress on standard error, Markdown on standard output.

use std::io::{self, Write};
use std::time::Duration;

use crate::Args;
use crate::brim::{LOADS_AT_ONCE, Reading};
use crate::corpus::SEED;
use crate::parent::Run;
use crate::phase::{Figures, Order, Pages, Step};
use crate::subject::Kind;
use crate::{open, put, read, space};

/// What a process of a step answers its parent.
pub(crate) fn answer(figures: &Figures) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{}", serde_json::to_string(figures)?)?;
    Ok(())
}

/// A step is done.
pub(crate) fn progress(order: &Order, took: Duration) -> anyhow::Result<()> {
    writeln!(io::stderr(), "{:?} of {}: {:.1} s", order.step, order.kind.name(), took.as_secs_f64())?;
    Ok(())
}

/// Why there are no figures.
pub(crate) fn failure(error: &anyhow::Error) {
    // Where nobody reads it, nothing can be said.
    let _ = writeln!(io::stderr(), "stores: {error:#}");
}

const MIB: f64 = (1 << 20) as f64;

/// All tables of a run.
pub(crate) fn print(args: &Args, run: &Run) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{} responses of {:.0} MiB, seed {SEED}; {} CPUs, load before it {}; one file in sequence goes to disk with {:.0} MB/s; {:.0} s in all.",
        args.count,
        run.live_bytes as f64 / MIB,
        std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        run.load_before,
        run.raw_bytes_per_second / 1e6,
        run.seconds
    )?;
    print_puts(&mut out, args, run)?;
    print_reads(&mut out, run)?;
    print_space(&mut out, run)?;
    print_opens(&mut out, run)?;
    print_goals(&mut out, run)
}

fn print_puts(out: &mut dyn Write, args: &Args, run: &Run) -> anyhow::Result<()> {
    let puts: Vec<_> = run.puts().collect();
    if puts.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nPut by two threads:\n")?;
    writeln!(
        out,
        "| store | responses/s, all on disk | taken after | flushed after | on disk after | CPU µs each | written / live | peak MiB |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|")?;
    for (kind, what, figures) in puts {
        let put::Figures { taken_seconds, flushed_seconds, seconds, .. } = figures;
        let rounds = figures.puts as f64 / args.count as f64;
        writeln!(
            out,
            "| {}{what} | {:.0} | {taken_seconds:.2} s | {flushed_seconds:.2} s | {seconds:.2} s | {:.1} | {} | {:.0} |",
            kind.name(),
            put_rate(figures),
            figures.cpu_seconds * 1e6 / figures.puts as f64,
            ratio(figures.written_bytes as f64, rounds * figures.live_bytes as f64),
            figures.peak_bytes as f64 / MIB,
        )?;
    }
    Ok(())
}

fn put_rate(figures: &put::Figures) -> f64 {
    figures.puts as f64 / figures.seconds
}

fn print_reads(out: &mut dyn Write, run: &Run) -> anyhow::Result<()> {
    let mut reads = run.reads().peekable();
    if reads.peek().is_none() {
        return Ok(());
    }
    writeln!(out, "\nWarm reads of random responses, each checked:\n")?;
    writeln!(
        out,
        "| store | 1 thread op/s | p50 / p99 µs | CPU µs each | 4 threads op/s | p50 / p99 µs | CPU µs each | peak MiB |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|")?;
    for (kind, reading, figures) in reads {
        let rate = |rate: read::Rate| {
            format!("{:.0} | {:.1} / {:.1} | {:.1}", rate.per_second, rate.p50_us, rate.p99_us, rate.cpu_us_each)
        };
        let (one, four) = (rate(figures.one_thread), rate(figures.four_threads));
        writeln!(out, "| {}{} | {one} | {four} | {:.0} |", kind.name(), how(reading), figures.peak_bytes as f64 / MIB)?;
    }
    Ok(())
}

fn how(reading: Reading) -> String {
    match reading {
        Reading::Seldom => String::new(),
        Reading::Memory => ", memory tier: `find`".to_owned(),
        Reading::Blocking => ", disk tier: `load_blocking`".to_owned(),
        Reading::Load => ", disk tier: `find`, then `load`".to_owned(),
        Reading::Loads => format!(", the same, {LOADS_AT_ONCE} under way a thread"),
    }
}

fn print_space(out: &mut dyn Write, run: &Run) -> anyhow::Result<()> {
    let spaces: Vec<_> = run.spaces().collect();
    if spaces.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nDisk / live bytes (blocks of the file system), settled = not shrinking for 5 s, at most 60 s:\n")?;
    writeln!(
        out,
        "| store | after | done in | at once | settled | last shrank after | CPU s to settle | MiB written | peak MiB |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|")?;
    for (kind, _, figures) in run.puts().filter(|(kind, what, _)| kind.keeps() && what.is_empty()) {
        let disk = ratio(figures.disk_bytes as f64, figures.live_bytes as f64);
        let (seconds, written) = (figures.seconds, figures.written_bytes as f64 / MIB);
        let peak = figures.peak_bytes as f64 / MIB;
        writeln!(out, "| {} | the puts | {seconds:.1} s | {disk} | | | | {written:.0} | {peak:.0} |", kind.name())?;
    }
    for (kind, step, figures) in spaces {
        let after = if step == Step::Overwrite { "three overwrites" } else { "removing half" };
        writeln!(
            out,
            "| {} | {after} | {:.1} s | {} | {} | {:.0} s | {:.2} | {:.0} | {:.0} |",
            kind.name(),
            figures.seconds,
            ratio(figures.disk_bytes_at_once as f64, figures.live_bytes as f64),
            ratio(figures.disk_bytes as f64, figures.live_bytes as f64),
            figures.settled_seconds,
            figures.settling_cpu_seconds,
            figures.written_bytes as f64 / MIB,
            figures.peak_bytes as f64 / MIB,
        )?;
    }
    Ok(())
}

fn print_opens(out: &mut dyn Write, run: &Run) -> anyhow::Result<()> {
    let mut opens = run.opens().peekable();
    if opens.peek().is_none() {
        return Ok(());
    }
    writeln!(out, "\nOpened anew, {} responses:\n", run.opened_count)?;
    writeln!(
        out,
        "| store | MiB on disk | page cache | `open` returned | all can be found | look-ups answered meanwhile, slowest | CPU ms | MiB read | peak MiB |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|")?;
    for (kind, pages, figures) in opens {
        let pages = match pages {
            Pages::Warm => "warm",
            Pages::Dropped => "its pages dropped",
        };
        writeln!(
            out,
            "| {} | {:.0} | {pages} | {:.0} ms | {:.0} ms | {}, {:.0} µs | {:.0} | {:.0} | {:.0} |",
            kind.name(),
            figures.disk_bytes as f64 / MIB,
            figures.returned_ms,
            figures.ready_ms,
            figures.answers,
            figures.slowest_answer_us,
            figures.cpu_ms,
            figures.read_bytes as f64 / MIB,
            figures.peak_bytes as f64 / MIB,
        )?;
    }
    Ok(())
}

/// The goals, and what this run came to.
fn print_goals(out: &mut dyn Write, run: &Run) -> anyhow::Result<()> {
    writeln!(out, "\n| goal | measured |\n|---|---|")?;
    let four = |wanted: Kind, how: Reading| {
        run.reads().find(|(kind, reading, _)| *kind == wanted && *reading == how).map(|found| found.2.four_threads)
    };
    let sled = four(Kind::Sled, Reading::Seldom);
    for reading in [Reading::Memory, Reading::Blocking, Reading::Load, Reading::Loads] {
        if let (Some(brim), Some(sled)) = (four(Kind::Brim, reading), sled) {
            let measured = ratio(brim.per_second, sled.per_second);
            writeln!(out, "| reads from four threads at least 10 × sled whole{} | {measured} × |", how(reading))?;
        }
    }
    let rate = |wanted: Kind, overwrites: bool| {
        let mut puts = run.puts().filter(|(kind, what, _)| *kind == wanted && what.is_empty() != overwrites);
        puts.next().map(|(_, _, figures)| put_rate(figures))
    };
    for (what, overwrites) in [("put", false), ("overwrite", true)] {
        if let (Some(brim), Some(sled)) = (rate(Kind::Brim, overwrites), rate(Kind::Sled, overwrites)) {
            writeln!(out, "| {what} at least 3 × sled whole | {} × |", ratio(brim, sled))?;
        }
    }
    for (_, step, figures) in run.spaces().filter(|(kind, _, _)| *kind == Kind::Brim) {
        let after = if step == Step::Overwrite { "three overwrites" } else { "removing half" };
        let measured = ratio(figures.disk_bytes as f64, figures.live_bytes as f64);
        writeln!(out, "| disk at most 1.3 × live after {after} | {measured} × |")?;
    }
    let slowest = |wanted: Pages| {
        let opens = run.opens().filter(|(kind, pages, _)| *kind == Kind::Brim && *pages == wanted);
        opens.map(|(_, _, figures)| figures.ready_ms).max_by(f64::total_cmp)
    };
    for (pages, name) in [(Pages::Warm, "warm"), (Pages::Dropped, "dropped")] {
        if let Some(ready_ms) = slowest(pages) {
            writeln!(out, "| open below 1 s, page cache {name} | ready after {ready_ms:.0} ms at most |")?;
        }
    }
    Ok(())
}

fn ratio(of: f64, to: f64) -> String {
    if to > 0.0 { format!("{:.2}", of / to) } else { "-".to_owned() }
}

impl Run {
    /// All measurements of puts, and what they were where they were not the first.
    fn puts(&self) -> impl Iterator<Item = (Kind, &'static str, &put::Figures)> {
        let first = self.done.iter().filter_map(|(kind, _, figures)| match figures {
            Figures::Put(put) => Some((*kind, "", put)),
            _ => None,
        });
        let again = self.done.iter().filter_map(|(kind, _, figures)| match figures {
            Figures::Space(space::Figures { puts: Some(put), .. }) => Some((*kind, ", overwriting", put)),
            _ => None,
        });
        first.chain(again)
    }

    fn reads(&self) -> impl Iterator<Item = (Kind, Reading, &read::Figures)> {
        self.done.iter().filter_map(|(kind, step, figures)| match (step, figures) {
            (Step::Read(reading), Figures::Read(read)) => Some((*kind, *reading, read)),
            _ => None,
        })
    }

    fn spaces(&self) -> impl Iterator<Item = (Kind, Step, &space::Figures)> {
        self.done.iter().filter_map(|(kind, step, figures)| match figures {
            Figures::Space(space) => Some((*kind, *step, space)),
            _ => None,
        })
    }

    fn opens(&self) -> impl Iterator<Item = (Kind, Pages, &open::Figures)> {
        self.done.iter().filter_map(|(kind, step, figures)| match (step, figures) {
            (Step::Open(pages), Figures::Open(open)) => Some((*kind, *pages, open)),
            _ => None,
        })
    }
}
