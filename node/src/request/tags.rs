//! Tags: which surrogate keys a response gets, from its fields, the route's configuration, its content and the route's plugin.
//!
//! Always true:
//! - A response is never stored with fewer keys than it should have, unless the operator wants it so (`surrogate_keys_overflow`):
//!   where a rule fails or a limit is reached it is not stored.
//! - Keys that come from the content are added when it is whole; until then every purge counts as naming the response.
//! - The content is read for its keys up to `tag_content_max`; what is longer, encoded or no JSON gets the keys that cover everything.
//!
//! Not here: what a write purges (`invalidate`), the rule for items (`items`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use brim_host::{KeyRequest, PluginFault, json};
use brim_semantics::{Nominated, SurrogateKeys};
use brim_store::StoredResponse;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONTENT_ENCODING};
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use tokio::sync::Semaphore;

use super::entry::{Declined, Entry};
use super::{Cache, items};
use crate::config::KeyOverflow;
use crate::config::template::TemplateValues;
use crate::plugins::ActivePlugin;
use crate::route::Route;

/// Bytes of contents that are held for their keys at a time, over all requests; beyond them a content is taken for too long.
const TAG_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Long contents that are parsed at a time: what is made of one in memory is many times as long.
const PARSED_AT_ONCE_MAX: usize = 4;
static PARSING: Semaphore = Semaphore::const_new(PARSED_AT_ONCE_MAX);
/// A content of so many bytes is parsed beside the runtime's own thread.
const PARSE_APART_BYTES: usize = 32 * 1024;

/// The surrogate keys of a response, as far as its head tells.
pub(super) struct Tags {
    /// All that are known.
    pub(super) keys: Vec<Box<str>>,
    /// Those among them that stay when a 304 brings other fields.
    pub(super) content_keys: Vec<Box<str>>,
    /// Some of them were left out, and the route wants it so.
    pub(super) is_cut: bool,
    /// More come with the content.
    pub(super) awaited: Option<Awaited>,
}

/// Keys that come with the content.
pub(super) struct Awaited {
    collected: Collected,
    status: StatusCode,
    headers: HeaderMap,
    plugin: Option<Arc<ActivePlugin>>,
    /// What all contents that are held for their keys may take, and what this one has of it.
    budget: Arc<TagBudget>,
    taken: usize,
}

/// Bytes of contents that are held for their keys, over all requests.
#[derive(Debug, Default)]
pub struct TagBudget(AtomicUsize);

impl TagBudget {
    fn take(&self, bytes: usize) -> bool {
        let is_free = self.0.fetch_add(bytes, Ordering::Relaxed) + bytes <= TAG_BYTES_MAX;
        if !is_free {
            self.0.fetch_sub(bytes, Ordering::Relaxed);
        }
        is_free
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// A content that is read beside its way to the store.
enum Collected {
    So(BytesMut, usize),
    TooLong,
}

/// The keys that the fields of a response and the route's configuration give it.
pub(super) fn of_fields(route: &Route, target: &Uri, request: &HeaderMap, response: &HeaderMap) -> SurrogateKeys {
    let mut keys = brim_semantics::surrogate_keys(response, &route.config.tagging.fields);
    of_route(route, target, request).for_each(|key| keys.add(&key));
    keys
}

/// Those that the route's configuration makes of a request.
fn of_route<'a>(route: &'a Route, target: &'a Uri, request: &'a HeaderMap) -> impl Iterator<Item = String> + 'a {
    let values = values(target, request);
    route.config.tagging.keys.iter().filter_map(move |template| template.key(&values))
}

/// Whether a request that was made up of what is stored gets all the keys that a client's has got: none comes from what is not there.
pub(super) fn can_be_supposed(cache: &Cache, route: &Route, target: &Uri, request: &HeaderMap) -> bool {
    let tagging = &route.config.tagging;
    let reads_fields = |name: &str| {
        let active = cache.plugins.active(name);
        active.is_none_or(|active| {
            active.plugin.invalidation_inputs().is_none_or(|inputs| !inputs.request_headers.is_empty())
        })
    };
    of_route(route, target, request).count() == tagging.keys.len()
        && !tagging.plugin.as_deref().is_some_and(reads_fields)
}

