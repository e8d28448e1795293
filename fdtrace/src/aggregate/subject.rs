//! One line of the totals.

use std::collections::BTreeSet;

use crate::model::{
    AcceptQueue, BootTime, Door, Failure, FailureEvent, FdLimits, Figures, Met, Process, ProcessId,
    Target, Total,
};

/// Number of a subject.
pub(super) type SubjectId = u64;

/// What makes two failures the same to the operator: many sockets can be one listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SubjectKey {
    /// Whose calls; `None` for refused segments.
    pub(super) process: Option<ProcessId>,
    /// The socket of refused segments: sockets that share an address (SO_REUSEPORT) have a queue
    /// and an owner each.
    pub(super) inode: Option<u64>,
    pub(super) target: Target,
    pub(super) door: Door,
    pub(super) failure: Failure,
}

impl SubjectKey {
    pub(super) fn of(event: &FailureEvent) -> Self {
        Self {
            process: event.caller.as_ref().map(|caller| caller.process),
            inode: event.failure.is_refusal().then_some(event.key.inode),
            target: event.target.clone(),
            door: event.door,
            failure: event.failure,
        }
    }

    /// Which episode its failures belong to: a client refused at its SYN and one refused at its ACK
    /// are one overflow, and so are those of sockets that share an address.
    pub(super) fn episode(&self) -> Self {
        let (door, failure) = match self.failure {
            Failure::Errno(_) => (self.door, self.failure),
            Failure::AcceptQueueFull { .. } => {
                (Door::Syn, Failure::AcceptQueueFull { syn_queue_full: false })
            }
            Failure::SynQueueFull | Failure::SynCookieSent => (Door::Syn, self.failure),
        };
        Self { door, failure, inode: None, ..self.clone() }
    }
}

/// Failures that are the same.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) key: SubjectKey,
    pub(super) owners: Vec<Process>,
    /// Whether the owners are known as well as they can be.
    pub(super) has_owners: bool,
    /// The sockets, and the slots that count their failures.
    pub(super) inodes: BTreeSet<u64>,
    pub(super) slots: BTreeSet<u32>,
    pub(super) total: u64,
    pub(super) first: BootTime,
    pub(super) last: BootTime,
    pub(super) queue: Option<AcceptQueue>,
    pub(super) limits: Option<FdLimits>,
    pub(super) met: Option<Met>,
    /// Failures that no episode has taken yet.
    pub(super) waiting: u64,
    /// Those of them that no slot counted, so that nobody saw their clients.
    pub(super) waiting_unseen: u64,
    /// What the total is.
    pub(super) figures: Figures,
    /// Those of `total` that metrics have.
    pub(super) tallied: u64,
}

impl Subject {
    pub(super) fn new(event: &FailureEvent, key: SubjectKey, owners: Vec<Process>) -> Self {
        Self {
            // Who called is known; who else owns a listener is still to be looked up.
            has_owners: key.process.is_some(),
            key,
            owners,
            inodes: BTreeSet::new(),
            slots: BTreeSet::new(),
            total: 0,
            first: event.at,
            last: event.at,
            queue: event.queue,
            limits: event.limits,
            met: event.met,
            waiting: 0,
            waiting_unseen: 0,
            figures: Figures::Exact,
            tallied: 0,
        }
    }

    /// Takes what a record says of the moment.
    pub(super) fn note(&mut self, event: &FailureEvent) {
        self.first = self.first.min(event.at);
        self.last = self.last.max(event.at);
        self.queue = event.queue.or(self.queue);
        self.limits = event.limits.or(self.limits);
        self.met = event.met.or(self.met);
        self.inodes.insert(event.key.inode);
    }

    /// Adds failures, the last of them at `last`.
    pub(super) fn add(&mut self, new: u64, last: BootTime) {
        self.total += new;
        self.waiting += new;
        self.last = self.last.max(last);
    }

    /// Adds failures that no slot counted.
    pub(super) fn add_unseen(&mut self, new: u64, last: BootTime, figures: Figures) {
        self.add(new, last);
        self.waiting_unseen += new;
        self.figures = self.figures.max(figures);
    }

    pub(super) fn to_total(&self) -> Total {
        Total {
            owners: self.owners.clone(),
            target: self.key.target.clone(),
            door: self.key.door,
            failure: self.key.failure,
            count: self.total,
            first: self.first,
            last: self.last,
        }
    }
}
