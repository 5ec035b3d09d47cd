//! Nominated fields: which of several stored responses a request selects (RFC 9111 §4.1).
//!
//! Always true:
//! - Values match where they are equal, or differ only in what cannot matter to the origin: white space between the members of
//!   a list, how the list is spread over lines; and for `Accept-Encoding` and `Accept-Language` also case, order and how a
//!   weight is written. A missing field matches a missing one, and nothing else (not an empty one).
//! - `*` in any member of any line of `Vary` matches nothing. So do more than [`NOMINATED_FIELDS_MAX`] names, and a member that is
//!   no field name: nobody knows what the response depends on.
//! - The same names in another order or case are the same nominated fields.
//!
//! Not here: how many variants a key has (`brim-store`).

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONTENT_LANGUAGE, HeaderMap, HeaderName, HeaderValue, VARY};
use xxhash_rust::xxh3::Xxh3;

use crate::fields::{is_token, list_members, only_line, sound_members, token_members, trim_ows};

/// A response that nominates more fields would hardly match again, and each costs a comparison per request: it is not stored.
pub const NOMINATED_FIELDS_MAX: usize = 32;

/// A list of preferences with more members is compared as it is written.
const PREFERENCES_MAX: usize = 64;

/// The response matches no other request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Vary names `*`, what is no field name, or more than {NOMINATED_FIELDS_MAX} fields")]
pub struct VaryStar;

/// The fields that a stored response nominates, and what they were in the request that fetched it. Empty where it has no `Vary`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Nominated(Vec<(HeaderName, Option<Bytes>)>);

impl Nominated {
    /// Bytes that it takes on the heap, about.
    pub fn memory_bytes(&self) -> usize {
        let texts = self.0.iter().map(|(name, value)| name.as_str().len() + value.as_ref().map_or(0, Bytes::len));
        self.0.capacity() * size_of::<(HeaderName, Option<Bytes>)>() + texts.sum::<usize>()
    }
}

/// A nominated field, as it was stored and as it is in a request; both values in their normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparedField<'a> {
    /// The field.
    pub name: &'a HeaderName,
    /// Its value in the request that fetched the stored response; none where that did not have it.
    pub stored: Option<&'a [u8]>,
    /// Its value in the request; none where that does not have it.
    pub asked: Option<Cow<'a, [u8]>>,
    /// Whether the two match.
    pub matches: bool,
}

impl Nominated {
    /// Reads `Vary` of a response, and from the request what it nominates.
    ///
    /// # Errors
    /// `Vary` has a `*`, a member that is no field name, or too many names.
    pub fn of(vary_headers: &HeaderMap, request: &HeaderMap) -> Result<Nominated, VaryStar> {
        let mut names = Vec::new();
        for member in token_members(vary_headers.get_all(VARY)) {
            if member == b"*" {
                return Err(VaryStar);
            }
            let name = HeaderName::from_bytes(member).map_err(|_| VaryStar)?;
            if !names.contains(&name) {
                if names.len() == NOMINATED_FIELDS_MAX {
                    return Err(VaryStar);
                }
                names.push(name);
            }
        }
        names.sort_by(|left, right| left.as_str().cmp(right.as_str()));
        let value_of = |name: &HeaderName| normal_value(name, request).map(|value| Bytes::copy_from_slice(&value));
        Ok(Self(names.into_iter().map(|name| (name.clone(), value_of(&name))).collect()))
    }

    /// The same but for one field.
    pub fn without(&self, name: &HeaderName) -> Self {
        Self(self.0.iter().filter(|(nominated, _)| nominated != name).cloned().collect())
    }

