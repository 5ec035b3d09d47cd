//! `brim purge`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::args::{MatchArgs, PurgeArgs, PurgeCommand};
use super::client::Client;
use super::error::CliError;
use super::print;
use super::token::segment;
use crate::admin::{
    DryRun, FieldValues, MatchRequest, Matched, PurgeList, PurgeModeWord, PurgeReceipt, PurgeRequest, Purged,
    StatusPattern, StatusPatterns,
};

/// The columns of a table of purges.
const HEADER: [&str; 6] = ["WHAT", "MATCHED", "POSITION", "RECEIPT", "DURABLE AFTER", "RECLAIMED"];
/// Surrogate keys that are named in a table.
const KEYS_SHOWN: usize = 8;

pub(super) fn run(args: &PurgeArgs) -> Result<(), CliError> {
    match &args.command {
        PurgeCommand::List { limit, before } => list(args, *limit, *before),
        PurgeCommand::Show { id } => show(args, id),
        command => purge(args, requests(command)),
    }
}

fn purge(args: &PurgeArgs, requests: Vec<PurgeRequest>) -> Result<(), CliError> {
    if requests.len() > 1 && (args.confirm.is_some() || args.idempotency_key.is_some()) {
        let why =
            "--confirm and --idempotency-key go with one purge: name one thing, or surrogate keys, which are one purge";
        return Err(CliError::Usage(why.to_owned()));
    }
    let client = Client::new(&args.client)?;
    let is_one = requests.len() == 1;
    let mut rows = Vec::new();
    // One call each, in the order given: the first that is refused ends the command, and what was purged stays purged.
    let done = requests.into_iter().try_for_each(|mut request| {
        request.soft = args.soft;
        request.on_demand = args.on_demand;
        request.dry_run = args.dry_run;
        request.wait = args.wait;
        request.confirm.clone_from(&args.confirm);
        let key = args.idempotency_key.as_deref();
        let what = [&request.url, &request.prefix, &request.site].into_iter().flatten().next().cloned();
        let at = |error| match what {
            Some(what) if !is_one => CliError::At { what, error },
            Some(_) | None => CliError::Client(error),
        };
        if args.dry_run {
            let answer: DryRun = client.post_once("/v1/purges", &request, key).map_err(at)?;
            if args.client.json { print::json(&answer)? } else { show_dry_run(&answer) }
        } else {
            let answer: PurgeReceipt = client.post_once("/v1/purges", &request, key).map_err(at)?;
            if args.client.json { print::json(&answer)? } else { rows.push(row(&answer)) }
        }
        Ok(())
    });
    if !rows.is_empty() {
        print::table(HEADER, &rows);
    }
    done
}

fn requests(command: &PurgeCommand) -> Vec<PurgeRequest> {
    let none = PurgeRequest::default;
    match command {
        PurgeCommand::Url { urls, headers } => {
            let headers = (!headers.is_empty()).then(|| fields(headers));
            let request = |url: &String| PurgeRequest { url: Some(url.clone()), headers: headers.clone(), ..none() };
            urls.iter().map(request).collect()
        }
        PurgeCommand::Prefix { prefixes } => {
            prefixes.iter().map(|prefix| PurgeRequest { prefix: Some(prefix.clone()), ..none() }).collect()
        }
        // One call for all keys: a response that carries two of them is hit once.
        PurgeCommand::Key { keys, site } => {
            vec![PurgeRequest { surrogate_keys: Some(keys.clone()), site: site.clone(), ..none() }]
        }
        PurgeCommand::Site { sites } => {
            sites.iter().map(|site| PurgeRequest { site: Some(site.clone()), ..none() }).collect()
        }
        PurgeCommand::All => vec![PurgeRequest { everything: Some(true), ..none() }],
        PurgeCommand::Match(found) => vec![PurgeRequest { predicate: Some(predicate(found)), ..none() }],
        PurgeCommand::List { .. } | PurgeCommand::Show { .. } => Vec::new(),
    }
}

fn fields(headers: &[(String, String)]) -> BTreeMap<String, FieldValues> {
    let mut lines = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in headers {
        lines.entry(name.to_ascii_lowercase()).or_default().push(value.clone());
    }
    lines.into_iter().map(|(name, lines)| (name, FieldValues::Several(lines))).collect()
}

fn predicate(found: &MatchArgs) -> MatchRequest {
    let MatchArgs { site, host, path, statuses, older_than, younger_than, content_type, plugin } = found.clone();
    let statuses: Vec<_> = statuses.into_iter().map(StatusPattern::Range).collect();
    let status = (!statuses.is_empty()).then_some(StatusPatterns::Several(statuses));
    MatchRequest { site, host, path, status, older_than, younger_than, content_type, plugin }
}

