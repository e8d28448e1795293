//! A host that says what a test tells it to.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use super::*;
use crate::model::{
    AcceptQueue, Backlog, BootTime, Caller, Comm, Container, ContainerQuery, Door, EpisodeReport,
    Errno, Failure, FailureEvent, FdLimits, FdUsage, Filter, KeyId, Limit, Listener,
    ListenerAddress, Outcome, Phase, Pid, Process, ProcessFilter, ProcessId, Report, SystemLimits,
    Target, Tid,
};

mod tally;

const NO_SLOTS: [u32; 0] = [];
const LIMITS: FdLimits = FdLimits { soft: Limit::Of(1024), hard: Limit::Of(4096) };

struct FakeHost {
    counts: RefCell<HashMap<u32, SlotCount>>,
    open: Cell<Option<u64>>,
    below: Cell<Option<u64>>,
    alive: Cell<bool>,
    forgotten: RefCell<Vec<u32>>,
}

impl FakeHost {
    fn new() -> Self {
        let counts = RefCell::default();
        let full = || Cell::new(Some(1024));
        let forgotten = RefCell::default();
        Self { counts, open: full(), below: full(), alive: Cell::new(true), forgotten }
    }

    fn count(&self, slot: u32, total: u64, last: BootTime) {
        self.counts.borrow_mut().insert(slot, SlotCount { total, last });
    }
}

impl Host for FakeHost {
    fn system(&self) -> SystemLimits {
        SystemLimits { nr_open: Some(1 << 20), ..SystemLimits::default() }
    }

    fn fds(&self, _: ProcessId, known: Option<FdLimits>) -> FdUsage {
        FdUsage { open: self.open.get().filter(|_| self.alive.get()), limits: known }
    }

    fn open_below(&self, _: ProcessId, _: u64) -> Option<u64> {
        self.below.get()
    }

    fn is_alive(&self, _: ProcessId) -> bool {
        self.alive.get()
    }

    fn count(&self, slot: u32) -> SlotCount {
        self.counts.borrow().get(&slot).copied().unwrap_or_default()
    }

    fn refused_clients(&self, slots: &[u32]) -> Option<u64> {
        Some(10 * slots.len() as u64)
    }

    fn forget_clients(&self, slot: u32) {
        self.forgotten.borrow_mut().push(slot);
    }

    fn backlog(&self, _: u64, _: Option<u32>) -> Option<Backlog> {
        None
    }
}

fn at(seconds: f64) -> BootTime {
    BootTime(Duration::from_secs_f64(seconds))
}

fn caller(pid: u32, started: f64) -> Caller {
    Caller {
        process: ProcessId { pid: Pid(pid), started: at(started) },
        tid: Tid(pid),
        comm: Comm::from_bytes(b"srv"),
        cgroup: 1,
    }
}

fn event(slot: u32, inode: u64, seconds: f64) -> FailureEvent {
    FailureEvent {
        met: None,
        key: KeyId { slot, inode },
        at: at(seconds),
        caller: Some(caller(7, 1.0)),
        door: Door::Accept4,
        failure: Failure::Errno(Errno::EMFILE),
        target: Target::Listener(Listener {
            netns: Some(1),
            address: ListenerAddress::Inet {
                ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
                port: 9088,
                dual_stack: Some(false),
            },
        }),
        queue: Some(AcceptQueue { length: 61, limit: 128 }),
        limits: Some(LIMITS),
    }
}

fn process(caller: &Caller) -> Process {
    Process::unread(caller.process, caller.comm.clone())
}

fn owners(event: &FailureEvent) -> Vec<Process> {
    event.caller.iter().map(process).collect()
}

fn aggregator(filter: Filter) -> Aggregator {
    Aggregator::new(Settings { filter, interval: Duration::from_secs(5), most_lines: 16_384 })
}

fn episode(report: Report) -> EpisodeReport {
    match report {
        Report::Episode(episode) => *episode,
        other => panic!("{other:?}"),
    }
}

fn only_episode(reports: Vec<Report>) -> EpisodeReport {
    assert_eq!(reports.len(), 1, "{reports:?}");
    episode(reports.into_iter().next().unwrap())
}

