//! A run of failures: opened, lasting, closed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    aggregator::Host,
    subject::{Subject, SubjectKey},
};
use crate::model::{
    AcceptQueue, Backlog, BootTime, Ceiling, EpisodeReport, Errno, Failure, FailureSample,
    FdLimits, FdUsage, Figures, FileHandles, Met, OpenEpisode, Outcome, Phase, Process, Refused,
    Target,
};

/// An episode of failed calls ends after so long without one: twice the longest pause after EMFILE
/// of the servers known (Go's net/http and Python's asyncio wait up to 1 s).
const QUIET: Duration = Duration::from_secs(2);
/// One of refused clients after so long: a client that is stuck sends its SYN again after 1, 2, 4,
/// 8 s (net/ipv4/tcp_timer.c, v6.18).
const QUIET_REFUSED: Duration = Duration::from_secs(10);

/// Counts that are remembered: records of one key are at least 100 ms apart.
const MOST_SAMPLES: usize = 64;

/// Ticks come about once a second: one that comes a little early is as good as the next one.
const SLACK: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Episode {
    key: SubjectKey,
    /// By socket.
    owners: BTreeMap<u64, Vec<Process>>,
    first: BootTime,
    last: BootTime,
    count: u64,
    reported_count: u64,
    reported_at: BootTime,
    queue: Option<AcceptQueue>,
    fds: FdUsage,
    limits: Option<FdLimits>,
    met: Option<Met>,
    /// What ran out, as it was seen last.
    ceiling: Option<Ceiling>,
    handles: Option<FileHandles>,
    /// Refused segments, and the slots that count the clients of those and of SYNs that were
    /// answered by cookies.
    refused: u64,
    refusing: BTreeSet<u32>,
    /// Of the refused segments those whose clients nobody saw.
    unseen: u64,
    figures: Figures,
    /// The count over time.
    failures: VecDeque<FailureSample>,
}

impl Episode {
    /// Opens one with what a subject has waiting.
    pub(super) fn open(subject: &mut Subject, now: BootTime, host: &impl Host) -> Self {
        let whole = subject.waiting == subject.total;
        let mut this = Self {
            key: subject.key.episode(),
            owners: BTreeMap::new(),
            // Of a later episode only the last failure's time is known; the first is at most as
            // long ago as the rate limit of records.
            first: if whole { subject.first } else { subject.last },
            last: subject.last,
            count: 0,
            reported_count: 0,
            reported_at: now,
            queue: subject.queue,
            fds: FdUsage { open: None, limits: subject.limits },
            limits: subject.limits,
            met: subject.met,
            ceiling: None,
            handles: None,
            refused: 0,
            refusing: BTreeSet::new(),
            unseen: 0,
            figures: Figures::Exact,
            failures: VecDeque::new(),
        };
        this.take(subject);
        this.look(host);
        this.find_ceiling(host);
        if matches!(this.ceiling, Some(Ceiling::NoFile(_))) {
            // The process may be gone, or on its way. A new descriptor is the lowest free one, so at
            // EMFILE every one below the limit was in use (fs/file.c alloc_fd, v6.18).
            this.fds.open = this.fds.open.max(this.ceiling.and_then(Ceiling::value));
        }
        this
    }

    /// Takes the owners of a subject's sockets: workers come and go.
    pub(super) fn take_owners(&mut self, subject: &Subject) {
        for inode in &subject.inodes {
            self.owners.insert(*inode, subject.owners.clone());
        }
    }

    /// The owners of all sockets, those of the first socket first.
    fn all_owners(&self) -> Vec<Process> {
        let mut all: Vec<Process> = Vec::new();
        for owner in self.owners.values().flatten() {
            if !all.iter().any(|known| known.id.pid == owner.id.pid) {
                all.push(owner.clone());
            }
        }
        all
    }

    pub(super) fn to_open(&self) -> OpenEpisode {
        OpenEpisode {
            owners: self.all_owners(),
            target: self.key.target.clone(),
            failure: self.key.failure,
            cause: None,
        }
    }

