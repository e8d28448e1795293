//! An episode, and everything that was found out about it.

use std::time::Duration;

use super::{Failed, HeldFacts, LimitFacts, QueueFacts, SynFacts, held, limits, queue, syn_flood};
use crate::model::{
    Acceptor, Backlog, Cause, Ceiling, Census, Certainty, Diagnosis, EpisodeReport, Errno, Failure,
    FdSample, Provenance,
};

/// What is known of an episode; `None` where nobody looked, or nobody may.
#[derive(Clone, Copy, Debug)]
pub struct EpisodeFacts<'a> {
    /// The episode, as it was reported.
    pub report: &'a EpisodeReport,
    /// Where the limit of its process comes from.
    pub provenance: Option<&'a Provenance>,
    /// What the process has open.
    pub census: Option<&'a Census>,
    /// How many descriptors it had before, the oldest first; empty where nobody looked.
    pub before: &'a [FdSample],
    /// What its threads do.
    pub acceptor: Option<&'a Acceptor>,
    /// The network namespace that fdtrace is in.
    pub own_netns: Option<u32>,
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
        (_, Some(Ceiling::PipePages)) => return Vec::new(),
        (_, Some(Ceiling::InotifyInstances(_))) => Failed::InotifyInstance,
        (_, Some(Ceiling::IoUringTable)) => Failed::DirectDescriptor,
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
            inotify_instances: None,
        })
    });
    let of_use =
        facts.census.filter(|_| failed == Failed::Descriptor).map_or_else(Vec::new, |census| {
            held(&HeldFacts { census, before: facts.before, acceptor: facts.acceptor })
        });
    in_order(of_limit, of_use)
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
    let report = facts.report;
    let (Some(listener), Some(full)) = (report.target.listener(), report.queue) else {
        return Vec::new();
    };
    queue(&QueueFacts {
        listener,
        owners: &report.owners,
        queue: full,
        backlog: report.backlog.unwrap_or(Backlog { requested: None, somaxconn: None }),
        samples: &[],
        acceptors: facts.acceptor.map(std::slice::from_ref).unwrap_or_default(),
        accept_fails: None,
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
    let dropped = if report.failure == Failure::SynQueueFull { report.count } else { 0 };
    let clients = report.refused.and_then(|refused| refused.connections);
    vec![syn_flood(&SynFacts {
        lasting,
        cookies_sent: report.count - dropped,
        dropped,
        clients: clients.unwrap_or(0),
        completed: None,
        tcp_syncookies: if dropped > 0 { Some(0) } else { None },
        netns: report.target.listener().and_then(|listener| listener.netns),
        own_netns: facts.own_netns,
        owner: report.owners.first(),
    })]
}
