//! An episode, and everything that was found out about it.

use std::time::Duration;

use super::{
    AcceptFacts, Failed, HeldFacts, LimitFacts, QueueFacts, SynFacts, backlog, held, limits, queue,
    retries, syn_flood,
};
use crate::model::{
    Acceptor, Backlog, BootTime, Cause, Ceiling, Census, Certainty, Diagnosis, EarlierCensus,
    EpisodeReport, Errno, Failure, FailureSample, FdSample, HalfOpen, Handshakes, Provenance,
    QueueSample, UserHoldings,
};

/// What is known of an episode; `None` where nobody looked, or nobody may.
#[derive(Clone, Copy, Debug)]
pub struct EpisodeFacts<'a> {
    /// The episode, as it was reported.
    pub report: &'a EpisodeReport,
    /// Where the limit of its process comes from.
    pub provenance: Option<&'a Provenance>,
    /// What its user has of what ran out, where that is counted for each user.
    pub held: Option<&'a UserHoldings>,
    /// What the process has open.
    pub census: Option<&'a Census>,
    /// How many descriptors it had before, the oldest first; empty where nobody looked.
    pub before: &'a [FdSample],
    /// What it had open when it was first close to its limit.
    pub earlier: Option<&'a EarlierCensus>,
    /// What its threads do.
    pub acceptor: Option<&'a Acceptor>,
    /// What was seen of it over time; nothing at its beginning.
    pub lately: &'a Lately,
    /// The network namespace that fdtrace is in.
    pub own_netns: Option<u32>,
}

/// What was seen over time, of an episode that lasts or has just ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lately {
    /// Now.
    pub now: BootTime,
    /// Failures of the listener's acceptor: of this episode, or of the one before it.
    pub failures: Vec<FailureSample>,
    /// What those failed with.
    pub errno: Option<Errno>,
    /// What the listener's acceptor fails with now, where something ran out.
    pub accept_fails: Option<Errno>,
    /// The listener's queue, the oldest first.
    pub queue: Vec<QueueSample>,
    /// Whether one process has the listener and no other; `None` where unknown.
    pub is_alone: Option<bool>,
    /// What became of SYNs of its network namespace.
    pub handshakes: Option<Handshakes>,
    /// Failures of this episode in the same time.
    pub count: u64,
    /// The listener's half-open requests.
    pub half_open: Option<HalfOpen>,
}

impl Lately {
    /// What the acceptor does about its failures.
    fn behaviour(&self, facts: &EpisodeFacts<'_>) -> Option<Diagnosis> {
        let accept = AcceptFacts {
            acceptor: facts.acceptor,
            failures: &self.failures,
            queue: &self.queue,
            now: self.now,
            is_alone: self.is_alone,
        };
        let errno = self.errno?.to_string();
        retries::diagnose(&accept, facts.report.owners.first()?, &errno)
    }
}

/// Says why, the cause to act on first; empty where nothing can be said.
#[must_use]
pub fn episode(facts: &EpisodeFacts<'_>) -> Vec<Diagnosis> {
    match facts.report.failure {
        Failure::Errno(errno) => of_call(facts, errno),
        Failure::AcceptQueueFull { .. } => of_queue(facts),
        Failure::SynQueueFull | Failure::SynCookieSent => of_syn_queue(facts),
    }
}

