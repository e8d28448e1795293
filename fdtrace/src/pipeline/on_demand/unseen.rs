//! What listeners refused while no program looked, from what the kernel counts anyway.
//!
//! A refused SYN adds 1 to the namespace's ListenDrops, and to its ListenOverflows or TCPReqQFullDrop,
//! and 1 to the `sk_drops` of its listener (net/ipv4/tcp_input.c tcp_conn_request, include/net/tcp.h
//! tcp_listendrop, v6.18). A refused final ACK adds 1 to ListenDrops and ListenOverflows, and 2 to
//! `sk_drops`: tcp_v4_syn_recv_sock drops it, and tcp_v4_rcv once more (net/ipv4/tcp_ipv4.c, v6.18).
//! Few other things add to either; those that do make the sums differ, and less is claimed.

use std::collections::BTreeMap;

use crate::{enrich::NetnsDelta, model::Figures};

/// How much the counters of a namespace have grown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) overflows: u64,
    pub(super) drops: u64,
    pub(super) syn_drops: u64,
    pub(super) cookies: u64,
}

/// What one listener has surely refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Grown {
    /// SYNs, because its accept queue was full.
    pub(super) syns: u64,
    /// Final ACKs, for the same reason.
    pub(super) acks: u64,
    /// SYNs, because its SYN queue was full.
    pub(super) syn_drops: u64,
    pub(super) figures: Figures,
}

/// The namespaces in which something happened between two readings.
pub(super) fn moved(before: &[NetnsDelta], now: &[NetnsDelta]) -> BTreeMap<u32, Moved> {
    let before: BTreeMap<_, _> = before.iter().map(|delta| (delta.netns, delta)).collect();
    let growth = |delta: &NetnsDelta| {
        let earlier = before.get(&delta.netns);
        let of = |counter: fn(&NetnsDelta) -> Option<u64>| {
            let earlier = earlier.and_then(|earlier| counter(earlier)).unwrap_or(0);
            counter(delta).unwrap_or(0).saturating_sub(earlier)
        };
        let moved = Moved {
            overflows: of(|delta| delta.listen_overflows),
            drops: of(|delta| delta.listen_drops),
            syn_drops: of(|delta| delta.req_q_full_drop),
            cookies: of(|delta| delta.req_q_full_do_cookies),
        };
        (delta.netns, moved)
    };
    now.iter().map(growth).filter(|(_, moved)| *moved != Moved::default()).collect()
}

