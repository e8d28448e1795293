//! What the aggregator asks: the kernel for counts, /proc for processes, owners and namespaces.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
};

use crate::{
    aggregate::{Host, SlotCount},
    enrich::{Namespaces, Owner, Owners, Processes, system_limits},
    kernel::{Count, Kernel},
    model::{
        Backlog, BootTime, Caller, FdLimits, FdUsage, ListenEvent, Process, ProcessId, SystemLimits,
    },
};

/// Where /proc is.
pub(super) const PROC: &str = "/proc";

/// How many owners of one listener are described: the lead, and enough to know what they are.
const MOST_OWNERS: usize = 64;

/// How many sockets' requested backlogs are remembered; the oldest are forgotten.
const MOST_BACKLOGS: usize = 4096;

pub(super) struct Live {
    pub(super) kernel: Kernel,
    pub(super) processes: Processes,
    pub(super) owners: Owners,
    /// Facts of a namespace are read when they are asked for.
    pub(super) namespaces: RefCell<Namespaces>,
    requested: BTreeMap<u64, u32>,
    /// Keys of `requested`, oldest first.
    order: VecDeque<u64>,
}

impl Live {
    pub(super) fn new(kernel: Kernel, namespaces: Namespaces) -> Self {
        let root = PathBuf::from(PROC);
        Self {
            kernel,
            processes: Processes::new(root.clone()),
            owners: Owners::new(root),
            namespaces: RefCell::new(namespaces),
            requested: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    pub(super) fn describe(&mut self, caller: &Caller) -> Process {
        self.processes.describe(caller.process, &caller.comm)
    }

    /// Who owns a socket, as far as that was looked up already; it is asked for in any case.
    pub(super) fn owners_of(&mut self, inode: u64) -> Option<Vec<Process>> {
        self.owners.request(inode);
        self.known_owners(inode)
    }

    /// The same, without asking.
    pub(super) fn known_owners(&mut self, inode: u64) -> Option<Vec<Process>> {
        let owners = self.owners.known(inode)?.to_vec();
        Some(self.describe_all(&owners))
    }

    pub(super) fn describe_all(&mut self, owners: &[Owner]) -> Vec<Process> {
        let owners = owners.iter().take(MOST_OWNERS);
        owners.map(|owner| self.processes.describe(owner.id, &owner.comm)).collect()
    }

    /// Takes what a listen(2) says.
    pub(super) fn note_listen(&mut self, event: &ListenEvent) {
        self.owners.note(event.inode, event.caller.process, &event.caller.comm);
        if let Some(netns) = event.listener.netns {
            self.namespaces.borrow_mut().meet_through(netns, event.caller.process.pid);
        }
        if self.requested.insert(event.inode, event.requested).is_none() {
            self.order.push_back(event.inode);
        }
        if self.order.len() > MOST_BACKLOGS
            && let Some(oldest) = self.order.pop_front()
        {
            self.requested.remove(&oldest);
        }
    }
}

impl Host for Live {
    fn fds(&self, process: ProcessId, known: Option<FdLimits>) -> FdUsage {
        self.processes.fd_usage(process, known)
    }

    fn open_below(&self, process: ProcessId, limit: u64) -> Option<u64> {
        self.processes.open_below(process, limit)
    }

    fn system(&self) -> SystemLimits {
        system_limits(Path::new(PROC))
    }

    fn is_alive(&self, process: ProcessId) -> bool {
        self.processes.is_alive(process)
    }

    fn count(&self, slot: u32) -> SlotCount {
        slot_count(self.kernel.count(slot))
    }

    fn refused_clients(&self, slots: &[u32]) -> Option<u64> {
        self.kernel.refused_clients(slots)
    }

    fn forget_clients(&self, slot: u32) {
        self.kernel.forget_clients(slot);
    }

    fn backlog(&self, inode: u64, netns: Option<u32>) -> Option<Backlog> {
        let requested = self.requested.get(&inode).copied();
        let somaxconn = netns.and_then(|netns| self.namespaces.borrow_mut().facts(netns).somaxconn);
        (requested.is_some() || somaxconn.is_some()).then_some(Backlog { requested, somaxconn })
    }
}

pub(super) fn slot_count(count: Count) -> SlotCount {
    SlotCount { total: count.total, last: BootTime::from_nanos(count.last_boot_ns) }
}
