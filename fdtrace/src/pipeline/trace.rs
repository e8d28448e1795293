//! One trace, from the start line to the summary.

mod snapshot;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use fdtrace_common::{Counter, Lost};

use super::{
    Config, Stop,
    descriptors::descriptors,
    host::{Live, PROC, slot_count},
    investigate::{Found, Investigations},
    on_demand::{OnDemand, Unseen},
    polled::Poller,
    reconcile::reconcile,
    watch::Watch,
};
use crate::{
    aggregate::{Aggregator, Settings},
    decode::{self, DecodeError},
    enrich::{Namespaces, boot_time, owners_now, read_clocks},
    kernel::{Kernel, NO_FORM, Refused},
    model::{
        BootTime, Event, FailureEvent, LostCount, LostKind, LostReport, ProbeReport, Process,
        RefusedForm, Report, Started, Summary, WallClock,
    },
    output::Sink,
};

/// Boot times become dates by one reading of both clocks, so that the same boot time is always the
/// same date. The reading is replaced when the wall clock was set by more than this.
const CLOCK_DRIFT: Duration = Duration::from_millis(50);

/// How many sockets that refused clients have their owners followed.
const MOST_REFUSING: usize = 4096;

pub(super) struct Trace {
    pub(super) host: Live,
    aggregator: Aggregator,
    pub(super) investigations: Investigations,
    watch: Watch,
    started: BootTime,
    /// Sockets that refused clients: their owners are looked for, and may change. True once a scan
    /// has looked: what listen(2) showed is one owner, and there may be others.
    refusing: BTreeMap<u64, bool>,
    /// Where the packet program could not be attached.
    poller: Option<Poller>,
    /// Where it need not be attached all the time.
    on_demand: Option<OnDemand>,
    /// Losses that were reported.
    lost: BTreeMap<&'static str, u64>,
    undecoded: u64,
    clock: WallClock,
}

impl Trace {
    /// Attaches.
    pub(super) fn new(config: Config) -> anyhow::Result<Self> {
        let Config { filter, interval, kernel, thresholds, packets_rest, most_lines, .. } = config;
        // Finding the namespaces takes milliseconds: before. Reading their counters takes
        // microseconds, in which the kernel and fdtrace do not yet count the same.
        let mut namespaces = Namespaces::new(PathBuf::from(PROC));
        namespaces.discover();
        let kernel = Kernel::attach(&kernel)?;
        namespaces.begin();
        let poller = (!kernel.sees_packets()).then(|| Poller::new(&mut namespaces));
        let rest = packets_rest.filter(|_| kernel.looks_at_packets());
        let descriptors = descriptors(&kernel);
        Ok(Self {
            poller,
            on_demand: rest.map(|rest| OnDemand::new(boot_time(), rest, namespaces.deltas())),
            host: Live::new(kernel, namespaces),
            investigations: Investigations::new(descriptors),
            watch: Watch::new(thresholds, filter.clone()),
            aggregator: Aggregator::new(Settings { filter, interval, most_lines }),
            started: boot_time(),
            refusing: BTreeMap::new(),
            lost: BTreeMap::new(),
            undecoded: 0,
            clock: read_clocks(),
        })
    }

    pub(super) fn start(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        let started = Started {
            at: self.started,
            version: env!("CARGO_PKG_VERSION"),
            kernel: kernel_release(),
            probes: self.probes(),
        };
        self.write(sink, Report::Started(started))
    }

