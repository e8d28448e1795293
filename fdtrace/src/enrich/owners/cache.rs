//! What is known of who owns which socket, and how old it is. Time is passed in.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use super::{
    Owner,
    identity::{by_lead, same_process},
    scan::{MOST_OWNERS, Scan},
};
use crate::model::{Comm, ProcessId};

/// Sockets remembered. The one that nobody asked for the longest is forgotten first.
pub(super) const MOST_CACHED: usize = 4096;

/// Workers of a pre-fork server come and go.
const FRESH: Duration = Duration::from_secs(5);
/// A socket that nobody holds is one that a process is just giving to another, or is going away.
const FRESH_EMPTY: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<u64, Entry>,
    /// The inode by when it was used last: keys are [`Entry::used`].
    by_use: BTreeMap<u64, u64>,
    uses: u64,
}

#[derive(Debug, Default)]
struct Entry {
    /// The lead first.
    owners: Vec<Owner>,
    /// Of the owners, those that the kernel side saw, and when.
    noted: Vec<(ProcessId, Instant)>,
    /// When a scan that looked for it began; `None` before the first.
    looked: Option<Instant>,
    used: u64,
}

impl Cache {
    pub(super) fn get(&self, inode: u64) -> Option<&[Owner]> {
        self.entries.get(&inode).map(|entry| entry.owners.as_slice())
    }

    pub(super) fn inodes(&self) -> impl Iterator<Item = u64> {
        self.entries.keys().copied()
    }

    /// Whether a scan looked for it so short ago that another need not; it counts as used.
    pub(super) fn is_fresh(&mut self, inode: u64, now: Instant) -> bool {
        if !self.entries.contains_key(&inode) {
            return false;
        }
        let entry = self.used(inode);
        let fresh = if entry.owners.is_empty() { FRESH_EMPTY } else { FRESH };
        entry.looked.is_some_and(|looked| now.saturating_duration_since(looked) < fresh)
    }

    /// Adds an owner that the kernel side saw.
    pub(super) fn note(&mut self, inode: u64, id: ProcessId, comm: &Comm, now: Instant) {
        let entry = self.used(inode);
        entry.noted.retain(|(noted, _)| *noted != id);
        entry.noted.push((id, now));
        if entry.owners.iter().any(|owner| owner.id == id && owner.comm == *comm) {
            return;
        }
        entry.owners.retain(|owner| !same_process(owner.id, id));
        entry.owners.push(Owner { id, comm: comm.clone() });
        entry.arrange();
    }

    /// Takes what a scan that began at `began` found of `targets`; `wanted` are those of them that
    /// are remembered even if they were not before.
    pub(super) fn take_in(
        &mut self,
        mut scan: Scan,
        began: Instant,
        targets: &HashSet<u64>,
        wanted: &HashSet<u64>,
    ) {
        for inode in wanted {
            self.used(*inode);
        }
        for inode in targets {
            if let Some(entry) = self.entries.get_mut(inode) {
                let found = scan.found.remove(inode).unwrap_or_default();
                entry.replace(found, &scan, began);
            }
        }
    }

    fn used(&mut self, inode: u64) -> &mut Entry {
        self.uses += 1;
        if let Some(entry) = self.entries.get(&inode) {
            self.by_use.remove(&entry.used);
        } else if self.entries.len() >= MOST_CACHED
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.entries.remove(&oldest);
        }
        self.by_use.insert(self.uses, inode);
        let entry = self.entries.entry(inode).or_default();
        entry.used = self.uses;
        entry
    }
}

impl Entry {
    fn replace(&mut self, mut found: Vec<Owner>, scan: &Scan, began: Instant) {
        // The scan may have passed a process before it got the socket, or not have been let in.
        self.noted.retain(|(id, noted)| *noted >= began || scan.unreadable.contains(&id.pid));
        for old in self.owners.drain(..) {
            match found.iter_mut().find(|owner| same_process(owner.id, old.id)) {
                // As before, for one process should not have two ids: the first may be the
                // kernel's, to the nanosecond.
                Some(owner) => owner.id = old.id,
                None if self.noted.iter().any(|(id, _)| *id == old.id) => found.push(old),
                None => {}
            }
        }
        self.owners = found;
        self.looked = Some(began);
        self.arrange();
    }

