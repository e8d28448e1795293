//! What failed, and why.

use std::fmt;

/// Where it failed: a call of a process, or a segment of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Door {
    /// accept(2)
    Accept,
    /// accept4(2)
    Accept4,
    /// socket(2)
    Socket,
    /// socketpair(2)
    Socketpair,
    /// A client's SYN met a listener.
    Syn,
    /// The ACK that would have completed a handshake met a listener.
    Ack,
    /// An accept of io_uring.
    IoUringAccept,
    /// An accept of io_uring into its table of direct descriptors: a connection that finds no place
    /// there was taken from the queue already, and is lost.
    IoUringAcceptDirect,
    /// Another operation of io_uring.
    IoUring,
    /// Another system call that creates a descriptor, by name.
    Call(&'static str),
    /// One whose name is not known.
    Other,
}

impl Door {
    /// The name of the system call or the segment.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Accept4 => "accept4",
            Self::Socket => "socket",
            Self::Socketpair => "socketpair",
            Self::Syn => "syn",
            Self::Ack => "ack",
            Self::IoUringAccept => "io_uring_accept",
            Self::IoUringAcceptDirect => "io_uring_accept_direct",
            Self::IoUring => "io_uring",
            Self::Call(name) => name,
            Self::Other => "other",
        }
    }

    /// Whether the call takes connections from a listener.
    #[must_use]
    pub const fn accepts(self) -> bool {
        matches!(
            self,
            Self::Accept | Self::Accept4 | Self::IoUringAccept | Self::IoUringAcceptDirect
        )
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Failure {
    /// The call returned an errno.
    Errno(Errno),
    /// The kernel refused a connection because the accept queue was full: a listen overflow.
    AcceptQueueFull {
        /// The SYN queue was full too, and the kernel counted the SYN there as well, as answered by
        /// a cookie, before it refused it (net/ipv4/tcp_input.c tcp_conn_request, v6.18).
        syn_queue_full: bool,
    },
    /// The kernel dropped a SYN because the SYN queue was full.
    SynQueueFull,
    /// The kernel answered a SYN with a cookie because the SYN queue was full: a degradation, no
    /// loss.
    SynCookieSent,
}

impl Failure {
    /// The errno, where a call failed.
    #[must_use]
    pub const fn errno(self) -> Option<Errno> {
        match self {
            Self::Errno(errno) => Some(errno),
            Self::AcceptQueueFull { .. } | Self::SynQueueFull | Self::SynCookieSent => None,
        }
    }

    /// Whether it says that something ran out.
    #[must_use]
    pub const fn is_exhaustion(self) -> bool {
        match self {
            Self::Errno(errno) => errno.is_exhaustion(),
            Self::AcceptQueueFull { .. } | Self::SynQueueFull => true,
            Self::SynCookieSent => false,
        }
    }

    /// Whether a client was refused, not a call of the process.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        self.errno().is_none()
    }
}

/// A positive errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Errno(pub u16);

/// Numbers of include/uapi/asm-generic/errno{-base,}.h that the traced calls return. They are the
/// same on x86-64 and arm64.
const NAMES: &[(u16, &str)] = &[
    (1, "EPERM"),
    (5, "EIO"),
    (9, "EBADF"),
    (12, "ENOMEM"),
    (13, "EACCES"),
    (14, "EFAULT"),
    (16, "EBUSY"),
    (19, "ENODEV"),
    (22, "EINVAL"),
    (23, "ENFILE"),
    (24, "EMFILE"),
    (64, "ENONET"),
    (71, "EPROTO"),
    (88, "ENOTSOCK"),
    (92, "ENOPROTOOPT"),
    (93, "EPROTONOSUPPORT"),
    (94, "ESOCKTNOSUPPORT"),
    (95, "EOPNOTSUPP"),
    (97, "EAFNOSUPPORT"),
    (100, "ENETDOWN"),
    (101, "ENETUNREACH"),
    (103, "ECONNABORTED"),
    (104, "ECONNRESET"),
    (105, "ENOBUFS"),
    (107, "ENOTCONN"),
    (110, "ETIMEDOUT"),
    (112, "EHOSTDOWN"),
    (113, "EHOSTUNREACH"),
];

impl Errno {
    /// The process's limit: no file descriptor below its soft limit is free.
    pub const EMFILE: Self = Self(24);
    /// The system's limit, file-max, or a socket that could not be allocated.
    pub const ENFILE: Self = Self(23);
    /// No memory.
    pub const ENOMEM: Self = Self(12);
    /// No memory for a socket.
    pub const ENOBUFS: Self = Self(105);

    /// The symbolic name, where it is one the traced calls are known to return.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(number, _)| *number == self.0).map(|(_, name)| *name)
    }

    /// The errno with that name (any case) or decimal number.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let by_name = NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        by_name.map(|(number, _)| Self(*number)).or_else(|| {
            let number = text.parse().ok()?;
            (1..=4095).contains(&number).then_some(Self(number))
        })
    }

    /// Every name [`Self::parse`] takes.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(_, name)| *name)
    }

    /// Whether it says that something ran out.
    #[must_use]
    pub const fn is_exhaustion(self) -> bool {
        matches!(self, Self::EMFILE | Self::ENFILE | Self::ENOMEM | Self::ENOBUFS)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_parse_back() {
        for name in Errno::names() {
            let errno = Errno::parse(name).unwrap();
            assert_eq!(errno.to_string(), name);
            assert_eq!(Errno::parse(&errno.0.to_string()), Some(errno));
        }
        assert_eq!(Errno::parse("emfile"), Some(Errno::EMFILE));
        assert_eq!(Errno::parse(""), None);
        assert_eq!(Errno::parse("0"), None);
        assert_eq!(Errno::parse("4096"), None);
        assert_eq!(Errno(4000).to_string(), "errno 4000");
    }
}
