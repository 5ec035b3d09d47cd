//! Threads of our own for what blocks: index reads, body reads, body writes.
//!
//! Always true:
//! - A job that panics costs its own result and nothing else.
//! - Threads that hang can be left behind: what waited for them is dropped, others take their place.
//! - Loads that wait are bounded; reads and writes of bodies are not counted here, because each reader and each fill has
//!   one job at most.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Threads of an earlier one end with the job they have.
    generation: u64,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// A fixed number of threads and one queue.
pub(crate) struct Pool {
    name: &'static str,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

fn run(shared: &Shared, generation: u64) {
    loop {
        let job = {
            let mut queue = shared.queue.lock();
            loop {
                if queue.generation != generation {
                    return;
                }
                if let Some(job) = queue.jobs.pop_front() {
                    break job;
                }
                if queue.closed {
                    return;
                }
                shared.wake.wait(&mut queue);
            }
        };
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a disk job panicked; its result is lost");
        }
    }
}

impl Pool {
    pub(crate) fn start(name: &'static str, threads: usize) -> std::io::Result<Self> {
        let pool = Self { name, shared: Arc::default(), threads: Mutex::default() };
        *pool.threads.lock() = pool.spawn(threads, 0)?;
        Ok(pool)
    }

    fn spawn(&self, count: usize, generation: u64) -> std::io::Result<Vec<JoinHandle<()>>> {
        let spawn = |n: usize| {
            let shared = Arc::clone(&self.shared);
            let name = format!("{}-{n}", self.name);
            std::thread::Builder::new().name(name).spawn(move || run(&shared, generation))
        };
        (0..count).map(spawn).collect()
    }

    /// Leaves the threads with the jobs they have and drops what waits; as many new ones take over.
    pub(crate) fn leave_behind(&self) -> std::io::Result<()> {
        let mut threads = self.threads.lock();
        let (generation, dropped) = {
            let mut queue = self.shared.queue.lock();
            queue.generation += 1;
            (queue.generation, std::mem::take(&mut queue.jobs))
        };
        drop(dropped);
        self.shared.wake.notify_all();
        *threads = self.spawn(threads.len(), generation)?;
        Ok(())
    }

    /// The result, or an error when the pool is closed, the queue full (`waiting_max`), or the job panicked.
    pub(crate) fn submit<R: Send + 'static>(
        &self,
        waiting_max: usize,
        job: impl FnOnce() -> R + Send + 'static,
    ) -> oneshot::Receiver<R> {
        let (sender, receiver) = oneshot::channel();
        let mut queue = self.shared.queue.lock();
        if !queue.closed && queue.jobs.len() < waiting_max {
            queue.jobs.push_back(Box::new(move || {
                let _ = sender.send(job());
            }));
            drop(queue);
            self.shared.wake.notify_one();
        }
        receiver
    }

    /// What waits is still done. Blocks; not called from a job.
    pub(crate) fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.wake.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // The last handle on a pool may be dropped by one of its own jobs.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panicking_job_costs_its_own_result_and_nothing_else() {
        let pool = Pool::start("test", 1).unwrap();
        let lost = pool.submit(8, || -> u32 { panic!("on purpose") });
        let kept = pool.submit(8, || 7);
        assert!(lost.await.is_err());
        assert_eq!(kept.await, Ok(7));
    }

    #[tokio::test]
    async fn threads_that_hang_are_left_behind() {
        let pool = Pool::start("test", 1).unwrap();
        let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
        let (started, starts) = std::sync::mpsc::sync_channel::<()>(0);
        let stuck = pool.submit(8, move || {
            started.send(()).unwrap();
            held.recv()
        });
        starts.recv().unwrap();
        let waiting = pool.submit(8, || 1);
        pool.leave_behind().unwrap();
        assert!(waiting.await.is_err(), "it waited for what hangs");
        assert_eq!(pool.submit(8, || 2).await, Ok(2));
        drop(release);
        assert!(stuck.await.unwrap().is_err());
        pool.close();
    }

    #[tokio::test]
    async fn a_full_queue_refuses() {
        let pool = Pool::start("test", 1).unwrap();
        let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
        let (started, starts) = std::sync::mpsc::sync_channel::<()>(0);
        let first = pool.submit(1, move || {
            started.send(()).unwrap();
            held.recv()
        });
        starts.recv().unwrap();
        let second = pool.submit(1, || 2);
        let third = pool.submit(1, || 3);
        assert!(third.await.is_err());
        release.send(()).unwrap();
        assert!(first.await.is_ok());
        assert_eq!(second.await, Ok(2));
    }
}
