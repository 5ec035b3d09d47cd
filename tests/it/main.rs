//! The integration tests: one binary, one module for each part of the node's behaviour.

mod caching;
mod collapsing;
mod forwarding;
mod framing;
mod harness;
mod model;
mod operating;
mod plugins;
mod purging;
mod rules;
mod serving;
mod storing;
