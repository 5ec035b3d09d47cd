//! Endpoints that fail, recover, flap, and are kept warm.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::config::{CheckConfig, EjectionConfig};
use crate::origin::{Affinity, EndpointState};

const BAD: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno";
const INTERNAL: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\noh";

/// Answers well or badly, as the test has it.
async fn switched(is_good: &Arc<AtomicBool>, bad: &'static str) -> RawOrigin {
    let is_good = Arc::clone(is_good);
    RawOrigin::start(move |mut connection, _| {
        let is_good = Arc::clone(&is_good);
        async move {
            while connection.request().await.is_some() {
                connection.write(if is_good.load(SeqCst) { OK } else { bad }).await;
            }
        }
    })
    .await
}

fn checked_every(interval: Duration) -> CheckConfig {
    CheckConfig {
        path: "/healthz".to_owned(),
        interval,
        timeout: Duration::from_millis(500),
        statuses: vec![200..=299],
        healthy_after: 1,
        unhealthy_after: 2,
    }
}

fn state(origin: &Origin, place: usize) -> EndpointState {
    origin.snapshot().endpoints[place].health.state
}

async fn statuses(origin: &Origin, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        let forwarded = origin.send(get("/")).await.expect("an answer");
        statuses.push(forwarded.response.status().as_u16());
        text(forwarded).await;
    }
    statuses
}

#[tokio::test]
async fn checks_take_an_endpoint_out_and_bring_it_back() {
    let is_good = Arc::new(AtomicBool::new(true));
    let (flapping, steady) = (switched(&is_good, INTERNAL).await, RawOrigin::answering(OK).await);
    let (origin, _tended) = tended(OriginConfig {
        health: Some(checked_every(Duration::from_millis(100))),
        ..config(&[flapping.address, steady.address])
    });
    for _ in 0..2 {
        until("in order", || state(&origin, 0) == EndpointState::Healthy && flapping.requests() > 0).await;
        is_good.store(false, SeqCst);
        until("out", || state(&origin, 0) == EndpointState::Unhealthy).await;
        let health = origin.snapshot().endpoints[0].health.clone();
        assert_eq!(health.reason.as_deref(), Some("answered 500"));
        assert_eq!(statuses(&origin, 20).await, [200; 20]);
        is_good.store(true, SeqCst);
        // Within one check.
        until("back", || state(&origin, 0) == EndpointState::Healthy).await;
    }
    let before = flapping.requests();
    statuses(&origin, 20).await;
    assert!(flapping.requests() >= before + 10);
    let pool = origin.snapshot().endpoints[0].pool;
    assert!(pool.open <= 1, "checks have connections of their own: {pool:?}");
}

#[tokio::test]
async fn a_check_that_hangs_or_is_refused_fails() {
    let hanging = RawOrigin::start(|mut connection, _| async move {
        let _ = connection.request().await;
        connection.closed().await;
    })
    .await;
    let refusing = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address")
    };
    let steady = RawOrigin::answering(OK).await;
    let check = CheckConfig { timeout: Duration::from_millis(100), ..checked_every(Duration::from_millis(100)) };
    let (origin, _tended) =
        tended(OriginConfig { health: Some(check), ..config(&[hanging.address, refusing, steady.address]) });
    for (place, reason) in [(0, "no answer within"), (1, "refused")] {
        until("out", || state(&origin, place) == EndpointState::Unhealthy).await;
        let said = origin.snapshot().endpoints[place].health.reason.clone().expect("a reason");
        assert!(said.contains(reason), "{said}");
    }
    until("in order", || origin.snapshot().endpoints[2].health.checks.0 > 0).await;
    // One of three: so few that health counts no more, were it not for the threshold.
    assert_eq!(state(&origin, 2), EndpointState::Healthy);
}

#[tokio::test]
async fn requests_that_fail_in_a_row_eject_and_time_brings_back() {
    let is_good = Arc::new(AtomicBool::new(false));
    let (failing, steady) = (switched(&is_good, BAD).await, RawOrigin::answering(OK).await);
    let ejection = EjectionConfig { consecutive_errors: 3, time: Duration::from_millis(300), ..config(&[]).ejection };
    let origin = origin(OriginConfig { ejection, ..config(&[failing.address, steady.address]) });
    assert_eq!(statuses(&origin, 20).await.iter().filter(|status| **status == 503).count(), 3);
    assert_eq!(state(&origin, 0), EndpointState::Ejected);
    is_good.store(true, SeqCst);
    until("back", || state(&origin, 0) == EndpointState::Healthy).await;
    let before = failing.requests();
    assert_eq!(statuses(&origin, 10).await, [200; 10]);
    assert_eq!(failing.requests(), before + 5);
}