#[test]
fn an_episode_as_it_stands_and_its_counts_over_time() {
    let host = FakeHost::new();
    let mut aggregator = aggregator(Filter::default());
    let opened = record(&mut aggregator, &host, &event(0, 5, 10.0), 1).unwrap();
    record(&mut aggregator, &host, &event(0, 5, 10.1), 40);
    host.count(0, 41, at(10.1));
    aggregator.tick(at(11.0), &host);
    let stands = aggregator.stands(&opened, at(11.5), &host).unwrap();
    assert_eq!((stands.count, stands.new, &stands.inodes[..]), (41, 40, &[5][..]));
    let counts: Vec<_> = stands.failures.iter().map(|sample| (sample.at, sample.count)).collect();
    assert_eq!(counts, [(at(10.0), 1), (at(10.1), 41)], "of one moment the last count");
    // It was not reported by that.
    host.count(0, 50, at(14.9));
    assert_eq!(only_episode(aggregator.tick(at(15.0), &host)).new, 49);
    for more in 0..100_u32 {
        let seconds = 16.0 + f64::from(more) / 10.0;
        record(&mut aggregator, &host, &event(0, 5, seconds), 51 + u64::from(more));
    }
    let stands = aggregator.stands(&opened, at(26.0), &host).unwrap();
    assert_eq!(stands.failures.len(), 64);
    assert_eq!(stands.failures[63].count, 150);
    let other = EpisodeReport { door: Door::Socket, ..opened };
    assert_eq!(aggregator.stands(&other, at(26.0), &host), None);
}

/// Takes a record of a slot whose count is `total` by now.
fn record(
    aggregator: &mut Aggregator,
    host: &FakeHost,
    event: &FailureEvent,
    total: u64,
) -> Option<EpisodeReport> {
    host.count(event.key.slot, total, event.at);
    aggregator.record(event.at, event, host, owners).map(episode)
}

#[test]
fn one_line_at_the_first_failure_then_one_an_interval_then_recovered() {
    let host = FakeHost::new();
    let mut aggregator = aggregator(Filter::default());
    let opened = record(&mut aggregator, &host, &event(0, 5, 10.0), 1).unwrap();
    assert_eq!((opened.phase, opened.count, opened.first), (Phase::Opened, 1, at(10.0)));
    assert_eq!(opened.fds, FdUsage { open: Some(1024), limits: Some(LIMITS) });
    // More records of the same are no news.
    assert_eq!(record(&mut aggregator, &host, &event(0, 5, 10.1), 40), None);
    assert_eq!(aggregator.tick(at(11.0), &host), []);
    host.count(0, 120, at(14.9));
    let updated = only_episode(aggregator.tick(at(14.9), &host));
    assert_eq!((updated.phase, updated.count, updated.new), (Phase::Updated, 120, 119));
    // Quiet, but every descriptor is still in use.
    assert_eq!(aggregator.tick(at(18.0), &host), []);
    host.open.set(Some(900));
    let closed = only_episode(aggregator.tick(at(19.0), &host));
    assert_eq!(closed.phase, Phase::Closed(Outcome::Recovered));
    assert_eq!((closed.count, closed.last), (120, at(14.9)));
    // The next failure is another episode, counted from there.
    host.count(0, 123, at(30.0));
    let opened = only_episode(aggregator.tick(at(30.5), &host));
    assert_eq!((opened.phase, opened.count, opened.first), (Phase::Opened, 3, at(30.0)));
    assert_eq!(aggregator.totals()[0].count, 123);
}

#[test]
fn a_process_that_is_gone_was_full_and_has_exited() {
    let host = FakeHost::new();
    host.alive.set(false);
    let mut aggregator = aggregator(Filter::default());
    let opened = record(&mut aggregator, &host, &event(0, 5, 10.0), 3).unwrap();
    // At EMFILE every descriptor below the limit was in use.
    assert_eq!(opened.fds.open, Some(1024));
    let closed = only_episode(aggregator.tick(at(12.0), &host));
    assert_eq!(closed.phase, Phase::Closed(Outcome::Exited));
}

#[test]
fn a_descriptor_above_the_limit_takes_nobodys_place() {
    let host = FakeHost::new();
    let mut aggregator = aggregator(Filter::default());
    record(&mut aggregator, &host, &event(0, 5, 10.0), 3).unwrap();
    assert_eq!(aggregator.tick(at(13.0), &host), []);
    host.below.set(Some(1023));
    let closed = only_episode(aggregator.tick(at(14.0), &host));
    assert_eq!(closed.phase, Phase::Closed(Outcome::Recovered));
}

