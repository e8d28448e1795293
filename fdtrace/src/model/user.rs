//! What all processes of a user share a limit of.

use super::{Comm, Pid};

/// Objects that the kernel counts for each user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerUser {
    /// inotify instances, of the user that a process acts as (effective) when it makes one.
    InotifyInstances,
    /// Pipes, of the user that a process belongs to (real).
    Pipes,
}

/// What processes of one user hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserHoldings {
    /// Which user.
    pub uid: u32,
    /// How many were found: pipes once each, inotify instances once for each process that has them.
    pub count: u64,
    /// Whether every process of the user was looked at.
    pub is_complete: bool,
    /// The processes with most of them, the first one has most.
    pub holders: Vec<Holder>,
    /// How many processes have any.
    pub holder_count: u64,
}

/// A process that holds some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Which.
    pub pid: Pid,
    /// Its name.
    pub comm: Comm,
    /// How many.
    pub count: u64,
}
