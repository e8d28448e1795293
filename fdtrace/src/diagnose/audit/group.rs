//! Listeners → their processes, each once, those that are alike together.

use std::collections::{BTreeMap, HashMap};

use super::{AuditFacts, audit, merge};
use crate::model::{
    Audited, Comm, Finding, Listener, ListenerReport, OwnerFds, Process, ProcessId, Provenance,
};

/// Of the workers of one server, so many are looked at: one for each pair of limits.
const MOST_LOOKS: usize = 8;

/// Processes of one name and unit on the same listeners.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Which, the lead one first. Empty for a listener of which no process can be found.
    pub processes: Vec<Process>,
    /// What they listen on.
    pub listeners: Vec<ListenerReport>,
    /// Those whose limit is to be looked at, the fullest first.
    pub looks: Vec<OwnerFds>,
    /// Of `listeners`, those that one of them leads: a service manager holds others' as well.
    led: Vec<ListenerReport>,
    /// Of the one that is closest to its limit.
    fullest: Option<OwnerFds>,
}

/// Whoever is alike.
type Key = (Comm, Option<String>, Option<String>, Vec<Listener>);

/// Sorts the owners of listeners into groups. `fds` tells the descriptors of one.
#[must_use]
pub fn groups(
    listeners: &[ListenerReport],
    mut fds: impl FnMut(ProcessId) -> OwnerFds,
) -> Vec<Group> {
    let mut order: Vec<&Process> = Vec::new();
    let mut held: HashMap<ProcessId, Vec<&ListenerReport>> = HashMap::new();
    for listener in listeners {
        for owner in &listener.owners {
            let held = held.entry(owner.id).or_insert_with(|| {
                order.push(owner);
                Vec::new()
            });
            held.push(listener);
        }
    }
    let mut by_key: BTreeMap<Key, usize> = BTreeMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for process in order {
        let held = held.remove(&process.id).unwrap_or_default();
        let mut on: Vec<Listener> =
            held.iter().map(|listener| listener.socket.listener.clone()).collect();
        on.sort_unstable();
        on.dedup();
        let container = process.container.as_ref().map(|container| container.id.clone());
        let key = (process.comm.clone(), process.unit.clone(), container, on);
        let at = *by_key.entry(key).or_insert_with(|| {
            groups.push(Group::default());
            groups.len() - 1
        });
        groups[at].add(process, &held, fds(process.id));
    }
    let ownerless =
        listeners.iter().filter(|listener| listener.owners.is_empty()).map(|listener| {
            let all = vec![listener.clone()];
            Group { listeners: all.clone(), led: all, ..Group::default() }
        });
    groups.extend(ownerless);
    groups.iter_mut().for_each(Group::choose);
    groups
}

impl Default for Group {
    fn default() -> Self {
        let (processes, listeners, looks, led) = Default::default();
        Self { processes, listeners, looks, led, fullest: None }
    }
}

impl Group {
    fn add(&mut self, process: &Process, held: &[&ListenerReport], fds: OwnerFds) {
        for listener in held {
            let is_it = |other: &ListenerReport| other.socket.inode == listener.socket.inode;
            if !self.listeners.iter().any(is_it) {
                self.listeners.push((*listener).clone());
            }
            let leads = listener.owners.first().is_some_and(|lead| lead.id == process.id);
            if leads && !self.led.iter().any(is_it) {
                self.led.push((*listener).clone());
            }
        }
        self.processes.push(process.clone());
        self.looks.push(fds);
    }

    /// Keeps the fullest for each pair of limits.
    fn choose(&mut self) {
        self.listeners.sort_by_cached_key(|listener| {
            let worst = listener.queue_risk();
            (worst.is_none(), worst, listener.socket.listener.clone())
        });
        self.looks.sort_by_key(|fds| std::cmp::Reverse(fds.fullness()));
        self.fullest = self.looks.first().copied();
        let mut seen = Vec::new();
        self.looks.retain(|fds| {
            let is_new = !seen.contains(&fds.usage.limits);
            seen.push(fds.usage.limits);
            is_new
        });
        self.looks.truncate(MOST_LOOKS);
    }

    /// What is wrong with them. `provenances` are those of [`looks`](Self::looks), in their order.
    #[must_use]
    pub fn audited(self, provenances: &[Provenance], own_netns: Option<u32>) -> Audited {
        let mut findings: Vec<Finding> = Vec::new();
        let mut facts = AuditFacts {
            fds: self.fullest,
            listeners: &self.led,
            provenance: provenances.first(),
            own_netns,
        };
        for found in audit(&facts) {
            merge(&mut findings, found);
        }
        facts.listeners = &[];
        for (fds, provenance) in self.looks.iter().zip(provenances).skip(1) {
            let found =
                audit(&AuditFacts { fds: Some(*fds), provenance: Some(provenance), ..facts });
            for found in found {
                // The first is the worst.
                if findings.iter().all(|other| other.kind != found.kind) {
                    findings.push(found);
                }
            }
        }
        findings.sort_by_key(|finding| (finding.level, finding.kind));
        Audited {
            processes: self.processes,
            listeners: self.listeners,
            fds: self.fullest,
            findings,
        }
    }
}

/// Puts the worst first.
pub fn worst_first(audited: &mut [Audited]) {
    audited.sort_by_cached_key(|one| {
        let level = one.level();
        let fullness = one.fds.and_then(|fds| fds.fullness());
        let pid = one.processes.first().map(|lead| lead.id.pid);
        let first = one.findings.first().map(|finding| finding.kind);
        (level.is_none(), level, first, std::cmp::Reverse(fullness), pid)
    });
}
