//! What is printed: progress on standard error, Markdown on standard output.

use std::io::{self, Write};
use std::time::Duration;

use brim_benches::Lengths;

use crate::policy::{Outcome, Plan};
use crate::trace::SEED;
use crate::{Args, Case};

/// One case is done.
pub(crate) fn progress(exponent: f64, crawl_percent: u8, since: Duration) -> io::Result<()> {
    writeln!(io::stderr(), "exponent {exponent}, crawl {crawl_percent} %: done after {:.0} s", since.as_secs_f64())
}

/// Why there are no figures.
pub(crate) fn failure(error: &anyhow::Error) {
    // Where nobody reads it, nothing can be said.
    let _ = writeln!(io::stderr(), "hit-ratio: {error:#}");
}

/// All tables.
pub(crate) fn print(args: &Args, plan: &Plan, lengths: &Lengths, cases: &[Case], took: Duration) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    writeln!(
        out,
        "{} keys of {:.0} MiB, {} requests for them counted after {} that are not; disk {} MiB in segments of {:.1} MiB, about {} responses; seed {SEED}; {:.0} s in all.",
        args.keys,
        mib(lengths.sum()),
        args.requests,
        args.requests / 3,
        args.disk_mib,
        mib(plan.segment_bytes),
        plan.held,
        took.as_secs_f64()
    )?;
    for exponent in &args.exponents {
        let cases: Vec<_> = cases.iter().filter(|case| case.exponent == *exponent).collect();
        print_exponent(&mut out, *exponent, &cases)?;
        print_measured(&mut out, &cases)?;
    }
    Ok(())
}

/// A row a policy; for each share of crawl all hits, those of the hot set, and what the crawl left of these.
fn print_exponent(out: &mut dyn Write, exponent: f64, cases: &[&Case]) -> anyhow::Result<()> {
    writeln!(
        out,
        "\nExponent {exponent}. Hit ratio of the hot set, (what it is of its undisturbed value), [of all requests], writes a miss:\n"
    )?;
    write!(out, "| policy |")?;
    for case in cases {
        write!(out, " crawl {} % |", case.crawl_percent)?;
    }
    writeln!(out, "\n|---|{}", "---|".repeat(cases.len()))?;
    let Some(first) = cases.first() else { return Ok(()) };
    for (name, _) in &first.outcomes {
        write!(out, "| {name} |")?;
        let of = |case: &Case| case.outcomes.iter().find(|(other, _)| other == name).map(|(_, outcome)| *outcome);
        let undisturbed = cases.iter().find(|case| case.crawl_percent == 0).and_then(|case| of(case));
        for case in cases {
            let Some(outcome) = of(case) else { continue };
            write!(out, " {} |", cell(&outcome, undisturbed.filter(|_| case.crawl_percent > 0)))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn cell(outcome: &Outcome, undisturbed: Option<Outcome>) -> String {
    let hot = outcome.hot_ratio() * 100.0;
    let written = outcome.written_by_miss();
    match undisturbed {
        None => format!("{hot:.1} %; {written:.2}"),
        Some(undisturbed) => {
            let kept = outcome.hot_ratio() / undisturbed.hot_ratio().max(f64::MIN_POSITIVE);
            format!("{hot:.1} % ({kept:.2}) [{:.1} %]; {written:.2}", outcome.ratio() * 100.0)
        }
    }
}

/// What else the real store told.
fn print_measured(out: &mut dyn Write, cases: &[&Case]) -> anyhow::Result<()> {
    let mut measured = cases.iter().filter_map(|case| Some((case.crawl_percent, case.measured.as_ref()?))).peekable();
    if measured.peek().is_none() {
        return Ok(());
    }
    writeln!(
        out,
        "\n| the real store, crawl | hits from memory | index MiB, mean | segments evicted | moved | evicted | compacted | writes dropped | seconds |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|")?;
    for (crawl_percent, measured) in measured {
        let stats = &measured.stats;
        writeln!(
            out,
            "| {crawl_percent} % | {:.1} % | {:.1} | {} | {} | {} | {} | {} | {:.0} |",
            measured.memory_hits as f64 * 100.0 / measured.outcome.hits.max(1) as f64,
            measured.index_bytes as f64 / f64::from(1 << 20),
            stats.segments_evicted,
            stats.moved,
            stats.responses_evicted,
            stats.segments_compacted,
            stats.writes_dropped,
            measured.seconds
        )?;
    }
    Ok(())
}
