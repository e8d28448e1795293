//! Which fact is observed by which program, attached where.

use fdtrace_common::names;

/// An observed fact and how it is observed.
pub(super) struct Probe {
    /// The fact, as outputs name it.
    pub(super) name: &'static str,
    /// The program in the object.
    pub(super) program: &'static str,
    /// Category and name of the tracepoint.
    pub(super) tracepoint: (&'static str, &'static str),
}

/// The form of all of them.
pub(super) const FORM: &str = "tracepoint";

/// Every probe.
pub(super) const PROBES: [Probe; 4] = [
    Probe {
        name: "accept",
        program: names::ACCEPT_EXIT_TP,
        tracepoint: ("syscalls", "sys_exit_accept"),
    },
    Probe {
        name: "accept4",
        program: names::ACCEPT4_EXIT_TP,
        tracepoint: ("syscalls", "sys_exit_accept4"),
    },
    Probe {
        name: "socket",
        program: names::SOCKET_EXIT_TP,
        tracepoint: ("syscalls", "sys_exit_socket"),
    },
    Probe {
        name: "socketpair",
        program: names::PAIR_EXIT_TP,
        tracepoint: ("syscalls", "sys_exit_socketpair"),
    },
];
