//! The origin: as small as can be, so that a miss measures the cache.
//!
//! Every URL has the same 1 KiB, fresh for an hour. Requests are counted: that is how a workload is known to be a hit.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Length of the content.
pub(crate) const CONTENT_BYTES: usize = 1024;

/// A running origin. It ends with the process.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicU64>,
}

impl Origin {
    /// Starts it on a thread of its own, on the CPU of this one.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("listen as the origin")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let requests = Arc::new(AtomicU64::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let counted = Arc::clone(&requests);
        thread::Builder::new().name("origin".to_owned()).spawn(move || runtime.block_on(serve(listener, counted)))?;
        Ok(Self { address, requests })
    }

    /// Requests since the start.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }
}

async fn serve(listener: std::net::TcpListener, requests: Arc<AtomicU64>) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let content = Bytes::from(vec![b'x'; CONTENT_BYTES]);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (requests, content) = (Arc::clone(&requests), content.clone());
        let service = service_fn(move |_| {
            requests.fetch_add(1, Relaxed);
            let response = answer(content.clone());
            async move { Ok::<_, Infallible>(response) }
        });
        // How a connection ends is the server's business: it has errors of its own to report.
        tokio::spawn(async move { drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await) });
    }
}

fn answer(content: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(content));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert(header::ETAG, HeaderValue::from_static("\"33a64df551425fcc\""));
    response
}
