//! Which fact is observed by which program, attached where.

use fdtrace_common::names;

/// An observed fact and how it is observed.
pub(super) struct Probe {
    /// The fact, as outputs name it.
    pub(super) name: &'static str,
    /// The program in the object.
    pub(super) program: &'static str,
    /// Where it is attached.
    pub(super) point: AttachPoint,
}

/// Where a program is attached.
#[derive(Clone, Copy)]
pub(super) enum AttachPoint {
    /// Category and name of a tracepoint.
    Tracepoint(&'static str, &'static str),
    /// Packets that arrive, at the root of the cgroup v2 hierarchy: at every socket of the host.
    CgroupIngress,
}

impl Probe {
    /// The form that is left where the program cannot be attached.
    pub(super) const fn fallback(&self) -> &'static str {
        match self.point {
            AttachPoint::CgroupIngress => POLLED_FORM,
            AttachPoint::Tracepoint(..) => NO_FORM,
        }
    }
}

impl AttachPoint {
    /// The name of the form.
    pub(super) const fn form(self) -> &'static str {
        match self {
            Self::Tracepoint(..) => "tracepoint",
            Self::CgroupIngress => "cgroup_skb",
        }
    }
}

/// The form of a probe that could not be attached.
pub(super) const NO_FORM: &str = "none";
/// The form of `queues` then: counters and listeners are polled, by others than this stage.
pub(super) const POLLED_FORM: &str = "sock_diag";

const fn on_exit_of(call: &'static str) -> AttachPoint {
    AttachPoint::Tracepoint("syscalls", call)
}

/// The main job: without these fdtrace does not start.
pub(super) const CALLS: [Probe; 4] = [
    Probe { name: "accept", program: names::ACCEPT_EXIT_TP, point: on_exit_of("sys_exit_accept") },
    Probe {
        name: "accept4",
        program: names::ACCEPT4_EXIT_TP,
        point: on_exit_of("sys_exit_accept4"),
    },
    Probe { name: "socket", program: names::SOCKET_EXIT_TP, point: on_exit_of("sys_exit_socket") },
    Probe {
        name: "socketpair",
        program: names::PAIR_EXIT_TP,
        point: on_exit_of("sys_exit_socketpair"),
    },
];

/// What fdtrace says it cannot see where the host does not allow it.
pub(super) const EXTRAS: [Probe; 2] = [
    Probe { name: "listen", program: names::LISTEN_EXIT_TP, point: on_exit_of("sys_exit_listen") },
    Probe { name: "queues", program: names::REFUSED_CG, point: AttachPoint::CgroupIngress },
];
