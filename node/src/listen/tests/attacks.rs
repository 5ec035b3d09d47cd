//! HTTP/2 floods, as bytes (features of the attacks: CVE-2023-44487, CVE-2025-8671, CVE-2024-27316).

use std::sync::atomic::Ordering::Relaxed;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::*;
use crate::listen::frame_budget::PREFACE;

const GOAWAY: u8 = 0x7;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A frame (RFC 9113 §4.1).
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The preface and empty settings.
pub(super) fn preface() -> Vec<u8> {
    [PREFACE.to_vec(), frame(0x4, 0, 0, &[])].concat()
}

/// Kinds and payloads of the whole frames in `bytes`.
pub(super) fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [high, middle, low, kind, _, _, _, _, _, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        let Some(payload) = rest.get(..length) else { break };
        frames.push((*kind, payload.to_vec()));
        bytes = &rest[length..];
    }
    frames
}

/// GET / with `:authority: a`, in fields of the static table.
pub(super) fn request(stream: u32) -> Vec<u8> {
    frame(0x1, 0x5, stream, &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'])
}

/// Sends `attack` until the server ends the connection. Gives the frames that came back.
async fn attack(server: &TestServer, mut attack: impl FnMut(u32) -> Vec<u8> + Send + 'static) -> Vec<(u8, Vec<u8>)> {
    let (mut reader, mut writer) = TcpStream::into_split(server.connect().await);
    writer.write_all(&preface()).await.expect("sent");
    let attacking = tokio::spawn(async move {
        for round in 0..100_000 {
            if writer.write_all(&attack(round)).await.is_err() {
                return true;
            }
        }
        false
    });
    let mut read = Vec::new();
    let _ = tokio::time::timeout(HANG, reader.read_to_end(&mut read)).await.expect("the server ends it");
    assert!(
        tokio::time::timeout(HANG, attacking).await.expect("in time").expect("no panic"),
        "cut long before the end"
    );
    server.until(|counters| &counters.open, 0).await;
    frames(&read)
}

#[tokio::test]
async fn rapid_reset_is_cut() {
    let server = TestServer::start(config());
    attack(&server, |round| {
        let stream = round * 2 + 1;
        [request(stream), frame(0x3, 0, stream, &8_u32.to_be_bytes())].concat()
    })
    .await;
    let calls = server.handler.calls.load(Relaxed);
    assert!(calls < 10_000, "{calls} requests were handled");
}

#[tokio::test]
async fn a_ping_flood_is_cut() {
    let server = TestServer::start(config());
    let answer = attack(&server, |_| frame(0x6, 0, 0, &[0; 8])).await;
    assert_eq!(server.counted(|counters| &counters.floods), 1);
    // The reset that follows may overtake the last frame; if GOAWAY came, it says why.
    for (kind, payload) in answer {
        if kind == GOAWAY {
            assert_eq!(payload[4..8], ENHANCE_YOUR_CALM.to_be_bytes());
        }
    }
}

#[tokio::test]
async fn a_settings_flood_is_cut() {
    let server = TestServer::start(config());
    attack(&server, |_| frame(0x4, 0, 0, &[])).await;
    assert_eq!(server.counted(|counters| &counters.floods), 1);
}

#[tokio::test]
async fn a_flood_of_empty_data_is_cut() {
    let server = TestServer::start(config());
    attack(&server, |round| match round {
        0 => frame(0x1, 0x4, 1, &[0x83, 0x86, 0x44, 0x05, b'/', b'w', b'a', b'i', b't', 0x41, 0x01, b'a']),
        _ => frame(0x0, 0, 1, &[]),
    })
    .await;
}

#[tokio::test]
async fn a_continuation_flood_is_cut() {
    let server = TestServer::start(config());
    attack(&server, |round| match round {
        0 => frame(0x1, 0x1, 1, &[0x82, 0x86, 0x84]),
        _ => frame(0x9, 0, 1, &[0x00, 0x01, b'x', 0x01, b'y']),
    })
    .await;
    assert_eq!(server.handler.calls.load(Relaxed), 0);
}

/// MadeYouReset: a window update of zero makes the server reset its own stream.
#[tokio::test]
async fn provoked_resets_are_cut() {
    let server = TestServer::start(config());
    attack(&server, |round| {
        let stream = round * 2 + 1;
        [frame(0x1, 0x4, stream, &[0x83, 0x86, 0x84, 0x41, 0x01, b'a']), frame(0x8, 0, stream, &[0; 4])].concat()
    })
    .await;
    let calls = server.handler.calls.load(Relaxed);
    assert!(calls < 10_000, "{calls} requests were handled");
}

/// The same number of pings and resets as a busy client sends does no harm.
#[tokio::test]
async fn a_busy_client_stays() {
    let server = TestServer::start(config());
    let mut sender = server.http2().await;
    for round in 0..3000 {
        let response = sender.send_request(get("/bytes/10")).await.expect("still served");
        if round % 3 == 0 {
            drop(response); // a reset, or a response that was read by then
        } else {
            content(response).await;
        }
    }
    assert_eq!(server.counted(|counters| &counters.floods), 0);
}
