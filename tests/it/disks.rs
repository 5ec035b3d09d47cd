//! Disks that are full or read-only: the node serves on, says so, and recovers by itself.

use brim_tests::{BrimProcess, FakeOrigin, SmallDisk, eventually, ok};
use http::Method;
use serde_json::{Value, json};

const BODY_BYTES: usize = 200_000;

fn store_status(brim: &BrimProcess) -> Value {
    let answer = brim.admin(Method::GET, "/v1/status", None);
    assert_eq!(answer.status, 200);
    answer.body["store"].clone()
}

async fn until_disk_is(brim: &BrimProcess, state: &str) -> Value {
    eventually(&format!("a disk tier that is {state}"), async || {
        let status = store_status(brim);
        (status["disk"] == state).then_some(status)
    })
    .await
}

fn metric(brim: &BrimProcess, name: &str) -> Option<f64> {
    let answer = brim.admin(Method::GET, "/metrics", None);
    let text = answer.body.as_str()?.to_owned();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn config(origin: &FakeOrigin) -> String {
    BrimProcess::config(&origin.url(), "[store]\ndisk_max = \"64MiB\"\nmemory_max = \"8MiB\"")
}

/// Each path its own content; the node passes on just that.
async fn origin() -> FakeOrigin {
    let origin = FakeOrigin::start().await;
    origin.answer("/r", |request| {
        ok(request.target.repeat(BODY_BYTES / request.target.len())).cache_control("max-age=600")
    });
    origin
}

async fn get(brim: &BrimProcess, authority: &str, n: usize) -> brim_tests::Answer {
    let path = format!("/r?{n:06}");
    let answer = brim.http1().authority(authority).get(&path).await;
    answer.assert_status(200).assert_content(&path.repeat(BODY_BYTES / path.len()));
    answer
}

/// The file system is smaller than `disk_max`, and then somebody else fills it to the last byte.
#[tokio::test]
async fn a_full_file_system_is_survived() {
    let Some(disk) = SmallDisk::of_mib(48) else { return };
    let origin = origin().await;
    let mut brim = BrimProcess::start_on(disk.path(), &config(&origin));
    let authority = brim.listening().http[0].to_string();
    for n in 0..300 {
        get(&brim, &authority, n).await;
    }
    let status = until_disk_is(&brim, "paused").await;
    assert!(status["disk_reason"].as_str().is_some_and(|reason| reason.contains("free")), "{status}");
    assert_eq!(status["quarantines"], 0, "{status}");
    brim.wait_for_line("why nothing is written", |line| line.contains("nothing is written to disk").then_some(()));
    assert_eq!(metric(&brim, "brim_store_disk_state{state=\"paused\"}"), Some(1.0));
    let hits = (0..20).collect::<Vec<_>>();
    for n in &hits {
        get(&brim, &authority, *n).await.assert_hit();
    }

    disk.fill();
    for n in 300..330 {
        get(&brim, &authority, n).await;
    }
    get(&brim, &authority, 0).await.assert_hit();
    // The space for it was reserved.
    let purged =
        brim.admin(Method::POST, "/v1/purges", Some(&json!({ "url": format!("http://{authority}/r?000000") })));
    assert_eq!(purged.status, 201, "{}", purged.body);
    get(&brim, &authority, 0).await.assert_forwarded("uri-miss");

    disk.free();
    for _ in 0..2 {
        let everything = brim.admin(Method::POST, "/v1/purges", Some(&json!({ "everything": true })));
        assert_eq!(everything.status, 201, "{}", everything.body);
    }
    let status = until_disk_is(&brim, "ready").await;
    assert_eq!(status["quarantines"], 0, "{status}");
    get(&brim, &authority, 1).await.assert_stored();
    eventually("it is on disk", async || (store_status(&brim)["responses_on_disk"] == 1).then_some(())).await;
    brim.terminate();
    brim.restart();
    get(&brim, &authority, 1).await.assert_hit();
    get(&brim, &authority, 2).await.assert_forwarded("uri-miss");
}

/// A node that finds its disk read-only starts, serves from memory, refuses purges, and goes on when the disk can be written.
#[tokio::test]
async fn a_read_only_file_system_is_survived() {
    let Some(disk) = SmallDisk::of_mib(48) else { return };
    let origin = origin().await;
    let mut brim = BrimProcess::start_on(disk.path(), &config(&origin));
    let authority = brim.listening().http[0].to_string();
    get(&brim, &authority, 0).await.assert_stored();
    brim.terminate();
    disk.set_read_only(true);
    brim.restart();
    let status = store_status(&brim);
    assert_eq!(status["disk"], "failed", "{status}");
    assert!(status["purge_log_failure"].is_string(), "{status}");
    get(&brim, &authority, 1).await.assert_forwarded("uri-miss");
    get(&brim, &authority, 1).await.assert_hit();
    let refused = brim.admin(Method::POST, "/v1/purges", Some(&json!({ "everything": true })));
    assert_eq!((refused.status.as_u16(), refused.body["code"].as_str()), (503, Some("purge_log")), "{}", refused.body);
    assert_eq!(metric(&brim, "brim_purge_log_failing"), Some(1.0));
    let (_, output, _) = brim.command(&["status", "--admin", &brim.admin_url(), "--token", &brim.admin_token()]);
    assert!(output.contains("disk      FAILED: ") && output.contains("purges    REFUSED: "), "{output}");

    disk.set_read_only(false);
    until_disk_is(&brim, "ready").await;
    eventually("the purge log is written", async || {
        store_status(&brim).get("purge_log_failure").is_none().then_some(())
    })
    .await;
    let purged = brim.admin(Method::POST, "/v1/purges", Some(&json!({ "everything": true })));
    assert_eq!(purged.status, 201, "{}", purged.body);
    get(&brim, &authority, 1).await.assert_forwarded("uri-miss");
    brim.terminate();
    brim.restart();
    get(&brim, &authority, 1).await.assert_hit();
    get(&brim, &authority, 0).await.assert_forwarded("uri-miss");
}

/// A node starts on a disk that is full from the beginning, and keeps what it stores as soon as it can.
#[tokio::test]
async fn a_start_on_a_full_file_system_is_survived() {
    let Some(disk) = SmallDisk::of_mib(48) else { return };
    let origin = origin().await;
    let mut brim = BrimProcess::start_on(disk.path(), &config(&origin));
    let authority = brim.listening().http[0].to_string();
    get(&brim, &authority, 0).await.assert_stored();
    brim.terminate();
    disk.fill();
    brim.restart();
    for n in 0..3 {
        get(&brim, &authority, n).await;
        get(&brim, &authority, n).await.assert_hit();
    }
    disk.free();
    until_disk_is(&brim, "ready").await;
    get(&brim, &authority, 7).await.assert_stored();
    eventually("it is on disk", async || (store_status(&brim)["responses_on_disk"] != 0).then_some(())).await;
    brim.terminate();
    brim.restart();
    get(&brim, &authority, 7).await.assert_hit();
}
