//! The admin listener: few connections, each with deadlines.
//!
//! Always true:
//! - At most [`CONNECTIONS_MAX`] connections are open; further ones wait in the listen queue.
//! - A connection that sends no head for [`HEAD_DEADLINE`] is closed, also between two requests.
//! - After `shutdown` no request is taken up; those under way get [`DRAIN_DEADLINE`].

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::calls;
use super::state::AdminState;

/// Connections at a time: people, a dashboard, a metrics collector.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// Time for a request's head, and for a kept connection to be used again.
const HEAD_DEADLINE: Duration = Duration::from_secs(15);
/// Time for the requests under way at shutdown.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// Pause after an accept error, for example when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address of whom a connection is with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Serves the admin API until `shutdown`, then drains.
pub async fn serve(listener: TcpListener, state: AdminState, shutdown: impl Future<Output = ()> + Send) {
    let router = calls::router(state);
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        // Cancel safe: a permit or a connection that was not returned is not taken.
        let accepted = async {
            let permit = free.clone().acquire_owned().await;
            (listener.accept().await, permit)
        };
        tokio::select! {
            () = &mut shutdown => break,
            // Takes ended connections off the set, so that it does not grow.
            Some(_) = connections.join_next() => {}
            (accepted, permit) = accepted => match (accepted, permit) {
                (Ok((stream, peer)), Ok(permit)) => {
                    let router = router.clone().layer(Extension(Peer(peer)));
                    connections.spawn(connection(stream, router, stopping.clone(), permit));
                }
                (Err(error), _) => {
                    tracing::warn!(%error, "admin: accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                (_, Err(_)) => break,
            },
        }
    }
    drop(listener);
    let _ = stop.send(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_DEADLINE, drained).await.is_err() {
        tracing::warn!("admin: connections were cut off at shutdown");
    }
}

async fn connection(
    stream: TcpStream,
    router: Router,
    mut stopping: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_buf_size(64 * 1024);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let stopped = async {
        let _ = stopping.wait_for(|&stop| stop).await;
    };
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stopped => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin: connection");
    }
}
