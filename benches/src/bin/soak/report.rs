//! What is printed: a line a sample on standard error, and at the end tables in Markdown and the verdict on standard output.

use std::io::{self, Write};
use std::time::Duration;

use crate::metrics::sum;
use crate::quarter::{Quarter, accounted_bytes, hit_percent};
use crate::sample::Sample;
use crate::soak::{End, Outcome};
use crate::verdict::{Bounds, mib};

/// What a soak is about to do.
pub(crate) fn beginning(keys: u32, bytes: u64, seed: u64) -> io::Result<()> {
    writeln!(io::stderr(), "soak: {keys} keys with {:.0} MiB of content; --seed {seed}", mib(bytes as f64))
}

/// One sample, as soon as it is taken.
pub(crate) fn progress(sample: &Sample, faults: u64) -> io::Result<()> {
    let rate = hit_percent(sample.hits, sample.misses);
    let written = sum(&sample.figures, "brim_store_written_bytes_total");
    writeln!(
        io::stderr(),
        "{:>5} s: memory {:.0} MiB; disk {:.0} + {:.0} MiB, accounted {:.0}; {:.0} MiB written; {} requests, {rate:.0} % hits, p99 {} µs; misses p99 {} µs; {} files{}",
        sample.at.as_secs(),
        mib(sample.used.resident_bytes as f64),
        mib(sample.used.segment_bytes as f64),
        mib(sample.used.index_bytes as f64),
        mib(accounted_bytes(sample)),
        mib(written),
        sample.hits.count + sample.misses.count,
        sample.hits.p99_us.unwrap_or_default(),
        sample.misses.p99_us.unwrap_or_default(),
        sample.used.open_files,
        if faults > 0 { format!("; {faults} FAULTS") } else { String::new() },
    )
}

/// What the node has warned of.
pub(crate) fn warnings(lines: &[String]) -> io::Result<()> {
    lines.iter().try_for_each(|line| writeln!(io::stderr(), "  node: {line}"))
}

/// A kill, and how soon the node listened again.
pub(crate) fn killed(took: Duration) -> io::Result<()> {
    writeln!(io::stderr(), "soak: killed; it listened again after {} ms", took.as_millis())
}

/// Why there is no verdict.
pub(crate) fn failure(error: &anyhow::Error) {
    // Where nobody reads it, nothing can be said.
    let _ = writeln!(io::stderr(), "soak: {error:#}");
}

type Row<'a> = (&'a str, Box<dyn Fn(&Quarter) -> String>);

