//! What outputs get.

use std::time::Duration;

use super::{
    AcceptQueue, Backlog, BootTime, Ceiling, Diagnosis, Door, Failure, FailureSample, FdUsage,
    FileHandles, Known, Outcome, Phase, Process, Target, WarningReport,
};

/// Anything an output writes.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// Attached: every failure from here on is counted.
    Started(Started),
    /// An episode opened, lasts, or is over.
    Episode(Box<EpisodeReport>),
    /// Why an episode's failures happen, and what to do.
    Diagnosed(Box<DiagnosisReport>),
    /// Something is about to run out, or is not any more.
    Warning(Box<WarningReport>),
    /// Something was not counted or not delivered.
    Lost(LostReport),
    /// The end.
    Summary(Summary),
}

/// How fdtrace observes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// When it was attached.
    pub at: BootTime,
    /// fdtrace's version.
    pub version: &'static str,
    /// `uname -r`.
    pub kernel: String,
    /// What is attached.
    pub probes: Vec<ProbeReport>,
}

/// One probe and the form it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// The fact it observes: `accept`, `socket`, `socketpair`, `listen`, `io_uring`, `fds`, `syn`,
    /// `ack`.
    pub probe: &'static str,
    /// `fexit`, `fentry`, `kprobe`, `tracepoint`, `tp_btf`, `cgroup_skb`, `sock_diag` where it is
    /// polled, or `none` where the host allows no form.
    pub form: &'static str,
    /// Better forms, and why this host does not have them.
    pub refused: Vec<RefusedForm>,
}

impl ProbeReport {
    /// Whether the fact is observed in any way.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.form != "none"
    }
}

/// A form that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedForm {
    /// Its name.
    pub form: &'static str,
    /// What is missing, or forbids it.
    pub why: String,
}

/// An episode at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct EpisodeReport {
    /// That moment.
    pub at: BootTime,
    /// What happened to the episode.
    pub phase: Phase,
    /// Whose calls fail; or who owns the listener, the lead one first. Empty where nobody can be
    /// found.
    pub owners: Vec<Process>,
    /// On what.
    pub target: Target,
    /// Where.
    pub door: Door,
    /// Why.
    pub failure: Failure,
    /// Failures of the whole episode so far.
    pub count: u64,
    /// Failures since the report before this one.
    pub new: u64,
    /// The time those took; zero for the first report.
    pub period: Duration,
    /// The first failure.
    pub first: BootTime,
    /// The last failure known.
    pub last: BootTime,
    /// Descriptors in use and allowed.
    pub fds: FdUsage,
    /// The limit that was reached, where something ran out and it is known what.
    pub ceiling: Option<Ceiling>,
    /// File handles of the whole system, where the errno is about those.
    pub handles: Option<FileHandles>,
    /// The accept queue at the last record.
    pub queue: Option<AcceptQueue>,
    /// Where the queue's limit comes from, as far as known.
    pub backlog: Option<Backlog>,
    /// Clients refused: by this episode, or because of it.
    pub refused: Option<Refused>,
    /// Distinct clients (address and port) whose SYNs met a full SYN queue, an estimate; `None` for
    /// too many to tell, and of other failures.
    pub clients: Option<u64>,
    /// Inode numbers of the sockets it is about.
    pub inodes: Vec<u64>,
    /// Its count over time, the oldest first.
    pub failures: Vec<FailureSample>,
    /// Why, where that was told before.
    pub cause: Option<Known>,
}

/// What was found out about an episode.
#[derive(Clone, Debug, PartialEq)]
pub struct DiagnosisReport {
    /// When.
    pub at: BootTime,
    /// The episode, as it was when somebody looked.
    pub episode: EpisodeReport,
    /// The first is the one to act on; never empty.
    pub diagnoses: Vec<Diagnosis>,
}

/// Clients that a listener refused during an episode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Refused segments: one client that is stuck makes many.
    pub attempts: u64,
    /// Distinct clients (address and port) behind them: an estimate, off by one or two for a
    /// hundred.
    pub connections: Option<u64>,
    /// What the number of attempts is.
    pub figures: Figures,
}

/// How exact a number of failures is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figures {
    /// Counted one by one, or proven by the kernel's counters.
    #[default]
    Exact,
    /// Some happened while nobody looked at packets, and whose they were cannot be told.
    AtLeast,
    /// Polled: an upper bound.
    AtMost,
}

impl EpisodeReport {
    /// How it ended, if it did.
    #[must_use]
    pub const fn outcome(&self) -> Option<Outcome> {
        match self.phase {
            Phase::Closed(outcome) => Some(outcome),
            Phase::Opened | Phase::Updated => None,
        }
    }
}

/// What a loss takes away from the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostKind {
    /// Failures that no total contains.
    Failures,
    /// Calls that may have failed unseen: an upper bound of failures not counted.
    Calls,
    /// Notices; every total is right all the same.
    Notices,
    /// The listener of failures that the totals do contain.
    Attribution,
}

/// One reason and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostCount {
    /// Stable name: `keys_full`, `ring_full`, ….
    pub reason: &'static str,
    /// What it takes away.
    pub kind: LostKind,
    /// How often since start; `None` where this kernel does not say.
    pub count: Option<u64>,
}

/// Losses that grew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostReport {
    /// When it was noticed.
    pub at: BootTime,
    /// Only those that grew, with their totals.
    pub lost: Vec<LostCount>,
}

/// All failures of one process, listener, door and reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total {
    /// Whose, the lead one first; as in [`EpisodeReport::owners`].
    pub owners: Vec<Process>,
    /// On what.
    pub target: Target,
    /// Where.
    pub door: Door,
    /// Why.
    pub failure: Failure,
    /// How many.
    pub count: u64,
    /// The first.
    pub first: BootTime,
    /// The last.
    pub last: BootTime,
}

/// What the kernel itself counted in a network namespace, beside what fdtrace saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconciliation {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// One for each of the kernel's counters.
    pub counters: Vec<CounterPair>,
}

/// A counter of /proc/net/netstat beside fdtrace's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterPair {
    /// `ListenOverflows`, `ListenDrops`, `TCPReqQFullDrop`, `TCPReqQFullDoCookies`.
    pub name: &'static str,
    /// How much the kernel's grew since fdtrace attached.
    pub delta: u64,
    /// How much of it fdtrace saw; `None` where it does not look (cookies under
    /// `tcp_syncookies=2`, when every SYN is answered with one).
    pub seen: Option<u64>,
}

impl CounterPair {
    /// What fdtrace did not see; negative where it saw more than the kernel counted.
    #[must_use]
    pub fn unattributed(&self) -> Option<i64> {
        let seen = i64::try_from(self.seen?).unwrap_or(i64::MAX);
        Some(i64::try_from(self.delta).unwrap_or(i64::MAX) - seen)
    }
}

/// The last report.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// When fdtrace attached.
    pub started: BootTime,
    /// When it stopped.
    pub at: BootTime,
    /// Most failures first.
    pub totals: Vec<Total>,
    /// Every reason, those at 0 too.
    pub lost: Vec<LostCount>,
    /// The kernel's own counters, of each network namespace in which any of them or of fdtrace's
    /// grew, and of fdtrace's own.
    pub kernel: Vec<Reconciliation>,
    /// What was attached.
    pub probes: Vec<ProbeReport>,
}
