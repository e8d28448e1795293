//! The packet program, attached only while a listener may refuse clients.
//!
//! It costs every packet of the host something, and nearly all of the time there is nothing to see.
//! So it rests, and once a second the kernel's own counters are read: when they move, a queue fills
//! or a process runs out of descriptors, it is attached again. What was refused in between is told
//! by the counters of each network namespace and of each socket, as far as they prove it
//! ([`unseen`]); the rest stays unattributed in the summary.

mod unseen;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::Duration,
};

use self::unseen::Grown;
use super::{
    host::{Live, PROC},
    polled::{listeners, refusal},
};
use crate::{
    aggregate::{Aggregator, Counted},
    enrich::{NetnsDelta, NetnsListeners, census::thread_cpu, host_listeners},
    model::{BootTime, Door, Failure, FailureEvent, Figures, ListeningSocket},
};

/// A look that takes longer than this on a core is not worth its while: every second, it would be
/// more than a thousandth of one.
const LONGEST_LOOK: Duration = Duration::from_millis(1);

/// While the program rests the drops are read again after so long, so that few of the listeners that
/// had some are gone when they are needed.
const REFRESH: Duration = Duration::from_secs(60);

/// `sk_drops` of every listener, by inode, each with its network namespace.
type Drops = HashMap<u64, (Option<u32>, u32)>;

/// Failures that nobody saw: the last of them, as far as it is known, and how many.
pub(super) type Unseen = (FailureEvent, u64, Figures);

/// Whether the program is attached.
enum State {
    Attached,
    /// It is not; every listener's drops are as they were when the counters had just been read.
    Resting(Drops),
    /// It is again, and what was refused until these counters were read is still to be found out.
    Woken(Drops, Vec<NetnsDelta>),
}

/// When the program is attached.
pub(super) struct OnDemand {
    /// It rests after so long a time without anything to see.
    rest_after: Duration,
    quiet_since: BootTime,
    counters: Vec<NetnsDelta>,
    state: State,
    read_at: BootTime,
    is_worth_it: bool,
}

impl OnDemand {
    /// The program is attached.
    pub(super) fn new(now: BootTime, rest_after: Duration, counters: Vec<NetnsDelta>) -> Self {
        Self {
            rest_after,
            quiet_since: now,
            counters,
            state: State::Attached,
            read_at: now,
            is_worth_it: true,
        }
    }

    pub(super) const fn is_resting(&self) -> bool {
        matches!(self.state, State::Resting(_))
    }

    /// The program is attached again; all records are to be taken, and then [`Self::missed`].
    ///
    /// The counters are read first: whatever was counted until then has told of itself by a record,
    /// so nothing that a program has counted is taken for missed.
    pub(super) fn woken(&mut self, host: &mut Live) {
        self.state = match std::mem::replace(&mut self.state, State::Attached) {
            State::Resting(drops) => State::Woken(drops, host.namespaces.borrow_mut().deltas()),
            state => state,
        };
    }

    /// Looks at the kernel's counters, once a second: whether the program is to be woken. Has it rest
    /// where it is time; `is_quiet` says that nothing is watched closely for another reason.
    pub(super) fn look(&mut self, now: BootTime, host: &mut Live, is_quiet: bool) -> bool {
        let before = thread_cpu();
        let counters = host.namespaces.borrow_mut().deltas();
        let took = thread_cpu().saturating_sub(before);
        let has_moved = !unseen::moved(&self.counters, &counters).is_empty();
        if self.is_resting() {
            let is_to_wake = has_moved || !is_quiet;
            if !is_to_wake && now.since(self.read_at) >= REFRESH {
                self.read_at = now;
                if let Ok(drops) = drops()
                    && !self.have_moved(host)
                {
                    self.state = State::Resting(drops);
                }
            }
            return is_to_wake;
        }
        self.counters = counters;
        if has_moved || !is_quiet {
            self.quiet_since = now;
        } else if now.since(self.quiet_since) >= self.rest_after {
            self.rest(now, host, took);
        }
        false
    }

    fn rest(&mut self, now: BootTime, host: &mut Live, took: Duration) {
        // What does not succeed is tried again after as long.
        self.quiet_since = now;
        if took > LONGEST_LOOK {
            if std::mem::take(&mut self.is_worth_it) {
                log::info!("packets are looked at all the time: reading counters takes {took:?}");
            }
            return;
        }
        let drops = match drops() {
            Ok(drops) => drops,
            Err(netns) => {
                if std::mem::take(&mut self.is_worth_it) {
                    log::info!(
                        "packets are looked at all the time: the drops of listeners in network \
                         namespace {netns} cannot be read"
                    );
                }
                return;
            }
        };
        if self.have_moved(host) {
            return;
        }
        match host.kernel.rest_packets() {
            Ok(()) => {
                log::debug!("packets are not looked at until a listener may refuse clients");
                self.state = State::Resting(drops);
                self.read_at = now;
            }
            Err(error) => log::warn!("packets are looked at all the time: {error:#}"),
        }
    }

