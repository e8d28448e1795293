//! Which failures the user asked for.

use super::{Comm, Door, Errno, Failure, Pid, Process, Target};

/// An empty list asks for all; a list asks for any of its members. What is filtered out is
/// counted in the kernel all the same, and not shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Processes.
    pub pids: Vec<Pid>,
    /// Local ports of listeners.
    pub ports: Vec<u16>,
    /// Short names, whole.
    pub comms: Vec<Comm>,
    /// Errnos.
    pub errnos: Vec<Errno>,
}

impl Filter {
    /// Whether a failure is asked for. Of several owners of a listener one is enough.
    #[must_use]
    pub fn wants(&self, owners: &[Process], target: &Target, failure: Failure) -> bool {
        self.wants_of(owners, target) && any(&self.errnos, failure.errno())
    }

    /// Whether a warning is asked for: it has no errno.
    #[must_use]
    pub fn wants_warning(&self, owners: &[Process], target: &Target) -> bool {
        self.wants_of(owners, target) && self.errnos.is_empty()
    }

    fn wants_of(&self, owners: &[Process], target: &Target) -> bool {
        let port = target.listener().and_then(|listener| listener.address.port());
        any(&self.pids, owners.iter().map(|owner| owner.id.pid))
            && any(&self.ports, port)
            && any(&self.comms, owners.iter().map(|owner| owner.comm.clone()))
    }

    /// Whether failures like this one are reported as they happen.
    ///
    /// Failed accepts and refused clients always are. socket(2) fails in healthy programs that ask
    /// what the kernel supports (EAFNOSUPPORT), so there only exhaustion is, or an errno asked for
    /// by name; the others are in the summary.
    #[must_use]
    pub fn is_live(&self, door: Door, failure: Failure) -> bool {
        let asked = failure.errno().is_none_or(|errno| self.errnos.contains(&errno));
        door.accepts() || failure.is_exhaustion() || asked
    }
}

/// Whether one of the values is listed, or the list asks for all.
fn any<T: PartialEq>(list: &[T], values: impl IntoIterator<Item = T>) -> bool {
    list.is_empty() || values.into_iter().any(|value| list.contains(&value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BootTime, ProcessId};

    #[test]
    fn each_list_restricts_alone() {
        let comm = Comm::from_bytes(b"nginx");
        let owner = Process {
            id: ProcessId { pid: Pid(7), started: BootTime::default() },
            comm: comm.clone(),
            exe: None,
            cmdline: None,
            unit: None,
            container: None,
        };
        let emfile = Failure::Errno(Errno::EMFILE);
        let wants =
            |filter: &Filter| filter.wants(std::slice::from_ref(&owner), &Target::None, emfile);
        assert!(wants(&Filter::default()));
        assert!(wants(&Filter { pids: vec![Pid(1), Pid(7)], ..Filter::default() }));
        assert!(!wants(&Filter { pids: vec![Pid(1)], ..Filter::default() }));
        assert!(wants(&Filter { comms: vec![comm], ..Filter::default() }));
        assert!(!wants(&Filter { comms: vec![Comm::from_bytes(b"ngin")], ..Filter::default() }));
        assert!(!wants(&Filter { errnos: vec![Errno::ENFILE], ..Filter::default() }));
        // No listener has no port.
        assert!(!wants(&Filter { ports: vec![80], ..Filter::default() }));
        // Nobody is not the one asked for, and a refused client has no errno.
        let pids = Filter { pids: vec![Pid(7)], ..Filter::default() };
        assert!(!pids.wants(&[], &Target::None, Failure::SynQueueFull));
        let errnos = Filter { errnos: vec![Errno::EMFILE], ..Filter::default() };
        assert!(!errnos.wants(std::slice::from_ref(&owner), &Target::None, Failure::SynQueueFull));
        // A warning has none either.
        let warns =
            |filter: &Filter| filter.wants_warning(std::slice::from_ref(&owner), &Target::None);
        assert!(warns(&Filter::default()) && warns(&pids) && !warns(&errnos));
    }
}
