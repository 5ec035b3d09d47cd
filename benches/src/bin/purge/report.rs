//! What is printed: progress on standard error, and a table in Markdown on standard output.

use std::io::{self, Write};
use std::time::Duration;

use crate::cpu::Cpus;
use crate::origin::{BYSTANDERS, CONTENT_BYTES};
use crate::round::{Figures, Row};
use crate::spread::spread;
use crate::{Args, Mode};

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
        }
    }
}

/// The latest measurement of a row.
pub(crate) fn progress(round: u32, row: &Row) -> io::Result<()> {
    let Some(figures) = row.figures.last() else { return Ok(()) };
    let (mode, name) = (row.mode.name(), row.subject.name());
    let (acknowledged, [before, first, second]) = (ms(figures.acknowledged), figures.hit_us);
    let mut out = io::stderr().lock();
    writeln!(
        out,
        "round {round}: {mode} purge on {name}: {acknowledged:.2} ms; a hit {before:.2}, {first:.2}, {second:.2} µs"
    )
}

/// Why there are no figures.
pub(crate) fn failure(error: &anyhow::Error) {
    // Where nobody reads it, nothing can be said.
    let _ = writeln!(io::stderr(), "purge: {error:#}");
}

/// The table.
pub(crate) fn print(rows: &[Row], cpus: &Cpus, args: &Args) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match cpus {
        Cpus::Pinned { server, clients } => {
            writeln!(out, "Server on CPU {server}, client and origin on CPU {clients}.")?
        }
        Cpus::Shared => writeln!(out, "One CPU for all: the figures say little.")?,
    }
    let Args { responses, purges, connections, rounds, .. } = args;
    writeln!(out, "{responses} responses of {CONTENT_BYTES} bytes with the key, {BYSTANDERS} without.")?;
    writeln!(out, "{rounds} round(s), interleaved, a new server each; median [min-max].")?;
    let mut versions: Vec<_> = rows.iter().map(|row| row.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    writeln!(out, "Servers: {}.\n", versions.join("; "))?;
    writeln!(
        out,
        "| purge | server | acknowledged, ms | seen on {connections} connections, ms | its CPU, ms | CPU µs a hit: before | first after {purges} purges of nothing | \
         second | a purge of nothing: ms | CPU µs | resident MiB: empty | filled | after the hits |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|---|---|---|---|")?;
    for row in rows {
        let cell = |digits, figure: &dyn Fn(&Figures) -> f64| spread(row.figures.iter().map(figure).collect(), digits);
        let cells = [
            cell(2, &|figures| ms(figures.acknowledged)),
            cell(2, &|figures| ms(figures.seen)),
            cell(0, &|figures| ms(figures.cpu)),
            cell(2, &|figures| figures.hit_us[0]),
            cell(2, &|figures| figures.hit_us[1]),
            cell(2, &|figures| figures.hit_us[2]),
            cell(3, &|figures| ms(figures.nothing)),
            cell(0, &|figures| figures.nothing_cpu_us),
            cell(0, &|figures| figures.memory_mib[0]),
            cell(0, &|figures| figures.memory_mib[1]),
            cell(0, &|figures| figures.memory_mib[2]),
        ];
        writeln!(out, "| {} | {} | {} |", row.mode.name(), row.subject.name(), cells.join(" | "))?;
    }
    writeln!(out)?;
    for row in rows {
        print_beside(&mut out, row, *purges)?;
    }
    Ok(())
}

/// What the table has no column for.
fn print_beside(out: &mut impl Write, row: &Row, purges: u32) -> io::Result<()> {
    let (mode, name) = (row.mode.name(), row.subject.name());
    let cell = |digits, figure: &dyn Fn(&Figures) -> f64| spread(row.figures.iter().map(figure).collect(), digits);
    let ended = cell(1, &|figures| figures.hits_ended.as_secs_f64());
    writeln!(
        out,
        "- {name}, {mode}: both passes of hits had ended {ended} s after the last of the purges of nothing."
    )?;
    if row.figures.iter().any(|figures| figures.refreshed > 0) {
        let refreshed = cell(0, &|figures| figures.refreshed as f64);
        writeln!(out, "- {name}, {mode}: {refreshed} responses were fetched unasked while the server became quiet.")?;
    }
    let lurkers: Vec<_> = row.figures.iter().filter_map(|figures| figures.lurker.as_ref()).collect();
    if !lurkers.is_empty() {
        let time = spread(lurkers.iter().map(|lurker| lurker.time.as_secs_f64()).collect(), 0);
        let cpu = spread(lurkers.iter().map(|lurker| lurker.cpu.as_secs_f64()).collect(), 2);
        let hit = spread(lurkers.iter().map(|lurker| lurker.hit_us).collect(), 2);
        writeln!(
            out,
            "- {name}: {purges} more bans and no request: the lurker was through {time} s after them, with {cpu} s of CPU; a hit then: {hit} µs."
        )?;
    }
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
