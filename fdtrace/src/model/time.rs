//! Time since boot, which only moves forward, and the wall clock a person reads.

use std::time::{Duration, SystemTime};

/// `CLOCK_BOOTTIME`: runs on while the machine is suspended, is never set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootTime(pub Duration);

impl BootTime {
    /// From the kernel's nanoseconds.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(Duration::from_nanos(nanos))
    }

    /// How long `self` is after `earlier`; zero where it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// What the wall clock said at some boot time: turns every other boot time into a date.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    /// Of one reading.
    pub boot: BootTime,
    /// Of the same.
    pub wall: SystemTime,
}

impl WallClock {
    /// The date of a boot time, as the wall clock stands now.
    #[must_use]
    pub fn date(&self, at: BootTime) -> SystemTime {
        if at >= self.boot {
            self.wall + at.since(self.boot)
        } else {
            self.wall.checked_sub(self.boot.since(at)).unwrap_or(SystemTime::UNIX_EPOCH)
        }
    }
}