    pub(super) fn inodes(&self) -> impl Iterator<Item = u64> {
        self.owners.keys().copied()
    }

    fn lead(&self) -> Option<&Process> {
        self.owners.values().flatten().next()
    }

    /// Takes what a subject of this episode has waiting.
    pub(super) fn take(&mut self, subject: &mut Subject) {
        let new = std::mem::take(&mut subject.waiting);
        if subject.inodes.iter().any(|inode| !self.owners.contains_key(inode)) {
            self.take_owners(subject);
        }
        self.count += new;
        self.last = self.last.max(subject.last);
        self.queue = subject.queue.or(self.queue);
        self.limits = subject.limits.or(self.limits);
        self.met = subject.met.or(self.met);
        if self.key.failure.is_refusal() {
            self.take_clients(subject);
            // A SYN answered by a cookie is not refused.
            self.refused += if self.key.failure.is_exhaustion() { new } else { 0 };
        }
        if new > 0 {
            self.remember();
        }
    }

    fn remember(&mut self) {
        let sample = FailureSample { at: self.last, count: self.count };
        match self.failures.back_mut() {
            // Counted by a tick, when a record had told of it.
            Some(last) if last.at == sample.at => *last = sample,
            _ => self.failures.push_back(sample),
        }
        if self.failures.len() > MOST_SAMPLES {
            self.failures.pop_front();
        }
    }

    /// Takes what a subject of refused clients has waiting, where this episode of failed accepts is
    /// why they were refused.
    pub(super) fn take_refused(&mut self, subject: &mut Subject) {
        self.refused += std::mem::take(&mut subject.waiting);
        self.take_clients(subject);
        self.queue = subject.queue.or(self.queue);
    }

    fn take_clients(&mut self, subject: &mut Subject) {
        self.refusing.extend(&subject.slots);
        self.unseen += std::mem::take(&mut subject.waiting_unseen);
        self.figures = self.figures.max(subject.figures);
    }

    /// How many distinct clients were refused. A client that nobody saw tries again after a second
    /// (net/ipv4/tcp_timer.c, v6.18), and is seen then: once most attempts are by clients that were
    /// seen, those are about all.
    fn refused_clients(&self, slots: &[u32], host: &impl Host) -> Option<u64> {
        let are_seen = !slots.is_empty() && self.unseen <= self.refused / 2;
        are_seen.then(|| host.refused_clients(slots)).flatten()
    }

    /// Whether clients of that listener are refused because of this episode.
    pub(super) fn explains(&self, target: &Target) -> bool {
        self.key.door.accepts() && self.key.failure.is_exhaustion() && self.key.target == *target
    }

    /// Whether it tells that the accept queue of a socket is full, or why it fills.
    pub(super) fn is_about_queue(&self, inode: u64) -> bool {
        let SubjectKey { door, failure, .. } = &self.key;
        let is_full = matches!(failure, Failure::AcceptQueueFull { .. });
        let explains = door.accepts() && failure.is_exhaustion();
        (is_full || explains) && self.owners.contains_key(&inode)
    }

    /// What is due, and whether the episode is over.
    pub(super) fn tick(
        &mut self,
        now: BootTime,
        interval: Duration,
        host: &impl Host,
    ) -> (Option<EpisodeReport>, bool) {
        let unreported = self.count > self.reported_count;
        let due = now.since(self.reported_at) + SLACK >= interval && unreported;
        let quiet = if self.key.failure.is_refusal() { QUIET_REFUSED } else { QUIET };
        let idle = now.since(self.last);
        // Who is gone will not be asked again.
        let is_quiet = idle >= quiet || (idle >= QUIET && self.is_gone(host));
        if !due && !is_quiet {
            return (None, false);
        }
        self.look(host);
        if is_quiet && let Some(outcome) = self.outcome(host) {
            return (Some(self.close(outcome, now, host)), true);
        }
        (due.then(|| self.report(Phase::Updated, now, host)), false)
    }

