//! Which facts are observed, and in which forms: by which programs, attached where.

use fdtrace_common::{FD_CALLS, FD_CALLS_THAT_FAIL};

/// An observed fact and its forms, the best first.
#[derive(Debug)]
pub(super) struct Probe {
    /// The fact, as outputs name it.
    pub(super) name: &'static str,
    /// What it takes.
    pub(super) forms: &'static [Form],
    /// When it is wanted.
    pub(super) wanted: Wanted,
}

/// When a probe is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The main job: without it fdtrace does not start.
    Needed,
    /// Always; fdtrace says so where the host does not allow it.
    Always,
    /// Where every call that creates a descriptor is asked for.
    ForFds,
}

/// One way to observe a fact.
#[derive(Debug)]
pub(super) struct Form {
    /// Which.
    pub(super) kind: FormKind,
    /// Each program and where it is attached. All of them, but those that may be absent.
    pub(super) steps: &'static [Step],
}

/// Names of forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FormKind {
    /// Entry and exit of kernel functions, by trampoline.
    Fexit,
    /// The same, where only the entry is needed.
    Fentry,
    /// Entry and return of kernel functions, by breakpoint.
    Kprobe,
    /// Tracepoints of system calls.
    Tracepoint,
    /// A tracepoint with typed arguments.
    TpBtf,
    /// Packets that arrive, at the root of the cgroup v2 hierarchy: at every socket of the host.
    CgroupSkb,
}

/// A program and where it is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The program in the object.
    pub(super) program: &'static str,
    /// Where.
    pub(super) point: Point,
    /// Whether something is missed on a kernel without that point.
    pub(super) absence: Absence,
}

/// What it means that a kernel has no such point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absence {
    /// The form cannot be used.
    Matters,
    /// What happens there does not happen on this kernel.
    IsFine,
    /// The same, where the kernel has no IPv6 at all.
    IsFineWithoutIpv6,
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// Entry of a kernel function, with the number of arguments the program knows.
    Fentry(Function),
    /// Its exit.
    Fexit(Function),
    /// Entry of a kernel function.
    Kprobe(Function),
    /// Its return.
    Kretprobe(Function),
    /// Exit of a system call.
    SysExit(&'static str),
    /// A tracepoint with typed arguments.
    TpBtf(&'static str),
    /// Incoming packets of this kind.
    Packets(Packets),
}

/// What a packet program looks for; one program looks for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packets {
    Syn = 0,
    Ack = 1,
}

/// A kernel function and how many arguments it takes: one with fewer or more is another function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) arguments: (u32, u32),
}

impl FormKind {
    /// As outputs name it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fexit => "fexit",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
            Self::TpBtf => "tp_btf",
            Self::CgroupSkb => "cgroup_skb",
        }
    }
}

impl Point {
    /// The point, as a person names it.
    pub(super) fn name(self) -> String {
        match self {
            Self::Fentry(function) => format!("fentry/{}", function.name),
            Self::Fexit(function) => format!("fexit/{}", function.name),
            Self::Kprobe(function) => format!("kprobe/{}", function.name),
            Self::Kretprobe(function) => format!("kretprobe/{}", function.name),
            Self::SysExit(call) => format!("syscalls:sys_exit_{call}"),
            Self::TpBtf(name) => format!("tp_btf/{name}"),
            Self::Packets(_) => "cgroup_skb/ingress".to_owned(),
        }
    }

    /// The kernel function, where it is one.
    pub(super) const fn function(self) -> Option<Function> {
        match self {
            Self::Fentry(function)
            | Self::Fexit(function)
            | Self::Kprobe(function)
            | Self::Kretprobe(function) => Some(function),
            Self::SysExit(_) | Self::TpBtf(_) | Self::Packets(_) => None,
        }
    }
}

/// The form of a probe that could not be attached.
pub const NO_FORM: &str = "none";
/// The form of `syn` and `ack` then: counters and listeners are polled, by others than this stage.
pub(super) const POLLED_FORM: &str = "sock_diag";

/// The allocator of descriptors before 5.11: it takes the table first. (It has no form `fexit`: what goes
/// with it takes bpf_get_func_ret(), which is younger.)
pub(super) const OLD_ALLOC_FD: Function = function("__alloc_fd", 4);

