//! The descriptor table of a workload.

use std::{
    fs::File,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Sets the soft limit.
pub(super) fn limit(soft: usize) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft as u64, hard).unwrap();
}

/// Lowers the soft limit and takes every descriptor below it but `room`, without a failed call:
/// fdtrace would count that one too.
pub(super) fn fill(soft: usize, room: usize) -> Vec<OwnedFd> {
    limit(soft);
    let last = RawFd::try_from(soft).unwrap() - 1;
    let mut held: Vec<OwnedFd> = Vec::new();
    // The lowest free one is given out first, so that after the last one none is free.
    while held.last().is_none_or(|fd| fd.as_raw_fd() < last) {
        held.push(File::open("/dev/null").unwrap().into());
    }
    held.truncate(held.len() - room);
    held
}
