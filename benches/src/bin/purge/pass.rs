//! A pass: each of many responses is asked for once.

use std::net::SocketAddr;
use std::ops::Range;

use anyhow::{Context, ensure};

use crate::connection::Connection;
use crate::origin::Origin;

/// Connections of a pass, each with one request under way.
const CONNECTIONS: usize = 64;

/// Asks for all of them. An answer of another generation than the origin's is an error: nothing here may be old.
pub(crate) fn pass(address: SocketAddr, origin: &Origin, numbers: Range<u64>) -> anyhow::Result<()> {
    let mut connections = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        connections.push((Connection::open(address)?, None));
    }
    for (turn, number) in numbers.enumerate() {
        let (connection, waits) = &mut connections[turn % CONNECTIONS];
        if let Some(before) = waits.replace(number) {
            receive(connection, origin, before)?;
        }
        connection.ask(number)?;
    }
    for (connection, waits) in &mut connections {
        if let Some(number) = waits {
            receive(connection, origin, *number)?;
        }
    }
    Ok(())
}

/// A pass of which the origin must see nothing.
pub(crate) fn hits(address: SocketAddr, origin: &Origin, numbers: Range<u64>) -> anyhow::Result<()> {
    let asked_before = origin.requests();
    pass(address, origin, numbers)?;
    let asked = origin.requests() - asked_before;
    ensure!(asked == 0, "the origin was asked {asked} times in a pass of hits");
    Ok(())
}

fn receive(connection: &mut Connection, origin: &Origin, number: u64) -> anyhow::Result<()> {
    let generation = connection.receive_generation(number).context("in a pass")?;
    let expected = origin.generation(number);
    ensure!(generation == expected, "{number} was answered with generation {generation}; {expected} is the right one");
    Ok(())
}