fn list(args: &PurgeArgs, limit: u32, before: Option<u64>) -> Result<(), CliError> {
    refuse_options(args, args.wait)?;
    let before = before.map(|before| format!("&before={before}")).unwrap_or_default();
    let list: PurgeList = Client::new(&args.client)?.get(&format!("/v1/purges?limit={limit}{before}"))?;
    if args.client.json {
        return print::json(&list);
    }
    let rows: Vec<_> = list.purges.iter().map(listed).collect();
    print::table(["APPLIED AT", "BY", "WHAT", "MATCHED", "POSITION", "RECEIPT", "DURABLE AFTER", "RECLAIMED"], &rows);
    if let Some(next) = list.next {
        print::line(format!("older ones: brim purge list --before {next}"));
    }
    Ok(())
}

fn show(args: &PurgeArgs, id: &str) -> Result<(), CliError> {
    refuse_options(args, false)?;
    let wait = if args.wait { "?wait=true" } else { "" };
    let receipt: PurgeReceipt = Client::new(&args.client)?.get(&format!("/v1/purges/{}{wait}", segment(id)?))?;
    if args.client.json {
        return print::json(&receipt);
    }
    print::table(HEADER, &[row(&receipt)]);
    print::line(format!("applied at {}, by {}", receipt.applied_at, by(&receipt)));
    for node in &receipt.nodes {
        let reclaimed = node.reclaimed_at.as_deref().unwrap_or("not yet");
        print::line(format!(
            "  {}: position {}, on disk at {}, {}, counted at {reclaimed}",
            node.node,
            node.position,
            node.durable_at,
            print::count(node.matched, "stored response")
        ));
    }
    Ok(())
}

/// What goes with a purge goes with nothing else.
fn refuse_options(args: &PurgeArgs, has_more: bool) -> Result<(), CliError> {
    if args.soft || args.dry_run || args.confirm.is_some() || args.idempotency_key.is_some() || has_more {
        return Err(CliError::Usage("this only looks: leave the options of a purge away".to_owned()));
    }
    Ok(())
}

fn listed(receipt: &PurgeReceipt) -> [String; 8] {
    let [what, matched, position, id, durable, reclaimed] = row(receipt);
    [receipt.applied_at.clone(), by(receipt), what, matched, position, id, durable, reclaimed]
}

fn by(receipt: &PurgeReceipt) -> String {
    if receipt.by.is_empty() { "-".to_owned() } else { receipt.by.clone() }
}

fn row(receipt: &PurgeReceipt) -> [String; 6] {
    let mut what = names(&receipt.purged);
    if receipt.mode == PurgeModeWord::Soft {
        what = format!("soft: {what}");
    }
    if receipt.repeated {
        what.push_str(" (had been made before)");
    }
    let reclaimed = match (&receipt.reclaimed_at, receipt.mode) {
        (None, _) => "not yet".to_owned(),
        (Some(_), PurgeModeWord::Hard) => print::bytes(receipt.reclaimed_bytes),
        (Some(_), PurgeModeWord::Soft) => "nothing (soft)".to_owned(),
    };
    let (position, id) = (receipt.position.to_string(), receipt.id.clone());
    [what, receipt.matched.to_string(), position, id, durable_after(receipt), reclaimed]
}

fn durable_after(receipt: &PurgeReceipt) -> String {
    let time = |text: &str| humantime::parse_rfc3339(text).ok();
    let after = time(&receipt.durable_at).zip(time(&receipt.applied_at));
    let after = after.and_then(|(durable, applied)| durable.duration_since(applied).ok());
    after.map_or("-".to_owned(), |after| match after {
        Duration::ZERO => "< 1 ms".to_owned(),
        after => format!("{} ms", after.as_millis()),
    })
}

fn show_dry_run(answer: &DryRun) {
    print::line(format!("would purge: {}", names(&answer.purged)));
    print::line(format!("  {}, {}", print::count(answer.matched, "stored response"), print::bytes(answer.bytes)));
    if let Some(share) = answer.recent_share {
        let percent = share * 100.0;
        let hits = print::count(answer.recent_hits, "hit");
        print::line(format!("  {percent:.1} % of the {hits} of the last five minutes would have been misses"));
    }
    for example in &answer.examples {
        print::line(format!("  {example}"));
    }
    print::line(format!("  within five minutes: --confirm {}", answer.confirm));
}

