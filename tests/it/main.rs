//! The integration tests: one binary, one module for each part of the node's behaviour.

mod caching;
mod explain;
mod harness;
mod operating;
mod plugins;
mod purging;
mod serving;
mod storing;
