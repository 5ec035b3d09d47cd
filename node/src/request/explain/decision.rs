//! What comes of a request that was followed through the stages, in figures and in words.

use brim_semantics::Why;
use brim_store::StoredResponse;
use http::header::{AUTHORIZATION, CONTENT_RANGE, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};

use super::model::{Action, ConditionFact, Decision, OriginRequest};
use super::steps::Steps;
use super::text::{span, value};
use super::{Ending, Told};
use crate::origin::ForwardBody;
use crate::request::accept::Inbound;
use crate::request::exchange::Exchange;
use crate::request::forward::{self, Purpose};
use crate::request::key::Bypass;
use crate::request::lookup::Absent;
use crate::request::need::{Errand, Held, Need};
use crate::request::respond;
use crate::telemetry::Outcome;

/// What comes of it. What cannot be written as a forward request is refused, as it would be.
pub(super) fn decide(ending: Ending, inbound: &Inbound, exchange: &mut Exchange, told: &mut Told) -> Decision {
    let asked = purpose(&ending)
        .map(|purpose| forward::request(inbound, purpose, exchange.keyed_fields(), ForwardBody::empty()));
    let (origin_request, unsendable) = match asked.transpose() {
        Ok(request) => (request.as_ref().map(origin_request), None),
        Err(error) => (None, Some(error)),
    };
    let mut decision = Decision {
        action: Action::Refused,
        cache_status: String::new(),
        fwd: None,
        detail: None,
        status: None,
        content_range: None,
        origin_request,
        steps: Vec::new(),
    };
    let mut text = match ending {
        Ending::Hit(held) => {
            decision.action = Action::Hit;
            let text = hit_text(exchange, told);
            answer_from(&mut decision, inbound, held, exchange);
            text
        }
        Ending::StaleWhileValidating(held, _) => {
            decision.action = Action::StaleWhileRevalidate;
            let text = behind_text(held.newest(), exchange, told);
            answer_from(&mut decision, inbound, held, exchange);
            text
        }
        Ending::Fetch(errand, as_asked) => {
            decision.action = match errand.need {
                Need::Fetch(_) | Need::Select(..) | Need::Complete(_) => Action::Forward,
                Need::Validate(..) => Action::Validate,
            };
            if let Some(reason) = as_asked {
                exchange.explain(reason);
            }
            fetch_text(&errand, as_asked, inbound, told)
        }
        Ending::Bypass(why) => {
            decision.action = Action::Bypass;
            let reason = if why == Bypass::Method {
                brim_semantics::ForwardReason::Method
            } else {
                exchange.explain(why.as_detail());
                brim_semantics::ForwardReason::Bypass
            };
            exchange.forwarded(reason);
            bypass_text(&why, inbound)
        }
        Ending::Refused(error) => {
            decision.status = Some(error.status().as_u16());
            exchange.explain(error.as_detail());
            format!("refused with {}: {error}", error.status())
        }
        Ending::AnsweredHere(response) => {
            decision.action = Action::AnsweredHere;
            decision.status = Some(response.status().as_u16());
            format!("answered by the node with {} (RFC 9110 §7.6.2, §9.3.7)", response.status())
        }
    };
    if let Some(error) = unsendable.filter(|_| exchange.outcome != Outcome::Hit) {
        decision.action = Action::Refused;
        decision.status = Some(error.status().as_u16());
        exchange.explain(error.as_detail());
        text = format!("refused with {}: {error}", error.status());
    }
    told.steps.say("decision", text);
    conclude(&mut decision, exchange, &mut told.steps);
    decision.steps = std::mem::take(&mut told.steps).into_lines();
    decision
}

/// What the client gets, what the origin is asked, and the words of Cache-Status.
fn conclude(decision: &mut Decision, exchange: &Exchange, steps: &mut Steps) {
    if let Some(status) = decision.status.filter(|_| exchange.outcome == Outcome::Hit) {
        steps.say("decision", format!("the client gets {status}{}", conditions_text(status)));
    }
    if let Some(request) = &decision.origin_request {
        steps.say("decision", format!("the origin is asked {} {}", request.method, request.url));
        for field in &request.conditions {
            steps.say("decision", format!("with {}: {}", field.name, field.value));
        }
    }
    if let Outcome::Forward(reason) = exchange.outcome {
        decision.fwd = Some(reason.as_str().to_owned());
    }
    decision.detail = exchange.detail.as_deref().map(str::to_owned);
    decision.cache_status = value(respond::cache_status(exchange).value().as_bytes());
    steps.say("decision", format!("Cache-Status: {}", decision.cache_status));
}