fn names(purged: &[Purged]) -> String {
    purged.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn name(purged: &Purged) -> String {
    let of = |texts: &[String]| {
        let shown = texts.iter().take(KEYS_SHOWN).cloned().collect::<Vec<_>>().join(" ");
        let more = texts.len().saturating_sub(KEYS_SHOWN);
        if more == 0 { shown } else { format!("{shown} and {more} more") }
    };
    let site = purged.site.as_ref().map(|site| format!(" of site {site}")).unwrap_or_default();
    match purged {
        Purged { everything: true, .. } => "everything".to_owned(),
        Purged { prefix: Some(prefix), .. } => format!("{prefix}…"),
        Purged { url: Some(url), headers: None, .. } => url.clone(),
        Purged { url: Some(url), headers: Some(headers), .. } => {
            let lines = headers
                .iter()
                .flat_map(|(name, values)| values.lines().iter().map(move |value| format!("{name}: {value}")));
            format!("{url} for {}", lines.collect::<Vec<_>>().join(", "))
        }
        Purged { surrogate_keys: Some(keys), .. } => format!("surrogate keys {}{site}", of(keys)),
        Purged { groups: Some(groups), authority, .. } => {
            format!("groups {} of {}", of(groups), authority.as_deref().unwrap_or("-"))
        }
        Purged { predicate: Some(found), .. } => matched(found),
        Purged { site: Some(site), .. } => format!("site {site}"),
        _ => "-".to_owned(),
    }
}

fn matched(found: &Matched) -> String {
    let Matched { site, host, path, status, stored_before, stored_after, content_type, plugin } = found;
    let status = (!status.is_empty()).then(|| status.join(" "));
    let parts = [
        ("site", site),
        ("host", host),
        ("path", path),
        ("status", &status),
        ("stored before", stored_before),
        ("stored after", stored_after),
        ("content type", content_type),
        ("plugin", plugin),
    ];
    let parts = parts.into_iter().filter_map(|(name, value)| value.as_ref().map(|value| format!("{name} {value}")));
    format!("match {}", parts.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt() -> PurgeReceipt {
        PurgeReceipt {
            id: "p-7".to_owned(),
            position: 7,
            matched: 3,
            applied_at: "2026-11-23T13:45:10.974Z".to_owned(),
            durable_at: "2026-11-23T13:45:10.977Z".to_owned(),
            reclaimed_at: None,
            reclaimed_bytes: 2048,
            mode: PurgeModeWord::Hard,
            by: "admin".to_owned(),
            purged: vec![Purged { url: Some("//a/x".to_owned()), ..Purged::default() }],
            repeated: false,
            nodes: Vec::new(),
        }
    }

    #[test]
    fn a_receipt_is_a_row() {
        assert_eq!(row(&receipt()), ["//a/x", "3", "7", "p-7", "3 ms", "not yet"]);
        let done = PurgeReceipt { reclaimed_at: Some(String::new()), repeated: true, ..receipt() };
        assert_eq!(row(&done), ["//a/x (had been made before)", "3", "7", "p-7", "3 ms", "2.0 KiB"]);
        let soft = PurgeReceipt { mode: PurgeModeWord::Soft, durable_at: receipt().applied_at, ..done };
        assert_eq!(row(&soft)[0], "soft: //a/x (had been made before)");
        assert_eq!((row(&soft)[4].as_str(), row(&soft)[5].as_str()), ("< 1 ms", "nothing (soft)"));
    }

    #[test]
    fn each_thing_has_its_name() {
        let keys = |count: usize| Some((0..count).map(|key| key.to_string()).collect::<Vec<_>>());
        let field = BTreeMap::from([("accept".to_owned(), FieldValues::One("*/*".to_owned()))]);
        let found = Matched { host: Some("*.a".to_owned()), status: vec!["404".to_owned()], ..Matched::default() };
        for (purged, expected) in [
            (Purged { everything: true, ..Purged::default() }, "everything"),
            (Purged { site: Some("s".to_owned()), ..Purged::default() }, "site s"),
            (Purged { prefix: Some("//a/".to_owned()), ..Purged::default() }, "//a/…"),
            (
                Purged { url: Some("//a/".to_owned()), headers: Some(field), ..Purged::default() },
                "//a/ for accept: */*",
            ),
            (
                Purged { surrogate_keys: keys(2), site: Some("s".to_owned()), ..Purged::default() },
                "surrogate keys 0 1 of site s",
            ),
            (Purged { surrogate_keys: keys(10), ..Purged::default() }, "surrogate keys 0 1 2 3 4 5 6 7 and 2 more"),
            (Purged { predicate: Some(found), ..Purged::default() }, "match host *.a, status 404"),
        ] {
            assert_eq!(name(&purged), expected);
        }
    }
}