#[test]
fn what_an_episode_tells_is_known_while_it_is_open() {
    let host = FakeHost::new();
    let mut aggregator = aggregator(Filter::default());
    let process = caller(7, 1.0).process;
    assert!(!aggregator.is_exhausted(process) && !aggregator.is_overflowing(5));
    record(&mut aggregator, &host, &event(0, 5, 10.0), 3).unwrap();
    // Nobody can take from the queue either.
    assert!(aggregator.is_exhausted(process) && aggregator.is_overflowing(5));
    assert!(!aggregator.is_exhausted(caller(8, 1.0).process) && !aggregator.is_overflowing(6));
    host.alive.set(false);
    aggregator.tick(at(20.0), &host);
    assert!(!aggregator.is_exhausted(process) && !aggregator.is_overflowing(5));
    record(&mut aggregator, &host, &refusal(1, Door::Syn, 30.0), 4);
    aggregator.set_owners(at(30.1), 5, &[], &host);
    assert!(!aggregator.is_exhausted(process) && aggregator.is_overflowing(5));
}

#[test]
fn sockets_of_one_address_are_one_line() {
    let host = FakeHost::new();
    let mut aggregator = aggregator(Filter::default());
    assert!(record(&mut aggregator, &host, &event(0, 5, 10.0), 2).is_some());
    assert_eq!(record(&mut aggregator, &host, &event(1, 6, 10.1), 3), None);
    let totals = aggregator.totals();
    assert_eq!(totals.len(), 1);
    assert_eq!(totals[0].count, 5);
}

#[test]
fn what_is_filtered_out_is_neither_reported_nor_totalled() {
    let host = FakeHost::new();
    let mut aggregator = aggregator(Filter { ports: vec![80], ..Filter::default() });
    assert_eq!(record(&mut aggregator, &host, &event(0, 5, 10.0), 2), None);
    assert_eq!(aggregator.totals(), []);
}

#[test]
fn a_probing_socket_call_is_totalled_but_no_news() {
    let host = FakeHost::new();
    let mut aggregator = aggregator(Filter::default());
    let probing = FailureEvent {
        door: Door::Socket,
        failure: Failure::Errno(Errno::parse("EAFNOSUPPORT").unwrap()),
        target: Target::None,
        ..event(0, 0, 10.0)
    };
    assert_eq!(record(&mut aggregator, &host, &probing, 2), None);
    assert_eq!(aggregator.totals()[0].count, 2);
}

#[test]
fn a_slot_goes_back_when_its_process_is_gone_and_every_failure_stays_counted() {
    let host = FakeHost::new();
    let mut aggregator = aggregator(Filter::default());
    record(&mut aggregator, &host, &event(0, 5, 10.0), 2);
    assert_eq!(aggregator.retire(at(20.0), &host), NO_SLOTS);
    host.alive.set(false);
    assert_eq!(aggregator.retire(at(20.0), &host), NO_SLOTS, "its episode is open");
    aggregator.tick(at(20.0), &host);
    assert_eq!(aggregator.retire(at(20.0), &host), [0]);
    assert_eq!(aggregator.retire(at(20.0), &host), NO_SLOTS, "once is enough");
    assert_eq!(aggregator.recyclable(at(20.5)), NO_SLOTS);
    assert_eq!(aggregator.recyclable(at(21.0)), [0]);
    // One more was counted before the key was gone.
    let last = SlotCount { total: 3, last: at(20.0) };
    aggregator.recycled(at(21.0), 0, last, &host);
    assert!(!aggregator.knows(0));
    assert_eq!(aggregator.totals()[0].count, 3);
}

#[test]
fn a_slot_that_changes_hands_starts_from_zero() {
    let host = FakeHost::new();
    let mut aggregator = aggregator(Filter::default());
    record(&mut aggregator, &host, &event(0, 5, 10.0), 7);
    let other = FailureEvent { caller: Some(caller(8, 2.0)), ..event(0, 9, 40.0) };
    let opened = record(&mut aggregator, &host, &other, 4).unwrap();
    assert_eq!(opened.count, 4);
    let counts: Vec<_> = aggregator.totals().iter().map(|total| total.count).collect();
    assert_eq!(counts, [7, 4]);
}

#[test]
fn lines_are_bounded_and_what_is_folded_is_still_counted() {
    let host = FakeHost::new();
    host.alive.set(false);
    let mut aggregator = aggregator(Filter::default());
    let mut failures = 0;
    for number in 0..20_000_u32 {
        let other = FailureEvent {
            caller: Some(caller(number, 2.0)),
            ..event(0, 5, 10.0 + f64::from(number))
        };
        record(&mut aggregator, &host, &other, 1);
        failures += 1;
        aggregator.tick(at(13.0 + f64::from(number)), &host);
    }
    let totals: u64 = aggregator.totals().iter().map(|total| total.count).sum();
    assert!(aggregator.totals().len() <= 16_384);
    assert!(aggregator.folded() > 0);
    assert_eq!(totals + aggregator.folded(), failures);
}

