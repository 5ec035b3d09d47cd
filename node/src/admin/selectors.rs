//! What a purge names: read from the JSON of a call, and shown again in receipts.
//!
//! Always true:
//! - A mistake is said with the path of its key, and what would be right.
//! - A URL is taken apart as the data port takes a request target apart, so that both name the same.
//! - An age becomes a time when the purge is asked for: the purge looks at no clock.
//!
//! Not here: what matches (`brim_store`), who may (`rights`).

use std::collections::BTreeMap;
use std::time::SystemTime;

use brim_semantics::{KeyHash, SURROGATE_KEY_BYTES_MAX};
use brim_store::{PATTERN_BYTES_MAX, PATTERN_STARS_MAX, Predicate, Selector};
use bytes::Bytes;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use sha2::{Digest as _, Sha256};

use super::explain_calls;
use super::model::{FieldValues, MatchRequest, Matched, PurgeRequest, Purged, StatusPattern};
use super::problem::Problem;
use super::state::{AdminState, PurgeUrl};
use super::token::hex;
use crate::config::parse_duration;
use crate::request::explain::{Supposed, others_value};

/// Surrogate keys in one purge. All together they are bounded by the store's `SELECTOR_BYTES_MAX`.
const SURROGATE_KEYS_MAX: usize = 1_000;
/// Length of a URL.
const URL_BYTES_MAX: usize = 8 * 1024;
/// Forms under which one URL may be stored, with the URL itself.
const URL_FORMS_MAX: usize = 8;
/// Statuses and ranges of them in one `match`.
const STATUSES_MAX: usize = 32;

/// What the request names, checked. The first selector of a URL is the URL as given.
pub(super) async fn read(state: &AdminState, request: &PurgeRequest, at: SystemTime) -> Result<Vec<Selector>, Problem> {
    let PurgeRequest { url, headers, prefix, surrogate_keys, site, everything, predicate, .. } = request;
    match (url, headers, prefix, surrogate_keys, site, everything, predicate) {
        (Some(url), None, None, None, None, None, None) => Ok(forms(state, &parse_url("url", url)?)),
        (Some(url), Some(headers), None, None, None, None, None) => variant(state, url, headers).await,
        (None, None, Some(prefix), None, None, None, None) => {
            let url = parse_url("prefix", prefix)?;
            if url.query.is_some() {
                let detail = "`prefix` ends before the query: leave `?` and what follows away";
                return Err(Problem::invalid("prefix", detail));
            }
            Ok(vec![Selector::Prefix { authority: url.authority.into(), path_prefix: url.path.into() }])
        }
        (None, None, None, Some(keys), site, None, None) => {
            let site = site.as_ref().map(|site| known_site(state, "site", site)).transpose()?;
            surrogate(keys, site).map(|selector| vec![selector])
        }
        (None, None, None, None, Some(site), None, None) => Ok(vec![Selector::Site(known_site(state, "site", site)?)]),
        (None, None, None, None, None, Some(true), None) => Ok(vec![Selector::Everything]),
        (None, None, None, None, None, Some(false), None) => Err(Problem::malformed("`everything` can only be true")),
        (None, None, None, None, None, None, Some(wanted)) => {
            Ok(vec![Selector::Match(predicate_of(state, wanted, at)?)])
        }
        _ => Err(Problem::malformed(
            "give exactly one of `url`, `prefix`, `surrogate_keys`, `site`, `everything: true`, `match`; `url` may have \
             `headers` beside it and `surrogate_keys` a `site`, any of them `soft`, `dry_run`, `wait` and `confirm`",
        )),
    }
}

/// A URL under all its forms: as given, and as the route's plugin rewrites it.
fn forms(state: &AdminState, url: &PurgeUrl) -> Vec<Selector> {
    let mut selectors = vec![Selector::Url {
        authority: url.authority.as_str().into(),
        path: url.path.as_str().into(),
        query: url.query.as_deref().map(Into::into),
    }];
    for form in (state.resolve_url)(url) {
        if !selectors.contains(&form) && selectors.len() < URL_FORMS_MAX {
            selectors.push(form);
        }
    }
    selectors
}

