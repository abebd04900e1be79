//! The operating system's chance and clock, replaced on the threads of simulations.
//!
//! Some libraries below the agent draw entropy and read the clock themselves: chitchat through
//! `rand::rng()`, std's `HashMap` through `RandomState`. On glibc this file therefore defines the
//! libc functions they end in. On a thread that [`on_fresh_thread`] started they answer from a
//! seeded stream and from the simulation's time; on every other thread they pass the call on to
//! libc, so that several simulations and ordinary code live in one process.
//!
//! Elsewhere (macOS, musl) nothing is replaced, and [`is_covered`] says so: a simulation still
//! runs, but two runs of one seed may differ.
#![allow(
    unsafe_code,
    reason = "defining libc's getrandom, getentropy, syscall and clock_gettime is unsafe by nature; nothing else here is"
)]

use std::cell::Cell;
use std::hash::BuildHasher;
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

/// What simulated wall clocks show when a simulation begins: 2026-01-01T00:00:00Z, since 1970.
pub const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// Stack of a simulation's thread. Every agent of the world runs on it; unoptimised builds of the
/// deepest call chains (TLS inside QUIC inside three executors) were seen to need over 2 MiB.
const STACK_BYTES: usize = 16 << 20;

#[derive(Clone, Copy)]
struct Simulated {
    /// xoshiro256++ (Blackman and Vigna 2018).
    state: [u64; 4],
    now: Duration,
}

thread_local! {
    // Without lazy initialisation and without a destructor, so that it may be read from anywhere,
    // also while a thread ends.
    static SIMULATED: Cell<Option<Simulated>> = const { Cell::new(None) };
}

/// Runs `work` on a new thread, where the operating system's chance is drawn from `seed`.
///
/// The thread has to be new: `RandomState`, `rand::rng()` and tokio keep per-thread generators
/// that are seeded when first used. A panic in `work` is passed on.
pub fn on_fresh_thread<T: Send>(seed: u64, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let begin = || {
            SIMULATED.set(Some(Simulated { state: spread(seed), now: Duration::ZERO }));
            work()
        };
        let thread = std::thread::Builder::new().name("simulation".into()).stack_size(STACK_BYTES).spawn_scoped(scope, begin)?;
        thread.join().map_err(|panic| std::panic::resume_unwind(panic))
    })
}

/// Tells this thread's clocks how long the simulation has run.
pub(crate) fn set_now(now: Duration) {
    if let Some(mut simulated) = SIMULATED.get() {
        simulated.now = now;
        SIMULATED.set(Some(simulated));
    }
}

/// How long the simulation on this thread has run, as of its last step.
pub(crate) fn now() -> Duration {
    SIMULATED.get().map_or(Duration::ZERO, |simulated| simulated.now)
}

/// Processor time of this thread; zero where that cannot be told.
pub(crate) fn processor_time() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let mut spent = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a timespec that lives until the call has returned.
        if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut spent) } == 0 {
            return Duration::new(spent.tv_sec.cast_unsigned(), u32::try_from(spent.tv_nsec).unwrap_or_default());
        }
    }
    Duration::ZERO
}

/// Fills `bytes` from the thread's stream. False, and nothing written, outside a simulation.
pub(crate) fn fill(bytes: &mut [u8]) -> bool {
    let Some(mut simulated) = SIMULATED.get() else { return false };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&next(&mut simulated.state).to_le_bytes()[..chunk.len()]);
    }
    SIMULATED.set(Some(simulated));
    true
}

/// Whether this process replaces the operating system's chance and clock: found by trying.
pub fn is_covered() -> bool {
    static COVERED: OnceLock<bool> = OnceLock::new();
    *COVERED.get_or_init(|| {
        let probe = |seed| {
            on_fresh_thread(seed, || {
                let mut drawn = [0; 16];
                let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut drawn).is_ok();
                (filled, drawn, std::hash::RandomState::new().hash_one(0), SystemTime::now())
            })
        };
        matches!((probe(1), probe(1), probe(2)), (Ok(a), Ok(b), Ok(c)) if a == b && a.1 != c.1 && a.2 != c.2)
    })
}

fn next(s: &mut [u64; 4]) -> u64 {
    let drawn = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
    let shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = s[3].rotate_left(45);
    drawn
}

