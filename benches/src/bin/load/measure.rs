//! Measurements: all servers and workloads in turns, so that what else the machine does meets all of them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use rustix::process::Pid;
use tempfile::TempDir;

use crate::client::{self, Target};
use crate::cpu::{self, Cpus};
use crate::origin::Origin;
use crate::process::brim_binary;
use crate::server::{Server, start_brim};
use crate::tls::Certificate;
use crate::tool::Generator;
use crate::workload::Workload;
use crate::{Args, Peer, haproxy, nginx, paced, report};

/// Requests before each measurement, always by the own client.
const WARM_UP: Duration = Duration::from_millis(300);
/// One request in so many may go the other way than its workload's name says.
const STRAYS_ONE_IN: u64 = 100;

/// A server that uses no CPU for so long, and asks the origin for nothing, is quiet.
const QUIET: Duration = Duration::from_millis(100);
/// One that is not quiet by then does something of its own, which then is a part of what it costs.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(3);

/// What one measurement saw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Good responses.
    pub(crate) requests: u64,
    pub(crate) time: Duration,
    /// What the server used for them, until it was quiet again: writing to disk goes on after the answer.
    pub(crate) cpu: Duration,
    /// What it used within `time`.
    pub(crate) cpu_meanwhile: Duration,
}

/// The measurements of one workload on one server.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) workload: Workload,
    pub(crate) server: &'static str,
    pub(crate) version: String,
    pub(crate) client: &'static str,
    pub(crate) samples: Vec<Sample>,
}

impl Row {
    /// Requests per second, the median of the rounds.
    fn rate(&self) -> f64 {
        let mut rates: Vec<f64> =
            self.samples.iter().map(|sample| sample.requests as f64 / sample.time.as_secs_f64()).collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or(0.0)
    }
}

/// How long the requests to one server took, in microseconds, round by round.
pub(crate) struct Times {
    pub(crate) server: &'static str,
    pub(crate) rate: f64,
    /// One request after the other.
    pub(crate) alone: Vec<Histogram<u64>>,
    /// At the rate.
    pub(crate) rounds: Vec<Histogram<u64>>,
}

/// Everything that runs.
pub(crate) struct Bench {
    origin: Origin,
    certificate: Certificate,
    servers: Vec<Server>,
    /// So that no URL is asked for twice, whichever round it is.
    next: Arc<AtomicU64>,
    // The certificate's files.
    _folder: TempDir,
}

