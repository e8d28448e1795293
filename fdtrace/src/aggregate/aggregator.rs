//! Counts, episodes and totals.

mod figures;

use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::Entry},
    time::Duration,
};

use super::{
    episode::Episode,
    slots::{SlotCount, Slots},
    subject::{Subject, SubjectId, SubjectKey},
    tally::Tally,
};
use crate::model::{
    Backlog, BootTime, EpisodeReport, Errno, Failure, FailureEvent, FdLimits, FdUsage, Figures,
    Filter, Phase, Process, ProcessId, Report, SystemLimits, Total,
};

/// The most lines the totals have. The oldest that are over are folded into one number.
const MAX_SUBJECTS: usize = 16_384;

/// How long an episode of refused clients waits for the name of the listener's owner.
const OWNER_PATIENCE: Duration = Duration::from_millis(800);

/// Refused segments, by network namespace and why.
pub type Refused = HashMap<(u32, Failure), u64>;

/// What the aggregator has to ask.
pub trait Host {
    /// Descriptors of a process in use and allowed; `known` are the limits the kernel side saw.
    fn fds(&self, process: ProcessId, known: Option<FdLimits>) -> FdUsage;
    /// How many descriptors with a number below `limit` a process has open. Looks at each.
    fn open_below(&self, process: ProcessId, limit: u64) -> Option<u64>;
    /// Limits of the whole system.
    fn system(&self) -> SystemLimits;
    /// Whether the process still runs.
    fn is_alive(&self, process: ProcessId) -> bool;
    /// The count of a slot.
    fn count(&self, slot: u32) -> SlotCount;
    /// How many distinct clients the listeners of those slots refused; `None` for too many.
    fn refused_clients(&self, slots: &[u32]) -> Option<u64>;
    /// Starts counting a slot's clients anew.
    fn forget_clients(&self, slot: u32);
    /// Where the accept queue's limit of a socket comes from.
    fn backlog(&self, inode: u64, netns: Option<u32>) -> Option<Backlog>;
}

