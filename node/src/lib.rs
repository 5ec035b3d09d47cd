//! Brim: an edge cache node for APIs. The library behind the one binary `brim`.
//!
//! Start reading at [`request`]: it names the stages of a request in order. `ARCHITECTURE.md` has the map.

pub mod admin;
pub mod body;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod listen;
pub mod node;
pub mod origin;
pub mod plugin_kit;
pub mod plugins;
mod reload;
pub mod request;
pub mod retry;
pub mod route;
pub mod serve;
mod status;
pub mod tasks;
pub mod telemetry;
