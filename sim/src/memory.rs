//! What each agent holds in memory: an allocator that counts, by whose turn it is.
//!
//! All agents of a simulation are on one thread, and the trace knows whose turn it is. What is allocated in an agent's turn is
//! its own until it is freed in a turn of its own. Only datagrams are handed over, and as many come as go.
#![allow(unsafe_code, reason = "an allocator is unsafe by nature; nothing else here is")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

/// Whose turn it can be: a hundred regions, the clients, the liar, and nobody's.
const MAX_OWNERS: usize = 128;

/// Nobody's turn.
const NOBODY: usize = MAX_OWNERS - 1;

thread_local! {
    // Without lazy initialisation and without destructors, which an allocator must not need.
    static OWNER: Cell<usize> = const { Cell::new(NOBODY) };
    static HELD: [Cell<i64>; MAX_OWNERS] = const { [const { Cell::new(0) }; MAX_OWNERS] };
}

/// From now on it is the turn of the node of this number, or nobody's.
pub(crate) fn set_owner(node: Option<usize>) {
    OWNER.set(node.map_or(NOBODY, |node| node.min(NOBODY)));
}

/// How many bytes the node of this number holds.
pub(crate) fn held(node: usize) -> i64 {
    HELD.with(|held| held[node.min(NOBODY)].get())
}

/// The node of this number has lost power: whatever it held is nobody's.
pub(crate) fn forget(node: usize) {
    HELD.with(|held| held[node.min(NOBODY)].set(0));
}

fn count(bytes: i64) {
    HELD.with(|held| {
        let held = &held[OWNER.get()];
        held.set(held.get() + bytes);
    });
}

/// An allocator that counts what `A` gives and takes.
pub struct Counting<A>(pub A);

// SAFETY: passes everything on as it is.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        unsafe { self.0.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        unsafe { self.0.realloc(pointer, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_belongs_to_whose_turn_it_is_until_it_is_freed() {
        let allocator = Counting(std::alloc::System);
        let layout = Layout::from_size_align(1_000, 8).unwrap();
        set_owner(Some(3));
        // SAFETY: freed below with the size that it has then.
        let pointer = unsafe { allocator.alloc(layout) };
        let pointer = unsafe { allocator.realloc(pointer, layout, 1_500) };
        set_owner(None);
        assert_eq!(held(3), 1_500);
        set_owner(Some(3));
        unsafe { allocator.dealloc(pointer, Layout::from_size_align(1_500, 8).unwrap()) };
        set_owner(None);
        assert_eq!(held(3), 0);
    }
}