    /// Whether the request selects the stored response.
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.first_difference(request).is_none()
    }

    /// The first nominated field in which the request differs, for explanations.
    pub fn first_difference(&self, request: &HeaderMap) -> Option<&HeaderName> {
        self.differences(request).next()
    }

    /// Every nominated field beside its value in a request, for explanations.
    pub fn compared<'a>(&'a self, request: &'a HeaderMap) -> impl Iterator<Item = ComparedField<'a>> {
        self.0.iter().map(|(name, stored)| ComparedField {
            name,
            stored: stored.as_deref(),
            asked: normal_value(name, request),
            matches: is_equal(name, stored.as_deref(), request),
        })
    }

    /// Whether the request selects the stored response, or would but for `Accept-Language`, of which it is the answer: its
    /// only `Content-Language` is the one language that the request prefers to all others.
    pub fn matches_or_answers(&self, request: &HeaderMap, stored_headers: &HeaderMap) -> bool {
        let mut differences = self.differences(request);
        match (differences.next(), differences.next()) {
            (None, _) => true,
            (Some(name), None) => *name == ACCEPT_LANGUAGE && is_preferred_language(request, stored_headers),
            (Some(_), Some(_)) => false,
        }
    }

    /// A hash of names and values, equal where they are.
    pub fn variant_hash(&self) -> u64 {
        let mut hasher = Xxh3::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for (name, value) in &self.0 {
            field(name.as_str().as_bytes());
            match value {
                None => field(&[0]),
                Some(value) => {
                    field(&[1]);
                    field(value);
                }
            }
        }
        hasher.digest()
    }

    /// Whether the response has no `Vary`.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, in their canonical order.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().map(|(name, _)| name)
    }

    fn differences<'a>(&'a self, request: &HeaderMap) -> impl Iterator<Item = &'a HeaderName> {
        self.0.iter().filter(|(name, value)| !is_equal(name, value.as_deref(), request)).map(|(name, _)| name)
    }
}

/// A stored value is in its normal form; a request whose value is written just so is compared without making its own.
fn is_equal(name: &HeaderName, stored: Option<&[u8]>, request: &HeaderMap) -> bool {
    match (stored, request.contains_key(name)) {
        (None, false) => true,
        (None, true) | (Some(_), false) => false,
        (Some(stored), true) => {
            only_line(request, name).is_some_and(|line| line.as_bytes() == stored)
                || normal_value(name, request).is_some_and(|value| *value == *stored)
        }
    }
}

/// A `Vary` that [`Nominated::of`] refuses.
pub(crate) fn varies_on_everything(headers: &HeaderMap) -> bool {
    headers.contains_key(VARY) && Nominated::of(headers, &HeaderMap::new()).is_err()
}

/// The normal form of a field's value in a request; `None` where the request does not have it.
fn normal_value<'a>(name: &HeaderName, request: &'a HeaderMap) -> Option<Cow<'a, [u8]>> {
    if !request.contains_key(name) {
        return None;
    }
    if (*name == ACCEPT_ENCODING || *name == ACCEPT_LANGUAGE)
        && let Some(preferences) = Preference::list(request, name)
    {
        return Some(Cow::Owned(Preference::normal(&preferences)));
    }
    if let Some(line) = only_line(request, name).filter(|line| !line.as_bytes().contains(&b',')) {
        return Some(Cow::Borrowed(trim_ows(line.as_bytes())));
    }
    let mut members = Vec::new();
    for (member, is_sound) in sound_members(request.get_all(name)) {
        // Where a quoted string does not end nobody can tell which white space matters.
        if !is_sound {
            let lines: Vec<&[u8]> = request.get_all(name).iter().map(HeaderValue::as_bytes).collect();
            return Some(Cow::Owned(lines.join(&b", "[..])));
        }
        members.push(member);
    }
    Some(Cow::Owned(members.join(&b","[..])))
}