/// What would be sent to the origin for it.
fn purpose(ending: &Ending) -> Option<Purpose<'_>> {
    match ending {
        Ending::Fetch(_, Some(_)) => Some(Purpose::Pass),
        Ending::Fetch(errand, None) => Some(errand.purpose()),
        Ending::StaleWhileValidating(held, ask) => Some(Purpose::Validate(held.newest(), ask)),
        Ending::Bypass(Bypass::Upgrade) => Some(Purpose::Upgrade),
        Ending::Bypass(_) => Some(Purpose::Pass),
        Ending::Hit(_) | Ending::Refused(_) | Ending::AnsweredHere(_) => None,
    }
}

/// Status and range of the answer that a stored response gives: conditions and ranges of the client are answered from it.
fn answer_from(decision: &mut Decision, inbound: &Inbound, held: Held, exchange: &Exchange) {
    let response = respond::answered(inbound, held.into_answer(), exchange.time);
    decision.status = Some(response.status().as_u16());
    decision.content_range = response.headers().get(CONTENT_RANGE).map(|range| value(range.as_bytes()));
}

fn conditions_text(status: u16) -> &'static str {
    match status {
        304 => ": its own condition says that it has the content (RFC 9110 §13.1)",
        206 => ": the range it asks for (RFC 9110 §14)",
        412 => ": its precondition does not hold (RFC 9110 §13.1)",
        416 => ": its range lies beyond the content (RFC 9110 §15.5.17)",
        _ => "",
    }
}

fn origin_request(request: &http::Request<ForwardBody>) -> OriginRequest {
    let conditions = [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE, RANGE].into_iter().flat_map(|name| {
        let lines = request.headers().get_all(&name).iter();
        lines.map(|line| ConditionFact { name: name.to_string(), value: value(line.as_bytes()) }).collect::<Vec<_>>()
    });
    OriginRequest {
        method: request.method().to_string(),
        url: request.uri().to_string(),
        conditions: conditions.collect(),
    }
}

fn hit_text(exchange: &Exchange, told: &Told) -> String {
    match exchange.detail.as_deref() {
        None => "hit: fresh, answered without the origin (RFC 9111 §4.2)".to_owned(),
        Some(_) => {
            format!("hit: stale for {}, which the request's max-stale takes (RFC 9111 §5.2.1.2)", stale_for(told))
        }
    }
}

fn behind_text(stored: &StoredResponse, exchange: &Exchange, told: &Told) -> String {
    let under_way = told.collapse.as_ref().is_some_and(|collapse| collapse.fetch_under_way);
    let validation = if under_way { "a validation is under way already" } else { "validated behind the response" };
    if exchange.detail.as_deref() == Some(Why::SoftPurged.as_detail()) {
        let position = stored.head.fetched_at;
        return format!("hit: a soft purge after position {position} made it stale; served, {validation}");
    }
    format!("hit: stale for {}, within its stale-while-revalidate; {validation} (RFC 5861 §3)", stale_for(told))
}

fn stale_for(told: &Told) -> String {
    let remaining = told.candidates.iter().find(|one| one.selected).map_or(0.0, |one| one.freshness.remaining_s);
    span(std::time::Duration::from_secs_f64(remaining.min(0.0).abs()))
}

