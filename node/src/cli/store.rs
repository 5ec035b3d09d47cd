//! `brim store`: a data directory without its node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use brim_semantics::{KeyMethod, Part};
use brim_store::OpenError;
use brim_store::offline::{
    self, Finding, LogFacts, LogState, OfflineError, OfflineStats, Problem, ProblemKind, Standing, StoredEntry, Tally,
    Verification,
};
use http::{HeaderMap, HeaderName};
use humantime::format_rfc3339_millis;
use serde::Serialize;

use super::args::{DataDir, StoreArgs, StoreCommand};
use super::error::CliError;
use super::print;
use crate::config::Config;
use crate::request::explain::others_value;

/// Problems of one kind that people are shown.
const SHOWN_MAX: u64 = 20;

pub(super) fn run(args: &StoreArgs) -> Result<(), CliError> {
    match &args.command {
        StoreCommand::Verify(place) => verify(&data_dir(place)?, args.json),
        StoreCommand::Stats(place) => stats(&data_dir(place)?, args.json),
        StoreCommand::ExportKeys(place) => export_keys(&data_dir(place)?, args.json),
    }
}

fn data_dir(place: &DataDir) -> Result<PathBuf, CliError> {
    match (&place.dir, &place.config) {
        (Some(dir), _) => Ok(dir.clone()),
        (None, Some(file)) => Config::load(file)
            .map(|config| config.data_dir)
            .map_err(|errors| CliError::failed(format!("{}:\n{errors}", file.display()))),
        (None, None) => Err(CliError::Usage("name the data directory, or a configuration by -c".to_owned())),
    }
}

fn failed(error: OfflineError) -> CliError {
    match error {
        OfflineError::Open(error @ OpenError::InUse { .. }) => {
            CliError::failed(format!("{error}; `brim status` shows a node that runs"))
        }
        error => CliError::failed(error),
    }
}

/// A line of `verify --json`: what is damaged or refused as it is found, then the summary.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum VerifyLine<'a> {
    Problem(&'a Problem),
    Refused(RefusedLine<'a>),
    Summary {
        ok: bool,
        #[serde(flatten)]
        verification: &'a Verification,
    },
}

/// A stored response that a node refuses, and why.
#[derive(Serialize)]
struct RefusedLine<'a> {
    url: &'a str,
    key: String,
    segment: u64,
    purged: Option<&'static str>,
}

impl<'a> From<Finding<'a>> for VerifyLine<'a> {
    fn from(finding: Finding<'a>) -> Self {
        match finding {
            Finding::Problem(problem) => Self::Problem(problem),
            Finding::Refused(entry) => Self::Refused(RefusedLine {
                url: &entry.url,
                key: entry.key.to_string(),
                segment: entry.segment,
                purged: entry.standing.as_word(),
            }),
        }
    }
}

fn verify(dir: &Path, as_json: bool) -> Result<(), CliError> {
    // None counts what is refused.
    let mut shown: BTreeMap<Option<ProblemKind>, u64> = BTreeMap::new();
    let mut unprintable = Ok(());
    let verified = offline::verify(dir, &mut |finding| {
        if as_json {
            if let Err(error) = print::json(&VerifyLine::from(finding)) {
                unprintable = Err(error);
            }
            return;
        }
        let (kind, line) = match finding {
            Finding::Problem(problem) => (Some(problem.kind), problem_line(problem)),
            Finding::Refused(entry) => (None, refused_line(entry)),
        };
        let count = shown.entry(kind).or_default();
        *count += 1;
        if *count <= SHOWN_MAX {
            print::line(line);
        }
    });
    let verification = verified.map_err(failed)?;
    unprintable?;
    let is_sound = verification.is_sound();
    if as_json {
        print::json(&VerifyLine::Summary { ok: is_sound, verification: &verification })?;
    } else {
        summary_lines(&verification).iter().for_each(print::line);
    }
    if is_sound { Ok(()) } else { Err(CliError::Said) }
}

fn problem_line(problem: &Problem) -> String {
    let what = match (&problem.url, &problem.key) {
        (Some(url), _) => format!("{url}: "),
        (None, Some(key)) => format!("key {key}: "),
        (None, None) => String::new(),
    };
    format!("DAMAGED {}: {what}{}", problem.kind.as_word(), problem.reason)
}

fn refused_line(entry: &StoredEntry) -> String {
    let why = match entry.standing {
        Standing::BeyondLog => "fetched at a position that the purge log does not reach",
        Standing::Hard | Standing::Soft | Standing::Live | Standing::Unknown => "purged, and not reclaimed yet",
    };
    format!("refused: {}: {why}", entry.url)
}