    /// Takes every waiting record.
    pub(super) fn drain(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        let mut records = Vec::new();
        self.host.kernel.drain(|bytes| records.push(decode::record(bytes)));
        for record in records {
            self.take(record, sink)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        record: Result<Event, DecodeError>,
        sink: &mut dyn Sink,
    ) -> Result<(), Stop> {
        match record {
            Ok(Event::Failure(event)) => self.take_failure(&event, sink),
            Ok(Event::Listen(event)) => {
                self.host.note_listen(&event);
                Ok(())
            }
            Ok(Event::Gauge(event)) => {
                match self.watch.take(boot_time(), event, &mut self.host, &self.aggregator) {
                    Some(report) => self.write(sink, report),
                    None => Ok(()),
                }
            }
            Err(error) => {
                log::warn!("a record of the eBPF side cannot be decoded: {error}");
                self.undecoded += 1;
                Ok(())
            }
        }
    }

    fn take_failure(&mut self, event: &FailureEvent, sink: &mut dyn Sink) -> Result<(), Stop> {
        self.host.kernel.map_slot(event.key.slot).context("map a slot into memory")?;
        let listener = event.target.listener();
        let inode = event.key.inode;
        let owners = match &event.caller {
            Some(caller) => {
                if listener.is_some() {
                    self.host.owners.note(inode, caller.process, &caller.comm);
                }
                Some(vec![self.host.describe(caller)])
            }
            None => self.host.owners_of(inode),
        };
        if let Some(netns) = listener.and_then(|listener| listener.netns) {
            let mut namespaces = self.host.namespaces.borrow_mut();
            // An owner is a way in at once; otherwise somebody in there has to be found.
            for owner in owners.iter().flatten().take(1) {
                namespaces.meet_through(netns, owner.id.pid);
            }
            namespaces.meet(netns);
        }
        let found = owners.clone().unwrap_or_default();
        let now = boot_time();
        if let Some(report) = self.aggregator.record(now, event, &self.host, |_| found) {
            self.write(sink, report)?;
        }
        if event.caller.is_some() {
            // Nobody takes connections out of the queue now: it fills. What failed before is the next
            // tick's to try again.
            return if self.blocked().is_none() { self.wake(sink) } else { Ok(()) };
        }
        self.follow(inode, owners, sink)
    }

    /// Has a listener's owners followed; hands over those that are known well enough.
    fn follow(
        &mut self,
        inode: u64,
        owners: Option<Vec<Process>>,
        sink: &mut dyn Sink,
    ) -> Result<(), Stop> {
        let is_scanned = self.refusing.get(&inode).copied();
        if is_scanned.is_none() && self.refusing.len() < MOST_REFUSING {
            self.refusing.insert(inode, false);
        }
        match owners {
            // Also where nobody was found: then nobody will be.
            Some(owners) if is_scanned == Some(true) => self.set_owners(inode, &owners, sink),
            Some(_) | None => Ok(()),
        }
    }

    /// Takes what a scan for owners has found.
    pub(super) fn take_owners(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        let inodes: Vec<_> = self.refusing.keys().copied().collect();
        for inode in inodes {
            self.refusing.insert(inode, true);
            if let Some(owners) = self.host.known_owners(inode) {
                self.set_owners(inode, &owners, sink)?;
            }
        }
        // Who owns the others is told, and who comes to own them makes no difference any more.
        let sockets = self.aggregator.sockets();
        self.refusing.retain(|inode, _| sockets.contains(inode));
        Ok(())
    }

    /// Looks for owners that no scan has looked for yet: there is no later.
    fn find_last_owners(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        let missing = self.refusing.iter().filter(|(_, is_scanned)| !**is_scanned);
        let inodes: Vec<_> = missing.map(|(inode, _)| *inode).collect();
        if inodes.is_empty() {
            return Ok(());
        }
        let found = match owners_now(Path::new(PROC), inodes) {
            Ok(found) => found,
            Err(error) => {
                log::warn!("cannot look up who owns a socket: {error}");
                return Ok(());
            }
        };
        for (inode, owners) in found {
            let owners = self.host.describe_all(&owners);
            self.set_owners(inode, &owners, sink)?;
        }
        Ok(())
    }

    fn set_owners(
        &mut self,
        inode: u64,
        owners: &[Process],
        sink: &mut dyn Sink,
    ) -> Result<(), Stop> {
        let now = boot_time();
        for report in self.aggregator.set_owners(now, inode, owners, &self.host) {
            self.write(sink, report)?;
        }
        Ok(())
    }

    /// Takes counts, gives slots back, reports what is due and what was lost.
    pub(super) fn tick(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        // Also while there is nothing to count: an open file of a namespace keeps it from ending.
        self.host.namespaces.borrow_mut().refresh();
        self.poll(sink)?;
        for report in self.watch.tick(boot_time(), &mut self.host, &self.aggregator) {
            self.write(sink, report)?;
        }
        if self.is_to_wake() {
            self.wake(sink)?;
        }
        if !self.aggregator.is_idle() {
            self.take_counts(sink)?;
        }
        self.investigations.forget(|process| self.watch.is_close(process));
        let before = |process| self.watch.samples(process);
        self.investigations.tick(boot_time(), &self.aggregator, &mut self.host, before);
        Ok(())
    }

    fn take_counts(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        if self.grew(Counter::RingFull) {
            self.take_undelivered(sink)?;
        }
        let now = boot_time();
        for report in self.aggregator.tick(now, &self.host) {
            self.write(sink, report)?;
        }
        for slot in self.aggregator.retire(now, &self.host) {
            self.host.kernel.retire(slot)?;
        }
        let recyclable = self.aggregator.recyclable(now);
        if !recyclable.is_empty() {
            // A record of the slot's old key must not be read after its new key's.
            self.drain(sink)?;
        }
        for slot in recyclable {
            let count = slot_count(self.host.kernel.recycle(slot)?);
            if let Some(report) = self.aggregator.recycled(now, slot, count, &self.host) {
                self.write(sink, report)?;
            }
        }
        if self.aggregator.is_idle() {
            self.refusing.clear();
        }
        self.report_lost(sink)
    }

    /// Takes what was refused since the last time, where no program sees it.
    fn poll(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        let Some(poller) = &mut self.poller else { return Ok(()) };
        let now = boot_time();
        let refused = poller.poll(now, &mut self.host.namespaces.borrow_mut());
        self.take_unseen(now, refused, sink)
    }

    /// Whether packets rest, and a listener may refuse clients.
    fn is_to_wake(&mut self) -> bool {
        let is_quiet = self.aggregator.is_idle() && self.watch.is_quiet();
        let Some(on_demand) = &mut self.on_demand else { return false };
        on_demand.look(boot_time(), &mut self.host, is_quiet)
    }

    /// Has packets looked at again, and takes what was refused while they were not.
    fn wake(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        let Some(on_demand) = self.on_demand.as_mut().filter(|on_demand| on_demand.is_resting())
        else {
            return Ok(());
        };
        on_demand.wake(&mut self.host);
        self.drain(sink)?;
        let now = boot_time();
        let Some(on_demand) = &mut self.on_demand else { return Ok(()) };
        let refused = on_demand.missed(now, &mut self.host, &self.aggregator);
        self.take_unseen(now, refused, sink)
    }

    /// Why nothing looks at packets though it should.
    fn blocked(&self) -> Option<&str> {
        self.on_demand.as_ref().and_then(OnDemand::blocked)
    }

    fn take_unseen(
        &mut self,
        now: BootTime,
        refused: Vec<Unseen>,
        sink: &mut dyn Sink,
    ) -> Result<(), Stop> {
        for (event, new, figures) in refused {
            let inode = event.key.inode;
            let owners = self.host.owners_of(inode);
            let found = owners.clone().unwrap_or_default();
            let new = (new, figures);
            if let Some(report) = self.aggregator.unseen(now, &event, new, &self.host, |_| found) {
                self.write(sink, report)?;
            }
            self.follow(inode, owners, sink)?;
        }
        Ok(())
    }

    /// Everything that is still to be said.
    pub(super) fn finish(&mut self, sink: &mut dyn Sink) -> Result<bool, Stop> {
        self.drain(sink)?;
        self.take_undelivered(sink)?;
        self.poll(sink)?;
        // There is no use in a rest now.
        if self.on_demand.as_ref().is_some_and(OnDemand::is_resting) && self.is_to_wake() {
            self.wake(sink)?;
        }
        self.find_last_owners(sink)?;
        let now = boot_time();
        for report in self.aggregator.finish(now, &self.host) {
            self.write(sink, report)?;
        }
        self.report_lost(sink)?;
        self.host.namespaces.borrow_mut().discover();
        let summary = Summary {
            started: self.started,
            at: now,
            totals: self.aggregator.totals(),
            lost: self.losses(),
            // As soon after our own counts as can be: what is refused between the two is "not seen".
            kernel: reconcile(&self.host, &self.aggregator),
            probes: self.probes(),
        };
        let exhaustion = summary.totals.iter().any(|total| total.failure.is_exhaustion());
        self.write(sink, Report::Summary(summary))?;
        Ok(exhaustion)
    }

    /// Keys whose every record met a full ring buffer.
    fn take_undelivered(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        for slot in 0..self.host.kernel.slot_count() {
            if self.aggregator.knows(slot) {
                continue;
            }
            let first = self.host.kernel.first_record(slot).context("read the key of a slot")?;
            if let Some(bytes) = first {
                self.take(decode::record(&bytes), sink)?;
            }
        }
        Ok(())
    }

    fn grew(&self, counter: Counter) -> bool {
        let before = self.lost.get(counter.name()).copied().unwrap_or(0);
        self.host.kernel.counter(counter) > before
    }

    fn losses(&self) -> Vec<LostCount> {
        let counters = Counter::ALL.iter().map(|counter| LostCount {
            reason: counter.name(),
            kind: match counter.lost() {
                Lost::Failures => LostKind::Failures,
                Lost::Calls => LostKind::Calls,
                Lost::Notices => LostKind::Notices,
                Lost::Attribution => LostKind::Attribution,
            },
            count: Some(self.host.kernel.counter(*counter)),
        });
        let ours = [
            ("program_skipped", LostKind::Calls, self.host.kernel.skipped_runs()),
            ("record_undecoded", LostKind::Notices, Some(self.undecoded)),
            (
                "netns_unwatched",
                LostKind::Attribution,
                Some(self.host.namespaces.borrow().skipped()),
            ),
            ("totals_full", LostKind::Attribution, Some(self.aggregator.folded())),
        ];
        let ours = ours.into_iter().map(|(reason, kind, count)| LostCount { reason, kind, count });
        counters.chain(ours).collect()
    }

    fn report_lost(&mut self, sink: &mut dyn Sink) -> Result<(), Stop> {
        let mut lost = self.losses();
        lost.retain(|loss| {
            let before = self.lost.get(loss.reason).copied().unwrap_or(0);
            loss.count.is_some_and(|count| count > before)
        });
        if lost.is_empty() {
            return Ok(());
        }
        self.lost.extend(lost.iter().filter_map(|loss| Some((loss.reason, loss.count?))));
        self.write(sink, Report::Lost(LostReport { at: boot_time(), lost }))
    }

    pub(super) fn probes(&self) -> Vec<ProbeReport> {
        let probes = self.host.kernel.probes().iter();
        probes
            .map(|attached| {
                let refused = attached.refused.iter().map(refused_form);
                let blocked = self.blocked().filter(|_| attached.is_of_packets());
                let blocked =
                    blocked.map(|why| RefusedForm { form: attached.form, why: why.to_owned() });
                ProbeReport {
                    probe: attached.probe,
                    form: if blocked.is_some() { NO_FORM } else { attached.form },
                    refused: refused.chain(blocked).collect(),
                }
            })
            .collect()
    }

    /// The facts that nothing observes now.
    pub(super) fn down(&self) -> Vec<&'static str> {
        let is_blocked = self.blocked().is_some();
        let probes = self.host.kernel.probes().iter();
        let down =
            probes.filter(|probe| probe.form == NO_FORM || is_blocked && probe.is_of_packets());
        down.map(|probe| probe.probe).collect()
    }

