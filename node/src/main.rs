//! The binary `brim`.

use std::process::ExitCode;

/// Many short-lived buffers of all sizes on several threads: the system's allocator is slower at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    brim_node::cli::run(std::env::args_os())
}
