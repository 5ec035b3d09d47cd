//! The test harness of Brim: what stands before, behind and around a node in a test, and how to wait for it.
//!
//! ```text
//! Client, RawConnection  →  node under test  →  FakeOrigin, RawOrigin
//!                    BrimProcess (the real binary)
//! ```
//!
//! Always true:
//! - Every server listens on port 0 of the loopback interface; tests run beside one another.
//! - Every wait has a deadline ([`DEADLINE`]) and says in its panic what was waited for.
//! - Where something can be awaited as an event, it is: [`Gate`], [`FakeOrigin::wait_for_requests`].
//!   Only [`eventually`] looks again and again, for what the node alone knows.
//! - A [`FakeOrigin`] has a thread and a runtime of its own, so a test may block beside it.
//!
//! A helper that fails panics where the test called it: in a test there is nobody to hand an error to. Where the error
//! is what is tested, there is a `try_…` beside it.

#![allow(clippy::missing_panics_doc, reason = "panicking is how a test helper reports")]

mod answer;
mod certificates;
mod client;
mod clock;
mod connect;
mod content;
mod fake_origin;
mod gate;
mod listening;
mod node;
pub mod plugins;
mod process;
mod raw;
mod reply;
mod small_disk;
mod wait;

pub use answer::{Answer, CacheStatus, Connected};
pub use certificates::{Leaf, TestCa, Trust};
pub use client::{Ask, Client, ClientError, Streaming};
pub use clock::FakeClock;
pub use content::Content;
pub use fake_origin::{FakeOrigin, OriginSetup, Recorded};
pub use gate::Gate;
pub use listening::Listening;
pub use node::TestNode;
pub use process::{AdminAnswer, BrimProcess, DATA_DIR};
pub use raw::{RawConnection, RawOrigin, RawReply};
pub use reply::{Reply, dropped_connection, not_modified, ok, status};
pub use small_disk::SmallDisk;
pub use wait::{DEADLINE, eventually, within};
