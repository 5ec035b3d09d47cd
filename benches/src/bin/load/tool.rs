//! `wrk` and `h2load`: clients that cost less than the server, where they are installed.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use crate::ClientChoice;
use crate::client::Target;
use crate::program::installed;
use crate::workload::{Protocol, Workload};

/// What a tool may take beside the time it was told.
const SPARE_MAX: Duration = Duration::from_secs(10);

/// What sends the requests of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Generator {
    /// `client`.
    Own,
    /// HTTP/1.1.
    Wrk(PathBuf),
    /// HTTP/2.
    H2load(PathBuf),
}

impl Generator {
    /// The best there is. URLs that are all different are the own client's: the tools cannot count.
    pub(crate) fn choose(choice: ClientChoice, workload: Workload) -> Self {
        let tool = match (choice, !workload.is_unique(), workload.protocol()) {
            (ClientChoice::Own, _, _) | (_, false, _) => None,
            (ClientChoice::Auto, true, Protocol::Http1) => installed("wrk").map(Self::Wrk),
            (ClientChoice::Auto, true, Protocol::Http2) => installed("h2load").map(Self::H2load),
        };
        tool.unwrap_or(Self::Own)
    }

    /// In the report.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Wrk(_) => "wrk",
            Self::H2load(_) => "h2load",
        }
    }

    /// Sends requests for so many seconds; returns the number of good responses. A bad one is an error.
    pub(crate) async fn drive(&self, target: &Target, seconds: u64) -> anyhow::Result<u64> {
        let time = Duration::from_secs(seconds);
        let (connections, streams) = (target.workload.connections().to_string(), target.workload.streams().to_string());
        let url = target.url();
        match self {
            Self::Own => crate::client::drive(target, time).await,
            Self::Wrk(program) => {
                let time_option = format!("{seconds}s");
                let args = ["--threads", "1", "--connections", &connections, "--duration", &time_option, &url];
                wrk_count(&run(program, &args, time).await?)
            }
            Self::H2load(program) => {
                let time_option = seconds.to_string();
                let args = ["-t", "1", "-c", &connections, "-m", &streams, "-D", &time_option, &url];
                h2load_count(&run(program, &args, time).await?)
            }
        }
    }
}

async fn run(program: &PathBuf, args: &[&str], time: Duration) -> anyhow::Result<String> {
    let output =
        Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).output();
    let output = timeout(time + SPARE_MAX, output).await;
    let output = output.with_context(|| format!("{} did not end", program.display()))??;
    ensure!(output.status.success(), "{} failed: {}", program.display(), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `  231806 requests in 2.00s, 284.30MB read`, and lines for what went wrong.
fn wrk_count(said: &str) -> anyhow::Result<u64> {
    if let Some(line) =
        said.lines().map(str::trim).find(|line| line.starts_with("Non-2xx") || line.starts_with("Socket errors"))
    {
        bail!("wrk: {line}");
    }
    let count = said.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse().ok());
    count.with_context(|| format!("no number of requests in what wrk said:\n{said}"))
}

/// `requests: 812672 total, 812672 started, 812672 done, 812672 succeeded, 0 failed, 0 errored, 0 timeout`.
fn h2load_count(said: &str) -> anyhow::Result<u64> {
    let counts = said.lines().find_map(|line| line.strip_prefix("requests: "));
    let of = |what: &str| -> Option<u64> {
        let mut counts = counts?.split(", ").filter_map(|count| count.split_once(' '));
        counts.find(|(_, name)| *name == what)?.0.parse().ok()
    };
    let (Some(succeeded), Some(failed)) = (of("succeeded"), of("failed")) else {
        bail!("no number of requests in what h2load said:\n{said}");
    };
    ensure!(failed == 0, "h2load: {failed} requests failed, {succeeded} succeeded");
    Ok(succeeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_understood() {
        let good = "Running 2s test\n  1 threads and 64 connections\n  231806 requests in 2.00s, 284.30MB read\nRequests/sec: 1\n";
        assert_eq!(wrk_count(good).ok(), Some(231_806));
        assert!(wrk_count(&format!("{good}  Non-2xx or 3xx responses: 7\n")).is_err());
        assert!(wrk_count("").is_err());
    }

    #[test]
    fn h2load_is_understood() {
        let counts = "requests: 812 total, 820 started, 812 done, 812 succeeded, 0 failed, 0 errored, 0 timeout";
        assert_eq!(h2load_count(&format!("finished in 2.00s\n{counts}\n")).ok(), Some(812));
        assert!(h2load_count(&counts.replace("0 failed", "3 failed")).is_err());
        assert!(h2load_count("").is_err());
    }
}
