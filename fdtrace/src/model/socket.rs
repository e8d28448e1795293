//! Listeners as they stand at one moment, also those at which nothing has failed.

use super::{
    AcceptQueue, Backlog, BootTime, FdUsage, Limit, Listener, Pid, Process, ProcessFilter,
};

/// One socket in LISTEN. Sockets that share an address (`SO_REUSEPORT`) are one each here, for each
/// has its own accept queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListeningSocket {
    /// Its inode number, by which its owners are found.
    pub inode: u64,
    /// Where it listens.
    pub listener: Listener,
    /// Connections in its accept queue; `None` where nobody could say.
    pub length: Option<u32>,
    /// The limit of its accept queue; the same.
    pub limit: Option<u32>,
    /// `sk_drops`, an upper bound of connections lost since it was made; the same.
    pub drops: Option<u32>,
}

impl ListeningSocket {
    /// The accept queue, where all of it is known.
    #[must_use]
    pub fn queue(&self) -> Option<AcceptQueue> {
        Some(AcceptQueue { length: self.length?, limit: self.limit? })
    }
}

/// Where the limit of an accept queue came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitSource {
    /// net.core.somaxconn of the network namespace: the application asked for as much or more.
    Somaxconn,
    /// listen(2)'s argument, or a somaxconn that was lower when listen was called.
    Application,
}

/// What makes a listener refuse clients, now or soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Risk {
    /// The accept queue is full: the next client is refused.
    QueueFull,
    /// An owner has every descriptor below its soft limit in use: its next accept fails.
    FdsExhausted,
    /// The accept queue is more than half full.
    QueueFilling,
    /// An owner uses 80 % of its soft limit of descriptors.
    FdsFilling,
}

impl Risk {
    /// Whether it has come true.
    #[must_use]
    pub const fn is_exhaustion(self) -> bool {
        matches!(self, Self::QueueFull | Self::FdsExhausted)
    }
}

/// How close one owner is to its limit of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerFds {
    /// The owner.
    pub pid: Pid,
    /// How many it has open, and may have.
    pub usage: FdUsage,
    /// How many of them have a number below the soft limit, for only those take a place below it.
    /// `None` where it makes no difference, or nobody could say.
    pub below_limit: Option<u64>,
}

impl OwnerFds {
    /// The part of the soft limit that is in use, in millionths; `None` where unknown, which is
    /// less than anything known.
    #[must_use]
    pub fn fullness(&self) -> Option<u128> {
        let in_use = self.below_limit.or(self.usage.open)?;
        match self.usage.limits?.soft {
            Limit::Of(soft) => Some(u128::from(in_use) * 1_000_000 / u128::from(soft.max(1))),
            Limit::Unlimited => Some(0),
        }
    }

    /// What threatens it; `None` is nothing that is known.
    #[must_use]
    pub fn risk(&self) -> Option<Risk> {
        let soft = self.usage.limits?.soft.number()?;
        let in_use = self.below_limit.or(self.usage.open)?;
        let is_filling = u128::from(in_use) * 5 >= u128::from(soft) * 4;
        if in_use >= soft {
            Some(Risk::FdsExhausted)
        } else {
            is_filling.then_some(Risk::FdsFilling)
        }
    }
}

/// One listening socket, who owns it, and how close it is to refusing clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerReport {
    /// The socket.
    pub socket: ListeningSocket,
    /// Who owns it, the lead one first. Empty where nobody can be found.
    pub owners: Vec<Process>,
    /// The owner that is closest to its limit of descriptors.
    pub fds: Option<OwnerFds>,
    /// Where the queue's limit comes from, as far as known.
    pub backlog: Backlog,
}

impl ListenerReport {
    /// A limit below this is worth a note: a burst of so many clients is nothing special.
    pub const SMALL_LIMIT: u32 = 128;

