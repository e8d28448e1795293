//! Counts, episodes and totals.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{
    slots::{SlotCount, Slots},
    subject::{Subject, SubjectId, SubjectKey},
};
use crate::model::{
    BootTime, Errno, FailureEvent, FdLimits, FdUsage, Filter, Outcome, Phase, Process, ProcessId,
    Report, Total,
};

/// An episode ends after so long without a failure: twice the longest pause after EMFILE of the
/// servers known (Go's net/http and Python's asyncio wait up to 1 s).
const QUIET: Duration = Duration::from_secs(2);

/// Ticks come about once a second: one that comes a little early is as good as the next one.
const SLACK: Duration = Duration::from_millis(200);

/// The most lines the totals have. The oldest that are over are folded into one number.
const MAX_SUBJECTS: usize = 16_384;

/// What the aggregator has to ask.
pub trait Host {
    /// Descriptors of a process in use and allowed; `known` are the limits the kernel side saw.
    fn fds(&self, process: ProcessId, known: Option<FdLimits>) -> FdUsage;
    /// How many descriptors with a number below `limit` a process has open. Looks at each.
    fn open_below(&self, process: ProcessId, limit: u64) -> Option<u64>;
    /// Whether the process still runs.
    fn is_alive(&self, process: ProcessId) -> bool;
    /// The count of a slot.
    fn count(&self, slot: u32) -> SlotCount;
}

/// What the user chose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which failures.
    pub filter: Filter,
    /// The time between two reports of an episode that lasts.
    pub interval: Duration,
}

/// Everything that is counted and reported.
#[derive(Debug)]
pub struct Aggregator {
    settings: Settings,
    slots: Slots,
    /// By number, so by age.
    subjects: BTreeMap<SubjectId, Subject>,
    ids: HashMap<SubjectKey, SubjectId>,
    next_id: SubjectId,
    folded: u64,
}

