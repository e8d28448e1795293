//! The host's clocks.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::model::{BootTime, WallClock};

/// Both clocks at this moment.
#[must_use]
pub fn read_clocks() -> WallClock {
    WallClock { boot: boot_time(), wall: SystemTime::now() }
}

/// `CLOCK_BOOTTIME`, by which the kernel side dates everything.
#[must_use]
pub fn boot_time() -> BootTime {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    BootTime(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
}
