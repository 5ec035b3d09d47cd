//! Names, by a name server of the test's own.

use std::net::{IpAddr, Ipv4Addr};

use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record};
use parking_lot::Mutex;
use tokio::net::UdpSocket;

use super::*;
use crate::config::ServiceConfig;

/// Answers what the test has it answer, with a lifetime of a second.
struct NameServer {
    address: SocketAddr,
    records: Arc<Mutex<Vec<Record>>>,
    is_broken: Arc<std::sync::atomic::AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("an address");
        let records = Arc::new(Mutex::new(Vec::<Record>::new()));
        let is_broken = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let asked = Arc::new(AtomicUsize::new(0));
        let server = Self { address, records, is_broken, asked };
        let (records, is_broken, asked) =
            (Arc::clone(&server.records), Arc::clone(&server.is_broken), Arc::clone(&server.asked));
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
                asked.fetch_add(1, SeqCst);
                let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
                answer.add_queries(question.queries.clone());
                if is_broken.load(SeqCst) {
                    answer.metadata.response_code = ResponseCode::ServFail;
                } else if let Some(query) = question.queries.first() {
                    let is_it =
                        |record: &&Record| record.name == *query.name() && record.record_type() == query.query_type();
                    answer.add_answers(records.lock().iter().filter(is_it).cloned());
                }
                let _ = socket.send_to(&answer.to_vec().expect("an answer"), from).await;
            }
        });
        server
    }

    fn say(&self, records: Vec<Record>) {
        *self.records.lock() = records;
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

fn a(host: &str, address: IpAddr) -> Record {
    let IpAddr::V4(address) = address else { panic!("{address}") };
    Record::from_rdata(name(host), 1, RData::A(A(address)))
}

fn srv(service: &str, priority: u16, weight: u16, port: u16, target: &str) -> Record {
    Record::from_rdata(name(service), 1, RData::SRV(SRV::new(priority, weight, port, name(target))))
}

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Another address of the loopback interface.
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Two servers on one port of two addresses, each telling which it is.
async fn two_addresses() -> (u16, [Arc<AtomicUsize>; 2]) {
    loop {
        let first = TcpListener::bind((LOCAL, 0)).await.expect("a port");
        let port = first.local_addr().expect("an address").port();
        // Somebody else may have that port there.
        let Ok(second) = TcpListener::bind((OTHER, port)).await else { continue };
        let counts = [first, second].map(|listener| {
            let count = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&count);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let requests = Arc::clone(&counted);
                    tokio::spawn(async move {
                        let mut connection = RawConnection { stream, read: Vec::new(), requests };
                        while connection.request().await.is_some() {
                            connection.write(OK).await;
                        }
                    });
                }
            });
            count
        });
        return (port, counts);
    }
}

async fn send(origin: &Origin, count: usize) {
    for _ in 0..count {
        assert_eq!(text(origin.send(get("/")).await.expect("an answer")).await, "ok");
    }
}

#[tokio::test]
async fn a_changed_address_takes_over_without_a_request_lost() {
    let dns = NameServer::start().await;
    let (port, [first, second]) = two_addresses().await;
    dns.say(vec![a("api.test.", LOCAL)]);
    let (origin, _tended) = tended(OriginConfig {
        endpoints: vec![endpoint("api.test", port, false)],
        resolver: vec![dns.address],
        ..config(&[])
    });
    send(&origin, 5).await;
    assert_eq!((first.load(SeqCst), second.load(SeqCst)), (5, 0));
    dns.say(vec![a("api.test.", OTHER)]);
    // One request at a time, all the while: none fails.
    let changed = async {
        while second.load(SeqCst) == 0 {
            send(&origin, 1).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), changed).await.expect("the new address");
    let before = first.load(SeqCst);
    send(&origin, 20).await;
    assert_eq!(first.load(SeqCst), before, "the kept connection to the old address is given up");
    // A resolver that fails changes nothing.
    dns.is_broken.store(true, SeqCst);
    let asked = dns.asked.load(SeqCst);
    until("asked again", || dns.asked.load(SeqCst) > asked + 1).await;
    until("said so", || origin.snapshot().endpoints[0].resolve_failure.is_some()).await;
    send(&origin, 5).await;
    dns.is_broken.store(false, SeqCst);
    until("all is well", || origin.snapshot().endpoints[0].resolve_failure.is_none()).await;
}

/// Of two addresses one answers nobody: the other one is used, and soon.
#[tokio::test]
async fn an_address_that_fails_costs_no_request() {
    let dns = NameServer::start().await;
    let server = RawOrigin::answering(OK).await;
    dns.say(vec![a("api.test.", OTHER), a("api.test.", LOCAL)]);
    let (origin, _tended) = tended(OriginConfig {
        endpoints: vec![endpoint("api.test", server.address.port(), false)],
        resolver: vec![dns.address],
        connection_requests_max: 1,
        ..config(&[])
    });
    send(&origin, 10).await;
    assert_eq!(server.accepted(), 10);
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_an_error_of_its_own() {
    let dns = NameServer::start().await;
    let origin = origin(OriginConfig {
        endpoints: vec![endpoint("nobody.test", 80, false)],
        resolver: vec![dns.address],
        ..config(&[])
    });
    let error = refusal(&origin, get("/")).await;
    assert!(matches!(error, ForwardError::Dns { .. }), "{error:?}");
}

#[tokio::test]
async fn targets_of_a_service_come_and_go() {
    const SERVICE: &str = "_api._tcp.test.";
    let dns = NameServer::start().await;
    let servers = [RawOrigin::answering(OK).await, RawOrigin::answering(OK).await, RawOrigin::answering(OK).await];
    let target = |n: usize, priority, weight| srv(SERVICE, priority, weight, servers[n].address.port(), "host.test.");
    dns.say(vec![a("host.test.", LOCAL), target(0, 1, 10), target(1, 1, 30), target(2, 2, 10)]);
    let service = ServiceConfig { name: "_api._tcp.test".to_owned(), tls: false, region: None, priority: 0 };
    let (origin, _tended) =
        tended(OriginConfig { services: vec![service], resolver: vec![dns.address], ..config(&[]) });
    // The first request waits for the first answer.
    send(&origin, 40).await;
    let shares = || servers.iter().map(RawOrigin::requests).collect::<Vec<_>>();
    assert_eq!(shares(), [10, 30, 0]);
    let connects = || {
        let port = servers[1].address.port().to_string();
        let endpoints = origin.snapshot().endpoints;
        endpoints.iter().find(|endpoint| endpoint.url.ends_with(&port)).map(|endpoint| endpoint.counts.connects)
    };
    let before = connects();
    dns.say(vec![a("host.test.", LOCAL), target(1, 1, 30), target(2, 1, 30)]);
    until("another group", || origin.snapshot().endpoints.len() == 2).await;
    send(&origin, 40).await;
    assert_eq!(shares(), [10, 50, 20]);
    assert_eq!(connects(), before, "who stays keeps its connections");
    // Nothing found: the last good answer stays.
    dns.say(Vec::new());
    until("said so", || !origin.snapshot().discovery_failures.is_empty()).await;
    send(&origin, 4).await;
    assert_eq!(origin.snapshot().endpoints.len(), 2);
}
