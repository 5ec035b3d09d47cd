//! The origin: small responses that say their number and their generation.
//!
//! Always true:
//! - The responses with the numbers below `carriers` carry the common key; a few more, the bystanders, do not.
//! - All carriers have the same generation, which [`Origin::raise`] raises before a purge. That of a bystander is always 0.
//! - It is known of each of the first responses, the probes, when it was first asked for since then.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;

/// The key that all carriers have.
pub(crate) const COMMON_KEY: &str = "all";
/// Responses without it.
pub(crate) const BYSTANDERS: u64 = 64;
/// Length of a content.
pub(crate) const CONTENT_BYTES: usize = 256;
const PATH_BEFORE_NUMBER: &str = "/r/";

/// A running origin. It ends with the process.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    served: Arc<Served>,
}

#[derive(Debug)]
struct Served {
    carriers: u64,
    generation: AtomicU64,
    carrier_requests: AtomicU64,
    bystander_requests: AtomicU64,
    probed: Mutex<Vec<Option<Instant>>>,
}

impl Origin {
    /// Starts it on a thread of its own, on the CPU of this one.
    pub(crate) fn start(carriers: u64, probes: u64) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("listen as the origin")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let served = Arc::new(Served {
            carriers,
            generation: AtomicU64::new(1),
            carrier_requests: AtomicU64::default(),
            bystander_requests: AtomicU64::default(),
            probed: Mutex::new(vec![None; usize::try_from(probes)?]),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let serving = Arc::clone(&served);
        thread::Builder::new().name("origin".to_owned()).spawn(move || runtime.block_on(serve(listener, serving)))?;
        Ok(Self { address, served })
    }

    /// Requests for anything since the start.
    pub(crate) fn requests(&self) -> u64 {
        self.served.carrier_requests.load(SeqCst) + self.bystander_requests()
    }

    /// Those for bystanders.
    pub(crate) fn bystander_requests(&self) -> u64 {
        self.served.bystander_requests.load(SeqCst)
    }

    /// From here on all carriers are others than before.
    pub(crate) fn raise(&self) {
        self.served.probed.lock().fill(None);
        self.served.generation.fetch_add(1, SeqCst);
    }

    /// What the response with this number is now.
    pub(crate) fn generation(&self, number: u64) -> u64 {
        self.served.generation(number)
    }

    /// When the last of the probes was first asked for since [`Self::raise`], once all were.
    pub(crate) fn all_probed(&self) -> Option<Instant> {
        self.served.probed.lock().iter().copied().collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}

/// The path of a response.
pub(crate) fn path(number: u64) -> String {
    format!("{PATH_BEFORE_NUMBER}{number}")
}

fn number_of(path: &str) -> Option<u64> {
    path.strip_prefix(PATH_BEFORE_NUMBER)?.parse().ok()
}

/// The content of a response.
pub(crate) fn content(number: u64, generation: u64) -> Vec<u8> {
    let mut content = format!("{number:010} {generation:010} ").into_bytes();
    content.resize(CONTENT_BYTES, b'x');
    content
}

/// Its number and generation.
pub(crate) fn parts(content: &[u8]) -> Option<(u64, u64)> {
    let mut words = str::from_utf8(content).ok().filter(|content| content.len() == CONTENT_BYTES)?.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

async fn serve(listener: std::net::TcpListener, served: Arc<Served>) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let served = Arc::clone(&served);
        let service = service_fn(move |request: http::Request<_>| {
            let response = served.answer(request.uri().path());
            async move { Ok::<_, Infallible>(response) }
        });
        // How a connection ends is the server's business: it has errors of its own to report.
        tokio::spawn(async move { drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await) });
    }
}

impl Served {
    fn generation(&self, number: u64) -> u64 {
        if number < self.carriers { self.generation.load(SeqCst) } else { 0 }
    }

    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let Some(number) = number_of(path).filter(|number| *number < self.carriers + BYSTANDERS) else {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        };
        let is_carrier = number < self.carriers;
        let keys = if is_carrier { format!("{COMMON_KEY} own-{number}") } else { format!("own-{number}") };
        let mut probed = self.probed.lock();
        if let Some(first) = usize::try_from(number).ok().and_then(|probe| probed.get_mut(probe)) {
            first.get_or_insert_with(Instant::now);
        }
        drop(probed);
        if is_carrier { &self.carrier_requests } else { &self.bystander_requests }.fetch_add(1, SeqCst);
        let mut response = Response::new(Full::new(content(number, self.generation(number)).into()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400"));
        if let Ok(keys) = HeaderValue::try_from(keys) {
            headers.insert("surrogate-key", keys);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_says_its_number_and_its_generation() {
        assert_eq!(parts(&content(17, 3)), Some((17, 3)));
        assert_eq!(parts(&content(17, 3)[1..]), None);
        assert_eq!(number_of(&path(17)), Some(17));
    }

    #[test]
    fn raising_touches_carriers_alone_and_forgets_what_was_asked_for() {
        let origin = Origin::start(1_000, 2).unwrap();
        for number in [0, 1] {
            assert_eq!(origin.all_probed(), None);
            origin.served.answer(&path(number));
        }
        assert!(origin.all_probed().is_some());
        origin.raise();
        assert_eq!(origin.all_probed(), None);
        assert_eq!((origin.generation(999), origin.generation(1_000)), (2, 0));
        origin.served.answer(&path(1_000));
        assert_eq!((origin.requests(), origin.bystander_requests()), (3, 1));
    }
}
