//! Reading a request's content, within a bound.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// Size of the JSON of one call. The longest is a purge of many surrogate keys.
pub(super) const JSON_BYTES_MAX: u64 = 512 << 10;
/// What is read and thrown away of a content that is too large, so that its sender gets to read the refusal.
const SURPLUS_BYTES_MAX: u64 = 64 << 20;

/// The content as JSON, whatever its `Content-Type` says; none at all counts as `{}`.
pub(super) async fn json<T: DeserializeOwned>(body: Body) -> Result<T, Problem> {
    let bytes = bytes(body, JSON_BYTES_MAX).await?;
    let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(text)
        .map_err(|error| Problem::malformed(format!("the content is not what this call takes: {error}")))
}

/// The content, at most `bytes_max` of it.
pub(super) async fn bytes(mut body: Body, bytes_max: u64) -> Result<Bytes, Problem> {
    let mut content = BytesMut::new();
    let mut read: u64 = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::malformed("the content was cut off"))?;
        let Ok(data) = frame.into_data() else { continue };
        read += data.len() as u64;
        if read <= bytes_max {
            content.extend_from_slice(&data);
        } else if read > bytes_max + SURPLUS_BYTES_MAX {
            break;
        }
    }
    if read > bytes_max {
        let detail = format!("the content has more than the {bytes_max} bytes that this call takes");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail));
    }
    Ok(content.freeze())
}
