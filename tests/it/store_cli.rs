//! `brim store`: a data directory is looked at while its node is down.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use brim_tests::{BrimProcess, FakeOrigin, ok, status};
use http::Method;
use serde_json::{Value, json};

/// A node that stored `/a`, `/b?c=1` in two languages and a 404, ended in order; and `/gone`, which was purged.
async fn ended() -> (FakeOrigin, BrimProcess) {
    let origin =
        FakeOrigin::serving("/a", ok("a".repeat(5000)).cache_control("max-age=600").surrogate_keys("k1 k2")).await;
    let varying = ok("b".repeat(70_000)).cache_control("max-age=600").header("vary", "accept-language, x-api-key");
    origin.serve("/b", varying);
    origin.serve("/none", status(404).cache_control("max-age=600"));
    origin.serve("/gone", ok("gone").cache_control("max-age=600"));
    let mut brim = BrimProcess::in_front_of(&origin.url(), "");
    for path in ["/a", "/none", "/gone"] {
        brim.http1().get(path).await.assert_stored();
    }
    for language in ["de", "fr"] {
        let ask = brim.http1().ask(Method::GET, "/b?c=1").header("accept-language", language);
        ask.header("x-api-key", "hush").send().await.assert_stored();
    }
    let url = format!("http://{}/gone", brim.listening().http[0]);
    assert_eq!(brim.admin(Method::POST, "/v1/purges", Some(&json!({ "url": url }))).status, 201);
    let data_dir = brim.data_dir().display().to_string();
    for command in ["verify", "stats", "export-keys"] {
        let (exit, stdout, stderr) = brim.command(&["store", command, &data_dir]);
        assert_eq!((exit.code(), stdout.as_str()), (Some(1), ""), "{stderr}");
        assert!(stderr.contains("in use") && stderr.contains("brim status"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    assert!(brim.terminate().success());
    (origin, brim)
}

/// `brim store …`; its exit status and stdout.
fn store(brim: &BrimProcess, words: &[&str]) -> (Option<i32>, String) {
    let (exit, stdout, stderr) = brim.command(&[&["store"], words].concat());
    assert_eq!(stderr, "", "{words:?}");
    (exit.code(), stdout)
}

fn documents(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn url(brim: &BrimProcess, path: &str) -> String {
    format!("http://{}{path}", brim.listening().http[0])
}

/// The segment file in which these bytes lie, and where.
fn find_in_segments(brim: &BrimProcess, bytes: &[u8]) -> (PathBuf, u64) {
    let files =
        std::fs::read_dir(brim.data_dir().join("seg")).expect("segments").map(|file| file.expect("a file").path());
    let mut found = files.filter_map(|file| {
        let content = std::fs::read(&file).expect("readable");
        let at = content.windows(bytes.len()).position(|window| window == bytes)?;
        Some((file, at as u64))
    });
    found.next().expect("the body is in a segment")
}

#[tokio::test]
async fn verify_names_what_a_flipped_bit_costs() {
    let (_origin, mut brim) = ended().await;
    let data_dir = brim.data_dir().display().to_string();
    let (exit, text) = store(&brim, &["verify", &data_dir]);
    assert_eq!((exit, text.lines().last()), (Some(0), Some("sound")), "{text}");

    let (segment, at) = find_in_segments(&brim, &[b'a'; 5000]);
    let file = OpenOptions::new().write(true).open(segment).expect("writable");
    file.write_all_at(b"b", at + 2500).expect("written");
    let (exit, text) = store(&brim, &["verify", &data_dir]);
    assert_eq!((exit, text.lines().last()), (Some(1), Some("DAMAGED: 1 problem")), "{text}");
    assert!(text.contains(&format!("DAMAGED block: {}: ", url(&brim, "/a"))), "{text}");

    let (exit, lines) = store(&brim, &["verify", "--json", &data_dir]);
    let lines = documents(&lines);
    assert_eq!((exit, lines.len()), (Some(1), 2), "{lines:?}");
    assert_eq!(lines[0]["problem"]["url"], url(&brim, "/a"));
    assert_eq!(lines[0]["problem"]["kind"], "block");
    let summary = &lines[1]["summary"];
    assert_eq!((&summary["ok"], &summary["problems"]), (&json!(false), &json!({ "block": 1 })), "{summary}");

    // What was said to be lost is a miss, and the rest is not.
    let authority = brim.listening().http[0].to_string();
    brim.restart();
    let client = brim.http1().authority(&authority);
    client.get("/a").await.assert_forwarded("uri-miss");
    client.get("/none").await.assert_hit();
    assert!(!brim.output().contains("set aside"), "{}", brim.output());
}

#[tokio::test]
async fn export_keys_lists_what_is_stored() {
    let (_origin, brim) = ended().await;
    let data_dir = brim.data_dir().display().to_string();
    let (exit, text) = store(&brim, &["export-keys", &data_dir]);
    assert_eq!(exit, Some(0));
    let mut rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').take(4).collect()).collect();
    rows.sort();
    let (a, b, none) = (url(&brim, "/a"), url(&brim, "/b?c=1"), url(&brim, "/none"));
    let row = |url, status, bytes| vec!["GET", url, status, bytes];
    assert_eq!(
        rows,
        [row(a.as_str(), "200", "5000"), row(&b, "200", "70000"), row(&b, "200", "70000"), row(&none, "404", "0")]
    );
    assert!(text.lines().all(|line| line.split('\t').count() == 5 && line.ends_with('Z')), "{text}");

    let (exit, lines) = store(&brim, &["export-keys", &data_dir, "--json"]);
    assert!(!lines.contains("hush"), "no credential of a client leaves the store: {lines}");
    let lines = documents(&lines);
    assert_eq!(exit, Some(0));
    let of = |url: &str| lines.iter().filter(|line| line["url"] == url).collect::<Vec<_>>();
    assert_eq!(of(&a)[0]["surrogate_keys"], json!(["k1", "k2"]));
    assert_eq!(of(&a)[0]["purged"], Value::Null);
    let mut languages: Vec<_> =
        of(&b).iter().map(|line| line["vary"]["accept-language"].as_str().unwrap_or("")).collect();
    languages.sort_unstable();
    assert_eq!(languages, ["de", "fr"]);
    assert_eq!(of(&b)[0]["vary"]["x-api-key"], "(4 bytes, not shown)");
    // What was purged is listed until its space is reclaimed, and says so.
    assert!(of(&url(&brim, "/gone")).iter().all(|line| line["purged"] == "hard"));

    let mut child = Command::new(brim.binary())
        .args(["store", "export-keys", &data_dir])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary that runs already");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("our own child");
    assert_eq!((ended.status.code(), ended.stderr.len()), (Some(0), 0), "a reader that goes away is no error");
}

#[tokio::test]
async fn stats_count_what_is_stored() {
    let (_origin, brim) = ended().await;
    let data_dir = brim.data_dir().display().to_string();
    let (exit, text) = store(&brim, &["stats", &data_dir]);
    assert_eq!(exit, Some(0));
    assert!(text.contains("4 stored responses"), "{text}");
    let (_, line) = store(&brim, &["stats", &data_dir, "--json"]);
    let stats = &documents(&line)[0];
    assert_eq!(stats["responses"], json!({ "count": 4, "bytes": 145_000 }), "{stats}");
    assert_eq!(stats["by_status"]["404"]["count"], 1);
    assert_eq!(stats["by_site"]["*"]["count"], 4);
    assert_eq!(stats["purge_log"]["position"], 1);
    assert_eq!(store(&brim, &["stats", "-c", "brim.toml", "--json"]), (Some(0), line.clone()));
    assert!(stats["oldest"].as_str() <= stats["newest"].as_str());
}

#[tokio::test]
async fn what_holds_no_store_is_refused_and_not_made() {
    let (_origin, brim) = ended().await;
    for command in ["verify", "stats", "export-keys"] {
        let (exit, _, stderr) = brim.command(&["store", command, "nowhere"]);
        assert_eq!((exit.code(), stderr.as_str()), (Some(1), "brim: nowhere holds no store\n"));
    }
    assert!(!brim.dir().join("nowhere").exists());
    assert_eq!(brim.command(&["store", "repair", "brim-data"]).0.code(), Some(2));
    std::fs::write(brim.dir().join("bad.toml"), "rubbish").expect("written");
    for (file, said) in [("bad.toml", "bad.toml:"), ("none.toml", "cannot read")] {
        let (exit, _, stderr) = brim.command(&["store", "stats", "-c", file]);
        assert_eq!(exit.code(), Some(1));
        assert!(stderr.contains(said), "{stderr}");
    }
}
