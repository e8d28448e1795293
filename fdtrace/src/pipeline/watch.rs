//! What is about to run out: descriptors of processes that accept, and accept queues.
//!
//! Nobody goes through all processes: the kernel side tells of one when accept returns a descriptor
//! close to its limit, and only those are looked at, once a second. Queues come from one list of the
//! listeners of our own network namespace.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use super::host::Live;
use crate::{
    aggregate::{Aggregator, Host as _, Sample, Warnings, Watched},
    enrich::{accept_queues, census::thread_cpu},
    model::{
        AcceptQueue, BootTime, Caller, CloseToLimit, FdLimits, FdSample, FdUsage, Filter, Gauge,
        GaugeEvent, ListeningSocket, Process, ProcessId, Report, Resource, Target, Thresholds,
        Warning, WarningReport,
    },
};

/// Between two looks; ticks come about once a second.
const PERIOD: Duration = Duration::from_millis(800);
/// And so many times as long as a look takes on a core: 0.05 % of one for all queues,
const REST_PER_LIST: u32 = 2000;
/// and 0.1 % of one for all processes.
const REST_PER_LOOK: u32 = 1000;
/// So many looks long a warning waits for the name of a listener's owner.
const MOST_WAITED: u32 = 5;
/// After queues could not be listed.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(60);

/// Everything that is watched.
pub(super) struct Watch {
    warnings: Warnings,
    filter: Filter,
    is_off: bool,
    processes: BTreeMap<ProcessId, Accepting>,
    processes_pace: Pace,
    /// By inode.
    queues: BTreeMap<u64, Listening>,
    queues_pace: Pace,
    is_failing: bool,
    /// Some queue is more than half full.
    is_filling: bool,
}

/// When to look again.
#[derive(Default)]
struct Pace {
    next: BootTime,
    /// A look that takes long for once, as the first one does, stops nothing.
    last_cost: Duration,
}

/// A process that is close to its limit.
struct Accepting {
    caller: Caller,
    target: Target,
    limits: Option<FdLimits>,
}

/// A listener whose accept queue is.
struct Listening {
    socket: ListeningSocket,
    /// Who was said to own it, where there was a warning.
    told: Option<Vec<Process>>,
    /// A warning that waits for a scan to tell who that is, and for how many looks it did.
    waiting: Option<Warning>,
    waited: u32,
}

impl Watch {
    pub(super) fn new(thresholds: Thresholds, filter: Filter) -> Self {
        Self {
            is_off: thresholds.lowest().is_none(),
            warnings: Warnings::new(thresholds),
            filter,
            processes: BTreeMap::new(),
            processes_pace: Pace::default(),
            queues: BTreeMap::new(),
            queues_pace: Pace::default(),
            is_failing: false,
            is_filling: false,
        }
    }

    /// Whether nothing is about to run out.
    pub(super) fn is_quiet(&self) -> bool {
        self.processes.is_empty() && !self.is_filling
    }

    /// Whether a process is close to its limit.
    pub(super) fn is_close(&self, process: ProcessId) -> bool {
        self.processes.contains_key(&process)
    }

    /// How many descriptors a process had, at each look; none where nobody looked.
    pub(super) fn samples(&self, process: ProcessId) -> Vec<FdSample> {
        let samples = self.warnings.samples(Watched::Fds(process));
        let sample = |Sample { at, used }| FdSample { at, open: used };
        samples.map(sample).collect()
    }

    /// Asks for other warnings from here on.
    pub(super) fn set_filter(&mut self, filter: Filter, host: &mut Live) {
        self.processes.retain(|_, accepting| {
            filter.wants_warning(&[host.describe(&accepting.caller)], &accepting.target)
        });
        self.filter = filter;
    }

