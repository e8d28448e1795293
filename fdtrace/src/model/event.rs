//! A decoded record.

use super::{
    AcceptQueue, BootTime, Comm, Door, Failure, FdLimits, Listener, Met, ProcessId, Target, Tid,
};

/// Where a key is counted, and the inode that tells two of its slot's users apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId {
    /// Slot of the kernel side.
    pub slot: u32,
    /// Inode number of the socket; 0 where there is none.
    pub inode: u64,
}

/// A decoded record of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something failed.
    Failure(FailureEvent),
    /// A process called listen(2).
    Listen(ListenEvent),
    /// A process that accepts comes close to its limit.
    Gauge(GaugeEvent),
}

/// One failed call or refused segment, with what was only known at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureEvent {
    /// Where it is counted.
    pub key: KeyId,
    /// When it failed.
    pub at: BootTime,
    /// Whose call; `None` where a segment was refused, for then no process is there.
    pub caller: Option<Caller>,
    /// Where.
    pub door: Door,
    /// Why.
    pub failure: Failure,
    /// On what.
    pub target: Target,
    /// The accept queue at that moment.
    pub queue: Option<AcceptQueue>,
    /// The limits at that moment.
    pub limits: Option<FdLimits>,
    /// The limit that the call met, where the kernel side saw which.
    pub met: Option<Met>,
}

/// Who made the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The process.
    pub process: ProcessId,
    /// The thread.
    pub tid: Tid,
    /// The process's name at that moment.
    pub comm: Comm,
    /// cgroup v2 id.
    pub cgroup: u64,
}

/// A socket that listens from now on, or with another backlog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenEvent {
    /// Inode number of the socket.
    pub inode: u64,
    /// Who called listen.
    pub caller: Caller,
    /// Where it listens.
    pub listener: Listener,
    /// Its accept queue: the limit is the effective backlog.
    pub queue: Option<AcceptQueue>,
    /// The requested backlog: listen's argument.
    pub requested: u32,
}

/// An accept that succeeded, of a process that is close to its soft limit of descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GaugeEvent {
    /// Who called accept.
    pub caller: Caller,
    /// Inode number of the socket it was called on; 0 where there is none.
    pub inode: u64,
    /// That socket.
    pub target: Target,
    /// The process's limits.
    pub limits: Option<FdLimits>,
    /// The descriptor that accept returned: all with a lower number are in use.
    pub fd: u32,
}
