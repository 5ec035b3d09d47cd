//! What waits for the writer.
//!
//! Always true:
//! - At most `bytes_max` of bodies and heads wait, in at most `WRITE_QUEUE_COUNT_MAX` writes.
//! - At most `forgets_max` removals wait. What is beyond is not lost: a rebuild of the index finds it
//!   ([`WriteQueue::take_lost_forgets`]).

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
    /// Removals that wait.
    forgets: usize,
    has_lost_forgets: bool,
    closed: bool,
}

impl Inner {
    fn count_in(&mut self, op: &Op) {
        self.bytes += cost(op);
        self.forgets += forgets(op);
    }

    fn count_out(&mut self, op: &Op) {
        self.bytes -= cost(op);
        self.forgets -= forgets(op);
    }
}

pub(crate) struct WriteQueue {
    bytes_max: u64,
    forgets_max: usize,
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

fn forgets(op: &Op) -> usize {
    if let Op::Forget(gone) = op { gone.len() } else { 0 }
}

impl WriteQueue {
    pub(crate) fn new(bytes_max: u64, forgets_max: usize) -> Self {
        Self { bytes_max, forgets_max, inner: Mutex::default(), wake: Condvar::new() }
    }

    /// False: the queue is full, or closed. A write of a body that is on disk already is not refused for want of room: it must get
    /// its entry or be removed.
    pub(crate) fn push(&self, op: Op) -> bool {
        let mut inner = self.inner.lock();
        let is_full = match &op {
            Op::Write(response) => {
                response.bytes.is_some()
                    && (inner.ops.len() >= WRITE_QUEUE_COUNT_MAX || inner.bytes + cost(&op) > self.bytes_max)
            }
            Op::Damaged(..) | Op::MakeRoom(_) => inner.ops.len() >= WRITE_QUEUE_COUNT_MAX,
            Op::Forget(gone) => inner.forgets + gone.len() > self.forgets_max,
            Op::Flush(_) => false,
        };
        inner.has_lost_forgets |= is_full && matches!(op, Op::Forget(_));
        if inner.closed || is_full {
            return false;
        }
        inner.count_in(&op);
        match (op, inner.ops.back_mut()) {
            (Op::Forget(gone), Some(Op::Forget(waiting))) => waiting.extend(gone),
            (op, _) => inner.ops.push_back(op),
        }
        drop(inner);
        self.wake.notify_one();
        true
    }

    /// Who has taken it cannot do it: it is the next again.
    pub(crate) fn put_back(&self, op: Op) {
        let mut inner = self.inner.lock();
        inner.count_in(&op);
        inner.ops.push_front(op);
        drop(inner);
        self.wake.notify_one();
    }

    pub(crate) fn next(&self, wait: Duration) -> Next {
        let deadline = Instant::now() + wait;
        let mut inner = self.inner.lock();
        loop {
            if let Some(op) = inner.ops.pop_front() {
                inner.count_out(&op);
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

    /// True, once: removals found no room.
    pub(crate) fn take_lost_forgets(&self) -> bool {
        std::mem::take(&mut self.inner.lock().has_lost_forgets)
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

#[cfg(test)]
mod tests {
    use brim_semantics::KeyHash;

    use super::*;

    #[test]
    fn removals_that_find_no_room_are_remembered() {
        let queue = WriteQueue::new(0, 3);
        let which = |serial| Which { key: KeyHash([0; 16]), variant: 0, serial };
        assert!(queue.push(Op::Forget(vec![which(1)])));
        assert!(queue.push(Op::Forget(vec![which(2), which(3)])));
        assert!(!queue.take_lost_forgets());
        assert!(!queue.push(Op::Forget(vec![which(4)])));
        assert!(queue.take_lost_forgets() && !queue.take_lost_forgets());
        let Next::Op(Op::Forget(gone)) = queue.next(Duration::ZERO) else { panic!("nothing there") };
        assert_eq!(gone, [which(1), which(2), which(3)], "one removal for all that waits together");
        assert!(matches!(queue.next(Duration::ZERO), Next::Idle));
        assert!(queue.push(Op::Forget(vec![which(5); 3])), "there is room again");
    }
}
