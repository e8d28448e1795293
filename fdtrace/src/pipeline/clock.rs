//! The host's clocks.

use std::time::{Duration, SystemTime};

use crate::model::{BootTime, WallClock};

/// Both clocks at this moment.
pub(super) fn read_clocks() -> WallClock {
    WallClock { boot: boot_time(), wall: SystemTime::now() }
}

/// `CLOCK_BOOTTIME`, by which the kernel side dates everything.
pub(super) fn boot_time() -> BootTime {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result; every kernel with BTF has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    BootTime(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
}
