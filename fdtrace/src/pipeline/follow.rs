//! Episodes are looked at again some seconds after they began: who comes in, how a queue fills, and
//! what an acceptor does about its failures shows only then.

use std::{collections::HashMap, path::Path, time::Duration};

use super::host::{Live, PROC};
use crate::{
    aggregate::Aggregator,
    diagnose::Lately,
    enrich::{accept_queues, accept_queues_in},
    model::{
        BootTime, EpisodeReport, Errno, Failure, FailureSample, Handshakes, ListeningSocket, Phase,
        QueueSample, Target,
    },
};

/// After so long. A busy loop shows at once, pauses of a second after four of them, and that nobody
/// accepts any more after ten seconds.
const LOOKS: [Duration; 3] =
    [Duration::from_secs(3), Duration::from_secs(6), Duration::from_secs(14)];
/// So many episodes at once; of a host where more fail, the first ones tell enough.
const MOST_FOLLOWED: usize = 64;
/// Queues of so many network namespaces are looked at in a tick.
const MOST_NAMESPACES: usize = 4;
/// Listeners whose acceptor's failures are remembered, and for how long.
const MOST_FAILED: usize = 256;
const REMEMBERED: Duration = Duration::from_secs(600);

/// Everything that is to be looked at again.
#[derive(Default)]
pub(super) struct Follow {
    episodes: Vec<Followed>,
    failed: HashMap<Target, Failed>,
    /// Queues that overflow now.
    overflows: HashMap<Target, Box<EpisodeReport>>,
}

/// An episode that is to be looked at again.
struct Followed {
    report: Box<EpisodeReport>,
    began: BootTime,
    /// How many looks there were.
    looks: usize,
    queue: Vec<QueueSample>,
    handshakes: Option<Handshakes>,
    count: u64,
}

/// How accept failed on a listener.
struct Failed {
    errno: Errno,
    failures: Vec<FailureSample>,
    /// It fails still.
    is_open: bool,
}

/// What is to be looked at now.
pub(super) struct Due {
    pub(super) report: Box<EpisodeReport>,
    pub(super) lately: Lately,
    /// No more looks will follow.
    pub(super) is_last: bool,
}

impl Follow {
    /// Begins with an episode that has just opened.
    pub(super) fn begin(&mut self, report: &EpisodeReport, host: &mut Live) {
        if self.episodes.len() >= MOST_FOLLOWED {
            return;
        }
        // Who else has the listener decides what follows from its queue.
        for inode in report.inodes.iter().filter(|_| report.target.listener().is_some()) {
            host.owners.request(*inode);
        }
        let followed = Followed {
            report: Box::new(report.clone()),
            began: report.at,
            looks: 0,
            queue: Vec::new(),
            handshakes: handshakes(report, host),
            count: report.count,
        };
        self.episodes.push(followed);
    }

    /// Takes a report of any episode. Gives the overflow of the queue that accept begins to fail on:
    /// from here on it is a consequence.
    pub(super) fn take(&mut self, report: &EpisodeReport) -> Option<Box<EpisodeReport>> {
        if let Some(errno) = report.failure.errno()
            && report.door.accepts()
            && report.target.listener().is_some()
        {
            let is_recent = |failed: &mut Failed| {
                let last = failed.failures.last();
                last.is_some_and(|last| report.at.since(last.at) < REMEMBERED)
            };
            if self.failed.len() >= MOST_FAILED {
                self.failed.retain(|_, failed| is_recent(failed));
            }
            if self.failed.len() < MOST_FAILED || self.failed.contains_key(&report.target) {
                let is_open = !matches!(report.phase, Phase::Closed(_));
                let failed = Failed { errno, failures: report.failures.clone(), is_open };
                self.failed.insert(report.target.clone(), failed);
            }
        }
        if matches!(report.failure, Failure::AcceptQueueFull { .. }) {
            if matches!(report.phase, Phase::Closed(_)) {
                self.overflows.remove(&report.target);
            } else if self.overflows.len() < MOST_FOLLOWED
                || self.overflows.contains_key(&report.target)
            {
                self.overflows.insert(report.target.clone(), Box::new(report.clone()));
            }
        }
        let same = self.episodes.iter_mut().find(|followed| followed.is(report));
        if let Some(followed) = same.filter(|_| report.phase != Phase::Opened) {
            *followed.report = report.clone();
        }
        let begins = report.phase == Phase::Opened && report.failure.errno().is_some();
        let overflow = self.overflows.get(&report.target).filter(|_| begins);
        overflow.filter(|_| accept_fails(&self.failed, &report.target).is_some()).cloned()
    }

    /// What is known at once of a listener whose queue overflows.
    pub(super) fn at_once(&self, report: &EpisodeReport) -> Lately {
        let accept_fails = accept_fails(&self.failed, &report.target);
        Lately { now: report.at, accept_fails, ..Lately::default() }
    }

