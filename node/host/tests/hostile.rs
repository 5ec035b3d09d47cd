//! Plugins that misbehave: each case gives a fault of its kind, control comes back in time, and the next call is fine.

mod common;

use std::time::{Duration, Instant};

use brim_host::{Host, HostConfig, LOG_LINES_PER_CALL_MAX, Plugin, PluginFault};
use brim_semantics::PartValue;
use common::{TestRequest, host, patient_host, plugin};

/// Far above the deadline of 5 ms: a loaded machine must not fail the test, a call that never ends must.
const BACK_WITHIN: Duration = Duration::from_millis(500);

/// Puts the path to the hostile plugin; checks that control is back and that it then decides as ever.
fn fault_of(plugin: &Plugin, path: &str) -> PluginFault {
    let began = Instant::now();
    let fault = TestRequest::get(path).put_to(plugin).expect_err("a fault");
    assert!(began.elapsed() < BACK_WITHIN, "{path}: {:?}", began.elapsed());
    let good = TestRequest::get(&format!("/good/after{path}")).put_to(plugin).expect("the next call is fine");
    assert_eq!(good.parts.len(), 1);
    fault
}

#[test]
fn an_endless_loop_ends_at_the_deadline() {
    let hostile = plugin(&host(), "hostile");
    let began = Instant::now();
    assert_eq!(fault_of(&hostile, "/loop"), PluginFault::Deadline);
    assert!(began.elapsed() >= Duration::from_millis(4), "the guest has its time");
}

#[test]
fn a_memory_bomb_meets_the_limit() {
    assert_eq!(fault_of(&plugin(&patient_host(), "hostile"), "/memory"), PluginFault::Memory);
}

#[test]
fn a_panic_reaches_the_operator_with_message_and_place() {
    let hostile = plugin(&host(), "hostile");
    let PluginFault::Panicked(message) = fault_of(&hostile, "/panic") else { panic!("another fault") };
    assert!(message.contains("panicked on purpose") && message.contains("lib.rs:"), "{message}");
    assert!(!message.contains('\n'));
    let PluginFault::Panicked(message) = fault_of(&hostile, "/index") else { panic!("another fault") };
    assert!(message.contains("out of bounds"), "{message}");
}

#[test]
fn recursion_traps_and_wild_reads_are_traps() {
    let hostile = plugin(&host(), "hostile");
    for path in ["/recurse", "/trap", "/wild"] {
        assert!(matches!(fault_of(&hostile, path), PluginFault::Trap(_)), "{path}");
    }
}

#[test]
fn answers_that_are_not_valid_are_refused() {
    let hostile = plugin(&patient_host(), "hostile");
    for (path, why) in [
        ("/garbage/size", "4096 are allowed"),
        ("/garbage/huge", "fuel"),
        ("/garbage/parts", "fuel"),
        ("/garbage/some-parts", "32 are allowed"),
        ("/garbage/name", "a key part named"),
        ("/garbage/twice", "twice"),
        ("/garbage/query", "cannot be sent"),
    ] {
        let PluginFault::BadOutput(message) = fault_of(&hostile, path) else { panic!("{path}: another fault") };
        assert!(message.contains(why), "{path}: {message}");
    }
    let bypass = TestRequest::get("/garbage/reason").put_to(&hostile).expect("a decision");
    assert_eq!(bypass.bypass.as_deref(), Some("line  split"));
}

#[test]
fn a_rejection_is_a_fault_of_its_own() {
    assert_eq!(
        fault_of(&plugin(&host(), "hostile"), "/reject"),
        PluginFault::Rejected("rejected on purpose".to_owned())
    );
}

#[test]
fn a_flood_of_log_lines_is_cut() {
    let hostile = plugin(&host(), "hostile");
    TestRequest::get("/log").put_to(&hostile).expect("a decision");
    assert_eq!(hostile.stats().log_lines_dropped, 1000 - u64::from(LOG_LINES_PER_CALL_MAX));
}

#[test]
fn the_guest_sees_what_it_declared_and_nothing_else() {
    let hostile = plugin(&host(), "hostile");
    let decision = TestRequest::get("/seen")
        .header("x-seen", "12345")
        .header("x-hidden", "12345")
        .header("cookie", "seen=yes; hidden=yes")
        .put_to(&hostile)
        .expect("a decision");
    let values: Vec<&PartValue> = decision.parts.iter().map(|part| &part.value).collect();
    let yes = PartValue::Bytes(b"yes".to_vec());
    let none = PartValue::Integer(0);
    assert_eq!(values, [&PartValue::Integer(5), &none, &none, &yes, &PartValue::Absent]);
}

#[test]
fn more_calls_than_may_run_at_once_are_told_so() {
    let host =
        Host::new(HostConfig { instances_max: 1, key_deadline: Duration::from_millis(200), ..HostConfig::default() });
    let hostile = plugin(&host.expect("a host"), "hostile");
    std::thread::scope(|scope| {
        // Takes the one place as soon as it is free, and holds it until the deadline.
        let looping = scope.spawn(|| {
            loop {
                match TestRequest::get("/loop").put_to(&hostile) {
                    Err(PluginFault::Busy) => std::thread::yield_now(),
                    ended => break ended,
                }
            }
        });
        let mut busy = false;
        while !busy && !looping.is_finished() {
            busy = TestRequest::get("/reject").put_to(&hostile) == Err(PluginFault::Busy);
        }
        assert!(busy, "the one place was taken");
        assert_eq!(looping.join().expect("no panic"), Err(PluginFault::Deadline));
    });
    assert!(TestRequest::get("/good").put_to(&hostile).is_ok());
}
