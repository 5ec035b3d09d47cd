//! The reference cache: what is stored, and what a request meets, one request after the other.
//!
//! Always true:
//! - A request is answered from the state alone; the origin is asked through [`Script::answer`], as the node asks its own.
//! - Nothing is concurrent here: a validation behind a response happens before the next request.
//!
//! Not here: the rules (`reference`).

use std::collections::HashSet;

use super::origin::{Question, Response, SECRET, Script, World, http_date};
use super::reference::{
    Facts, Refusal, Use, Wishes, is_about, is_described, is_named, is_server_error, line, names, refusal, stored_part,
    updated, usable, usable_on_error,
};

/// A request of the one client.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) method: &'static str,
    pub(super) url: usize,
    pub(super) control: Option<&'static str>,
    pub(super) pragma: Option<&'static str>,
    pub(super) if_none_match: Option<&'static str>,
    pub(super) is_authorized: bool,
    /// The fields that some responses nominate.
    pub(super) nominated: [(&'static str, Option<&'static str>); 2],
}

/// What the client gets, and what the origin is asked meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) status: u16,
    pub(super) how: How,
    pub(super) is_stored: bool,
    /// None: the node's own words, which are not compared.
    pub(super) content: Option<String>,
    pub(super) version: Option<String>,
    pub(super) secret: Option<String>,
    /// What a 304 has withheld from the store is the validating client's, or nobody's.
    pub(super) other_secret: Option<String>,
    /// Of what does not come from the store nothing is said.
    pub(super) age: Option<u64>,
    pub(super) ttl: Option<i64>,
    /// In order, those behind the response included.
    pub(super) asked: Vec<Question>,
}

/// RFC 9211, as far as the rules fix it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Hit,
    Miss,
    Stale,
    Requested,
    Method,
    Refused,
}

/// Which of the permitted ways a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As if its response could be stored.
    Filling,
    /// The same, but that the entity tags of the other variants are offered to the origin (§4.3.1).
    Selecting,
    /// With its own conditions, and nothing is stored: a response could not be shared a moment ago.
    AsAsked,
}

#[derive(Debug, Clone)]
struct Stored {
    url: usize,
    nominated: Vec<(String, Option<String>)>,
    status: u16,
    fields: Vec<(&'static str, String)>,
    content: String,
    facts: Facts,
    received: u64,
    is_soft: bool,
    serial: u32,
}

impl Stored {
    fn age(&self, now: u64) -> u64 {
        self.facts.initial_age + (now - self.received)
    }

    /// §4: of several the newest by its `Date`.
    fn rank(&self) -> (u64, u32) {
        let date = line(&self.fields, "date").and_then(|date| httpdate::parse_http_date(date).ok());
        let seconds = date.and_then(|date| date.duration_since(std::time::SystemTime::UNIX_EPOCH).ok());
        (seconds.map_or(0, |since| since.as_secs()), self.serial)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Cache {
    world: World,
    stored: Vec<Stored>,
    /// Answers of the origin so far.
    answers: u32,
    serial: u32,
    unshared: HashSet<usize>,
}

/// One request under way.
struct Exchange<'a> {
    ask: &'a Ask,
    wishes: Wishes,
    script: &'a Script,
    now: u64,
    asked: Vec<Question>,
}

impl Cache {
    pub(super) fn new(world: World) -> Self {
        Self { world, stored: Vec::new(), answers: 0, serial: 0, unshared: HashSet::new() }
    }

    /// How many answers the origin has given so far.
    pub(super) fn answers(&self) -> u32 {
        self.answers
    }

    /// The ways that the next request for this URL may go.
    pub(super) fn ways(&self, url: usize) -> &'static [Way] {
        const ALL: [Way; 3] = [Way::Filling, Way::Selecting, Way::AsAsked];
        if self.unshared.contains(&url) { &ALL } else { &ALL[..2] }
    }

    pub(super) fn purge(&mut self, is_named: impl Fn(usize, Option<&str>) -> bool, is_soft: bool) {
        for stored in self.stored.iter_mut().filter(|one| is_named(one.url, line(&one.fields, "surrogate-key"))) {
            stored.is_soft = true;
        }
        if !is_soft {
            self.stored.retain(|one| !is_named(one.url, line(&one.fields, "surrogate-key")));
        }
    }