/// A client refused at that door.
fn refusal(slot: u32, door: Door, seconds: f64) -> FailureEvent {
    let failure = Failure::AcceptQueueFull { syn_queue_full: false };
    FailureEvent { caller: None, door, failure, limits: None, ..event(slot, 5, seconds) }
}

#[test]
fn an_overflow_waits_for_its_owner_and_is_one_episode_at_both_doors() {
    let host = FakeHost::new();
    let mut aggregator = aggregator(Filter::default());
    assert_eq!(record(&mut aggregator, &host, &refusal(0, Door::Syn, 10.0), 3), None);
    assert_eq!(record(&mut aggregator, &host, &refusal(1, Door::Ack, 10.1), 2), None);
    let owner = process(&caller(7, 1.0));
    let reports = aggregator.set_owners(at(10.2), 5, std::slice::from_ref(&owner), &host);
    let opened = only_episode(reports);
    assert_eq!((opened.phase, opened.count, opened.owners), (Phase::Opened, 3, vec![owner]));
    host.count(0, 30, at(15.0));
    let updated = only_episode(aggregator.tick(at(15.3), &host));
    assert_eq!((updated.count, updated.new), (32, 29));
    let refused = updated.refused.unwrap();
    assert_eq!((refused.attempts, refused.connections), (32, Some(20)));
    // A stuck client comes again after seconds: that is no recovery.
    assert_eq!(aggregator.tick(at(22.0), &host), []);
    let closed = only_episode(aggregator.tick(at(25.0), &host));
    assert_eq!(closed.phase, Phase::Closed(Outcome::Recovered));
    assert_eq!(*host.forgotten.borrow(), [0, 1]);
    // Both doors have their line.
    let counts: Vec<_> =
        aggregator.totals().iter().map(|total| (total.door, total.count)).collect();
    assert_eq!(counts, [(Door::Syn, 30), (Door::Ack, 2)]);
    let refused = aggregator.refused();
    assert!(refused.keys().all(|(netns, _)| *netns == 1), "{refused:?}");
    assert_eq!(refused.values().sum::<u64>(), 32);
}

#[test]
fn an_overflow_is_filtered_by_an_owner_who_is_found_later() {
    let host = FakeHost::new();
    let containers = vec![ContainerQuery::Id("4f1c".to_owned())];
    let processes = ProcessFilter { containers, ..ProcessFilter::default() };
    for (id, wanted) in [("4f1c0d6f", true), ("0d6f4f1c", false)] {
        let mut aggregator =
            aggregator(Filter { processes: processes.clone(), ..Filter::default() });
        assert_eq!(record(&mut aggregator, &host, &refusal(0, Door::Syn, 10.0), 3), None);
        let container = Some(Container { id: id.to_owned(), engine: None });
        let owner = Process { container, ..process(&caller(7, 1.0)) };
        let opened = aggregator.set_owners(at(10.2), 5, &[owner], &host);
        assert_eq!((opened.len(), aggregator.totals().len()), (wanted.into(), wanted.into()));
    }
}

#[test]
fn an_overflow_nobody_owns_is_reported_all_the_same() {
    let host = FakeHost::new();
    let mut aggregator = aggregator(Filter::default());
    assert_eq!(record(&mut aggregator, &host, &refusal(0, Door::Syn, 10.0), 3), None);
    assert_eq!(aggregator.tick(at(10.5), &host), []);
    let opened = only_episode(aggregator.tick(at(11.0), &host));
    assert_eq!((opened.count, opened.owners), (3, vec![]));
}

#[test]
fn an_overflow_of_a_listener_whose_acceptor_fails_is_part_of_that() {
    let host = FakeHost::new();
    let mut aggregator = aggregator(Filter::default());
    assert!(record(&mut aggregator, &host, &event(0, 5, 10.0), 1).is_some());
    assert_eq!(record(&mut aggregator, &host, &refusal(1, Door::Syn, 10.1), 4), None);
    host.count(0, 3, at(15.0));
    let updated = only_episode(aggregator.tick(at(15.0), &host));
    assert_eq!((updated.failure, updated.count), (Failure::Errno(Errno::EMFILE), 3));
    assert_eq!(updated.refused.unwrap().attempts, 4);
}
