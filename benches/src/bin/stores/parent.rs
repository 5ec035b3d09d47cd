//! The process that starts the others, one after the other, and gathers what they measured.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use crate::Args;
use crate::brim::Reading;
use crate::corpus::Corpus;
use crate::phase::{Figures, Order, Pages, Phase, Step};
use crate::subject::Kind;
use crate::{report, usage};

/// One step of one store. It is bounded by what it does; this is for a store that hangs.
const STEP_MAX: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often a store is opened with its pages in the page cache.
const WARM_OPENS: usize = 3;
const RAW_BYTES: usize = 512 << 20;

/// What was measured, in the order of the steps.
pub(crate) struct Run {
    pub(crate) done: Vec<(Kind, Step, Figures)>,
    /// What the disk takes from one file in sequence, durable at the end.
    pub(crate) raw_bytes_per_second: f64,
    /// Of all responses: heads and contents.
    pub(crate) live_bytes: u64,
    /// What others had the machine do in the minute before.
    pub(crate) load_before: String,
    pub(crate) opened_count: u64,
    pub(crate) seconds: f64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Run> {
    let began = Instant::now();
    let dir = match &args.dir {
        Some(dir) => TempDir::new_in(dir),
        None => TempDir::new(),
    }
    .context("make a directory for the data")?;
    let mut run = Run {
        done: Vec::new(),
        live_bytes: Corpus::new(args.count)?.live_bytes(|_| true),
        load_before: usage::load()?,
        raw_bytes_per_second: raw_rate(dir.path())?,
        opened_count: Corpus::count_of_bytes(args.open_gib << 30)?,
        seconds: 0.0,
    };
    let wants = |phase| args.phases.contains(&phase);
    if wants(Phase::Put) || wants(Phase::Read) || wants(Phase::Space) {
        run.compare(args, dir.path())?;
    }
    if wants(Phase::Open) && args.open_gib > 0 {
        run.open(args, dir.path())?;
    }
    run.seconds = began.elapsed().as_secs_f64();
    Ok(run)
}

impl Run {
    /// All stores take turns: what the machine does meanwhile meets each of them.
    fn compare(&mut self, args: &Args, dir: &Path) -> anyhow::Result<()> {
        let data = |kind| dir.join(format!("{kind:?}"));
        for kind in &args.stores {
            self.step(args, Step::Put, *kind, data(*kind), args.count)?;
        }
        let kept: Vec<Kind> = args.stores.iter().copied().filter(|kind| kind.keeps()).collect();
        if args.phases.contains(&Phase::Read) {
            for kind in &kept {
                let readings: &[Reading] = match kind {
                    Kind::Brim => &[Reading::Memory, Reading::Blocking, Reading::Load, Reading::Loads],
                    Kind::Sled | Kind::Files | Kind::Nothing => &[Reading::Seldom],
                };
                for reading in readings {
                    self.step(args, Step::Read(*reading), *kind, data(*kind), args.count)?;
                }
            }
        }
        if args.phases.contains(&Phase::Space) {
            for step in [Step::Overwrite, Step::Remove] {
                for kind in &kept {
                    self.step(args, step, *kind, data(*kind), args.count)?;
                }
            }
        }
        for kind in kept {
            std::fs::remove_dir_all(data(kind))?;
        }
        Ok(())
    }

    fn open(&mut self, args: &Args, dir: &Path) -> anyhow::Result<()> {
        // Files have nothing to open.
        for kind in args.stores.iter().copied().filter(|kind| matches!(kind, Kind::Brim | Kind::Sled)) {
            let data = dir.join(format!("{kind:?}-large"));
            make_dir(&data)?;
            self.start(args, Step::Put, kind, data.clone(), self.opened_count)?;
            for _ in 0..WARM_OPENS {
                self.step(args, Step::Open(Pages::Warm), kind, data.clone(), self.opened_count)?;
            }
            self.step(args, Step::Open(Pages::Dropped), kind, data.clone(), self.opened_count)?;
            std::fs::remove_dir_all(data)?;
        }
        Ok(())
    }

    fn step(&mut self, args: &Args, step: Step, kind: Kind, dir: PathBuf, count: u64) -> anyhow::Result<()> {
        let figures = self.start(args, step, kind, dir, count)?;
        self.done.push((kind, step, figures));
        Ok(())
    }

    fn start(&self, args: &Args, step: Step, kind: Kind, dir: PathBuf, count: u64) -> anyhow::Result<Figures> {
        make_dir(&dir)?;
        let began = Instant::now();
        let order = Order { step, kind, dir, count, seconds: args.seconds };
        let figures = obey(&order).with_context(|| format!("{step:?} of {}", kind.name()))?;
        report::progress(&order, began.elapsed())?;
        Ok(figures)
    }
}

fn make_dir(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))
}

/// Has a process of its own do it.
fn obey(order: &Order) -> anyhow::Result<Figures> {
    let program = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(program);
    command.arg("--order").arg(serde_json::to_string(order)?).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("start a process")?;
    let mut answer = child.stdout.take().context("its output is not a pipe")?;
    let reader = thread::spawn(move || {
        let mut text = String::new();
        answer.read_to_string(&mut text).map(|_| text)
    });
    end(&mut child)?;
    let Ok(text) = reader.join() else { bail!("reading its answer panicked") };
    serde_json::from_str(&text?).context("its answer is none")
}

/// Waits until a process has ended, and kills it if that takes too long.
fn end(child: &mut Child) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "its process ended with {status}");
            return Ok(());
        }
        if began.elapsed() > STEP_MAX {
            child.kill()?;
            child.wait()?;
            bail!("it took longer than {STEP_MAX:?}");
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn raw_rate(dir: &Path) -> anyhow::Result<f64> {
    // Bytes that differ: a disk may be clever about zeros.
    let piece: Vec<u8> = (0..1_u32 << 18).flat_map(|word| word.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect();
    let path = dir.join("raw");
    let mut file = File::create(&path)?;
    let began = Instant::now();
    for _ in 0..RAW_BYTES / piece.len() {
        file.write_all(&piece)?;
    }
    file.sync_data()?;
    let rate = RAW_BYTES as f64 / began.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}
