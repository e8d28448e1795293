//! The host's network namespaces: what the kernel itself counted in each, and its settings.
//!
//! These counters prove fdtrace's own. They are read from files that stay open, so they can be read
//! to the end of a namespace, also on a host at its limit of open files. But an open file keeps its
//! namespace alive, with its devices and addresses: a namespace without a process that no mount
//! holds is let go by the next discovery.

mod counters;
pub(super) mod facts;
mod handshakes;
pub(super) mod look;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit};

pub use self::facts::NetnsFacts;
use self::{
    counters::Counters,
    look::{Members, Netstat},
};
use super::{census::thread_cpu, mounts};
use crate::model::{Handshakes, Pid};

/// Namespaces watched at once.
const MOST_WATCHED: usize = 1024;
/// Namespaces that ended after their counters grew.
const MOST_ENDED: usize = 1024;
/// Members kept of each, to enter it by.
const MOST_MEMBERS: usize = 4;

/// Settings are read again after this: an operator may just have followed a remedy.
const FACTS_FRESH: Duration = Duration::from_secs(10);

/// Between two discoveries there is at least so many times as long as the last took of a core, …
const REST: u32 = 1000;
const REST_AFTER_UNKNOWN: u32 = 100;
/// … and at least this.
const LEAST_REST: Duration = Duration::from_millis(200);

/// How much the kernel's counters of one network namespace grew since fdtrace started, each `None`
/// where this kernel does not have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetnsDelta {
    /// Inode number of the namespace, as in /proc/PID/ns/net. The kernel gives numbers again:
    /// growth of a namespace that has ended stays in the sum of its number.
    pub netns: u32,
    /// `TcpExtListenOverflows`
    pub listen_overflows: Option<u64>,
    /// `TcpExtListenDrops`
    pub listen_drops: Option<u64>,
    /// `TcpExtTCPReqQFullDrop`
    pub req_q_full_drop: Option<u64>,
    /// `TcpExtTCPReqQFullDoCookies`
    pub req_q_full_do_cookies: Option<u64>,
}

/// Watches the network namespaces of the host.
#[derive(Debug)]
pub struct Namespaces {
    root: PathBuf,
    /// Whether the first discovery is over: what comes later is new.
    has_begun: bool,
    own: Option<u32>,
    watched: BTreeMap<u32, Watched>,
    /// Growth in namespaces that have ended, by their number.
    ended: BTreeMap<u32, Counters>,
    /// Without a process when fdtrace started, but there: their counters did not start at 0.
    mounted_at_start: Option<BTreeSet<u32>>,
    skipped: u64,
    forgotten: u64,
    forgotten_growth: Counters,
    /// When the last discovery ended, and how much of a core it took: where others are busy, it
    /// lasts much longer, and what has ended must not be held for that.
    last: Option<(Instant, Duration)>,
    /// The last discovery could not be made.
    failing: bool,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Watched {
    netstat: Netstat,
    baseline: Counters,
    /// As last read.
    now: Counters,
    members: Vec<Pid>,
    facts: Option<(Instant, NetnsFacts)>,
}

impl Watched {
    fn read(&mut self, buffer: &mut Vec<u8>) {
        if let Ok(now) = self.netstat.read(buffer) {
            self.now = now;
        }
    }

    fn growth(&self) -> Counters {
        self.now.since(self.baseline)
    }
}

impl Namespaces {
    /// Reads under `proc_root`, which is `/proc` but for tests and containers.
    #[must_use]
    pub fn new(proc_root: PathBuf) -> Self {
        let own = look::netns_of(&proc_root, "self");
        Self {
            root: proc_root,
            has_begun: false,
            own,
            watched: BTreeMap::new(),
            ended: BTreeMap::new(),
            mounted_at_start: None,
            skipped: 0,
            forgotten: 0,
            forgotten_growth: Counters::ZERO,
            last: None,
            failing: false,
            buffer: Vec::new(),
        }
    }

    /// fdtrace's own namespace.
    #[must_use]
    pub const fn own(&self) -> Option<u32> {
        self.own
    }

