//! Which endpoint gets a request, over real sockets. The policies by themselves are tested where they are.

use super::*;
use crate::origin::Affinity;

/// So many endpoints that answer at once.
async fn servers(count: usize) -> Vec<RawOrigin> {
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(RawOrigin::answering(OK).await);
    }
    servers
}

fn addresses(servers: &[RawOrigin]) -> Vec<SocketAddr> {
    servers.iter().map(|server| server.address).collect()
}

async fn send(origin: &Origin, count: usize) {
    for _ in 0..count {
        assert_eq!(text(origin.send(get("/")).await.expect("an answer")).await, "ok");
    }
}

fn shares(servers: &[RawOrigin]) -> Vec<usize> {
    servers.iter().map(RawOrigin::requests).collect()
}

#[tokio::test]
async fn every_policy_spreads_requests() {
    use Balance::{Geographic, Latency, LeastConnections, PowerOfTwo, RoundRobin};
    for balance in [RoundRobin, LeastConnections, PowerOfTwo, Latency, Geographic] {
        let servers = servers(3).await;
        let origin = origin(OriginConfig { balance, ..config(&addresses(&servers)) });
        send(&origin, 90).await;
        let shares = shares(&servers);
        assert_eq!(shares.iter().sum::<usize>(), 90);
        // Latency keeps away from whoever was slow for once.
        let is_even = balance == Latency || shares.iter().all(|share| *share > 5);
        assert!(is_even, "{balance:?}: {shares:?}");
        assert!(origin.snapshot().endpoints.iter().all(|endpoint| endpoint.in_flight == 0));
    }
}

#[tokio::test]
async fn weights_are_shares() {
    let servers = servers(2).await;
    let mut config = config(&addresses(&servers));
    config.endpoints[1].weight = 3;
    send(&origin(config), 100).await;
    assert_eq!(shares(&servers), [25, 75]);
}

/// One endpoint holds what it gets: requests go where they are answered, and come back when it is free.
#[tokio::test]
async fn least_connections_avoids_who_is_busy() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let held = Arc::clone(&gate);
    let slow = RawOrigin::start(move |mut connection, _| {
        let held = Arc::clone(&held);
        async move {
            while connection.request().await.is_some() {
                let _ = held.acquire().await;
                connection.write(OK).await;
            }
        }
    })
    .await;
    let fast = RawOrigin::answering(OK).await;
    let origin = origin(OriginConfig { balance: Balance::LeastConnections, ..config(&[slow.address, fast.address]) });
    let (first, second) = (Arc::clone(&origin), Arc::clone(&origin));
    let waiting =
        [tokio::spawn(async move { send(&first, 1).await }), tokio::spawn(async move { send(&second, 1).await })];
    until("the slow one has a request", || slow.requests() == 1).await;
    send(&origin, 20).await;
    assert_eq!((slow.requests(), fast.requests()), (1, 21), "one under way is one too many");
    gate.add_permits(1_000);
    for waiting in waiting {
        waiting.await.expect("answered");
    }
    send(&origin, 20).await;
    assert_eq!((slow.requests(), fast.requests()), (11, 31));
}

/// Content that is not read to its end is a request under way.
#[tokio::test]
async fn a_request_counts_until_its_content_ends() {
    let server = RawOrigin::answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe").await;
    let origin = origin(config(&[server.address]));
    let in_flight = || origin.snapshot().endpoints[0].in_flight;
    let forwarded = origin.send(get("/")).await.expect("a head");
    assert_eq!(in_flight(), 1);
    drop(forwarded);
    assert_eq!(in_flight(), 0);
}

#[tokio::test]
async fn a_cache_key_goes_to_one_endpoint_and_to_another_when_that_is_gone() {
    let servers = servers(4).await;
    let addresses = addresses(&servers);
    let origin = origin(OriginConfig { balance: Balance::ConsistentHash, ..config(&addresses) });
    let asked = async |key: u64| {
        let mut request = get("/");
        request.extensions_mut().insert(Affinity(key));
        let forwarded = origin.send(request).await.expect("an answer");
        let endpoint = forwarded.endpoint.url().port;
        text(forwarded).await;
        endpoint
    };
    let mut first = Vec::new();
    for key in 0..40 {
        first.push(asked(key).await);
    }
    for (key, endpoint) in (0..).zip(&first) {
        assert_eq!(asked(key).await, *endpoint, "{key}");
    }
    assert!(addresses.iter().all(|address| first.contains(&address.port())), "all have some: {first:?}");
    assert!(origin.drain(&format!("http://{}", addresses[2]), true));
    for (key, endpoint) in (0..).zip(&first) {
        let now = asked(key).await;
        assert_eq!(now == *endpoint, *endpoint != addresses[2].port(), "{key}: only its keys move");
    }
}

#[tokio::test]
async fn the_nodes_region_comes_first() {
    let servers = servers(3).await;
    let mut config =
        OriginConfig { balance: Balance::Geographic, region: Some("eu".to_owned()), ..config(&addresses(&servers)) };
    config.endpoints[1].region = Some("eu".to_owned());
    config.endpoints[2].region = Some("us".to_owned());
    let origin = origin(config);
    send(&origin, 20).await;
    assert_eq!(shares(&servers), [0, 20, 0]);
    assert!(origin.snapshot().endpoints[1].round_trip.is_some());
    assert!(origin.drain(&format!("http://{}", servers[1].address), true));
    send(&origin, 20).await;
    assert_eq!(shares(&servers)[1], 20);
}

#[tokio::test]
async fn a_lower_priority_is_used_when_the_higher_one_is_out_and_no_longer() {
    let servers = servers(3).await;
    let mut config = config(&addresses(&servers));
    config.endpoints[2].priority = 1;
    let origin = origin(config);
    let urls: Vec<String> = servers.iter().map(|server| format!("http://{}", server.address)).collect();
    send(&origin, 20).await;
    assert_eq!(shares(&servers), [10, 10, 0]);
    assert!(origin.drain(&urls[0], true) && !origin.drain("http://127.0.0.1:1", true));
    send(&origin, 10).await;
    assert_eq!(shares(&servers), [10, 20, 0]);
    origin.drain(&urls[1], true);
    send(&origin, 10).await;
    assert_eq!(shares(&servers), [10, 20, 10]);
    origin.drain(&urls[0], false);
    send(&origin, 10).await;
    assert_eq!(shares(&servers), [20, 20, 10]);
    origin.drain(&urls[0], true);
    origin.drain(&urls[2], true);
    let error = refusal(&origin, get("/")).await;
    assert!(matches!(error, ForwardError::NoEndpoint { .. }), "{error:?}");
}
