//! The model's origin: what it answers is a pure function of its script and of the question.
//!
//! Always true:
//! - The origin on the socket and the reference's own one give the same answers, for both call [`Script::answer`].
//! - Every answer has a number of its own, in its content and in `x-version`: an answer can be told from any other one.
//!
//! Not here: what a cache makes of the answers (`reference`, `cache`).

use std::time::{Duration, SystemTime};

use brim_tests::{Recorded, Reply, dropped_connection, ok};

/// The field that the qualified forms of `no-cache` and `private` name in the scripts.
pub(super) const SECRET: &str = "x-secret";

/// What the origin answers if it is asked now.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) status: u16,
    /// Directives of `Cache-Control`, in one line or in one line each.
    pub(super) control: Vec<&'static str>,
    pub(super) is_split: bool,
    /// `CDN-Cache-Control`.
    pub(super) targeted: Option<&'static str>,
    pub(super) expires: Option<Expires>,
    /// How many seconds the origin's clock is ahead; without, there is no `Date`.
    pub(super) date: Option<i64>,
    pub(super) age: Option<&'static str>,
    pub(super) etag: Option<&'static str>,
    /// How many seconds before [`World::epoch`] it was modified.
    pub(super) modified: Option<u64>,
    pub(super) vary: Option<&'static str>,
    pub(super) sets_cookie: bool,
    pub(super) surrogate_key: Option<&'static str>,
    /// Another URL that a write has changed too, in `Location` and in `Content-Location`.
    pub(super) location: Option<usize>,
    pub(super) content_location: Option<usize>,
    /// A 304 carries its validators and nothing else.
    pub(super) is_brief: bool,
    /// The connection is closed without an answer.
    pub(super) drops: bool,
}

/// What does not change while a sequence runs.
#[derive(Debug, Clone)]
pub(super) struct World {
    /// The targets that everybody talks about.
    pub(super) urls: Vec<String>,
    /// When the sequence began, in seconds since 1970.
    pub(super) epoch: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Expires {
    In(i64),
    Invalid,
}

/// A request as the origin sees it, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) if_none_match: Option<String>,
    pub(super) if_modified_since: Option<String>,
}

impl Question {
    pub(super) fn of(request: &Recorded) -> Self {
        let header = |name: &str| request.header(name).map(str::to_owned);
        Self {
            method: request.method.to_string(),
            url: request.target.clone(),
            if_none_match: header("if-none-match"),
            if_modified_since: header("if-modified-since"),
        }
    }
}

/// An answer, field by field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) fields: Vec<(&'static str, String)>,
    pub(super) content: String,
}

impl Response {
    pub(super) fn into_reply(self) -> Reply {
        let reply = ok(self.content).status(self.status);
        self.fields.iter().fold(reply, |reply, (name, value)| reply.header(name, value))
    }
}

/// A time as a field has it.
pub(super) fn http_date(seconds: u64) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

impl Script {
    /// The answer number `number`; none when the connection is dropped.
    pub(super) fn answer(&self, question: &Question, number: u32, now: u64, world: &World) -> Option<Response> {
        if self.drops {
            return None;
        }
        let is_unchanged = matches!(question.method.as_str(), "GET" | "HEAD") && self.is_named_by(question, world);
        let mut fields = vec![("x-version", number.to_string())];
        let mut add = |name, value: Option<String>| fields.extend(value.map(|value| (name, value)));
        add("etag", self.etag.map(str::to_owned));
        add("last-modified", self.modified.map(|ago| http_date(world.epoch - ago)));
        if !(is_unchanged && self.is_brief) {
            add("date", self.date.map(|ahead| http_date(now.saturating_add_signed(ahead))));
            add("age", self.age.map(str::to_owned));
            add("cdn-cache-control", self.targeted.map(str::to_owned));
            add("expires", self.expires.map(|expires| expires.written(now)));
            add(SECRET, Some(format!("secret of {number}")));
            if self.is_split {
                self.control.iter().for_each(|directive| add("cache-control", Some((*directive).to_owned())));
            } else if !self.control.is_empty() {
                add("cache-control", Some(self.control.join(", ")));
            }
        }
        if !(is_unchanged && self.is_brief) {
            add("vary", self.vary.map(str::to_owned));
        }
        if !is_unchanged {
            add("surrogate-key", self.surrogate_key.map(str::to_owned));
            add("set-cookie", self.sets_cookie.then(|| "a=b".to_owned()));
            add("location", self.location.map(|url| world.urls[url].clone()));
            add("content-location", self.content_location.map(|url| world.urls[url].clone()));
        }
        let has_content = !is_unchanged && self.status != 204;
        // Of one length, whatever the number: a HEAD cannot tell two of them apart by it.
        let content = if has_content { format!("{} number {number:05}", question.url) } else { String::new() };
        Some(Response { status: if is_unchanged { 304 } else { self.status }, fields, content })
    }

    pub(super) fn reply(&self, question: &Question, number: u32, now: u64, world: &World) -> Reply {
        self.answer(question, number, now, world).map_or_else(dropped_connection, Response::into_reply)
    }

    /// RFC 9110 §13.1.2, §13.1.3: is what the question names still current? Only a success can be.
    fn is_named_by(&self, question: &Question, world: &World) -> bool {
        if !(200..300).contains(&self.status) {
            return false;
        }
        let Some(tags) = &question.if_none_match else {
            let modified = self.modified.map(|ago| http_date(world.epoch - ago));
            return modified.is_some() && question.if_modified_since == modified;
        };
        tags.split(',').any(|tag| self.etag.is_some_and(|own| opaque(own) == opaque(tag.trim())) || tag.trim() == "*")
    }
}

/// Weak comparison looks at this alone (RFC 9110 §8.8.3.2).
pub(super) fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

impl Expires {
    fn written(self, now: u64) -> String {
        match self {
            Self::In(seconds) => http_date(now.saturating_add_signed(seconds)),
            Self::Invalid => "0".to_owned(),
        }
    }
}
