//! kill -9 in the middle of writes, overwrites, purges, eviction, compaction and rebuilding: at random moments, and at each step
//! that writes. The child is this test binary, started again.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::support::*;
use crate::faults::{Fault, Step};
use crate::{PurgeMode, Selector, Store, StoreConfig};

const DIR: &str = "BRIM_STORE_CRASH_DIR";
const ROUND: &str = "BRIM_STORE_CRASH_ROUND";
/// The step at which the child is killed, how often it passes it before, and how.
const AT: &str = "BRIM_STORE_CRASH_AT";
const KEYS: u64 = 60;
const KILLS: u64 = 24;
/// A child that never comes to its step is not waited for longer.
const STEP_DEADLINE: Duration = Duration::from_secs(30);

fn small(dir: &Path) -> StoreConfig {
    // Small enough that eviction, compaction, rebuilding and checkpoints run as well.
    StoreConfig {
        disk_max: 8 * MIB,
        memory_max: MIB,
        memory_object_max: 256 * KIB,
        purge_log_growth_max: 2 * KIB,
        ..config(dir)
    }
}

fn length_of(random: &mut Random) -> usize {
    let small = 8 + random.below(60_000);
    usize::try_from(if random.below(20) == 0 { 300_000 + random.below(700_000) } else { small }).unwrap()
}

const STEPS: [(Step, Fault, u64); 24] = [
    (Step::SegmentCreate, Fault::Kill, 6),
    (Step::SegmentAppend, Fault::Kill, 90),
    (Step::SegmentAppend, Fault::Tear, 90),
    (Step::SegmentSeal, Fault::Kill, 4),
    (Step::SegmentSeal, Fault::Tear, 4),
    (Step::SegmentSync, Fault::Kill, 5),
    (Step::SegmentRead, Fault::Kill, 3),
    (Step::SegmentRemove, Fault::Kill, 5),
    (Step::IndexGet, Fault::Kill, 20),
    (Step::IndexPut, Fault::Kill, 90),
    (Step::IndexRemove, Fault::Kill, 20),
    (Step::IndexFlush, Fault::Kill, 6),
    (Step::IndexSwitch, Fault::Kill, 1),
    (Step::IndexOpen, Fault::Kill, 1),
    // Before anything is moved aside, with the index aside alone, and with both aside and no new store.
    (Step::Quarantine, Fault::Kill, 3),
    (Step::LogAppend, Fault::Kill, 12),
    (Step::LogAppend, Fault::Tear, 12),
    (Step::LogSync, Fault::Kill, 12),
    (Step::LogCheckpoint, Fault::Kill, 3),
    (Step::LogRename, Fault::Kill, 3),
    // At the first start of a store.
    (Step::LogCheckpoint, Fault::Kill, 1),
    (Step::LogRename, Fault::Kill, 1),
    (Step::IndexSwitch, Fault::Kill, 1),
    (Step::Format, Fault::Kill, 1),
];

fn version_of_round(round: &str) -> u64 {
    round.parse::<u64>().unwrap() * 1_000_000
}

/// Not a test by itself: what the killed process does. Tells each acknowledged purge on its standard output.
#[tokio::test]
async fn child() {
    let (Ok(dir), Ok(round)) = (std::env::var(DIR), std::env::var(ROUND)) else { return };
    let mut random = Random::seeded("crash child");
    let config = small(Path::new(&dir));
    let mut fails_at = None;
    if let Ok(at) = std::env::var(AT) {
        let numbers: Vec<u64> = at.split(' ').map(|number| number.parse().unwrap()).collect();
        let (step, fault, _) = STEPS[usize::try_from(numbers[0]).unwrap()];
        config.faults.plan(step, numbers[1], 1, fault);
        fails_at = (step == Step::Quarantine).then_some(version_of_round(&round) + 200);
    }
    let store = opened(config).await;
    let mut version = version_of_round(&round);
    loop {
        version += 1;
        if fails_at == Some(version) {
            store.fail_disk("on purpose");
        }
        let path = format!("/{}", random.below(KEYS));
        match random.below(12) {
            // What the disk does not take for the moment is no matter here.
            0..10 => drop(try_put_path(&store, &path, version, length_of(&mut random)).await),
            10 => drop(serve(&store, &path).await),
            _ => {
                let selector = match random.below(16) {
                    0 => Selector::Everything,
                    1..8 => Selector::SurrogateKeys { site: None, keys: vec![format!("key-{path}").into()] },
                    _ => Selector::Url { authority: "a.example".into(), path: path.as_str().into(), query: None },
                };
                let everything = selector == Selector::Everything;
                store.purge(crate::Purge::of(selector, PurgeMode::Hard, now()), crate::COUNT_WAIT).await.unwrap();
                let named = if everything { "*" } else { &path };
                // Every version up to this one was fetched before the purge.
                writeln!(std::io::stdout(), "\npurged {named} {version}").unwrap();
                let stats = store.stats();
                let work = [stats.segments_evicted, stats.segments_compacted, stats.index_rebuilds];
                writeln!(std::io::stdout(), "work {} {} {}", work[0], work[1], work[2]).unwrap();
            }
        }
    }
}

