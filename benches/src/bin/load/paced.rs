//! How long single requests take, over HTTP/1.1: one after the other on one connection, or at a rate on many.
//!
//! Always true: each connection has a thread of its own that blocks. A runtime's timers are too coarse for this: requests would go out in
//! bursts, and wait for one another.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;

use crate::client::{HEAD_BYTES_MAX, whole_response};
use crate::origin::CONTENT_BYTES;

/// Connections that share a rate.
const CONNECTIONS: u32 = 16;
/// One answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Microseconds of requests one after the other, for so long.
pub(crate) fn alone(address: SocketAddr, path: &str, time: Duration) -> anyhow::Result<Histogram<u64>> {
    drive(address, path, Instant::now(), Duration::ZERO, time)
}

/// Microseconds of requests at a rate, for so long. A connection that is still busy when it is its turn sends a little later.
pub(crate) fn at_rate(address: SocketAddr, path: &str, rate: f64, time: Duration) -> anyhow::Result<Histogram<u64>> {
    let pause = Duration::from_secs_f64(f64::from(CONNECTIONS) / rate);
    let begin = Instant::now();
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|n| {
            let (path, first) = (path.to_owned(), begin + pause.mul_f64(f64::from(n) / f64::from(CONNECTIONS)));
            thread::spawn(move || drive(address, &path, first, pause, time))
        })
        .collect();
    let mut all = Histogram::new(3)?;
    for thread in threads {
        let Ok(times) = thread.join() else { bail!("a connection's thread panicked") };
        all.add(times?)?;
    }
    Ok(all)
}

fn drive(
    address: SocketAddr,
    path: &str,
    first: Instant,
    pause: Duration,
    time: Duration,
) -> anyhow::Result<Histogram<u64>> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: */*\r\n\r\n");
    let mut times = Histogram::new(3)?;
    let mut received = Vec::with_capacity(HEAD_BYTES_MAX + CONTENT_BYTES);
    let mut next = first;
    while next < first + time {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let began = Instant::now();
        stream.write_all(request.as_bytes())?;
        received.clear();
        while whole_response(&received)?.is_none() {
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece)?;
            ensure!(count > 0, "the server closed the connection");
            received.extend_from_slice(&piece[..count]);
        }
        times.record(u64::try_from(began.elapsed().as_micros())?)?;
        next = (next + pause).max(Instant::now());
    }
    Ok(times)
}
