//! The invalidation hook: what a rule declared to read, what a call of it sees, and what it answered, checked.
//!
//! Always true:
//! - A call holds what the plugin declared, and method, scheme, authority, path, query and status; nothing else of request and response.
//! - A call that waited while another version of the plugin came into use never passes on values of pointers that this version did not
//!   declare: their content then counts as unknown.
//! - Keys and URLs that leave here have no white space and no control characters, and are within their bounds.
//!
//! Not here: what is read of a content and how much of it (`json`, `brim-node`), what a purge does (`brim-store`).

use brim_semantics::{SURROGATE_KEY_BYTES_MAX, SURROGATE_KEYS_MAX};
use http::{HeaderMap, HeaderName, StatusCode};
use serde::{Deserialize, Serialize};

use crate::config::{PURGE_URL_BYTES_MAX, PURGES_MAX, REASON_BYTES_MAX};
use crate::guest::bindings::brim::rules::types::Field;
use crate::guest::bindings::exports::brim::rules::invalidation::{self, Request, Response};
use crate::inputs::KeyRequest;
use crate::json::{Content, POINTERS_MAX, Pointer, Value};
use crate::text::clean;

/// What an invalidation rule declared to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidationInputs {
    /// Fields of the request, in the order of the declaration, each once.
    pub request_headers: Vec<HeaderName>,
    /// Fields of the response.
    pub response_headers: Vec<HeaderName>,
    /// Places in the request's content.
    pub request_values: Vec<Pointer>,
    /// Places in the response's content.
    pub response_values: Vec<Pointer>,
}

/// What a call of the invalidation hook sees. Made by [`Plugin::invalidation_call`](crate::Plugin::invalidation_call); it can wait on
/// disk and be run again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InvalidationCall {
    method: String,
    scheme: String,
    authority: String,
    path: String,
    query: Option<String>,
    request_headers: Vec<(String, Vec<u8>)>,
    request_content: Taken,
    status: u16,
    response_headers: Vec<(String, Vec<u8>)>,
    response_content: Taken,
}

/// A content, and the pointers whose values it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Taken {
    pointers: Vec<Pointer>,
    content: Content,
}

/// What a rule wants purged, all of the request's site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginPurge {
    /// Responses with one of these surrogate keys.
    SurrogateKeys(Vec<Box<str>>),
    /// All variants of this URL: absolute, or a path with or without a query at the request's authority.
    Url(String),
    /// Responses whose URL begins with this: absolute, or a path at the request's authority.
    Prefix(String),
    /// All responses of the site.
    Site,
}

impl InvalidationInputs {
    /// Checks what a guest said; the error completes the sentence "`reads` says …".
    pub(crate) fn checked(said: invalidation::Inputs) -> Result<Self, String> {
        Ok(Self {
            request_headers: crate::description::headers(said.request_headers)?,
            response_headers: crate::description::headers(said.response_headers)?,
            request_values: pointers(&said.request_values)?,
            response_values: pointers(&said.response_values)?,
        })
    }
}

fn pointers(said: &[String]) -> Result<Vec<Pointer>, String> {
    if said.len() > POINTERS_MAX {
        return Err(format!("{} JSON pointers into one content; {POINTERS_MAX} are allowed", said.len()));
    }
    let parsed = |text: &String| {
        Pointer::parse(text).map_err(|error| format!("`{}`, but {error}", clean(text, REASON_BYTES_MAX)))
    };
    said.iter().map(parsed).collect()
}

impl InvalidationCall {
    /// Cuts request and response down to what is declared; without a declaration, to what every rule sees.
    pub(crate) fn new(
        declared: Option<&InvalidationInputs>,
        request: &KeyRequest<'_>,
        request_content: Content,
        status: StatusCode,
        response_headers: &HeaderMap,
        response_content: Content,
    ) -> Self {
        let names = |of: fn(&InvalidationInputs) -> &Vec<HeaderName>| declared.map_or(&[][..], |inputs| of(inputs));
        let pointers = |of: fn(&InvalidationInputs) -> &Vec<Pointer>| declared.map_or(&[][..], |inputs| of(inputs));
        Self {
            method: request.method.to_owned(),
            scheme: request.scheme.to_owned(),
            authority: request.authority.to_owned(),
            path: request.path.to_owned(),
            query: request.query.map(str::to_owned),
            request_headers: lines(names(|inputs| &inputs.request_headers), request.headers),
            request_content: Taken::new(pointers(|inputs| &inputs.request_values), request_content),
            status: status.as_u16(),
            response_headers: lines(names(|inputs| &inputs.response_headers), response_headers),
            response_content: Taken::new(pointers(|inputs| &inputs.response_values), response_content),
        }
    }

    /// Calls `with` with the call as a guest with this declaration sees it.
    pub(crate) fn with_guest_types<T>(
        &self,
        declared: &InvalidationInputs,
        with: impl FnOnce(Request<'_>, Response<'_>) -> T,
    ) -> T {
        let request_headers = fields(&declared.request_headers, &self.request_headers);
        let response_headers = fields(&declared.response_headers, &self.response_headers);
        self.request_content.with_guest_type(&declared.request_values, |request_content| {
            self.response_content.with_guest_type(&declared.response_values, |response_content| {
                let request = Request {
                    method: &self.method,
                    scheme: &self.scheme,
                    authority: &self.authority,
                    path: &self.path,
                    query: self.query.as_deref(),
                    headers: &request_headers,
                    content: request_content,
                    extras: &[],
                };
                let response = Response {
                    status: self.status,
                    headers: &response_headers,
                    content: response_content,
                    extras: &[],
                };
                with(request, response)
            })
        })
    }
}

