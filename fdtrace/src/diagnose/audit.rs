//! What is wrong with a listener's process before it hurts, each with what ends it.

mod group;

pub use self::group::{Group, groups, worst_first};

use super::{
    Bite, Failed, LimitFacts, QueueFacts, backlog, limit, limits,
    origin::Origin,
    words::{at, name, span},
};
use crate::model::{
    AcceptQueue, Cause, Certainty, Diagnosis, Finding, FindingKind, Level, LimitSource,
    ListenerReport, OwnerFds, Provenance, Remedy, Risk, When,
};

/// A queue of this length is short for nobody.
const ENOUGH: u32 = 4096;

/// What is known of a process that listens.
#[derive(Clone, Copy, Debug)]
pub struct AuditFacts<'a> {
    /// Its descriptors.
    pub fds: Option<OwnerFds>,
    /// The listeners that it leads.
    pub listeners: &'a [ListenerReport],
    /// Where its limit comes from.
    pub provenance: Option<&'a Provenance>,
    /// The network namespace that fdtrace is in.
    pub own_netns: Option<u32>,
}

/// Says what is wrong, the worst first; empty where nothing is that is known.
#[must_use]
pub fn audit(facts: &AuditFacts<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = fds(facts).into_iter().chain(limit_of(facts)).collect();
    for listener in facts.listeners {
        for found in of_listener(facts, listener) {
            merge(&mut findings, found);
        }
    }
    findings.sort_by_key(|finding| (finding.level, finding.kind));
    findings
}

/// Adds what was found of another listener of the process, or of another process like it.
fn merge(findings: &mut Vec<Finding>, mut found: Finding) {
    let like = |other: &&mut Finding| other.kind == found.kind && other.what == found.what;
    match findings.iter_mut().find(like) {
        Some(other) => {
            found.listeners.retain(|address| !other.listeners.contains(address));
            other.listeners.append(&mut found.listeners);
        }
        None => findings.push(found),
    }
}

fn fds(facts: &AuditFacts<'_>) -> Option<Finding> {
    let fds = facts.fds?;
    let soft = fds.usage.limits?.soft;
    let in_use = fds.below_limit.or(fds.usage.open)?;
    let (kind, what) = if fds.risk()? == Risk::FdsExhausted {
        let what = format!("all of its {soft} descriptors are in use: accept fails with EMFILE");
        (FindingKind::FdsExhausted, what)
    } else {
        let percent = fds.fullness()? / 10_000;
        let what = format!("{in_use} of its {soft} descriptors are in use ({percent} %)");
        (FindingKind::FdsFilling, what)
    };
    let diagnosis = facts
        .provenance
        .and_then(|provenance| limits(&limit_facts(facts, provenance, Failed::Descriptor)).pop());
    let is_now = |remedy: &&Remedy| remedy.when == When::Now;
    let fix = diagnosis.as_ref().and_then(|found| found.remedies.iter().find(is_now)).cloned();
    Some(Finding {
        level: Level::Risk,
        kind,
        listeners: Vec::new(),
        what,
        cause: diagnosis.map(|found| found.cause),
        fix,
    })
}

fn limit_facts<'a>(
    facts: &AuditFacts<'_>,
    provenance: &'a Provenance,
    failed: Failed,
) -> LimitFacts<'a> {
    LimitFacts::at_a_look(provenance, failed, facts.fds.and_then(|fds| fds.usage.open))
}

/// What is wrong with its limit, however little of it is in use.
fn limit_of(facts: &AuditFacts<'_>) -> Option<Finding> {
    let provenance = facts.provenance?;
    let limit_facts = limit_facts(facts, provenance, Failed::Nothing);
    let found = limits(&limit_facts).pop()?;
    let bite = Bite::of(&limit_facts)?;
    let (level, kind, what) = match found.cause {
        Cause::RaisedAfterStart => {
            let is_certain = found.certainty == Certainty::Certain;
            let level = if is_certain { Level::Risk } else { Level::Warn };
            (level, FindingKind::LimitOutdated, outdated(provenance, bite)?)
        }
        Cause::NrOpen => (Level::Warn, FindingKind::LimitLow, found.why.clone()),
        _ if bite.soft < bite.hard => {
            let hard = limit(bite.hard);
            let what = format!("its soft limit is {}, and its hard one {hard}", bite.soft);
            (Level::Warn, FindingKind::LimitLow, what)
        }
        _ => {
            let what = format!("its limit is {}, soft and hard", bite.soft);
            (Level::Warn, FindingKind::LimitLow, what)
        }
    };
    let Diagnosis { cause, remedies, .. } = found;
    let fix = remedies.into_iter().find(|remedy| remedy.when == When::ForGood);
    Some(Finding { level, kind, listeners: Vec::new(), what, cause: Some(cause), fix })
}

