//! `[log]`: where the access log goes, and how the log of the node itself looks.

use std::path::PathBuf;

use super::reader::Section;

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogSection {
    /// One JSON line a request.
    pub access: AccessLog,
    /// The node's own log, on stderr.
    pub format: LogFormat,
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// To standard output.
    #[default]
    Stdout,
    /// To a file, appended; opened anew on SIGHUP.
    File(PathBuf),
}

/// How the node's own log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

pub(super) fn read(section: Section<'_>) -> LogSection {
    let config = LogSection {
        access: access(&section).unwrap_or_default(),
        format: section.choice("format", LogFormat::default(), &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
    };
    section.finish();
    config
}

/// A file is written as a table, so that a misspelt `"off"` cannot become a file of that name.
fn access(section: &Section<'_>) -> Option<AccessLog> {
    let value = section.value("access")?;
    match value.as_text() {
        Some("off") => Some(AccessLog::Off),
        Some("stdout") => Some(AccessLog::Stdout),
        Some(text) => value.fail(format!("\"{text}\" is not \"off\", \"stdout\" or {{ file = \"PATH\" }}")),
        None => {
            let table = value.table_or("\"off\", \"stdout\" or { file = \"PATH\" }")?;
            let file = table.required("file", Section::file);
            table.finish();
            file.map(AccessLog::File)
        }
    }
}
