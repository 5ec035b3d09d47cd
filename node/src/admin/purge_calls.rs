//! Calls about purges.

use std::time::SystemTime;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use brim_semantics::SURROGATE_KEY_BYTES_MAX;
use brim_store::{PurgeError, PurgeMode, Receipt, Selector};
use http::{StatusCode, Uri};

use super::body;
use super::model::{DryRun, PurgeModeWord, PurgeReceipt, PurgeRequest, Purged};
use super::problem::Problem;
use super::state::{AdminState, PurgeUrl};

/// Surrogate keys in one purge. All together they are bounded by the store's `SELECTOR_BYTES_MAX`.
const SURROGATE_KEYS_MAX: usize = 256;
/// Length of a URL.
const URL_BYTES_MAX: usize = 8 * 1024;
/// Forms under which one URL may be stored, with the URL itself.
const URL_FORMS_MAX: usize = 8;
/// Examples in a dry run.
const EXAMPLES_MAX: usize = 20;
/// Stands between the ids of a purge that took more than one entry of the log.
const ID_SEPARATOR: char = '~';

/// Purges. Durable when it is answered, and seen by every request after that.
#[utoipa::path(post, path = "/v1/purges", tag = "purges", security(("token" = [])), request_body = PurgeRequest, responses(
    (status = 200, description = "Dry run: what it would hit", body = DryRun),
    (status = 201, description = "Purged", body = PurgeReceipt),
    (status = 400, description = "Not JSON, an unknown field, or not exactly one target", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "A value is not right", body = Problem, content_type = "application/problem+json"),
    (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn purge(State(state): State<AdminState>, content: Body) -> Result<Response, Problem> {
    let request: PurgeRequest = body::json(content).await?;
    let selectors = selectors(&state, &request)?;
    if request.dry_run {
        return Ok(Json(count(&state, &selectors).await).into_response());
    }
    let mode = if request.soft { PurgeMode::Soft } else { PurgeMode::Hard };
    let (answer, purged) = tokio::sync::oneshot::channel();
    let store = state.store.clone();
    // A task of its own: a purge that began is finished also when the client goes away.
    state.tasks.spawn("purge", async move {
        let mut receipts = Vec::with_capacity(selectors.len());
        let mut outcome = Ok(());
        for selector in selectors {
            match store.purge(selector, mode, SystemTime::now()).await {
                Ok(receipt) => receipts.push(receipt),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        let _ = answer.send(outcome.map(|()| receipts));
    });
    let receipts: Result<Vec<Receipt>, PurgeError> =
        purged.await.map_err(|gone| Problem::internal("purging", &gone))?;
    let receipts = receipts.map_err(Problem::from)?;
    let receipt = merge(receipts).ok_or_else(|| Problem::malformed("nothing to purge"))?;
    tracing::info!(id = receipt.id, position = receipt.position, matched = receipt.matched, mode = ?receipt.mode, "purged");
    Ok((StatusCode::CREATED, Json(receipt)).into_response())
}

/// The receipt of a purge.
#[utoipa::path(get, path = "/v1/purges/{id}", tag = "purges", security(("token" = [])),
    params(("id" = String, Path, description = "The id of a receipt")),
    responses(
        (status = 200, description = "The receipt", body = PurgeReceipt),
        (status = 404, description = "No such purge is remembered", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn receipt(
    State(state): State<AdminState>,
    Path(id): Path<String>,
) -> Result<Json<PurgeReceipt>, Problem> {
    let parts = id.split(ID_SEPARATOR).take(URL_FORMS_MAX + 1);
    let receipts: Option<Vec<Receipt>> = parts.map(|part| state.store.receipt(part)).collect();
    match receipts.and_then(merge) {
        Some(receipt) => Ok(Json(receipt)),
        None => Err(Problem::not_found(
            "unknown_purge",
            format!("no purge {id:?} is remembered; very old receipts are forgotten"),
        )),
    }
}

/// What the request names, checked. The first selector of a URL is the URL as given.
fn selectors(state: &AdminState, request: &PurgeRequest) -> Result<Vec<Selector>, Problem> {
    let PurgeRequest { url, prefix, surrogate_keys, site, everything, soft: _, dry_run: _ } = request;
    match (url, prefix, surrogate_keys, site, everything) {
        (Some(url), None, None, None, None) => {
            let url = parse_url("url", url)?;
            let mut selectors = vec![Selector::Url {
                authority: url.authority.as_str().into(),
                path: url.path.as_str().into(),
                query: url.query.as_deref().map(Into::into),
            }];
            for form in (state.resolve_url)(&url) {
                if !selectors.contains(&form) && selectors.len() < URL_FORMS_MAX {
                    selectors.push(form);
                }
            }
            Ok(selectors)
        }
        (None, Some(prefix), None, None, None) => {
            let url = parse_url("prefix", prefix)?;
            if url.query.is_some() {
                return Err(Problem::invalid(
                    "prefix",
                    "`prefix` ends before the query: leave `?` and what follows away",
                ));
            }
            Ok(vec![Selector::Prefix { authority: url.authority.into(), path_prefix: url.path.into() }])
        }
        (None, None, Some(keys), None, None) => surrogate(keys).map(|selector| vec![selector]),
        (None, None, None, Some(site), None) => {
            let sites = (state.sites)();
            if !sites.contains(site) {
                let detail = format!("no site is named {site:?}; there are: {}", sites.join(", "));
                return Err(Problem::invalid("unknown_site", detail));
            }
            Ok(vec![Selector::Site(site.as_str().into())])
        }
        (None, None, None, None, Some(true)) => Ok(vec![Selector::Everything]),
        (None, None, None, None, Some(false)) => Err(Problem::malformed("`everything` can only be true")),
        _ => Err(Problem::malformed(
            "give exactly one of `url`, `prefix`, `surrogate_keys`, `site`, `everything: true`; beside it `soft` and `dry_run`",
        )),
    }
}

fn surrogate(keys: &[String]) -> Result<Selector, Problem> {
    if keys.is_empty() || keys.len() > SURROGATE_KEYS_MAX {
        return Err(Problem::invalid(
            "surrogate_keys",
            format!("give 1 to {SURROGATE_KEYS_MAX} surrogate keys in one purge"),
        ));
    }
    for key in keys {
        if key.is_empty()
            || key.len() > SURROGATE_KEY_BYTES_MAX
            || key.chars().any(|c| c.is_whitespace() || c.is_control())
        {
            let detail =
                format!("surrogate key {key:?}: a key has 1 to {SURROGATE_KEY_BYTES_MAX} bytes and no white space");
            return Err(Problem::invalid("surrogate_keys", detail));
        }
    }
    Ok(Selector::SurrogateKeys { site: None, keys: keys.iter().map(|key| key.as_str().into()).collect() })
}

/// Takes a URL apart the way the server takes a request target apart, so that both name the same.
fn parse_url(field: &str, text: &str) -> Result<PurgeUrl, Problem> {
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

/// Counts what the selectors hit. A response that two of them name is counted twice.
async fn count(state: &AdminState, selectors: &[Selector]) -> DryRun {
    let mut sum = DryRun {
        dry_run: true,
        matched: 0,
        bytes: 0,
        examples: Vec::new(),
        purged: selectors.iter().map(purged).collect(),
    };
    for selector in selectors {
        let matching = state.store.count_matching(selector).await;
        sum.matched += matching.count;
        sum.bytes += matching.bytes;
        sum.examples.extend(matching.examples);
    }
    sum.examples.truncate(EXAMPLES_MAX);
    sum
}

/// One receipt for the entries that one purge took: the newest position, all ids.
fn merge(receipts: Vec<Receipt>) -> Option<PurgeReceipt> {
    let newest = receipts.iter().max_by_key(|receipt| receipt.position)?;
    Some(PurgeReceipt {
        id: receipts.iter().map(|receipt| receipt.id.as_str()).collect::<Vec<_>>().join(&ID_SEPARATOR.to_string()),
        position: newest.position.0,
        matched: receipts.iter().map(|receipt| receipt.matched).sum(),
        applied_at: humantime::format_rfc3339_millis(newest.applied_at).to_string(),
        mode: match newest.mode {
            PurgeMode::Hard => PurgeModeWord::Hard,
            PurgeMode::Soft => PurgeModeWord::Soft,
        },
        purged: receipts.iter().map(|receipt| purged(&receipt.selector)).collect(),
    })
}

fn purged(selector: &Selector) -> Purged {
    match selector {
        Selector::Everything => Purged::Everything(true),
        Selector::Site(site) => Purged::Site(site.to_string()),
        Selector::Prefix { authority, path_prefix } => Purged::Prefix(format!("//{authority}{path_prefix}")),
        Selector::Url { authority, path, query: None } => Purged::Url(format!("//{authority}{path}")),
        Selector::Url { authority, path, query: Some(query) } => Purged::Url(format!("//{authority}{path}?{query}")),
        Selector::SurrogateKeys { keys, .. } | Selector::Groups { groups: keys, .. } => {
            Purged::SurrogateKeys(keys.iter().map(ToString::to_string).collect())
        }
    }
}