/// `its limit is 1024, and /etc/x:7 says 100000 since 23 days after supervisord[812] started`
fn outdated(provenance: &Provenance, bite: Bite) -> Option<String> {
    let raised = Origin::find(provenance, bite).raised?;
    let started = if raised.at == 0 { "it".to_owned() } else { name(&provenance.chain[raised.at]) };
    Some(format!(
        "its limit is {}; {} says {}, but was changed {} after {started} started",
        bite.soft,
        at(raised.file),
        limit(raised.value),
        span(raised.after),
    ))
}

fn of_listener(facts: &AuditFacts<'_>, listener: &ListenerReport) -> Vec<Finding> {
    let Some(queue) = listener.socket.queue() else { return Vec::new() };
    let AcceptQueue { length, limit } = queue;
    let finding = |level, kind, what, fix| Finding {
        level,
        kind,
        listeners: vec![listener.socket.listener.address.clone()],
        what,
        cause: None,
        fix,
    };
    let mut findings = Vec::new();
    match listener.queue_risk() {
        Some(Risk::QueueFull) => {
            let fails = facts.fds.and_then(|fds| fds.risk()) == Some(Risk::FdsExhausted);
            let why = if fails { ", for accept fails" } else { "" };
            let what =
                format!("its accept queue is full ({length}/{limit}): clients are refused{why}");
            findings.push(finding(Level::Risk, FindingKind::QueueFull, what, None));
        }
        Some(_) => {
            let what = format!("its accept queue fills up ({length}/{limit})");
            findings.push(finding(Level::Warn, FindingKind::QueueFilling, what, None));
        }
        None => {}
    }
    // A client of an AF_UNIX socket waits for a place, unless it connects without blocking
    // (net/unix/af_unix.c unix_stream_connect, v6.18): short queues are common there.
    let is_inet = listener.socket.listener.address.port().is_some();
    if let Some((kind, what)) = short(facts, listener, limit).filter(|_| is_inet) {
        let found = Finding {
            cause: Some(Cause::BacklogTooSmall),
            ..finding(Level::Warn, kind, what, None)
        };
        findings.push(Finding { fix: longer(facts, listener, queue, kind), ..found });
    }
    findings
}

/// Whether a queue is short, and by whom.
fn short(
    facts: &AuditFacts<'_>,
    listener: &ListenerReport,
    limit: u32,
) -> Option<(FindingKind, String)> {
    if limit >= ENOUGH {
        return None;
    }
    let now = listener.backlog.somaxconn;
    if listener.limit_set_by() == Some(LimitSource::Somaxconn) {
        let what = format!("its accept queue is held to {limit} by net.core.somaxconn");
        return Some((FindingKind::BacklogCut, what));
    }
    if let Some(what) = outdated_backlog(facts, listener, limit, now) {
        return Some((FindingKind::BacklogOutdated, what));
    }
    let what = format!("its accept queue holds {} connections, as it asked", u64::from(limit) + 1);
    listener.is_small().then_some((FindingKind::BacklogSmall, what))
}

/// somaxconn was raised after the process had started: listen(2) may have been held to the former.
fn outdated_backlog(
    facts: &AuditFacts<'_>,
    listener: &ListenerReport,
    limit: u32,
    now: Option<u32>,
) -> Option<String> {
    let provenance = facts.provenance?;
    let configured = provenance.system.somaxconn.as_ref()?;
    // Configuration is for the first network namespace.
    let netns = listener.socket.listener.netns;
    if netns.is_none() || netns != facts.own_netns || now.map(u64::from) != Some(configured.value) {
        return None;
    }
    let started = provenance.chain.first()?.started_at?;
    let after = configured.file.modified?.duration_since(started).ok()?;
    // Dates of starts are cut to a second.
    (after.as_secs() >= 1 && u64::from(limit) < configured.value).then(|| {
        format!(
            "its accept queue is held to {limit}; net.core.somaxconn was raised to {} in {} {} \
             after it started",
            configured.value,
            at(&configured.file),
            span(after)
        )
    })
}

/// What makes a queue longer, in one remedy.
fn longer(
    facts: &AuditFacts<'_>,
    listener: &ListenerReport,
    queue: AcceptQueue,
    kind: FindingKind,
) -> Option<Remedy> {
    let queue_facts = QueueFacts {
        listener: &listener.socket.listener,
        owners: &listener.owners,
        queue,
        backlog: listener.backlog,
        samples: &[],
        acceptors: &[],
        accept_fails: None,
        provenance: facts.provenance,
        refused_per_second: None,
        own_netns: facts.own_netns,
    };
    let mut remedies = backlog::diagnose(&queue_facts)?.remedies.into_iter();
    if kind == FindingKind::BacklogOutdated {
        return Some(backlog::listen_again(listener.owners.first()));
    }
    let first = remedies.next()?;
    let joined = remedies.fold(first, |all, next| Remedy {
        when: all.when,
        text: format!("{}; {}", all.text, next.text),
        command: match (all.command, next.command) {
            (Some(one), Some(other)) => Some(format!("{one} && {other}")),
            (one, other) => one.or(other),
        },
    });
    Some(joined)
}

#[cfg(test)]
mod tests;
