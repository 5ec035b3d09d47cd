//! The sample origin: a product catalogue API in memory, for `brim demo`, `brim demo-origin`, tests and benches.
//!
//! Always true:
//! - It answers HTTP/1.1 and HTTP/2 with prior knowledge on one plaintext port.
//! - Every answer carries `x-origin-request: N`, N counting the requests since the start: when a second answer shows
//!   the same number, the origin was not asked.
//! - What it holds is made from a fixed seed; nothing is random, nothing is written to disk.
//! - A content of any length is streamed, in memory that does not grow with it.
//! - At most [`CONNECTIONS_MAX`] connections are open; further ones wait in the listen queue.
//!
//! Not here: the node before it, and the tour of `brim demo`.

mod body;
mod catalogue;
mod language;
mod pages;
mod probes;
mod products;
mod query;
mod respond;
mod routes;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderName;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use catalogue::Catalogue;

/// Many more than a node's pool opens, and fewer than the file descriptors of an ordinary shell.
pub const CONNECTIONS_MAX: usize = 512;
/// A head that takes longer is given up.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long answers may still run once the origin is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Wait after a failed accept: the usual cause, no file descriptor left, does not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const X_ORIGIN_REQUEST: HeaderName = HeaderName::from_static("x-origin-request");

/// How the sample origin behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoOptions {
    /// Wait before every answer, so that a hit is visibly faster than a forward.
    pub delay: Duration,
    /// Wait before the sales report, in place of `delay`.
    pub report_delay: Duration,
    /// How many products the catalogue begins with; at most 100 000.
    pub products: usize,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self { delay: Duration::from_millis(80), report_delay: Duration::from_secs(2), products: 2_400 }
    }
}

/// The sample origin, bound to its address and not yet answering.
#[derive(Debug)]
pub struct DemoOrigin {
    listener: TcpListener,
    local_addr: SocketAddr,
    shop: Arc<Shop>,
}

/// What all connections share.
#[derive(Debug)]
struct Shop {
    catalogue: Catalogue,
    options: DemoOptions,
    request_count: AtomicU64,
}

impl DemoOrigin {
    /// Binds the address and makes the catalogue. Connections wait until [`DemoOrigin::run`].
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(addr: impl ToSocketAddrs, options: DemoOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let local_addr = listener.local_addr()?;
        let catalogue = Catalogue::seeded(options.products);
        let shop = Arc::new(Shop { catalogue, options, request_count: AtomicU64::new(0) });
        Ok(Self { listener, local_addr, shop })
    }

    /// The address it listens on, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers until `shutdown` is ready, then lets running answers end, for at most two seconds.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let Self { listener, shop, .. } = self;
        let (stop, stopped) = watch::channel(false);
        let capacity = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let (permit, stream) = tokio::select! {
                () = &mut shutdown => break,
                accepted = accept(&listener, &capacity) => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "demo origin: accept failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let (shop, stopped) = (Arc::clone(&shop), stopped.clone());
            connections.spawn(async move {
                serve(shop, stream, stopped).await;
                drop(permit);
            });
            while connections.try_join_next().is_some() {}
        }
        drop(listener);
        let _ = stop.send(true);
        let drained = tokio::time::timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} });
        if drained.await.is_err() {
            tracing::debug!(open = connections.len(), "demo origin: connections closed while they were answered");
        }
    }
}

/// The next connection, once there is room for it. Cancel safe: a permit is given back, and accept is cancel safe.
async fn accept(
    listener: &TcpListener,
    capacity: &Arc<Semaphore>,
) -> io::Result<(tokio::sync::OwnedSemaphorePermit, TcpStream)> {
    let permit = Arc::clone(capacity).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((permit, stream))
}

async fn serve(shop: Arc<Shop>, stream: TcpStream, mut stopped: watch::Receiver<bool>) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    let service = service_fn(move |request| {
        let shop = Arc::clone(&shop);
        async move {
            let number = shop.request_count.fetch_add(1, Ordering::Relaxed) + 1;
            let mut response = routes::answer(&shop.catalogue, &shop.options, request).await;
            response.headers_mut().insert(X_ORIGIN_REQUEST, number.into());
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        outcome = &mut connection => Some(outcome),
        _ = stopped.wait_for(|stopped| *stopped) => None,
    };
    let outcome = match ended {
        Some(outcome) => outcome,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(error, "demo origin: connection ended");
    }
}

#[cfg(test)]
mod tests;