/// What templates of a route are filled in from.
pub(super) fn values<'a>(target: &'a Uri, headers: &'a HeaderMap) -> TemplateValues<'a> {
    TemplateValues {
        authority: target.authority().map_or("", |authority| authority.as_str()),
        path: target.path(),
        query: target.query(),
        headers,
    }
}

/// A request as an invalidation rule is asked about it.
pub(super) fn key_request<'a>(method: &'a str, target: &'a Uri, headers: &'a HeaderMap) -> KeyRequest<'a> {
    KeyRequest {
        method,
        scheme: target.scheme_str().unwrap_or("http"),
        authority: target.authority().map_or("", |authority| authority.as_str()),
        path: target.path(),
        query: target.query(),
        headers,
    }
}

impl Entry {
    /// The keys of a response to this entry's request, and what its content has to tell yet.
    pub(super) fn tags(&self, status: StatusCode, headers: &HeaderMap) -> Result<Tags, Declined> {
        let tagging = &self.route.config.tagging;
        let mut keys = of_fields(&self.route, &self.target, &self.inbound_headers, headers);
        let plugin = self.tagging_plugin()?;
        // They come from a request, and the next one may have other values.
        let mut content_keys: Vec<Box<str>> =
            of_route(&self.route, &self.target, &self.inbound_headers).map(Into::into).collect();
        let reads_content = tagging.items.is_some() || plugin.as_ref().is_some_and(|active| wants_content(active));
        let awaited = if reads_content {
            Some(Awaited::new(self, status, headers, plugin))
        } else {
            if let Some(active) = plugin {
                let content = json::Content::Undeclared;
                let tags = self.asked(&active, status, headers, content).map_err(Declined::Tags)?;
                tags.iter().for_each(|key| keys.add(key));
                content_keys.extend(tags);
            }
            None
        };
        let is_cut = keys.is_cut();
        if is_cut && tagging.overflow == KeyOverflow::Refuse {
            // A purge by one of the keys that were cut would miss it.
            return Err(Declined::SurrogateKeys);
        }
        let keys = keys.into_vec();
        content_keys.retain(|key| keys.contains(key));
        Ok(Tags { keys, content_keys, is_cut, awaited })
    }

    /// The keys that a stored response gets from the fields of a 304, and of the request that brought it. Those that it has otherwise stay.
    pub(super) fn tags_again(&self, stored: &StoredResponse, headers: &HeaderMap) -> Result<SurrogateKeys, Declined> {
        let mut keys = of_fields(&self.route, &self.target, &self.inbound_headers, headers);
        if let Some(active) = self.tagging_plugin()? {
            if !wants_content(&active) {
                let tags = self.asked(&active, stored.head.status, headers, json::Content::Undeclared);
                tags.map_err(Declined::Tags)?.iter().for_each(|key| keys.add(key));
            } else if has_other_inputs(&active, &stored.head.headers, headers) {
                // Its content would have to be read again for them.
                return Err(Declined::Tags("plugin-inputs-changed"));
            }
        }
        if keys.is_cut() {
            self.note_untagged(Declined::SurrogateKeys);
            if self.route.config.tagging.overflow == KeyOverflow::Refuse {
                return Err(Declined::SurrogateKeys);
            }
        }
        Ok(keys)
    }

    fn tagging_plugin(&self) -> Result<Option<Arc<ActivePlugin>>, Declined> {
        let Some(name) = &self.route.config.tagging.plugin else { return Ok(None) };
        // Never untagged: without its rule the response is for its client alone.
        self.cache.plugins.active(name).map(Some).ok_or(Declined::Tags("plugin-missing"))
    }