/// One variant of a URL. Where a plugin makes the key, it is asked which key a request with these fields has, under both schemes.
async fn variant(
    state: &AdminState,
    text: &str,
    headers: &BTreeMap<String, FieldValues>,
) -> Result<Vec<Selector>, Problem> {
    let url = parse_url("url", text)?;
    let headers = explain_calls::headers(headers, state.header_count_max)?;
    if headers.contains_key(HOST) {
        return Err(Problem::invalid("headers", "`headers.host`: the host stands in `url`"));
    }
    let mut keys = Vec::new();
    let mut queries = vec![url.query.clone()];
    for scheme in ["http", "https"] {
        let explained = (state.explain)(supposed(scheme, &url, &headers)?).await;
        if explained.plugin.is_none() {
            continue;
        }
        let Some(key) = explained.key else {
            let detail = "the key rule of the route cannot say which key such a request has: purge the URL with all its variants, \
                          without `headers`";
            return Err(Problem::invalid("headers", detail));
        };
        keys.extend(key_hash(&key.hash));
        let query = key.parts.into_iter().find(|part| part.from == "query" || part.name == "query");
        queries.extend(query.map(|part| part.value));
    }
    queries.dedup();
    let fields: Vec<(Box<str>, Box<[u8]>)> =
        headers.iter().map(|(name, value)| (name.as_str().into(), value.as_bytes().into())).collect();
    let selector = |query: Option<String>| Selector::Variant {
        authority: url.authority.as_str().into(),
        path: url.path.as_str().into(),
        query: query.map(Into::into),
        keys: keys.clone(),
        fields: fields.clone(),
    };
    let mut selectors: Vec<Selector> = Vec::new();
    for selector in queries.into_iter().map(selector) {
        if !selectors.contains(&selector) {
            selectors.push(selector);
        }
    }
    Ok(selectors)
}

fn supposed(scheme: &'static str, url: &PurgeUrl, headers: &HeaderMap) -> Result<Supposed, Problem> {
    let invalid = |error: &dyn std::fmt::Display| Problem::invalid("url", format!("`url`: {error}"));
    let mut headers = headers.clone();
    headers.insert(HOST, HeaderValue::from_str(&url.authority).map_err(|error| invalid(&error))?);
    let target = match &url.query {
        Some(query) => format!("{}?{query}", url.path),
        None => url.path.clone(),
    };
    let target: PathAndQuery = target.parse().map_err(|error| invalid(&error))?;
    Ok(Supposed { method: Method::GET, scheme, target: Uri::from(target), headers, content: Bytes::new() })
}

/// The hash that the text in hex stands for.
fn key_hash(text: &str) -> Option<KeyHash> {
    digest::<16>(text).map(KeyHash)
}

fn digest<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    if text.len() != 2 * BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; BYTES];
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

fn known_site(state: &AdminState, field: &str, site: &str) -> Result<Box<str>, Problem> {
    let sites = (state.sites)();
    if sites.iter().any(|known| known == site) {
        return Ok(site.into());
    }
    let detail = format!("`{field}`: no site is named {site:?}; there are: {}", sites.join(", "));
    Err(Problem::invalid("unknown_site", detail))
}

fn surrogate(keys: &[String], site: Option<Box<str>>) -> Result<Selector, Problem> {
    if keys.is_empty() || keys.len() > SURROGATE_KEYS_MAX {
        let detail = format!("`surrogate_keys`: give 1 to {SURROGATE_KEYS_MAX} surrogate keys in one purge");
        return Err(Problem::invalid("surrogate_keys", detail));
    }
    for (at, key) in keys.iter().enumerate() {
        if key.is_empty()
            || key.len() > SURROGATE_KEY_BYTES_MAX
            || key.chars().any(|c| c.is_whitespace() || c.is_control())
        {
            let detail = format!(
                "`surrogate_keys[{at}]` {key:?}: a surrogate key has 1 to {SURROGATE_KEY_BYTES_MAX} bytes and no white space"
            );
            return Err(Problem::invalid("surrogate_keys", detail));
        }
    }
    Ok(Selector::SurrogateKeys { site, keys: keys.iter().map(|key| key.as_str().into()).collect() })
}

