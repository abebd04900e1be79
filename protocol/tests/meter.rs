//! Counts what this thread allocates, so that tests can hold the decoder to its word.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Meter;

#[global_allocator]
static METER: Meter = Meter;

thread_local! {
    // Constants without a destructor: reading them allocates nothing.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

// `realloc` is the trait's own: the old and the new block count together, as they may exist.
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn count(bytes: isize) {
    let live = LIVE.get() + bytes;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

/// The most bytes that `work` had allocated at once.
pub(crate) fn peak<T>(work: impl FnOnce() -> T) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    drop(work());
    (PEAK.get() - before).unsigned_abs()
}

#[test]
fn the_meter_sees_what_is_allocated_and_freed() {
    let size = 1 << 20;
    let one = peak(|| drop(vec![0u8; size]));
    assert!((size..size + 4096).contains(&one), "{one}");
    let two = peak(|| (vec![0u8; size], vec![0u8; size]));
    assert!((2 * size..2 * size + 4096).contains(&two), "{two}");
    assert!(peak(|| ()) < 64);
}