    fn asked(
        &self,
        active: &ActivePlugin,
        status: StatusCode,
        headers: &HeaderMap,
        content: json::Content,
    ) -> Result<Vec<Box<str>>, &'static str> {
        let request = key_request(self.method.as_str(), &self.target, &self.inbound_headers);
        let no_content = json::Content::Undeclared;
        let call = active.plugin.invalidation_call(&request, no_content, status, headers, content);
        active.plugin.tags(&call).map_err(|fault| self.note_fault(active, &fault))
    }

    fn note_fault(&self, active: &ActivePlugin, fault: &PluginFault) -> &'static str {
        if let Some(held_back) = self.route.plugin_faults.admit() {
            let target = &self.target;
            tracing::warn!(plugin = active.name, %fault, %target, held_back, "tagging rule failed: the response is not stored");
        }
        detail_of(fault)
    }
}

/// What Cache-Status calls a fault of a tagging rule. No `_` arm: a new fault has to choose its word.
fn detail_of(fault: &PluginFault) -> &'static str {
    match fault {
        PluginFault::Deadline => "plugin-deadline",
        PluginFault::Memory => "plugin-memory",
        PluginFault::Trap(_) => "plugin-trap",
        PluginFault::Panicked(_) => "plugin-panicked",
        PluginFault::Rejected(_) => "plugin-rejected",
        PluginFault::BadOutput(_) => "plugin-bad-output",
        PluginFault::Busy => "plugin-busy",
        PluginFault::NoHook => "plugin-no-hook",
    }
}

/// Whether a 304 has changed fields of the response that the plugin declared to read.
fn has_other_inputs(active: &ActivePlugin, before: &HeaderMap, after: &HeaderMap) -> bool {
    let Some(inputs) = active.plugin.invalidation_inputs() else { return false };
    inputs.response_headers.iter().any(|name| !before.get_all(name).iter().eq(after.get_all(name).iter()))
}

/// Whether a rule of the route reads contents of responses for their keys.
pub(super) fn reads_content(cache: &Cache, route: &Route) -> bool {
    let tagging = &route.config.tagging;
    let plugin = || tagging.plugin.as_deref().and_then(|name| cache.plugins.active(name));
    tagging.items.is_some() || plugin().is_some_and(|active| wants_content(&active))
}

/// Whether the plugin declared to read contents of responses.
fn wants_content(active: &ActivePlugin) -> bool {
    active.plugin.invalidation_inputs().is_some_and(|inputs| !inputs.response_values.is_empty())
}

/// Fields by which a client says in which form it would like an answer (RFC 9110 §12.5).
const FORM_FIELDS: [HeaderName; 3] = [ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE];

impl Awaited {
    fn new(entry: &Entry, status: StatusCode, headers: &HeaderMap, plugin: Option<Arc<ActivePlugin>>) -> Self {
        let max = usize::try_from(entry.route.config.tagging.content_max).unwrap_or(usize::MAX);
        // A part of a content says nothing of the rest, and an encoded one nothing at all.
        let is_readable = status != StatusCode::PARTIAL_CONTENT && !headers.contains_key(CONTENT_ENCODING);
        let collected = if is_readable { Collected::So(BytesMut::new(), max) } else { Collected::TooLong };
        Self { collected, status, headers: headers.clone(), plugin, budget: entry.cache.tag_budget.clone(), taken: 0 }
    }

    /// Whether something besides its URL may have chosen what the response shows, and not only in which form.
    fn is_chosen(&self, entry: &Entry) -> bool {
        let nominates = Nominated::of(&self.headers, &HeaderMap::new());
        let is_nominated = nominates.map_or(true, |names| names.names().any(|name| !FORM_FIELDS.contains(name)));
        entry.method != Method::GET || entry.plugin.is_some() || is_nominated
    }

    fn give_back(&mut self) {
        self.collected = Collected::TooLong;
        self.budget.0.fetch_sub(std::mem::take(&mut self.taken), Ordering::Relaxed);
    }

    /// Takes the next bytes of the content.
    pub(super) fn push(&mut self, data: &Bytes) {
        if let Collected::So(content, max) = &mut self.collected {
            if content.len() + data.len() > *max || !self.budget.take(data.len()) {
                self.give_back();
            } else {
                self.taken += data.len();
                content.extend_from_slice(data);
            }
        }
    }

