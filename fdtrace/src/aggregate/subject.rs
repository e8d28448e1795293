//! One line of the totals, and the episode it may be in.

use crate::model::{
    AcceptQueue, BootTime, Door, EpisodeReport, Errno, FailureEvent, FdUsage, Phase, Process,
    ProcessId, Target, Total,
};

/// What makes two failures the same to the operator: many sockets can be one listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SubjectKey {
    pub(super) process: ProcessId,
    pub(super) target: Target,
    pub(super) door: Door,
    pub(super) errno: Errno,
}

/// Number of a subject.
pub(super) type SubjectId = u64;

/// A run of failures.
#[derive(Debug)]
pub(super) struct Episode {
    first: BootTime,
    count: u64,
    reported_count: u64,
    pub(super) reported_at: BootTime,
}

#[derive(Debug)]
pub(super) struct Subject {
    pub(super) process: Process,
    pub(super) target: Target,
    pub(super) door: Door,
    pub(super) errno: Errno,
    pub(super) total: u64,
    pub(super) first: BootTime,
    pub(super) last: BootTime,
    queue: Option<AcceptQueue>,
    pub(super) fds: FdUsage,
    pub(super) episode: Option<Episode>,
}

impl Subject {
    pub(super) fn new(event: &FailureEvent, process: Process) -> Self {
        Self {
            process,
            target: event.target.clone(),
            door: event.door,
            errno: event.errno,
            total: 0,
            first: event.at,
            last: event.at,
            queue: event.queue,
            fds: FdUsage { open: None, limits: event.limits },
            episode: None,
        }
    }

    /// Takes what a record says of the moment.
    pub(super) fn note(&mut self, event: &FailureEvent) {
        self.first = self.first.min(event.at);
        self.last = self.last.max(event.at);
        self.queue = event.queue.or(self.queue);
        self.fds.limits = event.limits.or(self.fds.limits);
    }

    /// Adds failures, the last of them at `last`.
    pub(super) fn add(&mut self, new: u64, last: BootTime) {
        if new == 0 {
            return;
        }
        self.total += new;
        self.last = self.last.max(last);
        if let Some(episode) = &mut self.episode {
            episode.count += new;
        }
    }

    /// Opens an episode with the failures added last.
    pub(super) fn open(&mut self, first: BootTime, count: u64, now: BootTime) -> EpisodeReport {
        self.episode = Some(Episode { first, count, reported_count: 0, reported_at: now });
        self.report(Phase::Opened, now)
    }

    /// Failures since the last report of the episode.
    pub(super) fn unreported(&self) -> u64 {
        self.episode.as_ref().map_or(0, |episode| episode.count - episode.reported_count)
    }

    /// Ends the episode.
    pub(super) fn close(&mut self, phase: Phase, now: BootTime) -> EpisodeReport {
        let report = self.report(phase, now);
        self.episode = None;
        report
    }

    /// A report of the episode as it stands.
    pub(super) fn report(&mut self, phase: Phase, now: BootTime) -> EpisodeReport {
        let (first, count, new, reported_at) = match &mut self.episode {
            Some(episode) => {
                let new = episode.count - episode.reported_count;
                let before = episode.reported_at;
                episode.reported_count = episode.count;
                episode.reported_at = now;
                (episode.first, episode.count, new, before)
            }
            None => (self.first, self.total, 0, now),
        };
        EpisodeReport {
            at: now,
            phase,
            process: self.process.clone(),
            target: self.target.clone(),
            door: self.door,
            errno: self.errno,
            count,
            new,
            period: now.since(reported_at),
            first,
            last: self.last,
            fds: self.fds,
            queue: self.queue,
        }
    }

    pub(super) fn to_total(&self) -> Total {
        Total {
            process: self.process.clone(),
            target: self.target.clone(),
            door: self.door,
            errno: self.errno,
            count: self.total,
            first: self.first,
            last: self.last,
        }
    }
}
