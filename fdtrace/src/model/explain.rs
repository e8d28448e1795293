//! One process looked at closely: what was asked for, and everything that was found.

use std::net::IpAddr;

use super::{
    Behaviour, BootTime, Census, Comm, Diagnosis, ListenerAddress, ListenerReport, OwnerFds, Pid,
    Process, Provenance, UnixName,
};

/// What somebody wants explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One process.
    Pid(Pid),
    /// Who listens there.
    Listener(ListenerQuery),
    /// Processes of this name, or of this systemd unit.
    Name(String),
}

/// A listener as somebody types it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerQuery {
    /// On this port, at any address.
    Port(u16),
    /// Where a client of this address and port would end up.
    Address(IpAddr, u16),
    /// `AF_UNIX`.
    Unix(UnixName),
}

impl ListenerQuery {
    /// Whether a listener is meant.
    #[must_use]
    pub fn wants(&self, address: &ListenerAddress) -> bool {
        match (self, address) {
            (Self::Port(wanted), address) => address.port() == Some(*wanted),
            (Self::Address(wanted, on), ListenerAddress::Inet { ip, port, dual_stack }) => {
                let takes = match (wanted, ip) {
                    (IpAddr::V4(_), IpAddr::V6(_)) => {
                        ip.is_unspecified() && *dual_stack != Some(false)
                    }
                    (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                        ip.is_unspecified() || ip == wanted
                    }
                    (IpAddr::V6(_), IpAddr::V4(_)) => false,
                };
                port == on && takes
            }
            (Self::Unix(wanted), ListenerAddress::Unix(name)) => wanted == name,
            _ => false,
        }
    }
}

/// The most bytes that the kernel keeps of a process's name (`TASK_COMM_LEN`, with its NUL).
const COMM_BYTES: usize = 15;

/// Whether somebody who types `name` means a process: by its own name, also where that was cut, or
/// by its unit, with or without the unit's type.
#[must_use]
pub fn is_called(name: &str, comm: &Comm, unit: Option<&str>) -> bool {
    let cut = &name.as_bytes()[..name.len().min(COMM_BYTES)];
    let is_unit =
        |unit: &str| unit == name || unit.rsplit_once('.').is_some_and(|(stem, _)| stem == name);
    comm.as_bytes() == cut || unit.is_some_and(is_unit)
}

/// How a process or its listener stands. The worst comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Something has run out: the next accept fails, or the next client is refused.
    Exhausted,
    /// It will run out soon, or when clients come.
    AtRisk,
    /// Too little could be read to say.
    Unknown,
    /// Neither.
    Fine,
}

impl Verdict {
    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::AtRisk => "at_risk",
            Self::Unknown => "unknown",
            Self::Fine => "fine",
        }
    }
}

/// Everything that was found out about one process.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Which; `None` for a listener of which no process can be found.
    pub process: Option<Process>,
    /// What it listens on, the one that was asked for or is worst first.
    pub listeners: Vec<ListenerReport>,
    /// Its descriptors.
    pub fds: Option<OwnerFds>,
    /// How it stands.
    pub verdict: Verdict,
    /// Why, and what to do.
    pub diagnoses: Vec<Diagnosis>,
    /// What its descriptors are.
    pub census: Option<Census>,
    /// Where its limit comes from.
    pub provenance: Option<Provenance>,
    /// How many threads it has.
    pub threads: Option<u64>,
    /// What stands out of what they do.
    pub behaviour: Option<Behaviour>,
    /// What could not be found out, each with the reason.
    pub unknown: Vec<String>,
}

/// A process that was meant too, and was not looked at closely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bystander {
    /// Which.
    pub process: Process,
    /// Its descriptors.
    pub fds: OwnerFds,
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq)]
pub struct ExplainReport {
    /// When it was asked.
    pub at: BootTime,
    /// The worst first.
    pub explanations: Vec<Explanation>,
    /// Who else was meant, those with the fullest tables first.
    pub others: Vec<Bystander>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_client_would_end_up() {
        let inet = |ip: &str, port, dual_stack| ListenerAddress::Inet {
            ip: ip.parse().unwrap(),
            port,
            dual_stack,
        };
        let address = |ip: &str, port| ListenerQuery::Address(ip.parse().unwrap(), port);
        let local = address("127.0.0.1", 80);
        assert!(local.wants(&inet("127.0.0.1", 80, None)));
        assert!(local.wants(&inet("0.0.0.0", 80, None)));
        assert!(local.wants(&inet("::", 80, Some(true))) && local.wants(&inet("::", 80, None)));
        assert!(!local.wants(&inet("::", 80, Some(false))));
        assert!(
            !local.wants(&inet("127.0.0.2", 80, None)) && !local.wants(&inet("0.0.0.0", 81, None))
        );
        assert!(!address("::1", 80).wants(&inet("0.0.0.0", 80, None)));
        assert!(address("::1", 80).wants(&inet("::", 80, Some(false))));
        assert!(ListenerQuery::Port(80).wants(&inet("::1", 80, None)));
        let path = || UnixName::Path(b"/run/x".to_vec());
        assert!(ListenerQuery::Unix(path()).wants(&ListenerAddress::Unix(path())));
        assert!(!ListenerQuery::Unix(path()).wants(&inet("::", 80, None)));
        assert!(!local.wants(&ListenerAddress::Unix(path())));
        assert!(!ListenerQuery::Port(0).wants(&ListenerAddress::Unix(path())));
    }

    #[test]
    fn names() {
        let comm = |text: &str| Comm::from_bytes(text.as_bytes());
        let of = |name, text, unit| is_called(name, &comm(text), unit);
        assert!(of("nginx", "nginx", None) && !of("ngin", "nginx", None));
        assert!(of("dataforwardserver", "dataforwardserv", None));
        assert!(of("web", "python3", Some("web.service")));
        assert!(of("web.service", "python3", Some("web.service")));
        assert!(!of("web.socket", "python3", Some("web.service")));
        assert!(!of("we", "python3", Some("web.service")));
        // A character that the cut goes through.
        assert!(!of("aaaaaaaaaaaaaaäb", "x", None));
    }

    #[test]
    fn the_worst_comes_first() {
        let mut all = [Verdict::Fine, Verdict::Unknown, Verdict::Exhausted, Verdict::AtRisk];
        all.sort_unstable();
        assert_eq!(all.map(Verdict::name), ["exhausted", "at_risk", "unknown", "fine"]);
    }
}
