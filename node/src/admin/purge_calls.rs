//! Calls about purges.
//!
//! Always true:
//! - A purge that began is finished, and has its line in the audit log, also when its client goes away.
//! - A purge above the blast radius is made only for a caller that shows the confirmation of its dry run.
//!
//! Not here: what a request names (`selectors`), what its token may name (`rights`), what a purge does (`brim_store`).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use brim_store::{COUNT_WAIT, Matching, Position, Purge, PurgeError, PurgeMode, Receipt, Selector};
use http::{HeaderMap, StatusCode};

use super::audit::Note;
use super::body;
use super::model::{
    DryRun, PurgeList, PurgeListQuery, PurgeModeWord, PurgeNode, PurgeReceipt, PurgeRequest, ReceiptQuery,
};
use super::problem::Problem;
use super::rights;
use super::selectors::{self, shown, time};
use super::state::AdminState;
use super::tokens::{Caller, Scope};
use crate::telemetry::Family;

/// How long an answer waits for the count that it was asked to wait for; less than a call may take.
const WAIT_MAX: Duration = Duration::from_secs(25);
/// No other answer waits for the count where so many responses are stored that counting takes longer than purging.
const COUNTED_AT_ONCE_MAX: u64 = 10_000;
/// Bytes of an idempotency key.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
/// Receipts in one answer.
const RECEIPTS: u32 = 50;
const RECEIPTS_MAX: u32 = 500;

/// Purges. Durable when it is answered, and seen by every request after that.
#[utoipa::path(post, path = "/v1/purges", tag = "purges", security(("token" = [])), request_body = PurgeRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "With the same one a purge is made once; at most 128 bytes, one for each purge of a token")),
    responses(
        (status = 200, description = "Dry run: what it would hit", body = DryRun),
        (status = 201, description = "Purged", body = PurgeReceipt),
        (status = 400, description = "Not JSON, an unknown field, or not exactly one target", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The token may not purge this", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It hits more than may be hit unconfirmed; `dry_run` has the figures and the confirmation", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value is not right, or the idempotency key was used for another purge", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "The token has no purge left in this minute", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn purge(
    State(state): State<AdminState>,
    Extension(caller): Extension<Arc<Caller>>,
    Extension(note): Extension<Note>,
    headers: HeaderMap,
    content: Body,
) -> Result<Response, Problem> {
    let mut request: PurgeRequest = body::json(content).await?;
    // As it was asked for: a refusal is to say of what.
    note.what(selectors::asked(&request));
    rights::permit(&state, &caller, &mut request)?;
    take_rate(&state, &caller)?;
    let idempotency_key = idempotency_key(&headers)?;
    let now = whole_ms(state.clock.now());
    // The purge of before, where what is asked for depends on the time, or may be refused by now.
    let has_bounds = state.purge_bounds.blast_radius_max.is_some() || state.purge_bounds.blast_radius_share.is_some();
    let first = match &idempotency_key {
        Some(key) if request.predicate.is_some() || has_bounds || request.confirm.is_some() => {
            made(&state, &caller, key)
        }
        _ => None,
    };
    let at = first.as_ref().map_or(now, |first| first.applied_at);
    let selectors = selectors::read(&state, &request, at).await?;
    let mode = if request.soft { PurgeMode::Soft } else { PurgeMode::Hard };
    note.what(format!("{}{}", if request.soft { "soft " } else { "" }, selectors::summary(&selectors)));
    if request.dry_run {
        note.keep(false);
        let matching = counted(&state, &selectors).await?;
        return Ok(Json(dry_run(&state, &caller, &request, matching, &selectors, now)).into_response());
    }
    if first.is_none() {
        confirm(&state, &caller, &request, &selectors, now).await?;
    }
    let is_large = state.store.stored_count() > COUNTED_AT_ONCE_MAX;
    let wait = match (request.wait, is_large) {
        (true, _) => WAIT_MAX,
        (false, true) => Duration::ZERO,
        (false, false) => COUNT_WAIT,
    };
    let fingerprint = Some(selectors::fingerprint(&request));
    let purge = Purge { selectors, mode, at, by: caller.id.clone(), idempotency_key, fingerprint };
    let receipt = run(&state, purge, wait, request.on_demand, note).await?;
    let receipt = receipt_of(&state, receipt);
    tracing::info!(
        id = receipt.id, position = receipt.position, matched = receipt.matched, mode = ?mode, by = receipt.by,
        repeated = receipt.repeated, "purged"
    );
    Ok((StatusCode::CREATED, Json(receipt)).into_response())
}

/// What a purge would hit.
async fn counted(state: &AdminState, selectors: &[Selector]) -> Result<Matching, Problem> {
    state.store.count_matching(selectors).await.ok_or_else(|| {
        let detail = "too many calls count what is stored at this moment; try again";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
    })
}

/// Makes a purge in a task of its own: one that began is finished also when the client goes away.
async fn run(
    state: &AdminState,
    purge: Purge,
    wait: Duration,
    on_demand: bool,
    note: Note,
) -> Result<Receipt, Problem> {
    let (answer, purged) = tokio::sync::oneshot::channel();
    let (store, refresh) = (state.store.clone(), state.refresh.clone());
    state.tasks.spawn("purge", async move {
        let outcome = store.purge(purge, wait).await;
        if let Ok(receipt) = &outcome {
            note.receipt(&receipt.id);
            if receipt.mode == PurgeMode::Soft && !receipt.is_repeated && !on_demand {
                refresh(receipt.selectors.clone());
            }
        }
        drop(note);
        let _ = answer.send(outcome);
    });
    let receipt: Result<Receipt, PurgeError> = purged.await.map_err(|gone| Problem::internal("purging", &gone))?;
    let mut receipt = receipt?;
    if receipt.is_repeated && wait > COUNT_WAIT && receipt.reclaimed_at.is_none() {
        let counted = state.store.receipt_reclaimed(&receipt.id, wait).await;
        receipt = counted.map_or(receipt, |counted| Receipt { is_repeated: true, ..counted });
    }
    Ok(receipt)
}

fn take_rate(state: &AdminState, caller: &Caller) -> Result<(), Problem> {
    let per_minute = caller.purges_per_minute.unwrap_or(state.purge_bounds.per_minute);
    let Err(wait) = state.rates.take(&caller.id, per_minute, Instant::now()) else { return Ok(()) };
    (state.count)(Family::AdminRefusals, &["rate_limited"]);
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let detail = format!(
        "the token may purge {per_minute} times a minute; try again in {seconds} s, or purge many surrogate keys in one call"
    );
    let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail);
    problem.more.retry_after_s = Some(seconds);
    Err(problem)
}

