//! What was seen of an episode over time.

use std::net::IpAddr;

use super::BootTime;

/// How many calls had failed by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureSample {
    /// That moment.
    pub at: BootTime,
    /// Failures since the beginning.
    pub count: u64,
}

/// How many connections waited then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSample {
    /// That moment.
    pub at: BootTime,
    /// Length of the accept queue.
    pub length: u32,
}

/// What became of SYNs in a network namespace over a time; each `None` where this kernel does not
/// count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// SYNs answered by a cookie: `TcpExtSyncookiesSent`.
    pub cookies_sent: Option<u64>,
    /// Valid cookies that came back: `TcpExtSyncookiesRecv`.
    pub cookies_returned: Option<u64>,
    /// ACKs whose cookie was none: `TcpExtSyncookiesFailed`.
    pub cookies_invalid: Option<u64>,
    /// Connections that any listener was given: `TcpPassiveOpens`.
    pub completed: Option<u64>,
}

impl Handshakes {
    /// Growth since an earlier reading.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        self.with(earlier, u64::saturating_sub)
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        self.with(more, u64::saturating_add)
    }

    fn with(self, other: Self, combine: fn(u64, u64) -> u64) -> Self {
        let combine = |a: Option<u64>, b: Option<u64>| Some(combine(a?, b?));
        Self {
            cookies_sent: combine(self.cookies_sent, other.cookies_sent),
            cookies_returned: combine(self.cookies_returned, other.cookies_returned),
            cookies_invalid: combine(self.cookies_invalid, other.cookies_invalid),
            completed: combine(self.completed, other.completed),
        }
    }
}

/// The half-open requests of a listener at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HalfOpen {
    /// How many.
    pub requests: u64,
    /// Those whose SYN-ACK had to be sent again: for a second or longer, nobody has answered.
    pub unanswered: u64,
    /// From so many addresses.
    pub addresses: u64,
    /// The address with most of them, and how many.
    pub busiest: Option<(IpAddr, u64)>,
}
