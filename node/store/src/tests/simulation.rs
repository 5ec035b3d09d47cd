//! A seeded simulation: fills, those who join them, purges of every kind, validations, removals and restarts in any order, against a
//! model that only remembers what happened. `BRIM_SIMULATION_CASES` runs more of it, `BRIM_SIMULATION_SEED` one seed first.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brim_semantics::PurgeState;
use http::{HeaderValue, StatusCode};

use super::support::*;
use crate::{
    COUNT_WAIT, Fill, Finished, Position, Predicate, Purge, PurgeMode, ResponseHead, Selector, Store, StoredResponse,
};

const PATHS: [&str; 4] = ["/list/1", "/list/2", "/item/1", "/other"];
const LANGUAGES: [&str; 2] = ["de", "en"];
const KEYS: [&str; 4] = ["red", "green", "blue", "grey"];

/// A response as the model knows it. Its number is the version that its body tells.
#[derive(Debug, Clone)]
struct Told {
    path: &'static str,
    language: &'static str,
    keys: Vec<&'static str>,
    status: u16,
    is_json: bool,
    came: SystemTime,
    /// When its fetch, or its last validation, began.
    begun: u64,
}

#[derive(Debug)]
struct Remembered {
    at: u64,
    selectors: Vec<Selector>,
    is_hard: bool,
}

struct Under {
    fill: Fill,
    number: usize,
    body: bytes::Bytes,
    late: Vec<&'static str>,
}

struct Simulation {
    random: Random,
    now: u64,
    told: Vec<Told>,
    purges: Vec<Remembered>,
    fills: Vec<Under>,
    validations: Vec<Validation>,
    /// Every response that was ever stored, by number and position.
    versions: Vec<(usize, Position, Told)>,
    store: Store,
}

/// One under way.
struct Validation {
    number: usize,
    stored: Arc<StoredResponse>,
    position: Position,
    begun: u64,
}

/// The definition of each selector, without numbers and tables.
fn names(selector: &Selector, told: &Told) -> bool {
    let carries = |keys: &[Box<str>]| keys.iter().any(|key| told.keys.contains(&&**key));
    match selector {
        Selector::Everything => true,
        Selector::Site(site) => **site == *"shop",
        Selector::Prefix { path_prefix, .. } => told.path.starts_with(&**path_prefix),
        Selector::Url { path, .. } => **path == *told.path,
        Selector::SurrogateKeys { site, keys } => site.as_deref().is_none_or(|site| site == "shop") && carries(keys),
        Selector::Groups { groups, .. } => carries(groups),
        Selector::Variant { path, fields, .. } => {
            **path == *told.path && fields.iter().any(|(_, value)| **value == *told.language.as_bytes())
        }
        Selector::Match(predicate) => {
            predicate.path.as_deref().is_none_or(|path| told.path.starts_with(path.trim_end_matches('*')))
                && (predicate.statuses.is_empty() || predicate.statuses.contains(&(told.status, told.status)))
                && predicate.content_type.as_deref().is_none_or(|_| told.is_json)
                && predicate.stored_before.is_none_or(|before| told.came < before)
        }
    }
}

