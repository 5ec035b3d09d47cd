//! What an unsafe request does to stored responses: by RFC 9111 §4.4, and by the rules of its route.
//!
//! Always true:
//! - The invalidation is durable and visible before the client gets the response that caused it: its next read cannot
//!   find what its write has made untrue.
//! - It happens whether or not the client waits for that response.
//! - Without rules only the target URI, and the URIs and groups that the response names on the same origin (RFC 9875 §3), are
//!   touched; with them nothing outside the route's site.
//! - A rule that fails is asked again, from a queue on disk, until it answers (`retry`).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use brim_host::{InvalidationCall, PluginFault, PluginPurge, json};
use brim_semantics::PurgeState;
use brim_store::{BY_RETRY, BY_WRITE, Position, PurgeError, Scope, Selector};
use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, Method, Request, Response, Uri};
use tokio::sync::oneshot;

use super::error::RequestError;
use super::{Cache, items, key, tags};
use crate::admin::PurgeUrl;
use crate::origin::{ForwardBody, ForwardError, ForwardedResponse, OriginBody};
use crate::plugins::ActivePlugin;
use crate::retry::Retry;
use crate::route::Route;

/// How often an invalidation is tried that finds the purge log's queue full, and how long it waits in between: 2 s in all.
const TRIES_MAX: usize = 100;
const PAUSE: Duration = Duration::from_millis(20);
/// How often a plugin is asked again at once, where only its turn does not come.
const BUSY_TRIES_MAX: u32 = 3;
/// How long the answer to a write is waited for where its content is read by a rule; then the rule is told that it is too long.
const READ_AHEAD_MAX: Duration = Duration::from_secs(5);

/// What a write left in the purge log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// When the request was sent.
    pub(super) sent: SystemTime,
    /// The newest purge when its own invalidations began, if none since the request was sent names its target.
    clean_at: Option<Position>,
    /// Its own invalidation, if it is in the log.
    own: Option<Position>,
}

impl Written {
    /// The position of its invalidation, if nothing that names its target was purged while it was under way, and nothing at
    /// all beside it: then its response is as new as that.
    pub(super) fn position_if_alone(self) -> Option<Position> {
        let (own, clean_at) = (self.own?, self.clean_at?);
        (own.0 == clean_at.0 + 1).then_some(own)
    }
}

/// Forwards a request that is not safe, in a task of its own: the origin may have acted on it even if the client does not
/// wait for the answer, and then what is stored is untrue all the same. `content`: the request's, where a rule reads it.
pub(super) async fn write(
    cache: &Arc<Cache>,
    route: &Arc<Route>,
    target: Uri,
    content: Option<Bytes>,
    request: Request<ForwardBody>,
) -> Result<(Result<ForwardedResponse, ForwardError>, Written), RequestError> {
    let (reply, answer) = oneshot::channel();
    let (writing, route) = (cache.clone(), route.clone());
    cache.tasks.spawn("write", async move {
        let head = WriteHead { method: request.method().clone(), target, headers: request.headers().clone(), content };
        let before = writing.store.position();
        let mut written = Written { sent: writing.clock.now(), clean_at: None, own: None };
        let mut forwarded = route.origin.send(request).await;
        if let Ok(forwarded) = &mut forwarded {
            written.clean_at = clean_at(&writing, &route, &head, forwarded.response.headers(), before);
            written.own = after(&writing, &route, &head, &mut forwarded.response).await;
        }
        let _ = reply.send((forwarded, written));
    });
    answer.await.map_err(|_task_died| RequestError::Internal)
}

/// A request that is not safe, as rules see it.
struct WriteHead {
    method: Method,
    target: Uri,
    headers: HeaderMap,
    /// `None`: no rule reads it, or it is too long for one.
    content: Option<Bytes>,
}

