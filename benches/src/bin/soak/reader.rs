//! Readers: each keeps one connection busy with requests for popular and less popular keys, and checks every answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};
use tokio::time::{sleep, timeout};

use crate::connection::Connection;
use crate::content::Check;
use crate::door::Door;
use crate::keys::{self, Keys};
use crate::tally::{Fault, Tally};
use crate::versions::{Unfit, Versions};

/// One request, from being sent to the last byte.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Before the next attempt to connect.
const PAUSE: Duration = Duration::from_millis(20);
/// Some of the latest misses are asked for again, for a full disk takes only what was asked for twice.
const AGAIN_COUNT: usize = 256;
const AGAIN_ONE_IN: u32 = 4;
/// As of what many clients of an API ask for.
const ZIPF_EXPONENT: f64 = 0.8;

/// What all clients share.
pub(crate) struct World {
    pub(crate) door: Door,
    pub(crate) keys: Arc<Keys>,
    pub(crate) versions: Arc<Versions>,
    pub(crate) tally: Tally,
    pub(crate) stop: AtomicBool,
    pub(crate) seed: u64,
}

impl World {
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(SeqCst)
    }
}

/// Which keys are asked for.
pub(crate) struct Choice {
    random: SmallRng,
    ranks: Zipf<f64>,
}

impl Choice {
    /// Those of one client; `stream` tells clients apart.
    pub(crate) fn new(keys: &Keys, seed: u64, stream: u64) -> anyhow::Result<Self> {
        let ranks = Zipf::new(f64::from(keys.count()), ZIPF_EXPONENT)?;
        Ok(Self { random: SmallRng::seed_from_u64(seed.wrapping_add(stream)), ranks })
    }

    pub(crate) fn key(&mut self) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank between 1 and the count")]
        let rank = self.ranks.sample(&mut self.random) as u32;
        rank.saturating_sub(1)
    }

    pub(crate) fn random(&mut self) -> &mut SmallRng {
        &mut self.random
    }
}

/// Asks until the world stops.
pub(crate) async fn read(world: Arc<World>, mut choice: Choice) {
    let mut connection = None;
    let mut missed = Vec::with_capacity(AGAIN_COUNT);
    while !world.is_stopped() {
        let again = !missed.is_empty() && choice.random().random_ratio(1, AGAIN_ONE_IN);
        let key = if again {
            let place = choice.random().random_range(0..missed.len());
            missed.swap_remove(place)
        } else {
            choice.key()
        };
        if ask(&world, &mut connection, key).await == Some(false) && !again {
            if missed.len() == AGAIN_COUNT {
                missed.swap_remove(choice.random().random_range(0..AGAIN_COUNT));
            }
            missed.push(key);
        }
    }
}

/// What one answer was.
struct Answer {
    version: u32,
    is_hit: bool,
    content_bytes: usize,
}

/// One request. Returns whether it was a hit, or nothing if there was no good answer.
async fn ask(world: &World, connection: &mut Option<Connection>, key: u32) -> Option<bool> {
    let Some(life) = world.door.life() else {
        *connection = None;
        sleep(PAUSE).await;
        return None;
    };
    let exchange = async {
        let mut open = ready(&world.door, connection.take()).await?;
        let (least, began) = (world.versions.least(key), Instant::now());
        let response = open.send(request(key)).await.map_err(|error| unreadable(key, &error))?;
        let answer = check(world, key, response).await?;
        *connection = Some(open);
        match world.versions.judge(key, least, answer.version) {
            Ok(()) => Ok((answer, began.elapsed())),
            Err(Unfit::Stale) => {
                let words = format!("key {key}: version {} where {least} is the least", answer.version);
                Err((Fault::StaleAfterPurge, if answer.is_hit { words + ", a hit" } else { words + ", no hit" }))
            }
            Err(Unfit::Unknown) => {
                Err((Fault::WrongContent, format!("key {key}: version {} was never there", answer.version)))
            }
        }
    };
    let result = timeout(ANSWER_MAX, exchange).await;
    let result =
        result.unwrap_or_else(|_| Err((Fault::Unreadable, format!("key {key}: no answer within {ANSWER_MAX:?}"))));
    match result {
        Ok((answer, took)) => {
            world.tally.answered(answer.is_hit, answer.content_bytes, took);
            Some(answer.is_hit)
        }
        Err((fault, words)) => {
            let is_excused = match fault {
                Fault::Unreadable | Fault::ServerError => world.door.is_over(life),
                Fault::WrongContent | Fault::StaleAfterPurge | Fault::OtherStatus | Fault::PurgeRefused => false,
            };
            if is_excused {
                world.tally.cut_by_kill();
            } else {
                world.tally.fault(fault, words);
            }
            sleep(PAUSE).await;
            None
        }
    }
}

/// The connection if it is still open, else a new one.
async fn ready(door: &Door, kept: Option<Connection>) -> Result<Connection, (Fault, String)> {
    if let Some(mut kept) = kept
        && kept.is_ready().await
    {
        return Ok(kept);
    }
    let opened = Connection::open(door.addresses().http).await;
    opened.map_err(|error| (Fault::Unreadable, format!("{error:#}")))
}

fn request(key: u32) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    if let Ok(target) = keys::path(key).parse() {
        *request.uri_mut() = target;
    }
    request.headers_mut().insert(header::HOST, http::HeaderValue::from_static(keys::host(key)));
    request
}

fn unreadable(key: u32, error: &hyper::Error) -> (Fault, String) {
    (Fault::Unreadable, format!("key {key}: {:#}", anyhow::anyhow!("{error:?}")))
}

async fn check(world: &World, key: u32, response: Response<Incoming>) -> Result<Answer, (Fault, String)> {
    let status = response.status();
    let cache_status = response.headers().get("cache-status").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if status != StatusCode::OK {
        let fault = if status.is_server_error() { Fault::ServerError } else { Fault::OtherStatus };
        return Err((fault, format!("key {key}: {status}, {cache_status}")));
    }
    let is_hit = is_hit(cache_status);
    let told = format!("{cache_status}, etag {:?}", response.headers().get(header::ETAG));
    let wrong = |words: String| (Fault::WrongContent, format!("{words}, {told}"));
    let (mut content, mut checked, mut content_bytes) = (response.into_body(), Check::of(key), 0);
    while let Some(frame) = content.frame().await {
        let frame = frame.map_err(|error| unreadable(key, &error))?;
        if let Some(piece) = frame.data_ref() {
            checked.add(piece).map_err(wrong)?;
            content_bytes += piece.len();
        }
    }
    let version = checked.end(|version| world.keys.length(key, version)).map_err(wrong)?;
    Ok(Answer { version, is_hit, content_bytes })
}

/// RFC 9211: what the node says of itself, which is the only cache here.
fn is_hit(cache_status: &str) -> bool {
    cache_status.split(';').any(|part| part.trim() == "hit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_is_what_the_node_calls_one() {
        assert!(is_hit("brim; hit; ttl=3"));
        assert!(!is_hit("brim; fwd=uri-miss; stored"));
        assert!(!is_hit(""));
    }

    #[test]
    fn popular_keys_are_asked_for_more_and_all_are_keys() {
        let keys = Keys::make(1, 16 * 1024 * 1024).unwrap();
        let mut choice = Choice::new(&keys, 7, 0).unwrap();
        let mut asked = vec![0_u32; keys.count() as usize];
        for _ in 0..100_000 {
            asked[choice.key() as usize] += 1;
        }
        assert!(asked[0] > 10 * asked[100].max(1), "{} and {}", asked[0], asked[100]);
    }
}
