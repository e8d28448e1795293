//! One pass over `/proc/PID/fd` for sockets of which somebody wants to know the owners.
//!
//! It is as long as the host has descriptors, about a microsecond for each, so it runs on a thread
//! of its own. It opens one directory at a time, relative to the `/proc` that was opened at start.

use std::{
    collections::{HashMap, HashSet},
    ffi::CStr,
    io::{self, Read},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, Mode, OFlags, RawDir, SeekFrom, openat, readlinkat_raw, seek},
    io::Errno,
};

use super::{Owner, identity};
use crate::{
    enrich::parse,
    model::{Comm, Pid, ProcessId},
};

/// Of one socket. Servers with more workers than this show so many.
pub(super) const MOST_OWNERS: usize = 1024;
/// Of all sockets of one scan; when it is reached, sockets that have an owner get no more.
const MOST_FOUND: usize = 65_536;
/// A process with more descriptors than this counts as one that cannot be read.
const MOST_ENTRIES: usize = 1_000_000;
/// `/proc/PID/stat` is one line.
const MOST_STAT: u64 = 4096;

/// Directory entries of one getdents64(2).
const BUFFER: usize = 32 * 1024;

/// What a pass found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Owners by the inode of the socket, in the order of `/proc`.
    pub(super) found: HashMap<u64, Vec<Owner>>,
    /// Processes that did not let their descriptors be read.
    pub(super) unreadable: HashSet<Pid>,
    /// How long it took.
    pub(super) took: Duration,
}

/// Opens `/proc`.
pub(super) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, DIRECTORY, Mode::empty())?)
}

