//! Several clients at once, with writes, purges and clock steps between them: what must hold whatever the order was.
//!
//! Always true, and checked of every response:
//! - Its content is one that the origin made for that URL and that variant, whole.
//! - It is not older than a purge or a write that was acknowledged before the request began.
//! - Its `Age` is what the clock has moved since it was made, and what it had by then.
//! - It is not used beyond its lifetime and its window.
//!
//! The clock moves while nothing is under way, so that ages are exact; everything else happens at once.
//!
//! Not here: which of several permitted answers it is; `model` says that of one request after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use brim_tests::{Answer, Client, FakeOrigin, TestNode, ok, status};
use http::Method;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::RwLock;

const URLS: usize = 3;
const VARIANTS: [&str; 2] = ["de", "en"];
const CLIENTS: usize = 8;
const REQUESTS: usize = 60;
/// The node is restarted between them: what a purge named must not come back.
const ROUNDS: u64 = 3;
const LIFETIME: u64 = 5;
const WINDOW: u64 = 3;
/// Of every response, on arrival.
const AGE: u64 = 1;

/// One answer of the origin.
#[derive(Debug, Clone)]
struct Made {
    url: usize,
    variant: String,
    /// The node's time when it was made.
    at: u64,
}

#[derive(Default)]
struct Shared {
    /// Every answer of the origin; its place is its number.
    made: Mutex<Vec<Made>>,
    /// The number below which an answer for this URL is outdated: all that were made before a purge or write was acknowledged.
    outdated: [AtomicUsize; URLS],
    /// How far the clock has moved. Held for reading by whoever asks, so that it stands still meanwhile.
    clock: RwLock<()>,
    seconds: AtomicU64,
}

impl Shared {
    fn make(&self, url: usize, variant: &str) -> usize {
        let mut made = self.made.lock();
        made.push(Made { url, variant: variant.to_owned(), at: self.seconds.load(SeqCst) });
        made.len() - 1
    }
}

fn path(url: usize) -> String {
    format!("/c{url}")
}

/// Long enough to come in several pieces, and every piece says whose it is.
fn content(number: usize, url: usize, variant: &str) -> String {
    let item = format!("{{\"number\": {number}, \"url\": {url}, \"variant\": \"{variant}\"}}");
    format!("{{\"items\": [{}]}}", vec![item; 100].join(","))
}

async fn origin(shared: &Arc<Shared>) -> FakeOrigin {
    let origin = FakeOrigin::start().await;
    for url in 0..URLS {
        let shared = Arc::clone(shared);
        origin.answer(&path(url), move |request| {
            if request.method == Method::PUT {
                return status(204);
            }
            let variant = request.header("accept-language").unwrap_or("none");
            let number = shared.make(url, variant);
            let text = content(number, url, variant);
            let (begin, rest) = text.split_at(text.len() / 2);
            // Every seventh answer is in trouble; some are late, so that others catch up with them.
            if number % 7 == 6 {
                return status(503);
            }
            let control = format!("max-age={LIFETIME}, stale-while-revalidate={WINDOW}, stale-if-error={WINDOW}");
            let reply =
                ok(begin.to_owned()).then(rest.to_owned()).chunked().cache_control(&control).vary("Accept-Language");
            let reply = reply.header("age", &AGE.to_string()).surrogate_keys(if url == 0 { "first" } else { "others" });
            if number.is_multiple_of(5) { reply.delay(Duration::from_millis(3)) } else { reply }
        });
    }
    origin
}