const fn function(name: &'static str, arguments: u32) -> Function {
    Function { name, arguments: (arguments, arguments) }
}

const fn step(program: &'static str, point: Point) -> Step {
    Step { program, point, absence: Absence::Matters }
}

const fn optional(program: &'static str, point: Point) -> Step {
    Step { program, point, absence: Absence::IsFine }
}

const fn with_ipv6(program: &'static str, point: Point) -> Step {
    Step { program, point, absence: Absence::IsFineWithoutIpv6 }
}

const fn fexit(program: &'static str, on: Function) -> Step {
    step(program, Point::Fexit(on))
}

const fn kprobe(program: &'static str, on: Function) -> Step {
    step(program, Point::Kprobe(on))
}

const fn kretprobe(program: &'static str, on: Function) -> Step {
    step(program, Point::Kretprobe(on))
}

const fn sys_exit(program: &'static str, call: &'static str) -> Step {
    step(program, Point::SysExit(call))
}

const ACCEPT: Function = function("__sys_accept4", 4);
const SOCKET: Function = function("__sys_socket", 3);
const PAIR: Function = function("__sys_socketpair", 4);
const LISTEN: Function = function("__sys_listen", 2);
const IO_ACCEPT: Function = function("io_accept", 2);
const ALLOC_FD: Function = function("alloc_fd", 3);
const ALLOC_FILE: Function = function("alloc_empty_file", 2);
const IO_SLOT: Function = function("io_fixed_fd_install", 4);
const INOTIFY: Function = function("do_inotify_init", 1);
const PIPE: Function = function("create_pipe_files", 2);
const SYN: Function = function("tcp_conn_request", 4);
/// A seventh argument came with 7.0 and was backported; only the first two are read.
const ACK4: Function = Function { name: "tcp_v4_syn_recv_sock", arguments: (6, 7) };
const ACK6: Function = Function { name: "tcp_v6_syn_recv_sock", arguments: (6, 7) };

/// One program on the exit of every call that fails when it gets no descriptor. (recvmsg(2) does not
/// fail: the descriptors it drops are seen in other forms only.)
const FD_CALL_EXITS: [Step; FD_CALLS_THAT_FAIL] = {
    let mut steps = [optional("fds_exit_tp", Point::SysExit("")); FD_CALLS_THAT_FAIL];
    let mut index = 0;
    while index < FD_CALLS_THAT_FAIL {
        steps[index].point = Point::SysExit(FD_CALLS[index].name);
        index += 1;
    }
    steps
};

