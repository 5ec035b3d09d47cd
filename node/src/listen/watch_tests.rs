//! The judgement, on counts and times made up.

use super::*;

const HEAD: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(60);
const STALL: Duration = Duration::from_secs(30);

fn watch(protocol: Protocol, start: Instant) -> Watch {
    let config = ListenConfig {
        header_timeout: HEAD,
        idle_timeout: IDLE,
        body_idle_timeout: STALL,
        ..super::super::tests::harness::config()
    };
    Watch::new(&config, protocol, start)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Counts after one request was answered.
fn answered(bytes_read: u64) -> Snapshot {
    Snapshot { bytes_read, bytes_written: 200, requests_started: 1, frames_taken: 1, ..Snapshot::default() }
}

#[test]
fn a_first_head_that_drips_is_cut_at_its_deadline() {
    let start = Instant::now();
    let mut watch = watch(Protocol::Http1, start);
    for second in 1..10 {
        let dripping = Snapshot { bytes_read: second, ..Snapshot::default() };
        assert_eq!(watch.tick(dripping, start + seconds(second)), Verdict::Keep);
    }
    let verdict = watch.tick(Snapshot { bytes_read: 10, ..Snapshot::default() }, start + HEAD);
    assert_eq!(verdict, Verdict::Cut(Reason::SlowHead));
}

#[test]
fn a_later_head_that_drips_is_cut_and_a_silent_kept_connection_is_closed() {
    let start = Instant::now();
    let mut dripping = watch(Protocol::Http1, start);
    assert_eq!(dripping.tick(answered(100), start + seconds(1)), Verdict::Keep);
    assert_eq!(dripping.tick(answered(101), start + seconds(2)), Verdict::Keep);
    assert_eq!(dripping.tick(answered(102), start + seconds(11)), Verdict::Keep);
    assert_eq!(dripping.tick(answered(103), start + seconds(12)), Verdict::Cut(Reason::SlowHead));

    let mut silent = watch(Protocol::Http1, start);
    assert_eq!(silent.tick(answered(100), start + seconds(1)), Verdict::Keep);
    assert_eq!(silent.tick(answered(100), start + seconds(60)), Verdict::Keep);
    assert_eq!(silent.tick(answered(100), start + seconds(61)), Verdict::CloseIdle);
    assert_eq!(silent.tick(answered(100), start + seconds(70)), Verdict::Keep);
    assert_eq!(silent.tick(answered(100), start + seconds(71)), Verdict::Cut(Reason::Lingering));
}

/// Pings are read and acknowledged; they are no use of a connection.
#[test]
fn pings_keep_no_http2_connection_open() {
    let start = Instant::now();
    let mut watch = watch(Protocol::Http2, start);
    for second in 1..60 {
        let pinging = Snapshot { bytes_read: second * 17, bytes_written: second * 17, ..Snapshot::default() };
        assert_eq!(watch.tick(pinging, start + seconds(second)), Verdict::Keep);
    }
    let pinging = Snapshot { bytes_read: 60 * 17, bytes_written: 60 * 17, ..Snapshot::default() };
    assert_eq!(watch.tick(pinging, start + IDLE), Verdict::CloseIdle);
}

#[test]
fn a_slow_handler_is_our_turn_and_a_client_that_does_not_read_is_cut() {
    let start = Instant::now();
    let mut watch = watch(Protocol::Http2, start);
    let handling = Snapshot { in_flight: 1, waiting_for_us: 1, requests_started: 1, ..Snapshot::default() };
    assert_eq!(watch.tick(handling, start + seconds(1)), Verdict::Keep);
    assert_eq!(watch.tick(handling, start + seconds(600)), Verdict::Keep);
    let sending = Snapshot { waiting_for_us: 0, frames_taken: 1, ..handling };
    assert_eq!(watch.tick(sending, start + seconds(601)), Verdict::Keep);
    assert_eq!(watch.tick(sending, start + seconds(630)), Verdict::Keep);
    assert_eq!(watch.tick(sending, start + seconds(631)), Verdict::Cut(Reason::Stalled));
}

#[test]
fn a_download_that_goes_on_is_never_cut_though_it_was_asked_to_close() {
    let start = Instant::now();
    let mut watch = watch(Protocol::Http2, start);
    watch.closing(start);
    for round in 1..100 {
        let downloading = Snapshot {
            in_flight: 1,
            requests_started: 1,
            bytes_written: round * PROGRESS_BYTES,
            ..Snapshot::default()
        };
        assert_eq!(watch.tick(downloading, start + round_time(round)), Verdict::Keep);
    }
}

fn round_time(round: u64) -> Duration {
    seconds(round * 20)
}
