//! The origin: it answers with the current version of a key, or that the validated one is still current.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use anyhow::Context;
use bytes::Bytes;
use clap::ValueEnum;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::content;
use crate::keys::{Keys, Life, surrogate_keys};
use crate::versions::Versions;

/// One answer in so many is wrong, where one is asked to be.
const FAULTY_ONE_IN: u64 = 50;

/// What the origin does wrong, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OriginFault {
    /// The version before the current one
    OldVersion,
    /// The content of another key
    OtherKey,
}

/// A running origin. It ends with the process.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    served: Arc<Served>,
}

struct Served {
    keys: Arc<Keys>,
    versions: Arc<Versions>,
    fault: Option<OriginFault>,
    requests: AtomicU64,
    validated: AtomicU64,
}

impl Origin {
    /// Starts it on a thread of its own.
    pub(crate) fn start(keys: Arc<Keys>, versions: Arc<Versions>, fault: Option<OriginFault>) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("listen as the origin")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let served =
            Arc::new(Served { keys, versions, fault, requests: AtomicU64::new(0), validated: AtomicU64::new(0) });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let serving = Arc::clone(&served);
        thread::Builder::new().name("origin".to_owned()).spawn(move || runtime.block_on(serve(listener, serving)))?;
        Ok(Self { address, served })
    }

    /// Requests since the start.
    pub(crate) fn requests(&self) -> u64 {
        self.served.requests.load(Relaxed)
    }

    /// Those of them that were answered with 304.
    pub(crate) fn validated(&self) -> u64 {
        self.served.validated.load(Relaxed)
    }
}

async fn serve(listener: std::net::TcpListener, served: Arc<Served>) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let served = Arc::clone(&served);
        let service = service_fn(move |request| {
            let response = served.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        // How a connection ends is the node's business: it may be killed at any time.
        tokio::spawn(async move { drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await) });
    }
}

impl Served {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let count = self.requests.fetch_add(1, Relaxed);
        let Some(key) = self.keys.of_path(request.uri().path()) else {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        };
        let (mut version, mut shown) = (self.versions.current(key), key);
        if count.is_multiple_of(FAULTY_ONE_IN) {
            match self.fault {
                None => {}
                Some(OriginFault::OldVersion) => version = version.saturating_sub(1),
                Some(OriginFault::OtherKey) => shown ^= 1,
            }
        }
        let tag = format!("\"{key}-{version}\"");
        let is_current = request.headers().get(header::IF_NONE_MATCH).is_some_and(|tags| tags == tag.as_str());
        let mut response = if is_current {
            self.validated.fetch_add(1, Relaxed);
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            Response::new(Full::new(content::make(shown, version, self.keys.length(key, version))))
        };
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache_control(self.keys.life(key))));
        for (name, value) in [("etag", tag), ("surrogate-key", surrogate_keys(key))] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        response
    }
}

fn cache_control(life: Life) -> &'static str {
    match life {
        Life::Long => "public, max-age=86400",
        Life::Short => "public, max-age=3",
        Life::Window => "public, max-age=3, stale-while-revalidate=10",
    }
}