    /// What was warned of, and is not over.
    pub(super) fn close(&self, host: &mut Live) -> Vec<CloseToLimit> {
        let mut close = Vec::new();
        for (id, accepting) in &self.processes {
            let gauge = self.warnings.raised(Watched::Fds(*id));
            let Some((gauge, limits)) = gauge.zip(accepting.limits) else { continue };
            let owners = vec![host.describe(&accepting.caller)];
            let (target, resource) = (accepting.target.clone(), Resource::Fds(limits));
            close.push(CloseToLimit { owners, target, resource, gauge });
        }
        for (inode, listening) in &self.queues {
            let Some(gauge) = self.warnings.raised(Watched::Queue(*inode)) else { continue };
            let known = || host.known_owners(*inode).unwrap_or_default();
            let owners = listening.told.clone().unwrap_or_else(known);
            let target = Target::Listener(listening.socket.listener.clone());
            if self.filter.wants_warning(&owners, &target) {
                let resource = Resource::AcceptQueue;
                close.push(CloseToLimit { owners, target, resource, gauge });
            }
        }
        close
    }

    /// Takes what the kernel side tells of a process.
    pub(super) fn take(
        &mut self,
        now: BootTime,
        event: GaugeEvent,
        host: &mut Live,
        aggregator: &Aggregator,
    ) -> Option<Report> {
        let GaugeEvent { caller, inode, target, limits, .. } = event;
        if target.listener().is_some() {
            host.owners.note(inode, caller.process, &caller.comm);
        }
        let id = caller.process;
        if let Some(known) = self.processes.get_mut(&id) {
            // It is looked at anyway.
            known.target = target;
            return None;
        }
        if !self.filter.wants_warning(&[host.describe(&caller)], &target) {
            return None;
        }
        self.processes.insert(id, Accepting { caller, target, limits });
        self.look(now, id, host, aggregator)
    }

    /// Looks again at what is close to its limit: to be called about once a second.
    pub(super) fn tick(
        &mut self,
        now: BootTime,
        host: &mut Live,
        aggregator: &Aggregator,
    ) -> Vec<Report> {
        let mut reports = Vec::new();
        if self.is_off {
            return reports;
        }
        if now >= self.processes_pace.next {
            let before = thread_cpu();
            let ids: Vec<_> = self.processes.keys().copied().collect();
            for id in ids {
                reports.extend(self.look(now, id, host, aggregator));
            }
            self.processes_pace.took(now, thread_cpu().saturating_sub(before), REST_PER_LOOK);
        }
        if now >= self.queues_pace.next {
            let before = thread_cpu();
            reports.extend(self.look_at_queues(now, host, aggregator));
            self.queues_pace.took(now, thread_cpu().saturating_sub(before), REST_PER_LIST);
            if self.is_failing {
                self.queues_pace.next = BootTime(now.0 + REST_AFTER_FAILURE);
            }
        }
        reports
    }

    fn look(
        &mut self,
        now: BootTime,
        id: ProcessId,
        host: &mut Live,
        aggregator: &Aggregator,
    ) -> Option<Report> {
        let accepting = self.processes.get_mut(&id)?;
        let FdUsage { open, limits } = host.fds(id, accepting.limits);
        accepting.limits = limits;
        let what = Watched::Fds(id);
        let warning = match open.zip(limits) {
            Some((used, limits)) => {
                let limit = limits.soft.number().unwrap_or(u64::MAX);
                let is_superseded = aggregator.is_exhausted(id);
                self.warnings.look(now, what, Gauge { used, limit }, is_superseded)
            }
            None if host.is_alive(id) => None,
            None => self.warnings.gone(now, what),
        };
        let report = warning.zip(limits).map(|(warning, limits)| {
            let owners = vec![host.describe(&accepting.caller)];
            report(now, owners, accepting.target.clone(), Resource::Fds(limits), warning)
        });
        if !self.warnings.watches(what) {
            self.processes.remove(&id);
        }
        report
    }