/// What the killed processes have promised, and what was seen after each.
#[derive(Default)]
struct Promises {
    purged: HashMap<String, u64>,
    purges: usize,
    served: usize,
    /// Segments evicted and compacted, indexes rebuilt.
    work: [u64; 3],
}

fn start(dir: &Path, round: u64, at: Option<String>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tests::crash::child", "--nocapture"]);
    command.env(DIR, dir).env(ROUND, round.to_string()).stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some(at) = at {
        command.env(AT, at);
    }
    command.spawn().unwrap()
}

impl Promises {
    /// Takes down what the child says until it is gone; `kill` sees to that.
    fn hear(&mut self, mut child: Child, kill: impl FnOnce(&mut Child)) {
        let lines = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || lines.lines().map_while(Result::ok).collect::<Vec<_>>());
        kill(&mut child);
        child.wait().unwrap();
        let mut work = [0; 3];
        for line in reader.join().unwrap() {
            let words: Vec<&str> = line.split(' ').collect();
            // A line that was cut off has fewer digits: it claims less, never more.
            if let ["purged", named, version] = words[..] {
                self.purged.insert(named.to_owned(), version.parse().unwrap_or(0));
                self.purges += 1;
            }
            if let ["work", evicted, compacted, rebuilt] = words[..] {
                work = [evicted, compacted, rebuilt].map(|count| count.parse().unwrap_or(0));
            }
        }
        self.work.iter_mut().zip(work).for_each(|(all, of_one)| *all += of_one);
    }

    /// Every acknowledged purge holds, and every body served is one that was stored under its key.
    fn check(&mut self, runtime: &Runtime, dir: &Path, what: &str) {
        let store = runtime.block_on(Store::open(small(dir))).unwrap();
        runtime.block_on(ready(&store));
        for n in 0..KEYS {
            let path = format!("/{n}");
            if let Some(bytes) = runtime.block_on(serve(&store, &path)) {
                let version = version_of(&path, &bytes);
                let floor = self.purged.get(&path).max(self.purged.get("*")).copied().unwrap_or(0);
                assert!(version > floor, "{what}: {path} version {version} was purged at {floor}");
                self.served += 1;
            }
        }
        let stats = store.stats();
        assert_eq!(stats.quarantined, 0, "{what}: a kill must not cost the store");
        assert_eq!(stats.damaged, 0, "{what}: a kill damages nothing that is named");
        runtime.block_on(store.close());
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn kill_9_loses_no_acknowledged_purge_and_serves_no_wrong_body() {
    let dir = tempfile::tempdir().unwrap();
    let (mut random, mut promises) = (Random::seeded("kill_9"), Promises::default());
    for round in 1..=KILLS {
        promises.hear(start(dir.path(), round, None), |child| {
            std::thread::sleep(Duration::from_millis(60 + random.below(400)));
            child.kill().unwrap();
        });
        promises.check(&runtime(), dir.path(), &format!("kill {round}"));
    }
    println!("{} purges acknowledged, {} bodies served after {KILLS} kills", promises.purges, promises.served);
    println!("{:?} segments evicted and compacted, indexes rebuilt", promises.work);
    assert!(promises.purges > 10 && promises.served > 10);
    // Rebuilding is rare; the kill at its step shows that it happens.
    assert!(promises.work[0] > 10 && promises.work[1] > 10, "{:?}", promises.work);
}

/// The process dies at each step that writes, before it or with half of it written, at a moment of the step's life that is drawn.
#[test]
fn a_kill_at_any_step_loses_no_acknowledged_purge_and_serves_no_wrong_body() {
    let dir = tempfile::tempdir().unwrap();
    let (mut random, mut promises) = (Random::seeded("kill at steps"), Promises::default());
    for (round, (n, (step, fault, passed_max))) in (1..).zip((0..).zip(STEPS)) {
        let is_first_start = n >= STEPS.len() - 4;
        let new = tempfile::tempdir().unwrap();
        let (dir, mut first) = (if is_first_start { new.path() } else { dir.path() }, Promises::default());
        let promises = if is_first_start { &mut first } else { &mut promises };
        let skipped = random.below(passed_max);
        let what = format!("{step:?} {fault:?} after {skipped}");
        promises.hear(start(dir, round, Some(format!("{n} {skipped}"))), |child| {
            let deadline = Instant::now() + STEP_DEADLINE;
            while child.try_wait().unwrap().is_none() {
                if Instant::now() > deadline {
                    child.kill().unwrap();
                    panic!("{what}: the step was never reached");
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        promises.check(&runtime(), dir, &what);
    }
    println!("{} purges acknowledged, {} bodies served", promises.purges, promises.served);
    assert!(promises.purges > 10 && promises.served > 10);
}
