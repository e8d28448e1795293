//! Figures for metrics.

use super::*;
use crate::model::SeriesCount;

fn sum(counts: &[SeriesCount]) -> u64 {
    counts.iter().map(|one| one.count).sum()
}

#[test]
fn figures_only_grow_whatever_becomes_of_the_lines() {
    let host = FakeHost::new();
    host.alive.set(false);
    let mut aggregator = aggregator(Filter::default());
    aggregator.tally(2);
    // So many processes of one name that their lines are folded: one series all the same.
    let failures = 20_000_u32;
    for number in 0..failures {
        let second = 10.0 + f64::from(number);
        let of = FailureEvent { caller: Some(caller(number, 2.0)), ..event(0, 5, second) };
        record(&mut aggregator, &host, &of, 1);
        aggregator.tick(at(second + 3.0), &host);
        if number % 5000 == 0 {
            assert_eq!(sum(&aggregator.tallied(at(second))), u64::from(number) + 1);
        }
    }
    assert!(aggregator.folded() > 0);
    let counts = aggregator.tallied(at(30_000.0));
    assert_eq!((counts.len(), sum(&counts)), (1, u64::from(failures)));
    let opened: u64 = aggregator.opened().iter().map(|(_, count)| count).sum();
    assert_eq!(opened, u64::from(failures));
}

#[test]
fn a_filter_that_changes_takes_nothing_back() {
    let host = FakeHost::new();
    let mut aggregator = aggregator(Filter::default());
    aggregator.tally(10);
    record(&mut aggregator, &host, &event(0, 5, 10.0), 7);
    aggregator.set_filter(Filter { ports: vec![1], ..Filter::default() });
    record(&mut aggregator, &host, &event(0, 5, 11.0), 9);
    assert_eq!(sum(&aggregator.tallied(at(11.0))), 7);
    aggregator.set_filter(Filter::default());
    assert_eq!(sum(&aggregator.tallied(at(11.0))), 9);
}

#[test]
fn what_there_is_no_room_for_is_one() {
    let host = FakeHost::new();
    let mut aggregator = aggregator(Filter::default());
    aggregator.tally(1);
    for slot in 0..8 {
        let failure = Failure::Errno(Errno(24 - u16::try_from(slot / 4).unwrap()));
        let of = FailureEvent { failure, ..event(slot, 5, 10.0) };
        // Of the same call of other processes, and of another failure.
        let of = FailureEvent { caller: Some(caller_called(slot)), ..of };
        record(&mut aggregator, &host, &of, 5);
    }
    let counts = aggregator.tallied(at(11.0));
    let of = |count: &SeriesCount| {
        let series = count.series.as_ref().unwrap();
        (series.who.is_some(), series.failure, count.count)
    };
    let mut counts: Vec<_> = counts.iter().map(of).collect();
    counts.sort_unstable();
    let [own, system] = [24, 23].map(|errno| Failure::Errno(Errno(errno)));
    assert_eq!(counts, [(false, system, 20), (false, own, 15), (true, own, 5)]);
}

/// A process of another name.
fn caller_called(number: u32) -> Caller {
    let comm = Comm::from_bytes(format!("worker-{number}").as_bytes());
    Caller { comm, ..caller(number, 2.0) }
}
