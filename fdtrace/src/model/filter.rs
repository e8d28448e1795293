//! Which failures the user asked for.

use super::{Comm, ContainerQuery, Door, Errno, Failure, Pid, Process, Target};

/// An empty list asks for all; a list asks for any of its members. What is filtered out is
/// counted in the kernel all the same, and not shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Whose.
    pub processes: ProcessFilter,
    /// Local ports of listeners.
    pub ports: Vec<u16>,
    /// Errnos.
    pub errnos: Vec<Errno>,
}

/// Which processes the user asked for, by what does not change while one lives. The same lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessFilter {
    /// Their numbers.
    pub pids: Vec<Pid>,
    /// Short names, whole.
    pub comms: Vec<Comm>,
    /// systemd services and scopes, whole names.
    pub units: Vec<String>,
    /// Containers.
    pub containers: Vec<ContainerQuery>,
    /// Pods, by UID or name.
    pub pods: Vec<String>,
}

impl ProcessFilter {
    /// Whether one of several processes is asked for: one alone, by all the lists. Nobody is, where
    /// everybody is; and who is in an unknown unit is not in the one asked for.
    #[must_use]
    pub fn wants_any(&self, processes: &[Process]) -> bool {
        *self == Self::default() || processes.iter().any(|process| self.wants(process))
    }

    fn wants(&self, process: &Process) -> bool {
        let Self { pids, comms, units, containers, pods } = self;
        let Process { id, comm, unit, container, pod, .. } = process;
        any(pids, Some(&id.pid), |asked, pid| asked == pid)
            && any(comms, Some(comm), |asked, comm| asked == comm)
            && any(units, unit.as_ref(), |asked, unit| asked == unit)
            && any(containers, container.as_ref(), ContainerQuery::wants)
            && any(pods, pod.as_ref(), |asked, pod| pod.is_called(asked))
    }
}

impl Filter {
    /// Whether a failure is asked for. Of several owners of a listener one is enough.
    #[must_use]
    pub fn wants(&self, owners: &[Process], target: &Target, failure: Failure) -> bool {
        self.wants_of(owners, target)
            && any(&self.errnos, failure.errno().as_ref(), |asked, errno| asked == errno)
    }

    /// Whether a warning is asked for: it has no errno.
    #[must_use]
    pub fn wants_warning(&self, owners: &[Process], target: &Target) -> bool {
        self.wants_of(owners, target) && self.errnos.is_empty()
    }

    fn wants_of(&self, owners: &[Process], target: &Target) -> bool {
        let port = target.listener().and_then(|listener| listener.address.port());
        any(&self.ports, port.as_ref(), |asked, port| asked == port)
            && self.processes.wants_any(owners)
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

/// Whether a value is one of those listed, or the list asks for all.
fn any<T, V>(list: &[T], value: Option<&V>, is_it: impl Fn(&T, &V) -> bool) -> bool {
    list.is_empty() || value.is_some_and(|value| list.iter().any(|asked| is_it(asked, value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BootTime, Container, Engine, Pod, ProcessId};

    #[test]
    fn each_list_restricts_alone() {
        let comm = Comm::from_bytes(b"nginx");
        let id = ProcessId { pid: Pid(7), started: BootTime::default() };
        let owner = Process::unread(id, comm.clone());
        let emfile = Failure::Errno(Errno::EMFILE);
        let wants =
            |filter: &Filter| filter.wants(std::slice::from_ref(&owner), &Target::None, emfile);
        let of = |processes| Filter { processes, ..Filter::default() };
        let pid = |pid| of(ProcessFilter { pids: vec![Pid(1), Pid(pid)], ..none() });
        let named =
            |name: &[u8]| of(ProcessFilter { comms: vec![Comm::from_bytes(name)], ..none() });
        assert!(wants(&Filter::default()));
        assert!(wants(&pid(7)) && !wants(&pid(8)));
        assert!(wants(&named(b"nginx")) && !wants(&named(b"ngin")));
        assert!(!wants(&Filter { errnos: vec![Errno::ENFILE], ..Filter::default() }));
        // No listener has no port.
        assert!(!wants(&Filter { ports: vec![80], ..Filter::default() }));
        // Nobody is not the one asked for, and a refused client has no errno.
        assert!(!pid(7).wants(&[], &Target::None, Failure::SynQueueFull));
        let errnos = Filter { errnos: vec![Errno::EMFILE], ..Filter::default() };
        assert!(!errnos.wants(std::slice::from_ref(&owner), &Target::None, Failure::SynQueueFull));
        // A warning has none either.
        let warns =
            |filter: &Filter| filter.wants_warning(std::slice::from_ref(&owner), &Target::None);
        assert!(warns(&Filter::default()) && warns(&pid(7)) && !warns(&errnos));
    }

    #[test]
    fn by_where_a_process_belongs() {
        let owner = |pid| {
            let id = ProcessId { pid: Pid(pid), started: BootTime::default() };
            Process::unread(id, Comm::from_bytes(b"nginx"))
        };
        let container = Container { id: "4f1c0d6f".to_owned(), engine: Some(Engine::Docker) };
        let pod = Pod { uid: "0f3a9c1e".to_owned(), name: Some("web-0".to_owned()) };
        let placed = Process {
            unit: Some("web.service".to_owned()),
            container: Some(container),
            pod: Some(pod),
            ..owner(7)
        };
        let elsewhere = owner(8);
        let both = [elsewhere.clone(), placed];
        let units = |name: &str| ProcessFilter { units: vec![name.to_owned()], ..none() };
        let pods = |name: &str| ProcessFilter { pods: vec![name.to_owned()], ..none() };
        let containers = |start: &str| ProcessFilter {
            containers: vec![ContainerQuery::Id(start.to_owned())],
            ..none()
        };
        for (filter, wanted) in [
            (none(), true),
            (units("web.service"), true),
            (units("web"), false),
            (containers("4f1c"), true),
            (containers("4f1d"), false),
            (pods("web-0"), true),
            (pods("0f3a9c1e"), true),
            (pods("web"), false),
        ] {
            assert_eq!(filter.wants_any(&both), wanted, "{filter:?}");
            // Unknown is not the one asked for.
            assert_eq!(filter.wants_any(&both[..1]), filter == none(), "{filter:?}");
        }
        // Not one of them by its number and another one by its container.
        let mixed = ProcessFilter { pids: vec![Pid(8)], ..containers("4f1c") };
        assert!(!mixed.wants_any(&both));
    }

    fn none() -> ProcessFilter {
        ProcessFilter::default()
    }
}
