//! What a process's descriptors are, at one moment.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{BootTime, ListenerAddress, Pid};

/// The descriptors of one process, by what they are.
///
/// Where looking at all of them would have taken too long, a sample was looked at and every count
/// is scaled up from it: [`is_sampled`](Self::is_sampled). Nothing here says how old a descriptor
/// is, for the kernel does not keep that; [`silence`](Self::silence) is the nearest it does keep.
#[derive(Clone, Debug, PartialEq)]
pub struct Census {
    /// Open descriptors.
    pub open: OpenFds,
    /// How many of them were looked at.
    pub looked_at: u64,
    /// How many there are of each kind, the most first.
    pub kinds: Vec<(FdKind, u64)>,
    /// Listeners that the process holds or has connections of, the most connections first.
    pub listeners: Vec<ListenerShare>,
    /// Who is at the other end, the most connections first, those of the fewest left out.
    pub peers: Vec<PeerShare>,
    /// How many different peers were seen, also those left out. Of a sample: at least so many.
    pub distinct_peers: DistinctPeers,
    /// Local ports of connections, the most first, those of the fewest left out.
    pub local_ports: Vec<(u16, u64)>,
    /// Files, or directories with many of them, the most descriptors first.
    pub paths: Vec<PathShare>,
    /// How long nothing has come from peers, by state. Empty where the kernel did not say.
    pub silence: Vec<Silence>,
    /// Connections in CLOSE_WAIT whose end the process has read: it knows that the peer has closed,
    /// and has not closed itself.
    pub end_was_read: u64,
    /// Time of one core that it took.
    pub cost: Duration,
    /// What could not be found out, each with the reason.
    pub unknown: Vec<String>,
}

#[cfg(test)]
impl Census {
    /// Of so many descriptors of which nothing is known.
    pub(crate) fn empty(open: u64) -> Self {
        Self {
            open: OpenFds::Exact(open),
            looked_at: open,
            kinds: Vec::new(),
            listeners: Vec::new(),
            peers: Vec::new(),
            distinct_peers: DistinctPeers::default(),
            local_ports: Vec::new(),
            paths: Vec::new(),
            silence: Vec::new(),
            end_was_read: 0,
            cost: Duration::ZERO,
            unknown: Vec::new(),
        }
    }
}

/// How many descriptors are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFds {
    /// Counted.
    Exact(u64),
    /// Estimated from the sample.
    About(u64),
}

impl OpenFds {
    /// The number, exact or not.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::Exact(number) | Self::About(number) => number,
        }
    }
}

/// What a descriptor is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FdKind {
    /// A TCP socket that the kernel lists, in this state.
    Tcp(TcpState),
    /// A TCP socket that is in no table of the process's network namespace: it was never connected,
    /// or its connection is over and it was not closed. (Or, seldom, it is another namespace's.)
    TcpUnlisted,
    /// A TCP socket of which nobody could say more.
    TcpUnread,
    /// A UDP socket.
    Udp,
    /// An `AF_UNIX` socket.
    Unix,
    /// A netlink socket.
    Netlink,
    /// An `AF_PACKET` socket.
    Packet,
    /// A raw socket, also one for ping.
    Raw,
    /// Another socket, by the kernel's name of its protocol.
    OtherSocket(String),
    /// A socket of which nobody could say more.
    SocketUnread,
    /// A regular file.
    File,
    /// A file without a name any more.
    DeletedFile,
    /// A directory.
    Directory,
    /// A character or block device, terminals too.
    Device,
    /// A pipe without a name.
    Pipe,
    /// A pipe with one.
    Fifo,
    /// A path of which nobody could say what it leads to.
    PathUnread,
    /// epoll(7).
    Epoll,
    /// eventfd(2).
    EventFd,
    /// timerfd_create(2).
    TimerFd,
    /// signalfd(2).
    SignalFd,
    /// inotify(7).
    Inotify,
    /// fanotify(7).
    Fanotify,
    /// io_uring(7).
    IoUring,
    /// memfd_create(2).
    Memfd,
    /// pidfd_open(2).
    PidFd,
    /// A namespace.
    Namespace,
    /// Something else, by the kernel's name of it.
    Other(String),
}

