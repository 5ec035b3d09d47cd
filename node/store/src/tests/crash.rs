//! kill -9 in the middle of writes, overwrites and purges. The child is this test binary, started again.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::support::*;
use crate::{PurgeMode, Selector, Store, StoreConfig};

const DIR: &str = "BRIM_STORE_CRASH_DIR";
const ROUND: &str = "BRIM_STORE_CRASH_ROUND";
const KEYS: u64 = 60;
const KILLS: u64 = 6;

fn small(dir: &Path) -> StoreConfig {
    // Small enough that eviction and compaction run as well.
    StoreConfig { disk_max: 8 * MIB, memory_max: MIB, memory_object_max: 256 * KIB, ..config(dir) }
}

fn length_of(random: &mut Random) -> usize {
    let small = 8 + random.below(60_000);
    usize::try_from(if random.below(20) == 0 { 300_000 + random.below(700_000) } else { small }).unwrap()
}

/// Not a test by itself: what the killed process does. Tells each acknowledged purge on its standard output.
#[tokio::test]
async fn child() {
    let (Ok(dir), Ok(round)) = (std::env::var(DIR), std::env::var(ROUND)) else { return };
    let mut random = Random::seeded("crash child");
    let store = Store::open(small(Path::new(&dir))).await.unwrap();
    let mut version = round.parse::<u64>().unwrap() * 1_000_000;
    loop {
        version += 1;
        let path = format!("/{}", random.below(KEYS));
        if random.below(10) > 0 {
            let length = length_of(&mut random);
            put_path(&store, &path, version, length).await;
            continue;
        }
        let selector = match random.below(8) {
            0 => Selector::Everything,
            1..4 => Selector::SurrogateKeys { site: None, keys: vec![format!("key-{path}").into()] },
            _ => Selector::Url { authority: "a.example".into(), path: path.as_str().into(), query: None },
        };
        let everything = selector == Selector::Everything;
        store.purge(selector, PurgeMode::Hard, now()).await.unwrap();
        let named = if everything { "*" } else { &path };
        // Every version up to this one was fetched before the purge.
        writeln!(std::io::stdout(), "\npurged {named} {version}").unwrap();
    }
}

/// After each kill: every acknowledged purge holds, and every body served is one that was stored under its key.
#[test]
fn kill_9_loses_no_acknowledged_purge_and_serves_no_wrong_body() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::seeded("kill_9");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut purged: HashMap<String, u64> = HashMap::new();
    let (mut purges, mut served) = (0, 0);
    for round in 1..=KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::crash::child", "--nocapture"])
            .env(DIR, dir.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || lines.lines().map_while(Result::ok).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(250 + random.below(500)));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in reader.join().unwrap() {
            let words: Vec<&str> = line.split(' ').collect();
            // A line that was cut off has fewer digits: it claims less, never more.
            if let ["purged", named, version] = words[..] {
                purged.insert(named.to_owned(), version.parse().unwrap_or(0));
                purges += 1;
            }
        }
        let store = runtime.block_on(Store::open(small(dir.path()))).unwrap();
        for n in 0..KEYS {
            let path = format!("/{n}");
            if let Some(bytes) = runtime.block_on(serve(&store, &path)) {
                let version = version_of(&path, &bytes);
                let floor = purged.get(&path).max(purged.get("*")).copied().unwrap_or(0);
                assert!(version > floor, "round {round}: {path} version {version} was purged at {floor}");
                served += 1;
            }
        }
        assert_eq!(store.stats().quarantined, 0, "a kill must not cost the store");
        runtime.block_on(store.close());
    }
    println!("{purges} purges acknowledged, {served} bodies served after {KILLS} kills");
    assert!(purges > 10 && served > 10);
}