    /// The most namespaces that could not be watched at once, and those whose growth was forgotten.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped.saturating_add(self.forgotten)
    }

    /// Looks at every process for namespaces that are new, and lets go those that have ended.
    ///
    /// Counters of a new one grow from here on; from 0 where the namespace itself is new, because
    /// every process in it is.
    pub fn discover(&mut self) {
        let before = thread_cpu();
        match look::members(&self.root) {
            Ok(members) => {
                self.take_in(members);
                self.failing = false;
            }
            // Nothing is known to have ended.
            Err(error) => {
                // Once, until it works again.
                let level = if self.failing { log::Level::Debug } else { log::Level::Warn };
                self.failing = true;
                let root = self.root.display();
                log::log!(level, "cannot look for network namespaces in {root}: {error}");
            }
        }
        self.last = Some((Instant::now(), thread_cpu().saturating_sub(before)));
    }

    /// [Discovers](Self::discover), if the last time is long enough ago that this takes no more than
    /// a thousandth of one core.
    pub fn refresh(&mut self) {
        if self.has_rested(REST) {
            self.discover();
        }
    }

    /// Discovers, if this namespace is not watched and the last time is long enough ago that this
    /// takes no more than a hundredth of one core. It may be called for every record.
    pub fn meet(&mut self, netns: u32) {
        if !self.watched.contains_key(&netns) && self.has_rested(REST_AFTER_UNKNOWN) {
            self.discover();
        }
    }

    /// Growth of the namespaces known so far starts here.
    ///
    /// A discovery takes milliseconds. Called at the moment of attaching, this takes microseconds,
    /// in which fdtrace and the kernel do not yet count the same.
    pub fn begin(&mut self) {
        self.ended.clear();
        for watched in self.watched.values_mut() {
            watched.read(&mut self.buffer);
            watched.baseline = watched.now;
        }
    }

    /// Watches a namespace that a process is known to be in: costs little, and may be called for
    /// every record.
    pub fn meet_through(&mut self, netns: u32, pid: Pid) {
        if !self.watched.contains_key(&netns) {
            self.keep(netns, &[pid]);
        }
    }

    /// Growth of each namespace's counters, also of those that have ended, in the order of their
    /// numbers. What cannot be read any more stays as it was.
    pub fn deltas(&mut self) -> Vec<NetnsDelta> {
        let mut growth = self.ended.clone();
        for (netns, watched) in &mut self.watched {
            watched.read(&mut self.buffer);
            let grown = watched.growth();
            growth.entry(*netns).and_modify(|sum| *sum = sum.plus(grown)).or_insert(grown);
        }
        growth.into_iter().map(|(netns, of)| delta(netns, of)).collect()
    }

    /// The growth in namespaces that have ended and whose numbers were not kept: under number 0.
    #[must_use]
    pub const fn forgotten(&self) -> NetnsDelta {
        delta(0, self.forgotten_growth)
    }

    /// What became of the SYNs of a namespace since it was made.
    #[must_use]
    pub fn handshakes(&mut self, netns: u32) -> Handshakes {
        let Some(watched) = self.watched.get(&netns) else { return Handshakes::default() };
        let snmp = handshakes::snmp(&self.root, netns, &watched.members);
        let netstat = watched.netstat.text(&mut self.buffer);
        netstat.map_or_else(
            |_| Handshakes::default(),
            |netstat| handshakes::parse(netstat, snmp.as_deref()),
        )
    }

    /// A process that was in a namespace lately: a way to enter it.
    #[must_use]
    pub fn member(&self, netns: u32) -> Option<Pid> {
        self.watched.get(&netns)?.members.first().copied()
    }

    /// Settings of a namespace, not older than ten seconds.
    pub fn facts(&mut self, netns: u32) -> NetnsFacts {
        let is_own = self.own == Some(netns);
        let Some(watched) = self.watched.get_mut(&netns) else {
            return if is_own { NetnsFacts::here(&self.root) } else { NetnsFacts::default() };
        };
        if let Some((read, facts)) = watched.facts
            && read.elapsed() < FACTS_FRESH
        {
            return facts;
        }
        let facts = if is_own {
            NetnsFacts::here(&self.root)
        } else {
            let mut members = watched.members.iter();
            let facts = members.find_map(|pid| NetnsFacts::of(&self.root, netns, *pid).ok());
            facts.unwrap_or_default()
        };
        watched.facts = Some((Instant::now(), facts));
        facts
    }

