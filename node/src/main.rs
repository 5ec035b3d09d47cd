//! The binary `brim`.

use std::process::ExitCode;

/// Many short-lived buffers of all sizes on several threads: the system's allocator is slower at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A huge page is zeroed as a whole when its first byte is touched, and is resident as a whole from then on: a cache of
    // small bodies would pay for memory that it does not use. Where the kernel cannot be told so, it only costs more.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    brim_node::cli::run(std::env::args_os())
}