fn fetch_text(errand: &Errand, as_asked: Option<&str>, inbound: &Inbound, told: &Told) -> String {
    let need = &errand.need;
    let mut text = match need {
        Need::Fetch(Absent::Uri) => "forward: nothing usable is stored under the key".to_owned(),
        Need::Fetch(Absent::Purged) => "forward: what was stored has been purged".to_owned(),
        Need::Fetch(Absent::Other) => "forward: what is stored are parts, and a HEAD asks about the whole".to_owned(),
        Need::Select(others, _) if others.is_empty() => {
            "forward: what is stored is for other values of its nominated fields".to_owned()
        }
        Need::Select(..) => {
            "forward: what is stored is for other values of its nominated fields; the origin may name one of \
                             them (RFC 9111 §4.1)"
                .to_owned()
        }
        Need::Complete(_) => complete_text(errand),
        Need::Validate(held, why) => validate_text(held.newest(), *why, inbound, told),
    };
    let heeds_client = !told.route.as_ref().is_some_and(|route| route.config.policy.ignore_request_directives);
    if let Need::Validate(..) = need
        && told.candidates.iter().any(|one| one.selected && one.usable_on_error)
    {
        text.push_str("; if the origin fails, the stored response stands in (RFC 9111 §4.2.4)");
    }
    match as_asked {
        Some("head") => text.push_str("; a HEAD goes as it is and stores nothing"),
        Some(reason) => {
            text.push_str(&format!("; as asked, with its own conditions, because the last one was {reason}"))
        }
        None if inbound.directives.no_store && heeds_client => {
            text.push_str("; alone, and nothing is stored: the request says no-store (RFC 9111 §5.2.1.5)");
        }
        // What keeps most responses to known users out of the store.
        None if inbound.headers.contains_key(AUTHORIZATION) => text.push_str(
            "; the request has Authorization: stored only if the response says public, must-revalidate or s-maxage \
             (RFC 9111 §3.5)",
        ),
        None => {}
    }
    text
}

fn complete_text(errand: &Errand) -> String {
    let why = "forward: the stored parts lack some of what is asked for";
    match errand.completes() {
        Some((_, gap)) => {
            let (first, last) = (gap.range.start, gap.range.end.saturating_sub(1));
            format!("{why}: bytes {first} to {last}, if they are still of the same representation (RFC 9111 §3.4)")
        }
        None => format!("{why}, and cannot be put together with the rest (RFC 9111 §3.4)"),
    }
}

fn validate_text(stored: &StoredResponse, why: Why, inbound: &Inbound, told: &Told) -> String {
    let asked = |limit: Option<std::time::Duration>| limit.map_or_else(String::new, span);
    let reason = match why {
        Why::Stale => format!("stale for {}, and nothing permits to use it so (RFC 9111 §4.2.4)", stale_for(told)),
        Why::NoCache => "the stored response says no-cache (RFC 9111 §5.2.2.4)".to_owned(),
        Why::RequestNoCache => "the request says no-cache (RFC 9111 §5.2.1.4, §5.4)".to_owned(),
        Why::RequestMaxAge => {
            format!("older than the request's max-age of {} (RFC 9111 §5.2.1.1)", asked(inbound.directives.max_age))
        }
        Why::RequestMinFresh => {
            format!(
                "not fresh for the request's min-fresh of {} (RFC 9111 §5.2.1.3)",
                asked(inbound.directives.min_fresh)
            )
        }
        Why::SoftPurged => {
            format!("a soft purge after position {} made it stale, and it forbids stale use", stored.head.fetched_at)
        }
    };
    format!("validate: {reason}")
}

fn bypass_text(why: &Bypass, inbound: &Inbound) -> String {
    let reason = match why {
        Bypass::Method => format!("{} is always forwarded (RFC 9111 §4)", inbound.method),
        Bypass::RouteOff => "cache = \"off\" for the route".to_owned(),
        Bypass::Content if inbound.is_query() => {
            "its content is longer than listen.query_content_max, and was not read for a key".to_owned()
        }
        Bypass::Content => "the request has content, which the key would not hold".to_owned(),
        Bypass::Precondition => {
            "only the origin can judge If-Match and If-Unmodified-Since (RFC 9111 §4.3.2)".to_owned()
        }
        Bypass::Upgrade => "the request changes protocol (RFC 9110 §7.8)".to_owned(),
        Bypass::PluginMissing => "the route's key rule is not there, and without it there is no safe key".to_owned(),
        Bypass::PluginFault(fault) => format!("the key rule failed ({fault}), and without it there is no safe key"),
        Bypass::PluginBypass(reason) => format!("the key rule asks for it: {reason}"),
        Bypass::KeyTooLong => {
            format!("the key would be longer than {} bytes", brim_semantics::CACHE_KEY_BYTES_MAX)
        }
    };
    format!("bypass: {reason}")
}
