//! What outputs get.

use std::time::Duration;

use super::{
    AcceptQueue, BootTime, Door, Errno, FdUsage, Outcome, Phase, Process, ProcessId, Target,
};

/// Anything an output writes.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// Attached: every failure from here on is counted.
    Started(Started),
    /// An episode opened, lasts, or is over.
    Episode(Box<EpisodeReport>),
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
    /// The fact it observes: `accept`, `accept4`, `socket`, `socketpair`.
    pub probe: &'static str,
    /// `tracepoint`.
    pub form: &'static str,
}

/// An episode at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct EpisodeReport {
    /// That moment.
    pub at: BootTime,
    /// What happened to the episode.
    pub phase: Phase,
    /// Whose calls fail.
    pub process: Process,
    /// On what.
    pub target: Target,
    /// Which call.
    pub door: Door,
    /// Why.
    pub errno: Errno,
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
    /// The accept queue at the last record.
    pub queue: Option<AcceptQueue>,
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

/// All failures of one process, listener, call and errno.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total {
    /// Whose.
    pub process: Process,
    /// On what.
    pub target: Target,
    /// Which call.
    pub door: Door,
    /// Why.
    pub errno: Errno,
    /// How many.
    pub count: u64,
    /// The first.
    pub first: BootTime,
    /// The last.
    pub last: BootTime,
}

impl Total {
    /// Which process.
    #[must_use]
    pub const fn process_id(&self) -> ProcessId {
        self.process.id
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
    /// What was attached.
    pub probes: Vec<ProbeReport>,
}
