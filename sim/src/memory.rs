//! What each agent holds in memory: an allocator that counts, by whose turn it is.
//!
//! All agents of a simulation are on one thread, and the trace knows whose turn it is. What is allocated in an agent's turn is
//! its own until it is freed, whoever frees it: a note before each allocation says whose it is, and of which life. So neither a
//! datagram that another has sent nor what a crash left over is taken off an agent's account. Disks and what is under way
//! between machines are [`unowned`]: they are the world's.
#![allow(unsafe_code, reason = "an allocator is unsafe by nature; nothing else here is")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ptr;

/// Whose turn it can be: a hundred regions, the clients, the liar, and nobody's.
const MAX_OWNERS: usize = 128;

/// Nobody's turn.
const NOBODY: usize = MAX_OWNERS - 1;

thread_local! {
    // Without lazy initialisation and without destructors, which an allocator must not need.
    static OWNER: Cell<usize> = const { Cell::new(NOBODY) };
    static HELD: [Cell<i64>; MAX_OWNERS] = const { [const { Cell::new(0) }; MAX_OWNERS] };
    /// How often each of them has lost power.
    static LIVES: [Cell<u32>; MAX_OWNERS] = const { [const { Cell::new(0) }; MAX_OWNERS] };
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
    let node = node.min(NOBODY);
    HELD.with(|held| held[node].set(0));
    LIVES.with(|lives| lives[node].set(lives[node].get().wrapping_add(1)));
}

/// As long as this is there, what is allocated is nobody's.
pub(crate) struct Unowned(usize);

/// What is allocated from now on is nobody's, until the answer is dropped.
pub(crate) fn unowned() -> Unowned {
    Unowned(OWNER.replace(NOBODY))
}

impl Drop for Unowned {
    fn drop(&mut self) {
        OWNER.set(self.0);
    }
}

/// What stands before each allocation.
#[derive(Clone, Copy)]
#[repr(C)]
struct Note {
    owner: u32,
    life: u32,
}

impl Note {
    /// Of an allocation that is made now.
    fn now() -> Self {
        let owner = OWNER.get();
        Self { owner: owner as u32, life: LIVES.with(|lives| lives[owner].get()) }
    }

    fn count(self, bytes: i64) {
        let owner = (self.owner as usize).min(NOBODY);
        if LIVES.with(|lives| lives[owner].get()) == self.life {
            HELD.with(|held| held[owner].set(held[owner].get() + bytes));
        }
    }
}

/// How far behind the beginning of what `A` gives the allocation begins, and what to ask `A` for.
fn with_note(layout: Layout) -> Option<(usize, Layout)> {
    let align = layout.align().max(align_of::<Note>());
    let offset = align.max(size_of::<Note>());
    let whole = Layout::from_size_align(layout.size().checked_add(offset)?, align).ok()?;
    Some((offset, whole))
}

/// An allocator that counts what `A` gives and takes.
pub struct Counting<A>(pub A);

impl<A: GlobalAlloc> Counting<A> {
    /// Notes whose the allocation is that begins at `offset` in what `base` points to.
    ///
    /// # Safety
    /// `base` is null or points to `offset` bytes at least, which is no less than a note has, at a multiple of a note's alignment.
    unsafe fn begin(base: *mut u8, offset: usize, size: usize) -> *mut u8 {
        if base.is_null() {
            return base;
        }
        let note = Note::now();
        note.count(size as i64);
        unsafe {
            let pointer = base.add(offset);
            pointer.cast::<Note>().sub(1).write(note);
            pointer
        }
    }
}

// SAFETY: passes everything on, with room for a note before it; sizes and alignments are those that were asked for.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((offset, whole)) = with_note(layout) else { return ptr::null_mut() };
        unsafe { Self::begin(self.0.alloc(whole), offset, layout.size()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some((offset, whole)) = with_note(layout) else { return ptr::null_mut() };
        unsafe { Self::begin(self.0.alloc_zeroed(whole), offset, layout.size()) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // Whatever was given has such a layout.
        let Some((offset, whole)) = with_note(layout) else { return };
        unsafe {
            pointer.cast::<Note>().sub(1).read().count(-(layout.size() as i64));
            self.0.dealloc(pointer.sub(offset), whole);
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some((offset, whole)) = with_note(layout) else { return ptr::null_mut() };
        let Some(wanted) = size.checked_add(offset) else { return ptr::null_mut() };
        unsafe {
            let note = pointer.cast::<Note>().sub(1).read();
            let base = self.0.realloc(pointer.sub(offset), whole, wanted);
            if base.is_null() {
                return base;
            }
            // The note was moved along.
            note.count(size as i64 - layout.size() as i64);
            base.add(offset)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout::new::<[u64; 125]>();

    fn free(pointer: *mut u8, layout: Layout) {
        // SAFETY: allocated below with this layout, or grown to it.
        unsafe { Counting(std::alloc::System).dealloc(pointer, layout) }
    }

    #[test]
    fn what_is_allocated_belongs_to_whose_turn_it_was_whoever_frees_it() {
        let allocator = Counting(std::alloc::System);
        set_owner(Some(3));
        // SAFETY: freed below with the size that it has then.
        let pointer = unsafe { allocator.realloc(allocator.alloc_zeroed(LAYOUT), LAYOUT, 1_500) };
        // SAFETY: it is as long as that.
        assert_eq!(unsafe { std::slice::from_raw_parts(pointer, 1_000) }, [0; 1_000]);
        set_owner(Some(4));
        assert_eq!((held(3), held(4)), (1_500, 0));
        free(pointer, Layout::from_size_align(1_500, 8).unwrap());
        assert_eq!((held(3), held(4)), (0, 0));
        let unowned = unowned();
        // SAFETY: freed below.
        let pointer = unsafe { allocator.alloc(LAYOUT) };
        drop(unowned);
        assert_eq!(held(4), 0, "the world's");
        free(pointer, LAYOUT);
        set_owner(None);
        assert_eq!(held(4), 0);
    }

    #[test]
    fn what_an_earlier_life_has_left_is_not_the_next_ones() {
        let allocator = Counting(std::alloc::System);
        set_owner(Some(5));
        // SAFETY: freed below.
        let former = unsafe { allocator.alloc(LAYOUT) };
        forget(5);
        // SAFETY: freed below.
        let pointer = unsafe { allocator.alloc(LAYOUT) };
        free(former, LAYOUT);
        assert_eq!(held(5), 1_000);
        free(pointer, LAYOUT);
        set_owner(None);
    }

    #[test]
    fn every_alignment_is_kept() {
        let allocator = Counting(std::alloc::System);
        for align in [1, 2, 4, 8, 16, 64, 4_096] {
            let layout = Layout::from_size_align(24, align).unwrap();
            // SAFETY: freed below with its own layout.
            let pointer = unsafe { allocator.alloc(layout) };
            assert_eq!(pointer as usize % align, 0);
            free(pointer, layout);
        }
    }
}
