//! Reading the files of threads.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use super::parse::{self, Stat, Times};
use crate::{
    enrich::task_dir::{self, TaskDir},
    model::{Pid, Syscall, Tid},
};

/// Of more threads than this, these are looked at: 20 microseconds for each.
const MOST_THREADS: usize = 1024;
/// Of so many it is asked what they wait in, and of every one that does not sleep.
const MOST_WAITS: usize = 64;

/// The threads of a process.
pub(super) struct Tids {
    pub(super) count: u64,
    pub(super) kept: Vec<Tid>,
}

/// The first look.
#[derive(Clone, Copy)]
pub(super) struct First {
    pub(super) state: u8,
    pub(super) times: Option<Times>,
}

/// The second.
pub(super) struct Second {
    pub(super) tid: Tid,
    pub(super) stat: Stat,
    pub(super) times: Option<Times>,
    pub(super) wchan: Option<String>,
    pub(super) syscall: Option<Syscall>,
}

pub(super) fn threads(process: &TaskDir) -> io::Result<Tids> {
    let (kept, count) = process.threads(MOST_THREADS)?;
    Ok(Tids { count, kept })
}

/// Threads that have ended meanwhile are missing.
pub(super) fn first(process: &TaskDir, tids: &[Tid]) -> HashMap<Tid, First> {
    let look = |tid: &Tid| {
        let dir = process.thread(*tid).ok()?;
        let stat = stat(&dir)?;
        Some((*tid, First { state: stat.state, times: times(&dir, &stat) }))
    };
    tids.iter().filter_map(look).collect()
}

/// The same.
pub(super) fn second(process: &TaskDir, tids: &[Tid]) -> Vec<Second> {
    let look = |(turn, tid): (usize, &Tid)| {
        let dir = process.thread(*tid).ok()?;
        let stat = stat(&dir)?;
        let times = times(&dir, &stat);
        let is_of_interest = turn < MOST_WAITS || stat.state != b'S';
        let text = |name| {
            let bytes = is_of_interest.then(|| task_dir::read(dir.as_fd(), name))?.ok()?;
            String::from_utf8(bytes).ok()
        };
        let wchan = text("wchan").and_then(|text| parse::wchan(&text));
        let syscall = text("syscall").and_then(|text| parse::syscall(&text));
        Some(Second { tid: *tid, stat, times, wchan, syscall })
    };
    tids.iter().enumerate().filter_map(look).collect()
}

/// Who traces the process's first thread.
pub(super) fn tracer(process: &TaskDir) -> io::Result<Option<Pid>> {
    Ok(parse::tracer(&process.text("status")?))
}

fn stat(dir: &OwnedFd) -> Option<Stat> {
    parse::stat(&task_dir::read(dir.as_fd(), "stat").ok()?)
}

/// Nanoseconds where the kernel has CONFIG_SCHED_INFO, else clock ticks.
fn times(dir: &OwnedFd, stat: &Stat) -> Option<Times> {
    let schedstat = task_dir::read(dir.as_fd(), "schedstat").ok();
    let exact = schedstat.and_then(|bytes| parse::schedstat(str::from_utf8(&bytes).ok()?));
    exact.or_else(|| Some(parse::ticks(stat.cpu_ticks)))
}
