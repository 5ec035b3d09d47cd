//! `brim plugin`.

use std::path::{Path, PathBuf};

use humantime::format_rfc3339_seconds;
use serde_json::json;
use std::time::{Duration, SystemTime};

use super::args::{ClientOptions, HookArg, PluginCommand, PushArgs};
use super::client::Client;
use super::error::CliError;
use super::print;
use crate::admin::{ActivateRequest, ModeWord, PluginAnswer, PluginList, PluginUploaded};
use crate::plugin_kit::NewHook;
use crate::plugins::is_plugin_name;

pub(super) fn run(command: &PluginCommand) -> Result<(), CliError> {
    match command {
        PluginCommand::New(args) => new(args),
        PluginCommand::Build { dir } => {
            print::line(build(dir)?.display().to_string());
            Ok(())
        }
        PluginCommand::Push(args) => push(args),
        PluginCommand::List { name: None, client } => list(client),
        PluginCommand::List { name: Some(name), client } => show(name, client),
        PluginCommand::Activate { name, version, client } => activate(name, *version, client),
        PluginCommand::Rollback { name, client } => rollback(name, client),
    }
}

fn push(args: &PushArgs) -> Result<(), CliError> {
    // Before anything is built: a missing token is better said at once.
    let client = Client::new(&args.client)?;
    let path = if args.source.is_dir() { build(&args.source)? } else { args.source.clone() };
    let name = match &args.name {
        Some(name) => checked_name(name)?,
        None => name_of(&path)?,
    };
    let component =
        std::fs::read(&path).map_err(|error| CliError::Failed(format!("{}: {error}", path.display()).into()))?;
    let uploaded: PluginUploaded = client.put(&format!("/v1/plugins/{name}"), component.into())?;
    let active: Option<PluginAnswer> = match args.activate {
        true => Some(client.post(&format!("/v1/plugins/{name}/activate"), &live(uploaded.version))?),
        false => None,
    };
    if args.client.json {
        let mut answer = serde_json::to_value(&uploaded).map_err(CliError::failed)?;
        answer["active"] = json!(active.and_then(|plugin| plugin.active));
        return print::json(&answer);
    }
    let known = if uploaded.known { " was there already" } else { " uploaded" };
    print::line(format!(
        "{name} version {}{known} (declared {}, sha256 {})",
        uploaded.version, uploaded.declared_version, uploaded.digest
    ));
    match active {
        Some(_) => print::line(format!("{name} version {} is in use", uploaded.version)),
        None => print::line(format!("not in use yet: brim plugin activate {name} {}", uploaded.version)),
    }
    Ok(())
}

