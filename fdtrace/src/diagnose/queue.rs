//! Why a listener's accept queue overflows.

use super::{
    accept_fails, backlog,
    evidence::{count, from, rate},
    slow_acceptor,
};
use crate::model::{
    AcceptQueue, Acceptor, Backlog, Cause, Certainty, Diagnosis, Errno, Listener, Process,
    Provenance, QueueSample,
};

/// What is known of a listener whose queue overflows.
#[derive(Clone, Copy, Debug)]
pub struct QueueFacts<'a> {
    /// Which.
    pub listener: &'a Listener,
    /// Who owns it, the lead one first.
    pub owners: &'a [Process],
    /// Its queue at the overflow.
    pub queue: AcceptQueue,
    /// Where its limit comes from, as far as known.
    pub backlog: Backlog,
    /// Its queue before and since, the oldest first.
    pub samples: &'a [QueueSample],
    /// What the owners' threads do, of as many owners as were looked at.
    pub acceptors: &'a [Acceptor],
    /// An owner's accept fails at the same time, with this.
    pub accept_fails: Option<Errno>,
    /// Where its lead owner's limits come from, and what configuration says of the host.
    pub provenance: Option<&'a Provenance>,
    /// Clients refused per second.
    pub refused_per_second: Option<f64>,
    /// The network namespace that fdtrace is in: remedies for another one are others.
    pub own_netns: Option<u32>,
}

/// Says why the accept queue overflows, the surest cause first; at least one, which may be
/// [`Cause::Unknown`].
#[must_use]
pub fn queue(facts: &QueueFacts<'_>) -> Vec<Diagnosis> {
    // A consequence needs no cause of its own.
    let mut diagnoses: Vec<Diagnosis> = if let Some(failing) = accept_fails::diagnose(facts) {
        vec![failing]
    } else if let Some(standing) = slow_acceptor::standing(facts.owners, facts.acceptors) {
        vec![standing]
    } else {
        [slow_acceptor::behind(facts), backlog::diagnose(facts)].into_iter().flatten().collect()
    };
    if diagnoses.is_empty() {
        diagnoses.push(unknown(facts));
    }
    for diagnosis in &mut diagnoses {
        let length = u64::from(facts.queue.length);
        diagnosis.evidence.push(from(count("accept_queue", length, "connections"), "sock_diag"));
        let limit = u64::from(facts.queue.limit);
        diagnosis
            .evidence
            .push(from(count("accept_queue_limit", limit, "connections"), "sock_diag"));
        if let Some(refused) = facts.refused_per_second {
            diagnosis.evidence.push(rate("refused", refused, "attempts"));
        }
    }
    diagnoses
}

fn unknown(facts: &QueueFacts<'_>) -> Diagnosis {
    let mut unknown = Vec::new();
    if facts.acceptors.is_empty() {
        unknown.push("what the acceptor's threads do".to_owned());
    }
    if facts.samples.len() < Occupancy::LEAST {
        unknown
            .push("whether the queue is always full, or in bursts: too few looks at it".to_owned());
    }
    Diagnosis {
        cause: Cause::Unknown,
        certainty: Certainty::Likely,
        why: "clients come faster than they are accepted; whether the queue is too short for a \
              burst, or the acceptor too slow, cannot be told yet"
            .to_owned(),
        evidence: Vec::new(),
        remedies: Vec::new(),
        unknown,
    }
}

/// How a queue was filled over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occupancy {
    /// Full, or nearly, at every look: the acceptor does not keep up.
    Always,
    /// At some looks, and at others nearly empty: the acceptor keeps up, but for bursts.
    Bursts,
}

impl Occupancy {
    /// Looks that are needed to tell.
    pub(super) const LEAST: usize = 4;

    pub(super) fn of(samples: &[QueueSample], limit: u32) -> Option<Self> {
        let is_full = |sample: &QueueSample| u64::from(sample.length) * 10 >= u64::from(limit) * 9;
        let is_empty = |sample: &QueueSample| u64::from(sample.length) * 4 <= u64::from(limit);
        if samples.len() < Self::LEAST {
            return None;
        }
        if samples.iter().all(is_full) {
            Some(Self::Always)
        } else if samples.iter().filter(|sample| is_empty(sample)).count() * 2 >= samples.len() {
            Some(Self::Bursts)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
