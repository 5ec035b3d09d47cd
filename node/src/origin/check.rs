//! Active checks: a request of the node's own, on a connection of its own, finds out whether an endpoint is in order.
//!
//! Always true:
//! - Checks take nothing from the pool, and the pool's limits do not hold them up.
//! - An endpoint has one check under way at most.
//!
//! Not here: what follows from it (`health`).

use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderValue, Request};
use tokio::time::{Instant, timeout_at};

use super::body::ForwardBody;
use super::connect;
use super::endpoint::Endpoint;
use crate::config::CheckConfig;

/// Checks of many endpoints, and of many nodes, drift apart: an interval is so much longer or shorter.
const JITTER: f64 = 0.1;

/// The time until the next check.
pub(super) fn pause(config: &CheckConfig) -> Duration {
    config.interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64())
}

/// Makes one check. The error says what was wrong.
pub(super) async fn check(endpoint: &Endpoint, config: &CheckConfig) -> Result<(), String> {
    let deadline = Instant::now() + config.timeout;
    let request = Request::builder()
        .uri(config.path.as_str())
        .header(USER_AGENT, HeaderValue::from_static("brim-health"))
        .body(ForwardBody::empty())
        .map_err(|error| error.to_string())?;
    let answered = timeout_at(deadline, connect::ask(endpoint, request, deadline)).await;
    let status = match answered {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => return Err(described(&error)),
        Err(_) => return Err(format!("no answer within {:?}", config.timeout)),
    };
    if config.statuses.iter().any(|range| range.contains(&status.as_u16())) {
        Ok(())
    } else {
        Err(format!("answered {}", status.as_u16()))
    }
}

/// An error with its causes, in one line.
fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