/// Every probe. The order of forms is that of what they promise and cost:
///
/// fexit costs nothing but at the function itself and misses nothing. Tracepoints miss nothing, and
/// cost every system call of the host some nanoseconds. A return probe has a limited number of
/// places for tasks that are inside its function (kernel/kprobes.c `maxactive`, v6.12: 10, or twice
/// the CPUs), so on functions in which tasks wait, as accept, it is the last choice. On others
/// kprobes come before tracepoints: they see more. Packets cost every packet something, so the
/// packet program comes last of all.
pub(super) const PROBES: [Probe; 8] = [
    Probe {
        name: "accept",
        wanted: Wanted::Needed,
        forms: &[
            Form { kind: FormKind::Fexit, steps: &[fexit("accept_fx", ACCEPT)] },
            Form {
                kind: FormKind::Tracepoint,
                steps: &[
                    sys_exit("accept_exit_tp", "accept"),
                    sys_exit("accept_exit_tp", "accept4"),
                ],
            },
            Form {
                kind: FormKind::Kprobe,
                steps: &[kretprobe("accept_kr", ACCEPT), kprobe("accept_kp", ACCEPT)],
            },
        ],
    },
    Probe {
        name: "socket",
        wanted: Wanted::Always,
        forms: &[
            Form { kind: FormKind::Fexit, steps: &[fexit("socket_fx", SOCKET)] },
            Form { kind: FormKind::Tracepoint, steps: &[sys_exit("socket_exit_tp", "socket")] },
            Form { kind: FormKind::Kprobe, steps: &[kretprobe("socket_kr", SOCKET)] },
        ],
    },
    Probe {
        name: "socketpair",
        wanted: Wanted::Always,
        forms: &[
            Form { kind: FormKind::Fexit, steps: &[fexit("pair_fx", PAIR)] },
            Form { kind: FormKind::Tracepoint, steps: &[sys_exit("socket_exit_tp", "socketpair")] },
            Form { kind: FormKind::Kprobe, steps: &[kretprobe("pair_kr", PAIR)] },
        ],
    },
    Probe {
        name: "listen",
        wanted: Wanted::Always,
        forms: &[
            Form { kind: FormKind::Fexit, steps: &[fexit("listen_fx", LISTEN)] },
            Form { kind: FormKind::Tracepoint, steps: &[sys_exit("listen_exit_tp", "listen")] },
            Form {
                kind: FormKind::Kprobe,
                steps: &[kretprobe("listen_kr", LISTEN), kprobe("listen_kp", LISTEN)],
            },
        ],
    },
    Probe {
        name: "io_uring",
        wanted: Wanted::Always,
        forms: &[
            Form { kind: FormKind::Fexit, steps: &[fexit("uring_fx", IO_ACCEPT)] },
            Form {
                kind: FormKind::TpBtf,
                steps: &[step("uring_done_btp", Point::TpBtf("io_uring_complete"))],
            },
            Form {
                kind: FormKind::Kprobe,
                steps: &[kretprobe("uring_kr", IO_ACCEPT), kprobe("uring_kp", IO_ACCEPT)],
            },
        ],
    },
    Probe {
        name: "fds",
        wanted: Wanted::ForFds,
        forms: &[
            Form {
                kind: FormKind::Fexit,
                steps: &[
                    // First: what fails in an accept of io_uring is not counted twice.
                    optional("uring_out_fx", Point::Fexit(IO_ACCEPT)),
                    optional("uring_in_fe", Point::Fentry(IO_ACCEPT)),
                    fexit("fds_fx", ALLOC_FD),
                    fexit("files_fx", ALLOC_FILE),
                    optional("inotify_fx", Point::Fexit(INOTIFY)),
                    optional("pipe_fx", Point::Fexit(PIPE)),
                    optional("slot_fx", Point::Fexit(IO_SLOT)),
                ],
            },
            Form {
                kind: FormKind::Kprobe,
                steps: &[
                    optional("uring_out_kr", Point::Kretprobe(IO_ACCEPT)),
                    optional("uring_in_kp", Point::Kprobe(IO_ACCEPT)),
                    kretprobe("fds_kr", ALLOC_FD),
                    kprobe("fds_kp", ALLOC_FD),
                    kretprobe("files_kr", ALLOC_FILE),
                    optional("inotify_kr", Point::Kretprobe(INOTIFY)),
                    optional("pipe_kr", Point::Kretprobe(PIPE)),
                    optional("slot_kr", Point::Kretprobe(IO_SLOT)),
                    optional("slot_kp", Point::Kprobe(IO_SLOT)),
                ],
            },
            Form { kind: FormKind::Tracepoint, steps: &FD_CALL_EXITS },
        ],
    },
    Probe {
        name: "syn",
        wanted: Wanted::Always,
        forms: &[
            Form { kind: FormKind::Fentry, steps: &[step("syn_fe", Point::Fentry(SYN))] },
            Form { kind: FormKind::Kprobe, steps: &[kprobe("syn_kp", SYN)] },
            Form {
                kind: FormKind::CgroupSkb,
                steps: &[step("refused_cg", Point::Packets(Packets::Syn))],
            },
        ],
    },
    Probe {
        name: "ack",
        wanted: Wanted::Always,
        forms: &[
            Form {
                kind: FormKind::Fentry,
                steps: &[
                    step("ack4_fe", Point::Fentry(ACK4)),
                    with_ipv6("ack6_fe", Point::Fentry(ACK6)),
                ],
            },
            Form {
                kind: FormKind::Kprobe,
                steps: &[kprobe("ack4_kp", ACK4), with_ipv6("ack6_kp", Point::Kprobe(ACK6))],
            },
            Form {
                kind: FormKind::CgroupSkb,
                steps: &[step("refused_cg", Point::Packets(Packets::Ack))],
            },
        ],
    },
];