/// The newest purge, if none since `before` names the response to a request for its target.
fn clean_at(
    cache: &Cache,
    route: &Route,
    head: &WriteHead,
    response: &HeaderMap,
    before: Position,
) -> Option<Position> {
    let target = &head.target;
    let scope = Scope {
        site: route.site.clone(),
        authority: authority_of(target).into(),
        path: target.path().into(),
        query: target.query().map(Into::into),
    };
    let keys = tags::of_fields(route, target, &head.headers, response).into_vec();
    let position = cache.store.position();
    let tagging = &route.config.tagging;
    if (tagging.items.is_some() || tagging.plugin.is_some()) && position != before {
        // What its content or its plugin will have it purged by is not known yet.
        return None;
    }
    (cache.store.purge_state_of(&scope, &keys, before) == PurgeState::Live).then_some(position)
}

/// Invalidates what a write with this response makes untrue. Its position, if all went well and there was anything to do.
async fn after(
    cache: &Arc<Cache>,
    route: &Arc<Route>,
    head: &WriteHead,
    response: &mut Response<OriginBody>,
) -> Option<Position> {
    if !brim_semantics::invalidates(&head.method, response.status()) {
        return None;
    }
    let mut selectors = selectors(cache, &head.target, response.headers());
    selectors.extend(by_configuration(cache, route, head, response).await);
    selectors.extend(by_plugin(cache, route, head, response).await);
    match invalidate(cache, route, selectors, BY_WRITE).await {
        Ok(position) => Some(position),
        Err(error) => {
            // The write has happened; refusing its answer would help nobody.
            tracing::error!(site = %route.site, target = %head.target, %error, "an invalidation is not on disk, or not applied at all");
            None
        }
    }
}

/// What the route's `writes` and `items` name.
async fn by_configuration(
    cache: &Cache,
    route: &Route,
    head: &WriteHead,
    response: &mut Response<OriginBody>,
) -> Vec<Selector> {
    let tagging = &route.config.tagging;
    let values = tags::values(&head.target, &head.headers);
    let mut selectors = Vec::new();
    let mut keys: Vec<Box<str>> =
        tagging.writes.surrogate_keys.iter().filter_map(|template| template.key(&values)).map(Into::into).collect();
    if let Some(rule) = &tagging.items {
        let page = items::Page { route_path: &route.config.path, target: &head.target };
        let answer = if page.may_tell(&head.method) { answer_of(route, response).await } else { None };
        let content = answer.as_deref().filter(|_| !is_encoded(response.headers()));
        let purged = page.purged(rule, &head.method, response.status(), content);
        keys.extend(purged.into_iter().map(Into::into));
    }
    if !keys.is_empty() {
        selectors.push(Selector::SurrogateKeys { site: Some(route.site.as_ref().into()), keys });
    }
    for url in tagging.writes.urls.iter().filter_map(|template| template.url(&values)) {
        selectors.extend(of_url(cache, route, &head.target, &url));
    }
    for prefix in tagging.writes.prefixes.iter().filter_map(|template| template.url(&values)) {
        selectors.push(Selector::Prefix { authority: authority_of(&head.target).into(), path_prefix: prefix.into() });
    }
    selectors
}

/// What the route's plugin names; where it cannot say, it is asked again later.
async fn by_plugin(
    cache: &Arc<Cache>,
    route: &Arc<Route>,
    head: &WriteHead,
    response: &mut Response<OriginBody>,
) -> Vec<Selector> {
    let Some(name) = &route.config.tagging.plugin else { return Vec::new() };
    let Some(active) = cache.plugins.active(name) else {
        // Nothing can be kept for it to be asked later: what it would be shown is its own to declare.
        route.metrics.note_invalidation_failed();
        tracing::error!(site = %route.site, plugin = name, target = %head.target, "the plugin that says what a write purges is not active: the whole site is purged");
        return vec![Selector::Site(route.site.as_ref().into())];
    };
    let call = call_of(&active, route, head, response).await;
    match purges(cache, &active, &call).await {
        Ok(purges) => selectors_of(cache, route, &head.target, purges),
        Err(fault) => {
            route.metrics.note_invalidation_failed();
            if let Some(held_back) = route.plugin_faults.admit() {
                tracing::error!(plugin = name, %fault, target = %head.target, held_back, "what a write purges is not known: the plugin is asked again");
            }
            let retry =
                Retry::new(name, &route.site, &route.config.path, &head.target, call, &fault, cache.clock.now());
            if let Err(error) = cache.retries.push(retry).await {
                tracing::error!(%error, site = %route.site, "it cannot be asked again later: the whole site is purged");
                return vec![Selector::Site(route.site.as_ref().into())];
            }
            Vec::new()
        }
    }
}

