//! The packet program, attached only while a listener may refuse clients.
//!
//! It costs every packet of the host something, and nearly all of the time there is nothing to see.
//! So it rests, and once a second the kernel's own counters are read: when they move, a queue fills
//! or a process runs out of descriptors, it is attached again. What was refused in between is told
//! by the counters of each network namespace and of each socket, as far as they prove it
//! ([`unseen`]); the rest stays unattributed in the summary.

mod spare;
mod unseen;

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    path::Path,
    time::Duration,
};

use self::{spare::Spare, unseen::Grown};
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

/// Where it cannot rest, that is tried again after twice as long each time, up to this: what a try reads
/// is more than a look.
const MOST_PATIENCE: Duration = Duration::from_secs(60);

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
    /// The same, longer after each time that it could not rest.
    patience: Duration,
    quiet_since: BootTime,
    counters: Vec<NetnsDelta>,
    state: State,
    read_at: BootTime,
    /// Whether it was not said yet why it does not rest.
    is_worth_it: bool,
    /// For attaching it again, and for finding out what was refused meanwhile.
    spare: Spare,
    /// Why it could not be attached again, while that is so.
    blocked: Option<String>,
}

impl OnDemand {
    /// The program is attached.
    pub(super) fn new(now: BootTime, rest_after: Duration, counters: Vec<NetnsDelta>) -> Self {
        Self {
            rest_after,
            patience: rest_after,
            quiet_since: now,
            counters,
            state: State::Attached,
            read_at: now,
            is_worth_it: true,
            spare: Spare::default(),
            blocked: None,
        }
    }

    pub(super) const fn is_resting(&self) -> bool {
        matches!(self.state, State::Resting(_))
    }

    /// Why nothing looks at packets though it should: the program could not be attached again.
    pub(super) fn blocked(&self) -> Option<&str> {
        self.blocked.as_deref()
    }

    /// Attaches the program again; then all records are to be taken, and [`Self::missed`] to be asked.
    ///
    /// The counters are read first: whatever was counted until then has told of itself by a record,
    /// so nothing that a program has counted is taken for missed.
    pub(super) fn wake(&mut self, host: &mut Live) {
        self.spare.release();
        let result = host.kernel.watch_packets().map_err(|error| format!("{error:#}"));
        match (&result, &self.blocked) {
            (Err(error), None) => log::warn!(
                "packets cannot be looked at, which is tried once a second: {error}. Until then the \
                 kernel's counters tell what is refused"
            ),
            (Ok(()), Some(_)) => log::warn!("packets are looked at again"),
            (Ok(()), None) | (Err(_), Some(_)) => {}
        }
        self.blocked = result.err();
        self.state = match mem::replace(&mut self.state, State::Attached) {
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
            let is_to_wake = has_moved || !is_quiet || self.blocked.is_some();
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
        } else if now.since(self.quiet_since) >= self.patience {
            self.quiet_since = now;
            match self.rest(now, host, took) {
                Ok(()) => self.patience = self.rest_after,
                Err(why) => {
                    let longer = (self.patience * 2).min(MOST_PATIENCE);
                    self.patience = longer.max(self.rest_after);
                    if mem::take(&mut self.is_worth_it) {
                        log::info!("packets are looked at all the time: {why}");
                    }
                }
            }
        }
        false
    }

    /// Has the program rest, unless something moves just now; or says why it cannot.
    fn rest(&mut self, now: BootTime, host: &mut Live, took: Duration) -> Result<(), String> {
        if took > LONGEST_LOOK {
            return Err(format!("reading counters takes {took:?}"));
        }
        let drops = drops().map_err(|netns| {
            format!("the drops of listeners in network namespace {netns} cannot be read")
        })?;
        if self.have_moved(host) {
            return Ok(());
        }
        let spare = self.spare.fill();
        spare.map_err(|error| format!("there is no descriptor to attach them again: {error}"))?;
        host.kernel.rest_packets().map_err(|error| format!("{error:#}"))?;
        log::debug!("packets are not looked at until a listener may refuse clients");
        self.state = State::Resting(drops);
        self.read_at = now;
        Ok(())
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
        let State::Woken(before, counters) = mem::replace(&mut self.state, State::Attached) else {
            return Vec::new();
        };
        self.quiet_since = now;
        if self.blocked.is_none() {
            return self.refused(now, host, aggregator, &before, &counters);
        }
        // Without a descriptor it is not known whose they are: all of it waits. The drops are read first,
        // so that what is refused meanwhile is found the next time, if by then it can be told.
        let fresh = self.spare.fill().ok().and_then(|()| {
            self.spare.release();
            let has_moved = !unseen::moved(&self.counters, &counters).is_empty();
            has_moved.then(drops)?.ok()
        });
        let refused =
            fresh.is_some().then(|| self.refused(now, host, aggregator, &before, &counters));
        self.state = State::Resting(fresh.unwrap_or(before));
        // As many as there are.
        let _ = self.spare.fill();
        refused.unwrap_or_default()
    }

    /// What was refused between two readings of counters and drops.
    fn refused(
        &mut self,
        now: BootTime,
        host: &mut Live,
        aggregator: &Aggregator,
        before: &Drops,
        counters: &[NetnsDelta],
    ) -> Vec<Unseen> {
        // After the counters what was counted already, and last the sockets: what is refused between
        // these makes more that the counters do not explain, and less is attributed.
        let nearer = host.namespaces.borrow_mut().deltas();
        let counted = aggregator.counted(host);
        let nearer = unseen::moved(&self.counters, &nearer);
        let moved = unseen::moved(&self.counters, counters);
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
