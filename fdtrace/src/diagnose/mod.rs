//! Stage 5: facts become causes, evidence and remedies.
//!
//! In: what failed, and facts that enrich read. Out: [`Diagnosis`]. Pure: no file, clock or kernel
//! is asked here. A cause is told where facts decide it, as likely where a fact that would decide
//! it is unknown, and what is unknown is told beside it. One file for each cause.

mod accept_fails;
mod audit;
mod backlog;
mod behaviour;
mod blocked;
mod episode;
mod evidence;
mod explain;
mod file_max;
mod growth;
mod hard_limit_low;
mod held;
mod io_uring_table;
mod leak;
mod load;
mod nr_open;
mod origin;
mod own_setting;
mod per_user;
mod queue;
mod raised_after_start;
mod remedy;
mod retries;
mod slow_acceptor;
mod socket_allocation;
mod soft_limit_low;
mod syn_flood;
mod sysctl;
mod words;

pub use audit::{AuditFacts, Group, audit, groups, worst_first};
pub use behaviour::{AcceptFacts, behaviour};
pub use episode::{EpisodeFacts, Lately, episode};
pub use explain::{ExplainFacts, explain, verdict};
pub use held::{HeldFacts, held};
pub use queue::{QueueFacts, queue};
pub use syn_flood::{SynFacts, syn_flood};

use self::origin::Origin;
use crate::model::{
    Ancestor, Diagnosis, Evidence, FdLimits, Limit, Provenance, UserHoldings, Value,
};

/// What is to be explained, and what is known beside the limit's provenance.
#[derive(Clone, Debug)]
pub struct LimitFacts<'a> {
    /// Where the limit of the process comes from.
    pub provenance: &'a Provenance,
    /// What ran out.
    pub failed: Failed,
    /// The limits when it failed, if the failure told; they stand in where the process is gone.
    pub limits_at_failure: Option<FdLimits>,
    /// How many descriptors the process has open.
    pub open: Option<u64>,
    /// How many file handles there were when it failed; those of the provenance were read later.
    pub file_handles_at_failure: Option<u64>,
    /// What the process's user has of what ran out, where that is counted for each user.
    pub held: Option<&'a UserHoldings>,
}

impl<'a> LimitFacts<'a> {
    /// Of a process at which somebody looks, whatever has failed: no failure told anything.
    const fn at_a_look(provenance: &'a Provenance, failed: Failed, open: Option<u64>) -> Self {
        Self {
            provenance,
            failed,
            limits_at_failure: None,
            open,
            file_handles_at_failure: None,
            held: None,
        }
    }
}

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Nothing yet: somebody asks. Only limits that are low for a server are told.
    Nothing,
    /// EMFILE of a call that needs a descriptor.
    Descriptor,
    /// ENFILE of a call that needs a file or a socket.
    Handle,
    /// ENFILE of an accept by io_uring into its table of direct descriptors.
    DirectDescriptor,
    /// ENFILE of another operation of io_uring, and the kernel said that this table is full.
    DirectFile,
    /// EMFILE of inotify_init.
    InotifyInstance,
    /// ENFILE of pipe.
    Pipe,
}

/// Says why a limit was hit, or would be, and what to do. The first one is the one to act on;
/// empty where nothing is wrong that is known here.
#[must_use]
pub fn limits(facts: &LimitFacts<'_>) -> Vec<Diagnosis> {
    let found = match facts.failed {
        Failed::Handle => file_max::diagnose(facts).or_else(|| socket_allocation::diagnose(facts)),
        Failed::DirectDescriptor => Some(io_uring_table::of_accept(facts)),
        Failed::DirectFile => Some(io_uring_table::of_file(facts)),
        // It needs a descriptor too.
        Failed::InotifyInstance if has_no_descriptor_left(facts) => descriptors(facts),
        Failed::InotifyInstance => Some(per_user::inotify(facts)),
        Failed::Pipe => Some(per_user::pipes(facts)),
        Failed::Nothing | Failed::Descriptor => descriptors(facts),
    };
    found.into_iter().collect()
}

fn descriptors(facts: &LimitFacts<'_>) -> Option<Diagnosis> {
    let bite = Bite::of(facts)?;
    let origin = Origin::find(facts.provenance, bite);
    nr_open::diagnose(facts, bite)
        .or_else(|| raised_after_start::diagnose(facts, bite, &origin))
        .or_else(|| own_setting::diagnose(facts, bite, &origin))
        .or_else(|| soft_limit_low::diagnose(facts, bite, &origin))
        .or_else(|| hard_limit_low::diagnose(facts, bite, &origin))
}

fn has_no_descriptor_left(facts: &LimitFacts<'_>) -> bool {
    let soft = Bite::of(facts).map(|bite| bite.soft);
    facts.open.zip(soft).is_some_and(|(open, soft)| open >= soft)
}

/// The limit that is hit, and which of the two it is.
#[derive(Clone, Copy, Debug)]
struct Bite {
    soft: u64,
    /// `u64::MAX` where it is unlimited.
    hard: u64,
}

/// Which of a process's two limits is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The process could raise it itself.
    Soft,
    /// It could not.
    Hard,
}

impl Bite {
    fn of(facts: &LimitFacts<'_>) -> Option<Self> {
        let now = facts.provenance.chain.first().and_then(|own| own.limits);
        let limits = now.or(facts.limits_at_failure)?;
        Some(Self { soft: limits.soft.number()?, hard: number(limits.hard) })
    }

    fn side(self) -> Side {
        if self.soft < self.hard { Side::Soft } else { Side::Hard }
    }

    /// Whether it is low for a server, also where it was not hit.
    fn is_low(self) -> bool {
        let is_far_below = self.soft < remedy::ENOUGH && self.soft.saturating_mul(8) <= self.hard;
        self.soft <= 1024 || is_far_below
    }
}

fn number(limit: Limit) -> u64 {
    limit.number().unwrap_or(u64::MAX)
}

fn limit(number: u64) -> Limit {
    Limit::from_rlim(number)
}

/// The evidence that every cause of a process's limit has.
fn limits_as_evidence(facts: &LimitFacts<'_>, bite: Bite) -> Vec<Evidence> {
    let own = facts.provenance.chain.first();
    let source = own
        .filter(|own| own.limits.is_some())
        .map(|own: &Ancestor| format!("/proc/{}/limits", own.id.pid));
    let of = |fact, value: u64| Evidence {
        fact,
        value: if value == u64::MAX { Value::Unlimited } else { Value::Count(value) },
        unit: Some("file descriptors"),
        source: source.clone(),
    };
    let mut evidence = vec![of("soft_limit", bite.soft), of("hard_limit", bite.hard)];
    if let Some(open) = facts.open {
        evidence.push(Evidence { source: None, ..of("open", open) });
    }
    evidence
}

/// The evidence that every cause of ENFILE has.
fn handles_as_evidence(used: Option<u64>, max: Option<u64>) -> [Option<Evidence>; 2] {
    let count = |fact, value: Option<u64>, source: &str| {
        value.map(|value| Evidence {
            fact,
            value: Value::Count(value),
            unit: Some("file handles"),
            source: Some(source.to_owned()),
        })
    };
    [
        count("file_handles", used, "/proc/sys/fs/file-nr"),
        count("file_max", max, "/proc/sys/fs/file-max"),
    ]
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