/// SplitMix64, as the authors of xoshiro advise for seeding it.
fn spread(seed: u64) -> [u64; 4] {
    let mut x = seed;
    std::array::from_fn(|_| {
        x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = x;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod overrides {
    use super::{EPOCH, SIMULATED, fill};
    use libc::{c_int, c_long, c_uint, c_void, clockid_t, size_t, ssize_t, timespec};
    use std::ffi::CStr;
    use std::sync::atomic::{AtomicPtr, Ordering};
    use std::time::Duration;

    /// What the monotonic clock shows when a simulation begins: after boot, so that subtracting
    /// a while from it does not fall below zero.
    const MONOTONIC_EPOCH: Duration = Duration::from_secs(1_000_000);

    /// libc's own definition of a function that is overridden here.
    struct Original {
        name: &'static CStr,
        found: AtomicPtr<c_void>,
    }

    impl Original {
        const fn named(name: &'static CStr) -> Self {
            Self { name, found: AtomicPtr::new(std::ptr::null_mut()) }
        }

        fn get(&self) -> Option<*mut c_void> {
            let mut found = self.found.load(Ordering::Relaxed);
            if found.is_null() {
                // SAFETY: the name is a C string, and RTLD_NEXT asks for the definition behind ours.
                found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
                self.found.store(found, Ordering::Relaxed);
            }
            (!found.is_null()).then_some(found)
        }
    }

    fn no_such_function() -> c_int {
        // SAFETY: errno is always writable.
        unsafe { *libc::__errno_location() = libc::ENOSYS };
        -1
    }

    /// # Safety
    /// As getrandom(2): `buffer` has room for `length` bytes.
    unsafe fn fill_raw(buffer: *mut c_void, length: size_t) -> bool {
        // SAFETY: the caller's promise; null is possible only for nothing.
        length > 0 && fill(unsafe { std::slice::from_raw_parts_mut(buffer.cast(), length) })
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn getrandom(buffer: *mut c_void, length: size_t, flags: c_uint) -> ssize_t {
        static ORIGINAL: Original = Original::named(c"getrandom");
        // SAFETY: the caller keeps getrandom's contract.
        if unsafe { fill_raw(buffer, length) } {
            return length.cast_signed();
        }
        let Some(original) = ORIGINAL.get() else { return no_such_function() as ssize_t };
        // SAFETY: libc's getrandom has this type, and the caller keeps its contract.
        unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, size_t, c_uint) -> ssize_t>(original)(
                buffer, length, flags,
            )
        }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn getentropy(buffer: *mut c_void, length: size_t) -> c_int {
        // SAFETY: the caller keeps getentropy's contract, which is getrandom's.
        let got = if length > 256 { -1 } else { unsafe { getrandom(buffer, length, 0) } };
        if got == length.cast_signed() { 0 } else { -1 }
    }

    /// Overridden because libraries reach getrandom(2) through it. Declared variadic in C; for
    /// integer arguments the calling conventions of x86-64, AArch64 and RISC-V do not differ.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long {
        static ORIGINAL: Original = Original::named(c"syscall");
        // SAFETY: the caller keeps the contract of getrandom(2) when it asks for that.
        if number == libc::SYS_getrandom && unsafe { fill_raw(a as *mut c_void, b) } {
            return b as c_long;
        }
        let Some(original) = ORIGINAL.get() else { return c_long::from(no_such_function()) };
        // SAFETY: libc's syscall has this type, and reads no more arguments than the number has.
        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_long, ...) -> c_long>(original)(number, a, b, c, d, e, f) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn clock_gettime(clock: clockid_t, out: *mut timespec) -> c_int {
        static ORIGINAL: Original = Original::named(c"clock_gettime");
        let epoch = match clock {
            libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => Some(EPOCH),
            libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_BOOTTIME => {
                Some(MONOTONIC_EPOCH)
            }
            // Clocks of CPU time and the like are nobody's clock in a simulation.
            _ => None,
        };
        if let (Some(epoch), Some(simulated)) = (epoch, SIMULATED.get()) {
            let now = epoch + simulated.now;
            // SAFETY: the caller gives room for a timespec.
            unsafe { *out = timespec { tv_sec: now.as_secs().cast_signed(), tv_nsec: i64::from(now.subsec_nanos()) } };
            return 0;
        }
        let Some(original) = ORIGINAL.get() else { return no_such_function() };
        // SAFETY: libc's clock_gettime has this type, and the caller keeps its contract.
        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(clockid_t, *mut timespec) -> c_int>(original)(clock, out) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn chance_and_time_of_a_simulation_are_its_seeds() {
        let draws = |seed| on_fresh_thread(seed, || (std::hash::RandomState::new().hash_one("x"), SystemTime::now())).unwrap();
        assert!(is_covered());
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1).0, draws(2).0);
        assert_eq!(draws(1).1, SystemTime::UNIX_EPOCH + EPOCH);
    }

    #[test]
    fn other_threads_keep_the_operating_systems() {
        let before = Instant::now();
        on_fresh_thread(1, || {
            set_now(Duration::from_secs(3600));
            assert_eq!(now(), Duration::from_secs(3600));
        })
        .unwrap();
        assert!(before.elapsed() < Duration::from_secs(3000));
        assert!(!fill(&mut [0; 8]), "this thread is not in a simulation");
        let mut keys = [0; 32];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut keys).unwrap();
        assert_ne!(keys, [0; 32]);
    }
}
