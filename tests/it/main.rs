//! The integration tests: one binary, one module for each part of the node's behaviour.

mod caching;
mod collapsing;
mod combining;
mod disks;
mod expecting;
mod explain;
mod forwarding;
mod framing;
mod harness;
mod interim;
mod invalidation;
mod items;
mod methods;
mod model;
mod operating;
mod origins;
mod overload;
mod partial;
mod plugins;
mod purging;
mod rules;
mod serving;
mod store_cli;
mod storing;
mod tagging;
mod tokens;
