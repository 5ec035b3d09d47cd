//! How a command fails.

use std::error::Error;

use super::client::ClientError;

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// It was said already, in full.
    #[error("")]
    Said,
    /// The node could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The same of one thing among several that the command names; those before it are done.
    #[error("{what}")]
    At {
        what: String,
        #[source]
        error: ClientError,
    },
    /// Something on this machine.
    #[error("{0}")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl CliError {
    pub(super) fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> CliError {
        CliError::Failed(error.into())
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) => 2,
            CliError::Client(error) | CliError::At { error, .. } => error.exit_code(),
            CliError::Said | CliError::Failed(_) => 1,
        }
    }
}
