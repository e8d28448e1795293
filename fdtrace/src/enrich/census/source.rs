//! What a process has open, as the kernel side tells it: all of it where `/proc` has time for a
//! sample, and of processes that `/proc` does not show us.

use std::{io, mem::MaybeUninit, os::fd::OwnedFd, time::Duration};

use rustix::fs::{OFlags, readlinkat_raw};

use super::{
    budget::Meter,
    descriptors::{PATH, Shuffled, counted, fd_size, itoa_buffer},
    tally::Tally,
};
use crate::{
    enrich::{sock_diag::connections::Connection, task_dir::TaskDir},
    model::{DescriptorSource, FdKind, OpenDescriptor, OpenFds, OpenKind, Pid},
};

/// Up to so many are all looked at.
const FEW: u64 = 4096;
/// Of more, so many first: they tell what each costs here.
const TRIAL: u64 = 1024;
/// Between looks at the clock.
const AT_ONCE: u64 = 256;
/// Percent of the budget, up to which it is found out what they cost. Where that is not enough, `/proc`
/// gives a fairer sample in what is left.
const TRIAL_SHARE: u32 = 35;
/// And up to which descriptors are asked for.
const SHARE: u32 = 75;
/// And names looked up. The rest is for adding up.
const NAME_SHARE: u32 = 90;

/// How many there are, and how many of them were looked at.
pub(super) struct Told {
    pub(super) open: OpenFds,
    pub(super) looked_at: u64,
}

/// Adds up what a process has open.
pub(super) fn add_up(
    source: &dyn DescriptorSource,
    pid: Pid,
    process: &TaskDir,
    meter: &Meter<'_>,
    tally: &mut Tally<'_>,
    unknown: &mut Vec<String>,
) -> io::Result<Told> {
    let dir = process.open_below("fd", OFlags::RDONLY | OFlags::DIRECTORY);
    let known = dir.as_ref().ok().and_then(|dir| counted(dir).ok().flatten());
    let status = process.text("status").unwrap_or_default();
    let most = known.or_else(|| fd_size(&status).map(u64::from)).unwrap_or(0);
    let every = if most > FEW { affordable(source, pid, most, meter, tally)? } else { 1 };

    let mut looked_at = 0;
    let mut paths = Vec::new();
    let is_all = source.read(pid, every, &mut |descriptor| {
        add(descriptor, tally, &mut paths);
        looked_at += 1;
        looked_at % AT_ONCE != 0 || meter.is_within(SHARE)
    })?;
    // Another process may have had its number in the meantime.
    process.text("status")?;
    let named = dir.as_ref().map_or(0, |dir| name(dir, &paths, meter, tally));
    tally.leave_unnamed(paths.len() as u64 - named);
    if let Err(error) = dir {
        unknown.push(format!("the paths of files: {error}"));
    }
    if !is_all && known.is_none() {
        unknown.push("the number of descriptors: there was time to look at a part".to_owned());
    }
    let open = match known {
        _ if is_all && every == 1 => OpenFds::Exact(looked_at),
        Some(known) => OpenFds::Exact(known),
        None => OpenFds::About(looked_at * u64::from(every)),
    };
    Ok(Told { open, looked_at })
}

/// Every how many-th can be looked at in the time that is left: by a look at some, all over the table.
/// To be cut short on the way would prefer low numbers.
fn affordable(
    source: &dyn DescriptorSource,
    pid: Pid,
    most: u64,
    meter: &Meter<'_>,
    tally: &Tally<'_>,
) -> io::Result<u32> {
    let every = |count: u64| u32::try_from(most.div_ceil(count.max(1))).unwrap_or(u32::MAX);
    // What few cost, is to go past all; what more cost more, is to look at them.
    let look_at = |count| -> io::Result<(Duration, u32)> {
        let (before, mut seen, mut paths) = (meter.spent(), 0, Vec::new());
        let mut trial = tally.empty();
        let is_all = source.read(pid, every(count), &mut |descriptor| {
            add(descriptor, &mut trial, &mut paths);
            seen += 1;
            meter.is_within(TRIAL_SHARE)
        })?;
        if !is_all {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it takes too long here"));
        }
        Ok((meter.spent().saturating_sub(before), seen))
    };
    let (few_took, few) = look_at(TRIAL / 4)?;
    let (took, seen) = look_at(TRIAL)?;
    let each = took.saturating_sub(few_took) / seen.saturating_sub(few).max(1);
    let each = each.max(Duration::from_nanos(50));
    // A third is left for what was not foreseen.
    let left = (meter.left(SHARE) * 2 / 3).saturating_sub(few_took);
    Ok(every(u64::try_from(left.as_nanos() / each.as_nanos()).unwrap_or(u64::MAX)).max(1))
}

fn add(descriptor: OpenDescriptor, tally: &mut Tally<'_>, paths: &mut Vec<u32>) {
    let OpenDescriptor { number, inode, what } = descriptor;
    match what {
        OpenKind::Tcp { state, local, peer, unread } => {
            let remote = peer;
            tally.add_tcp(Connection { inode, state, local, remote, silent: None, unread });
        }
        OpenKind::Path(kind) => {
            tally.add_kind(kind);
            paths.push(number);
        }
        OpenKind::Other(kind) => tally.add_kind(kind),
        OpenKind::Socket => tally.add_kind(FdKind::SocketUnread),
    }
}

/// Looks up what paths lead to, in no order, as long as there is time. Gives how many.
fn name(dir: &OwnedFd, numbers: &[u32], meter: &Meter<'_>, tally: &mut Tally<'_>) -> u64 {
    let mut buffer = [MaybeUninit::uninit(); PATH];
    let mut named = 0;
    for index in Shuffled::new(u32::try_from(numbers.len()).unwrap_or(u32::MAX)) {
        if named % 32 == 0 && !meter.is_within(NAME_SHARE) {
            break;
        }
        let Some(number) = usize::try_from(index).ok().and_then(|index| numbers.get(index)) else {
            break;
        };
        if let Ok((text, _)) = readlinkat_raw(dir, itoa_buffer(*number).text(), &mut buffer) {
            tally.add_path(text);
            named += 1;
        }
    }
    named
}
