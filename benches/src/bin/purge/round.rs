//! One measurement: a new server is filled, asked, told to purge what nothing carries, asked again, and told to purge what all carry.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;

use crate::connection::Connection;
use crate::cpu::Cpus;
use crate::origin::{BYSTANDERS, COMMON_KEY, Origin};
use crate::pass::{hits, pass};
use crate::process::brim_binary;
use crate::server::Server;
use crate::{Args, Mode, Subject, node, varnish};

/// After a fill a node goes on writing.
const QUIET_AFTER_FILL_MAX: Duration = Duration::from_secs(15);
const QUIET_MAX: Duration = Duration::from_secs(3);
/// From a request that must be forwarded, perhaps behind its answer, until the origin has it and its content is served.
const SEEN_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// Carriers that are asked for after a hard purge, to see that none of them is served: more than a memory of recent ones holds.
const CHECKED_AFTER_MAX: u64 = 5_000;
/// The lurker begins a minute after a ban, and then has all responses to hold to all bans.
const LURKER_MAX: Duration = Duration::from_secs(300);
const LURKER_LOOK_EVERY: Duration = Duration::from_millis(500);
/// Bans in the list when it has done its work.
const BANS_AT_REST_MAX: usize = 2;

/// One server in one mode, and its figures, round by round.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) mode: Mode,
    pub(crate) subject: Subject,
    pub(crate) version: String,
    pub(crate) figures: Vec<Figures>,
}

/// What one measurement saw.
#[derive(Debug)]
pub(crate) struct Figures {
    /// Resident memory: of the server with nothing, with all responses, and after the purges of nothing and the hits.
    pub(crate) memory_mib: [f64; 3],
    /// CPU µs a hit: before any purge, the first of each response after the purges of nothing, the second.
    pub(crate) hit_us: [f64; 3],
    /// A purge of nothing until its acknowledgement, the median.
    pub(crate) nothing: Duration,
    /// CPU µs of one.
    pub(crate) nothing_cpu_us: f64,
    /// From the last purge of nothing to the end of the second pass of hits.
    pub(crate) hits_ended: Duration,
    /// The purge of the common key, from sending it until its acknowledgement.
    pub(crate) acknowledged: Duration,
    /// From sending it until the origin had the next request of each connection.
    pub(crate) seen: Duration,
    /// CPU of it and of these requests, until the server was quiet again.
    pub(crate) cpu: Duration,
    /// Responses that the server fetched of its own accord meanwhile.
    pub(crate) refreshed: u64,
    pub(crate) lurker: Option<Lurker>,
}

/// As many bans again, and nobody asks until the lurker is through.
#[derive(Debug)]
pub(crate) struct Lurker {
    pub(crate) time: Duration,
    /// Of all Varnish in that time.
    pub(crate) cpu: Duration,
    /// CPU µs a hit after it.
    pub(crate) hit_us: f64,
}

/// Measures one row once.
pub(crate) fn measure(args: &Args, cpus: &Cpus, origin: &Origin, row: &mut Row) -> anyhow::Result<()> {
    let mut server = match row.subject {
        Subject::Brim => node::start(&brim_binary(args.brim.as_deref())?, args.threads, origin, cpus)?,
        Subject::Peer(peer) => varnish::start(peer, origin, cpus)?,
    };
    let figures = figures(args, origin, row, &mut server);
    // A server that is gone is the better reason for whatever went wrong.
    server.process.check_running()?;
    row.figures.push(figures.with_context(|| format!("{} purge on {}", row.mode.name(), row.subject.name()))?);
    row.version = server.version;
    Ok(())
}

fn figures(args: &Args, origin: &Origin, row: &Row, server: &mut Server) -> anyhow::Result<Figures> {
    server.quiet(origin, QUIET_MAX)?;
    let empty_mib = server.memory_mib()?;
    fill(args, origin, server)?;
    server.quiet(origin, QUIET_AFTER_FILL_MAX)?;
    // The first pass shows that all is stored, and is as warm as those that count.
    hits(server.address, origin, 0..args.responses + BYSTANDERS)?;
    server.quiet(origin, QUIET_MAX)?;
    let filled_mib = server.memory_mib()?;

    let before_us = hit_us(args, origin, server)?;
    let (nothing, nothing_cpu_us) = purge_nothing(args, origin, server, row.mode, 0)?;
    let purged = Instant::now();
    let first_us = hit_us(args, origin, server).context("after the purges of nothing")?;
    let second_us = hit_us(args, origin, server)?;
    let hits_ended = purged.elapsed();
    let memory_mib = [empty_mib, filled_mib, server.memory_mib()?];
    let has_lurker = row.subject == Subject::Peer(crate::Peer::VarnishBan);
    let lurker = if args.lurker && has_lurker { Some(lurk(args, origin, server)?) } else { None };

    let Purge { acknowledged, seen, cpu, refreshed } = purge_common(args, origin, server, row.mode)?;
    let hit_us = [before_us, first_us, second_us];
    Ok(Figures { memory_mib, hit_us, nothing, nothing_cpu_us, hits_ended, acknowledged, seen, cpu, refreshed, lurker })
}

