//! Cache directives: `Cache-Control` (RFC 9111 §5.2), `Pragma` (§5.4), RFC 5861, RFC 8246, and the targeted fields of
//! RFC 9213.
//!
//! Always true:
//! - Directives are read without regard to case; unknown ones are ignored (§5.2.3); both the token and the quoted form of an
//!   argument are accepted (§5.2).
//! - Of duplicates and conflicts the most restrictive counts: the shortest lifetime, the whole response before some fields.
//! - An invalid restriction restricts most (`max-age=abc` is `max-age=0`, RFC 9111 §4.2.1); an invalid permission permits nothing:
//!   `public=1`, and `s-maxage=x` where it is to permit sharing.
//! - White space around `=` is in no grammar (§5.2): the directive counts, its argument is invalid. So is every argument behind a
//!   quoted string that does not end, which others may read as that string's content.
//! - A valid, non-empty targeted field stands in for `Cache-Control` and `Expires` entirely; any other is as if it were absent.
//!
//! Not here: what follows from the directives (`storable`, `freshness`, `reuse`).

use std::borrow::Cow;
use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, PRAGMA};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use crate::CachePolicy;
use crate::delta::{DELTA_MAX, delta_seconds};
use crate::fields::{is_token, list_members, sound_members, trim_ows};

/// More field names in one `no-cache` or `private` are not kept apart: the directive then holds for the whole response.
const QUALIFIED_FIELDS_MAX: usize = 32;

/// How stale a response the client takes (RFC 9111 §5.2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxStale {
    /// `max-stale` without a value: however stale.
    Any,
    /// No staler than this.
    Within(Duration),
}

/// What a request's `Cache-Control` and `Pragma` ask for (RFC 9111 §5.2.1, §5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestDirectives {
    /// `no-cache`, or `Pragma: no-cache` where there is no `Cache-Control`.
    pub no_cache: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `only-if-cached`: 504 instead of forwarding.
    pub only_if_cached: bool,
    /// `no-transform`.
    pub no_transform: bool,
    /// `max-age`; zero where the value is invalid.
    pub max_age: Option<Duration>,
    /// `min-fresh`; the longest there is where the value is invalid.
    pub min_fresh: Option<Duration>,
    /// `max-stale`.
    pub max_stale: Option<MaxStale>,
    /// `stale-if-error` (RFC 5861 §4).
    pub stale_if_error: Option<Duration>,
}

impl RequestDirectives {
    /// Reads a request's fields. Costs two failed look-ups where there are no directives.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut parsed = Self::default();
        if headers.contains_key(CACHE_CONTROL) {
            for (member, is_sound) in sound_members(headers.get_all(CACHE_CONTROL)) {
                parsed.take(&Directive::of_member(member, is_sound));
            }
        } else if headers.contains_key(PRAGMA) {
            // RFC 9111 §5.4: only where Cache-Control is absent.
            parsed.no_cache =
                list_members(headers.get_all(PRAGMA)).any(|member| member.eq_ignore_ascii_case(b"no-cache"));
        }
        parsed
    }

    fn take(&mut self, directive: &Directive<'_>) {
        match &*directive.name {
            b"no-cache" => self.no_cache = true,
            b"no-store" => self.no_store = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"no-transform" => self.no_transform = true,
            b"max-age" => shorter(&mut self.max_age, directive.seconds().unwrap_or_default()),
            b"min-fresh" => {
                let wanted = directive.seconds().unwrap_or(DELTA_MAX);
                self.min_fresh = Some(self.min_fresh.map_or(wanted, |other| other.max(wanted)));
            }
            b"max-stale" => self.take_max_stale(directive),
            b"stale-if-error" => shorter(&mut self.stale_if_error, directive.seconds().unwrap_or_default()),
            _ => {}
        }
    }

    fn take_max_stale(&mut self, directive: &Directive<'_>) {
        let within = match directive.argument {
            Argument::None => {
                self.max_stale.get_or_insert(MaxStale::Any);
                return;
            }
            _ => directive.seconds().unwrap_or_default(),
        };
        self.max_stale = Some(match self.max_stale {
            Some(MaxStale::Within(other)) => MaxStale::Within(other.min(within)),
            Some(MaxStale::Any) | None => MaxStale::Within(within),
        });
    }
}

/// A directive that may name fields: `no-cache`, `private` (RFC 9111 §5.2.2.4, §5.2.2.7).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Qualified {
    /// Not there.
    #[default]
    Absent,
    /// It holds for these fields only.
    Fields(Vec<HeaderName>),
    /// It holds for the whole response.
    Whole,
}