    fn look_at_queues(
        &mut self,
        now: BootTime,
        host: &mut Live,
        aggregator: &Aggregator,
    ) -> Vec<Report> {
        let own = host.namespaces.borrow().own();
        let sockets = match accept_queues(own) {
            Ok(sockets) => sockets,
            Err(error) => {
                if !self.is_failing {
                    log::warn!("accept queues are not watched: {error}");
                }
                self.is_failing = true;
                return Vec::new();
            }
        };
        self.is_failing = false;
        let is_filling = |socket: &ListeningSocket| {
            let queue = socket.queue();
            queue.is_some_and(|queue| u64::from(queue.length) * 2 > u64::from(queue.limit))
        };
        self.is_filling = sockets.iter().any(is_filling);
        let mut reports = Vec::new();
        let there: HashSet<_> = sockets.iter().map(|socket| socket.inode).collect();
        for socket in sockets {
            reports.extend(self.look_at_queue(now, socket, host, aggregator));
        }
        let closed = self.queues.keys().filter(|inode| !there.contains(inode));
        for inode in closed.copied().collect::<Vec<_>>() {
            if let Some(warning) = self.warnings.gone(now, Watched::Queue(inode)) {
                reports.extend(self.report_queue(now, inode, warning, host));
            }
            self.queues.remove(&inode);
        }
        reports
    }

    fn look_at_queue(
        &mut self,
        now: BootTime,
        socket: ListeningSocket,
        host: &mut Live,
        aggregator: &Aggregator,
    ) -> Option<Report> {
        let AcceptQueue { length, limit } = socket.queue()?;
        let (inode, what) = (socket.inode, Watched::Queue(socket.inode));
        let gauge = Gauge { used: length.into(), limit: limit.into() };
        let is_superseded = self.warnings.watches(what) && aggregator.is_overflowing(inode);
        let warning = self.warnings.look(now, what, gauge, is_superseded);
        let is_watched = self.warnings.watches(what);
        if is_watched && !self.queues.contains_key(&inode) {
            // The answer is there when there is something to say.
            host.owners.request(inode);
            self.queues.insert(inode, Listening { socket, told: None, waiting: None, waited: 0 });
        }
        let waiting = self.queues.get_mut(&inode).and_then(|queue| queue.waiting.take());
        let waiting =
            waiting.filter(|_| !is_superseded).map(|warning| Warning { gauge, ..warning });
        let warning = warning.or(waiting);
        let report = warning.and_then(|warning| self.report_queue(now, inode, warning, host));
        if !is_watched {
            self.queues.remove(&inode);
        }
        report
    }

    fn report_queue(
        &mut self,
        now: BootTime,
        inode: u64,
        warning: Warning,
        host: &mut Live,
    ) -> Option<Report> {
        let listening = self.queues.get_mut(&inode)?;
        let target = Target::Listener(listening.socket.listener.clone());
        let owners = if warning.outcome.is_none() {
            let owners = host.owners_of(inode);
            if owners.is_none() && listening.waited < MOST_WAITED {
                listening.waited += 1;
                listening.waiting = Some(warning);
                return None;
            }
            let owners = owners.unwrap_or_default();
            if !self.filter.wants_warning(&owners, &target) {
                return None;
            }
            listening.told = Some(owners.clone());
            owners
        } else {
            listening.waiting = None;
            listening.told.take()?
        };
        Some(report(now, owners, target, Resource::AcceptQueue, warning))
    }
}

impl Pace {
    /// Rests after a look that took so long on a core.
    fn took(&mut self, now: BootTime, cost: Duration, rest: u32) {
        let lately = cost.min(self.last_cost);
        self.last_cost = cost;
        if lately * rest > PERIOD {
            log::debug!(
                "a look takes {lately:?} of a core: the next one is in {:?}",
                lately * rest
            );
        }
        self.next = BootTime(now.0 + PERIOD.max(lately * rest));
    }
}

fn report(
    at: BootTime,
    owners: Vec<Process>,
    target: Target,
    resource: Resource,
    warning: Warning,
) -> Report {
    Report::Warning(Box::new(WarningReport { at, owners, target, resource, warning }))
}
