//! zstd's compression contexts, used again.
//!
//! chitchat has one made for each message that it compresses, and each asks the processor what it can do. That instruction, `cpuid`, is
//! answered by the host where this is a virtual machine, which takes longer than the message: a twentieth of `smoke` and `chaos`. So the
//! context that was freed last is kept for the next one, reset to what a new one is. The linker sends the calls here: see `build.rs`.
#![allow(unsafe_code, reason = "standing in for functions of C is unsafe by nature")]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;

/// `ZSTD_reset_session_and_parameters`.
const RESET_ALL: c_int = 3;

unsafe extern "C" {
    fn __real_ZSTD_createCCtx() -> *mut c_void;
    fn __real_ZSTD_freeCCtx(context: *mut c_void) -> usize;
    fn ZSTD_CCtx_reset(context: *mut c_void, what: c_int) -> usize;
}

/// A context that nobody uses, or null.
struct Kept(Cell<*mut c_void>);

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: it was made by zstd, and whoever had it has freed it. Null is allowed.
        unsafe { __real_ZSTD_freeCCtx(self.0.get()) };
    }
}

thread_local! { static KEPT: Kept = const { Kept(Cell::new(ptr::null_mut())) }; }

#[unsafe(no_mangle)]
extern "C" fn __wrap_ZSTD_createCCtx() -> *mut c_void {
    let kept = KEPT.try_with(|kept| kept.0.replace(ptr::null_mut())).unwrap_or(ptr::null_mut());
    // SAFETY: the context was made by zstd, and whoever had it has freed it.
    unsafe {
        // Other than 0 is an error.
        if !kept.is_null() && ZSTD_CCtx_reset(kept, RESET_ALL) == 0 {
            return kept;
        }
        __real_ZSTD_freeCCtx(kept);
        __real_ZSTD_createCCtx()
    }
}

/// # Safety
/// `context` is null, or was made by zstd and is not used any more.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_ZSTD_freeCCtx(context: *mut c_void) -> usize {
    let former = KEPT.try_with(|kept| kept.0.replace(context)).unwrap_or(context);
    // SAFETY: the caller's promise, of this call or of the one before.
    unsafe { __real_ZSTD_freeCCtx(former) }
}
