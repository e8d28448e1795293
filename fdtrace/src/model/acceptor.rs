//! What the threads of an acceptor were doing.

use std::time::Duration;

use super::{Comm, Pid, Tid};

/// The threads of one process, looked at twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Acceptor {
    /// Whose.
    pub pid: Pid,
    /// The time between the two looks: what [`Thread::cpu`] is measured over.
    pub window: Duration,
    /// How many threads it has.
    pub thread_count: u64,
    /// Those that were looked at: all, unless there are very many. The busiest first.
    pub threads: Vec<Thread>,
    /// Who traces it (ptrace(2)): a debugger, strace.
    pub tracer: Option<Pid>,
    /// What could not be found out, each with the reason.
    pub unknown: Vec<String>,
}

/// One thread.
#[derive(Clone, Debug, PartialEq)]
pub struct Thread {
    /// Which.
    pub tid: Tid,
    /// Its name.
    pub comm: Comm,
    /// Its state at the second look.
    pub state: ThreadState,
    /// Whether its state was the same at the first look.
    pub is_steady: bool,
    /// The part of one core that it used, 0 to 1; `None` where it could not be measured.
    pub cpu: Option<f64>,
    /// The part of the time that it was ready to run and got no core; the same.
    pub starved: Option<f64>,
    /// The kernel function it waits in.
    pub wchan: Option<String>,
    /// The system call it is in.
    pub syscall: Option<Syscall>,
}

/// States of a thread, as in /proc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadState {
    /// `R`: runs, or waits for a core.
    Running,
    /// `S`: waits for something, and a signal may wake it.
    Sleeping,
    /// `D`: waits for something, mostly a disk or a network file system, and nothing else wakes it.
    Uninterruptible,
    /// `T`: stopped by a signal.
    Stopped,
    /// `t`: stopped by its tracer.
    Traced,
    /// `Z`, `X`: has ended.
    Ended,
    /// `I` and whatever else there may be.
    Other(u8),
}

/// A system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syscall {
    /// Its number on this machine.
    pub number: i64,
    /// Its name, for those that acceptors wait in.
    pub name: Option<&'static str>,
    /// Its first argument: mostly a descriptor.
    pub first_argument: u64,
}

/// What an acceptor does about its failures, or what keeps it from accepting.
#[derive(Clone, Debug, PartialEq)]
pub enum Behaviour {
    /// It was stopped by a signal.
    Stopped,
    /// Its tracer has stopped it.
    Traced {
        /// Who that is.
        by: Option<Pid>,
    },
    /// Its cgroup is frozen.
    Frozen,
    /// A thread, the only one or one that was named, waits for something that nothing interrupts.
    Blocked {
        /// Which.
        tid: Tid,
        /// Its name.
        comm: Comm,
        /// The kernel function it waits in.
        wchan: Option<String>,
    },
    /// One thread uses a core up, the others next to nothing.
    CpuBound {
        /// Which.
        tid: Tid,
        /// Its name.
        comm: Comm,
        /// The part of one core that it used.
        cpu: f64,
    },
    /// It tries accept again at once, and burns a core with it.
    BusyLoop {
        /// Failed calls per second.
        per_second: f64,
        /// The part of one core that its busiest thread used, where known.
        cpu: Option<f64>,
    },
    /// It waits after each failure, longer every time, up to so long.
    BackingOff {
        /// The longest wait seen.
        longest: Duration,
    },
    /// It waits as long after each failure.
    Pausing {
        /// How long.
        pause: Duration,
    },
    /// Its calls fail, and yet its queue stays empty: it takes connections only to close them, or
    /// another acceptor takes them.
    DrainsWhileFailing,
    /// It does not fail any more, and nobody takes what waits.
    GaveUp {
        /// How long ago its last failure was.
        silent: Duration,
    },
}

impl Acceptor {
    /// Threads that have not ended.
    pub fn alive(&self) -> impl Iterator<Item = &Thread> {
        self.threads.iter().filter(|thread| thread.state != ThreadState::Ended)
    }

    /// Whether every thread was looked at.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        u64::try_from(self.threads.len()).is_ok_and(|seen| seen >= self.thread_count)
    }
}

impl ThreadState {
    /// From the letter in /proc.
    #[must_use]
    pub const fn from_letter(letter: u8) -> Self {
        match letter {
            b'R' => Self::Running,
            b'S' => Self::Sleeping,
            b'D' => Self::Uninterruptible,
            b'T' => Self::Stopped,
            b't' => Self::Traced,
            b'Z' | b'X' | b'x' => Self::Ended,
            other => Self::Other(other),
        }
    }
}

impl Thread {
    /// Whether it is frozen with its cgroup.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        // kernel/freezer.c __refrigerator (cgroup v1), kernel/signal.c do_freezer_trap (v2), which
        // a compiler may put into get_signal, where nothing else sleeps without being stopped
        // (v6.18).
        match self.wchan.as_deref() {
            Some("__refrigerator" | "do_freezer_trap") => true,
            Some("get_signal") => self.state == ThreadState::Sleeping,
            _ => false,
        }
    }
}

impl Behaviour {
    /// Its stable name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Traced { .. } => "traced",
            Self::Frozen => "frozen",
            Self::Blocked { .. } => "blocked",
            Self::CpuBound { .. } => "cpu_bound",
            Self::BusyLoop { .. } => "busy_loop",
            Self::BackingOff { .. } => "backing_off",
            Self::Pausing { .. } => "pausing",
            Self::DrainsWhileFailing => "drains_while_failing",
            Self::GaveUp { .. } => "gave_up",
        }
    }
}
