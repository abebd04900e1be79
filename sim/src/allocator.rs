//! Where the simulator's memory comes from: mimalloc, asked as fast as it can be. A simulation allocates all the time, and glibc's allocator was an
//! eighth of it.
#![allow(unsafe_code, reason = "an allocator is unsafe by nature, and neither mimalloc's options nor the kernel's have a safe interface")]

use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_long, c_void};
use tradewind_sim::memory::Counting;

#[global_allocator]
static ALLOCATOR: Counting<Plain> = Counting(Plain);

/// mimalloc, asked for an alignment only where it matters: it looks for room with one more slowly, also with one that all room has.
struct Plain;

/// What mimalloc gives is a multiple of this (`MI_MAX_ALIGN_SIZE`, what C wants of malloc), if it is not smaller itself.
const USUAL_ALIGN: usize = 16;

unsafe extern "C" {
    fn mi_malloc(size: usize) -> *mut c_void;
    fn mi_zalloc(size: usize) -> *mut c_void;
}

fn is_usual(layout: Layout) -> bool {
    layout.align() <= USUAL_ALIGN && layout.size() >= layout.align()
}

// SAFETY: mimalloc's own, which frees and resizes whatever any of its functions has given; see `USUAL_ALIGN`.
unsafe impl GlobalAlloc for Plain {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_usual(layout) { unsafe { mi_malloc(layout.size()).cast() } } else { unsafe { MiMalloc.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_usual(layout) { unsafe { mi_zalloc(layout.size()).cast() } } else { unsafe { MiMalloc.alloc_zeroed(layout) } }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }
}

/// Freed memory is not given back to the system: a simulation asks for the same again within the millisecond, and the kernel would clear it
/// anew each time (18,751 page faults in a minute of `planet30`; 2,245 without). Nor does the kernel clear two megabytes where a page is
/// asked for: most of them are never used, and clearing them was a twentieth of `smoke`.
pub(crate) fn spare_the_kernel() {
    const PURGE_DELAY: c_int = 15;
    const NEVER: c_long = -1;
    unsafe extern "C" {
        fn mi_option_set(option: c_int, value: c_long);
    }
    // SAFETY: declared so by mimalloc.h; sets a number that allocations look at, and no other thread runs yet.
    unsafe { mi_option_set(PURGE_DELAY, NEVER) }
    #[cfg(target_os = "linux")]
    // SAFETY: takes numbers only. It is a hint: where it is refused, the run takes longer.
    let _ = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}