/// What the plugin is shown of a write.
async fn call_of(
    active: &ActivePlugin,
    route: &Route,
    head: &WriteHead,
    response: &mut Response<OriginBody>,
) -> InvalidationCall {
    let (sent, received) = match active.plugin.invalidation_inputs() {
        None => (Vec::new(), Vec::new()),
        Some(inputs) => (inputs.request_values.clone(), inputs.response_values.clone()),
    };
    let request_content = json_of(head.content.clone(), is_encoded(&head.headers), sent).await;
    let answer = if received.is_empty() { None } else { answer_of(route, response).await };
    let response_content = json_of(answer, is_encoded(response.headers()), received).await;
    let request = tags::key_request(head.method.as_str(), &head.target, &head.headers);
    active.plugin.invalidation_call(&request, request_content, response.status(), response.headers(), response_content)
}

/// The content of the answer to a write, where it is short enough and comes in time. The client gets all of it after that.
async fn answer_of(route: &Route, response: &mut Response<OriginBody>) -> Option<Bytes> {
    let content_max = usize::try_from(route.config.tagging.content_max).unwrap_or(usize::MAX);
    let reading = response.body_mut().read_ahead(content_max);
    // What has come by then is not lost by giving up.
    let content = tokio::time::timeout(READ_AHEAD_MAX, reading).await.ok().flatten();
    if content.is_none() {
        route.metrics.note_content_unread();
    }
    content
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_ENCODING)
}

async fn json_of(content: Option<Bytes>, is_encoded: bool, pointers: Vec<json::Pointer>) -> json::Content {
    if pointers.is_empty() {
        return json::Content::Undeclared;
    }
    let content = content.filter(|_| !is_encoded);
    tags::apart(content.as_ref(), move |content| tags::selected(content, &pointers))
        .await
        .unwrap_or(json::Content::NotJson)
}

