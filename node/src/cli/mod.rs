//! The command line of `brim`.
//!
//! Always true:
//! - Exit 0: done. 1: refused or failed. 2: the command line itself was wrong.
//! - What was asked for goes to stdout (with `--json` one JSON document a line), what went wrong to stderr.
//! - A command either works on this machine's files or calls the admin API of a node; it never does the node's work itself.
//!
//! Not here: serving (`serve`), the demo (`demo`), making and building plugins (`plugin_kit`).

mod args;
mod check;
mod client;
mod error;
mod explain;
mod origin;
mod plugin;
mod print;
mod purge;
mod status;
mod store;
mod token;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

pub use args::{
    Cli, ClientOptions, Command, DemoArgs, DemoOriginArgs, ExplainArgs, LogFormatArg, PluginCommand, PurgeCommand,
    ServeArgs,
};

use error::CliError;

/// Runs the command line `args`, the program's name first.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    ExitCode::from(execute(args))
}

/// Does what `args` say; returns the exit status.
fn execute(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" of clap too; it knows where they go.
            let _ = error.print();
            return if error.use_stderr() { 2 } else { 0 };
        }
    };
    let done = match cli.command {
        Command::Serve(args) => crate::serve::run(&args).map_err(CliError::failed),
        Command::Check(args) => check::run(&args),
        Command::Demo(args) => crate::demo::run(&args).map_err(CliError::failed),
        Command::DemoOrigin(args) => crate::demo::run_origin(&args).map_err(CliError::failed),
        Command::Purge(args) => purge::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Plugin(args) => plugin::run(&args.command),
        Command::Explain(args) => explain::run(&args),
        Command::Status(args) => status::run(&args.client),
        Command::Origin(args) => origin::run(&args),
        Command::Store(args) => store::run(&args),
        Command::CompilePlugin => return crate::plugins::compile_in_child(),
    };
    match done {
        Ok(()) => 0,
        Err(error) => {
            print::error(&error);
            error.exit_code()
        }
    }
}

#[cfg(test)]
mod tests;