    /// Takes what was found out about an episode.
    pub(super) fn diagnose(
        &mut self,
        found: Option<Found>,
        sink: &mut dyn Sink,
    ) -> Result<(), Stop> {
        let own_netns = self.host.namespaces.borrow().own();
        let report =
            found.and_then(|found| self.investigations.conclude(found, boot_time(), own_netns));
        match report {
            Some(report) => self.write(sink, Report::Diagnosed(Box::new(report))),
            None => Ok(()),
        }
    }

    fn write(&mut self, sink: &mut dyn Sink, mut report: Report) -> Result<(), Stop> {
        if let Report::Episode(episode) = &mut report {
            let before = |process| self.watch.samples(process);
            self.investigations.consider(episode, &mut self.host, before);
            episode.cause = self.investigations.cause(episode);
        }
        if let Report::Warning(warning) = &report {
            self.investigations.warned(warning);
        }
        let now = read_clocks();
        let expected = self.clock.date(now.boot);
        let drift = now.wall.duration_since(expected).unwrap_or_else(|early| early.duration());
        if drift > CLOCK_DRIFT {
            self.clock = now;
        }
        Ok(sink.write(&report, &self.clock)?)
    }
}

fn refused_form(refused: &Refused) -> RefusedForm {
    RefusedForm { form: refused.form, why: refused.why.clone() }
}

fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |release| release.trim().to_owned())
}