fn list(options: &ClientOptions) -> Result<(), CliError> {
    let answer: PluginList = Client::new(options)?.get("/v1/plugins")?;
    if options.json {
        return print::json(&answer);
    }
    for problem in &answer.problems {
        print::line(format!("! {problem}"));
    }
    if answer.plugins.is_empty() {
        print::line("no plugins");
        return Ok(());
    }
    let row = |plugin: &PluginAnswer| {
        let calls = plugin.calls.as_ref();
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let newest = plugin.versions.first().map(|newest| newest.version.version);
        let run = calls.map(|calls| calls.calls.saturating_sub(calls.memo_hits));
        let mean = calls.zip(run).and_then(|(calls, run)| calls.time_us.checked_div(run));
        [
            plugin.name.clone(),
            number(plugin.active),
            number(plugin.previous),
            number(newest),
            number(calls.map(|calls| calls.calls)),
            number(calls.map(|calls| calls.memo_hits)),
            number(calls.map(|calls| calls.traps)),
            number(mean),
            plugin.problem.clone().unwrap_or_default(),
        ]
    };
    let header = ["NAME", "IN USE", "BEFORE", "NEWEST", "CALLS", "REMEMBERED", "FAULTS", "US/CALL", "PROBLEM"];
    print::table(header, &answer.plugins.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

fn show(name: &str, options: &ClientOptions) -> Result<(), CliError> {
    let plugin: PluginAnswer = Client::new(options)?.get(&format!("/v1/plugins/{}", checked_name(name)?))?;
    if options.json {
        return print::json(&plugin);
    }
    if let Some(problem) = &plugin.problem {
        print::line(format!("! {problem}"));
    }
    let rows: Vec<[String; 6]> = plugin
        .versions
        .iter()
        .map(|kept| {
            let version = &kept.version;
            let uploaded = SystemTime::UNIX_EPOCH + Duration::from_secs(version.uploaded_at);
            [
                version.version.to_string(),
                if kept.live { "in use".to_owned() } else { String::new() },
                version.declared_version.clone(),
                version.hooks.join(","),
                format_rfc3339_seconds(uploaded).to_string(),
                version.digest.chars().take(16).collect(),
            ]
        })
        .collect();
    print::table(["VERSION", "STATE", "DECLARED", "HOOKS", "UPLOADED", "SHA256"], &rows);
    Ok(())
}

fn activate(name: &str, version: Option<u64>, options: &ClientOptions) -> Result<(), CliError> {
    let (client, name) = (Client::new(options)?, checked_name(name)?);
    let version = match version {
        Some(version) => version,
        None => {
            let plugin: PluginAnswer = client.get(&format!("/v1/plugins/{name}"))?;
            plugin.versions.first().map_or(0, |newest| newest.version.version)
        }
    };
    in_use(&client.post(&format!("/v1/plugins/{name}/activate"), &live(version))?, options)
}

fn rollback(name: &str, options: &ClientOptions) -> Result<(), CliError> {
    let (client, name) = (Client::new(options)?, checked_name(name)?);
    in_use(&client.post(&format!("/v1/plugins/{name}/rollback"), &json!({}))?, options)
}

fn in_use(plugin: &PluginAnswer, options: &ClientOptions) -> Result<(), CliError> {
    if options.json {
        return print::json(plugin);
    }
    let before = plugin.previous.map(|before| format!("; a rollback brings back version {before}")).unwrap_or_default();
    match plugin.active {
        Some(version) => print::line(format!("{} version {version} is in use{before}", plugin.name)),
        None => print::line(format!("{}: no version is in use", plugin.name)),
    }
    Ok(())
}

fn live(version: u64) -> ActivateRequest {
    ActivateRequest { version, mode: ModeWord::Live, percent: None }
}

/// A name that can stand in a path as it is.
fn checked_name(name: &str) -> Result<String, CliError> {
    if is_plugin_name(name) {
        return Ok(name.to_owned());
    }
    Err(CliError::Usage(format!(
        "{name:?} cannot name a plugin: use 1 to 64 of a-z, 0-9 and '-', beginning with a letter"
    )))
}

/// The plugin's name as its component's file has it: `tenant_key.wasm` is `tenant-key`.
fn name_of(path: &Path) -> Result<String, CliError> {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let stem = stem.strip_suffix(".component").unwrap_or(stem);
    let name = stem.replace('_', "-").to_ascii_lowercase();
    if is_plugin_name(&name) {
        return Ok(name);
    }
    Err(CliError::Usage(format!("the file name of {} cannot name a plugin; give --name", path.display())))
}

fn new(args: &super::args::NewArgs) -> Result<(), CliError> {
    let name = checked_name(&args.name)?;
    let hook = match args.hook {
        HookArg::CacheKey => NewHook::CacheKey,
        HookArg::Invalidation => NewHook::Invalidation,
    };
    let made =
        crate::plugin_kit::new(Path::new("."), &name, hook, args.sdk_path.as_deref()).map_err(CliError::failed)?;
    let folder = made.strip_prefix(".").unwrap_or(&made).display();
    print::line(format!("made {folder}"));
    print::line(format!("next: cd {folder} && cargo test && brim plugin push . --activate"));
    Ok(())
}

fn build(dir: &Path) -> Result<PathBuf, CliError> {
    crate::plugin_kit::build(dir).map_err(CliError::failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_named_by_its_file() {
        let name = |path: &str| name_of(Path::new(path)).ok();
        assert_eq!(name("target/tenant_key.wasm").as_deref(), Some("tenant-key"));
        assert_eq!(name("Tenant-Key.component.wasm").as_deref(), Some("tenant-key"));
        assert_eq!(name("9.wasm"), None);
        assert_eq!(name("/"), None);
    }
}
