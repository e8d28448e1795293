//! Who holds what a user has only so many of: inotify instances, pipes.
//!
//! Every process of the user is looked at, descriptor by descriptor, until all are or the time is
//! up. Objects that no process holds any more, or one that became another user since, are missing.

use std::{
    cmp::Reverse,
    collections::HashSet,
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::worker::{self, Worker};
use crate::model::{Comm, Holder, PerUser, Pid, UserHoldings};

/// A microsecond for each descriptor: enough for a few hundred thousand.
const WALL: Duration = Duration::from_millis(500);
/// Processes that are named.
const MOST_NAMED: usize = 3;
/// Between two looks at the clock.
const LINKS_AT_ONCE: usize = 256;

/// Looks for what the user of the process `pid` holds, on a thread of its own. `root` is where
/// /proc is.
pub fn holdings(root: PathBuf, pid: Pid, what: PerUser) -> io::Result<Worker<UserHoldings>> {
    worker::spawn("fdtrace-user", move |is_cancelled| {
        let end = Instant::now() + WALL;
        look(&root, pid, what, &|| !is_cancelled() && Instant::now() < end)
    })
}

fn look(
    root: &Path,
    pid: Pid,
    what: PerUser,
    go_on: &dyn Fn() -> bool,
) -> io::Result<UserHoldings> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let uid = uid(&root.join(pid.to_string()), what).ok_or_else(gone)?;
    let mut pipes = HashSet::new();
    let mut found =
        UserHoldings { uid, count: 0, is_complete: true, holders: Vec::new(), holder_count: 0 };
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let Some(pid) = number(&entry.file_name()).map(Pid) else { continue };
        let dir = entry.path();
        // Of a process that may not be traced the directory is root's: then its status tells.
        let owner = fs::metadata(&dir).map(|metadata| metadata.uid());
        let is_likely =
            owner.is_ok_and(|owner| owner == uid || owner == 0 || what == PerUser::Pipes);
        if !is_likely || self::uid(&dir, what) != Some(uid) {
            continue;
        }
        let Some(count) = count(&dir, what, &mut pipes, go_on) else {
            found.is_complete = false;
            if go_on() {
                continue;
            }
            break;
        };
        if count > 0 {
            found.count += count;
            found.holder_count += 1;
            found.holders.push(Holder { pid, comm: comm(&dir), count });
            found.holders.sort_by_key(|holder| Reverse(holder.count));
            found.holders.truncate(MOST_NAMED);
        }
    }
    if what == PerUser::Pipes {
        found.count = pipes.len() as u64;
    }
    Ok(found)
}

/// How many descriptors of a process are such objects; `None` where it may not be looked at, or the
/// time is up. A pipe has two ends mostly, and several processes share it.
fn count(
    dir: &Path,
    what: PerUser,
    pipes: &mut HashSet<Vec<u8>>,
    go_on: &dyn Fn() -> bool,
) -> Option<u64> {
    let mut own = HashSet::new();
    let mut count = 0;
    for (place, entry) in fs::read_dir(dir.join("fd")).ok()?.enumerate() {
        if place.is_multiple_of(LINKS_AT_ONCE) && !go_on() {
            return None;
        }
        // It may have been closed meanwhile.
        let Ok(link) = fs::read_link(entry.ok()?.path()) else { continue };
        let link = link.as_os_str().as_bytes();
        match what {
            // Before v6.14 it is `inotify`, without brackets (fs/notify/inotify/inotify_user.c
            // do_inotify_init).
            PerUser::InotifyInstances => {
                count += u64::from(matches!(link, b"anon_inode:inotify" | b"anon_inode:[inotify]"));
            }
            PerUser::Pipes if link.starts_with(b"pipe:[") => {
                count += u64::from(own.insert(link.to_vec()));
                pipes.insert(link.to_vec());
            }
            PerUser::Pipes => {}
        }
    }
    Some(count)
}

/// inotify counts for the effective user of whoever makes an instance
/// (fs/notify/inotify/inotify_user.c inotify_new_group), pipes for the real one (fs/pipe.c
/// alloc_pipe_info, v6.18).
fn uid(dir: &Path, what: PerUser) -> Option<u32> {
    let status = fs::read_to_string(dir.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let place = match what {
        PerUser::Pipes => 0,
        PerUser::InotifyInstances => 1,
    };
    line.split_ascii_whitespace().nth(place)?.parse().ok()
}

fn number(name: &OsStr) -> Option<u32> {
    name.to_str()?.parse().ok()
}

fn comm(dir: &Path) -> Comm {
    let bytes = fs::read(dir.join("comm")).unwrap_or_default();
    Comm::from_bytes(bytes.strip_suffix(b"\n").unwrap_or(&bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Fixture(tempfile::TempDir);

    impl Fixture {
        fn process(&self, pid: u32, uids: &str, links: &[&str]) {
            let dir = self.0.path().join(pid.to_string());
            fs::create_dir_all(dir.join("fd")).unwrap();
            fs::write(dir.join("status"), format!("Name:\tx\nUid:\t{uids}\nGid:\t0\n")).unwrap();
            fs::write(dir.join("comm"), format!("p{pid}\n")).unwrap();
            for (number, link) in links.iter().enumerate() {
                symlink(link, dir.join(format!("fd/{number}"))).unwrap();
            }
        }

        fn look(&self, what: PerUser) -> UserHoldings {
            look(self.0.path(), Pid(7), what, &|| true).unwrap()
        }
    }

    fn holder(pid: u32, count: u64) -> Holder {
        Holder { pid: Pid(pid), comm: Comm::from_bytes(format!("p{pid}").as_bytes()), count }
    }

    #[test]
    fn what_the_processes_of_a_user_hold() {
        // The directories here are the test's own user's, or root's.
        let own = rustix::process::geteuid().as_raw();
        let user = format!("1000 {own} 0 0");
        let fixture = Fixture(tempfile::tempdir().unwrap());
        fixture.process(7, &user, &["anon_inode:inotify", "pipe:[1]", "pipe:[1]", "/tmp/x"]);
        fixture.process(8, &user, &["anon_inode:inotify", "anon_inode:[inotify]", "pipe:[1]"]);
        fixture.process(9, "1001 1001 0 0", &["anon_inode:inotify", "pipe:[2]"]);
        fixture.process(10, &user, &["pipe:[3]", "anon_inode:[eventpoll]"]);
        let inotify = fixture.look(PerUser::InotifyInstances);
        assert_eq!((inotify.uid, inotify.count, inotify.holder_count), (own, 3, 2));
        assert_eq!(inotify.holders, [holder(8, 2), holder(7, 1)]);
        assert!(inotify.is_complete);
        let pipes = fixture.look(PerUser::Pipes);
        assert_eq!((pipes.uid, pipes.count, pipes.holder_count), (1000, 2, 3));
        let late = look(fixture.0.path(), Pid(7), PerUser::Pipes, &|| false).unwrap();
        assert_eq!((late.count, late.is_complete), (0, false));
        assert!(look(fixture.0.path(), Pid(99), PerUser::Pipes, &|| true).is_err());
    }

    #[test]
    fn the_running_kernel() {
        let (reader, _writer) = io::pipe().unwrap();
        let inode =
            fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader)));
        assert!(inode.unwrap().to_str().unwrap().starts_with("pipe:["));
        let pid = Pid(std::process::id());
        let found = holdings("/proc".into(), pid, PerUser::Pipes).unwrap().wait().unwrap();
        assert!(found.count >= 1 && found.holder_count >= 1);
    }
}
