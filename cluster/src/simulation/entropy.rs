//! What makes two runs differ, closed: the system's random numbers and clocks, as this thread sees
//! them.
//!
//! The linker resolves `getrandom` and `clock_gettime` to the functions here before it looks at libc,
//! so *all* code of the test binary comes through: the standard library (the seeds of its hash maps,
//! and with them tokio's `select!`), openraft's election timeouts, our ids, every `Instant`. On a
//! thread that doesn't simulate they do what libc does.

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::time::Duration;

/// Unix time at which simulations begin: 2027-01-15.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);
/// What the monotonic clock shows then.
const BOOT: Duration = Duration::from_secs(1_000);

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
    static ELAPSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static WALL_OFFSET: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Closes the entropy of this thread, for good.
pub(super) fn close(seed: u64) {
    RANDOM.set(seed);
    ACTIVE.set(true);
}

pub(super) fn active() -> bool {
    ACTIVE.get()
}

/// Moves this thread's clocks to `elapsed` after the begin.
pub(super) fn set_elapsed(elapsed: Duration) {
    ELAPSED.set(elapsed);
}

/// Moves the wall clock, and only that one, to `offset` after where it should be.
pub(super) fn set_wall_offset(offset: Duration) {
    WALL_OFFSET.set(offset);
}

/// The next number of this thread's sequence (SplitMix64).
fn next() -> u64 {
    let state = RANDOM.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    RANDOM.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// As libc's. `buffer` must have room for `length` bytes.
#[expect(unsafe_code, reason = "stands for a function of libc")]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    if !ACTIVE.get() {
        // SAFETY: the caller's promises are passed on.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as isize };
    }
    for (at, byte) in (0..length).zip(std::iter::repeat_with(next).flat_map(u64::to_ne_bytes)) {
        // SAFETY: the caller promises room for `length` bytes.
        unsafe { buffer.cast::<u8>().add(at).write(byte) };
    }
    length as isize
}

/// As libc's. `time` must be valid for a write.
#[expect(unsafe_code, reason = "stands for a function of libc")]
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut libc::timespec) -> c_int {
    if !ACTIVE.get() {
        // SAFETY: the caller's promises are passed on.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as c_int };
    }
    let now = ELAPSED.get()
        + match clock {
            libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => EPOCH + WALL_OFFSET.get(),
            _ => BOOT,
        };
    let now = libc::timespec {
        tv_sec: now.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(now.subsec_nanos()),
    };
    // SAFETY: the caller promises that it may be written.
    unsafe { time.write(now) };
    0
}