impl Bench {
    /// Starts the origin and the servers.
    pub(crate) fn start(args: &Args, cpus: &Cpus) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for the certificate")?;
        let certificate = Certificate::make(folder.path())?;
        let origin = Origin::start()?;
        let mut servers = vec![start_brim(&brim_binary(args.brim.as_deref())?, &origin, &certificate, cpus)?];
        for peer in &args.peers {
            servers.push(match peer {
                Peer::Nginx => nginx::start(&origin, &certificate, cpus)?,
                Peer::Haproxy => haproxy::start(&origin, cpus)?,
            });
        }
        Ok(Self { origin, certificate, servers, next: Arc::default(), _folder: folder })
    }

    /// Measures all rounds.
    pub(crate) async fn run(&mut self, args: &Args) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for workload in &args.workload {
            for server in self.servers.iter().filter(|server| server.serves(*workload)) {
                let client = Generator::choose(args.client, *workload).name();
                let (name, version) = (server.name, server.version.clone());
                rows.push(Row { workload: *workload, server: name, version, client, samples: Vec::new() });
            }
        }
        for round in 1..=args.rounds {
            for row in &mut rows {
                let sample = self.measure(args, row.workload, row.server).await;
                let sample = sample.with_context(|| format!("{} on {}", row.workload.name(), row.server))?;
                report::progress(round, row, &sample)?;
                row.samples.push(sample);
            }
        }
        Ok(rows)
    }

    /// How long requests take that are forwarded, at half of what the slowest server can do.
    pub(crate) fn times(&self, args: &Args, rows: &[Row]) -> anyhow::Result<Vec<Times>> {
        let rates = rows.iter().filter(|row| row.workload == Workload::Proxy).map(Row::rate);
        let rate = rates.min_by(f64::total_cmp).context("--times needs the workload `proxy`")? / 2.0;
        let targets = self.servers.iter().map(|server| (server.name, server.addresses.http1));
        let targets: Vec<_> = std::iter::once(("(the origin itself)", self.origin.address)).chain(targets).collect();
        let mut all: Vec<Times> = Vec::new();
        for (server, _) in &targets {
            all.push(Times { server, rate, alone: Vec::new(), rounds: Vec::new() });
        }
        let (path, time) = (Workload::Proxy.path(), Duration::from_secs(args.seconds));
        for _ in 0..args.rounds {
            for ((_, address), times) in targets.iter().zip(&mut all) {
                paced::alone(*address, path, WARM_UP)?;
                times.alone.push(paced::alone(*address, path, time)?);
                times.rounds.push(paced::at_rate(*address, path, rate, time)?);
            }
        }
        Ok(all)
    }

    /// Stops the servers.
    pub(crate) fn stop(self) {
        drop(self);
    }

    async fn measure(&mut self, args: &Args, workload: Workload, server: &str) -> anyhow::Result<Sample> {
        let server = self.servers.iter_mut().find(|one| one.name == server).context("no such server")?;
        let target = Target {
            workload,
            address: server.addresses.of(workload),
            tls: self.certificate.client(workload.protocol())?,
            next: Arc::clone(&self.next),
        };
        let process = server.process.id();
        let asked_before = self.origin.requests();
        client::probe(&target).await.context("the first requests")?;
        let asked = self.origin.requests() - asked_before;
        let expected = if workload == Workload::Proxy { 2..=2 } else { 0..=if workload.is_hit() { 1 } else { 2 } };
        ensure!(expected.contains(&asked), "the origin was asked {asked} times for 2 requests for one URL");
        client::drive(&target, WARM_UP).await.context("warm-up")?;
        quiet(process, &self.origin).await?;

        let generator = Generator::choose(args.client, workload);
        let (asked_before, cpu_before, began) = (self.origin.requests(), cpu::used(process)?, Instant::now());
        let driven = generator.drive(&target, args.seconds).await;
        // A server that is gone is the better reason for whatever went wrong.
        server.process.check_running()?;
        let requests = driven?;
        let (time, cpu_meanwhile) = (began.elapsed(), cpu::used(process)?.saturating_sub(cpu_before));
        quiet(process, &self.origin).await?;
        let cpu = cpu::used(process)?.saturating_sub(cpu_before);
        check_kind(workload, requests, self.origin.requests() - asked_before)?;
        Ok(Sample { requests, time, cpu, cpu_meanwhile })
    }
}

/// Waits until the server is quiet, or for as long as it may take.
async fn quiet(process: Pid, origin: &Origin) -> anyhow::Result<()> {
    let deadline = Instant::now() + QUIET_WAIT_MAX;
    let mut before = (cpu::used(process)?, origin.requests());
    while Instant::now() < deadline {
        tokio::time::sleep(QUIET).await;
        let now = (cpu::used(process)?, origin.requests());
        if now == before {
            break;
        }
        before = now;
    }
    Ok(())
}

/// Whether the requests were what the workload says.
fn check_kind(workload: Workload, requests: u64, asked: u64) -> anyhow::Result<()> {
    ensure!(requests > 0, "no request was answered");
    let expected = if workload.is_hit() { 0 } else { requests };
    let strays = asked.abs_diff(expected);
    // Requests under way at the end are at the origin and not counted here.
    let in_flight = (workload.connections() * workload.streams()) as u64;
    let allowed = in_flight.max(requests / STRAYS_ONE_IN);
    ensure!(strays <= allowed, "the origin was asked {asked} times for {requests} requests, not {expected} times");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_that_asks_the_origin_is_no_hit() {
        assert!(check_kind(Workload::H1, 100_000, 3).is_ok());
        assert!(check_kind(Workload::H1, 100_000, 50_000).is_err());
        assert!(check_kind(Workload::H1, 0, 0).is_err());
    }

    #[test]
    fn a_miss_that_does_not_is_no_miss() {
        assert!(check_kind(Workload::Miss, 10_000, 10_064).is_ok());
        assert!(check_kind(Workload::Miss, 10_000, 5_000).is_err());
    }
}
