//! A process's directory in `/proc`, held open: what is read by way of it is that process's,
//! whoever has its pid by now.

use std::{
    fs::File,
    io::{self, Read},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};

use super::{owners, parse};
use crate::model::{ProcessId, Tid};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Directory entries of one getdents64(2).
const BUFFER: usize = 32 * 1024;

/// Every file that is read this way is short, and cut here.
const MOST: u64 = 16 * 1024;

/// An open process directory.
#[derive(Debug)]
pub(super) struct TaskDir {
    dir: OwnedFd,
    /// Of one thread, where the first has ended by itself: it then shows nothing of what the
    /// others still share.
    living: Option<OwnedFd>,
}

impl TaskDir {
    /// Opens the directory of exactly this process. `NotFound` says that the process is gone, also
    /// when its pid has another owner now.
    pub(super) fn open(root: &Path, id: ProcessId) -> io::Result<Self> {
        let path = root.join(id.pid.to_string());
        let dir = openat(CWD, path, DIRECTORY, Mode::empty())?;
        let stat = parse::stat(&read(dir.as_fd(), "stat")?);
        let stat = stat.ok_or(io::ErrorKind::InvalidData)?;
        let found = ProcessId { pid: id.pid, started: owners::started(stat) };
        if !owners::same_process(found, id) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let living = if stat.is_zombie() { living_thread(&dir)? } else { None };
        Ok(Self { dir, living })
    }

    /// Lists its threads, up to so many, and says how many there are.
    pub(super) fn threads(&self, most: usize) -> io::Result<(Vec<Tid>, u64)> {
        threads(&self.dir, most)
    }

    /// Opens the directory of one of its threads.
    pub(super) fn thread(&self, Tid(tid): Tid) -> io::Result<OwnedFd> {
        openat(&self.dir, format!("task/{tid}"), DIRECTORY, Mode::empty()).map_err(gone)
    }

    pub(super) fn text(&self, name: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&read(self.shared(), name)?).into_owned())
    }

    /// Opens a file or directory below it.
    pub(super) fn open_below(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        openat(self.shared(), name, flags | OFlags::CLOEXEC, Mode::empty()).map_err(gone)
    }

    fn shared(&self) -> BorrowedFd<'_> {
        self.living.as_ref().unwrap_or(&self.dir).as_fd()
    }
}

fn threads(dir: &OwnedFd, most: usize) -> io::Result<(Vec<Tid>, u64)> {
    let tasks = openat(dir, "task", DIRECTORY, Mode::empty()).map_err(gone)?;
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
    let mut entries = RawDir::new(&tasks, &mut buffer);
    let (mut kept, mut count) = (Vec::new(), 0);
    while let Some(entry) = entries.next() {
        if let Ok(Ok(tid)) = entry.map_err(gone)?.file_name().to_str().map(str::parse) {
            count += 1;
            if kept.len() < most {
                kept.push(Tid(tid));
            }
        }
    }
    Ok((kept, count))
}

/// The directory of a thread that has not ended.
fn living_thread(dir: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    const MOST_TRIED: usize = 64;
    for Tid(tid) in threads(dir, MOST_TRIED)?.0 {
        let Ok(thread) = openat(dir, format!("task/{tid}"), DIRECTORY, Mode::empty()) else {
            continue;
        };
        let stat = read(thread.as_fd(), "stat").ok().and_then(|bytes| parse::stat(&bytes));
        if stat.is_some_and(|stat| !stat.is_zombie()) {
            return Ok(Some(thread));
        }
    }
    Ok(None)
}

/// The start of a file below an open directory.
pub(super) fn read(dir: BorrowedFd<'_>, name: &str) -> io::Result<Vec<u8>> {
    let file = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(gone)?;
    let mut bytes = Vec::new();
    File::from(file).take(MOST).read_to_end(&mut bytes).map_err(|error| {
        // It ended between open and read.
        if error.raw_os_error() == Some(libc::ESRCH) {
            io::ErrorKind::NotFound.into()
        } else {
            error
        }
    })?;
    Ok(bytes)
}

fn gone(error: rustix::io::Errno) -> io::Error {
    if error == rustix::io::Errno::SRCH { io::ErrorKind::NotFound.into() } else { error.into() }
}