impl Aggregator {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            slots: Slots::default(),
            subjects: BTreeMap::new(),
            ids: HashMap::new(),
            next_id: 0,
            folded: 0,
        }
    }

    /// Whether there is nothing to look after: no count can grow without a record coming first.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether a slot's key is known.
    #[must_use]
    pub fn knows(&self, slot: u32) -> bool {
        self.slots.contains(slot)
    }

    /// Failures of lines that were folded away because there were too many.
    #[must_use]
    pub const fn folded(&self) -> u64 {
        self.folded
    }

    /// Takes a record. `describe` is asked once for each process and kind of failure.
    pub fn record(
        &mut self,
        now: BootTime,
        event: &FailureEvent,
        host: &impl Host,
        describe: impl FnOnce(&FailureEvent) -> Process,
    ) -> Option<Report> {
        let key = SubjectKey {
            process: event.process,
            target: event.target.clone(),
            door: event.door,
            errno: event.errno,
        };
        let id = *self.ids.entry(key).or_insert_with(|| {
            let id = self.next_id;
            self.next_id += 1;
            self.subjects.insert(id, Subject::new(event, describe(event)));
            id
        });
        self.slots.note(event, id);
        let subject = self.subjects.get_mut(&id)?;
        subject.note(event);
        let report = self.advance(now, event.key.slot, host.count(event.key.slot), host);
        self.fold();
        report
    }

    /// Takes every count, then reports what is due: to be called about once a second while not
    /// idle.
    pub fn tick(&mut self, now: BootTime, host: &impl Host) -> Vec<Report> {
        let mut reports = Vec::new();
        for slot in self.slots.numbers() {
            reports.extend(self.advance(now, slot, host.count(slot), host));
        }
        let interval = self.settings.interval;
        for subject in self.subjects.values_mut() {
            let Some(episode) = &subject.episode else { continue };
            let due =
                now.since(episode.reported_at) + SLACK >= interval && subject.unreported() > 0;
            let quiet = now.since(subject.last) >= QUIET;
            if !due && !quiet {
                continue;
            }
            let limits = subject.fds.limits;
            subject.fds = host.fds(subject.process.id, limits);
            if quiet && let Some(outcome) = outcome(subject, host) {
                let report = subject.close(Phase::Closed(outcome), now);
                reports.push(Report::Episode(Box::new(report)));
            } else if due {
                let report = subject.report(Phase::Updated, now);
                reports.push(Report::Episode(Box::new(report)));
            }
        }
        reports
    }

    /// Takes the last counts and ends every episode.
    pub fn finish(&mut self, now: BootTime, host: &impl Host) -> Vec<Report> {
        let mut reports = Vec::new();
        for slot in self.slots.numbers() {
            reports.extend(self.advance(now, slot, host.count(slot), host));
        }
        for subject in self.subjects.values_mut() {
            if subject.episode.is_some() {
                let limits = subject.fds.limits;
                subject.fds = host.fds(subject.process.id, limits);
                let gone = !host.is_alive(subject.process.id);
                let outcome = if gone { Outcome::Exited } else { Outcome::Unfinished };
                let report = subject.close(Phase::Closed(outcome), now);
                reports.push(Report::Episode(Box::new(report)));
            }
        }
        reports
    }

    /// The totals the user asked for, most failures first.
    #[must_use]
    pub fn totals(&self) -> Vec<Total> {
        let wanted = self.subjects.values().filter(|subject| self.wants(subject));
        let mut totals: Vec<_> = wanted.map(Subject::to_total).collect();
        totals.sort_by(|a, b| b.count.cmp(&a.count).then(a.first.cmp(&b.first)));
        totals
    }

    /// Slots to be taken from their keys now.
    pub fn retire(&mut self, now: BootTime, host: &impl Host) -> Vec<u32> {
        let subjects = &self.subjects;
        let is_open = |id| subjects.get(&id).is_some_and(|subject| subject.episode.is_some());
        self.slots.retire(now, is_open, |process| host.is_alive(process))
    }

    /// Retired slots to be freed now; [`Self::recycled`] is to be called with the last count.
    #[must_use]
    pub fn recyclable(&self, now: BootTime) -> Vec<u32> {
        self.slots.recyclable(now)
    }

    /// Takes the last count of a slot that is free now.
    pub fn recycled(
        &mut self,
        now: BootTime,
        slot: u32,
        count: SlotCount,
        host: &impl Host,
    ) -> Option<Report> {
        let report = self.advance(now, slot, count, host);
        self.slots.remove(slot);
        report
    }

    fn wants(&self, subject: &Subject) -> bool {
        let Subject { process, target, errno, .. } = subject;
        self.settings.filter.wants(process.id.pid, &process.comm, target, *errno)
    }

    /// Takes a slot's count, and opens an episode where it grew and none is open.
    fn advance(
        &mut self,
        now: BootTime,
        slot: u32,
        count: SlotCount,
        host: &impl Host,
    ) -> Option<Report> {
        let (id, new) = self.slots.advance(slot, count)?;
        let Some(subject) = self.subjects.get_mut(&id) else {
            self.folded += new;
            return None;
        };
        subject.add(new, count.last);
        if new == 0 || subject.episode.is_some() {
            return None;
        }
        let (door, errno) = (subject.door, subject.errno);
        let filter = &self.settings.filter;
        let Process { id: process, comm, .. } = &subject.process;
        if !filter.is_live(door, errno) || !filter.wants(process.pid, comm, &subject.target, errno)
        {
            return None;
        }
        let limits = subject.fds.limits;
        subject.fds = host.fds(*process, limits);
        if subject.fds.open.is_none() && errno == Errno::EMFILE {
            // The process is gone. The descriptor is the lowest free one, so at EMFILE every one
            // below the limit was in use (fs/file.c alloc_fd, v6.18).
            subject.fds.open = limits.and_then(|limits| limits.soft.number());
        }
        // Of a later episode only the last failure's time is known; the first is at most as long
        // ago as the rate limit of records.
        let first = if subject.total == new { subject.first } else { count.last };
        Some(Report::Episode(Box::new(subject.open(first, new, now))))
    }

    /// Keeps the number of lines bounded.
    fn fold(&mut self) {
        while self.subjects.len() > MAX_SUBJECTS {
            let over = self.subjects.iter().find(|(_, subject)| subject.episode.is_none());
            let Some((&id, _)) = over else { return };
            if let Some(subject) = self.subjects.remove(&id) {
                self.folded += subject.total;
                self.ids.remove(&SubjectKey {
                    process: subject.process.id,
                    target: subject.target,
                    door: subject.door,
                    errno: subject.errno,
                });
            }
        }
    }
}

/// How a quiet episode ended, if it did.
fn outcome(subject: &Subject, host: &impl Host) -> Option<Outcome> {
    if !host.is_alive(subject.process.id) {
        return Some(Outcome::Exited);
    }
    (!is_still_full(subject, host)).then_some(Outcome::Recovered)
}

/// Whether the next call would fail like the last: nobody may have called meanwhile.
fn is_still_full(subject: &Subject, host: &impl Host) -> bool {
    if subject.errno != Errno::EMFILE || subject.fds.is_at_limit() != Some(true) {
        return false;
    }
    let Some(soft) = subject.fds.limits.and_then(|limits| limits.soft.number()) else {
        return false;
    };
    // A limit that was lowered leaves descriptors above it, and those take nobody's place.
    host.open_below(subject.process.id, soft).is_none_or(|taken| taken >= soft)
}
