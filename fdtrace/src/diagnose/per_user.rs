//! EMFILE of inotify_init and ENFILE of pipe: a user has all there is for it, whatever the process's
//! limit of descriptors.

use super::{LimitFacts, evidence::several, remedy, words::name};
use crate::model::{Cause, Certainty, Diagnosis, Evidence, Sysctl, UserHoldings, Value};

/// Each pipe has so many pages, unless it was told otherwise (fs/pipe.c PIPE_DEF_BUFFERS, v6.18).
const PAGES: u64 = 16;

/// A limit of each user.
struct Limit<'a> {
    cause: Cause,
    call: &'static str,
    /// `inotify instances`
    what: &'static str,
    /// What evidence calls it.
    fact: &'static str,
    sysctl: &'a Sysctl,
    key: &'static str,
    path: &'static str,
    /// What is not the matter.
    not: &'static str,
    /// How much of the limit one takes.
    each: u64,
    target: u64,
    /// Whether the failure can have had no other reason.
    is_certain: bool,
}

/// fs/notify/inotify/inotify_user.c inotify_new_group.
pub(super) fn inotify(facts: &LimitFacts<'_>) -> Diagnosis {
    let sysctl = &facts.provenance.system.inotify_instances;
    let held = facts.held.map(|held| held.count);
    diagnose(
        facts,
        &Limit {
            cause: Cause::InotifyInstances,
            call: "inotify_init",
            what: "inotify instances",
            fact: "inotify_instances",
            sysctl,
            key: "fs.inotify.max_user_instances",
            path: "/proc/sys/fs/inotify/max_user_instances",
            not: "its limit of descriptors is not in question",
            each: 1,
            target: sysctl.value.unwrap_or(128).saturating_mul(8).max(1024),
            is_certain: held.zip(sysctl.value).is_some_and(|(held, most)| held >= most),
        },
    )
}

/// fs/pipe.c alloc_pipe_info.
pub(super) fn pipes(facts: &LimitFacts<'_>) -> Diagnosis {
    let sysctl = &facts.provenance.system.pipe_pages;
    diagnose(
        facts,
        &Limit {
            cause: Cause::PipePages,
            call: "pipe",
            what: "pages of pipes",
            fact: "pipes",
            sysctl,
            key: "fs.pipe-user-pages-hard",
            path: "/proc/sys/fs/pipe-user-pages-hard",
            not: "file handles of the host are not in question",
            each: PAGES,
            target: sysctl.value.unwrap_or(0).saturating_mul(4).max(65_536),
            // File handles were free, and there is nothing else that a pipe fails for but memory.
            is_certain: sysctl.value.is_some_and(|most| most > 0),
        },
    )
}

fn diagnose(facts: &LimitFacts<'_>, limit: &Limit<'_>) -> Diagnosis {
    let own = facts.provenance.chain.first();
    let most = limit.sysctl.value;
    let mut unknown = facts.provenance.unknown.clone();
    match facts.held {
        None => unknown.push(format!("which processes have the {} of the user", limit.what)),
        Some(held) if !held.is_complete => unknown.push(format!(
            "what the user's processes have that could not be looked at, or not in time: at least \
             {} {}",
            held.count,
            limit.fact.replace('_', " ")
        )),
        Some(_) if !limit.is_certain => {
            unknown.push(format!("how many {} the user had when it failed", limit.what));
        }
        Some(_) => {}
    }
    let uid = facts.held.map(|held| held.uid).or_else(|| own?.uid);
    let user = uid.map_or_else(|| "the user".to_owned(), |uid| format!("user {uid}"));
    let of = own.map_or_else(String::new, |own| format!(" of {}", name(own)));
    let value = most.map_or_else(String::new, |value| format!(" ({value})"));
    let has = if limit.is_certain { "has" } else { "had, it seems," };
    let by = facts.held.map_or_else(String::new, |held| by_whom(held, limit));
    let why = format!(
        "{}{of} failed: {user} {has} as many {} as {}{value} allows, and {}{by}",
        limit.call, limit.what, limit.key, limit.not
    );
    Diagnosis {
        cause: limit.cause,
        certainty: if limit.is_certain { Certainty::Certain } else { Certainty::Likely },
        why,
        evidence: evidence(facts.held, limit),
        remedies: remedy::sysctl(limit.key, limit.target, limit.sysctl.configured.as_ref()),
        unknown,
    }
}

/// `. 128 were found: code[4711] has 90, node[812] 30, and 4 more processes the rest`
fn by_whom(held: &UserHoldings, limit: &Limit<'_>) -> String {
    let mut holders: Vec<String> = held
        .holders
        .iter()
        .map(|holder| format!("{}[{}] {}", holder.comm.to_text(), holder.pid, holder.count))
        .collect();
    if let Some(first) = holders.first_mut()
        && let Some((name, count)) = first.rsplit_once(' ')
    {
        *first = format!("{name} has {count}");
    }
    let others = held.holder_count.saturating_sub(holders.len() as u64);
    if others > 0 {
        holders.push(format!("{} the rest", several(others, "other process", "other processes")));
    }
    let what = if limit.each > 1 {
        format!("pipes (mostly of {} pages)", limit.each)
    } else {
        limit.what.to_owned()
    };
    let least = if held.is_complete { "" } else { "at least " };
    if let [only] = &held.holders[..] {
        let of = format!("{}[{}]", only.comm.to_text(), only.pid);
        return format!(". All {least}{} {what} found are of {of}", held.count);
    }
    if holders.is_empty() {
        return String::new();
    }
    let holders = holders.join(", ");
    format!(". Of {least}{} {what} found, {holders}", held.count)
}

fn evidence(held: Option<&UserHoldings>, limit: &Limit<'_>) -> Vec<Evidence> {
    let count = |fact, value: u64, unit, source: &str| Evidence {
        fact,
        value: Value::Count(value),
        unit: Some(unit),
        source: Some(source.to_owned()),
    };
    let mut evidence = Vec::new();
    if let Some(held) = held {
        evidence.push(count(limit.fact, held.count, "of the user", "/proc/PID/fd"));
        for holder in &held.holders {
            let holder = format!("{}[{}] {}", holder.comm.to_text(), holder.pid, holder.count);
            evidence.push(Evidence {
                fact: "holder",
                value: Value::Text(holder),
                unit: None,
                source: Some("/proc/PID/fd".to_owned()),
            });
        }
    }
    if let Some(most) = limit.sysctl.value {
        let fact = match limit.cause {
            Cause::PipePages => "pipe_user_pages_hard",
            _ => "max_user_instances",
        };
        evidence.push(count(fact, most, limit.what, limit.path));
    }
    evidence
}