/// A 500 is the application's own word, on one request: it ejects nobody.
#[tokio::test]
async fn errors_of_the_application_do_not_eject() {
    let servers = [RawOrigin::answering(INTERNAL).await, RawOrigin::answering(OK).await];
    let origin = origin(config(&[servers[0].address, servers[1].address]));
    assert_eq!(statuses(&origin, 40).await.iter().filter(|status| **status == 500).count(), 20);
}

/// Content that breaks off speaks against an endpoint as well.
#[tokio::test]
async fn contents_that_break_off_eject() {
    let cutting = RawOrigin::start(|mut connection, _| async move {
        let _ = connection.request().await;
        connection.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this").await;
    })
    .await;
    let steady = RawOrigin::answering(OK).await;
    let ejection = EjectionConfig { consecutive_errors: 2, ..config(&[]).ejection };
    let origin = origin(OriginConfig {
        ejection,
        balance: Balance::ConsistentHash,
        ..config(&[cutting.address, steady.address])
    });
    let mut cut = 0;
    for key in 0..200 {
        let mut request = get("/");
        request.extensions_mut().insert(Affinity(key));
        let forwarded = origin.send(request).await.expect("a head");
        cut += usize::from(forwarded.response.into_body().collect().await.is_err());
    }
    assert_eq!((state(&origin, 0), cut), (EndpointState::Ejected, 2), "a head is not the whole of an answer");
}

/// With so many out, all get requests again: one that works must not bear it all.
#[tokio::test]
async fn when_nearly_all_are_out_health_counts_no_more() {
    let is_good = Arc::new(AtomicBool::new(false));
    let bad = [switched(&is_good, BAD).await, switched(&is_good, BAD).await, switched(&is_good, BAD).await];
    let steady = RawOrigin::answering(OK).await;
    let mut addresses: Vec<SocketAddr> = bad.iter().map(|server| server.address).collect();
    addresses.push(steady.address);
    for (panic_threshold, is_shared) in [(50, true), (20, false)] {
        let (origin, _tended) = tended(OriginConfig {
            health: Some(checked_every(Duration::from_millis(100))),
            panic_threshold,
            ..config(&addresses)
        });
        until("all checked", || {
            let endpoints = origin.snapshot().endpoints;
            endpoints.iter().filter(|endpoint| endpoint.health.state == EndpointState::Unhealthy).count() == 3
        })
        .await;
        let good = statuses(&origin, 40).await.iter().filter(|status| **status == 200).count();
        assert_eq!(good, if is_shared { 10 } else { 40 }, "{panic_threshold}");
    }
}

#[tokio::test]
async fn connections_are_kept_open_before_they_are_needed_and_after_a_recovery() {
    let is_listening = Arc::new(AtomicBool::new(true));
    let closes = Arc::new(tokio::sync::Notify::new());
    let (listening, closing) = (Arc::clone(&is_listening), Arc::clone(&closes));
    let server = RawOrigin::start(move |mut connection, _| {
        let (listening, closing) = (Arc::clone(&listening), Arc::clone(&closing));
        async move {
            if !listening.load(SeqCst) {
                return;
            }
            tokio::select! {
                () = closing.notified() => {}
                () = async { while connection.request().await.is_some() { connection.write(OK).await; } } => {}
            }
        }
    })
    .await;
    let (origin, _tended) = tended(OriginConfig {
        connections_min: 3,
        idle_timeout: Duration::from_millis(200),
        ..config(&[server.address])
    });
    until("three are open", || (open(&origin), idle(&origin)) == (3, 3)).await;
    assert_eq!(server.requests(), 0);
    statuses(&origin, 5).await;
    let counts = origin.snapshot().endpoints[0].counts.clone();
    assert_eq!((counts.connects, counts.reused, counts.warmed), (3, 5, 3), "no request waited for a handshake");
    // Far beyond the idle timeout.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!((open(&origin), server.accepted()), (3, 3), "they stay");
    closes.notify_waiters();
    until("opened again", || server.accepted() == 6 && idle(&origin) == 3).await;
}

#[tokio::test]
async fn connections_wear_out_by_requests_and_by_age() {
    let server = RawOrigin::answering(OK).await;
    let by_requests = origin(OriginConfig { connection_requests_max: 3, ..config(&[server.address]) });
    statuses(&by_requests, 9).await;
    assert_eq!(server.accepted(), 3);
    let by_age = origin(OriginConfig { connection_age_max: Duration::from_millis(50), ..config(&[server.address]) });
    statuses(&by_age, 2).await;
    assert_eq!(server.accepted(), 4);
    tokio::time::sleep(Duration::from_millis(60)).await;
    statuses(&by_age, 1).await;
    assert_eq!(server.accepted(), 5);
}