fn of_call(facts: &EpisodeFacts<'_>, errno: Errno) -> Vec<Diagnosis> {
    let report = facts.report;
    let failed = match (errno, report.ceiling) {
        (_, Some(Ceiling::PipePages(_))) => Failed::Pipe,
        (_, Some(Ceiling::InotifyInstances(_))) => Failed::InotifyInstance,
        (_, Some(Ceiling::IoUringTable)) if report.door.accepts() => Failed::DirectDescriptor,
        (_, Some(Ceiling::IoUringTable)) => Failed::DirectFile,
        (Errno::EMFILE, _) => Failed::Descriptor,
        (Errno::ENFILE, _) => Failed::Handle,
        _ => return Vec::new(),
    };
    let of_limit = facts.provenance.map_or_else(Vec::new, |provenance| {
        limits(&LimitFacts {
            provenance,
            failed,
            limits_at_failure: report.fds.limits,
            open: report.fds.open,
            file_handles_at_failure: report.handles.map(|handles| handles.used),
            held: facts.held,
        })
    });
    let of_use =
        facts.census.filter(|_| failed == Failed::Descriptor).map_or_else(Vec::new, |census| {
            held(&HeldFacts {
                census,
                at: report.at,
                before: facts.before,
                earlier: facts.earlier,
                acceptor: facts.acceptor,
            })
        });
    let mut found = in_order(of_limit, of_use);
    if report.door.accepts() {
        found.extend(facts.lately.behaviour(facts));
    }
    found
}

/// A leak that is sure comes first: a higher limit only postpones it. What else fills the table is
/// told beside the limit, unless nobody can say.
pub(super) fn in_order(of_limit: Vec<Diagnosis>, of_use: Vec<Diagnosis>) -> Vec<Diagnosis> {
    let is_leak = |diagnosis: &Diagnosis| {
        diagnosis.cause == Cause::FdLeak && diagnosis.certainty == Certainty::Certain
    };
    let (leaks, others): (Vec<_>, Vec<_>) = of_use.into_iter().partition(is_leak);
    let others: Vec<_> =
        others.into_iter().filter(|diagnosis| diagnosis.cause != Cause::Unknown).collect();
    leaks.into_iter().chain(of_limit).chain(others).collect()
}

fn of_queue(facts: &EpisodeFacts<'_>) -> Vec<Diagnosis> {
    let Some(queue_facts) = queue_facts(facts) else { return Vec::new() };
    // Nobody accepts: no queue is long enough for that.
    let gave_up =
        facts.lately.behaviour(facts).filter(|diagnosis| diagnosis.cause == Cause::GaveUp);
    if let Some(gave_up) = gave_up {
        return vec![gave_up];
    }
    queue(&queue_facts)
}

fn queue_facts<'a>(facts: &EpisodeFacts<'a>) -> Option<QueueFacts<'a>> {
    let report = facts.report;
    Some(QueueFacts {
        listener: report.target.listener()?,
        owners: &report.owners,
        queue: report.queue?,
        backlog: report.backlog.unwrap_or(Backlog { requested: None, somaxconn: None }),
        samples: &facts.lately.queue,
        acceptors: facts.acceptor.map(std::slice::from_ref).unwrap_or_default(),
        accept_fails: facts.lately.accept_fails,
        provenance: facts.provenance,
        refused_per_second: None,
        own_netns: facts.own_netns,
    })
}

fn of_syn_queue(facts: &EpisodeFacts<'_>) -> Vec<Diagnosis> {
    let report = facts.report;
    let lasting = report.last.since(report.first);
    // Of one SYN nothing follows.
    if lasting < Duration::from_secs(1) {
        return Vec::new();
    }
    let is_dropped = report.failure == Failure::SynQueueFull;
    let dropped = if is_dropped { report.count } else { 0 };
    let mut found = syn_flood(&SynFacts {
        lasting,
        cookies_sent: report.count - dropped,
        dropped,
        clients: report.clients,
        handshakes: facts.lately.handshakes,
        dropped_meanwhile: if is_dropped { facts.lately.count } else { 0 },
        half_open: facts.lately.half_open,
        // Otherwise it would have been answered.
        tcp_syncookies: is_dropped.then_some(0),
        netns: report.target.listener().and_then(|listener| listener.netns),
        own_netns: facts.own_netns,
        owner: report.owners.first(),
    });
    if found.cause == Cause::BacklogTooSmall
        && let Some(backlog) = queue_facts(facts).and_then(|queue| backlog::diagnose(&queue))
    {
        // The SYN queue has the limit of the accept queue (include/net/inet_connection_sock.h
        // inet_csk_reqsk_queue_is_full, v6.18).
        found.remedies = backlog.remedies;
    }
    vec![found]
}
