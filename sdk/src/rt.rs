//! What the generated bindings need at run time: the allocation function through which the host places arguments.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};

/// Called by the bindings so that the export below is linked.
pub(crate) fn maybe_link_cabi_realloc() {
    core::hint::black_box(cabi_realloc as unsafe extern "C" fn(*mut u8, usize, usize, usize) -> *mut u8);
}

/// The canonical ABI's allocation function.
#[allow(unsafe_code, reason = "the name and signature are the canonical ABI's")]
#[unsafe(export_name = "cabi_realloc")]
unsafe extern "C" fn cabi_realloc(old: *mut u8, old_len: usize, align: usize, new_len: usize) -> *mut u8 {
    if new_len == 0 {
        // Nothing is stored there; the address only has to be aligned.
        return core::ptr::without_provenance_mut(align);
    }
    // SAFETY: the host passes an alignment that is a power of two, and lengths it has placed or will place, below the memory's
    // size; where `old_len` is not 0, `old` came from this function with that length and alignment.
    unsafe {
        let block = if old_len == 0 {
            alloc(Layout::from_size_align_unchecked(new_len, align))
        } else {
            realloc(old, Layout::from_size_align_unchecked(old_len, align), new_len)
        };
        if block.is_null() {
            handle_alloc_error(Layout::from_size_align_unchecked(new_len, align));
        }
        block
    }
}

/// A block the bindings place a list of results in: given back when it drops, unless it was handed to the host.
#[derive(Debug)]
pub(crate) struct Cleanup {
    block: *mut u8,
    layout: Layout,
}

impl Cleanup {
    /// A block of this layout, and its guard. No guard for an empty block.
    #[allow(unsafe_code, reason = "allocates")]
    pub(crate) fn new(layout: Layout) -> (*mut u8, Option<Self>) {
        if layout.size() == 0 {
            return (core::ptr::null_mut(), None);
        }
        // SAFETY: the layout is not empty.
        let block = unsafe { alloc(layout) };
        if block.is_null() {
            handle_alloc_error(layout);
        }
        (block, Some(Self { block, layout }))
    }

    /// The host owns the block now.
    pub(crate) fn forget(self) {
        core::mem::forget(self);
    }
}

impl Drop for Cleanup {
    #[allow(unsafe_code, reason = "gives back what `new` allocated")]
    fn drop(&mut self) {
        // SAFETY: `new` allocated the block with this layout, and nothing else frees it.
        unsafe { dealloc(self.block, self.layout) }
    }
}
