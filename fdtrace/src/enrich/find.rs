//! Processes by number or by name: for commands that somebody types.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{cgroup, owners, owners::Owner, parse, task_dir};
use crate::model::{Comm, Pid, ProcessId};

/// What a search for a name found.
#[derive(Debug, Default)]
pub struct Found {
    /// Those that are meant.
    pub processes: Vec<Owner>,
    /// How many were looked at.
    pub looked_at: u64,
}

/// The process of a number, also where that is one of its other threads'.
///
/// `NotFound` says that there is none.
pub fn process(root: &Path, pid: Pid) -> io::Result<Owner> {
    let status = read(&open(root, pid)?, "status")?;
    let status = String::from_utf8_lossy(&status);
    let leader = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    let pid = leader.map_or(pid, Pid);
    look(&open(root, pid)?, pid)
}

/// All processes whose name and systemd unit are `wanted`, in the order of their numbers.
pub fn processes(root: &Path, wanted: impl Fn(&Comm, Option<&str>) -> bool) -> io::Result<Found> {
    let mut pids: Vec<u32> = Vec::new();
    for entry in fs::read_dir(root)? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    let mut found = Found::default();
    for pid in pids.into_iter().map(Pid) {
        // It may have ended meanwhile.
        let Ok(dir) = open(root, pid) else { continue };
        let Ok(owner) = look(&dir, pid) else { continue };
        found.looked_at += 1;
        let unit = read(&dir, "cgroup")
            .ok()
            .and_then(|bytes| cgroup::placement(&String::from_utf8_lossy(&bytes)).unit);
        if wanted(&owner.comm, unit.as_deref()) {
            found.processes.push(owner);
        }
    }
    Ok(found)
}

fn open(root: &Path, pid: Pid) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, root.join(pid.to_string()), flags, Mode::empty())?)
}

fn read(dir: &OwnedFd, name: &str) -> io::Result<Vec<u8>> {
    task_dir::read(dir.as_fd(), name)
}

fn look(dir: &OwnedFd, pid: Pid) -> io::Result<Owner> {
    let stat = parse::stat(&read(dir, "stat")?).ok_or(io::ErrorKind::InvalidData)?;
    let comm = read(dir, "comm")?;
    let comm = Comm::from_bytes(comm.strip_suffix(b"\n").unwrap_or(&comm));
    Ok(Owner { id: ProcessId { pid, started: owners::started(stat) }, comm })
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn here(pid: u32) -> io::Result<Owner> {
        process(Path::new("/proc"), Pid(pid))
    }

    #[test]
    fn a_thread_s_number_leads_to_its_process() {
        let own = here(std::process::id()).unwrap();
        assert_eq!(own.id.pid.0, std::process::id());
        let of_thread = thread::spawn(|| {
            let tid = rustix::thread::gettid().as_raw_nonzero().get();
            assert_ne!(tid.unsigned_abs(), std::process::id());
            here(tid.unsigned_abs()).unwrap()
        });
        assert_eq!(of_thread.join().unwrap(), own);
        // Above every pid_max.
        assert_eq!(here(5_000_000).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn by_name_and_by_unit() {
        let root = tempfile::tempdir().unwrap();
        for (pid, comm, unit) in [(10, "nginx", "web"), (9, "nginx", "web"), (11, "cat", "db")] {
            let dir = root.path().join(pid.to_string());
            fs::create_dir(&dir).unwrap();
            let stat = format!("{pid} ({comm}) S 1 1 1 0 -1 4 2 0 0 0 1 7 0 0 20 0 1 0 500 9");
            fs::write(dir.join("stat"), stat).unwrap();
            fs::write(dir.join("comm"), format!("{comm}\n")).unwrap();
            fs::write(dir.join("cgroup"), format!("0::/system.slice/{unit}.service\n")).unwrap();
        }
        // Ended while it was looked at, and no process at all.
        fs::create_dir(root.path().join("12")).unwrap();
        fs::create_dir(root.path().join("sys")).unwrap();
        let pids = |wanted: &dyn Fn(&Comm, Option<&str>) -> bool| {
            let found = processes(root.path(), wanted).unwrap();
            assert_eq!(found.looked_at, 3);
            found.processes.iter().map(|owner| owner.id.pid.0).collect::<Vec<_>>()
        };
        assert_eq!(pids(&|comm, _| comm.as_bytes() == b"nginx"), [9, 10]);
        assert_eq!(pids(&|_, unit| unit == Some("db.service")), [11]);
        assert_eq!(pids(&|_, _| false), [0; 0]);
    }
}
