//! What is printed: progress on standard error, and a table in Markdown on standard output.

use std::io::{self, Write};

use hdrhistogram::Histogram;

use crate::Args;
use crate::cpu::Cpus;
use crate::measure::{Row, Sample, Times};
use crate::spread::spread;

/// One measurement, as soon as it is made.
pub(crate) fn progress(round: u32, row: &Row, sample: &Sample) -> io::Result<()> {
    let (name, server) = (row.workload.name(), row.server);
    let (cost, rate, share) = (cost_us(sample), rate(sample), share_percent(sample));
    writeln!(io::stderr(), "round {round}: {name} on {server}: {cost:.2} µs, {rate:.0}/s, {share:.0} % of the CPU")
}

/// Why there are no figures.
pub(crate) fn failure(error: &anyhow::Error) {
    // Where nobody reads it, nothing can be said.
    let _ = writeln!(io::stderr(), "load: {error:#}");
}

/// The table.
pub(crate) fn print(rows: &[Row], cpus: &Cpus, args: &Args) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match cpus {
        Cpus::Pinned { server, clients } => {
            writeln!(out, "Server on CPU {server}, clients and origin on CPU {clients}.")?
        }
        Cpus::Shared => writeln!(out, "One CPU for all: the figures say little.")?,
    }
    writeln!(out, "{} round(s) of {} s, interleaved; median [min-max].", args.rounds, args.seconds)?;
    let mut versions: Vec<_> = rows.iter().map(|row| row.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    writeln!(out, "Servers: {}.\n", versions.join("; "))?;
    writeln!(out, "| workload | server | client | CPU µs a request | requests/s | server's share of its CPU |")?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for row in rows {
        let (name, server, client) = (row.workload.name(), row.server, row.client);
        let cost = spread(row.samples.iter().map(cost_us).collect(), 2);
        let rate = spread(row.samples.iter().map(rate).collect(), 0);
        let share = spread(row.samples.iter().map(share_percent).collect(), 0);
        writeln!(out, "| {name} | {server} | {client} | {cost} | {rate} | {share} % |")?;
    }
    Ok(())
}

/// The table of times.
pub(crate) fn print_times(all: &[Times]) -> anyhow::Result<()> {
    let Some(first) = all.first() else { return Ok(()) };
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "\nForwarded requests, one after the other, and at {:.0}/s; µs, median of the rounds [min-max]:\n",
        first.rate
    )?;
    writeln!(out, "| server | alone: p50 | alone: p99 | at the rate: p50 | p99 |\n|---|---|---|---|---|")?;
    for times in all {
        let (alone, rounds) = (&times.alone, &times.rounds);
        let figures = [(alone, 0.5), (alone, 0.99), (rounds, 0.5), (rounds, 0.99)];
        let figures = figures.map(|(rounds, quantile)| quantiles(rounds, quantile)).join(" | ");
        writeln!(out, "| {} | {figures} |", times.server)?;
    }
    Ok(())
}

fn quantiles(rounds: &[Histogram<u64>], quantile: f64) -> String {
    spread(rounds.iter().map(|round| round.value_at_quantile(quantile) as f64).collect(), 0)
}

fn cost_us(sample: &Sample) -> f64 {
    sample.cpu.as_secs_f64() * 1e6 / sample.requests as f64
}

fn rate(sample: &Sample) -> f64 {
    sample.requests as f64 / sample.time.as_secs_f64()
}

fn share_percent(sample: &Sample) -> f64 {
    sample.cpu_meanwhile.as_secs_f64() * 100.0 / sample.time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_request_costs_what_the_server_used_until_it_was_quiet() {
        let sample = Sample {
            requests: 1000,
            time: Duration::from_millis(100),
            cpu: Duration::from_millis(40),
            cpu_meanwhile: Duration::from_millis(30),
        };
        assert_eq!(cost_us(&sample).round(), 40.0);
        assert_eq!(rate(&sample).round(), 10_000.0);
        assert_eq!(share_percent(&sample).round(), 30.0);
    }
}
