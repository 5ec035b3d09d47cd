//! What the programs that measure the store have in common: responses that are made from their number.
//!
//! Always true: what a program stores and what it expects to read is a function of a number, a version and fixed seeds.
//!
//! Not here: what is measured (`src/bin`, `benches`).

mod content;
mod lengths;
mod responses;

pub use content::Contents;
pub use lengths::Lengths;
pub use responses::{Responses, store};
