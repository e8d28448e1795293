//! What is wrong with the limits of every listener's process, before it hurts.

use super::{BootTime, Cause, ListenerAddress, ListenerReport, OwnerFds, Process, Remedy, Unseen};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Clients are refused, or will be soon, or somebody takes a limit for raised that is not.
    Risk,
    /// It is little for a server, and enough for what goes on now.
    Warn,
}

impl Level {
    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Risk => "risk",
            Self::Warn => "warn",
        }
    }
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FindingKind {
    /// No descriptor is free: the next accept fails.
    FdsExhausted,
    /// The accept queue is full: the next client is refused.
    QueueFull,
    /// 80 % of the descriptors are in use, or more.
    FdsFilling,
    /// The accept queue is more than half full.
    QueueFilling,
    /// The limit of descriptors is lower than configured: who gave it started earlier.
    LimitOutdated,
    /// The limit of descriptors is low for a server.
    LimitLow,
    /// The accept queue is shorter than `net.core.somaxconn` allows, which was raised later.
    BacklogOutdated,
    /// The accept queue is as short as `net.core.somaxconn`.
    BacklogCut,
    /// The program has asked for a short accept queue.
    BacklogSmall,
}

impl FindingKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::FdsExhausted,
        Self::QueueFull,
        Self::FdsFilling,
        Self::QueueFilling,
        Self::LimitOutdated,
        Self::LimitLow,
        Self::BacklogOutdated,
        Self::BacklogCut,
        Self::BacklogSmall,
    ];

    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FdsExhausted => "fds_exhausted",
            Self::QueueFull => "accept_queue_full",
            Self::FdsFilling => "fds_filling",
            Self::QueueFilling => "accept_queue_filling",
            Self::LimitOutdated => "limit_outdated",
            Self::LimitLow => "limit_low",
            Self::BacklogOutdated => "backlog_outdated",
            Self::BacklogCut => "backlog_cut",
            Self::BacklogSmall => "backlog_small",
        }
    }
}

/// One thing that is wrong with a process or its listeners.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What it is.
    pub kind: FindingKind,
    /// On which listeners; empty where it is about the process.
    pub listeners: Vec<ListenerAddress>,
    /// In few words. Names from processes and files are in it as they are: outputs escape.
    pub what: String,
    /// Its cause, where one was told.
    pub cause: Option<Cause>,
    /// What ends it.
    pub fix: Option<Remedy>,
}

/// A process, or several that are alike: the workers of one server.
#[derive(Clone, Debug, PartialEq)]
pub struct Audited {
    /// Which, the lead one first. Empty where nobody can be found.
    pub processes: Vec<Process>,
    /// What they listen on, at risk first.
    pub listeners: Vec<ListenerReport>,
    /// Of the one that is closest to its limit.
    pub fds: Option<OwnerFds>,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
}

impl Audited {
    /// The worst of its findings; `None` is fine, or [unknown](Self::is_unknown).
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        self.findings.iter().map(|finding| finding.level).min()
    }

    /// Whether nothing is wrong that is known, and too little is known to call it fine.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        let is_known = self.fds.is_some_and(|fds| fds.fullness().is_some())
            && self.listeners.iter().all(|listener| listener.socket.queue().is_some());
        self.findings.is_empty() && !is_known
    }
}

/// Every listener's process at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditReport {
    /// That moment.
    pub at: BootTime,
    /// Each, the worst first.
    pub audited: Vec<Audited>,
    /// Whether those that are fine are shown.
    pub all: bool,
    /// How many listeners there are.
    pub listeners: u64,
    /// Network namespaces that were looked into.
    pub namespaces: u32,
    /// The network namespace that fdtrace is in.
    pub own_netns: Option<u32>,
    /// What could not be seen.
    pub unseen: Unseen,
}

impl AuditReport {
    /// How many are that bad.
    #[must_use]
    pub fn count(&self, level: Level) -> u64 {
        self.audited.iter().filter(|one| one.level() == Some(level)).count() as u64
    }

    /// Of how many too little is known.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.audited.iter().filter(|one| one.is_unknown()).count() as u64
    }

    /// How many are fine.
    #[must_use]
    pub fn fine(&self) -> u64 {
        let bad = self.count(Level::Risk) + self.count(Level::Warn);
        self.audited.len() as u64 - bad - self.unknown()
    }

    /// Whether anything is at least that bad.
    #[must_use]
    pub fn has(&self, level: Level) -> bool {
        self.audited.iter().filter_map(Audited::level).any(|found| found <= level)
    }

    /// Those to show.
    pub fn shown(&self) -> impl Iterator<Item = &Audited> {
        self.audited.iter().filter(|one| self.all || one.level().is_some())
    }
}
