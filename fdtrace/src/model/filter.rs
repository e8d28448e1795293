//! Which failures the user asked for.

use super::{Comm, Door, Errno, Pid, Target};

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
    /// Whether a failure is asked for.
    #[must_use]
    pub fn wants(&self, pid: Pid, comm: &Comm, target: &Target, errno: Errno) -> bool {
        fn any<T: PartialEq>(list: &[T], value: Option<&T>) -> bool {
            list.is_empty() || value.is_some_and(|value| list.contains(value))
        }
        let port = target.listener().and_then(|listener| listener.address.port());
        any(&self.pids, Some(&pid))
            && any(&self.ports, port.as_ref())
            && any(&self.comms, Some(comm))
            && any(&self.errnos, Some(&errno))
    }

    /// Whether failures like this one are reported as they happen.
    ///
    /// Failed accepts always are. socket(2) fails in healthy programs that ask what the kernel
    /// supports (EAFNOSUPPORT), so there only exhaustion is, or an errno asked for by name; the
    /// others are in the summary.
    #[must_use]
    pub fn is_live(&self, door: Door, errno: Errno) -> bool {
        door.accepts() || errno.is_exhaustion() || self.errnos.contains(&errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_list_restricts_alone() {
        let comm = Comm::from_bytes(b"nginx");
        let wants = |filter: &Filter| filter.wants(Pid(7), &comm, &Target::None, Errno::EMFILE);
        assert!(wants(&Filter::default()));
        assert!(wants(&Filter { pids: vec![Pid(1), Pid(7)], ..Filter::default() }));
        assert!(!wants(&Filter { pids: vec![Pid(1)], ..Filter::default() }));
        assert!(wants(&Filter { comms: vec![comm.clone()], ..Filter::default() }));
        assert!(!wants(&Filter { comms: vec![Comm::from_bytes(b"ngin")], ..Filter::default() }));
        assert!(!wants(&Filter { errnos: vec![Errno::ENFILE], ..Filter::default() }));
        // No listener has no port.
        assert!(!wants(&Filter { ports: vec![80], ..Filter::default() }));
    }
}
