//! One process's directory in `/proc`, and proof that it is still that process.
//!
//! Every read is bounded. Nothing is kept open beyond the life of a [`ProcDir`].

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use procfs::{ProcError, process::Process as Dir};

use super::parse::{self, Stat};
use crate::model::{Comm, FdLimits, Pid, ProcessId};

/// Counting descriptors one by one stops here: a process this far gone is not worth more time.
const MOST_ENTRIES: usize = 1_000_000;

/// `/proc/PID/stat` is one line, and its name 64 bytes at most.
const MOST_STAT: u64 = 4096;
/// `/proc/PID/limits` is 16 lines of 80 bytes.
const MOST_LIMITS: u64 = 16 * 1024;
/// A path is 4096 bytes at most, and up to 16 hierarchies have one each.
const MOST_CGROUP: u64 = 80 * 1024;

/// `/proc/PID/status` is some 60 lines; the longest are masks of CPUs.
const MOST_STATUS: u64 = 64 * 1024;
/// include/linux/proc_ns.h `PROC_UTS_INIT_INO`
const INITIAL_UTS_NAMESPACE: &str = "uts:[4026531838]";

/// Runtimes put their own variables first.
const MOST_ENVIRON: u64 = 64 * 1024;

/// An open process directory.
///
/// It holds the directory and not its name: when the process ends and its pid is used again, reads
/// fail instead of telling about the wrong process.
pub(super) struct ProcDir {
    dir: Dir,
    path: PathBuf,
    stat: Stat,
}

impl ProcDir {
    /// Opens the directory of exactly this process.
    ///
    /// `NotFound` says that the process is gone, also when its pid has another owner now.
    pub(super) fn open(root: &Path, id: ProcessId) -> io::Result<Self> {
        let path = root.join(id.pid.to_string());
        let dir = Dir::new_with_root(path.clone()).map_err(io_error)?;
        let stat = read_stat(&dir)?;
        let tick = Duration::from_nanos(1_000_000_000 / procfs::ticks_per_second().max(1));
        let tick_nanos = u64::try_from(tick.as_nanos()).unwrap_or(u64::MAX);
        let started = Duration::from_nanos(stat.start_ticks.saturating_mul(tick_nanos));
        // The kernel rounds to ticks what it told us in nanoseconds.
        if started.abs_diff(id.started.0) > tick {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self { dir, path, stat })
    }

    pub(super) const fn stat(&self) -> Stat {
        self.stat
    }

    /// Target of the link `exe`; the kernel adds ` (deleted)` where the file was replaced.
    pub(super) fn exe(&self) -> Option<PathBuf> {
        self.dir.exe().ok()
    }

    /// The first arguments, cut at `most_bytes`.
    pub(super) fn cmdline(&self, most_bytes: u64, most_arguments: usize) -> Option<Vec<Vec<u8>>> {
        let bytes = read(&self.dir, "cmdline", most_bytes).ok()?;
        parse::arguments(&bytes, most_arguments)
    }

    pub(super) fn cgroup(&self) -> Option<String> {
        self.text("cgroup", MOST_CGROUP)
    }

    /// Its number in its own pid namespace.
    pub(super) fn ns_pid(&self) -> Option<Pid> {
        parse::ns_pid(&self.text("status", MOST_STATUS)?)
    }

    /// What `HOSTNAME` was when it was started: runtimes set it to the container's hostname.
    ///
    /// `None` where it has the hostname of the host, or nobody can say whether it has: that one is
    /// told apart by its UTS namespace.
    pub(super) fn own_hostname(&self) -> Option<String> {
        let uts = fs::read_link(self.path.join("ns/uts")).ok()?;
        let root = self.path.parent()?;
        // Where the host is a container itself, its first process and fdtrace are in its namespace.
        let is_host =
            |of: &str| fs::read_link(root.join(of).join("ns/uts")).is_ok_and(|host| host == uts);
        if uts.as_os_str() == INITIAL_UTS_NAMESPACE || is_host("1") || is_host("self") {
            return None;
        }
        let environ = read(&self.dir, "environ", MOST_ENVIRON).ok()?;
        let name = str::from_utf8(parse::variable(&environ, "HOSTNAME")?).ok()?;
        parse::is_host_name(name).then(|| name.to_owned())
    }

    pub(super) fn fd_limits(&self) -> Option<FdLimits> {
        parse::fd_limits(&self.text("limits", MOST_LIMITS)?)
    }

    /// How many descriptors are open.
    pub(super) fn open_fds(&self) -> Option<u64> {
        let size = open(&self.dir, "fd").ok()?.metadata().ok()?.len();
        // Since v6.2 the size of the directory is the count (fs/proc/fd.c proc_fd_getattr); before,
        // it is 0.
        if size > 0 {
            return Some(size);
        }
        let count = count_entries(&self.path.join("fd"))?;
        // The directory was listed by name: it was the right one if the process is still there. And
        // a first thread that ended lists nothing, whatever the others have open.
        let has_table = !read_stat(&self.dir).ok()?.is_zombie();
        has_table.then_some(count)
    }

    /// How many open descriptors have a number below `limit`.
    pub(super) fn fds_below(&self, limit: u64) -> Option<u64> {
        let entries = fs::read_dir(self.path.join("fd")).ok()?.take(MOST_ENTRIES);
        let is_below = |entry: io::Result<fs::DirEntry>| -> Option<()> {
            let number: u64 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            (number < limit).then_some(())
        };
        u64::try_from(entries.filter_map(is_below).count()).ok()
    }

    /// Its short name.
    pub(super) fn comm(&self) -> Option<Comm> {
        const MOST_COMM: u64 = 64;
        let bytes = read(&self.dir, "comm", MOST_COMM).ok()?;
        Some(Comm::from_bytes(bytes.strip_suffix(b"\n").unwrap_or(&bytes)))
    }

    fn text(&self, name: &str, most: u64) -> Option<String> {
        let bytes = read(&self.dir, name, most).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn count_entries(path: &Path) -> Option<u64> {
    u64::try_from(fs::read_dir(path).ok()?.take(MOST_ENTRIES).count()).ok()
}

fn read_stat(dir: &Dir) -> io::Result<Stat> {
    let bytes = read(dir, "stat", MOST_STAT).map_err(|error| {
        // The process ended between open and read.
        if error.raw_os_error() == Some(libc::ESRCH) {
            io::ErrorKind::NotFound.into()
        } else {
            error
        }
    })?;
    parse::stat(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn read(dir: &Dir, name: &str, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(dir, name)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn open(dir: &Dir, name: &str) -> io::Result<File> {
    dir.open_relative(name).map_err(io_error)
}

fn io_error(error: ProcError) -> io::Error {
    match error {
        ProcError::NotFound(_) => io::ErrorKind::NotFound.into(),
        ProcError::Io(error, _) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(count_entries(dir.path()), Some(0));
        for name in ["0", "1", "2"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(count_entries(dir.path()), Some(3));
        assert_eq!(count_entries(&dir.path().join("none")), None);
    }
}
