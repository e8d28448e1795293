//! Who is calling.

use std::{fmt, path::PathBuf};

use super::{BootTime, Container, Pod};

/// A process's number: the kernel's tgid, in the initial pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(pub u32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A thread's number: the kernel's pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tid(pub u32);

/// One process, also when its pid is used again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId {
    /// Its number.
    pub pid: Pid,
    /// When it started.
    pub started: BootTime,
}

/// A process's short name: up to 15 bytes of anything but NUL, chosen by the process itself.
///
/// There is no `Display`: an output must say how it escapes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Comm(Vec<u8>);

impl Comm {
    /// Up to the first NUL.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        Self(bytes[..end].to_vec())
    }

    /// The name as the kernel has it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as text, invalid UTF-8 replaced.
    #[must_use]
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

/// Everything known of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Which.
    pub id: ProcessId,
    /// Its short name.
    pub comm: Comm,
    /// The file it runs; `None` where it could not be read, as for a process that is gone.
    pub exe: Option<PathBuf>,
    /// Its arguments; the same.
    pub cmdline: Option<Vec<Vec<u8>>>,
    /// Its systemd service or scope on the host, from its cgroup.
    pub unit: Option<String>,
    /// The slice of the user it belongs to, as `user-1000.slice`; from its cgroup.
    pub user_slice: Option<String>,
    /// Its container, from its cgroup.
    pub container: Option<Container>,
    /// Its container's pod: from its cgroup, and the name from its environment.
    pub pod: Option<Pod>,
    /// Its number in its own pid namespace; that of `id` where it is in no other. `None` where it
    /// could not be read.
    pub ns_pid: Option<Pid>,
}

impl Process {
    /// One of which nothing could be read.
    #[must_use]
    pub const fn unread(id: ProcessId, comm: Comm) -> Self {
        Self {
            id,
            comm,
            exe: None,
            cmdline: None,
            unit: None,
            user_slice: None,
            container: None,
            pod: None,
            ns_pid: None,
        }
    }
}