impl Simulation {
    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).unwrap()
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    /// What the model makes of a response.
    fn state(&self, told: &Told) -> PurgeState {
        let hits = |is_hard| {
            let later = self.purges.iter().filter(|purge| purge.is_hard == is_hard && purge.at > told.begun);
            later.flat_map(|purge| &purge.selectors).any(|selector| names(selector, told))
        };
        if hits(true) {
            PurgeState::Hard
        } else if hits(false) {
            PurgeState::Soft
        } else {
            PurgeState::Live
        }
    }

    fn selector(&mut self) -> Selector {
        let path = self.one(&PATHS);
        let key = || -> Box<str> { "x".into() };
        match self.random.below(12) {
            0 => Selector::Everything,
            1 => Selector::Site(self.one(&["shop", "blog"]).into()),
            2 => Selector::Prefix { authority: "a.example".into(), path_prefix: self.one(&["/list/", "/i"]).into() },
            3 | 4 => Selector::Url { authority: "a.example".into(), path: path.into(), query: None },
            5 | 6 => {
                let site = self.one(&[None, Some("shop"), Some("blog")]).map(Into::into);
                Selector::SurrogateKeys { site, keys: vec![key(), self.one(&KEYS).into()] }
            }
            7 => Selector::Groups { authority: "a.example".into(), groups: vec![self.one(&KEYS).into()] },
            8 | 9 => Selector::Variant {
                authority: "a.example".into(),
                path: path.into(),
                query: None,
                keys: Vec::new(),
                fields: vec![("accept-language".into(), self.one(&LANGUAGES).as_bytes().into())],
            },
            _ => Selector::Match(Predicate {
                host: Some("*.example".into()),
                path: self.one(&[None, Some("/list/*"), Some("/item*")]).map(Into::into),
                statuses: self.one(&[None, Some((200, 200)), Some((404, 404))]).into_iter().collect(),
                content_type: self.one(&[None, Some("*/json")]).map(Into::into),
                stored_before: self.one(&[None, Some(1500), Some(3000)]).map(after),
                ..Predicate::default()
            }),
        }
    }

    fn begin(&mut self) {
        let (path, language, begun) = (self.one(&PATHS), self.one(&LANGUAGES), self.tick());
        let number = self.told.len();
        let (mut keys, late) = (vec![self.one(&KEYS)], self.random.below(3) == 0);
        let late = if late { vec![self.one(&KEYS)] } else { Vec::new() };
        let mut head = in_language(head(path, self.store.position()), language);
        head.surrogate_keys = keys.iter().map(|key| (*key).into()).collect();
        let status = self.one(&[200, 404]);
        head.status = StatusCode::from_u16(status).unwrap();
        let is_json = self.random.below(2) == 0;
        let content_type = if is_json { "application/json; charset=utf-8" } else { "text/plain" };
        head.headers.insert("content-type", HeaderValue::from_static(content_type));
        let came = after(self.random.below(4000));
        (head.meta.request_time, head.meta.response_time) = (came, came);
        let length = self.random.length_below(30_000);
        let body = body(path, number as u64, length);
        let fill = self.store.begin(head, Some(length as u64));
        let fill = if late.is_empty() { fill } else { fill.awaiting_keys() };
        keys.extend(&late);
        let told = Told { path, language, keys, status, is_json, came, begun };
        self.versions.push((self.told.len(), self.store.position(), told.clone()));
        self.told.push(told);
        self.fills.push(Under { fill, number, body, late });
    }

    /// Whoever joins a fill is told nothing that a purge has named since it began.
    async fn join(&mut self) {
        let Some(at) = self.some_fill() else { return };
        let (told, following) = (&self.told[self.fills[at].number], self.fills[at].fill.follower());
        // The first is the one that made the fetch, and takes it as it is.
        let Some(first) = following.read() else { return };
        if following.read().is_some() {
            assert_eq!(self.state(told), PurgeState::Live, "joined what a purge has named: {told:?}");
        }
        drop(first);
    }

    fn some_fill(&mut self) -> Option<usize> {
        let count = self.fills.len();
        (count > 0).then(|| self.index(count))
    }

    /// Ends a fill; a purge may be on its way at the same time.
    async fn finish(&mut self) {
        let Some(at) = self.some_fill() else { return };
        let Under { mut fill, number, body, late } = self.fills.swap_remove(at);
        if self.random.below(8) == 0 {
            return;
        }
        let (start, end) = body.split_at(body.len() / 2);
        let (start, end) = (bytes::Bytes::copy_from_slice(start), bytes::Bytes::copy_from_slice(end));
        let reader = fill.follower().read();
        let late = late.into_iter().map(Into::into).collect();
        let finished = async move {
            let appended = fill.append(start).await.is_ok() && fill.append(end).await.is_ok();
            assert!(appended, "it has a reader");
            fill.finish_with_keys(None, late).await
        };
        let purge = (self.random.below(3) == 0).then(|| self.some_purge());
        let finished = match purge {
            None => finished.await,
            Some((purge, remembered)) => {
                let (finished, receipt) = tokio::join!(finished, self.store.purge(purge, COUNT_WAIT));
                receipt.unwrap();
                self.purges.push(remembered);
                finished
            }
        };
        drop(reader);
        if let Finished::Stored(stored) = finished {
            let told = &self.told[number];
            assert_eq!(self.store.purge_state(&stored), self.state(told), "{told:?}");
        }
    }

    fn some_purge(&mut self) -> (Purge, Remembered) {
        let selectors: Vec<Selector> = (0..1 + self.random.below(2)).map(|_| self.selector()).collect();
        let is_hard = self.random.below(3) > 0;
        let mode = if is_hard { PurgeMode::Hard } else { PurgeMode::Soft };
        let at = self.tick();
        let purge = Purge {
            selectors: selectors.clone(),
            mode,
            at: now(),
            by: "test".into(),
            idempotency_key: None,
            fingerprint: None,
        };
        (purge, Remembered { at, selectors, is_hard })
    }

    async fn purge(&mut self) {
        let (purge, remembered) = self.some_purge();
        if remembered.is_hard && self.random.below(2) == 0 {
            self.store.invalidate_all(purge.selectors, purge.at, "write").await.unwrap();
        } else {
            let receipt = self.store.purge(purge, COUNT_WAIT).await.unwrap();
            assert_eq!(receipt.selectors, remembered.selectors);
        }
        self.purges.push(remembered);
    }

    async fn found(&self, path: &str) -> Vec<(usize, Arc<StoredResponse>)> {
        let mut found = Vec::new();
        let Some(variants) = lookup(&self.store, path).await else { return found };
        for stored in variants.iter() {
            let content = match stored.body() {
                Some(bytes) => bytes,
                None => read_all(stored.read()).await.expect("it is whole"),
            };
            found.push((usize::try_from(version_of(path, &content)).unwrap(), stored.clone()));
        }
        found
    }

    /// Everything that is found stands as the model says, by its own account and by the tables of the store.
    async fn check(&self) {
        for path in PATHS {
            for (number, stored) in self.found(path).await {
                let told = self.version_of(number, &stored);
                assert_eq!(stored.head.status.as_u16(), told.status);
                assert_eq!(self.store.purge_state(&stored), self.state(told), "{number}: {told:?}");
            }
        }
        self.store.shared().catalog.check_carriers();
    }

    /// What the model knows of what was found: as it was filled, or as a validation made it.
    fn version_of(&self, number: usize, stored: &StoredResponse) -> &Told {
        let has_keys = |told: &Told| KEYS.into_iter().all(|key| told.keys.contains(&key) == carries(&stored.head, key));
        let is_it = |(known, position, told): &&(usize, Position, Told)| {
            *known == number && *position == stored.head.fetched_at && has_keys(told)
        };
        self.versions.iter().rev().find(is_it).map(|(_, _, told)| told).expect("it was put there")
    }

    /// A validation begins.
    async fn validate(&mut self) {
        let path = self.one(&PATHS);
        let Some((number, stored)) = self.found(path).await.pop() else { return };
        if self.store.purge_state(&stored) == PurgeState::Hard {
            return;
        }
        let (position, begun) = (self.store.position(), self.tick());
        self.validations.push(Validation { number, stored, position, begun });
    }

    /// A 304 comes: the same body, as new as its validation's beginning, with the keys of its own fields.
    fn freshen(&mut self) {
        if self.validations.is_empty() {
            return;
        }
        let at = self.index(self.validations.len());
        let Validation { number, stored, position, begun } = self.validations.swap_remove(at);
        let key = self.one(&KEYS);
        let (headers, meta) = (stored.head.headers.clone(), stored.head.meta.clone());
        let fresh = self.store.freshen(&stored, headers, meta, position, vec![key.into()]);
        let was = Told { begun, ..self.version_of(number, &stored).clone() };
        let told = Told { keys: KEYS.into_iter().filter(|known| carries(&fresh.head, known)).collect(), ..was.clone() };
        assert!(told.keys.contains(&key));
        // What was purged since, by what it was: the 304 is for its own request alone.
        let (before, after) = (self.state(&was), self.state(&told));
        if before != PurgeState::Live && before != after {
            assert_eq!(self.store.purge_state(&fresh), PurgeState::Hard, "{told:?}");
            return;
        }
        // Another one may have taken its place meanwhile; then this one is not stored.
        self.versions.push((number, position, told));
    }

    async fn restart(&mut self, dir: &Path) {
        self.fills.clear();
        self.validations.clear();
        self.store.close().await;
        self.store = open(dir).await;
    }

    async fn remove(&mut self) {
        let path = self.one(&PATHS);
        self.store.remove(&key(path));
        assert!(lookup(&self.store, path).await.is_none());
    }
}