impl FdKind {
    /// By the name of a file that is no file, as given to anon_inode_getfile() and its like:
    /// `[eventpoll]`, or without the brackets.
    #[must_use]
    pub fn of_anonymous(name: &str) -> Self {
        match name.trim_start_matches('[').trim_end_matches(']') {
            "eventpoll" => Self::Epoll,
            "eventfd" => Self::EventFd,
            "timerfd" => Self::TimerFd,
            "signalfd" => Self::SignalFd,
            "inotify" => Self::Inotify,
            "fanotify" => Self::Fanotify,
            "io_uring" => Self::IoUring,
            "pidfd" => Self::PidFd,
            // kvm-vcpu:7, and whatever else is numbered.
            other => Self::Other(other.split(':').next().unwrap_or(other).to_owned()),
        }
    }
}

/// A descriptor that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenDescriptor {
    /// Its number.
    pub number: u32,
    /// The inode of its file.
    pub inode: u64,
    /// What it is.
    pub what: OpenKind,
}

/// What an open descriptor is, as far as the kernel side tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenKind {
    /// A TCP socket that is connected or listens, or was.
    Tcp {
        /// Its state.
        state: TcpState,
        /// IPv4 addresses are IPv4 here, also those of dual-stack sockets.
        local: SocketAddr,
        /// The other end.
        peer: SocketAddr,
        /// What has come and was not read: bytes, and one more for the end of the connection.
        unread: u32,
    },
    /// Something with a path.
    Path(FdKind),
    /// Anything else.
    Other(FdKind),
    /// A socket of another protocol.
    Socket,
}

/// What tells what a process has open, faster than `/proc`.
pub trait DescriptorSource: Send + Sync {
    /// Gives every `every`-th open descriptor of a process, 1 being all, until `take` says no. Says
    /// whether it was all. A process that is gone has none.
    fn read(
        &self,
        pid: Pid,
        every: u32,
        take: &mut dyn FnMut(OpenDescriptor) -> bool,
    ) -> io::Result<bool>;
}

/// The states of a TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "RFC 9293 and include/net/tcp_states.h name and number them")]
pub enum TcpState {
    Established = 1,
    SynSent,
    SynRecv,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
}

impl TcpState {
    /// Every state.
    pub const ALL: [Self; 11] = [
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait1,
        Self::FinWait2,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::Closing,
    ];

    /// From the kernel's number.
    #[must_use]
    pub fn from_kernel(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u8 == number)
    }

    /// The kernel's and netstat's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait1 => "FIN_WAIT1",
            Self::FinWait2 => "FIN_WAIT2",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
        }
    }
}

/// Its stable name: `tcp_close_wait`, `pipe`, `socket_sctp`, …. Only the kernel chooses what is
/// in it, but modules are the kernel too: outputs escape.
impl fmt::Display for FdKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Tcp(state) => return write!(f, "tcp_{}", state.name().to_ascii_lowercase()),
            Self::OtherSocket(protocol) => {
                return write!(f, "socket_{}", protocol.to_ascii_lowercase());
            }
            Self::Other(name) => return write!(f, "other_{name}"),
            Self::TcpUnlisted => "tcp_unlisted",
            Self::TcpUnread => "tcp_unread",
            Self::Udp => "udp",
            Self::Unix => "unix",
            Self::Netlink => "netlink",
            Self::Packet => "packet",
            Self::Raw => "raw",
            Self::SocketUnread => "socket_unread",
            Self::File => "file",
            Self::DeletedFile => "deleted_file",
            Self::Directory => "directory",
            Self::Device => "device",
            Self::Pipe => "pipe",
            Self::Fifo => "fifo",
            Self::PathUnread => "path_unread",
            Self::Epoll => "epoll",
            Self::EventFd => "eventfd",
            Self::TimerFd => "timerfd",
            Self::SignalFd => "signalfd",
            Self::Inotify => "inotify",
            Self::Fanotify => "fanotify",
            Self::IoUring => "io_uring",
            Self::Memfd => "memfd",
            Self::PidFd => "pidfd",
            Self::Namespace => "namespace",
        };
        f.write_str(name)
    }
}