    /// Looks at the queues, and says which episodes are due: to be called about once a second.
    pub(super) fn tick(
        &mut self,
        now: BootTime,
        aggregator: &Aggregator,
        host: &mut Live,
    ) -> Vec<Due> {
        self.look_at_queues(now, host);
        let mut due = Vec::new();
        for followed in &mut self.episodes {
            let Some(after) = LOOKS.get(followed.looks) else { continue };
            if now.since(followed.began) < *after {
                continue;
            }
            followed.looks += 1;
            if let Some(report) = aggregator.stands(&followed.report, now, host) {
                *followed.report = report;
            }
            let lately = followed.lately(now, &self.failed, host);
            let is_last = followed.looks == LOOKS.len();
            due.push(Due { report: followed.report.clone(), lately, is_last });
        }
        self.episodes.retain(|followed| followed.looks < LOOKS.len());
        due
    }

    fn look_at_queues(&mut self, now: BootTime, host: &Live) {
        let namespaces = host.namespaces.borrow();
        let own = namespaces.own();
        let mut seen: HashMap<u32, Vec<ListeningSocket>> = HashMap::new();
        for followed in self.episodes.iter_mut().filter(|followed| followed.has_queue()) {
            let Some(netns) = followed.netns() else { continue };
            if !seen.contains_key(&netns) {
                if seen.len() >= MOST_NAMESPACES {
                    continue;
                }
                let owner = followed.report.owners.first().map(|owner| owner.id.pid);
                let sockets = match namespaces.member(netns).or(owner) {
                    _ if own == Some(netns) => accept_queues(own),
                    Some(member) => accept_queues_in(Path::new(PROC), netns, member),
                    None => continue,
                };
                let sockets = sockets.unwrap_or_else(|error| {
                    log::debug!("cannot look at the queues of namespace {netns}: {error}");
                    Vec::new()
                });
                seen.insert(netns, sockets);
            }
            let sockets = seen.get(&netns).into_iter().flatten();
            let inodes = &followed.report.inodes;
            let lengths = sockets
                .filter(|socket| inodes.contains(&socket.inode))
                .filter_map(|socket| socket.length);
            if let Some(length) = lengths.max() {
                followed.queue.push(QueueSample { at: now, length });
            }
        }
    }
}

impl Followed {
    fn is(&self, report: &EpisodeReport) -> bool {
        let of = |report: &EpisodeReport| {
            let is_call = report.failure.errno().is_some();
            let caller = report.owners.first().filter(|_| is_call);
            (caller.map(|owner| owner.id), report.door, report.failure)
        };
        of(&self.report) == of(report) && self.report.target == report.target
    }

    fn netns(&self) -> Option<u32> {
        self.report.target.listener()?.netns
    }

    /// Whether it matters how the accept queue fills.
    fn has_queue(&self) -> bool {
        match self.report.failure {
            Failure::Errno(_) => self.report.door.accepts(),
            Failure::AcceptQueueFull { .. } => true,
            Failure::SynQueueFull | Failure::SynCookieSent => false,
        }
    }

    fn lately(&self, now: BootTime, failed: &HashMap<Target, Failed>, host: &mut Live) -> Lately {
        let report = &self.report;
        let before = failed.get(&report.target);
        let (errno, failures) = match report.failure {
            Failure::Errno(errno) => (Some(errno), report.failures.clone()),
            _ => before
                .map_or((None, Vec::new()), |failed| (Some(failed.errno), failed.failures.clone())),
        };
        let owners = report.inodes.first().and_then(|inode| host.owners.known(*inode));
        let is_alone = owners.map(|owners| owners.len() == 1);
        let handshakes = self.handshakes.zip(handshakes(report, host));
        Lately {
            now,
            failures,
            errno,
            accept_fails: accept_fails(failed, &report.target),
            queue: self.queue.clone(),
            is_alone,
            handshakes: handshakes.map(|(before, now)| now.since(before)),
            count: report.count.saturating_sub(self.count),
            half_open: None,
        }
    }
}

/// What accept fails with on a listener.
fn accept_fails(failed: &HashMap<Target, Failed>, target: &Target) -> Option<Errno> {
    let failed = failed.get(target).filter(|failed| failed.is_open)?;
    Some(failed.errno).filter(|errno| errno.is_exhaustion())
}

/// The counters of an episode about SYNs.
fn handshakes(report: &EpisodeReport, host: &Live) -> Option<Handshakes> {
    let is_about_syns = matches!(report.failure, Failure::SynQueueFull | Failure::SynCookieSent);
    let netns = report.target.listener()?.netns.filter(|_| is_about_syns)?;
    Some(host.namespaces.borrow_mut().handshakes(netns))
}
