//! `brim check`.

use serde::Serialize;

use super::args::CheckArgs;
use super::error::CliError;
use super::print;
use crate::admin::ConfigMistake;
use crate::config::Config;

/// The answer with `--json`.
#[derive(Serialize)]
struct Checked {
    ok: bool,
    errors: Vec<ConfigMistake>,
}

pub(super) fn run(args: &CheckArgs) -> Result<(), CliError> {
    let file = args.config.display();
    match Config::load(&args.config) {
        Ok(_) if args.json => print::json(&Checked { ok: true, errors: Vec::new() }),
        Ok(config) => {
            let routes = config.sites.iter().map(|site| site.routes.len() as u64).sum();
            let (sites, origins) = (config.sites.len() as u64, config.origins.len() as u64);
            let parts = [(sites, "site"), (routes, "route"), (origins, "origin")]
                .map(|(number, noun)| print::count(number, noun));
            print::line(format!("{file}: right; {}", parts.join(", ")));
            Ok(())
        }
        Err(errors) if args.json => {
            print::json(&Checked { ok: false, errors: errors.0.into_iter().map(ConfigMistake::from).collect() })?;
            Err(CliError::Said)
        }
        Err(errors) => Err(CliError::Failed(
            format!("{file}: {} to correct\n{errors}", print::count(errors.0.len() as u64, "mistake")).into(),
        )),
    }
}
