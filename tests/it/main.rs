//! The integration tests: one binary, one module for each part of the node's behaviour.

mod caching;
mod harness;
mod methods;
mod operating;
mod partial;
mod plugins;
mod purging;
mod serving;
mod storing;