fn predicate_of(state: &AdminState, wanted: &MatchRequest, at: SystemTime) -> Result<Predicate, Problem> {
    if *wanted == MatchRequest::default() {
        let detail = "`match` needs at least one of `site`, `host`, `path`, `status`, `older_than`, `younger_than`, \
                      `content_type`, `plugin`; `everything: true` purges everything";
        return Err(Problem::invalid("match", detail));
    }
    let host = pattern("match.host", wanted.host.as_deref())?.map(|host| host.to_ascii_lowercase());
    if let Some(host) = host.as_ref().filter(|host| host.contains('/')) {
        let detail = format!("`match.host` {host:?} is a host without scheme and path, such as \"*.example.com\"");
        return Err(Problem::invalid("match", detail));
    }
    let path = pattern("match.path", wanted.path.as_deref())?;
    if let Some(path) = path.filter(|path| !path.starts_with(['/', '*'])) {
        let detail = format!("`match.path` {path:?} begins with \"/\" or \"*\": it is compared with whole paths");
        return Err(Problem::invalid("match", detail));
    }
    let content_type = pattern("match.content_type", wanted.content_type.as_deref())?;
    if let Some(text) = content_type.filter(|text| text.contains(';')) {
        let detail = format!("`match.content_type` {text:?} is a media type without its parameters");
        return Err(Problem::invalid("match", detail));
    }
    Ok(Predicate {
        site: wanted.site.as_ref().map(|site| known_site(state, "match.site", site)).transpose()?,
        host: host.map(Into::into),
        path: path.map(Into::into),
        statuses: wanted.status.as_ref().map_or(Ok(Vec::new()), |status| statuses(status.patterns()))?,
        stored_before: age("match.older_than", wanted.older_than.as_deref(), at)?,
        stored_after: age("match.younger_than", wanted.younger_than.as_deref(), at)?,
        content_type: content_type.map(|text| text.to_ascii_lowercase().into()),
        plugin: wanted.plugin.as_ref().map(|plugin| plugin_digest(state, plugin)).transpose()?,
    })
}

/// A pattern that costs little to match.
fn pattern<'a>(field: &str, text: Option<&'a str>) -> Result<Option<&'a str>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let invalid = |why: String| Err(Problem::invalid("match", format!("`{field}` {text:?} {why}")));
    if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
        return invalid(format!("has to have 1 to {PATTERN_BYTES_MAX} bytes"));
    }
    if text.matches('*').count() > PATTERN_STARS_MAX {
        return invalid(format!("has more than {PATTERN_STARS_MAX} `*`"));
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return invalid("has white space in it".to_owned());
    }
    Ok(Some(text))
}

fn statuses(patterns: &[StatusPattern]) -> Result<Vec<(u16, u16)>, Problem> {
    if patterns.is_empty() || patterns.len() > STATUSES_MAX {
        return Err(Problem::invalid(
            "match",
            format!("`match.status`: give 1 to {STATUSES_MAX} statuses or ranges of them"),
        ));
    }
    let is_status = |code: u16| (100..=599).contains(&code);
    let range = |pattern: &StatusPattern| {
        let (from, to) = match pattern {
            StatusPattern::Code(code) => (*code, *code),
            StatusPattern::Range(text) => match (text.split_once('-'), text.strip_suffix("xx")) {
                (Some((from, to)), _) => (three_digits(from)?, three_digits(to)?),
                (None, Some(class)) => {
                    let class = class.parse::<u16>().ok().filter(|class| (1..=5).contains(class))?;
                    (class * 100, class * 100 + 99)
                }
                (None, None) => (three_digits(text)?, three_digits(text)?),
            },
        };
        (is_status(from) && is_status(to) && from <= to).then_some((from, to))
    };
    let read = |pattern: &StatusPattern| {
        range(pattern).ok_or_else(|| {
            let shown = match pattern {
                StatusPattern::Code(code) => code.to_string(),
                StatusPattern::Range(text) => format!("{text:?}"),
            };
            let detail =
                format!("`match.status` {shown} is no status from 100 to 599, class \"4xx\" or range \"500-599\"");
            Problem::invalid("match", detail)
        })
    };
    patterns.iter().map(read).collect()
}

fn three_digits(text: &str) -> Option<u16> {
    let is_plain = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

/// The time so long ago.
fn age(field: &str, text: Option<&str>, at: SystemTime) -> Result<Option<SystemTime>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let invalid = |why: String| Problem::invalid("match", format!("`{field}`: {why}"));
    let age = parse_duration(text).map_err(invalid)?;
    let time = at.checked_sub(age).filter(|time| *time >= SystemTime::UNIX_EPOCH);
    time.map(Some).ok_or_else(|| invalid(format!("{text:?} ago is before 1970")))
}

