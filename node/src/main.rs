//! The binary `brim`.

use std::process::ExitCode;

/// Many short-lived buffers of all sizes on several threads: the system's allocator is slower at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Freed memory goes back to the system after so many milliseconds, a hundredth of mimalloc's default: bodies of all lengths come and go, and
/// what is kept back for the next ones makes a node half as large again (figures in `benches/README.md`).
const PURGE_DELAY_MS: std::ffi::c_long = 10;
/// `mi_option_purge_delay` of mimalloc 3, which its bindings do not name.
const OPTION_PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    #[expect(unsafe_code, reason = "a call into C that sets a number; no other thread runs yet")]
    // SAFETY: the option is one of the enumeration's, and any value is valid for it.
    unsafe {
        libmimalloc_sys::mi_option_set(OPTION_PURGE_DELAY, PURGE_DELAY_MS);
    }
    // A huge page is zeroed as a whole when its first byte is touched, and is resident as a whole from then on: a cache of
    // small bodies would pay for memory that it does not use. Where the kernel cannot be told so, it only costs more.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    brim_node::cli::run(std::env::args_os())
}
