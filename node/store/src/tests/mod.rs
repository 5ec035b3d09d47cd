//! The suite that every store has to pass, whatever engine its index uses.

mod basics;
mod budget;
mod crash;
mod damage;
mod faults;
mod fills;
mod interleaving;
mod offline;
mod purges;
mod ranges;
mod simulation;
pub(crate) mod support;
mod unread;