/// Whether the one language that the request prefers to all others is that of the stored response (RFC 9110 §12.5.4).
pub fn is_preferred_language(request: &HeaderMap, stored_headers: &HeaderMap) -> bool {
    let Some(preferences) = Preference::list(request, &ACCEPT_LANGUAGE) else { return false };
    let Some(content) = only_line(stored_headers, &CONTENT_LANGUAGE) else { return false };
    let [first, rest @ ..] = &preferences[..] else { return false };
    // Sole by weight, and not named again with another one: refused in the same breath, perhaps.
    let is_sole = rest.iter().all(|other| other.weight < first.weight && other.value != first.value);
    first.weight > 0 && is_sole && first.value != b"*" && content.as_bytes().eq_ignore_ascii_case(&first.value)
}

/// A member of `Accept-Encoding` or `Accept-Language` (RFC 9110 §12.4.2).
#[derive(PartialEq, Eq)]
struct Preference {
    /// In lower case.
    value: Vec<u8>,
    /// In thousandths.
    weight: u16,
}

impl Preference {
    /// The preferences, the highest weight first, equal weights by name. `None` where the field is not written as the RFC
    /// says: then it is compared as it is.
    fn list(request: &HeaderMap, name: &HeaderName) -> Option<Vec<Self>> {
        let mut preferences: Vec<Self> = Vec::new();
        for member in list_members(request.get_all(name)) {
            let preference = Self::of_member(member, *name == ACCEPT_ENCODING)?;
            if preferences.len() == PREFERENCES_MAX {
                return None;
            }
            preferences.push(preference);
        }
        preferences.sort_by(|left, right| right.weight.cmp(&left.weight).then_with(|| left.value.cmp(&right.value)));
        preferences.dedup();
        Some(preferences)
    }

    fn of_member(member: &[u8], is_coding: bool) -> Option<Self> {
        let (value, weight) = match member.iter().position(|byte| *byte == b';') {
            None => (member, 1000),
            Some(at) => (trim_ows(&member[..at]), weight(trim_ows(&member[at + 1..]))?),
        };
        let mut value = value.to_ascii_lowercase();
        // RFC 9110 §8.4.1.1, §8.4.1.3: other names for the same codings.
        if is_coding && (value == b"x-gzip" || value == b"x-compress") {
            value.drain(..2);
        }
        is_token(&value).then_some(Self { value, weight })
    }

    /// Shortest spelling, so that the most common one, names with the weight 1 in their order, is its own normal form.
    fn normal(preferences: &[Self]) -> Vec<u8> {
        let mut normal = Vec::new();
        for preference in preferences {
            if !normal.is_empty() {
                normal.extend_from_slice(b", ");
            }
            normal.extend_from_slice(&preference.value);
            if preference.weight < 1000 {
                let digits = format!("{:03}", preference.weight);
                let shortest = digits.trim_end_matches('0');
                normal.extend_from_slice(if shortest.is_empty() { b";q=0" } else { b";q=0." });
                normal.extend_from_slice(shortest.as_bytes());
            }
        }
        normal
    }
}

/// `q=` and up to three decimals (RFC 9110 §12.4.2), in thousandths.
fn weight(parameter: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', whole @ (b'0' | b'1'), fraction @ ..] = parameter else { return None };
    let decimals = match fraction {
        [] => &[][..],
        [b'.', decimals @ ..] if decimals.len() <= 3 => decimals,
        _ => return None,
    };
    let mut thousandths = u16::from(whole - b'0');
    for at in 0..3 {
        let digit = decimals.get(at).copied().unwrap_or(b'0');
        thousandths = thousandths * 10 + u16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    (thousandths <= 1000).then_some(thousandths)
}

impl serde::Serialize for Nominated {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(name, value)| (name.as_str(), value.as_deref())))
    }
}

impl<'de> serde::Deserialize<'de> for Nominated {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Vec::<(String, Option<Vec<u8>>)>::deserialize(deserializer)?;
        let field = |(name, value): (String, Option<Vec<u8>>)| {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(serde::de::Error::custom)?;
            Ok((name, value.map(Bytes::from)))
        };
        stored.into_iter().map(field).collect::<Result<_, D::Error>>().map(Self)
    }
}

#[cfg(test)]
mod tests;