/// Looks who holds the sockets `targets`.
///
/// An error says that nobody could look, and not that nobody holds them: for lack of descriptors or
/// of memory, it is the host's or fdtrace's own.
///
/// Threads with a table of descriptors of their own (unshare(2), `CLONE_FILES`) are not looked at,
/// nor is a process whose first thread has ended: their directories in `/proc` show nothing.
pub(super) fn scan(
    root: &OwnedFd,
    targets: &HashSet<u64>,
    is_cancelled: impl Fn() -> bool,
) -> io::Result<Scan> {
    let began = Instant::now();
    let mut scan = Scan::default();
    let mut total = 0;
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
    for pid in processes(root, &mut buffer)? {
        if is_cancelled() {
            break;
        }
        match holdings(root, pid, targets, &mut buffer) {
            Ok(Some((owner, inodes))) => {
                for inode in inodes {
                    let owners = scan.found.entry(inode).or_default();
                    if owners.is_empty() || (owners.len() < MOST_OWNERS && total < MOST_FOUND) {
                        owners.push(owner.clone());
                        total += 1;
                    }
                }
            }
            // It holds none, or has ended.
            Ok(None) | Err(Errno::NOENT | Errno::SRCH) => {}
            // That says nothing of the process, and the next one fares no better.
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => return Err(error.into()),
            Err(_) => {
                scan.unreadable.insert(pid);
            }
        }
    }
    scan.took = began.elapsed();
    Ok(scan)
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn processes(root: &OwnedFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<Vec<Pid>> {
    seek(root, SeekFrom::Start(0))?;
    let mut pids = Vec::new();
    let mut entries = RawDir::new(root, buffer);
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_str().map(str::parse);
        if let Ok(Ok(pid)) = name {
            pids.push(Pid(pid));
        }
    }
    Ok(pids)
}

/// Which of the sockets a process holds; `None` for none.
fn holdings(
    root: &OwnedFd,
    pid: Pid,
    targets: &HashSet<u64>,
    buffer: &mut [MaybeUninit<u8>],
) -> rustix::io::Result<Option<(Owner, Vec<u64>)>> {
    let fds = openat(root, format!("{pid}/fd"), DIRECTORY, Mode::empty())?;
    let mut inodes = Vec::new();
    let mut seen = 0;
    let mut entries = RawDir::new(&fds, buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        seen += 1;
        if seen > MOST_ENTRIES {
            return Err(Errno::OVERFLOW);
        }
        let inode = socket(&fds, entry.file_name());
        inodes.extend(inode.filter(|inode| targets.contains(inode)));
    }
    if inodes.is_empty() {
        return Ok(None);
    }
    // dup(2)
    inodes.sort_unstable();
    inodes.dedup();
    Ok(Some((owner(&fds, pid)?, inodes)))
}

/// The inode of the socket behind a link of `/proc/PID/fd`.
fn socket(fds: impl AsFd, name: &CStr) -> Option<u64> {
    // `socket:[` and `]` around twenty digits fit. What is cut off is longer, and no socket.
    let mut target = [MaybeUninit::uninit(); 32];
    let (target, _) = readlinkat_raw(fds, name, &mut target).ok()?;
    let digits = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// The process whose descriptors `fds` is.
fn owner(fds: impl AsFd, pid: Pid) -> rustix::io::Result<Owner> {
    // By way of the open directory, which stays that process's: its pid may be another's by now.
    let file = openat(fds, "../stat", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(MOST_STAT)
        .read_to_end(&mut bytes)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let stat = parse::stat(&bytes).ok_or(Errno::INVAL)?;
    let comm = Comm::from_bytes(name(&bytes).unwrap_or_default());
    Ok(Owner { id: ProcessId { pid, started: identity::started(stat) }, comm })
}

/// The name in `/proc/PID/stat`, which may hold parentheses itself.
fn name(stat: &[u8]) -> Option<&[u8]> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(open + 1..close)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::owners::fixture::Fixture;

    fn run(fixture: &Fixture, targets: &[u64]) -> Scan {
        let root = open_root(fixture.path()).unwrap();
        let targets = targets.iter().copied().collect();
        // Twice through one descriptor: the second pass starts at the first entry again.
        scan(&root, &targets, || false).unwrap();
        scan(&root, &targets, || false).unwrap()
    }

    fn pids(scan: &Scan, inode: u64) -> Vec<u32> {
        let owners = scan.found.get(&inode).map(Vec::as_slice).unwrap_or_default();
        let mut pids: Vec<u32> = owners.iter().map(|owner| owner.id.pid.0).collect();
        pids.sort_unstable();
        pids
    }

    #[test]
    fn finds_every_owner_in_one_pass() {
        let fixture = Fixture::new();
        fixture.process(10, "web) (x", 500, &["/dev/null", "socket:[123]", "socket:[7]"]);
        fixture.process(11, "web", 501, &["socket:[123]", "socket:[123]", "pipe:[123]"]);
        fixture.process(12, "db", 502, &["socket:[9]", "anon_inode:[eventpoll]"]);
        fixture.process(13, "idle", 503, &[]);
        let scan = run(&fixture, &[123, 9, 404]);
        assert_eq!(pids(&scan, 123), [10, 11]);
        assert_eq!(pids(&scan, 9), [12]);
        assert_eq!(pids(&scan, 7), [0; 0], "not asked for");
        assert_eq!(pids(&scan, 404), [0; 0]);
        assert_eq!(scan.unreadable, HashSet::new());
        let master = scan.found[&123].iter().find(|owner| owner.id.pid == Pid(10)).unwrap();
        assert_eq!(*master, fixture.owner(10, "web) (x", 500));
    }

    #[test]
    fn what_cannot_be_read() {
        let fixture = Fixture::new();
        fixture.process(10, "web", 500, &["socket:[123]"]);
        fixture.process(11, "odd", 500, &["socket:[123]"]);
        fixture.process(12, "gone", 500, &["socket:[123]"]);
        std::fs::write(fixture.path().join("11/stat"), "?").unwrap();
        std::fs::remove_dir_all(fixture.path().join("12/fd")).unwrap();
        // Not a process, though in /proc.
        std::fs::create_dir(fixture.path().join("sys")).unwrap();
        std::fs::write(fixture.path().join("13"), "").unwrap();
        let scan = run(&fixture, &[123]);
        assert_eq!(pids(&scan, 123), [10]);
        assert_eq!(scan.unreadable, HashSet::from([Pid(11), Pid(13)]));
    }

    #[test]
    fn links_that_are_no_sockets() {
        let fixture = Fixture::new();
        let long = format!("socket:[1]{}", "x".repeat(100));
        let links = [
            "socket:[]",
            "socket:[1",
            "socket:1]",
            "socket:[-1]",
            "socket:[x]",
            "xsocket:[1]",
            &long,
        ];
        fixture.process(10, "web", 500, &links);
        assert_eq!(pids(&run(&fixture, &[1]), 1), [0; 0]);
        fixture.process(11, "web", 500, &["socket:[18446744073709551615]"]);
        assert_eq!(pids(&run(&fixture, &[u64::MAX]), u64::MAX), [11]);
    }

    #[test]
    fn stops_when_nobody_waits() {
        let fixture = Fixture::new();
        fixture.process(10, "web", 500, &["socket:[123]"]);
        let root = open_root(fixture.path()).unwrap();
        let scan = scan(&root, &HashSet::from([123]), || true).unwrap();
        assert!(scan.found.is_empty());
    }
}
