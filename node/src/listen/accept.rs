//! Accepting: one loop a socket, and the connections that came of it.
//!
//! Always true:
//! - The loop awaits accept, ended connections and the drain, and nothing a client can delay.
//! - An error of `accept` that will come again (no descriptors, no memory) is followed by a pause, doubled each time.
//! - Each connection is a task of its loop. Dropping [`serve`] ends them all.
//! - A drain ends at `drain_timeout`, counted from its start on each thread: what is left then is aborted and counted.
//!
//! Not here: what a connection does (`connection`).

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};

use super::bind::{BoundSocket, Scheme, ThreadListeners};
use super::counters::{OpenConnection, count};
use super::{Drain, Handler, ListenContext, connection};

const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// Connections that were cut by the deadline.
    pub aborted_count: usize,
}

/// Serves the connections of one thread until `context.drain` begins and they have ended. Runs on the current-thread
/// runtime that is to own them. Fails only where a socket cannot be given to the runtime.
pub async fn serve<H: Handler>(
    listeners: ThreadListeners,
    context: Arc<ListenContext>,
    handler: Arc<H>,
) -> io::Result<Drained> {
    let mut loops = JoinSet::new();
    for BoundSocket { listener, scheme } in listeners.sockets {
        if scheme == Scheme::Https && context.tls.is_none() {
            return Err(io::Error::other("an https listener needs ListenContext::tls"));
        }
        let listener = TcpListener::from_std(listener)?;
        loops.spawn(accept_loop(listener, scheme, context.clone(), handler.clone()));
    }
    let mut drained = Drained::default();
    while let Some(ended) = loops.join_next().await {
        match ended {
            Ok(part) => drained.aborted_count += part.aborted_count,
            Err(error) => tracing::error!(%error, "an accept loop failed"),
        }
    }
    Ok(drained)
}

async fn accept_loop<H: Handler>(
    listener: TcpListener,
    scheme: Scheme,
    context: Arc<ListenContext>,
    handler: Arc<H>,
) -> Drained {
    let mut connections = JoinSet::new();
    let mut draining = pin!(context.drain.started());
    // Polled by each connection at each turn: one of the loop's own, so that threads do not meet in it.
    let drain = Drain::default();
    let mut pause = Pause::default();
    loop {
        tokio::select! {
            biased;
            () = &mut draining => break,
            Some(ended) = connections.join_next() => reap(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    pause = Pause::default();
                    let Some(place) = admit(&context) else { continue };
                    let (context, handler, drain) = (context.clone(), handler.clone(), drain.clone());
                    let arrival = connection::Arrival { stream, peer, place, context, handler, drain };
                    match scheme {
                        Scheme::Http => connections.spawn(connection::serve_http(arrival)),
                        Scheme::Https => connections.spawn(connection::serve_https(arrival)),
                    };
                }
                Err(error) => {
                    count(&context.counters.accept_errors);
                    let Some(length) = pause.after(&error) else { continue };
                    tokio::select! {
                        () = &mut draining => break,
                        () = tokio::time::sleep(length) => {}
                    }
                }
            },
        }
    }
    drop(listener);
    drain.start();
    finish(connections, &context).await
}

/// A place for one more connection. Without one it is closed at once: the client learns now, and the kernel's queue stays
/// short for others.
fn admit(context: &ListenContext) -> Option<OpenConnection> {
    count(&context.counters.accepted);
    let place = context.counters.open(context.config.connections_max);
    if place.is_none() {
        count(&context.counters.refused);
    }
    place
}

async fn finish(mut connections: JoinSet<()>, context: &ListenContext) -> Drained {
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            reap(ended);
        }
    };
    if tokio::time::timeout(context.config.drain_timeout, all_ended).await.is_ok() {
        return Drained::default();
    }
    let aborted_count = connections.len();
    context.counters.drain_aborted.fetch_add(aborted_count as u64, std::sync::atomic::Ordering::Relaxed);
    connections.shutdown().await;
    Drained { aborted_count }
}

fn reap(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}

/// The pause after an error of `accept`.
#[derive(Debug, Default)]
struct Pause {
    last: Option<Duration>,
}

impl Pause {
    /// None: the error was of one connection, and the next may be accepted at once.
    fn after(&mut self, error: &io::Error) -> Option<Duration> {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
            return None;
        }
        let next = match self.last {
            None => {
                tracing::warn!(%error, "cannot accept connections; pausing between attempts");
                PAUSE_MIN
            }
            Some(last) => (last * 2).min(PAUSE_MAX),
        };
        self.last = Some(next);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lasting_errors_pause_longer_each_time_up_to_a_bound() {
        let no_descriptors = io::Error::from_raw_os_error(24);
        let mut pause = Pause::default();
        assert_eq!(pause.after(&no_descriptors), Some(PAUSE_MIN));
        assert_eq!(pause.after(&no_descriptors), Some(PAUSE_MIN * 2));
        for _ in 0..20 {
            pause.after(&no_descriptors);
        }
        assert_eq!(pause.after(&no_descriptors), Some(PAUSE_MAX));
        assert_eq!(Pause::default().after(&io::ErrorKind::ConnectionAborted.into()), None);
    }
}
