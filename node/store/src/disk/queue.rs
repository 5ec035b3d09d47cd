//! What waits for the writer.
//!
//! Always true: at most `bytes_max` of bodies and heads wait, in at most `WRITE_QUEUE_COUNT_MAX` writes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::catalog::Which;
use crate::config::WRITE_QUEUE_COUNT_MAX;
use crate::response::StoredResponse;

/// One change of the disk tier.
pub(crate) enum Op {
    /// Write the body, if it has no place yet, and the index entry.
    Write(Arc<StoredResponse>),
    /// Remove the index entries of cards that are gone.
    Forget(Vec<Which>),
    /// A body or an entry that cannot be read: remove it everywhere.
    Damaged(Which, String),
    /// A streaming body needs so many bytes more than the budget has.
    MakeRoom(u64),
    /// Make everything before this durable.
    Flush(oneshot::Sender<()>),
}

#[derive(Default)]
struct Inner {
    ops: VecDeque<Op>,
    bytes: u64,
    closed: bool,
}

pub(crate) struct WriteQueue {
    bytes_max: u64,
    inner: Mutex<Inner>,
    wake: Condvar,
}

/// What the writer does next.
pub(crate) enum Next {
    Op(Op),
    /// Nothing came: time for housekeeping.
    Idle,
    Closed,
}

fn cost(op: &Op) -> u64 {
    match op {
        Op::Write(response) => response.weight(),
        Op::Forget(_) | Op::Damaged(..) | Op::MakeRoom(_) | Op::Flush(_) => 0,
    }
}

impl WriteQueue {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, inner: Mutex::default(), wake: Condvar::new() }
    }

    /// False: the queue is full, or closed. Only writes are refused for want of room; the others are bounded by what
    /// the catalog holds, and a body that is on disk already must get its entry or be removed.
    pub(crate) fn push(&self, op: Op) -> bool {
        let mut inner = self.inner.lock();
        let is_full = match &op {
            Op::Write(response) => {
                response.bytes.is_some()
                    && (inner.ops.len() >= WRITE_QUEUE_COUNT_MAX || inner.bytes + cost(&op) > self.bytes_max)
            }
            Op::Damaged(..) | Op::MakeRoom(_) => inner.ops.len() >= WRITE_QUEUE_COUNT_MAX,
            Op::Forget(_) | Op::Flush(_) => false,
        };
        if inner.closed || is_full {
            return false;
        }
        inner.bytes += cost(&op);
        inner.ops.push_back(op);
        drop(inner);
        self.wake.notify_one();
        true
    }

    /// Who has taken it cannot do it: it is the next again.
    pub(crate) fn put_back(&self, op: Op) {
        let mut inner = self.inner.lock();
        inner.bytes += cost(&op);
        inner.ops.push_front(op);
        drop(inner);
        self.wake.notify_one();
    }

    pub(crate) fn next(&self, wait: Duration) -> Next {
        let deadline = Instant::now() + wait;
        let mut inner = self.inner.lock();
        loop {
            if let Some(op) = inner.ops.pop_front() {
                inner.bytes -= cost(&op);
                return Next::Op(op);
            }
            if inner.closed {
                return Next::Closed;
            }
            if self.wake.wait_until(&mut inner, deadline).timed_out() {
                return Next::Idle;
            }
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.inner.lock().bytes
    }

    /// What waits is still done.
    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
        self.wake.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inner.lock().closed
    }
}
