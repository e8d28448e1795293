//! What fdtrace itself takes.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use crate::model::OwnUsage;

/// Reads it under `proc_root`; what cannot be read, as on a host that is out of file handles, is
/// `None`.
#[must_use]
pub fn own_usage(proc_root: &Path) -> OwnUsage {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(cpu.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(cpu.tv_nsec).unwrap_or(0);
    let own = proc_root.join("self");
    let statm = fs::read_to_string(own.join("statm")).ok();
    OwnUsage {
        cpu: Duration::new(seconds, nanos),
        resident: statm
            .as_deref()
            .and_then(resident_pages)
            .map(|pages| pages * procfs::page_size()),
        fds: open_fds(&own.join("fd")),
    }
}

/// The second number of /proc/PID/statm.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split(' ').nth(1)?.parse().ok()
}

/// The size of the directory since 6.2 (fs/proc/fd.c `proc_fd_getattr`); before, its entries, one of
/// which is the directory itself.
fn open_fds(dir: &Path) -> Option<u64> {
    let size = fs::metadata(dir).ok()?.size();
    if size > 0 {
        return Some(size);
    }
    let entries = fs::read_dir(dir).ok()?.count();
    u64::try_from(entries).ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_this_process() {
        let held = fs::File::open("/proc/self/statm").unwrap();
        let own = own_usage(Path::new("/proc"));
        assert!(own.cpu > Duration::ZERO, "{own:?}");
        assert!(own.resident > Some(100 << 10), "{own:?}");
        assert!(own.fds >= Some(4), "{own:?}");
        drop(held);
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let root = tempfile::tempdir().unwrap();
        let own = own_usage(root.path());
        assert_eq!((own.resident, own.fds), (None, None));
        assert_eq!(resident_pages("812 77 3 1 0 9 0\n"), Some(77));
        assert_eq!(resident_pages(""), None);
    }
}