/// A listener and what the process has of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerShare {
    /// Where it listens.
    pub address: ListenerAddress,
    /// Whether the process has the listener itself open: a worker that is handed its connections
    /// has not.
    pub is_held: bool,
    /// Connections that came in by it, in any state.
    pub connections: u64,
    /// Those of them that are ESTABLISHED.
    pub established: u64,
    /// Those of them that are in CLOSE_WAIT.
    pub close_wait: u64,
}

/// One peer and what the process has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerShare {
    /// Which.
    pub peer: Peer,
    /// Connections in any state.
    pub connections: u64,
    /// Those of them that are ESTABLISHED.
    pub established: u64,
    /// Those of them that are in CLOSE_WAIT.
    pub close_wait: u64,
}

/// The other end of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// A client: it came in by a listener.
    Client(IpAddr),
    /// A server that this process, or who handed it the connection, went to.
    Server(SocketAddr),
}

/// An address, and of a server its port.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(address) => write!(f, "{address}"),
            Self::Server(address) => write!(f, "{address}"),
        }
    }
}

/// How many peers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DistinctPeers {
    /// Addresses of clients.
    pub clients: u64,
    /// Addresses and ports of servers.
    pub servers: u64,
}

/// A path, and how many descriptors lead to it or into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathShare {
    /// A file, or a directory.
    pub path: PathBuf,
    /// Descriptors.
    pub fds: u64,
    /// `None` where the path is what is open; else it is a directory, and so many different files
    /// in it are open. Of a sample: at least so many.
    pub files: Option<u64>,
}

/// How long the peers of connections have sent nothing, not even an acknowledgement.
///
/// A connection in CLOSE_WAIT has been there at least as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Of connections in this state.
    pub state: TcpState,
    /// Half of them have been silent for longer.
    pub median: Duration,
    /// And one for so long.
    pub longest: Duration,
}

/// How many descriptors a process had at some earlier moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdSample {
    /// That moment.
    pub at: BootTime,
    /// Open descriptors.
    pub open: u64,
}

/// What a process had open at some earlier moment.
#[derive(Clone, Debug, PartialEq)]
pub struct EarlierCensus {
    /// That moment.
    pub at: BootTime,
    /// What there was.
    pub census: Census,
}

impl FdKind {
    /// Whether it may be a connection, of whatever protocol.
    #[must_use]
    pub const fn may_be_connection(&self) -> bool {
        match self {
            Self::Tcp(state) => !matches!(state, TcpState::Listen),
            Self::Udp
            | Self::Unix
            | Self::OtherSocket(_)
            | Self::TcpUnread
            | Self::SocketUnread => true,
            _ => false,
        }
    }
}

impl Census {
    /// Whether not all descriptors were looked at.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.looked_at < self.open.number()
    }

    /// How many there are of the kinds that `is` wants.
    pub fn count(&self, is: impl Fn(&FdKind) -> bool) -> u64 {
        self.kinds.iter().filter(|(kind, _)| is(kind)).map(|(_, count)| count).sum()
    }

    /// How many TCP sockets are in a state.
    #[must_use]
    pub fn tcp(&self, state: TcpState) -> u64 {
        self.count(|kind| *kind == FdKind::Tcp(state))
    }

    /// Which part `count` is of all descriptors, 0 to 1.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "no process has 2^53 descriptors")]
    pub fn share(&self, count: u64) -> f64 {
        if count == 0 { 0.0 } else { count as f64 / self.open.number().max(1) as f64 }
    }

    /// How long connections in a state have been silent.
    #[must_use]
    pub fn silence_of(&self, state: TcpState) -> Option<Silence> {
        self.silence.iter().copied().find(|silence| silence.state == state)
    }
}