impl Taken {
    fn new(pointers: &[Pointer], content: Content) -> Self {
        let content = match content {
            _ if pointers.is_empty() => Content::Undeclared,
            // Not the values of these pointers.
            Content::Values(values) if values.len() != pointers.len() => Content::TooLong,
            content => content,
        };
        Self { pointers: pointers.to_vec(), content }
    }

    fn with_guest_type<T>(&self, declared: &[Pointer], with: impl FnOnce(invalidation::Content<'_>) -> T) -> T {
        let guest = |content| with(content);
        match &self.content {
            _ if declared.is_empty() => guest(invalidation::Content::Undeclared),
            Content::Empty => guest(invalidation::Content::Empty),
            Content::NotJson => guest(invalidation::Content::NotJson),
            Content::Undeclared if self.pointers == declared => guest(invalidation::Content::Undeclared),
            Content::Values(values) if self.pointers == declared && values.len() == declared.len() => {
                let values: Vec<Vec<invalidation::Value<'_>>> =
                    values.iter().map(|list| list.iter().map(lowered).collect()).collect();
                let lists: Vec<&[invalidation::Value<'_>]> = values.iter().map(Vec::as_slice).collect();
                guest(invalidation::Content::Values(&lists))
            }
            Content::TooLong | Content::Undeclared | Content::Values(_) => guest(invalidation::Content::TooLong),
        }
    }
}

fn lowered(value: &Value) -> invalidation::Value<'_> {
    match value {
        Value::Null => invalidation::Value::Null,
        Value::Flag(flag) => invalidation::Value::Flag(*flag),
        Value::Integer(integer) => invalidation::Value::Integer(*integer),
        Value::Number(number) => invalidation::Value::Number(*number),
        Value::Text(text) => invalidation::Value::Text(text),
    }
}

fn lines(names: &[HeaderName], headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let of_name = |name| headers.get_all(name).into_iter().map(move |value: &http::HeaderValue| (name, value));
    names.iter().flat_map(of_name).map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

fn fields<'a>(names: &[HeaderName], lines: &'a [(String, Vec<u8>)]) -> Vec<Field<'a>> {
    let of_name = |name: &HeaderName| {
        let name = name.clone();
        lines.iter().filter(move |(found, _)| **found == name)
    };
    names.iter().flat_map(of_name).map(|(name, value)| Field { name, value }).collect()
}

/// Checks the surrogate keys that a guest answered. The error says what is wrong with them.
pub(crate) fn checked_tags(said: Vec<String>) -> Result<Vec<Box<str>>, String> {
    if said.len() > SURROGATE_KEYS_MAX {
        return Err(format!("{} surrogate keys; {SURROGATE_KEYS_MAX} are allowed", said.len()));
    }
    said.into_iter().map(checked_key).collect()
}

/// Checks the purges that a guest answered. The error says what is wrong with them.
pub(crate) fn checked_purges(said: Vec<invalidation::Purge>) -> Result<Vec<PluginPurge>, String> {
    if said.len() > PURGES_MAX {
        return Err(format!("{} purges; {PURGES_MAX} are allowed", said.len()));
    }
    let mut keys_count = 0;
    let mut purges = Vec::with_capacity(said.len());
    for purge in said {
        purges.push(match purge {
            invalidation::Purge::SurrogateKeys(keys) => {
                keys_count += keys.len();
                if keys_count > SURROGATE_KEYS_MAX {
                    return Err(format!("purges by more than {SURROGATE_KEYS_MAX} surrogate keys"));
                }
                PluginPurge::SurrogateKeys(keys.into_iter().map(checked_key).collect::<Result<_, _>>()?)
            }
            invalidation::Purge::Url(url) => PluginPurge::Url(checked_url(url)?),
            invalidation::Purge::Prefix(prefix) => PluginPurge::Prefix(checked_url(prefix)?),
            invalidation::Purge::Site => PluginPurge::Site,
        });
    }
    Ok(purges)
}

fn checked_key(key: String) -> Result<Box<str>, String> {
    let fits = (1..=SURROGATE_KEY_BYTES_MAX).contains(&key.len())
        && !key.chars().any(|letter| letter.is_whitespace() || letter.is_control());
    if fits {
        return Ok(key.into());
    }
    Err(format!(
        "the surrogate key `{}` (1 to {SURROGATE_KEY_BYTES_MAX} bytes without white space and control characters)",
        clean(&key, REASON_BYTES_MAX)
    ))
}

fn checked_url(url: String) -> Result<String, String> {
    let lower = url.get(..8).unwrap_or(&url).to_ascii_lowercase();
    let is_whole = url.starts_with('/') || lower.starts_with("http://") || lower.starts_with("https://");
    let fits = is_whole
        && url.len() <= PURGE_URL_BYTES_MAX
        && !url.chars().any(|letter| letter.is_whitespace() || letter.is_control());
    if fits {
        return Ok(url);
    }
    Err(format!(
        "a purge of `{}` (a path that begins with `/`, or an absolute http or https URL, of at most {PURGE_URL_BYTES_MAX} bytes)",
        clean(&url, REASON_BYTES_MAX)
    ))
}