/// Asks a plugin; more than once where only its turn does not come.
async fn purges(
    cache: &Cache,
    active: &ActivePlugin,
    call: &InvalidationCall,
) -> Result<Vec<PluginPurge>, PluginFault> {
    let mut tries_left = BUSY_TRIES_MAX;
    loop {
        match active.plugin.purges(call) {
            Err(PluginFault::Busy) if tries_left > 0 => tries_left -= 1,
            outcome => {
                let fault = outcome.as_ref().err().map(PluginFault::as_detail);
                tracing::trace!(
                    plugin = active.name,
                    fault,
                    running = cache.tasks.running_count(),
                    "invalidation rule"
                );
                return outcome;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What a plugin named, in its route's site and nowhere else.
fn selectors_of(cache: &Cache, route: &Route, target: &Uri, purges: Vec<PluginPurge>) -> Vec<Selector> {
    let site = || route.site.as_ref().into();
    purges
        .into_iter()
        .flat_map(|purge| match purge {
            PluginPurge::SurrogateKeys(keys) => vec![Selector::SurrogateKeys { site: Some(site()), keys }],
            PluginPurge::Url(url) => of_url(cache, route, target, &url),
            PluginPurge::Prefix(prefix) => match in_site(cache, route, target, &prefix) {
                // A query is left away: more goes than it names.
                Some(uri) => {
                    vec![Selector::Prefix { authority: authority_of(&uri).into(), path_prefix: uri.path().into() }]
                }
                None => Vec::new(),
            },
            PluginPurge::Site => vec![Selector::Site(site())],
        })
        .collect()
}

/// A plugin's answer to a call that failed before: what it names is purged. The error says why not yet.
pub(crate) async fn again(cache: &Arc<Cache>, retry: &Retry) -> Result<(), String> {
    let active = cache.plugins.active(&retry.plugin).ok_or("the plugin is not active")?;
    let call = retry.call.as_ref().ok_or("what it is shown is missing")?;
    let snapshot = cache.snapshot.load_full();
    let target: Uri = retry.target.parse().map_err(|_| "its target is no URI")?;
    let Some(site) = snapshot.routes.site_named(&retry.site) else {
        tracing::info!(site = retry.site, "a site is gone, and with it what its plugin had to purge");
        return Ok(());
    };
    let route = site.route(target.path()).ok_or("its route is gone")?;
    let purges = purges(cache, &active, call).await.map_err(|fault| fault.to_string())?;
    let selectors = selectors_of(cache, route, &target, purges);
    if selectors.is_empty() {
        return Ok(());
    }
    invalidate(cache, route, selectors, BY_RETRY).await.map(|_| ()).map_err(|error| error.to_string())
}

/// A URL, or a path with or without a query, and the forms under which its responses are stored.
fn of_url(cache: &Cache, route: &Route, target: &Uri, url: &str) -> Vec<Selector> {
    in_site(cache, route, target, url).map(|uri| forms(cache, &uri)).unwrap_or_default()
}

/// The absolute form, if it belongs to the route's site.
fn in_site(cache: &Cache, route: &Route, target: &Uri, reference: &str) -> Option<Uri> {
    let uri: Option<Uri> = if reference.starts_with('/') {
        let (scheme, authority) = (target.scheme_str()?, target.authority()?);
        format!("{scheme}://{authority}{reference}").parse().ok()
    } else {
        reference.parse().ok().filter(|uri: &Uri| uri.authority().is_some() && uri.scheme_str().is_some())
    };
    let snapshot = cache.snapshot.load();
    let is_own = |uri: &Uri| snapshot.routes.site(&authority_of(uri)).is_some_and(|site| site.name == route.site);
    let uri = uri.filter(is_own);
    if uri.is_none() {
        tracing::warn!(site = %route.site, reference, "a rule named a URL that is none, or of another site: not purged");
    }
    uri
}

/// What a successful write makes untrue: URIs (RFC 9111 §4.4), and groups of the same origin (RFC 9875 §3).
fn selectors(cache: &Cache, target: &Uri, response: &HeaderMap) -> Vec<Selector> {
    let mut selectors = Vec::new();
    for uri in brim_semantics::invalidation_targets(target, response) {
        selectors.extend(forms(cache, &uri));
    }
    let (groups, is_cut) = brim_semantics::invalidated_groups(response);
    if is_cut {
        tracing::warn!(%target, "Cache-Group-Invalidation names more or longer groups than are taken: the rest stays");
    }
    if !groups.is_empty() {
        selectors.push(Selector::Groups { authority: authority_of(target).into(), groups });
    }
    selectors
}

/// A URL as given, and as the route's key rule rewrites it: responses may be stored under either.
fn forms(cache: &Cache, uri: &Uri) -> Vec<Selector> {
    let url = PurgeUrl {
        scheme: uri.scheme_str().unwrap_or("http").to_owned(),
        authority: authority_of(uri),
        path: uri.path().to_owned(),
        query: uri.query().map(str::to_owned),
    };
    let rewritten = key::rewritten_urls(cache, &url);
    std::iter::once(as_given(url)).chain(rewritten).collect()
}

fn authority_of(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    brim_semantics::normal_authority(uri.scheme_str().unwrap_or("http"), authority).into_owned()
}

fn as_given(url: PurgeUrl) -> Selector {
    Selector::Url { authority: url.authority.into(), path: url.path.into(), query: url.query.map(Into::into) }
}

/// One position for all of them. What is too much for one purge becomes one of the site: too much, never too little.
async fn invalidate(
    cache: &Cache,
    route: &Route,
    mut selectors: Vec<Selector>,
    by: &'static str,
) -> Result<Position, PurgeError> {
    let mut tries_left = TRIES_MAX;
    loop {
        match cache.store.invalidate_all(selectors.clone(), cache.clock.now(), by).await {
            Err(PurgeError::TooLong(bytes)) if selectors.len() > 1 => {
                tracing::warn!(site = %route.site, bytes, "a write names more than one purge can: the whole site is purged");
                selectors = vec![Selector::Site(route.site.as_ref().into())];
            }
            Err(PurgeError::Busy(_)) if tries_left > 0 => {
                tries_left -= 1;
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}
