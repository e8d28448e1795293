//! A decoded record.

use super::{AcceptQueue, BootTime, Comm, Door, Errno, FdLimits, ProcessId, Target, Tid};

/// Where a key is counted, and the inode that tells two of its slot's users apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId {
    /// Slot of the kernel side.
    pub slot: u32,
    /// Inode number of the socket; 0 where there is none.
    pub inode: u64,
}

/// One failed call, with what was only known at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureEvent {
    /// Where it is counted.
    pub key: KeyId,
    /// When it failed.
    pub at: BootTime,
    /// Whose call.
    pub process: ProcessId,
    /// Which thread's.
    pub tid: Tid,
    /// The process's name at that moment.
    pub comm: Comm,
    /// cgroup v2 id.
    pub cgroup: u64,
    /// Which call.
    pub door: Door,
    /// Why.
    pub errno: Errno,
    /// On what.
    pub target: Target,
    /// The accept queue at that moment.
    pub queue: Option<AcceptQueue>,
    /// The limits at that moment.
    pub limits: Option<FdLimits>,
}