    /// The keys that the whole content gives, or why it may not be stored.
    pub(super) async fn keys(mut self, entry: &Entry) -> Result<Vec<Box<str>>, Declined> {
        let content = match &mut self.collected {
            // It counts until this call ends.
            Collected::So(content, _) => Some(std::mem::take(content).freeze()),
            Collected::TooLong => {
                entry.route.metrics.note_content_unread();
                None
            }
        };
        let tagging = &entry.route.config.tagging;
        let mut keys = SurrogateKeys::default();
        if let Some(rule) = &tagging.items {
            let (status, is_chosen) = (self.status, self.is_chosen(entry));
            let (rule, target, path) = (rule.clone(), entry.target.clone(), entry.route.config.path.clone());
            let found = apart(content.as_ref(), move |content| {
                items::Page { route_path: &path, target: &target }
                    .keys(&rule, items::Shown { status, is_chosen, content })
            });
            // None: the node is ending, and nothing is stored any more.
            let found = found.await.ok_or(Declined::Tags("plugin-busy"))?;
            found.iter().for_each(|key| keys.add(key));
        }
        if let Some(active) = &self.plugin {
            let pointers = active.plugin.invalidation_inputs().map(|inputs| inputs.response_values.clone());
            let selected = match pointers {
                None => json::Content::Undeclared,
                Some(pointers) if pointers.is_empty() => json::Content::Undeclared,
                Some(pointers) => match &content {
                    None => json::Content::TooLong,
                    Some(_) => apart(content.as_ref(), move |content| selected(content, &pointers))
                        .await
                        .unwrap_or(json::Content::NotJson),
                },
            };
            let tags = entry.asked(active, self.status, &self.headers, selected).map_err(Declined::Tags)?;
            tags.iter().for_each(|key| keys.add(key));
        }
        if keys.is_cut() && tagging.overflow == KeyOverflow::Refuse {
            return Err(Declined::SurrogateKeys);
        }
        Ok(keys.into_vec())
    }
}

/// The values at `pointers` of a content that may be missing.
pub(super) fn selected(content: Option<&[u8]>, pointers: &[json::Pointer]) -> json::Content {
    match content {
        None => json::Content::TooLong,
        Some([]) => json::Content::Empty,
        Some(content) => json::select(content, pointers),
    }
}

/// Runs what reads a content: a long one beside the runtime's own thread, few at a time. `None`: the node is ending.
pub(super) async fn apart<R: Send + 'static>(
    content: Option<&Bytes>,
    read: impl FnOnce(Option<&[u8]>) -> R + Send + 'static,
) -> Option<R> {
    match content {
        Some(content) if content.len() >= PARSE_APART_BYTES => {
            let content = content.clone();
            let _turn = PARSING.acquire().await.ok()?;
            tokio::task::spawn_blocking(move || read(Some(&content))).await.ok()
        }
        content => Some(read(content.map(|content| &content[..]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn awaited(budget: &Arc<TagBudget>, max: usize) -> Awaited {
        let collected = Collected::So(BytesMut::new(), max);
        Awaited {
            collected,
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            plugin: None,
            budget: budget.clone(),
            taken: 0,
        }
    }

    fn is_held(awaited: &Awaited) -> bool {
        matches!(awaited.collected, Collected::So(..))
    }

    /// What does not fit is taken for too long, and what was held of it is free for others.
    #[test]
    fn contents_are_held_within_a_budget() {
        let budget = Arc::<TagBudget>::default();
        let data = Bytes::from_static(b"0123456789");
        let (mut first, mut second, mut long) = (awaited(&budget, 100), awaited(&budget, 100), awaited(&budget, 19));
        assert!(budget.take(TAG_BYTES_MAX - 30));
        for content in [&mut first, &mut second, &mut long] {
            content.push(&data);
            assert!(is_held(content));
        }
        second.push(&data);
        assert!(!is_held(&second) && is_held(&first), "all is taken");
        first.push(&data);
        assert!(is_held(&first), "by what the other has given back");
        long.push(&data);
        assert!(!is_held(&long), "longer than its route takes");
        let left = |budget: &TagBudget| TAG_BYTES_MAX - budget.0.load(Ordering::Relaxed);
        assert_eq!(left(&budget), 10);
        drop((first, second, long));
        assert_eq!(left(&budget), 30);
    }
}