    pub(super) fn handle(&mut self, ask: &Ask, script: &Script, now: u64, way: Way) -> Expected {
        let wishes = Wishes::of(ask.control, ask.pragma);
        let mut exchange = Exchange { ask, wishes, script, now, asked: Vec::new() };
        let mut expected = match ask.method {
            "GET" | "HEAD" => self.read(&mut exchange, way),
            _ => self.write(&mut exchange),
        };
        if ask.method == "HEAD" {
            expected.content = expected.content.map(|_| String::new());
        }
        expected.asked = exchange.asked;
        expected
    }

    fn forward(
        &mut self,
        exchange: &mut Exchange<'_>,
        method: &str,
        conditions: [Option<&str>; 2],
    ) -> Option<Response> {
        let [if_none_match, if_modified_since] = conditions.map(|value| value.map(str::to_owned));
        let url = self.world.urls[exchange.ask.url].clone();
        let question = Question { method: method.to_owned(), url, if_none_match, if_modified_since };
        self.answers += 1;
        let answer = exchange.script.answer(&question, self.answers, exchange.now, &self.world);
        exchange.asked.push(question);
        answer
    }

    /// §4.4.
    fn write(&mut self, exchange: &mut Exchange<'_>) -> Expected {
        let ask = exchange.ask;
        let Some(response) = self.forward(exchange, ask.method, [ask.if_none_match, None]) else {
            return failure(How::Method);
        };
        if (200..400).contains(&response.status) {
            let script = exchange.script;
            let changed = [Some(ask.url), script.location, script.content_location];
            self.stored.retain(|one| !changed.contains(&Some(one.url)));
        }
        passed(response, How::Method)
    }

    fn read(&mut self, exchange: &mut Exchange<'_>, way: Way) -> Expected {
        let now = exchange.now;
        let Some(place) = self.select(exchange.ask) else { return self.miss(exchange, way) };
        let stored = self.stored[place].clone();
        match usable(&stored.facts, stored.age(now), stored.is_soft, &exchange.wishes) {
            Use::Hit => from_store(&stored, exchange, How::Hit),
            Use::HitWhileValidating => {
                let expected = from_store(&stored, exchange, How::Hit);
                self.validate(exchange, &stored, How::Stale);
                expected
            }
            Use::Validate { .. } if exchange.wishes.has("only-if-cached") => only_if_cached(),
            Use::Validate { is_requested } => {
                let how = if is_requested { How::Requested } else { How::Stale };
                if exchange.ask.method == "HEAD" || way == Way::AsAsked {
                    self.forward_as_asked(exchange, Some(&stored), how)
                } else {
                    self.validate(exchange, &stored, how)
                }
            }
        }
    }

