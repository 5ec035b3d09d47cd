//! Calls of the admin API.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use serde_json::Value;
use tokio::time::timeout;

use crate::connection::Connection;
use crate::door::Door;

/// Longer than the node's own deadline of a call.
const CALL_MAX: Duration = Duration::from_secs(35);
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The text of `/metrics`.
pub(crate) async fn metrics(door: &Door) -> anyhow::Result<String> {
    let answer = call(door, Request::get("/metrics"), Bytes::new(), StatusCode::OK).await.context("GET /metrics")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Purges; returns once it is acknowledged.
pub(crate) async fn purge(door: &Door, content: &Value) -> anyhow::Result<()> {
    let asked = call(door, Request::post("/v1/purges"), content.to_string().into(), StatusCode::CREATED).await;
    asked.with_context(|| format!("purge {content}")).map(drop)
}

async fn call(
    door: &Door,
    request: http::request::Builder,
    content: Bytes,
    expected: StatusCode,
) -> anyhow::Result<Bytes> {
    let addresses = door.addresses();
    let request = request
        .header(header::HOST, addresses.admin.to_string())
        .header(header::AUTHORIZATION, format!("Bearer {}", addresses.token))
        .body(Full::new(content))?;
    let answer = timeout(CALL_MAX, async {
        let response = Connection::open(addresses.admin).await?.send(request).await?;
        let status = response.status();
        let content = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let content = content.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        ensure!(status == expected, "{status}: {}", String::from_utf8_lossy(&content));
        Ok(content)
    });
    answer.await.with_context(|| format!("no answer within {CALL_MAX:?}"))?
}