#[tokio::test]
async fn whatever_the_order_no_client_gets_what_it_must_not() {
    let shared: Arc<Shared> = Arc::default();
    let origin = origin(&shared).await;
    // The name of the item on each page comes with its content alone: its purges race with fills whose keys are not known.
    let rule = "[sites.routes.items]\nlist = \"/items\"\nid = \"/url\"\ntype = \"page\"";
    let mut node = TestNode::start(&TestNode::config(&origin, "", rule)).await;
    let mut hits = 0;
    for round in 0..ROUNDS {
        let shared_node = Arc::new(node);
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..CLIENTS as u64 {
            let client = if number % 2 == 0 { shared_node.http2() } else { shared_node.client().clone() };
            // Over either version in the name of one authority.
            let client = client.authority("model.test");
            let (shared, node) = (Arc::clone(&shared), Arc::clone(&shared_node));
            let seed = 0x9E37_79B9 + 100 * round + number;
            clients.spawn(async move { Box::pin(run(&client, &node, &shared, seed)).await });
        }
        hits += clients.join_all().await.into_iter().sum::<usize>();
        node = Arc::into_inner(shared_node).expect("the clients have ended");
        node.settled().await;
        node.restart().await;
    }
    assert!(hits > CLIENTS * REQUESTS / 10, "only {hits} hits: the test tests nothing");
}

/// A client's life; how many hits it had. Its choices come from a seed, the order among the clients does not.
async fn run(client: &Client, node: &TestNode, shared: &Shared, seed: u64) -> usize {
    let mut random = seed;
    let mut below = move |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    let mut hits = 0;
    for _ in 0..REQUESTS {
        let url = usize::try_from(below(URLS as u64)).expect("small");
        match below(40) {
            0 => {
                outdate(
                    shared,
                    &[url],
                    Box::pin(node.purge(json!({ "url": format!("http://model.test{}", path(url)) }))),
                )
                .await
            }
            1 => outdate(shared, &[0], Box::pin(node.purge(json!({ "surrogate_keys": ["first"] })))).await,
            2 => outdate(shared, &[1, 2], Box::pin(node.purge(json!({ "surrogate_keys": ["others"] })))).await,
            3 => outdate(shared, &[url], Box::pin(client.ask(Method::PUT, &path(url)).content("x").send())).await,
            4 => {
                let page = json!({ "surrogate_keys": [format!("page:{url}")], "site": "test" });
                outdate(shared, &[url], Box::pin(node.purge(page))).await;
            }
            5 => {
                let matching = json!({ "match": { "path": format!("{}*", path(url)), "status": "2xx" } });
                outdate(shared, &[url], Box::pin(node.purge(matching))).await;
            }
            6..10 => {
                let _nobody_asks = shared.clock.write().await;
                node.settled().await;
                node.clock().advance(Duration::from_secs(1));
                shared.seconds.fetch_add(1, SeqCst);
            }
            _ => {
                let variant = VARIANTS[usize::try_from(below(2)).expect("small")];
                let oldest = shared.outdated[url].load(SeqCst);
                let _stands_still = shared.clock.read().await;
                let answer = client.ask(Method::GET, &path(url)).header("accept-language", variant).send().await;
                check(&answer, shared, url, variant, oldest);
                hits += usize::from(answer.cache_status().hit);
            }
        }
    }
    hits
}

/// What the origin has made by now is outdated once the purge or write is acknowledged.
async fn outdate<T>(shared: &Shared, urls: &[usize], acknowledged: impl Future<Output = T>) {
    let made = shared.made.lock().len();
    acknowledged.await;
    for url in urls {
        shared.outdated[*url].fetch_max(made, SeqCst);
    }
}

fn check(answer: &Answer, shared: &Shared, url: usize, variant: &str, oldest: usize) {
    let head = answer.head();
    if answer.status == 503 {
        assert_eq!(answer.content(), "", "{head}");
        return;
    }
    answer.assert_status(200);
    let number = answer.json()["items"][0]["number"].as_u64().and_then(|number| usize::try_from(number).ok());
    let number = number.unwrap_or_else(|| panic!("no number\n{head}"));
    assert_eq!(
        answer.content(),
        content(number, url, variant),
        "not what the origin made for {url} and {variant}\n{head}"
    );
    let made = shared.made.lock()[number].clone();
    assert_eq!((made.url, made.variant.as_str()), (url, variant));
    assert!(number >= oldest, "answer {number} of {url}, though {oldest} were outdated when the request began\n{head}");
    let age = shared.seconds.load(SeqCst) - made.at + AGE;
    assert_eq!(answer.age(), Some(age), "{made:?}\n{head}");
    assert!(age < LIFETIME + WINDOW, "stale beyond its window\n{head}");
}