    /// What threatens it, the worst first. What is unknown threatens nobody.
    #[must_use]
    pub fn risks(&self) -> Vec<Risk> {
        let queue = self.queue_risk();
        let fds = self.fds.and_then(|fds| fds.risk());
        let mut risks: Vec<Risk> = queue.into_iter().chain(fds).collect();
        risks.sort_unstable();
        risks
    }

    /// What threatens its accept queue.
    #[must_use]
    pub fn queue_risk(&self) -> Option<Risk> {
        self.socket.queue().and_then(queue_risk)
    }

    /// Whether something has run out.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.risks().into_iter().any(Risk::is_exhaustion)
    }

    /// What set the limit of the accept queue; `None` where unknown.
    ///
    /// A limit above today's somaxconn was set before somebody lowered that, and by what, nobody
    /// can say.
    #[must_use]
    pub fn limit_set_by(&self) -> Option<LimitSource> {
        match self.socket.limit?.cmp(&self.backlog.somaxconn?) {
            std::cmp::Ordering::Less => Some(LimitSource::Application),
            std::cmp::Ordering::Equal => Some(LimitSource::Somaxconn),
            std::cmp::Ordering::Greater => None,
        }
    }

    /// Whether its accept queue is a small one, however empty it is now.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.socket.limit.is_some_and(|limit| limit < Self::SMALL_LIMIT)
    }
}

fn queue_risk(queue: AcceptQueue) -> Option<Risk> {
    let is_filling = u64::from(queue.length) * 2 > u64::from(queue.limit);
    if queue.is_full() { Some(Risk::QueueFull) } else { is_filling.then_some(Risk::QueueFilling) }
}

/// Which listeners the user asked for. An empty list asks for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerFilter {
    /// Owners: of several, one is enough.
    pub owners: ProcessFilter,
    /// Local ports.
    pub ports: Vec<u16>,
}

impl ListenerFilter {
    /// Whether the port is one asked for. What has no port is not, where ports are.
    #[must_use]
    pub fn wants_port(&self, listener: &Listener) -> bool {
        self.ports.is_empty()
            || listener.address.port().is_some_and(|port| self.ports.contains(&port))
    }
}

/// Every listener at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenersReport {
    /// That moment.
    pub at: BootTime,
    /// Those asked for, at risk first.
    pub listeners: Vec<ListenerReport>,
    /// Network namespaces that were looked into.
    pub namespaces: u32,
    /// The one fdtrace runs in, as in /proc/PID/ns/net.
    pub own_netns: Option<u32>,
    /// What could not be seen.
    pub unseen: Unseen,
}

