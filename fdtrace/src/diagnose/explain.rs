//! How one process and its listeners stand, and everything there is to say about it, in the order
//! in which to act.

use super::{
    Failed, HeldFacts, LimitFacts, QueueFacts, episode::in_order, held, limits, queue,
    slow_acceptor,
};
use crate::model::{
    Acceptor, BootTime, Cause, Census, Certainty, Diagnosis, Errno, Limit, ListenerReport,
    OwnerFds, Process, Provenance, QueueSample, Risk, Verdict,
};

/// With fewer descriptors than this, what they are is nobody's concern unless they run out.
const MANY: u64 = 100;

/// What is known of a process that somebody asks about. What is `None` could not be read.
#[derive(Clone, Copy, Debug)]
pub struct ExplainFacts<'a> {
    /// The process; `None` for a listener of which no process can be found.
    pub process: Option<&'a Process>,
    /// Its descriptors.
    pub fds: Option<OwnerFds>,
    /// What it listens on, the one to speak of first. `None`: nobody could say.
    pub listeners: Option<&'a [ListenerReport]>,
    /// Where its limit comes from.
    pub provenance: Option<&'a Provenance>,
    /// What its descriptors are.
    pub census: Option<&'a Census>,
    /// Its threads.
    pub acceptor: Option<&'a Acceptor>,
    /// Threads of the owners of the first listener, the process's own too.
    pub acceptors: &'a [Acceptor],
    /// That listener's queue, the oldest first.
    pub samples: &'a [QueueSample],
    /// The network namespace that fdtrace is in.
    pub own_netns: Option<u32>,
}

/// How a process stands by what is cheap to read: its descriptors and its queues. A closer look can
/// find that it is worse.
#[must_use]
pub fn verdict(fds: Option<OwnerFds>, listeners: Option<&[ListenerReport]>) -> Verdict {
    let all = listeners.unwrap_or_default();
    let queues = all.iter().filter_map(ListenerReport::queue_risk);
    let worst = queues.chain(fds.and_then(|fds| fds.risk())).min();
    let is_known = fds.is_some_and(|fds| fds.fullness().is_some())
        && listeners.is_some()
        && all.iter().all(|listener| listener.socket.queue().is_some());
    match worst {
        Some(risk) if risk.is_exhaustion() => Verdict::Exhausted,
        Some(_) => Verdict::AtRisk,
        None if is_known => Verdict::Fine,
        None => Verdict::Unknown,
    }
}

/// Says how a process stands, and why. The first diagnosis is the one to act on. With a verdict of
/// [`Verdict::Fine`], what is diagnosed is what would run out first under load.
#[must_use]
pub fn explain(facts: &ExplainFacts<'_>) -> (Verdict, Vec<Diagnosis>) {
    let mut verdict = verdict(facts.fds, facts.listeners);
    let mut diagnoses = Vec::new();
    let mut at_least = |least: Verdict| verdict = verdict.min(least);

    let standing = standing(facts);
    if standing.is_some() {
        at_least(Verdict::AtRisk);
    }
    let stands = standing.is_some();
    diagnoses.extend(standing);

    let of_use = of_descriptors(facts);
    let is_certain_leak =
        |found: &Diagnosis| found.cause == Cause::FdLeak && found.certainty == Certainty::Certain;
    if of_use.iter().any(is_certain_leak) && takes_much(facts.fds) {
        at_least(Verdict::AtRisk);
    }
    diagnoses.extend(in_order(of_limit(facts), of_use));

    if let Some(full) = file_max(facts) {
        at_least(Verdict::Exhausted);
        diagnoses.insert(0, full);
    }
    if !stands {
        diagnoses.extend(of_queue(facts));
    }
    (verdict, diagnoses)
}

/// A tenth of the limit is more than a program has by chance.
fn takes_much(fds: Option<OwnerFds>) -> bool {
    const TENTH: u128 = 100_000;
    let limits = fds.and_then(|fds| fds.usage.limits);
    limits.is_some_and(|limits| limits.soft == Limit::Unlimited)
        || fds.and_then(|fds| fds.fullness()).is_some_and(|fullness| fullness >= TENTH)
}

fn standing(facts: &ExplainFacts<'_>) -> Option<Diagnosis> {
    let process = facts.process?;
    facts.listeners.filter(|listeners| !listeners.is_empty())?;
    slow_acceptor::standing(std::slice::from_ref(process), std::slice::from_ref(facts.acceptor?))
}

/// What fills the table: where it is not nearly full, only leaks.
fn of_descriptors(facts: &ExplainFacts<'_>) -> Vec<Diagnosis> {
    let is_short = facts.fds.and_then(|fds| fds.risk()).is_some();
    let census = facts.census.filter(|census| is_short || census.open.number() >= MANY);
    let Some(census) = census else { return Vec::new() };
    let mut found = held(&HeldFacts {
        census,
        at: BootTime::default(),
        before: &[],
        earlier: None,
        acceptor: facts.acceptor,
    });
    found.retain(|found| is_short || found.cause == Cause::FdLeak);
    found
}

fn of_limit(facts: &ExplainFacts<'_>) -> Vec<Diagnosis> {
    let Some(provenance) = facts.provenance else { return Vec::new() };
    let is_short = facts.fds.and_then(|fds| fds.risk()).is_some();
    // A low limit is no matter of what does not listen.
    if !is_short && facts.listeners.is_some_and(<[_]>::is_empty) {
        return Vec::new();
    }
    limits(&limit_facts(
        facts,
        provenance,
        if is_short { Failed::Descriptor } else { Failed::Nothing },
    ))
}

fn limit_facts<'a>(
    facts: &ExplainFacts<'_>,
    provenance: &'a Provenance,
    failed: Failed,
) -> LimitFacts<'a> {
    LimitFacts::at_a_look(provenance, failed, facts.fds.and_then(|fds| fds.usage.open))
}

/// The whole host is out of file handles.
fn file_max(facts: &ExplainFacts<'_>) -> Option<Diagnosis> {
    let provenance = facts.provenance?;
    let limit_facts = limit_facts(facts, provenance, Failed::Handle);
    let found = limits(&limit_facts).into_iter();
    found
        .filter(|found| found.cause == Cause::FileMax && found.certainty == Certainty::Certain)
        .find(|_| provenance.system.file_handles.is_some())
}

fn of_queue(facts: &ExplainFacts<'_>) -> Vec<Diagnosis> {
    let Some(first) = facts.listeners.and_then(<[_]>::first) else { return Vec::new() };
    let (Some(_), Some(queue_now)) = (first.queue_risk(), first.socket.queue()) else {
        return Vec::new();
    };
    let fails = facts.fds.and_then(|fds| fds.risk()) == Some(Risk::FdsExhausted);

    queue(&QueueFacts {
        listener: &first.socket.listener,
        owners: &first.owners,
        queue: queue_now,
        backlog: first.backlog,
        samples: facts.samples,
        acceptors: facts.acceptors,
        accept_fails: fails.then_some(Errno::EMFILE),
        provenance: facts.provenance,
        refused_per_second: None,
        own_netns: facts.own_netns,
    })
}

#[cfg(test)]
mod tests;
