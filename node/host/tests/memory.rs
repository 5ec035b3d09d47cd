//! The process does not grow with the harm that guests do. Alone in its binary: it measures the process.
#![cfg(target_os = "linux")]

mod common;

use common::{TestExchange, TestRequest, patient_host, plugin};

/// Whatever a guest does, the process does not grow with the number of times.
#[test]
fn memory_stays_flat() {
    let hostile = plugin(&patient_host(), "hostile");
    let harm = || {
        for path in ["/memory", "/panic", "/trap", "/recurse", "/garbage/huge", "/garbage/size"] {
            TestRequest::get(path).put_to(&hostile).expect_err("a fault");
        }
        for path in ["/memory", "/panic", "/trap", "/garbage/huge", "/garbage/many", "/garbage/keys"] {
            TestExchange::of("GET", path, 200).tags(&hostile).expect_err("a fault");
        }
    };
    (0..10).for_each(|_| harm());
    let before = resident_bytes();
    (0..60).for_each(|_| harm());
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 24 * 1024 * 1024, "grew by {grown} bytes");
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4096
}