    fn arrange(&mut self) {
        self.owners.sort_by(by_lead);
        self.owners.truncate(MOST_OWNERS);
        self.noted.truncate(MOST_OWNERS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BootTime, Pid};

    const INODE: u64 = 123;

    fn id(pid: u32, nanos: u64) -> ProcessId {
        ProcessId { pid: Pid(pid), started: BootTime::from_nanos(nanos) }
    }

    fn comm() -> Comm {
        Comm::from_bytes(b"web")
    }

    /// A scan that found these, with starts as /proc has them.
    fn scan(pids: &[u32]) -> Scan {
        let owners = pids.iter().map(|pid| Owner { id: id(*pid, 50_000_000), comm: comm() });
        Scan { found: HashMap::from([(INODE, owners.collect())]), ..Scan::default() }
    }

    fn take_in(cache: &mut Cache, scan: Scan, began: Instant) {
        let inodes = HashSet::from([INODE]);
        cache.take_in(scan, began, &inodes, &inodes);
    }

    fn ids(cache: &Cache) -> Option<Vec<ProcessId>> {
        cache.get(INODE).map(|owners| owners.iter().map(|owner| owner.id).collect())
    }

    #[test]
    fn unknown_then_known_then_stale() {
        let mut cache = Cache::default();
        let start = Instant::now();
        assert_eq!(cache.get(INODE), None);
        assert!(!cache.is_fresh(INODE, start));
        take_in(&mut cache, scan(&[7, 5]), start);
        assert_eq!(ids(&cache), Some(vec![id(5, 50_000_000), id(7, 50_000_000)]));
        assert!(cache.is_fresh(INODE, start + Duration::from_millis(4999)));
        assert!(!cache.is_fresh(INODE, start + Duration::from_secs(5)));
        take_in(&mut cache, Scan::default(), start + Duration::from_secs(6));
        assert_eq!(ids(&cache), Some(Vec::new()), "nobody, and that is known");
        assert!(cache.is_fresh(INODE, start + Duration::from_millis(7999)));
        assert!(!cache.is_fresh(INODE, start + Duration::from_secs(8)));
    }

    #[test]
    fn a_note_is_known_at_once_and_looked_into() {
        let mut cache = Cache::default();
        let start = Instant::now();
        let exact = id(5, 50_000_123);
        cache.note(INODE, exact, &comm(), start);
        cache.note(INODE, exact, &comm(), start);
        assert_eq!(ids(&cache), Some(vec![exact]));
        assert!(!cache.is_fresh(INODE, start), "its other owners are not known");
        take_in(&mut cache, scan(&[7, 5]), start + Duration::from_millis(1));
        assert_eq!(ids(&cache), Some(vec![exact, id(7, 50_000_000)]), "and stays exact");
        // Noted again after /proc told of it first.
        cache.note(INODE, id(7, 50_000_456), &comm(), start);
        assert_eq!(ids(&cache), Some(vec![exact, id(7, 50_000_456)]));
    }

    #[test]
    fn a_scan_ends_what_it_does_not_find() {
        let mut cache = Cache::default();
        let start = Instant::now();
        let (before, after) = (id(5, 50_000_123), id(6, 50_000_124));
        cache.note(INODE, before, &comm(), start);
        cache.note(INODE, after, &comm(), start + Duration::from_millis(2));
        let began = start + Duration::from_millis(1);
        take_in(&mut cache, Scan::default(), began);
        assert_eq!(ids(&cache), Some(vec![after]), "it may have come behind the scan");
        take_in(&mut cache, Scan::default(), start + Duration::from_secs(1));
        assert_eq!(ids(&cache), Some(Vec::new()));
        // What was not readable cannot have been found.
        cache.note(INODE, before, &comm(), start);
        let blind = Scan { unreadable: HashSet::from([Pid(5)]), ..Scan::default() };
        take_in(&mut cache, blind, start + Duration::from_secs(2));
        assert_eq!(ids(&cache), Some(vec![before]));
    }

    #[test]
    fn what_was_forgotten_meanwhile_stays_so() {
        let mut cache = Cache::default();
        let targets = HashSet::from([1, INODE]);
        cache.take_in(scan(&[5]), Instant::now(), &targets, &HashSet::from([1]));
        assert_eq!(cache.get(INODE), None);
        assert_eq!(cache.get(1), Some(&[][..]));
    }

    #[test]
    fn bounded() {
        let mut cache = Cache::default();
        let now = Instant::now();
        let most = u64::try_from(MOST_CACHED).unwrap();
        for inode in 0..most + 1000 {
            cache.note(inode, id(5, 1), &comm(), now);
            // In use all the time.
            assert!(!cache.is_fresh(0, now));
        }
        assert_eq!(cache.entries.len(), MOST_CACHED);
        assert_eq!(cache.by_use.len(), MOST_CACHED);
        assert!(cache.get(0).is_some());
        assert!(cache.get(1000).is_none());
        assert!(cache.get(most + 999).is_some());

        for pid in 0..2000 {
            cache.note(0, id(pid, 1), &comm(), now);
        }
        assert_eq!(cache.get(0).unwrap().len(), MOST_OWNERS);
    }
}
