//! The listening half over real sockets.

mod attacks;
mod drain;
pub(in crate::listen) mod harness;
mod http;
mod limits;
mod tls;
mod writes;