/// What each of a namespace's listeners refused, given by how much their `sk_drops` have grown.
///
/// Of a listener that has grown by `g`, no more than all of what the sums do not explain was counted
/// twice or was something else: it refused `g` less that, at least. `later` are the counters as they
/// were after that growth was read. `is_complete` says that no listener has gone with its drops.
pub(super) fn attribute(
    moved: Moved,
    later: Moved,
    growth: &[u64],
    is_complete: bool,
) -> Vec<Grown> {
    let Moved { overflows, syn_drops, .. } = moved;
    let refused = overflows + syn_drops;
    let sum: u64 = growth.iter().sum();
    // One that came and went within the time is missing, too.
    let is_complete = is_complete && sum >= refused;
    if let ([growth], true) = (growth, is_complete) {
        // A cookie's ACK, which is not counted twice, is taken for a SYN.
        let acks = growth.saturating_sub(later.drops).min(overflows);
        let syns = overflows - acks;
        return vec![Grown { syns, acks, syn_drops, figures: Figures::Exact }];
    }
    let unexplained = if is_complete { sum.saturating_sub(refused) } else { sum };
    let sure = growth.iter().map(|growth| {
        let least = growth.saturating_sub(unexplained);
        // Counted twice, every one of them: what is left where a listener has gone.
        if is_complete { least } else { least.max(growth.div_ceil(2).min(refused)) }
    });
    let sure: Vec<u64> = sure.collect();
    let all: u64 = sure.iter().sum();
    // Which listener dropped SYNs and which was full nobody can tell; nor what to take away where
    // there is more than there can be.
    let is_told = (overflows == 0 || syn_drops == 0) && all <= refused;
    let figures = if all == refused { Figures::Exact } else { Figures::AtLeast };
    let grown = sure.into_iter().map(|sure| match (is_told, syn_drops) {
        (false, _) => Grown::default(),
        (true, 0) => Grown { syns: sure, figures, ..Grown::default() },
        (true, _) => Grown { syn_drops: sure, figures, ..Grown::default() },
    });
    grown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn counters(overflows: u64, drops: u64, syn_drops: u64) -> Moved {
        Moved { overflows, drops, syn_drops, cookies: 0 }
    }

    /// `syns acks syn_drops` of each, and whether that is all.
    #[track_caller]
    fn check(
        moved: Moved,
        growth: &[u64],
        is_complete: bool,
        want: &[(u64, u64, u64)],
        figures: Figures,
    ) {
        let found = attribute(moved, moved, growth, is_complete);
        let told: Vec<_> = found.iter().map(|of| (of.syns, of.acks, of.syn_drops)).collect();
        assert_eq!(told, want, "{moved:?} {growth:?}");
        let worst = found.iter().map(|of| of.figures).max().unwrap_or_default();
        assert_eq!(worst, figures, "{moved:?} {growth:?}");
    }

    #[test]
    fn one_listener_has_all_of_it() {
        let check =
            |moved, growth: &[u64], want| check(moved, growth, true, &[want], Figures::Exact);
        check(counters(45, 45, 0), &[45], (45, 0, 0));
        check(counters(45, 45, 0), &[90], (0, 45, 0));
        check(counters(45, 45, 0), &[50], (40, 5, 0));
        check(counters(0, 7, 7), &[7], (0, 0, 7));
        check(counters(40, 45, 5), &[47], (38, 2, 5));
        // Five drops were something else.
        check(counters(40, 45, 0), &[45], (40, 0, 0));
        // More came between the readings: no ACK can be told from a SYN.
        let later = counters(60, 60, 0);
        let [found] = attribute(counters(45, 45, 0), later, &[55], true)[..] else { panic!() };
        assert_eq!((found.syns, found.acks), (45, 0));
    }

    #[test]
    fn several_have_what_is_sure() {
        let exact = Figures::Exact;
        check(counters(45, 45, 0), &[15, 30], true, &[(15, 0, 0), (30, 0, 0)], exact);
        check(counters(0, 9, 9), &[4, 5], true, &[(0, 0, 4), (0, 0, 5)], exact);
        // Somebody refused ACKs, five at most: the first, or the second.
        let least = Figures::AtLeast;
        check(counters(40, 40, 0), &[15, 30], true, &[(10, 0, 0), (25, 0, 0)], least);
        // One was full, the other dropped SYNs: which, nobody can tell.
        check(counters(40, 45, 5), &[40, 5], true, &[(0, 0, 0), (0, 0, 0)], exact);
        check(counters(3, 3, 0), &[], true, &[], exact);
    }

    #[test]
    fn what_has_gone_makes_less_sure() {
        let least = Figures::AtLeast;
        check(counters(45, 45, 0), &[20], false, &[(10, 0, 0)], least);
        // A closed one had SYNs refused, this one ACKs: no more than half is sure.
        check(counters(20, 20, 0), &[20], false, &[(10, 0, 0)], least);
        check(counters(20, 20, 0), &[20, 10], false, &[(10, 0, 0), (5, 0, 0)], least);
        check(counters(45, 45, 0), &[20], true, &[(10, 0, 0)], least);
    }

    #[test]
    fn namespaces_in_which_something_moved() {
        let delta = |netns, overflows| NetnsDelta {
            netns,
            listen_overflows: Some(overflows),
            listen_drops: Some(overflows + 1),
            req_q_full_drop: None,
            req_q_full_do_cookies: None,
        };
        let (before, now) = ([delta(1, 5), delta(2, 5)], [delta(1, 5), delta(2, 8), delta(3, 2)]);
        let found: Vec<_> = moved(&before, &now).into_iter().collect();
        assert_eq!(found, [(2, counters(3, 3, 0)), (3, counters(2, 3, 0))]);
        // One that has ended is nothing that has happened.
        assert!(moved(&now, &before).is_empty());
    }
}