    fn has_rested(&self, factor: u32) -> bool {
        self.last.is_none_or(|(ended, took)| {
            ended.elapsed() >= took.saturating_mul(factor).max(LEAST_REST)
        })
    }

    fn take_in(&mut self, mut members: Members) {
        let is_first = self.mounted_at_start.is_none();
        let left = |netns: &u32| !members.contains_key(netns);
        let gone: Vec<u32> = self.watched.keys().copied().filter(left).collect();
        // A host's mounts are long, and seldom of use.
        let mounted = if is_first || !gone.is_empty() {
            mounts::namespaces(&self.root).into_keys().collect()
        } else {
            BTreeSet::new()
        };
        for netns in gone {
            if !mounted.contains(&netns) {
                self.let_go(netns);
            }
        }
        if is_first {
            let without_process = |netns: &u32| !members.contains_key(netns);
            self.mounted_at_start = Some(mounted.into_iter().filter(without_process).collect());
        }
        // fdtrace's own, if no other.
        let own = self.own.and_then(|own| members.remove_entry(&own));
        let mut skipped: u64 = 0;
        for (netns, members) in own.into_iter().chain(members) {
            if !self.keep(netns, &members) {
                skipped += 1;
            }
        }
        self.skipped = self.skipped.max(skipped);
        self.has_begun = true;
    }

    /// Whether the namespace is watched now, or has ended.
    fn keep(&mut self, netns: u32, members: &[Pid]) -> bool {
        let kept = members.iter().copied().take(MOST_MEMBERS).collect();
        if let Some(watched) = self.watched.get_mut(&netns) {
            watched.members = kept;
            return true;
        }
        if self.watched.len() >= most_watched() {
            return false;
        }
        let netstat = match Netstat::open(&self.root, netns, members) {
            Ok(netstat) => netstat,
            Err(error) => return error.kind() == std::io::ErrorKind::NotFound,
        };
        let Ok(now) = netstat.read(&mut self.buffer) else {
            return false;
        };
        let was_there = self.mounted_at_start.as_mut().is_some_and(|there| there.remove(&netns));
        // One that nobody had a process in and nobody had mounted when fdtrace started is taken for
        // new, though an open descriptor alone may have kept it: then its past is unattributed.
        let is_new = self.has_begun && !was_there && self.skipped == 0;
        let baseline = if is_new { Counters::ZERO } else { now };
        let watched = Watched { netstat, baseline, now, members: kept, facts: None };
        self.watched.insert(netns, watched);
        true
    }

    /// Reads its counters for the last time.
    fn let_go(&mut self, netns: u32) {
        let Some(mut watched) = self.watched.remove(&netns) else {
            return;
        };
        watched.read(&mut self.buffer);
        let growth = watched.growth();
        if growth.is_zero() {
            return;
        }
        if let Some(sum) = self.ended.get_mut(&netns) {
            *sum = sum.plus(growth);
        } else if self.ended.len() < MOST_ENDED {
            self.ended.insert(netns, growth);
        } else {
            self.forgotten += 1;
            self.forgotten_growth = self.forgotten_growth.plus(growth);
        }
    }
}

const fn delta(netns: u32, of: Counters) -> NetnsDelta {
    NetnsDelta {
        netns,
        listen_overflows: of.listen_overflows,
        listen_drops: of.listen_drops,
        req_q_full_drop: of.req_q_full_drop,
        req_q_full_do_cookies: of.req_q_full_do_cookies,
    }
}

/// Each takes a descriptor, of which fdtrace needs others too.
fn most_watched() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let half = limit.map_or(usize::MAX, |limit| usize::try_from(limit / 2).unwrap_or(usize::MAX));
    half.min(MOST_WATCHED)
}
