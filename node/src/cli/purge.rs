//! `brim purge`.

use super::args::{PurgeArgs, PurgeCommand};
use super::client::Client;
use super::error::CliError;
use super::print;
use crate::admin::{DryRun, PurgeModeWord, PurgeReceipt, PurgeRequest, Purged};

pub(super) fn run(args: &PurgeArgs) -> Result<(), CliError> {
    let client = Client::new(&args.client)?;
    // One call each, in the order given: the first that is refused ends the command, and what was purged stays purged.
    for mut request in requests(&args.command) {
        request.soft = args.soft;
        request.dry_run = args.dry_run;
        if args.dry_run {
            let answer: DryRun = client.post("/v1/purges", &request)?;
            if args.client.json { print::json(&answer)? } else { show_dry_run(&answer) }
        } else {
            let answer: PurgeReceipt = client.post("/v1/purges", &request)?;
            if args.client.json { print::json(&answer)? } else { show_receipt(&answer) }
        }
    }
    Ok(())
}

fn requests(command: &PurgeCommand) -> Vec<PurgeRequest> {
    let none = PurgeRequest::default;
    match command {
        PurgeCommand::Url { urls } => {
            urls.iter().map(|url| PurgeRequest { url: Some(url.clone()), ..none() }).collect()
        }
        PurgeCommand::Prefix { prefixes } => {
            prefixes.iter().map(|prefix| PurgeRequest { prefix: Some(prefix.clone()), ..none() }).collect()
        }
        // One call for all keys: a response that carries two of them is hit once.
        PurgeCommand::Key { keys } => vec![PurgeRequest { surrogate_keys: Some(keys.clone()), ..none() }],
        PurgeCommand::Site { sites } => {
            sites.iter().map(|site| PurgeRequest { site: Some(site.clone()), ..none() }).collect()
        }
        PurgeCommand::All => vec![PurgeRequest { everything: Some(true), ..none() }],
    }
}

fn show_receipt(receipt: &PurgeReceipt) {
    let done = match receipt.mode {
        PurgeModeWord::Hard => "purged",
        PurgeModeWord::Soft => "made stale",
    };
    print::line(format!("{done}: {}", names(&receipt.purged)));
    print::line(format!(
        "  {} matched, position {}, receipt {}, {}",
        print::count(receipt.matched, "stored response"),
        receipt.position,
        receipt.id,
        receipt.applied_at
    ));
}

fn show_dry_run(answer: &DryRun) {
    print::line(format!("would purge: {}", names(&answer.purged)));
    print::line(format!("  {}, {}", print::count(answer.matched, "stored response"), print::bytes(answer.bytes)));
    for example in &answer.examples {
        print::line(format!("  {example}"));
    }
}

fn names(purged: &[Purged]) -> String {
    let name = |purged: &Purged| match purged {
        Purged::Everything(_) => "everything".to_owned(),
        Purged::Site(site) => format!("site {site}"),
        Purged::Prefix(prefix) => format!("{prefix}…"),
        Purged::Url(url) => url.clone(),
        Purged::SurrogateKeys(keys) => format!("surrogate keys {}", keys.join(", ")),
    };
    purged.iter().map(name).collect::<Vec<_>>().join(", ")
}