/// The digest in hex, or that of `name@version`.
fn plugin_digest(state: &AdminState, text: &str) -> Result<[u8; 32], Problem> {
    if let Some(digest) = digest::<32>(text) {
        return Ok(digest);
    }
    let invalid = |why: String| Problem::invalid("match", format!("`match.plugin` {text:?}: {why}"));
    let (name, version) =
        text.split_once('@')
            .and_then(|(name, version)| Some((name, version.parse::<u64>().ok()?)))
            .ok_or_else(|| invalid("write the 64 hex digits of a version's digest, or NAME@VERSION".to_owned()))?;
    let view = state.plugins.get(name).ok_or_else(|| invalid(format!("no plugin is named {name:?}")))?;
    let record = view.record.versions.iter().find(|record| record.version == version);
    record
        .and_then(|record| digest::<32>(&record.digest))
        .ok_or_else(|| invalid("no such version is kept; its digest would do".to_owned()))
}

/// Takes a URL apart the way the server takes a request target apart, so that both name the same.
pub(super) fn parse_url(field: &str, text: &str) -> Result<PurgeUrl, Problem> {
    let (scheme, uri) = absolute_url(field, text)?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    Ok(PurgeUrl {
        scheme: scheme.to_owned(),
        authority: brim_semantics::normal_authority(scheme, authority).into_owned(),
        path: uri.path().to_owned(),
        query: uri.query().map(str::to_owned),
    })
}

/// An http or https URL with a host and nothing that never reaches a server; its scheme in lower case.
pub(super) fn absolute_url(field: &str, text: &str) -> Result<(&'static str, Uri), Problem> {
    let invalid = |why: &str| Problem::invalid(field, format!("`{field}` {text:?}: {why}"));
    if text.len() > URL_BYTES_MAX {
        return Err(Problem::invalid(field, format!("`{field}` has more than {URL_BYTES_MAX} bytes")));
    }
    if text.contains('#') {
        return Err(invalid("a fragment never reaches a server; leave `#` and what follows away"));
    }
    let uri: Uri = text
        .parse()
        .map_err(|error| invalid(&format!("not a URL ({error}); it must be absolute and percent-encoded")))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(invalid("it must be absolute, for example https://api.example.com/items?page=2"));
    };
    let scheme = match scheme {
        "http" => "http",
        "https" => "https",
        _ => return Err(invalid("the scheme must be http or https")),
    };
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(invalid("it must name a host, without user or password"));
    }
    Ok((scheme, uri))
}

/// A selector as receipts and dry runs show it. Of fields that look like credentials only the length is told.
pub(super) fn shown(selector: &Selector) -> Purged {
    let url = |authority: &str, path: &str, query: &Option<Box<str>>| match query {
        None => format!("//{authority}{path}"),
        Some(query) => format!("//{authority}{path}?{query}"),
    };
    let texts = |texts: &[Box<str>]| Some(texts.iter().map(ToString::to_string).collect());
    let nothing = Purged::default();
    match selector {
        Selector::Everything => Purged { everything: true, ..nothing },
        Selector::Site(site) => Purged { site: Some(site.to_string()), ..nothing },
        Selector::Prefix { authority, path_prefix } => {
            Purged { prefix: Some(format!("//{authority}{path_prefix}")), ..nothing }
        }
        Selector::Url { authority, path, query } => Purged { url: Some(url(authority, path, query)), ..nothing },
        Selector::Variant { authority, path, query, keys: _, fields } => {
            let mut headers = BTreeMap::<String, Vec<String>>::new();
            for (name, value) in fields {
                // They come from the purge log, so the name is one.
                let Ok(field) = HeaderName::from_bytes(name.as_bytes()) else { continue };
                headers.entry(name.to_string()).or_default().push(others_value(&field, value));
            }
            let headers = headers.into_iter().map(|(name, mut values)| match values.pop() {
                Some(only) if values.is_empty() => (name, FieldValues::One(only)),
                last => (name, FieldValues::Several(values.into_iter().chain(last).collect())),
            });
            Purged { url: Some(url(authority, path, query)), headers: Some(headers.collect()), ..nothing }
        }
        Selector::SurrogateKeys { site, keys } => {
            Purged { site: site.as_ref().map(ToString::to_string), surrogate_keys: texts(keys), ..nothing }
        }
        Selector::Groups { authority, groups } => {
            Purged { authority: Some(authority.to_string()), groups: texts(groups), ..nothing }
        }
        Selector::Match(predicate) => Purged { predicate: Some(matched(predicate)), ..nothing },
    }
}

