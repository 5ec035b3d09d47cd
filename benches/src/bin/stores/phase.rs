//! What a run consists of: phases to choose from, and the steps of one store that processes are started for.

use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::brim::Reading;
use crate::corpus::Corpus;
use crate::subject::Kind;
use crate::{open, put, read, space};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Phase {
    /// Everything is put once
    Put,
    /// Everything is read, page cache warm
    Read,
    /// Disk against live bytes: three times overwritten, half of it removed
    Space,
    /// A larger store is opened anew
    Open,
}

impl Phase {
    pub(crate) const ALL: [Self; 4] = [Self::Put, Self::Read, Self::Space, Self::Open];
}

/// What one process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    Put,
    Read(Reading),
    Overwrite,
    Remove,
    Open(Pages),
}

/// What the system's page cache has of a store that is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Pages {
    Warm,
    Dropped,
}

/// One step of one store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) step: Step,
    pub(crate) kind: Kind,
    pub(crate) dir: PathBuf,
    pub(crate) count: u64,
    pub(crate) seconds: u64,
}

impl Order {
    pub(crate) fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}

/// What a step measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Figures {
    Put(put::Figures),
    Read(read::Figures),
    Space(space::Figures),
    Open(open::Figures),
}

/// Does one step in this process.
pub(crate) fn run(order: &Order) -> anyhow::Result<Figures> {
    let corpus = Arc::new(Corpus::new(order.count)?);
    Ok(match order.step {
        Step::Put => Figures::Put(put::run(order, &corpus)?),
        Step::Read(reading) => Figures::Read(read::run(order, &corpus, reading)?),
        Step::Overwrite => Figures::Space(space::overwrite(order, &corpus)?),
        Step::Remove => Figures::Space(space::remove(order, &corpus)?),
        Step::Open(pages) => Figures::Open(open::run(order, &corpus, pages)?),
    })
}
