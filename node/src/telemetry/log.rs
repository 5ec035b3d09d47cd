//! The node's own log: set up once, on stderr, so that stdout belongs to the access log and to answers of the CLI.
//!
//! `BRIM_LOG` says what is shown, in the words of tracing's filters: `debug`, `info,brim_node::origin=trace`.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;

/// The variable that says what is shown.
pub const VARIABLE: &str = "BRIM_LOG";
/// What is shown when it is not set: the libraries below only when something is wrong.
pub const DEFAULT_FILTER: &str = "info,sled=warn,h2=warn,hyper=warn,rustls=warn,wasmtime=warn,cranelift_codegen=warn";

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `BRIM_LOG` is not a filter.
    #[error("{VARIABLE}={value:?} is not a filter such as \"debug\" or \"info,brim_node::origin=trace\"")]
    Filter {
        /// What it says.
        value: String,
        /// Why it is none.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process has a log already.
    #[error("the log is set up already")]
    SetUp,
}

/// Sets the log up for the whole process.
pub fn init(format: LogFormat) -> Result<(), LogError> {
    let filter = filter(std::env::var(VARIABLE).ok().as_deref())?;
    let is_terminal = io::stderr().is_terminal();
    let dispatch = dispatch(format, filter, is_terminal, io::stderr);
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| LogError::SetUp)
}

fn filter(value: Option<&str>) -> Result<EnvFilter, LogError> {
    let value = value.filter(|value| !value.trim().is_empty()).unwrap_or(DEFAULT_FILTER);
    EnvFilter::try_new(value).map_err(|source| LogError::Filter { value: value.to_owned(), source })
}

fn dispatch<W>(format: LogFormat, filter: EnvFilter, is_terminal: bool, writer: W) -> tracing::Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        LogFormat::Text => log.with_ansi(is_terminal).with_target(false).into(),
        LogFormat::Json => log.json().flatten_event(true).with_ansi(false).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: Option<&str>) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let dispatch = dispatch(format, filter(level).unwrap(), false, move || writer.clone());
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::info!(origin = "api", "listening");
            tracing::debug!("not by default");
        });
        let bytes = kept.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_is_for_people_and_json_for_machines() {
        let text = logged(LogFormat::Text, None);
        assert!(text.contains("INFO listening origin=\"api\"\n") && text.lines().count() == 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&logged(LogFormat::Json, None)).unwrap();
        assert_eq!(
            (&line["message"], &line["origin"], &line["level"]),
            (&"listening".into(), &"api".into(), &"INFO".into())
        );
    }

    #[test]
    fn the_filter_comes_from_the_variable() {
        assert_eq!(logged(LogFormat::Text, Some("debug")).lines().count(), 2);
        assert_eq!(logged(LogFormat::Text, Some("off")), "");
        assert_eq!(logged(LogFormat::Text, Some(" ")).lines().count(), 1);
        assert!(matches!(filter(Some("brim_node=loud")), Err(LogError::Filter { .. })));
    }
}
