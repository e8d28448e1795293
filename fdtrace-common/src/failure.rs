//! A failed call that should have returned a file descriptor, or a refused segment of a client.

/// `TASK_COMM_LEN`, include/linux/sched.h.
pub const COMM_LEN: usize = 16;

/// `sizeof(sockaddr_un.sun_path)`, include/uapi/linux/un.h.
pub const SUN_PATH_LEN: usize = 108;

/// [`FailureRecord::kind`] of a failure that is whole; 0 in an array element nobody filled.
pub const RECORD_FAILURE: u32 = 1;
/// [`FailureRecord::kind`] of a listen(2) that succeeded: `key.errno` is 0, `number` its argument.
pub const RECORD_LISTEN: u32 = 2;
/// [`FailureRecord::kind`] of an accept that succeeded, of a process that comes close to its soft
/// limit: `key.errno` is 0, `number` the descriptor it returned. All below that one are in use.
pub const RECORD_GAUGE: u32 = 3;

/// Where it failed: a call of a process, or a segment of a client.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// accept(2)
    Accept = 1,
    /// accept4(2)
    Accept4 = 2,
    /// socket(2)
    Socket = 3,
    /// socketpair(2)
    Socketpair = 4,
    /// listen(2), which did not fail.
    Listen = 5,
    /// A SYN that met a listener. No process is current.
    Syn = 6,
    /// The ACK that would have completed a handshake. No process is current.
    Ack = 7,
    /// An accept of io_uring.
    IoUringAccept = 8,
    /// An accept of io_uring into its table of direct descriptors.
    IoUringAcceptDirect = 9,
    /// Another operation of io_uring.
    IoUring = 10,
    /// A call that is not in [`FD_CALLS`](crate::FD_CALLS). Those that are have numbers from
    /// [`FdCall::FIRST_DOOR`](crate::FdCall::FIRST_DOOR) on.
    Other = 11,
}

/// In the place of an errno: what it does not tell, as why a segment was refused. Above every errno
/// (`MAX_ERRNO` is 4095).
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The accept queue was full.
    AcceptQueueFull = 0x8001,
    /// The SYN queue was full, and the kernel sends no cookies.
    SynQueueFull = 0x8002,
    /// The SYN queue was full; answered by a cookie, so nothing was lost.
    SynCookieSent = 0x8003,
    /// Both queues were full: the kernel counts a cookie, then refuses for the accept queue.
    BothQueuesFull = 0x8004,
    /// EMFILE, and the limit is that of the user's inotify instances.
    InotifyInstances = 0x8005,
    /// ENFILE, and the limit is that of the user's pipe pages.
    PipePages = 0x8006,
    /// ENFILE, and what is full is the table of direct descriptors of an io_uring.
    IoUringTable = 0x8007,
}

/// What the file descriptor given to accept is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdKind {
    /// The call takes no file descriptor.
    None = 0,
    /// A socket; [`ListenerFacts`] describes it.
    Socket = 1,
    /// A file that is no socket.
    NotSocket = 2,
    /// No open file.
    NotOpen = 3,
    /// Kernel memory could not be read.
    Unread = 4,
}

/// Bits of [`FailureRecord::valid`]: which fields the kernel gave. A clear bit is "unknown".
pub mod valid {
    /// `soft_limit` and `hard_limit`.
    pub const LIMITS: u32 = 1;
    /// `queue_length` and `queue_limit`.
    pub const QUEUE: u32 = 1 << 1;
    /// `netns`.
    pub const NETNS: u32 = 1 << 2;
    /// `address` and `port`.
    pub const ADDRESS: u32 = 1 << 3;
    /// `path` and `path_len`.
    pub const PATH: u32 = 1 << 4;
    /// `v6only`.
    pub const V6ONLY: u32 = 1 << 5;
    /// `limit`.
    pub const LIMIT: u32 = 1 << 6;
}