/// What a list of listeners lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unseen {
    /// Network namespaces whose listeners are missing.
    pub namespaces: u32,
    /// Network namespaces of which /proc told queue lengths, but nobody limits and drops.
    pub without_limits: u32,
    /// Network namespaces whose `AF_UNIX` listeners are missing.
    pub without_unix: u32,
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::model::{FdLimits, ListenerAddress, UnixName};

    fn inet(port: u16) -> Listener {
        let ip = Ipv4Addr::LOCALHOST.into();
        Listener { netns: None, address: ListenerAddress::Inet { ip, port, dual_stack: None } }
    }

    fn report(length: Option<u32>, limit: Option<u32>, somaxconn: Option<u32>) -> ListenerReport {
        let socket = ListeningSocket { inode: 1, listener: inet(80), length, limit, drops: None };
        let backlog = Backlog { requested: None, somaxconn };
        ListenerReport { socket, owners: Vec::new(), fds: None, backlog }
    }

    #[test]
    fn risks_of_the_queue() {
        let cases: &[(u32, u32, &[Risk])] = &[
            (0, 0, &[]),
            (1, 0, &[Risk::QueueFull]),
            (64, 128, &[]),
            (65, 128, &[Risk::QueueFilling]),
            // One more fits (sk_acceptq_is_full).
            (128, 128, &[Risk::QueueFilling]),
            (129, 128, &[Risk::QueueFull]),
            (u32::MAX, u32::MAX, &[Risk::QueueFilling]),
        ];
        for (length, limit, risks) in cases {
            let report = report(Some(*length), Some(*limit), None);
            assert_eq!(report.risks(), *risks, "{length}/{limit}");
        }
        assert!(report(Some(9000), None, None).risks().is_empty());
        assert!(report(None, Some(1), None).risks().is_empty());
    }

    #[test]
    fn risks_of_descriptors() {
        let of = |open, soft, below_limit| {
            let limits = FdLimits { soft, hard: Limit::Unlimited };
            let usage = FdUsage { open, limits: Some(limits) };
            let fds = Some(OwnerFds { pid: Pid(1), usage, below_limit });
            ListenerReport { fds, ..report(Some(9), Some(4), None) }.risks()
        };
        let with = |open, soft| of(open, soft, None);
        assert_eq!(with(Some(819), Limit::Of(1024)), [Risk::QueueFull]);
        assert_eq!(with(Some(820), Limit::Of(1024)), [Risk::QueueFull, Risk::FdsFilling]);
        assert_eq!(with(Some(1023), Limit::Of(1024)), [Risk::QueueFull, Risk::FdsFilling]);
        for open in [1024, u64::MAX] {
            let risks = [Risk::QueueFull, Risk::FdsExhausted];
            assert_eq!(with(Some(open), Limit::Of(1024)), risks);
        }
        assert_eq!(with(Some(u64::MAX), Limit::Unlimited), [Risk::QueueFull]);
        assert_eq!(with(None, Limit::Of(1024)), [Risk::QueueFull]);
        // The limit was lowered below numbers that are in use.
        let lowered = |below| of(Some(2000), Limit::Of(1024), Some(below));
        assert_eq!(lowered(1024), [Risk::QueueFull, Risk::FdsExhausted]);
        assert_eq!(lowered(1023), [Risk::QueueFull, Risk::FdsFilling]);
        assert_eq!(lowered(12), [Risk::QueueFull]);
    }

    #[test]
    fn fullness() {
        let of = |open, soft| {
            let limits = FdLimits { soft, hard: Limit::Unlimited };
            let usage = FdUsage { open, limits: Some(limits) };
            OwnerFds { pid: Pid(1), usage, below_limit: None }
        };
        assert_eq!(of(Some(60), Limit::Of(64)).fullness(), Some(937_500));
        assert_eq!(of(Some(9), Limit::Unlimited).fullness(), Some(0));
        assert_eq!(of(None, Limit::Of(64)).fullness(), None);
        let idle = OwnerFds { below_limit: Some(0), ..of(Some(60), Limit::Of(0)) };
        assert_eq!(idle.fullness(), Some(0));
    }

    #[test]
    fn what_set_the_limit() {
        let set_by = |limit, somaxconn| report(None, limit, somaxconn).limit_set_by();
        assert_eq!(set_by(Some(511), Some(4096)), Some(LimitSource::Application));
        assert_eq!(set_by(Some(4096), Some(4096)), Some(LimitSource::Somaxconn));
        assert_eq!(set_by(Some(4096), Some(128)), None);
        assert_eq!(set_by(None, Some(128)), None);
        assert_eq!(set_by(Some(128), None), None);
    }

    #[test]
    fn small_limits() {
        assert!(report(None, Some(127), None).is_small());
        assert!(!report(None, Some(128), None).is_small());
        assert!(!report(None, None, None).is_small());
    }

    #[test]
    fn filters() {
        let unix = Listener { netns: None, address: ListenerAddress::Unix(UnixName::Unnamed) };
        let all = ListenerFilter::default();
        assert!(all.wants_port(&inet(80)) && all.wants_port(&unix));
        let ports = ListenerFilter { ports: vec![79, 80], ..ListenerFilter::default() };
        assert!(ports.wants_port(&inet(80)));
        assert!(!ports.wants_port(&inet(81)) && !ports.wants_port(&unix));
    }
}
