//! The guest's allocator: a static arena first, the ordinary allocator when that is used up.
//!
//! Each call of a rule has a fresh instance, so nothing has to be given back. The first use of the ordinary allocator would grow
//! the memory, a system call that contends between threads; an arena in static memory lies in the part of the memory that the
//! host keeps resident between instances, and makes a call four times as cheap.
//!
//! Always true:
//! - Two live blocks never overlap.
//! - Only the last block is given back or grown in place.
#![allow(unsafe_code, reason = "an allocator is made of it")]
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "used by guests; compiled here for its tests"))]

use core::cell::UnsafeCell;
use std::alloc::{GlobalAlloc, Layout, System};

/// Stack (32 KiB), static data and arena together stay below the 256 KiB that the host keeps resident.
pub(crate) const ARENA_BYTES: usize = 128 * 1024;

#[cfg(target_arch = "wasm32")]
#[global_allocator]
static ALLOCATOR: Arena<ARENA_BYTES> = Arena::new();

/// Bump allocation in `SIZE` bytes, and `System` beyond.
#[repr(align(16))]
pub(crate) struct Arena<const SIZE: usize> {
    bytes: UnsafeCell<[u8; SIZE]>,
    used: UnsafeCell<usize>,
}

// SAFETY: a guest has one thread; the host never shares an instance, and the threads feature is not compiled in.
unsafe impl<const SIZE: usize> Sync for Arena<SIZE> {}

impl<const SIZE: usize> Arena<SIZE> {
    pub(crate) const fn new() -> Self {
        Self { bytes: UnsafeCell::new([0; SIZE]), used: UnsafeCell::new(0) }
    }

    fn start(&self) -> *mut u8 {
        self.bytes.get().cast()
    }

    /// The offset of a block within the arena; none if it came from `System`.
    fn offset_of(&self, block: *mut u8) -> Option<usize> {
        block.addr().checked_sub(self.start().addr()).filter(|&offset| offset < SIZE)
    }
}

// SAFETY: a block from the arena starts aligned at or above `used` and ends at the new `used`, so blocks do not overlap; blocks
// outside the arena are `System`'s and go back to it.
unsafe impl<const SIZE: usize> GlobalAlloc for Arena<SIZE> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: one thread, and no reference to the counter outlives this function.
        let used = unsafe { &mut *self.used.get() };
        let base = self.start().addr();
        let offset = (base + *used).next_multiple_of(layout.align()) - base;
        match offset.checked_add(layout.size()) {
            Some(end) if end <= SIZE && offset < SIZE => {
                *used = end;
                // SAFETY: offset + size lies within the arena.
                unsafe { self.start().add(offset) }
            }
            // SAFETY: the caller's layout is passed on.
            _ => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.offset_of(block) {
            Some(offset) => {
                // SAFETY: one thread, and no reference to the counter outlives this function.
                let used = unsafe { &mut *self.used.get() };
                if offset + layout.size() == *used {
                    *used = offset;
                }
            }
            // SAFETY: what is not the arena's came from `System` with this layout.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(offset) = self.offset_of(block) else {
            // SAFETY: what is not the arena's came from `System` with this layout.
            return unsafe { System.realloc(block, layout, new_size) };
        };
        // SAFETY: one thread, and no reference to the counter outlives this block.
        let used = unsafe { &mut *self.used.get() };
        let is_last = offset + layout.size() == *used;
        if is_last && offset.checked_add(new_size).is_some_and(|end| end <= SIZE) {
            *used = offset + new_size;
            return block;
        }
        if new_size <= layout.size() {
            return block;
        }
        // SAFETY: `new_size` with this alignment is the caller's promise; both blocks hold the bytes copied and do not overlap.
        unsafe {
            let grown = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !grown.is_null() {
                core::ptr::copy_nonoverlapping(block, grown, layout.size());
                self.dealloc(block, layout);
            }
            grown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn blocks_are_aligned_and_do_not_overlap() {
        let arena = Arena::<256>::new();
        // SAFETY: the layouts are valid; nothing outlives the arena.
        unsafe {
            let first = arena.alloc(layout(3, 1));
            let second = arena.alloc(layout(8, 8));
            assert_eq!(second.addr() % 8, 0);
            assert!(second.addr() >= first.addr() + 3);
        }
    }

    #[test]
    fn the_last_block_grows_in_place_and_is_given_back() {
        let arena = Arena::<64>::new();
        // SAFETY: the layouts are those the blocks were made with.
        unsafe {
            let block = arena.alloc(layout(8, 1));
            assert_eq!(arena.realloc(block, layout(8, 1), 64), block);
            arena.dealloc(block, layout(64, 1));
            assert_eq!(arena.alloc(layout(64, 1)), block);
        }
    }

    #[test]
    fn a_block_that_is_not_the_last_moves_with_its_bytes() {
        let arena = Arena::<64>::new();
        // SAFETY: the layouts are those the blocks were made with.
        unsafe {
            let block = arena.alloc(layout(4, 1));
            block.copy_from_nonoverlapping(b"brim".as_ptr(), 4);
            arena.alloc(layout(4, 1));
            let grown = arena.realloc(block, layout(4, 1), 8);
            assert_ne!(grown, block);
            assert_eq!(core::slice::from_raw_parts(grown, 4), b"brim");
        }
    }

    #[test]
    fn what_does_not_fit_comes_from_the_system() {
        let arena = Arena::<64>::new();
        // SAFETY: the layouts are those the blocks were made with.
        unsafe {
            let block = arena.alloc(layout(100, 4));
            assert!(!block.is_null() && arena.offset_of(block).is_none());
            let grown = arena.realloc(block, layout(100, 4), 200);
            arena.dealloc(grown, layout(200, 4));
        }
    }
}