    fn miss(&mut self, exchange: &mut Exchange<'_>, way: Way) -> Expected {
        if exchange.wishes.has("only-if-cached") {
            return only_if_cached();
        }
        if exchange.ask.method == "HEAD" || way == Way::AsAsked {
            return self.forward_as_asked(exchange, None, How::Miss);
        }
        let offers = if way == Way::Selecting { self.offers(exchange.ask.url) } else { Vec::new() };
        let mut tags: Vec<&str> = Vec::new();
        for tag in offers.iter().filter_map(|one| line(&one.fields, "etag")) {
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        let tags = (!tags.is_empty()).then(|| tags.join(", "));
        let Some(mut response) = self.forward(exchange, "GET", [tags.as_deref(), None]) else {
            return failure(How::Miss);
        };
        if response.status == 304 {
            if let Some(named) = offers.iter().find(|one| names(&response.fields, &one.fields)) {
                return self.freshen(exchange, named, &response, How::Miss);
            }
            match self.forward(exchange, "GET", [None, None]) {
                None => return failure(How::Miss),
                Some(whole) => response = whole,
            }
        }
        self.take(exchange, response, How::Miss)
    }

    /// The other variants that a 304 could name, newest first.
    fn offers(&self, url: usize) -> Vec<Stored> {
        let is_offered = |one: &&Stored| one.url == url && line(&one.fields, "etag").is_some();
        let mut offers: Vec<_> = self.stored.iter().filter(is_offered).cloned().collect();
        offers.sort_by_key(|one| std::cmp::Reverse(one.rank()));
        offers
    }

    /// §4.1.
    fn select(&self, ask: &Ask) -> Option<usize> {
        let value = |name: &str| ask.nominated.iter().find(|(known, _)| *known == name).and_then(|(_, value)| *value);
        let matches = |one: &Stored| one.nominated.iter().all(|(name, stored)| stored.as_deref() == value(name));
        let found = self.stored.iter().enumerate().filter(|(_, one)| one.url == ask.url && matches(one));
        found.max_by_key(|(_, one)| one.rank()).map(|(place, _)| place)
    }

    /// §4.3.
    fn validate(&mut self, exchange: &mut Exchange<'_>, stored: &Stored, how: How) -> Expected {
        let conditions = [line(&stored.fields, "etag"), line(&stored.fields, "last-modified")];
        let Some(response) = self.forward(exchange, "GET", conditions) else {
            return self.on_failure(exchange, stored, how).unwrap_or_else(|| failure(how));
        };
        if response.status == 304 {
            if is_about(&response.fields, &stored.fields) {
                return self.freshen(exchange, stored, &response, how);
            }
            // It confirms something else (§4.3.4): what is stored is of no use, and the whole is fetched.
            self.stored.retain(|one| one.url != stored.url);
            return match self.forward(exchange, "GET", [None, None]) {
                None => self.on_failure(exchange, stored, how).unwrap_or_else(|| failure(how)),
                Some(response) => self.take(exchange, response, how),
            };
        }
        if is_server_error(response.status) {
            return self.on_failure(exchange, stored, how).unwrap_or_else(|| passed(response, how));
        }
        self.take(exchange, response, how)
    }

    fn on_failure(&self, exchange: &Exchange<'_>, stored: &Stored, how: How) -> Option<Expected> {
        let is_usable = usable_on_error(&stored.facts, stored.age(exchange.now), &exchange.wishes);
        is_usable.then(|| from_store(stored, exchange, how))
    }

    /// §4.3.4.
    fn freshen(&mut self, exchange: &Exchange<'_>, stored: &Stored, update: &Response, how: How) -> Expected {
        let other_secret = line(&update.fields, SECRET).map(str::to_owned);
        match self.updated(exchange, stored, update) {
            Ok(fresh) => {
                let expected = from_store(&fresh, exchange, how);
                // A variant that the origin has named for another request is that request's variant too.
                let nominated = nominated(line(&fresh.fields, "vary").unwrap_or_default(), exchange.ask);
                self.put(fresh.clone());
                if how == How::Miss && nominated != fresh.nominated {
                    self.put(Stored { nominated, ..fresh });
                }
                Expected { is_stored: true, other_secret, ..expected }
            }
            Err(refusal) => {
                // What the request's fields forbid concerns this request alone.
                if refusal == Refusal::Response {
                    self.stored.retain(|one| one.url != stored.url);
                }
                Expected { ttl: None, other_secret, ..from_store(stored, exchange, how) }
            }
        }
    }

    fn updated(&self, exchange: &Exchange<'_>, stored: &Stored, update: &Response) -> Result<Stored, Refusal> {
        let mut fields = updated(&stored.fields, &update.fields);
        if line(&update.fields, "date").is_none() {
            fields.retain(|(name, _)| *name != "date");
            fields.push(("date", http_date(exchange.now)));
        }
        let mut reckoned = fields.clone();
        reckoned.extend(line(&update.fields, "age").map(|age| ("age", age.to_owned())));
        let facts = Facts::of(stored.status, &reckoned, exchange.now);
        let ask = exchange.ask;
        if let Some(refusal) = refusal(stored.status, &fields, &facts, &exchange.wishes, ask.is_authorized) {
            return Err(refusal);
        }
        // Nominated fields are those of the request that fetched it (§4.1), and of that no others are known.
        let known = |name: &String| stored.nominated.iter().any(|(known, _)| known == name);
        let nominates = nominated(line(&fields, "vary").unwrap_or_default(), ask);
        if nominates.iter().any(|(name, _)| !known(name)) {
            return Err(Refusal::Response);
        }
        let fields = stored_part(&fields, &facts);
        Ok(Stored { fields, facts, received: exchange.now, is_soft: false, ..stored.clone() })
    }

    /// A whole response: stored if it may be, and given to the client.
    fn take(&mut self, exchange: &Exchange<'_>, response: Response, how: How) -> Expected {
        let (ask, now) = (exchange.ask, exchange.now);
        let facts = Facts::of(response.status, &response.fields, now);
        if refusal(response.status, &response.fields, &facts, &exchange.wishes, ask.is_authorized).is_some() {
            if !exchange.wishes.has("no-store") && !is_server_error(response.status) {
                self.unshared.insert(ask.url);
            }
            if response.status == 200 && is_named(ask.if_none_match, 200, &response.fields) {
                return Expected { status: 304, content: Some(String::new()), ..passed(response, how) };
            }
            return passed(response, how);
        }
        let mut fields = stored_part(&response.fields, &facts);
        if line(&fields, "date").is_none() {
            fields.push(("date", http_date(now)));
        }
        let nominated = nominated(line(&fields, "vary").unwrap_or_default(), ask);
        let Response { status, content, fields: received } = response;
        let stored = Stored {
            url: ask.url,
            nominated,
            status,
            fields,
            content,
            facts,
            received: now,
            is_soft: false,
            serial: 0,
        };
        let mut expected = Expected { is_stored: true, ..from_store(&stored, exchange, how) };
        // Who fetched it gets all of it.
        expected.secret = line(&received, SECRET).map(str::to_owned);
        self.put(stored);
        expected
    }

    fn put(&mut self, stored: Stored) {
        self.serial += 1;
        self.stored.retain(|one| (one.url, &one.nominated) != (stored.url, &stored.nominated));
        self.stored.push(Stored { serial: self.serial, ..stored });
    }

    fn forward_as_asked(&mut self, exchange: &mut Exchange<'_>, stored: Option<&Stored>, how: How) -> Expected {
        let ask = exchange.ask;
        let response = self.forward(exchange, ask.method, [ask.if_none_match, None]);
        let instead = || stored.and_then(|stored| self.on_failure(exchange, stored, how));
        let Some(response) = response else { return instead().unwrap_or_else(|| failure(how)) };
        if is_server_error(response.status)
            && let Some(stale) = instead()
        {
            return stale;
        }
        if let Some(stored) = stored.filter(|_| ask.method == "HEAD" && response.status == 200) {
            self.after_head(exchange, stored, &response);
        }
        passed(response, how)
    }

    /// §4.3.5.
    fn after_head(&mut self, exchange: &Exchange<'_>, stored: &Stored, head: &Response) {
        if stored.status != 200 || !is_described(&head.fields, head.content.len(), &stored.fields, stored.content.len())
        {
            self.stored.retain(|one| one.url != stored.url);
            return;
        }
        if let Ok(fresh) = self.updated(exchange, stored, head) {
            self.put(fresh);
        }
    }
}

fn nominated(vary: &str, ask: &Ask) -> Vec<(String, Option<String>)> {
    let value = |name: &str| ask.nominated.iter().find(|(known, _)| *known == name).and_then(|(_, value)| *value);
    let mut names: Vec<_> = vary.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    names.sort();
    names.dedup();
    let names = names.into_iter().filter(|name| !name.is_empty());
    names.map(|name| (name.clone(), value(&name).map(str::to_owned))).collect()
}

fn from_store(stored: &Stored, exchange: &Exchange<'_>, how: How) -> Expected {
    let is_unchanged = is_named(exchange.ask.if_none_match, stored.status, &stored.fields);
    let age = stored.age(exchange.now);
    let left = i64::try_from(stored.facts.lifetime).unwrap_or(i64::MAX) - i64::try_from(age).unwrap_or(i64::MAX);
    Expected {
        status: if is_unchanged { 304 } else { stored.status },
        how,
        is_stored: false,
        content: Some(if is_unchanged { String::new() } else { stored.content.clone() }),
        version: line(&stored.fields, "x-version").map(str::to_owned),
        secret: line(&stored.fields, SECRET).map(str::to_owned),
        other_secret: None,
        age: Some(age),
        ttl: Some(if stored.is_soft && how == How::Hit { left.min(0) } else { left }),
        asked: Vec::new(),
    }
}

fn passed(response: Response, how: How) -> Expected {
    Expected {
        status: response.status,
        how,
        is_stored: false,
        version: line(&response.fields, "x-version").map(str::to_owned),
        secret: line(&response.fields, SECRET).map(str::to_owned),
        other_secret: None,
        content: Some(response.content),
        age: None,
        ttl: None,
        asked: Vec::new(),
    }
}

fn failure(how: How) -> Expected {
    own(502, how)
}

fn only_if_cached() -> Expected {
    own(504, How::Refused)
}

fn own(status: u16, how: How) -> Expected {
    let (content, version, secret, other_secret, age, ttl) = (None, None, None, None, None, None);
    Expected { status, how, is_stored: false, content, version, secret, other_secret, age, ttl, asked: Vec::new() }
}