    /// The program could not be attached.
    pub(super) fn rest_again(&mut self, now: BootTime) {
        self.state = State::Resting(drops().unwrap_or_default());
        self.read_at = now;
    }

    /// Whether what was read since the counters were is not of the same moment.
    fn have_moved(&self, host: &Live) -> bool {
        let counters = host.namespaces.borrow_mut().deltas();
        !unseen::moved(&self.counters, &counters).is_empty()
    }

    /// What was refused while the program rested.
    pub(super) fn missed(
        &mut self,
        now: BootTime,
        host: &mut Live,
        aggregator: &Aggregator,
    ) -> Vec<Unseen> {
        let State::Woken(before, counters) = std::mem::replace(&mut self.state, State::Attached)
        else {
            return Vec::new();
        };
        self.quiet_since = now;
        // After the counters what was counted already, and last the sockets: what is refused between
        // these makes more that the counters do not explain, and less is attributed.
        let nearer = host.namespaces.borrow_mut().deltas();
        let counted = aggregator.counted(host);
        let nearer = unseen::moved(&self.counters, &nearer);
        let moved = unseen::moved(&self.counters, &counters);
        if moved.is_empty() {
            return Vec::new();
        }
        let mut sockets: HashMap<u32, Vec<ListeningSocket>> = HashMap::new();
        let mut gone: BTreeMap<u64, Option<u32>> =
            before.iter().map(|(inode, (netns, _))| (*inode, *netns)).collect();
        for socket in listeners() {
            gone.remove(&socket.inode);
            if let Some(netns) = socket.listener.netns {
                sockets.entry(netns).or_default().push(socket);
            }
        }
        let later = host.namespaces.borrow_mut().deltas();
        let grown_later = unseen::moved(&self.counters, &later);
        self.counters = later;
        let mut unseen = Vec::new();
        for (netns, moved) in moved {
            let later = grown_later.get(&netns).copied().unwrap_or(moved);
            let sockets = sockets.remove(&netns).unwrap_or_default();
            // One that was closed has taken its drops with it.
            let is_complete = !gone.values().any(|of| of.is_none_or(|of| of == netns));
            let grown = sockets.into_iter().filter_map(|socket| {
                let earlier = before.get(&socket.inode).map_or(0, |(_, drops)| *drops);
                let growth = socket.drops?.saturating_sub(earlier);
                (growth > 0).then_some((socket, u64::from(growth)))
            });
            let (sockets, growth): (Vec<_>, Vec<_>) = grown.unzip();
            // Counters that were read after the records are as good where all of these sockets have told
            // of themselves by one, and nearer to what was counted.
            let have_told = sockets.iter().all(|socket| counted.contains_key(&socket.inode));
            let moved = nearer.get(&netns).filter(|_| have_told).copied().unwrap_or(moved);
            let grown = unseen::attribute(moved, later, &growth, is_complete);
            for (socket, grown) in sockets.iter().zip(grown) {
                let counted = counted.get(&socket.inode).copied().unwrap_or_default();
                unseen.extend(events(now, socket, grown, counted));
            }
        }
        unseen
    }
}

/// What a socket refused while nobody looked, but for what was counted already.
fn events(now: BootTime, socket: &ListeningSocket, grown: Grown, counted: Counted) -> Vec<Unseen> {
    let overflow = Failure::AcceptQueueFull { syn_queue_full: false };
    let overflows = (grown.syns + grown.acks).saturating_sub(counted.overflows);
    let acks = grown.acks.min(overflows);
    let drops = grown.syn_drops.saturating_sub(counted.syn_drops);
    let all = [
        (Door::Syn, overflow, overflows - acks),
        (Door::Ack, overflow, acks),
        (Door::Syn, Failure::SynQueueFull, drops),
    ];
    let all = all.into_iter().filter(|(.., new)| *new > 0);
    all.map(|(door, failure, new)| (refusal(now, socket, door, failure), new, grown.figures))
        .collect()
}

/// Every listener's drops; the number of a network namespace where nobody tells them.
fn drops() -> Result<Drops, u32> {
    let mut drops = Drops::new();
    for NetnsListeners { netns, tcp, .. } in host_listeners(Path::new(PROC)).namespaces {
        // Seen from outside, listeners have no drops.
        let tcp = tcp.ok().filter(|tcp| tcp.fallback.is_none());
        let sockets = tcp.ok_or_else(|| netns.unwrap_or_default())?.sockets.into_iter();
        drops.extend(sockets.filter_map(|socket| Some((socket.inode, (netns, socket.drops?)))));
    }
    Ok(drops)
}