/// The value of `Idempotency-Key`: a structured string, as its draft wants it, or a bare one.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<Box<str>>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let invalid = || {
        let detail = format!(
            "`Idempotency-Key` is one text of 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters, in quotes or without"
        );
        Problem::invalid("idempotency_key", detail)
    };
    let text = value.to_str().map_err(|_| invalid())?.trim();
    let text = match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').ok_or_else(invalid)?,
        None => text,
    };
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    if values.next().is_some() || text.is_empty() || text.len() > IDEMPOTENCY_KEY_BYTES_MAX || !is_plain {
        return Err(invalid());
    }
    Ok(Some(text.into()))
}

/// The purge that the caller made under this idempotency key, if it is remembered.
fn made(state: &AdminState, caller: &Caller, key: &str) -> Option<Receipt> {
    let is_it = |receipt: &Receipt| receipt.by == caller.id && receipt.idempotency_key.as_deref() == Some(key);
    state.store.receipts_that(None, 1, is_it).pop()
}

/// Refuses a purge above the blast radius that is not confirmed, and a confirmation that is none.
async fn confirm(
    state: &AdminState,
    caller: &Caller,
    request: &PurgeRequest,
    selectors: &[Selector],
    now: SystemTime,
) -> Result<(), Problem> {
    let is_good = |shown: &String| state.confirmations.is_good(shown, &caller.id, request, now);
    if request.confirm.as_ref().is_some_and(is_good) {
        return Ok(());
    }
    let bounds = state.purge_bounds;
    if bounds.blast_radius_max.is_some() || bounds.blast_radius_share.is_some() {
        let matching = counted(state, selectors).await?;
        let stored = state.store.stats().stored_count.max(matching.count);
        let share = bounds
            .blast_radius_share
            .filter(|percent| u128::from(matching.count) * 100 > u128::from(*percent) * u128::from(stored));
        let most = bounds.blast_radius_max.filter(|most| matching.count > *most);
        if share.is_some() || most.is_some() {
            (state.count)(Family::AdminRefusals, &["blast_radius"]);
            let most = most.map(|most| format!("admin.blast_radius_max is {most}"));
            let share = share.map(|percent| format!("admin.blast_radius_share is {percent} % of {stored}"));
            let bound = most.into_iter().chain(share).collect::<Vec<_>>().join(", ");
            let detail = format!(
                "the purge would hit {} stored responses and {bound}: nothing was purged; to purge all the same, repeat it with \
                 the `confirm` of `dry_run` within 5 minutes",
                matching.count
            );
            let mut problem = Problem::new(StatusCode::CONFLICT, "blast_radius", detail);
            problem.more.dry_run = Some(dry_run(state, caller, request, matching, selectors, now));
            return Err(problem);
        }
    }
    if request.confirm.is_some() {
        let detail =
            "`confirm` is over (5 minutes), or of another purge, token or run of the node: make the dry run again";
        return Err(Problem::invalid("confirm", detail));
    }
    Ok(())
}

fn dry_run(
    state: &AdminState,
    caller: &Caller,
    request: &PurgeRequest,
    matching: Matching,
    selectors: &[Selector],
    now: SystemTime,
) -> DryRun {
    DryRun {
        dry_run: true,
        matched: matching.count,
        bytes: matching.bytes,
        examples: matching.examples,
        recent_hits: matching.recent_hits,
        recent_share: matching.recent_share,
        confirm: state.confirmations.give(&caller.id, request, now),
        purged: selectors.iter().map(shown).collect(),
    }
}

