//! Which socket, and how full its accept queue is.

use core::ffi::c_void;

use fdtrace_common::{ABSENT, FdKind, ListenerFacts, SUN_PATH_LEN, valid};

use crate::{
    fields::{offset, read},
    task::Task,
};

pub(crate) const S_IFMT: u16 = 0o170_000;
pub(crate) const S_IFSOCK: u16 = 0o140_000;

const AF_UNIX: u16 = 1;
pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;
const IPPROTO_MPTCP: u16 = 262;

/// The file accept was called on, as far as every failure needs it: enough to tell two apart.
#[derive(Clone, Copy)]
pub(crate) struct ListenerFile {
    pub(crate) file: *const c_void,
    pub(crate) kind: FdKind,
    pub(crate) inode: u64,
}

impl ListenerFile {
    pub(crate) const NONE: Self = Self { file: core::ptr::null(), kind: FdKind::None, inode: 0 };
    pub(crate) const UNREAD: Self = Self { kind: FdKind::Unread, ..Self::NONE };

    /// The file behind the descriptor that the system call was given first.
    #[inline(always)]
    pub(crate) fn of_first_argument(task: Task) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the argument is an int")]
        let fd = task.first_argument() as u32;
        Self::of_fd(task, fd)
    }

    #[inline(always)]
    pub(crate) fn of_fd(task: Task, fd: u32) -> Self {
        match task.file(fd) {
            Ok(file) if file.is_null() => Self { kind: FdKind::NotOpen, ..Self::NONE },
            Ok(file) => Self::of_file(file),
            Err(_) => Self::UNREAD,
        }
    }

    #[inline(always)]
    pub(crate) fn of_file(file: *const c_void) -> Self {
        let unread = Self::UNREAD;
        let Ok(inode) = read::<*const c_void>(file, offset!(file_inode)) else { return unread };
        let Ok(mode) = read::<u16>(inode, offset!(inode_mode)) else { return unread };
        let Ok(number) = read::<u64>(inode, offset!(inode_ino)) else { return unread };
        let kind = if mode & S_IFMT == S_IFSOCK { FdKind::Socket } else { FdKind::NotSocket };
        Self { file, kind, inode: number }
    }
}

/// Fills what is known of the socket behind a file; returns which fields are, as bits of [`valid`].
#[inline(always)]
pub(crate) fn describe_file(
    file: *const c_void,
    kind: FdKind,
    facts: &mut ListenerFacts,
) -> Result<u32, i32> {
    if kind as u8 != FdKind::Socket as u8 {
        return Ok(0);
    }
    let socket = read::<*const c_void>(file, offset!(file_private_data))?;
    describe(read(socket, offset!(socket_sk))?, facts)
}

/// Fills what is known of a socket; returns which fields are, as bits of [`valid`].
#[inline(always)]
pub(crate) fn describe(sk: *const c_void, facts: &mut ListenerFacts) -> Result<u32, i32> {
    facts.family = read(sk, offset!(sock_family))?;
    facts.state = read(sk, offset!(sock_state))?;
    facts.protocol = read(sk, offset!(sock_protocol))?;
    let net = read::<*const c_void>(sk, offset!(sock_net))?;
    facts.netns = read(net, offset!(net_inum))?;
    let mut known = valid::NETNS;
    if facts.family == AF_INET || facts.family == AF_INET6 {
        known |= inet_address(sk, facts)?;
        known |= queue(listening_sock(sk, facts.protocol)?, facts)?;
    } else if facts.family == AF_UNIX {
        known |= unix_path(sk, facts)?;
        // AF_UNIX queues connections as buffers of the listener (net/unix/af_unix.c
        // unix_recvq_full_lockless, v6.18); sk_ack_backlog stays 0.
        let length = offset!(sock_receive_queue_length);
        if length != ABSENT {
            facts.queue_length = read(sk, length)?;
            facts.queue_limit = read(sk, offset!(sock_queue_limit))?;
            known |= valid::QUEUE;
        }
    }
    Ok(known)
}

#[inline(always)]
fn inet_address(sk: *const c_void, facts: &mut ListenerFacts) -> Result<u32, i32> {
    facts.port = read(sk, offset!(sock_port))?;
    if facts.family == AF_INET {
        let address: [u8; 4] = read(sk, offset!(sock_v4_address))?;
        facts.address[0] = address[0];
        facts.address[1] = address[1];
        facts.address[2] = address[2];
        facts.address[3] = address[3];
        return Ok(valid::ADDRESS);
    }
    let v6 = offset!(sock_v6_address);
    if v6 == ABSENT {
        return Ok(0);
    }
    facts.address = read(sk, v6)?;
    let (byte, bit) = (offset!(sock_ipv6only), offset!(sock_ipv6only_bit));
    if byte == ABSENT || bit == ABSENT {
        return Ok(valid::ADDRESS);
    }
    facts.v6only = read::<u8>(sk, byte)? >> (bit & 7) & 1;
    Ok(valid::ADDRESS | valid::V6ONLY)
}

/// An MPTCP socket listens through its first subflow (net/mptcp/protocol.c mptcp_listen).
#[inline(always)]
fn listening_sock(sk: *const c_void, protocol: u16) -> Result<*const c_void, i32> {
    let first = offset!(mptcp_first);
    if protocol != IPPROTO_MPTCP || first == ABSENT {
        return Ok(sk);
    }
    read(sk, first)
}

#[inline(always)]
fn queue(sk: *const c_void, facts: &mut ListenerFacts) -> Result<u32, i32> {
    if sk.is_null() {
        return Ok(0);
    }
    facts.queue_length = read(sk, offset!(sock_queue_length))?;
    facts.queue_limit = read(sk, offset!(sock_queue_limit))?;
    Ok(valid::QUEUE)
}

#[inline(always)]
fn unix_path(sk: *const c_void, facts: &mut ListenerFacts) -> Result<u32, i32> {
    let (addr, len, name) =
        (offset!(unix_addr), offset!(unix_address_len), offset!(unix_address_name));
    if addr == ABSENT || len == ABSENT || name == ABSENT {
        return Ok(0);
    }
    let address = read::<*const c_void>(sk, addr)?;
    if address.is_null() {
        // Not bound: it has no path, and that is known.
        return Ok(valid::PATH);
    }
    let bytes: u32 = read(address, len)?;
    // `len` counts sun_family too. The allocation is as long as the name (af_unix.c
    // unix_create_addr), so only that much of `path` is the name; the rest is cut off in user
    // space by `path_len`.
    #[expect(clippy::cast_possible_truncation, reason = "108, and no more than that")]
    let path_len = bytes.saturating_sub(2).min(SUN_PATH_LEN as u32);
    #[expect(clippy::cast_possible_truncation, reason = "at most 108")]
    {
        facts.path_len = path_len as u16;
    }
    // SAFETY: the destination is `path`, whose length bounds `path_len`.
    let result = unsafe {
        aya_ebpf::helpers::generated::bpf_probe_read_kernel(
            facts.path.as_mut_ptr().cast(),
            path_len & 127,
            address.wrapping_byte_add(name as usize + 2).cast(),
        )
    };
    if result < 0 {
        #[expect(clippy::cast_possible_truncation, reason = "an errno")]
        return Err(result as i32);
    }
    Ok(valid::PATH)
}