/// Quarters side by side.
fn rows() -> Vec<Row<'static>> {
    fn count(metric: &'static str) -> Box<dyn Fn(&Quarter) -> String> {
        Box::new(move |quarter| format!("{:.0}", quarter.growth(metric)))
    }
    fn size(metric: &'static str) -> Box<dyn Fn(&Quarter) -> String> {
        Box::new(move |quarter| format!("{:.1}", mib(quarter.growth(metric))))
    }
    fn now(metric: &'static str) -> Box<dyn Fn(&Quarter) -> String> {
        Box::new(move |quarter| format!("{:.0}", sum(&quarter.figures[1], metric)))
    }
    fn pair(p50: Option<u32>, p99: Option<u32>) -> String {
        let figure = |value: Option<u32>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        format!("{} / {}", figure(p50), figure(p99))
    }
    vec![
        ("until, s", Box::new(|quarter| quarter.to.as_secs().to_string())),
        ("samples", Box::new(|quarter| quarter.samples.to_string())),
        (
            "memory, MiB: median / most",
            Box::new(|quarter| {
                format!("{:.1} / {:.1}", mib(quarter.resident_median as f64), mib(quarter.resident_max as f64))
            }),
        ),
        ("– memory tier", Box::new(|quarter| format!("{:.1}", mib(quarter.memory_tier_max)))),
        ("– waits to be written", Box::new(|quarter| format!("{:.1}", mib(quarter.queued_max)))),
        ("disk as accounted, MiB: most", Box::new(|quarter| format!("{:.1}", mib(quarter.accounted_max)))),
        ("disk in blocks, MiB: most", Box::new(|quarter| format!("{:.1}", mib(quarter.on_disk_max as f64)))),
        ("– segments", Box::new(|quarter| format!("{:.1}", mib(quarter.segments_max as f64)))),
        ("– index", Box::new(|quarter| format!("{:.1}", mib(quarter.index_max as f64)))),
        ("requests", Box::new(|quarter| (quarter.hits + quarter.misses).to_string())),
        (
            "hits, %",
            Box::new(|quarter| quarter.hit_percent().map_or_else(|| "-".to_owned(), |share| format!("{share:.1}"))),
        ),
        ("hits, µs: p50 / p99", Box::new(|quarter| pair(quarter.hit_p50_us, quarter.hit_p99_us))),
        ("misses, µs: p50 / p99", Box::new(|quarter| pair(quarter.miss_p50_us, quarter.miss_p99_us))),
        ("open files: most", Box::new(|quarter| quarter.open_files_max.to_string())),
        ("written, MiB", size("brim_store_written_bytes_total")),
        ("– responses", count("brim_store_writes_total")),
        ("not admitted", count("brim_store_not_admitted_total")),
        ("dropped writes", count("brim_store_writes_dropped_total")),
        ("write errors", count("brim_store_write_errors_total")),
        ("evicted responses", count("brim_store_evictions_total")),
        ("moved responses", count("brim_store_moved_total")),
        ("demoted responses", count("brim_store_demoted_total")),
        ("compacted segments", count("brim_store_segments_compacted_total")),
        ("– moved, MiB", size("brim_store_compacted_bytes_total")),
        ("index rebuilds", count("brim_store_index_rebuilds_total")),
        ("loads", count("brim_store_loads_total")),
        ("loads given up", count("brim_store_loads_given_up_total")),
        ("read failures", count("brim_store_read_failures_total")),
        ("entries at its end", now("brim_store_entries")),
        ("segments at its end", now("brim_store_segments")),
    ]
}

/// Everything at the end.
pub(crate) fn print(outcome: &Outcome, bounds: Bounds) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let counts = &outcome.counts;
    writeln!(out, "| | 1st quarter | 2nd | 3rd | 4th |\n|---|---|---|---|---|")?;
    let quarters = Quarter::all(&outcome.samples);
    for (name, figure) in rows() {
        writeln!(out, "| {name} | {} |", quarters.each_ref().map(figure).join(" | "))?;
    }
    writeln!(
        out,
        "\n{} hits and {} misses, {:.0} MiB of content checked; {} purges; {} requests to the origin, {} of them validations that held; {} kills, which cut off {} requests.",
        counts.hits,
        counts.misses,
        mib(counts.content_bytes as f64),
        counts.purges,
        outcome.origin_requests,
        outcome.origin_validated,
        counts.kills,
        counts.cut_by_kills,
    )?;
    writeln!(
        out,
        "Written through: {:.1} times the disk budget of {:.0} MiB. Bounds: memory {:.0} MiB, disk {:.0} MiB.",
        outcome.times_written(),
        mib(bounds.disk_max as f64),
        mib(bounds.resident_max as f64),
        mib(bounds.on_disk_max() as f64),
    )?;
    match outcome.end {
        End::Done => {}
        End::TimeOver => writeln!(out, "It ended because its time was over, with less written than it was to be.")?,
        End::Told => writeln!(out, "It ended because it was told to.")?,
    }
    for example in &counts.examples {
        writeln!(out, "- {example}")?;
    }
    if outcome.reasons.is_empty() {
        return writeln!(out, "\nVerdict: good.");
    }
    writeln!(out, "\nVerdict: NOT good.")?;
    for reason in &outcome.reasons {
        writeln!(out, "- {reason}")?;
    }
    Ok(())
}
