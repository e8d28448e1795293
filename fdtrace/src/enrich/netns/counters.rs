//! The text of `/proc/PID/net/netstat` → what listeners refused.
//!
//! Pure. A counter that a kernel does not have stays `None`.

/// Counters of a network namespace since it was made, or their growth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) listen_overflows: Option<u64>,
    pub(super) listen_drops: Option<u64>,
    pub(super) req_q_full_drop: Option<u64>,
    pub(super) req_q_full_do_cookies: Option<u64>,
}

impl Counters {
    /// Of a namespace that was just made.
    pub(super) const ZERO: Self = Self {
        listen_overflows: Some(0),
        listen_drops: Some(0),
        req_q_full_drop: Some(0),
        req_q_full_do_cookies: Some(0),
    };

    /// Growth since an earlier reading.
    pub(super) fn since(self, earlier: Self) -> Self {
        self.with(earlier, u64::saturating_sub)
    }

    pub(super) fn plus(self, more: Self) -> Self {
        self.with(more, u64::saturating_add)
    }

    pub(super) fn is_zero(self) -> bool {
        let of = [
            self.listen_overflows,
            self.listen_drops,
            self.req_q_full_drop,
            self.req_q_full_do_cookies,
        ];
        of.into_iter().flatten().all(|count| count == 0)
    }

    fn with(self, other: Self, combine: fn(u64, u64) -> u64) -> Self {
        let combine = |a: Option<u64>, b: Option<u64>| Some(combine(a?, b?));
        Self {
            listen_overflows: combine(self.listen_overflows, other.listen_overflows),
            listen_drops: combine(self.listen_drops, other.listen_drops),
            req_q_full_drop: combine(self.req_q_full_drop, other.req_q_full_drop),
            req_q_full_do_cookies: combine(self.req_q_full_do_cookies, other.req_q_full_do_cookies),
        }
    }
}

const PREFIX: &str = "TcpExt:";

/// Reads the two lines `TcpExt:`, of names and of values; `None` where they are not both there.
///
/// Columns are found by name: kernels insert new ones anywhere.
pub(super) fn parse(text: &str) -> Option<Counters> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(PREFIX));
    let (names, values) = (lines.next()?, lines.next()?);
    let columns = names.split_ascii_whitespace().zip(values.split_ascii_whitespace());
    let mut counters = Counters::default();
    for (name, value) in columns {
        let counter = match name {
            "ListenOverflows" => &mut counters.listen_overflows,
            "ListenDrops" => &mut counters.listen_drops,
            "TCPReqQFullDrop" => &mut counters.req_q_full_drop,
            "TCPReqQFullDoCookies" => &mut counters.req_q_full_do_cookies,
            _ => continue,
        };
        *counter = value.parse().ok();
    }
    Some(counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_by_name() {
        let expected = |overflows, drops, queue_drop, cookies| {
            Some(Counters {
                listen_overflows: overflows,
                listen_drops: drops,
                req_q_full_drop: queue_drop,
                req_q_full_do_cookies: cookies,
            })
        };
        for (text, parsed) in [
            (
                "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPReqQFullDoCookies \
                 TCPReqQFullDrop X\nTcpExt: 1 2 3 4 5 6\nIpExt: ListenDrops\nIpExt: 9\n",
                expected(Some(2), Some(3), Some(5), Some(4)),
            ),
            // Another order, another protocol before it, no newline at the end.
            (
                "IpExt: ListenDrops\nIpExt: 9\nTcpExt: ListenDrops ListenOverflows\nTcpExt: 7 8",
                expected(Some(8), Some(7), None, None),
            ),
            ("TcpExt: ListenDrops\nTcpExt: 18446744073709551615\n", {
                expected(None, Some(u64::MAX), None, None)
            }),
            ("TcpExt: ListenDrops\nTcpExt: -1\n", expected(None, None, None, None)),
            ("TcpExt: ListenOverflows ListenDrops\nTcpExt: 1\n", {
                expected(Some(1), None, None, None)
            }),
            ("TcpExt:\nTcpExt:\n", expected(None, None, None, None)),
            ("TcpExt: ListenDrops\n", None),
            ("TcpExt: ListenDrops\nIpExt: 1\n", None),
            ("", None),
        ] {
            assert_eq!(parse(text), parsed, "{text}");
        }
    }

    #[test]
    fn growth() {
        let of = |count| Counters { listen_drops: Some(count), ..Counters::default() };
        assert_eq!(of(7).since(of(3)), of(4));
        assert_eq!(of(7).since(Counters::ZERO), of(7));
        assert_eq!(of(3).since(of(7)), of(0));
        assert_eq!(of(3).plus(of(7)), of(10));
        assert!(of(0).is_zero() && !of(1).is_zero() && Counters::default().is_zero());
        assert_eq!(of(3).since(Counters::default()), Counters::default());
    }

    #[test]
    fn the_running_kernel() {
        let text = std::fs::read_to_string("/proc/net/netstat").unwrap();
        let counters = parse(&text).unwrap();
        assert!(counters.listen_overflows <= counters.listen_drops);
        assert_eq!(counters.since(Counters::ZERO), counters, "all four are there");
    }
}