fn fill(args: &Args, origin: &Origin, server: &Server) -> anyhow::Result<()> {
    let asked_before = origin.requests();
    pass(server.address, origin, 0..args.responses + BYSTANDERS).context("fill")?;
    let (asked, expected) = (origin.requests() - asked_before, args.responses + BYSTANDERS);
    ensure!(asked == expected, "the origin was asked {asked} times for {expected} responses");
    Ok(())
}

/// CPU µs a hit in a pass over all carriers.
fn hit_us(args: &Args, origin: &Origin, server: &mut Server) -> anyhow::Result<f64> {
    let before = server.cpu()?;
    hits(server.address, origin, 0..args.responses)?;
    server.quiet(origin, QUIET_MAX)?;
    Ok(us_each(server.cpu()?.saturating_sub(before), args.responses))
}

/// Purges, one after the other, keys that nothing carries and that differ from those of every other `turn`. The median time of one, and its CPU µs.
fn purge_nothing(
    args: &Args,
    origin: &Origin,
    server: &mut Server,
    mode: Mode,
    turn: u32,
) -> anyhow::Result<(Duration, f64)> {
    let mut connection = server.open_for_purges()?;
    let mut times_ns = Histogram::<u64>::new(3)?;
    let before = server.cpu()?;
    for number in 0..args.purges {
        let began = Instant::now();
        server.purge(&mut connection, &format!("nothing-{turn}-{number}"), mode)?;
        times_ns.record(u64::try_from(began.elapsed().as_nanos())?)?;
    }
    server.quiet(origin, QUIET_MAX)?;
    let cpu_us = us_each(server.cpu()?.saturating_sub(before), u64::from(args.purges));
    Ok((Duration::from_nanos(times_ns.value_at_quantile(0.5)), cpu_us))
}

fn lurk(args: &Args, origin: &Origin, server: &mut Server) -> anyhow::Result<Lurker> {
    purge_nothing(args, origin, server, Mode::Hard, 1)?;
    let (began, before) = (Instant::now(), server.cpu()?);
    while varnish::bans_count(server)? > BANS_AT_REST_MAX {
        ensure!(began.elapsed() < LURKER_MAX, "the lurker was not through within {LURKER_MAX:?}");
        std::thread::sleep(LURKER_LOOK_EVERY);
    }
    let (time, cpu) = (began.elapsed(), server.cpu()?.saturating_sub(before));
    Ok(Lurker { time, cpu, hit_us: hit_us(args, origin, server)? })
}

/// The purge of the common key.
struct Purge {
    acknowledged: Duration,
    seen: Duration,
    cpu: Duration,
    refreshed: u64,
}

fn purge_common(args: &Args, origin: &Origin, server: &mut Server, mode: Mode) -> anyhow::Result<Purge> {
    let mut connections = Vec::new();
    for number in 0..args.connections {
        let mut connection = Connection::open(server.address)?;
        connection.ask(number)?;
        let generation = connection.receive_generation(number)?;
        ensure!(generation == origin.generation(number), "{number} was not current before the purge");
        connections.push((number, connection));
    }
    let mut for_purges = server.open_for_purges()?;
    // So that this connection has been used, as the others have.
    server.purge(&mut for_purges, "nothing-at-all", mode)?;
    server.quiet(origin, QUIET_MAX)?;

    let (before, asked_before) = (server.cpu()?, origin.requests());
    origin.raise();
    let began = Instant::now();
    server.purge(&mut for_purges, COMMON_KEY, mode)?;
    let acknowledged = began.elapsed();
    for (number, connection) in &mut connections {
        connection.ask(*number)?;
    }
    for (number, connection) in &mut connections {
        let generation = connection.receive_generation(*number)?;
        // What was purged softly may be served once more, while it is fetched.
        let is_old = generation != origin.generation(*number);
        ensure!(mode == Mode::Soft || !is_old, "{number} was served old after the acknowledgement of a hard purge");
    }
    let seen = loop {
        match origin.all_probed() {
            Some(last) => break last.saturating_duration_since(began),
            None if began.elapsed() > SEEN_MAX => bail!("not every connection's request was forwarded after the purge"),
            None => std::thread::sleep(LOOK_EVERY),
        }
    };
    for (number, connection) in &mut connections {
        while {
            connection.ask(*number)?;
            connection.receive_generation(*number)? != origin.generation(*number)
        } {
            ensure!(began.elapsed() < SEEN_MAX, "{number} is still served old {SEEN_MAX:?} after a soft purge");
            std::thread::sleep(LOOK_EVERY);
        }
    }
    server.quiet(origin, QUIET_MAX)?;
    let cpu = server.cpu()?.saturating_sub(before);
    let refreshed = (origin.requests() - asked_before).saturating_sub(args.connections);

    let asked_before = origin.bystander_requests();
    pass(server.address, origin, args.responses..args.responses + BYSTANDERS)?;
    let asked = origin.bystander_requests() - asked_before;
    ensure!(asked == 0, "{asked} responses are gone that do not carry the key");
    if mode == Mode::Hard {
        pass(server.address, origin, 0..args.responses.min(CHECKED_AFTER_MAX)).context("after the purge")?;
    }
    Ok(Purge { acknowledged, seen, cpu, refreshed })
}

fn us_each(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}