/// What failures are counted by. Two failures with the same key are one line of the totals.
///
/// `inode` stands for the listener: sockfs numbers inodes with get_next_ino() (net/socket.c
/// sock_alloc, fs/inode.c, v6.18), so a number comes back only after 2^32 allocations on the host.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FailureKey {
    /// `start_boottime` of the thread group leader, in ns: tells a reused pid apart.
    pub start_boottime_ns: u64,
    /// Inode number of the file accept was called on; 0 where there is none.
    pub inode: u64,
    /// Thread group id, the pid of user space, in the initial pid namespace; 0 where no process is
    /// current.
    pub tgid: u32,
    /// Positive errno, or a [`Refusal`].
    pub errno: u16,
    /// A [`Door`], or that of an [`FdCall`](crate::FdCall).
    pub door: u8,
    /// A [`FdKind`].
    pub fd_kind: u8,
}

/// One CPU's part of a key's count. Only that CPU writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureCell {
    /// Failures.
    pub count: u64,
    /// `CLOCK_BOOTTIME` of the last one, in ns.
    pub last_ns: u64,
    /// The same of this CPU's last record; 0 before the first.
    pub recorded_ns: u64,
}

/// What was read from the socket accept was called on.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerFacts {
    /// Local address: 4 bytes for `AF_INET`, 16 for `AF_INET6`, in network order.
    pub address: [u8; 16],
    /// Inode number of the network namespace, as in /proc/PID/ns/net.
    pub netns: u32,
    /// Accept queue: connections waiting for accept.
    pub queue_length: u32,
    /// Accept queue: full when `queue_length` is greater.
    pub queue_limit: u32,
    /// `AF_*`.
    pub family: u16,
    /// Local port, host order.
    pub port: u16,
    /// `IPPROTO_*`.
    pub protocol: u16,
    /// Bytes used of `path`; an abstract name starts with a NUL byte.
    pub path_len: u16,
    /// `TCP_*` state (AF_UNIX uses the same numbers): 10 is LISTEN.
    pub state: u8,
    /// 1 where an `AF_INET6` socket refuses IPv4.
    pub v6only: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// `sun_path` of an `AF_UNIX` socket.
    pub path: [u8; SUN_PATH_LEN],
}

/// One failure, with everything that is only known at that moment.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureRecord {
    /// Of which the failure is one.
    pub key: FailureKey,
    /// `CLOCK_BOOTTIME` in ns.
    pub boot_ns: u64,
    /// RLIMIT_NOFILE soft limit; `u64::MAX` is infinity.
    pub soft_limit: u64,
    /// RLIMIT_NOFILE hard limit; `u64::MAX` is infinity.
    pub hard_limit: u64,
    /// cgroup v2 id of the task.
    pub cgroup_id: u64,
    /// The limit the call met, where it can be another than the soft limit of now.
    pub limit: u64,
    /// `RECORD_*`, or 0: not filled.
    pub kind: u32,
    /// Where the key is counted.
    pub slot: u32,
    /// Thread id, the kernel's pid.
    pub tid: u32,
    /// Bits of [`valid`].
    pub valid: u32,
    /// Name of the thread group leader, NUL-terminated.
    pub comm: [u8; COMM_LEN],
    /// The socket.
    pub listener: ListenerFacts,
    /// Of [`RECORD_LISTEN`] and [`RECORD_GAUGE`]; 0 in other records.
    pub number: u32,
}

impl FailureRecord {
    /// Size on the wire in bytes.
    pub const SIZE: usize = core::mem::size_of::<Self>();
}

/// Which clients a listener refused: a bit for each hash of address and port. Many clients can be
/// told apart by how many bits are still clear, without a list of them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Peers {
    /// Bits.
    pub bits: [u64; Self::WORDS],
}

impl Peers {
    /// Words of 64 bits: 4096 bits tell up to about 20 000 clients apart.
    pub const WORDS: usize = 64;
    /// Bits.
    pub const BITS: u32 = 64 * 64;
}