    /// The last report, as fdtrace stops.
    pub(super) fn finish(&mut self, now: BootTime, host: &impl Host) -> EpisodeReport {
        self.look(host);
        let outcome = if self.is_gone(host) { Outcome::Exited } else { Outcome::Unfinished };
        self.close(outcome, now, host)
    }

    /// A report of the episode as it stands.
    pub(super) fn report(
        &mut self,
        phase: Phase,
        now: BootTime,
        host: &impl Host,
    ) -> EpisodeReport {
        let report = self.stands(phase, now, host);
        self.reported_count = self.count;
        self.reported_at = now;
        report
    }

    /// The same without having been reported.
    pub(super) fn stands(&self, phase: Phase, now: BootTime, host: &impl Host) -> EpisodeReport {
        let new = self.count - self.reported_count;
        let period = now.since(self.reported_at);
        let slots: Vec<_> = self.refusing.iter().copied().collect();
        let refused = (self.refused > 0).then(|| Refused {
            attempts: self.refused,
            connections: self.refused_clients(&slots, host),
            figures: self.figures,
        });
        let is_about_syns =
            matches!(self.key.failure, Failure::SynQueueFull | Failure::SynCookieSent);
        EpisodeReport {
            at: now,
            phase,
            owners: self.all_owners(),
            target: self.key.target.clone(),
            door: self.key.door,
            failure: self.key.failure,
            count: self.count,
            new,
            period,
            first: self.first,
            last: self.last,
            fds: self.fds,
            ceiling: self.ceiling,
            handles: self.handles,
            queue: self.queue,
            backlog: self.backlog(host),
            refused,
            clients: is_about_syns.then(|| host.refused_clients(&slots)).flatten(),
            inodes: self.owners.keys().copied().collect(),
            failures: self.failures.iter().copied().collect(),
            cause: None,
        }
    }

    fn close(&mut self, outcome: Outcome, now: BootTime, host: &impl Host) -> EpisodeReport {
        let report = self.report(Phase::Closed(outcome), now, host);
        for slot in &self.refusing {
            host.forget_clients(*slot);
        }
        report
    }

    fn backlog(&self, host: &impl Host) -> Option<Backlog> {
        self.key.target.listener()?;
        let netns = self.key.target.listener().and_then(|listener| listener.netns);
        host.backlog(*self.owners.keys().next()?, netns)
    }

    /// Looks at the lead owner's descriptors.
    fn look(&mut self, host: &impl Host) {
        if let Some(lead) = self.lead() {
            self.fds = host.fds(lead.id, self.limits);
        }
    }

    /// Finds out which limit was reached.
    fn find_ceiling(&mut self, host: &impl Host) {
        let Some(errno) = self.key.failure.errno().filter(|errno| errno.is_exhaustion()) else {
            return;
        };
        let system = host.system();
        self.ceiling = system.ceiling(self.key.door, errno, self.met, &self.fds);
        if errno == Errno::ENFILE {
            self.handles = system.handles;
        }
    }

    fn is_gone(&self, host: &impl Host) -> bool {
        let mut owners = self.owners.values().flatten();
        self.lead().is_some() && owners.all(|owner| !host.is_alive(owner.id))
    }

    /// How a quiet episode ended, if it did.
    fn outcome(&self, host: &impl Host) -> Option<Outcome> {
        if self.is_gone(host) {
            return Some(Outcome::Exited);
        }
        (!self.is_still_full(host)).then_some(Outcome::Recovered)
    }

    /// Whether the next call would fail like the last: nobody may have called meanwhile.
    fn is_still_full(&self, host: &impl Host) -> bool {
        let is_nofile = matches!(self.ceiling, Some(Ceiling::NoFile(_)));
        if !is_nofile || self.fds.is_at_limit() != Some(true) {
            return false;
        }
        let soft = self.fds.limits.and_then(|limits| limits.soft.number());
        let (Some(soft), Some(owner)) = (soft, self.lead()) else { return false };
        // A limit that was lowered leaves descriptors above it, and those take nobody's place.
        host.open_below(owner.id, soft).is_none_or(|taken| taken >= soft)
    }
}
