//! Who owns the listeners, and how close each of them is to its limit of descriptors.

use std::{collections::HashMap, path::Path};

use crate::{
    enrich::{Owner, Processes, owners_now},
    model::{Backlog, ListenerReport, ListeningSocket, OwnerFds, Process, ProcessId},
};

/// Everything about owners, read once for all the listeners they share.
pub(crate) struct People {
    owners: HashMap<u64, Vec<Owner>>,
    processes: Processes,
    fds: HashMap<ProcessId, OwnerFds>,
}

impl People {
    /// Looks who owns these sockets.
    pub(crate) fn look(proc_root: &Path, inodes: impl IntoIterator<Item = u64>) -> Self {
        let owners = owners_now(proc_root, inodes).unwrap_or_else(|error| {
            log::warn!("cannot look for owners in {}: {error}", proc_root.display());
            HashMap::new()
        });
        Self { owners, processes: Processes::new(proc_root.to_owned()), fds: HashMap::new() }
    }

    /// What is known of a socket and of its owners.
    pub(crate) fn report(
        &mut self,
        socket: ListeningSocket,
        somaxconn: Option<u32>,
    ) -> ListenerReport {
        let owners = self.owners.get(&socket.inode).map(Vec::as_slice).unwrap_or_default();
        let owners: Vec<Process> =
            owners.iter().map(|owner| self.processes.describe(owner.id, &owner.comm)).collect();
        let fds = fullest(owners.iter().map(|owner| self.fds(owner.id)));
        ListenerReport { socket, owners, fds, backlog: Backlog { requested: None, somaxconn } }
    }

    /// The descriptors of a process, as they were when they were first asked for.
    pub(crate) fn fds(&mut self, id: ProcessId) -> OwnerFds {
        let Self { processes, fds, .. } = self;
        *fds.entry(id).or_insert_with(|| owner_fds(processes, id))
    }

    /// Everything known of a process.
    pub(crate) fn describe(&mut self, owner: &Owner) -> Process {
        self.processes.describe(owner.id, &owner.comm)
    }
}

fn owner_fds(processes: &Processes, id: ProcessId) -> OwnerFds {
    let usage = processes.fd_usage(id, None);
    let soft = usage.limits.and_then(|limits| limits.soft.number());
    // Each is looked at, so only where it matters.
    let below_limit = soft
        .filter(|_| usage.is_at_limit() == Some(true))
        .and_then(|soft| processes.open_below(id, soft));
    OwnerFds { pid: id.pid, usage, below_limit }
}

/// The one closest to its limit; the first of several. Sums and means would hide it.
fn fullest(all: impl Iterator<Item = OwnerFds>) -> Option<OwnerFds> {
    all.reduce(|best, next| if next.fullness() > best.fullness() { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FdLimits, FdUsage, Limit, Pid};

    #[test]
    fn the_fullest_of_several() {
        let of = |pid, open, soft| {
            let limits = Some(FdLimits { soft, hard: Limit::Unlimited });
            OwnerFds { pid: Pid(pid), usage: FdUsage { open, limits }, below_limit: None }
        };
        let fullest = |all: &[OwnerFds]| super::fullest(all.iter().copied()).map(|one| one.pid.0);
        let unknown = of(1, None, Limit::Of(1));
        let calm = of(2, Some(12), Limit::Of(1024));
        let (full, full_too) = (of(3, Some(60), Limit::Of(64)), of(4, Some(60), Limit::Of(64)));
        let unlimited = of(5, Some(9999), Limit::Unlimited);
        assert_eq!(fullest(&[]), None);
        assert_eq!(fullest(&[unknown]), Some(1));
        assert_eq!(fullest(&[unknown, calm, full, full_too]), Some(3));
        assert_eq!(fullest(&[unlimited, calm]), Some(2));
    }
}
