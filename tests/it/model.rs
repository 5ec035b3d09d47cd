//! Random sequences of requests, answers, clock steps and purges, against a naive reference of RFC 9111.
//!
//! Always true:
//! - The reference shares no code with the node; where the two differ, the text of the RFC decides which one is wrong.
//! - One client, one request after the other, and nothing left under way between two: the outcome is determined.
//! - The seed is fixed, or `BRIM_MODEL_SEED`; `BRIM_MODEL_CASES` asks for more of them. A failure names its seed.
//!
//! Not here: what many clients may see at once (`concurrent`).

mod cache;
mod concurrent;

mod origin;
mod reference;
mod sequences;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use brim_tests::{Answer, Ask as Request, FakeOrigin, TestNode};
use http::Method;
use parking_lot::Mutex;
use proptest::test_runner::{Config, FileFailurePersistence, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use serde_json::json;

use self::cache::{Ask, Cache, Expected, How};
use self::origin::{Question, SECRET, Script, World};
use self::sequences::{Step, URLS};

const CASES: u32 = 500;
const SEED: u64 = 9111;

/// What the origin on the socket answers from.
struct Live {
    script: Script,
    world: World,
    now: u64,
    answers: u32,
    asked: Vec<Question>,
}

/// The node under test, with its origin.
struct Bench {
    node: TestNode,
    live: Arc<Mutex<Option<Live>>>,
    rounds: AtomicU32,
    _origin: FakeOrigin,
}

#[test]
fn any_sequence_is_answered_as_the_reference_does() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number in the environment"))
    };
    let seed = number("BRIM_MODEL_SEED", SEED);
    let cases = u32::try_from(number("BRIM_MODEL_CASES", u64::from(CASES))).expect("not that many");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bench = runtime.block_on(Bench::start());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let persistence = Some(Box::new(FileFailurePersistence::Off) as Box<_>);
    let config = Config { cases, failure_persistence: persistence, max_shrink_iters: 3000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let outcome = runner.run(&sequences::sequences(), |steps| runtime.block_on(bench.play(&steps)));
    runtime.block_on(async move {
        let mut node = bench.node;
        node.stop().await;
    });
    if let Err(error) = outcome {
        panic!("BRIM_MODEL_SEED={seed}: {error}");
    }
}

impl Bench {
    async fn start() -> Self {
        let origin = FakeOrigin::start().await;
        let live: Arc<Mutex<Option<Live>>> = Arc::default();
        let answering = Arc::clone(&live);
        origin.answer("/m", move |request| {
            let mut live = answering.lock();
            let live = live.as_mut().expect("a sequence is playing");
            let question = Question::of(request);
            live.asked.push(question.clone());
            live.answers += 1;
            live.script.reply(&question, live.answers, live.now, &live.world)
        });
        let node = TestNode::in_front_of(&origin).await;
        Self { node, live, rounds: AtomicU32::new(0), _origin: origin }
    }

    /// Each sequence has URLs of its own, so that one node plays them all.
    async fn play(&self, steps: &[Step]) -> Result<(), TestCaseError> {
        let round = self.rounds.fetch_add(1, Ordering::Relaxed);
        let urls = (0..URLS).map(|url| format!("/m?{round:06}-{url}")).collect();
        let world = World { urls, epoch: self.node.clock().unix_seconds() };
        let mut cache = Cache::new(world.clone());
        *self.live.lock() = None;
        for (place, step) in steps.iter().enumerate() {
            match step {
                Step::Wait(seconds) => self.node.clock().advance(Duration::from_secs(*seconds)),
                Step::PurgeUrl { url, is_soft } => {
                    let url_text = self.node.url(&world.urls[*url]);
                    self.node.purge(json!({ "url": url_text, "soft": is_soft, "on_demand": true })).await;
                    cache.purge(|named, _| named == *url, *is_soft);
                }
                Step::PurgeKey { key, is_soft } => {
                    self.node.purge(json!({ "surrogate_keys": [key], "soft": is_soft, "on_demand": true })).await;
                    cache.purge(|_, carried| carried == Some(*key), *is_soft);
                }
                Step::Ask(ask, script) => cache = self.ask(place, ask, script, &world, cache).await?,
            }
        }
        Ok(())
    }

    /// Sends one request, and gives back the state of the reference after it.
    async fn ask(
        &self,
        place: usize,
        ask: &Ask,
        script: &Script,
        world: &World,
        cache: Cache,
    ) -> Result<Cache, TestCaseError> {
        let now = self.node.clock().unix_seconds();
        let (answers, world) = (cache.answers(), world.clone());
        *self.live.lock() = Some(Live { script: script.clone(), world, now, answers, asked: Vec::new() });
        let url = &self.live.lock().as_ref().expect("just set").world.urls[ask.url].clone();
        let method: Method = ask.method.parse().expect("a method");
        let answer = with_fields(self.node.ask(method, url), ask).send().await;
        self.node.settled().await;
        let asked = self.live.lock().as_ref().map(|live| live.asked.clone()).unwrap_or_default();
        let mut first = None;
        for way in cache.ways(ask.url) {
            let mut after = cache.clone();
            let expected = after.handle(ask, script, now, *way);
            let actual = actual(&answer, asked.clone(), &expected);
            if actual == expected {
                return Ok(after);
            }
            first.get_or_insert((expected, actual));
        }
        let (expected, actual) = first.expect("there is always a way");
        let head = answer.head();
        Err(TestCaseError::fail(format!(
            "step {place}\n{ask:?}\n{script:?}\nexpected {expected:#?}\ngot {actual:#?}\n{head}"
        )))
    }
}

fn with_fields(request: Request, ask: &Ask) -> Request {
    let fields = [
        ("cache-control", ask.control),
        ("pragma", ask.pragma),
        ("if-none-match", ask.if_none_match),
        ("authorization", ask.is_authorized.then_some("Bearer x")),
        ask.nominated[0],
        ask.nominated[1],
    ];
    let present = fields.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)));
    present.fold(request, |request, (name, value)| request.header(name, value))
}

/// What came, in the words of the reference; nothing of what it does not compare.
fn actual(answer: &Answer, asked: Vec<Question>, expected: &Expected) -> Expected {
    let said = answer.cache_status();
    let how = match said.fwd.as_deref() {
        None if said.hit => How::Hit,
        None => How::Refused,
        Some("uri-miss" | "vary-miss") => How::Miss,
        Some("stale") => How::Stale,
        Some("request") => How::Requested,
        Some("method") => How::Method,
        Some(other) => panic!("fwd={other}\n{}", answer.head()),
    };
    let own = |name: &str| answer.header(name).map(str::to_owned);
    let is_other = expected.other_secret.is_some() && own(SECRET) == expected.other_secret;
    Expected {
        status: answer.status.as_u16(),
        how,
        is_stored: said.stored,
        content: expected.content.as_ref().map(|_| answer.content().to_owned()),
        version: own("x-version"),
        secret: own(SECRET).filter(|_| !is_other).or_else(|| expected.secret.clone().filter(|_| is_other)),
        other_secret: expected.other_secret.clone(),
        age: expected.age.and(answer.age()),
        ttl: expected.ttl.and(said.ttl),
        asked,
    }
}