fn tally(tally: Tally, noun: &str) -> String {
    format!("{}, {}", print::count(tally.count, noun), print::bytes(tally.bytes))
}

fn log_line(log: &LogFacts) -> String {
    let end = match &log.state {
        LogState::Whole => String::new(),
        LogState::Torn(bytes) => {
            format!("; the last {bytes} B were cut off before they were acknowledged, which is no damage")
        }
        LogState::Damaged(reason) => format!("; DAMAGED: {reason}. A node drops what is stored when it starts here"),
    };
    format!("position {}, {}, {}{end}", log.position, print::count(log.marks, "mark"), print::bytes(log.bytes))
}

fn summary_lines(done: &Verification) -> Vec<String> {
    let mut lines = Vec::new();
    for (kind, count) in done.problems.iter().filter(|(_, count)| **count > SHOWN_MAX) {
        lines.push(format!("DAMAGED {}: {} more, which --json lists", kind.as_word(), count - SHOWN_MAX));
    }
    let refused = done.purged.count + done.beyond_log.count;
    if refused > SHOWN_MAX {
        lines.push(format!("refused: {} more, which --json lists", refused - SHOWN_MAX));
    }
    let is_known = !done.problems.contains_key(&ProblemKind::Format);
    if is_known {
        lines.push(format!("purge log  {}", log_line(&done.purge_log)));
        lines.push(format!("index      {} in entries", tally(done.entries, "stored response")));
        lines.push(format!("sound      {} of bodies", tally(done.sound, "stored response")));
        if done.purged.count > 0 {
            lines.push(format!("purged     {}: refused, which is no damage", tally(done.purged, "stored response")));
        }
        if done.beyond_log.count > 0 {
            lines.push(format!(
                "refused    {}, fetched at positions that the purge log does not reach; no damage",
                tally(done.beyond_log, "stored response")
            ));
        }
        lines.push(format!(
            "segments   {}, of them {} dead; {} named by no stored response, {}",
            tally(done.segments, "file"),
            print::bytes(done.dead_bytes),
            done.unnamed_segments.count,
            print::bytes(done.unnamed_segments.bytes)
        ));
    }
    lines.push(match done.problem_count() {
        0 => "sound".to_owned(),
        count => format!("DAMAGED: {}", print::count(count, "problem")),
    });
    lines
}

/// `stats --json`.
#[derive(Serialize)]
struct StatsAnswer<'a> {
    #[serde(flatten)]
    stats: &'a OfflineStats,
    oldest: Option<String>,
    newest: Option<String>,
}

fn time(time: SystemTime) -> String {
    format_rfc3339_millis(time).to_string()
}

fn stats(dir: &Path, as_json: bool) -> Result<(), CliError> {
    let stats = offline::stats(dir).map_err(failed)?;
    if as_json {
        return print::json(&StatsAnswer {
            stats: &stats,
            oldest: stats.oldest.map(time),
            newest: stats.newest.map(time),
        });
    }
    stats_lines(&stats).iter().for_each(print::line);
    show_tables(&stats);
    Ok(())
}

fn stats_lines(stats: &OfflineStats) -> Vec<String> {
    let mut lines = vec![
        format!("responses  {} of bodies", tally(stats.responses, "stored response")),
        format!(
            "segments   {}: {} live, {} dead",
            tally(stats.segments, "file"),
            print::bytes(stats.live_bytes),
            print::bytes(stats.dead_bytes)
        ),
        format!("index      {}, of them entries {}", print::bytes(stats.index_bytes), print::bytes(stats.entry_bytes)),
        format!("purge log  {}", log_line(&stats.purge_log)),
    ];
    if stats.soft_purged.count > 0 {
        lines.push(format!("stale      {} by soft purges", tally(stats.soft_purged, "stored response")));
    }
    if stats.refused.count > 0 {
        lines.push(format!("purged     {} not reclaimed yet", tally(stats.refused, "stored response")));
    }
    if stats.bad_entries > 0 {
        lines.push(format!(
            "DAMAGED    unreadable entries of the index: {}; `brim store verify` names their keys",
            stats.bad_entries
        ));
    }
    if let (Some(oldest), Some(newest)) = (stats.oldest, stats.newest) {
        lines.push(format!("oldest     {}", time(oldest)));
        lines.push(format!("newest     {}", time(newest)));
    }
    lines
}