fn matched(predicate: &Predicate) -> Matched {
    let text = |text: &Option<Box<str>>| text.as_ref().map(ToString::to_string);
    let status = |(from, to): &(u16, u16)| if from == to { from.to_string() } else { format!("{from}-{to}") };
    Matched {
        site: text(&predicate.site),
        host: text(&predicate.host),
        path: text(&predicate.path),
        status: predicate.statuses.iter().map(status).collect(),
        stored_before: predicate.stored_before.map(time),
        stored_after: predicate.stored_after.map(time),
        content_type: text(&predicate.content_type),
        plugin: predicate.plugin.map(|digest| hex(&digest)),
    }
}

/// RFC 3339, with milliseconds.
pub(super) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// What is asked for, before it is looked at, in a line for the audit log. Values of fields may be credentials: of them the names alone.
pub(super) fn asked(request: &PurgeRequest) -> String {
    const BYTES_MAX: usize = 1024;
    let mut asked = serde_json::to_value(PurgeRequest { confirm: None, ..request.clone() }).unwrap_or_default();
    if let Some(headers) = asked.get_mut("headers").filter(|headers| headers.is_object()) {
        let names: Vec<String> = headers.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
        *headers = serde_json::Value::from(names);
    }
    let mut text = asked.to_string();
    if text.len() > BYTES_MAX {
        text.truncate(text.floor_char_boundary(BYTES_MAX));
        text.push('…');
    }
    text
}

/// A purge without what says how it is to be answered: what it hits, and hard or soft.
pub(super) fn plain(request: &PurgeRequest) -> PurgeRequest {
    PurgeRequest { dry_run: false, wait: false, on_demand: false, confirm: None, ..request.clone() }
}

/// What identifies a purge as it was asked for, whatever the time and the rules make of it.
pub(super) fn fingerprint(request: &PurgeRequest) -> [u8; 32] {
    Sha256::digest(serde_json::to_string(&plain(request)).unwrap_or_default()).into()
}

/// What a purge names, in a line for the audit log.
pub(super) fn summary(selectors: &[Selector]) -> String {
    const SHOWN_MAX: usize = 8;
    let mut text = String::new();
    for selector in selectors.iter().take(SHOWN_MAX) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(&serde_json::to_string(&shown(selector)).unwrap_or_default());
    }
    if selectors.len() > SHOWN_MAX {
        text.push_str(&format!(" and {} more", selectors.len() - SHOWN_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_codes_classes_and_ranges() {
        let read = |json: serde_json::Value| {
            let patterns: Vec<StatusPattern> = serde_json::from_value(json).expect("patterns");
            statuses(&patterns).map_err(|problem| problem.detail)
        };
        let good = serde_json::json!([404, "404", "4xx", "500-599", "200-200"]);
        assert_eq!(read(good), Ok(vec![(404, 404), (404, 404), (400, 499), (500, 599), (200, 200)]));
        for wrong in
            ["", "4", "x", "xx", "6xx", "0xx", "4XX", "404-", "-404", "500-400", "+40", "99", "600", "404-600", "4x"]
        {
            let detail = read(serde_json::json!([wrong])).expect_err(wrong);
            assert!(detail.contains(&format!("{wrong:?}")) && detail.contains("match.status"), "{detail}");
        }
        for wrong in [0, 99, 600, 65_535] {
            assert!(read(serde_json::json!([wrong])).is_err(), "{wrong}");
        }
        assert!(read(serde_json::json!([])).is_err());
        assert!(read(serde_json::json!(vec![200; STATUSES_MAX + 1])).is_err());
    }

    #[test]
    fn digests_are_read_back_and_nothing_else_is_one() {
        assert_eq!(key_hash("000102030405060708090a0b0c0d0e0F").map(|hash| hash.0[15]), Some(15));
        for wrong in ["", "00", "000102030405060708090a0b0c0d0e0g", "+00102030405060708090a0b0c0d0e0f"] {
            assert_eq!(key_hash(wrong), None, "{wrong}");
        }
    }
}
