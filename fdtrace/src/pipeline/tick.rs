//! A tick a second, and no other wakeup: tokio's own timers wake once more on their way through its
//! wheel, which doubles what an idle host pays.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::{
    io::{Errno, read},
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

/// Like `tokio::time::interval`, the first tick at once.
pub(super) struct Ticks {
    timer: AsyncFd<OwnedFd>,
}

impl Ticks {
    /// Must be called inside a tokio runtime.
    pub(super) fn every(period: Duration) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let interval = Timespec {
            tv_sec: i64::try_from(period.as_secs()).map_err(io::Error::other)?,
            tv_nsec: i64::from(period.subsec_nanos()),
        };
        // Zero would disarm it.
        let first = Timespec { tv_sec: 0, tv_nsec: 1 };
        let periodic = Itimerspec { it_interval: interval, it_value: first };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &periodic)?;
        // SAFETY: an `OwnedFd` is one descriptor for life.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
        Ok(Self { timer: timer.map_err(io::Error::from)? })
    }

    /// Waits for the next tick. Those that were missed meanwhile are one.
    pub(super) async fn next(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.timer.readable().await?;
            let mut expirations = [0; 8];
            match read(ready.get_inner(), &mut expirations) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn ticks_come_at_their_time_and_missed_ones_once() {
        const PERIOD: Duration = Duration::from_millis(200);
        let mut ticks = Ticks::every(PERIOD).unwrap();
        let start = Instant::now();
        ticks.next().await.unwrap();
        ticks.next().await.unwrap();
        assert!(start.elapsed() * 2 > PERIOD, "the second tick came at once");
        std::thread::sleep(PERIOD * 5 / 2);
        ticks.next().await.unwrap();
        // Of those that were missed nothing is left: half a period is to come.
        let soon = tokio::time::timeout(Duration::ZERO, ticks.next()).await;
        assert!(soon.is_err(), "a missed tick came again");
    }
}