fn show_tables(stats: &OfflineStats) {
    let fullness = stats.fullness.iter().filter(|class| class.segments.count > 0).map(|class| {
        let alive = match class.up_to_percent {
            0 => "nothing".to_owned(),
            up_to => format!("above {} to {up_to} %", class.above_percent),
        };
        [alive, class.segments.count.to_string(), print::bytes(class.segments.bytes), print::bytes(class.live_bytes)]
    });
    show_table(["ALIVE", "SEGMENTS", "BYTES", "LIVE BYTES"], fullness.collect());
    show_table(["SITE", "RESPONSES", "BYTES"], stats.by_site.iter().map(|(site, tally)| row(site, *tally)).collect());
    let statuses = stats.by_status.iter().map(|(status, tally)| row(&status.to_string(), *tally));
    show_table(["STATUS", "RESPONSES", "BYTES"], statuses.collect());
    let sizes = stats.by_size.iter().map(|class| {
        let name = match class.from_bytes {
            0 => "0 B".to_owned(),
            from => format!("{from} to {} B", class.below_bytes - 1),
        };
        row(&name, class.responses)
    });
    show_table(["SIZE", "RESPONSES", "BYTES"], sizes.collect());
}

fn row(name: &str, tally: Tally) -> [String; 3] {
    [name.to_owned(), tally.count.to_string(), print::bytes(tally.bytes)]
}

fn show_table<const COLUMNS: usize>(header: [&str; COLUMNS], rows: Vec<[String; COLUMNS]>) {
    if !rows.is_empty() {
        print::line("");
        print::table(header, &rows);
    }
}

/// A line of `export-keys --json`.
#[derive(Serialize)]
struct ExportLine<'a> {
    key: String,
    method: &'static str,
    url: &'a str,
    site: &'a str,
    status: u16,
    bytes: u64,
    stored_at: String,
    fetched_at: u64,
    surrogate_keys: &'a [Box<str>],
    vary: BTreeMap<&'a str, Option<String>>,
    part: Option<PartLine>,
    segment: u64,
    purged: Option<&'static str>,
}

#[derive(Serialize)]
struct PartLine {
    start: u64,
    end: u64,
    complete_length: u64,
}

fn method(entry: &StoredEntry) -> &'static str {
    match entry.method {
        KeyMethod::Get => "GET",
        KeyMethod::Query => "QUERY",
    }
}

/// The nominated fields with the values that a client gave them: of what looks like a credential only the length is told.
fn vary(entry: &StoredEntry) -> BTreeMap<&str, Option<String>> {
    let nothing = HeaderMap::new();
    let values =
        entry.nominated.compared(&nothing).map(|field| field.stored.map(|value| others_value(field.name, value)));
    entry.nominated.names().map(HeaderName::as_str).zip(values).collect()
}

fn export_json(entry: &StoredEntry) -> Result<String, serde_json::Error> {
    serde_json::to_string(&ExportLine {
        key: entry.key.to_string(),
        method: method(entry),
        url: &entry.url,
        site: &entry.site,
        status: entry.status,
        bytes: entry.bytes,
        stored_at: time(entry.stored_at),
        fetched_at: entry.fetched_at.0,
        surrogate_keys: &entry.surrogate_keys,
        vary: vary(entry),
        part: entry.part.map(|Part { start, end, complete_length }| PartLine { start, end, complete_length }),
        segment: entry.segment,
        purged: entry.standing.as_word(),
    })
}

fn export_text(entry: &StoredEntry) -> String {
    format!("{}\t{}\t{}\t{}\t{}", method(entry), entry.url, entry.status, entry.bytes, time(entry.stored_at))
}

/// The lines for people leave out what a node would refuse; those for programs say that it would.
fn export_keys(dir: &Path, as_json: bool) -> Result<(), CliError> {
    let mut out = print::Stream::on_stdout();
    let mut unprintable = Ok(());
    let listed = offline::entries(dir, &mut |entry| {
        if as_json {
            export_json(entry).map_or_else(
                |error| {
                    unprintable = Err(CliError::failed(error));
                    false
                },
                |line| out.line(&line),
            )
        } else {
            entry.standing.is_refused() || out.line(&export_text(entry))
        }
    });
    let listed = listed.map_err(failed)?;
    unprintable?;
    out.end()?;
    let mut missing = Vec::new();
    if listed.bad_count > 0 {
        missing
            .push(format!("{} cannot be read and are not listed", print::count(listed.bad_count, "stored response")));
    }
    if let Some(reason) = listed.log_damage {
        missing.push(format!("the purge log is damaged ({reason}), so that what was purged may be listed"));
    }
    if missing.is_empty() { Ok(()) } else { Err(CliError::failed(missing.join("; "))) }
}