/// Clients that a socket refused, as programs have counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Because its accept queue was full.
    pub overflows: u64,
    /// Because its SYN queue was.
    pub syn_drops: u64,
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
    /// Those of a socket that refused clients.
    refusing: HashMap<u64, Vec<SubjectId>>,
    next_id: SubjectId,
    episodes: HashMap<SubjectKey, Episode>,
    folded: u64,
    /// Refused segments of folded lines.
    folded_refused: Refused,
    /// What metrics show, where there are any.
    tally: Option<Tally>,
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
            refusing: HashMap::new(),
            next_id: 0,
            episodes: HashMap::new(),
            folded: 0,
            folded_refused: Refused::new(),
            tally: None,
        }
    }

    /// Whether there is nothing to look after: no count can grow without a record coming first.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.slots.is_empty() && self.episodes.is_empty()
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

    /// Takes a record. `owners` is asked once for each line of the totals; where it knows nobody
    /// yet, [`Self::set_owners`] is to follow.
    pub fn record(
        &mut self,
        now: BootTime,
        event: &FailureEvent,
        host: &impl Host,
        owners: impl FnOnce(&FailureEvent) -> Vec<Process>,
    ) -> Option<Report> {
        let id = self.subject(event, owners);
        self.slots.note(event, id);
        self.subjects.get_mut(&id)?.slots.insert(event.key.slot);
        let report = self.advance(now, event.key.slot, host.count(event.key.slot), host);
        self.fold();
        report
    }

    /// Takes failures that no slot counts: no program saw them, and the kernel's counters tell.
    pub fn unseen(
        &mut self,
        now: BootTime,
        event: &FailureEvent,
        (new, figures): (u64, Figures),
        host: &impl Host,
        owners: impl FnOnce(&FailureEvent) -> Vec<Process>,
    ) -> Option<Report> {
        let id = self.subject(event, owners);
        self.subjects.get_mut(&id)?.add_unseen(new, event.at, figures);
        let report = self.hand_over(now, id, host);
        self.fold();
        report
    }

    /// The subject an event is about, with what the event says of the moment.
    fn subject(
        &mut self,
        event: &FailureEvent,
        owners: impl FnOnce(&FailureEvent) -> Vec<Process>,
    ) -> SubjectId {
        let id = *self.ids.entry(SubjectKey::of(event)).or_insert_with_key(|key| {
            let id = self.next_id;
            self.next_id += 1;
            if let Some(inode) = key.inode {
                self.refusing.entry(inode).or_default().push(id);
            }
            self.subjects.insert(id, Subject::new(event, key.clone(), owners(event)));
            id
        });
        if let Some(subject) = self.subjects.get_mut(&id) {
            subject.note(event);
        }
        id
    }

    /// Takes the owners of a socket, as far as anybody could find out.
    pub fn set_owners(
        &mut self,
        now: BootTime,
        inode: u64,
        owners: &[Process],
        host: &impl Host,
    ) -> Vec<Report> {
        let mut reports = Vec::new();
        for id in self.refusing.get(&inode).cloned().unwrap_or_default() {
            let Some(subject) = self.subjects.get_mut(&id) else { continue };
            subject.has_owners = true;
            // Who is gone owned it all the same.
            if !owners.is_empty() {
                subject.owners = owners.to_vec();
                if let Some(episode) = self.episodes.get_mut(&subject.key.episode()) {
                    episode.take_owners(subject);
                }
            }
            reports.extend(self.hand_over(now, id, host));
        }
        reports
    }

    /// Takes every count, then reports what is due: to be called about once a second while not
    /// idle.
    pub fn tick(&mut self, now: BootTime, host: &impl Host) -> Vec<Report> {
        let mut reports = self.advance_all(now, host);
        let interval = self.settings.interval;
        self.episodes.retain(|_, episode| {
            let (report, is_over) = episode.tick(now, interval, host);
            reports.extend(report.map(|report| Report::Episode(Box::new(report))));
            !is_over
        });
        reports
    }

    /// Takes the last counts and ends every episode.
    pub fn finish(&mut self, now: BootTime, host: &impl Host) -> Vec<Report> {
        let mut reports = self.advance_all(now, host);
        for subject in self.subjects.values_mut() {
            subject.has_owners = true;
        }
        let ids: Vec<_> = self.subjects.keys().copied().collect();
        reports.extend(ids.into_iter().filter_map(|id| self.hand_over(now, id, host)));
        for (_, mut episode) in self.episodes.drain() {
            reports.push(Report::Episode(Box::new(episode.finish(now, host))));
        }
        reports
    }

    /// An episode that was reported, as it stands now; `None` where it is over.
    #[must_use]
    pub fn stands(
        &self,
        reported: &EpisodeReport,
        now: BootTime,
        host: &impl Host,
    ) -> Option<EpisodeReport> {
        let is_call = reported.failure.errno().is_some();
        let caller = reported.owners.first().filter(|_| is_call);
        let key = SubjectKey {
            process: caller.map(|owner| owner.id),
            inode: None,
            target: reported.target.clone(),
            door: reported.door,
            failure: reported.failure,
        };
        Some(self.episodes.get(&key)?.stands(Phase::Updated, now, host))
    }

    /// The totals the user asked for, most failures first.
    #[must_use]
    pub fn totals(&self) -> Vec<Total> {
        let wanted = self.subjects.values().filter(|subject| self.wants(subject));
        let mut totals: Vec<_> = wanted.map(Subject::to_total).collect();
        totals.sort_by(|a, b| b.count.cmp(&a.count).then(a.first.cmp(&b.first)));
        totals
    }

    /// What programs have counted of each socket's refused clients, as the kernel side has it now.
    #[must_use]
    pub fn counted(&self, host: &impl Host) -> HashMap<u64, Counted> {
        let mut all: HashMap<u64, Counted> = HashMap::new();
        for (slot, inode, failure) in self.slots.refusing() {
            let of = all.entry(inode).or_default();
            match failure {
                Failure::AcceptQueueFull { .. } => of.overflows += host.count(slot).total,
                Failure::SynQueueFull => of.syn_drops += host.count(slot).total,
                Failure::SynCookieSent | Failure::Errno(_) => {}
            }
        }
        all
    }

    /// Whether an episode tells that a process has no descriptor left.
    #[must_use]
    pub fn is_exhausted(&self, process: ProcessId) -> bool {
        self.episodes
            .keys()
            .any(|key| key.process == Some(process) && key.failure == Failure::Errno(Errno::EMFILE))
    }

    /// The sockets that episodes are about.
    #[must_use]
    pub fn sockets(&self) -> HashSet<u64> {
        self.episodes.values().flat_map(Episode::inodes).collect()
    }

    /// Whether an episode tells that a socket refuses clients.
    #[must_use]
    pub fn is_overflowing(&self, inode: u64) -> bool {
        self.episodes.values().any(|episode| episode.is_about_queue(inode))
    }

    /// Slots to be taken from their keys now.
    pub fn retire(&mut self, now: BootTime, host: &impl Host) -> Vec<u32> {
        let (subjects, episodes) = (&self.subjects, &self.episodes);
        let is_open = |id| {
            let subject: Option<&Subject> = subjects.get(&id);
            subject.is_some_and(|subject| episodes.contains_key(&subject.key.episode()))
        };
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
        if let Some((id, _)) = self.slots.advance(slot, count)
            && let Some(subject) = self.subjects.get_mut(&id)
        {
            subject.slots.remove(&slot);
        }
        self.slots.remove(slot);
        report
    }

    fn wants(&self, subject: &Subject) -> bool {
        figures::wants(&self.settings.filter, subject)
    }

    fn advance_all(&mut self, now: BootTime, host: &impl Host) -> Vec<Report> {
        let slots = self.slots.numbers().into_iter();
        slots.filter_map(|slot| self.advance(now, slot, host.count(slot), host)).collect()
    }

    /// Takes a slot's count. Gives a report where that opens an episode.
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
            if let Some(tally) = &mut self.tally {
                tally.take_unknown(new);
            }
            return None;
        };
        if new > 0 {
            subject.add(new, count.last);
        }
        self.hand_over(now, id, host)
    }

    /// Hands what a subject has waiting to the episode it belongs to.
    fn hand_over(&mut self, now: BootTime, id: SubjectId, host: &impl Host) -> Option<Report> {
        let subject = self.subjects.get_mut(&id)?;
        if subject.waiting == 0 {
            return None;
        }
        let key = subject.key.episode();
        if let Some(episode) = self.episodes.get_mut(&key) {
            episode.take(subject);
            return None;
        }
        let SubjectKey { target, door, failure, .. } = &subject.key;
        if failure.is_refusal() && failure.is_exhaustion() {
            let mut episodes = self.episodes.values_mut();
            if let Some(why) = episodes.find(|episode| episode.explains(target)) {
                why.take_refused(subject);
                return None;
            }
        }
        if failure.is_refusal() && !subject.has_owners && now.since(subject.first) < OWNER_PATIENCE
        {
            return None;
        }
        let filter = &self.settings.filter;
        if !filter.is_live(*door, *failure) || !filter.wants(&subject.owners, target, *failure) {
            (subject.waiting, subject.waiting_unseen) = (0, 0);
            return None;
        }
        let mut episode = Episode::open(subject, now, host);
        let report = episode.report(Phase::Opened, now, host);
        if let Some(tally) = &mut self.tally {
            *tally.opened.entry(key.failure).or_default() += 1;
        }
        self.episodes.insert(key, episode);
        Some(Report::Episode(Box::new(report)))
    }

    /// Keeps the number of lines bounded.
    fn fold(&mut self) {
        while self.subjects.len() > MAX_SUBJECTS {
            let episodes = &self.episodes;
            let is_open = |subject: &Subject| episodes.contains_key(&subject.key.episode());
            let over = self.subjects.iter().find(|(_, subject)| !is_open(subject));
            let Some((&id, _)) = over else { return };
            if let Some(subject) = self.subjects.remove(&id) {
                if let Some(inode) = subject.key.inode
                    && let Entry::Occupied(mut of) = self.refusing.entry(inode)
                {
                    of.get_mut().retain(|other| *other != id);
                    if of.get().is_empty() {
                        of.remove();
                    }
                }
                self.forget(subject);
            }
        }
    }
}
