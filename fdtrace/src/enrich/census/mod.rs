//! What a process's descriptors are: counted within a budget, on a thread of its own, and only when
//! somebody asks.
//!
//! Whatever can look at descriptors, `/proc` or a program in the kernel, gives each to a `Tally`; what the sockets among them are comes from the TCP table of the
//! process's network namespace.

mod budget;
mod classify;
mod descriptors;
mod source;
mod tally;
#[cfg(test)]
mod tests;

use std::{
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{OFlags, fstat},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

pub use self::budget::{Budget, Pace, thread_cpu};
use self::{
    budget::Meter,
    descriptors::{Descriptors, Walked},
    tally::{Coverage, Table, Tally},
};
use super::{
    netns::look,
    sock_diag::connections::{self, Read},
    task_dir::TaskDir,
    worker::{self, Worker},
};
use crate::model::{Census, DescriptorSource, OpenFds, ProcessId};

/// Percent of the budget that the TCP table may take. Where the namespace has more sockets than can
/// be read in that time, those that were are as good as a sample: the kernel's order is by hash.
const TABLE_SHARE: u32 = 45;
/// The same where a source tells the state of each socket: the table has but the times, and who else
/// listens.
const TABLE_SHARE_BESIDE_SOURCE: u32 = 20;

/// Starts a census of a process's descriptors. It takes no more than the budget. Where `source`
/// fails, or is none, `/proc` is read.
///
/// `proc_root` is `/proc` but for tests and containers. The answer is an error where nobody may
/// look (the process is gone: `NotFound`; it is another user's: `PermissionDenied`). [`Pace`] says
/// how often to ask.
pub fn start(
    proc_root: PathBuf,
    source: Option<Arc<dyn DescriptorSource>>,
    process: ProcessId,
    budget: Budget,
) -> io::Result<Worker<Census>> {
    worker::spawn("fdtrace-census", move |is_cancelled| {
        let meter = Meter::new(budget, is_cancelled);
        if let Some(source) = source {
            match census_by(&*source, &proc_root, process, &meter) {
                Ok(census) => return Ok(census),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
                Err(error) => log::debug!("descriptors of {process:?}: {error}"),
            }
        }
        census(&proc_root, process, &meter)
    })
}

/// The same, and waits for it: for commands that ask a single time.
pub fn take(proc_root: &Path, process: ProcessId, budget: Budget) -> io::Result<Census> {
    start(proc_root.to_owned(), None, process, budget)?.wait()
}

/// The same as [`census`], of what a source tells.
fn census_by(
    source: &dyn DescriptorSource,
    root: &Path,
    id: ProcessId,
    meter: &Meter<'_>,
) -> io::Result<Census> {
    let process = TaskDir::open(root, id)?;
    // What the table does not have, the source tells.
    let table = table(root, &process, meter, TABLE_SHARE_BESIDE_SOURCE, &mut Vec::new());
    let mut tally = Tally::new(&table);
    let mut unknown = Vec::new();
    let told = source::add_up(source, id.pid, &process, meter, &mut tally, &mut unknown)?;
    let mut census = tally.finish(told.open, told.looked_at, unknown);
    census.cost = meter.spent();
    Ok(census)
}

/// On a thread that ends afterwards: it may have gone to another network namespace.
fn census(root: &Path, id: ProcessId, meter: &Meter<'_>) -> io::Result<Census> {
    let process = TaskDir::open(root, id)?;
    // First of all, so that a process that is not ours to see costs nothing more.
    let descriptors = Descriptors::open(&process, meter)?;
    let mut unknown = Vec::new();
    let table = table(root, &process, meter, TABLE_SHARE, &mut unknown);
    let mut tally = Tally::new(&table);
    let walked =
        descriptors.walk(meter, |inode| table.knows(inode), |descriptor| tally.add(descriptor));
    if walked.looked_at == 0 && walked.unreadable > 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let open = open(&walked);
    if walked.unreadable > 0 {
        unknown.push(format!("what {} descriptors are: they could not be read", walked.unreadable));
    }
    let mut census = tally.finish(open, walked.looked_at, unknown);
    census.cost = meter.spent();
    Ok(census)
}

/// The TCP sockets of the process's network namespace.
fn table(
    root: &Path,
    process: &TaskDir,
    meter: &Meter<'_>,
    share: u32,
    unknown: &mut Vec<String>,
) -> Table {
    let go_on = || meter.is_within(share);
    let mut table = Table::default();
    let dumped = enter(root, process)
        .and_then(|()| connections::dumped(&mut |connection| table.insert(connection), &go_on));
    // Where tcp_diag is a module that may not be loaded, older kernels say that there is no socket.
    let read = if dumped.is_err() || table.is_empty() {
        table = Table::default();
        let open = |name: &str| process.open_below(name, OFlags::RDONLY);
        connections::listed(&open, &mut |connection| table.insert(connection), &go_on)
    } else {
        dumped
    };
    match read {
        Ok(Read { is_complete: true, .. }) => table.coverage = Coverage::All,
        Ok(read) => {
            let counts = |name: &str| process.text(name).unwrap_or_default();
            let all = connections::counted(&counts("net/sockstat"), &counts("net/sockstat6"));
            table.coverage = all.map_or(Coverage::Unknown, |all| Coverage::of(read.sockets, all));
            let why = "there was time to read a part of the namespace's sockets";
            unknown.push(format!("the exact number of TCP sockets in each state: {why}"));
        }
        Err(error) => unknown.push(format!("the states of TCP sockets: {error}")),
    }
    table
}

/// Moves the calling thread to the network namespace of a process, unless it is there.
fn enter(root: &Path, process: &TaskDir) -> io::Result<()> {
    let link = process.open_below("ns/net", OFlags::RDONLY)?;
    let theirs = fstat(&link)?.st_ino;
    if look::netns_of(root, "thread-self").map(u64::from) == Some(theirs) {
        return Ok(());
    }
    Ok(move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// How many are open.
fn open(walked: &Walked) -> OpenFds {
    if walked.tried == walked.table {
        // Some may have been closed since they were listed.
        return OpenFds::Exact(walked.looked_at + walked.unreadable);
    }
    walked.open.map_or_else(|| OpenFds::About(walked.estimate()), OpenFds::Exact)
}
