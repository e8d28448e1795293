//! What accept was called on.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// What the failed call was about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The call takes no file descriptor.
    None,
    /// A socket.
    Listener(Listener),
    /// The descriptor is open, but no socket.
    NotSocket,
    /// The descriptor is not open.
    NotOpen,
    /// Kernel memory could not be read.
    Unread,
}

impl Target {
    /// The listener, where there is one.
    #[must_use]
    pub const fn listener(&self) -> Option<&Listener> {
        match self {
            Self::Listener(listener) => Some(listener),
            Self::None | Self::NotSocket | Self::NotOpen | Self::Unread => None,
        }
    }
}

/// A socket in LISTEN, by what a client would call it. Sockets that share an address
/// (`SO_REUSEPORT`) are one listener here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Listener {
    /// Inode number of its network namespace, as in /proc/PID/ns/net.
    pub netns: Option<u32>,
    /// Where it listens.
    pub address: ListenerAddress,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenerAddress {
    /// `AF_INET` or `AF_INET6`.
    Inet {
        /// Its local address.
        ip: IpAddr,
        /// Its local port.
        port: u16,
        /// An IPv6 socket that takes IPv4 too; `None` where unknown.
        dual_stack: Option<bool>,
    },
    /// `AF_UNIX`.
    Unix(UnixName),
    /// Another family, by its `AF_*` number.
    Other(u16),
}

/// Name of an `AF_UNIX` socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnixName {
    /// A path.
    Path(Vec<u8>),
    /// An abstract name, without its leading NUL.
    Abstract(Vec<u8>),
    /// None.
    Unnamed,
    /// Could not be read.
    Unknown,
}

impl ListenerAddress {
    /// The port, where there is one.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::Inet { port, .. } => Some(*port),
            Self::Unix(_) | Self::Other(_) => None,
        }
    }
}

/// As `ss` writes it: `*:80` takes both families, `0.0.0.0:80` and `[::]:80` one.
///
/// A socket's path is lossy text here and not escaped: outputs escape.
impl fmt::Display for ListenerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet { ip: IpAddr::V6(Ipv6Addr::UNSPECIFIED), port, dual_stack: Some(true) } => {
                write!(f, "*:{port}")
            }
            Self::Inet { ip: IpAddr::V6(ip), port, .. } => write!(f, "[{ip}]:{port}"),
            Self::Inet { ip: IpAddr::V4(ip), port, .. } => write!(f, "{ip}:{port}"),
            Self::Unix(UnixName::Path(path)) => f.write_str(&String::from_utf8_lossy(path)),
            Self::Unix(UnixName::Abstract(name)) => {
                write!(f, "@{}", String::from_utf8_lossy(name))
            }
            Self::Unix(UnixName::Unnamed) => f.write_str("unix:unnamed"),
            Self::Unix(UnixName::Unknown) => f.write_str("unix:?"),
            Self::Other(family) => write!(f, "family {family}"),
        }
    }
}

/// The accept queue: connections that are established and wait for accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptQueue {
    /// How many wait.
    pub length: u32,
    /// It is full when `length` is greater (include/net/sock.h `sk_acceptq_is_full`).
    pub limit: u32,
}

impl AcceptQueue {
    /// Whether the kernel refuses the next connection.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.length > self.limit
    }
}

/// Where the limit of an accept queue comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// listen(2)'s argument, where the call was seen.
    pub requested: Option<u32>,
    /// net.core.somaxconn of the listener's network namespace, where it could be read.
    pub somaxconn: Option<u32>,
}
