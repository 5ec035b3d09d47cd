//! What people read: lines and tables on stdout, complaints on stderr. A reader that goes away is no error.

use std::error::Error;
use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use super::client::ClientError;
use super::error::CliError;
use crate::admin::Problem;

pub(super) fn line(text: impl AsRef<str>) {
    let _ = writeln!(io::stdout(), "{}", text.as_ref());
}

/// One JSON document on one line.
pub(super) fn json(document: &impl Serialize) -> Result<(), CliError> {
    line(serde_json::to_string(document).map_err(CliError::failed)?);
    Ok(())
}

/// Many lines, until the reader goes away.
pub(super) struct Stream<W: Write> {
    out: BufWriter<W>,
    failure: Option<io::Error>,
}

impl Stream<StdoutLock<'static>> {
    pub(super) fn on_stdout() -> Self {
        Self::on(io::stdout().lock())
    }
}

impl<W: Write> Stream<W> {
    fn on(out: W) -> Self {
        Self { out: BufWriter::new(out), failure: None }
    }

    /// False: nothing more can be written.
    #[must_use]
    pub(super) fn line(&mut self, text: &str) -> bool {
        self.failure = writeln!(self.out, "{text}").err();
        self.failure.is_none()
    }

    /// All lines are written, or nobody wanted them.
    pub(super) fn end(mut self) -> Result<(), CliError> {
        let failure = self.failure.take().or_else(|| self.out.flush().err());
        match failure {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(CliError::failed(format!("stdout: {error}")))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// What went wrong, with its causes, and what a refusal adds.
pub(super) fn error(error: &CliError) {
    let text = match error {
        CliError::Said => return,
        CliError::Client(ClientError::Refused(problem)) => refusal(problem, "to confirm, add:"),
        CliError::At { what, error: ClientError::Refused(problem) } => {
            format!("{what}: {}", refusal(problem, "to confirm, purge it alone and add:"))
        }
        error => chain(error),
    };
    let _ = writeln!(io::stderr(), "brim: {text}");
}

fn refusal(problem: &Problem, to_confirm: &str) -> String {
    let check = problem.check.as_ref().map(|check| format!(" (check: {check})")).unwrap_or_default();
    let dry_run = problem.more.dry_run.as_ref();
    let confirm = dry_run.map(|dry_run| format!("\n{to_confirm} --confirm {}", dry_run.confirm)).unwrap_or_default();
    format!("refused ({} {}): {}{check}{confirm}", problem.status, problem.title, problem.detail)
}

/// An error and its causes, each said once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Prints rows in aligned columns. Numbers are to be formatted already.
pub(super) fn table<const COLUMNS: usize>(header: [&str; COLUMNS], rows: &[[String; COLUMNS]]) {
    for row in aligned(header, rows) {
        line(row);
    }
}

fn aligned<const COLUMNS: usize>(header: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> Vec<String> {
    let header = header.map(str::to_owned);
    let all = || std::iter::once(&header).chain(rows);
    let mut widths = [0; COLUMNS];
    for row in all() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let pad = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all().map(pad).collect()
}

/// `12.3 MiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    // Precision is lost only where it is not shown.
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1 response`, `2 responses`.
pub(super) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let rows = [["tenant-key".to_owned(), "3".to_owned()], ["é".to_owned(), String::new()]];
        assert_eq!(aligned(["NAME", "ACTIVE"], &rows), ["NAME        ACTIVE", "tenant-key  3", "é"]);
    }

    #[test]
    fn byte_counts() {
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1024), bytes(1_572_864), bytes(u64::MAX)],
            ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "16384.0 PiB"]
        );
    }

    /// Fails every write with this.
    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stream_ends_when_nobody_reads_it_and_only_that_is_no_error() {
        for (kind, is_right) in [(io::ErrorKind::BrokenPipe, true), (io::ErrorKind::StorageFull, false)] {
            let mut stream = Stream::on(Failing(kind));
            let written = (0..10_000).take_while(|number| stream.line(&number.to_string())).count();
            assert!(written < 10_000, "{kind}: it goes on for nobody");
            assert_eq!(stream.end().is_ok(), is_right, "{kind}");
            // A few lines are written at the end only.
            let mut stream = Stream::on(Failing(kind));
            assert!(stream.line("a"));
            assert_eq!(stream.end().is_ok(), is_right, "{kind}");
        }
    }

    #[test]
    fn causes_are_said_once() {
        let error = ClientError::Connect { address: "node:1".to_owned(), source: io::Error::other("refused") };
        assert_eq!(
            chain(&CliError::Client(error)),
            "no node answers at node:1; is it running, and is --admin right?: refused"
        );
    }
}
