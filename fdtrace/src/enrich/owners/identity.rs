//! When two ids mean the same process, and which of several processes leads.
//!
//! The kernel side says when a process started in nanoseconds; `/proc/PID/stat` says it in clock
//! ticks, rounded down (fs/proc/array.c do_task_stat, v6.18).

use std::{cmp::Ordering, time::Duration};

use super::Owner;
use crate::{
    enrich::parse::Stat,
    model::{BootTime, Pid, ProcessId},
};

const NANOS: u64 = 1_000_000_000;

fn tick_nanos() -> u64 {
    NANOS / procfs::ticks_per_second().max(1)
}

/// The start of a process as `/proc` has it.
pub(in crate::enrich) fn started(stat: Stat) -> BootTime {
    BootTime::from_nanos(stat.start_ticks.saturating_mul(tick_nanos()))
}

/// Whether two ids are one process, be they from the kernel side or from `/proc`.
///
/// A pid is used again only after all others were, which takes longer than a tick.
#[must_use]
pub fn same_process(a: ProcessId, b: ProcessId) -> bool {
    a.pid == b.pid && a.started.0.abs_diff(b.started.0) <= Duration::from_nanos(tick_nanos())
}

/// The lead owner is the least.
///
/// systemd holds the listeners that it starts others for, so it leads only where nobody else is
/// there. The master of a pre-fork server is its oldest process, and within a tick the one with the
/// lowest pid.
pub(super) fn by_lead(a: &Owner, b: &Owner) -> Ordering {
    let tick = u128::from(tick_nanos());
    let rank = |owner: &Owner| {
        let manager = owner.id.pid == Pid(1) || owner.comm.as_bytes() == b"systemd";
        (manager, owner.id.started.0.as_nanos() / tick, owner.id.pid)
    };
    rank(a).cmp(&rank(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Comm;

    fn id(pid: u32, nanos: u64) -> ProcessId {
        ProcessId { pid: Pid(pid), started: BootTime::from_nanos(nanos) }
    }

    #[test]
    fn one_process_from_two_sources() {
        let tick = tick_nanos();
        let ticks = 88_123;
        let stat = Stat { state: b'S', threads: 1, start_ticks: ticks };
        let from_proc = ProcessId { pid: Pid(7), started: started(stat) };
        for nanos in [0, 1, tick / 2, tick - 1] {
            let from_kernel = id(7, ticks * tick + nanos);
            assert!(same_process(from_proc, from_kernel), "{nanos}");
            assert!(same_process(from_kernel, from_proc), "{nanos}");
        }
        assert!(!same_process(from_proc, id(7, (ticks + 2) * tick)));
        assert!(!same_process(from_proc, id(7, (ticks - 2) * tick)));
        assert!(!same_process(from_proc, id(8, ticks * tick)));
    }

    #[test]
    fn the_lead_of_several() {
        let owner = |pid, nanos, comm: &str| Owner {
            id: id(pid, nanos),
            comm: Comm::from_bytes(comm.as_bytes()),
        };
        let tick = tick_nanos();
        let mut owners = [
            owner(1, 0, "init"),
            owner(900, 50 * tick, "systemd"),
            owner(20, 100 * tick, "web"),
            // The kernel's nanoseconds and the ticks of /proc, of processes of one tick.
            owner(11, 99 * tick, "web"),
            owner(10, 99 * tick + tick / 2, "web"),
        ];
        owners.sort_by(by_lead);
        let pids = owners.map(|owner| owner.id.pid.0);
        assert_eq!(pids, [10, 11, 20, 1, 900]);
    }
}