fn carries(head: &ResponseHead, key: &str) -> bool {
    head.surrogate_keys.iter().any(|carried| **carried == *key)
}

fn after(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

async fn run(seed: u64, steps: usize) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let mut simulation = Simulation {
        random: Random(seed),
        now: 0,
        told: Vec::new(),
        purges: Vec::new(),
        fills: Vec::new(),
        validations: Vec::new(),
        versions: Vec::new(),
        store,
    };
    for _ in 0..steps {
        match simulation.random.below(40) {
            0..=11 => simulation.begin(),
            12..=23 => simulation.finish().await,
            24..=27 => simulation.join().await,
            28..=34 => simulation.purge().await,
            35 | 36 => simulation.validate().await,
            37 => simulation.freshen(),
            38 => simulation.remove().await,
            _ => simulation.restart(dir.path()).await,
        }
        simulation.check().await;
    }
    simulation.restart(dir.path()).await;
    simulation.check().await;
    let everything = Purge::of(Selector::Everything, PurgeMode::Hard, after(simulation.tick()));
    simulation.store.purge(everything, COUNT_WAIT).await.unwrap();
    assert_eq!(simulation.store.stored_count(), 0);
    simulation.store.shared().catalog.check_carriers();
}

#[tokio::test]
async fn nothing_that_a_purge_named_comes_back_and_nothing_else_goes() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let first = number("BRIM_SIMULATION_SEED", 1);
    for seed in first..first + number("BRIM_SIMULATION_CASES", 30) {
        println!("simulation: seed {seed}");
        run(seed, 250).await;
    }
}
