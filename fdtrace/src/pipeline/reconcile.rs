//! fdtrace's counts beside the kernel's own, per network namespace.

use super::host::Live;
use crate::{
    aggregate::Aggregator,
    model::{CounterPair, Failure, Reconciliation},
};

/// Why clients are refused.
const REFUSALS: [Failure; 4] = [
    Failure::AcceptQueueFull { syn_queue_full: false },
    Failure::AcceptQueueFull { syn_queue_full: true },
    Failure::SynQueueFull,
    Failure::SynCookieSent,
];

/// Every network namespace where a counter moved, ours or the kernel's, and our own first.
pub(super) fn reconcile(live: &Live, aggregator: &Aggregator) -> Vec<Reconciliation> {
    let mut namespaces = live.namespaces.borrow_mut();
    let own = namespaces.own();
    // Polled figures are upper bounds: there is nothing to compare.
    let counts = live.kernel.sees_packets();
    let refused = aggregator.refused();
    let deltas = namespaces.deltas().into_iter();
    let mut all: Vec<_> = deltas
        .map(|delta| {
            let netns = delta.netns;
            let seen = |is_it: fn(Failure) -> bool| {
                let why = REFUSALS.iter().filter(|failure| is_it(**failure));
                let here = why.filter_map(|failure| refused.get(&(netns, *failure)));
                counts.then(|| here.sum::<u64>())
            };
            // Under 2 the kernel counts every SYN as answered by a cookie.
            let moved = delta.req_q_full_do_cookies.unwrap_or(0) > 0;
            let always = moved && namespaces.facts(netns).tcp_syncookies == Some(2);
            let cookies = seen(counts_as_cookie).filter(|_| !always);
            let pair = |name, delta: Option<u64>, seen: Option<u64>| {
                // A kernel that does not have the counter has nothing to compare.
                let seen = seen.filter(|_| delta.is_some());
                CounterPair { name, delta: delta.unwrap_or(0), seen }
            };
            let counters = vec![
                pair("ListenOverflows", delta.listen_overflows, seen(is_overflow)),
                pair("ListenDrops", delta.listen_drops, seen(is_drop)),
                pair("TCPReqQFullDrop", delta.req_q_full_drop, seen(is_syn_drop)),
                pair("TCPReqQFullDoCookies", delta.req_q_full_do_cookies, cookies),
            ];
            Reconciliation { netns, counters }
        })
        .collect();
    all.retain(|reconciliation| {
        let moved = |pair: &CounterPair| pair.delta > 0 || pair.seen > Some(0);
        Some(reconciliation.netns) == own || reconciliation.counters.iter().any(moved)
    });
    all.sort_by_key(|reconciliation| (Some(reconciliation.netns) != own, reconciliation.netns));
    all
}

/// The sum of all network namespaces. What fdtrace did not see is known where it is for all of them.
pub(super) fn sum(live: &Live, aggregator: &Aggregator) -> Vec<CounterPair> {
    let forgotten = live.namespaces.borrow().forgotten();
    let mut sums: Vec<CounterPair> = Vec::new();
    let of_all = reconcile(live, aggregator).into_iter().flat_map(|of| of.counters);
    for pair in of_all {
        match sums.iter_mut().find(|sum| sum.name == pair.name) {
            Some(sum) => {
                sum.delta += pair.delta;
                sum.seen = sum.seen.zip(pair.seen).map(|(sum, more)| sum + more);
            }
            None => sums.push(pair),
        }
    }
    for sum in &mut sums {
        let more = match sum.name {
            "ListenOverflows" => forgotten.listen_overflows,
            "ListenDrops" => forgotten.listen_drops,
            "TCPReqQFullDrop" => forgotten.req_q_full_drop,
            _ => forgotten.req_q_full_do_cookies,
        };
        // Who refused them was seen when it happened.
        let more = more.unwrap_or(0);
        sum.delta += more;
        sum.seen = sum.seen.map(|seen| seen + more);
    }
    sums
}

fn is_overflow(failure: Failure) -> bool {
    matches!(failure, Failure::AcceptQueueFull { .. })
}

fn is_syn_drop(failure: Failure) -> bool {
    failure == Failure::SynQueueFull
}

fn is_drop(failure: Failure) -> bool {
    is_overflow(failure) || is_syn_drop(failure)
}

/// A SYN that meets both queues full is counted as answered by a cookie before it is refused.
fn counts_as_cookie(failure: Failure) -> bool {
    failure == Failure::SynCookieSent
        || failure == Failure::AcceptQueueFull { syn_queue_full: true }
}