/// The receipts that are remembered, the newest first. Who may not read sees those of its own purges.
#[utoipa::path(get, path = "/v1/purges", tag = "purges", security(("token" = [])),
    params(
        ("before" = Option<u64>, Query, description = "Only positions below this one: the `next` of the page before"),
        ("limit" = Option<u32>, Query, description = "1 to 500; 50 if absent"),
    ),
    responses(
        (status = 200, description = "The receipts", body = PurgeList),
        (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn list(
    State(state): State<AdminState>,
    Extension(caller): Extension<Arc<Caller>>,
    query: Result<Query<PurgeListQuery>, QueryRejection>,
) -> Result<Json<PurgeList>, Problem> {
    let Query(query) = query.map_err(|error| Problem::malformed(error.body_text()))?;
    let limit = query.limit.unwrap_or(RECEIPTS);
    if !(1..=RECEIPTS_MAX).contains(&limit) {
        return Err(Problem::invalid("limit", format!("`limit` is from 1 to {RECEIPTS_MAX}")));
    }
    let limit = limit as usize;
    // One more than is shown says whether there is a next page.
    let mut found =
        state.store.receipts_that(query.before.map(Position), limit + 1, |receipt| may_see(&caller, receipt));
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| has_more).map(|receipt| receipt.position.0);
    Ok(Json(PurgeList { purges: found.into_iter().map(|receipt| receipt_of(&state, receipt)).collect(), next }))
}

/// The receipt of a purge.
#[utoipa::path(get, path = "/v1/purges/{id}", tag = "purges", security(("token" = [])),
    params(
        ("id" = String, Path, description = "The id of a receipt"),
        ("wait" = Option<bool>, Query, description = "true: answer when what it hit is counted; after 25 s in any case"),
    ),
    responses(
        (status = 200, description = "The receipt", body = PurgeReceipt),
        (status = 404, description = "No such purge is remembered", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn receipt(
    State(state): State<AdminState>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
    query: Result<Query<ReceiptQuery>, QueryRejection>,
) -> Result<Json<PurgeReceipt>, Problem> {
    let Query(query) = query.map_err(|error| Problem::malformed(error.body_text()))?;
    let unknown = || {
        let detail = format!("no purge {id:?} is remembered; very old receipts are forgotten");
        Problem::not_found("unknown_purge", detail)
    };
    let visible = |receipt: Option<Receipt>| receipt.filter(|receipt| may_see(&caller, receipt)).ok_or_else(unknown);
    let mut receipt = visible(state.store.receipt(&id))?;
    if query.wait && receipt.reclaimed_at.is_none() {
        receipt = visible(state.store.receipt_reclaimed(&id, WAIT_MAX).await)?;
    }
    Ok(Json(receipt_of(&state, receipt)))
}

fn may_see(caller: &Caller, receipt: &Receipt) -> bool {
    caller.has(Scope::Read) || receipt.by == caller.id
}

fn receipt_of(state: &AdminState, receipt: Receipt) -> PurgeReceipt {
    let (durable_at, reclaimed_at) = (time(receipt.durable_at), receipt.reclaimed_at.map(time));
    PurgeReceipt {
        purged: receipt.selectors.iter().map(shown).collect(),
        id: receipt.id,
        position: receipt.position.0,
        matched: receipt.matched,
        applied_at: time(receipt.applied_at),
        durable_at: durable_at.clone(),
        reclaimed_at: reclaimed_at.clone(),
        reclaimed_bytes: receipt.matched_bytes,
        mode: match receipt.mode {
            PurgeMode::Hard => PurgeModeWord::Hard,
            PurgeMode::Soft => PurgeModeWord::Soft,
        },
        by: receipt.by.into(),
        repeated: receipt.is_repeated,
        nodes: vec![PurgeNode {
            node: state.node_name.to_string(),
            position: receipt.position.0,
            durable_at,
            matched: receipt.matched,
            reclaimed_at,
        }],
    }
}

/// The time as receipts and logs have it: what is reckoned from it can be reckoned again.
fn whole_ms(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::new(since.as_secs(), since.subsec_millis() * 1_000_000)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn an_idempotency_key_is_a_text_with_or_without_quotes() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("idempotency-key", HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
            }
            idempotency_key(&headers).map(|key| key.map(String::from)).map_err(|problem| problem.code)
        };
        assert_eq!(read(&[]), Ok(None));
        for text in ["\"8e03978e-40d5\"", "8e03978e-40d5", " 8e03978e-40d5 "] {
            assert_eq!(read(&[text]), Ok(Some("8e03978e-40d5".to_owned())), "{text}");
        }
        let longest = "x".repeat(IDEMPOTENCY_KEY_BYTES_MAX);
        assert_eq!(read(&[&longest]), Ok(Some(longest.clone())));
        let longer = format!("{longest}x");
        for wrong in [
            ["", ""].as_slice(),
            &[""],
            &["\"\""],
            &["\""],
            &["\"a"],
            &["a b"],
            &["a\"b"],
            &["é"],
            &[&longer],
            &["a", "a"],
        ] {
            assert_eq!(read(wrong), Err("idempotency_key".to_owned()), "{wrong:?}");
        }
    }
}