impl Qualified {
    /// The fields it is limited to; none where it holds for the whole response, or is absent.
    pub fn fields(&self) -> &[HeaderName] {
        match self {
            Self::Fields(names) => names,
            Self::Absent | Self::Whole => &[],
        }
    }

    /// Whether it holds for the whole response.
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Whole)
    }

    fn add(&mut self, names: Option<Vec<HeaderName>>) {
        let Some(names) = names else {
            *self = Self::Whole;
            return;
        };
        match self {
            Self::Whole => {}
            Self::Absent => *self = Self::Fields(names),
            Self::Fields(known) if known.len() + names.len() > QUALIFIED_FIELDS_MAX => *self = Self::Whole,
            Self::Fields(known) => known.extend(names),
        }
    }
}

/// Which field the directives were read from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ControlSource {
    /// Neither a targeted field nor `Cache-Control` is there.
    #[default]
    Absent,
    /// `Cache-Control`.
    CacheControl,
    /// This targeted field (RFC 9213), which replaces `Cache-Control` and `Expires`.
    Targeted(HeaderName),
}

/// What a response's `Cache-Control`, or the targeted field in its place, says (RFC 9111 §5.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseDirectives {
    /// Where the directives were read.
    pub source: ControlSource,
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`.
    pub no_cache: Qualified,
    /// `private`.
    pub private: Qualified,
    /// `public`, without an argument.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`, without an argument: it lifts `no-store`.
    pub must_understand: bool,
    /// `no-transform`.
    pub no_transform: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// `max-age`; zero where the value is invalid.
    pub max_age: Option<Duration>,
    /// `s-maxage`; zero where the value is invalid.
    pub s_maxage: Option<Duration>,
    /// `stale-while-revalidate` (RFC 5861 §3); zero where the value is invalid.
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error` (RFC 5861 §4); zero where the value is invalid.
    pub stale_if_error: Option<Duration>,
    /// One of the three directives of §3.5 is there, and valid.
    permits_sharing: bool,
}

impl ResponseDirectives {
    /// Reads a response's fields: the first valid, non-empty targeted field of the policy, else `Cache-Control`.
    pub fn parse(headers: &HeaderMap, policy: &CachePolicy) -> Self {
        let mut parsed = Self::default();
        for name in &policy.targeted_fields {
            if let Some(dictionary) = targeted_dictionary(headers, name) {
                parsed.source = ControlSource::Targeted(name.clone());
                for (key, entry) in &dictionary {
                    if let Some(directive) = Directive::of_entry(key.as_str(), entry) {
                        parsed.take(&directive);
                    }
                }
                return parsed;
            }
        }
        if headers.contains_key(CACHE_CONTROL) {
            parsed.source = ControlSource::CacheControl;
            for (member, is_sound) in sound_members(headers.get_all(CACHE_CONTROL)) {
                parsed.take(&Directive::of_member(member, is_sound));
            }
        }
        parsed
    }

    /// Whether `Cache-Control` and `Expires` are out of force (RFC 9213 §2.1).
    pub fn is_targeted(&self) -> bool {
        matches!(self.source, ControlSource::Targeted(_))
    }

    /// Whether a response to a request with `Authorization` may be shared: `public`, `must-revalidate` or `s-maxage` is there
    /// (RFC 9111 §3.5), and as its grammar says.
    pub fn permits_sharing(&self) -> bool {
        self.permits_sharing
    }

    fn take(&mut self, directive: &Directive<'_>) {
        self.permits_sharing |= match &*directive.name {
            b"public" | b"must-revalidate" => directive.is_bare(),
            b"s-maxage" => directive.seconds().is_some(),
            _ => false,
        };
        match &*directive.name {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache.add(directive.field_names()),
            b"private" => self.private.add(directive.field_names()),
            b"public" => self.public |= directive.is_bare(),
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand |= directive.is_bare(),
            b"no-transform" => self.no_transform = true,
            b"immutable" => self.immutable |= directive.is_bare(),
            b"max-age" => shorter(&mut self.max_age, directive.seconds().unwrap_or_default()),
            b"s-maxage" => shorter(&mut self.s_maxage, directive.seconds().unwrap_or_default()),
            b"stale-while-revalidate" => {
                shorter(&mut self.stale_while_revalidate, directive.seconds().unwrap_or_default());
            }
            b"stale-if-error" => shorter(&mut self.stale_if_error, directive.seconds().unwrap_or_default()),
            _ => {}
        }
    }
}

/// A targeted field as a dictionary; `None` where RFC 9213 §2.1 says to behave as if it were absent: it is, or it is empty,
/// or it does not parse.
fn targeted_dictionary(headers: &HeaderMap, name: &HeaderName) -> Option<Dictionary> {
    if !headers.contains_key(name) {
        return None;
    }
    // RFC 9651 §4.2: several lines are joined before they are parsed.
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let dictionary: Dictionary = Parser::new(&lines.join(&b", "[..])).parse().ok()?;
    (!dictionary.is_empty()).then_some(dictionary)
}

/// What takes delta-seconds.
const SECONDS_DIRECTIVES: [&str; 4] = ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"];

/// One directive, its name in lower case.
struct Directive<'a> {
    name: Cow<'a, [u8]>,
    argument: Argument<'a>,
}

enum Argument<'a> {
    None,
    /// A token, or the content of a quoted string.
    Text(Cow<'a, [u8]>),
    /// Neither: white space around `=`, an open quote, something behind it.
    Invalid,
}

impl<'a> Directive<'a> {
    /// A member of `Cache-Control`; `is_sound`: no quoted string before it on its line was left open.
    fn of_member(member: &'a [u8], is_sound: bool) -> Self {
        let (name, argument) = match member.iter().position(|byte| *byte == b'=') {
            None => (member, Argument::None),
            Some(at) => (&member[..at], Argument::of(&member[at + 1..])),
        };
        // `max-age =1` is not what the grammar allows, yet clearly about max-age: the name counts and the value is invalid.
        let spaced = name != trim_ows(name);
        let name = trim_ows(name);
        let name = if name.iter().any(u8::is_ascii_uppercase) {
            Cow::Owned(name.to_ascii_lowercase())
        } else {
            Cow::Borrowed(name)
        };
        Self { name, argument: if spaced || !is_sound { Argument::Invalid } else { argument } }
    }

    /// A member of a targeted field, its value mapped as RFC 9213 §2.1 says; parameters are ignored.
    ///
    /// `None` for `?0`: no directive has that value (§2.1 says not to consume it), and it says itself not to be there.
    fn of_entry(key: &'a str, entry: &'a ListEntry) -> Option<Self> {
        let takes_seconds = SECONDS_DIRECTIVES.contains(&key);
        let argument = match entry {
            ListEntry::InnerList(_) => Argument::Invalid,
            ListEntry::Item(item) => match &item.bare_item {
                BareItem::Boolean(true) => Argument::None,
                BareItem::Boolean(false) => return None,
                // Each type where §2.1 maps the directive's own grammar to it, and nowhere else: seconds are Integers, names of
                // fields are a String.
                BareItem::Integer(number) if takes_seconds => {
                    Argument::Text(Cow::Owned(number.to_string().into_bytes()))
                }
                BareItem::String(text) if !takes_seconds => Argument::Text(Cow::Borrowed(text.as_str().as_bytes())),
                _ => Argument::Invalid,
            },
        };
        Some(Self { name: Cow::Borrowed(key.as_bytes()), argument })
    }

    /// Without an argument, as §5.2.2 defines those that take none.
    fn is_bare(&self) -> bool {
        matches!(self.argument, Argument::None)
    }

    fn seconds(&self) -> Option<Duration> {
        match &self.argument {
            Argument::Text(text) => delta_seconds(text),
            Argument::None | Argument::Invalid => None,
        }
    }

    /// The field names of the argument; `None` where there are none, or one is malformed: then the whole response is meant.
    fn field_names(&self) -> Option<Vec<HeaderName>> {
        let Argument::Text(text) = &self.argument else { return None };
        let mut names = Vec::new();
        for name in text.split(|byte| *byte == b',').map(trim_ows).filter(|name| !name.is_empty()) {
            if names.len() == QUALIFIED_FIELDS_MAX {
                return None;
            }
            names.push(HeaderName::from_bytes(name).ok()?);
        }
        (!names.is_empty()).then_some(names)
    }
}

impl<'a> Argument<'a> {
    fn of(text: &'a [u8]) -> Self {
        match text {
            [b'"', quoted @ .., b'"'] => unquote(quoted).map_or(Self::Invalid, Self::Text),
            _ if is_token(text) => Self::Text(Cow::Borrowed(text)),
            _ => Self::Invalid,
        }
    }
}

/// The content of a quoted string (RFC 9110 §5.6.4), given what is between its quotes.
fn unquote(quoted: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !quoted.iter().any(|byte| matches!(byte, b'"' | b'\\')) {
        return Some(Cow::Borrowed(quoted));
    }
    let mut content = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return None,
            b'\\' => content.push(*bytes.next()?),
            _ => content.push(*byte),
        }
    }
    Some(Cow::Owned(content))
}

fn shorter(known: &mut Option<Duration>, other: Duration) {
    *known = Some(known.map_or(other, |known| known.min(other)));
}

#[cfg(test)]
mod tests;
