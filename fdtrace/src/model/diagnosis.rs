//! Why it failed, and what to do about it.

use std::time::{Duration, SystemTime};

/// What diagnosis says about one cause. The first of several is the one to act on.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// Which cause.
    pub cause: Cause,
    /// Whether the evidence decides it.
    pub certainty: Certainty,
    /// One or two sentences for an operator. Names from processes and files are in it as they
    /// are: outputs escape.
    pub why: String,
    /// What it was concluded from.
    pub evidence: Vec<Evidence>,
    /// What to do, the mildest first.
    pub remedies: Vec<Remedy>,
    /// What could not be found out and would have mattered, each with the reason.
    pub unknown: Vec<String>,
}

/// Causes, each with a page in docs/causes.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The soft limit is below the hard one: the process could have more, and did not ask.
    SoftLimitLow,
    /// The hard limit is what bites, inherited from an ancestor.
    HardLimitLow,
    /// A setting was raised, and the process or an ancestor is older than that.
    RaisedAfterStart,
    /// The process's own configuration sets or caps its limit (nginx, redis, …).
    OwnSetting,
    /// `fs.nr_open`: the ceiling of every process.
    NrOpen,
    /// `fs.file-max`: file handles of the whole system.
    FileMax,
    /// ENFILE, and not file-max: the kernel could not allocate a socket.
    SocketAllocation,
    /// ENFILE of io_uring: its table of direct descriptors is full; the connection is lost.
    IoUringTable,
    /// EMFILE of inotify: the user's instances, not descriptors.
    InotifyInstances,
    /// ENFILE of pipe: the pages of the user's pipes, not file handles.
    PipePages,
    /// Descriptors are not closed.
    FdLeak,
    /// As many connections as descriptors: real load.
    Load,
    /// The acceptor does not keep up, or stands still.
    SlowAcceptor,
    /// The backlog is too small for the rate of connections.
    BacklogTooSmall,
    /// Half-open connections from many sources that never complete.
    SynFlood,
    /// Clients wait because accept fails: a consequence, not a cause of its own.
    AcceptFails,
    /// The acceptor tries again at once after each failure, and burns a core with it.
    BusyLoop,
    /// The acceptor waits after each failure.
    BacksOff,
    /// The acceptor takes clients only to close them, while accept fails.
    DrainsWhileFailing,
    /// The acceptor does not accept any more since it failed.
    GaveUp,
    /// No cause could be told from what is known.
    Unknown,
}

/// Whether evidence decides a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// It follows from what was read.
    Certain,
    /// It fits best; something that would decide it is unknown.
    Likely,
}

/// A cause that was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Which.
    pub cause: Cause,
    /// Whether the evidence decided it.
    pub certainty: Certainty,
}

/// One fact behind a diagnosis.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Stable name: `soft_limit`, `ancestor_started`, `close_wait`, ….
    pub fact: &'static str,
    /// Its value.
    pub value: Value,
    /// Of what: `file descriptors`, `connections`; `None` where the value says it.
    pub unit: Option<&'static str>,
    /// Where it was read: a file, with its line where it is configuration.
    pub source: Option<String>,
}

/// The value of a fact.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number of things.
    Count(u64),
    /// `unlimited`.
    Unlimited,
    /// A part of a whole, 0 to 1.
    Share(f64),
    /// Things per second.
    PerSecond(f64),
    /// A time span.
    Lasting(Duration),
    /// A date.
    Date(SystemTime),
    /// Text as it was found.
    Text(String),
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// For how long it helps.
    pub when: When,
    /// What to do, in words: which file, which setting, what to restart.
    pub text: String,
    /// The exact command, where one command does it; arguments are quoted for a shell.
    pub command: Option<String>,
}

/// For how long a remedy helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// At once, without a restart; gone with the process.
    Now,
    /// For good.
    ForGood,
}

impl Certainty {
    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::Likely => "likely",
        }
    }
}

impl Diagnosis {
    /// Its cause, and no more.
    #[must_use]
    pub const fn known(&self) -> Known {
        Known { cause: self.cause, certainty: self.certainty }
    }
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 21] = [
        Self::SoftLimitLow,
        Self::HardLimitLow,
        Self::RaisedAfterStart,
        Self::OwnSetting,
        Self::NrOpen,
        Self::FileMax,
        Self::SocketAllocation,
        Self::IoUringTable,
        Self::InotifyInstances,
        Self::PipePages,
        Self::FdLeak,
        Self::Load,
        Self::SlowAcceptor,
        Self::BacklogTooSmall,
        Self::SynFlood,
        Self::AcceptFails,
        Self::BusyLoop,
        Self::BacksOff,
        Self::DrainsWhileFailing,
        Self::GaveUp,
        Self::Unknown,
    ];

    /// Its stable name: in JSON, and the anchor of its page in docs/causes.md.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SoftLimitLow => "soft_limit_low",
            Self::HardLimitLow => "hard_limit_low",
            Self::RaisedAfterStart => "raised_after_start",
            Self::OwnSetting => "own_setting",
            Self::NrOpen => "nr_open",
            Self::FileMax => "file_max",
            Self::SocketAllocation => "socket_allocation",
            Self::IoUringTable => "io_uring_table",
            Self::InotifyInstances => "inotify_instances",
            Self::PipePages => "pipe_pages",
            Self::FdLeak => "fd_leak",
            Self::Load => "load",
            Self::SlowAcceptor => "slow_acceptor",
            Self::BacklogTooSmall => "backlog_too_small",
            Self::SynFlood => "syn_flood",
            Self::AcceptFails => "accept_fails",
            Self::BusyLoop => "busy_loop",
            Self::BacksOff => "backs_off",
            Self::DrainsWhileFailing => "drains_while_failing",
            Self::GaveUp => "gave_up",
            Self::Unknown => "unknown",
        }
    }
}
