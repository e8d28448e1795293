//! Fact: a listener refused a segment, because its accept queue or its SYN queue is full.
//!
//! The kernel counts that per network namespace only. The conditions are those that
//! tcp_conn_request() (net/ipv4/tcp_input.c) and tcp_v4_syn_recv_sock(), tcp_v6_syn_recv_sock() test
//! first (v6.18): `entry` sees them being called, `packet` sees the packets that will make them be
//! called. The loader shows the kernel's own counters beside ours.

mod entry;
mod packet;

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use fdtrace_common::{ABSENT, Door, FailureKey, FdKind, Peers, Refusal};

use crate::{
    count::{self, About, Context, Segment},
    fields::{Access, offset, read},
    maps::PEERS,
};

#[derive(Clone, Copy)]
pub(super) struct Queues {
    accept_full: bool,
    syn_full: bool,
}

impl Queues {
    #[inline(always)]
    fn of<A: Access>(tcp: *const c_void) -> Self {
        // SAFETY: the fields are 32 bits on every kernel (atomic_t, u32).
        let (accepted, limit, half_open): (u32, u32, u32) = unsafe {
            (
                A::get(tcp, offset!(sock_queue_length)),
                A::get(tcp, offset!(sock_queue_limit)),
                A::get(tcp, offset!(syn_queue_length)),
            )
        };
        // include/net/sock.h sk_acceptq_is_full, include/net/inet_connection_sock.h
        // inet_csk_reqsk_queue_is_full: both are full when longer than the limit.
        Self { accept_full: accepted > limit, syn_full: half_open > limit }
    }
}

/// tcp_conn_request(): the SYN queue first, then the accept queue.
#[inline(always)]
fn of_syn(queues: Queues, syncookies: u8) -> Option<Refusal> {
    match (queues.syn_full, queues.accept_full, syncookies) {
        (true, _, 0) => Some(Refusal::SynQueueFull),
        (true, true, 1) => Some(Refusal::BothQueuesFull),
        (_, true, _) => Some(Refusal::AcceptQueueFull),
        (true, false, 1) => Some(Refusal::SynCookieSent),
        // Under 2 every SYN is answered by a cookie, full or not.
        (_, false, _) => None,
    }
}

/// Counts a refusal by the listener `sk`.
#[inline(always)]
fn count<A: Access, C: EbpfContext>(
    ctx: &C,
    sk: *const c_void,
    door: Door,
    refusal: Refusal,
    client: u32,
) {
    let key = FailureKey {
        start_boottime_ns: 0,
        inode: inode::<A>(sk),
        tgid: 0,
        errno: refusal as u16,
        door: door as u8,
        fd_kind: FdKind::Socket as u8,
    };
    let about = About {
        context: Context::SoftIrq,
        place: sk,
        kind: FdKind::Socket,
        has_limit: false,
        limit: 0,
        number: 0,
    };
    if let Some(slot) = count::failure::<Segment, _>(ctx, &key, &about) {
        remember(slot, client);
    }
}

#[inline(always)]
fn syncookies<A: Access>(tcp: *const c_void) -> u8 {
    let (net, sysctl) = (offset!(sock_net), offset!(tcp_syncookies));
    if sysctl == ABSENT {
        return 1;
    }
    // SAFETY: each pointer comes from the one before. The sysctl is a byte since 5.10, an int before: its low byte
    // comes first on the machines we build for, and its values are 0 to 2.
    unsafe {
        let net: *const c_void = A::get(tcp, net);
        A::get(net, sysctl)
    }
}

/// Inode number of the listener, as its owner's /proc/PID/fd shows it.
#[inline(always)]
fn inode<A: Access>(tcp: *const c_void) -> u64 {
    let mptcp = offset!(tcp_is_mptcp);
    // SAFETY: the field is a bool.
    if mptcp != ABSENT && unsafe { A::get::<u8>(tcp, mptcp) } & 1 == 1 {
        // The subflow's own socket is the kernel's; the owner's is that of the connection.
        return mptcp_inode(tcp).unwrap_or(0);
    }
    let direct = offset!(sock_ino);
    if direct != ABSENT {
        // SAFETY: 64 bits on 64-bit machines.
        return unsafe { A::get(tcp, direct) };
    }
    // SAFETY: each pointer comes from the one before; a null one on the way gives 0.
    unsafe {
        let socket: *const c_void = A::get(tcp, offset!(sock_socket));
        let file: *const c_void = A::get(socket, offset!(socket_file));
        let inode: *const c_void = A::get(file, offset!(file_inode));
        A::get(inode, offset!(inode_ino))
    }
}

#[inline(always)]
fn mptcp_inode(tcp: *const c_void) -> Result<u64, i32> {
    let (ulp, conn) = (offset!(ulp_data), offset!(subflow_conn));
    if ulp == ABSENT || conn == ABSENT {
        return Err(0);
    }
    let subflow: *const c_void = read(tcp, ulp)?;
    let msk: *const c_void = read(subflow, conn)?;
    let socket: *const c_void = read(msk, offset!(sock_socket))?;
    let file: *const c_void = read(socket, offset!(socket_file))?;
    let inode: *const c_void = read(file, offset!(file_inode))?;
    read(inode, offset!(inode_ino))
}

/// An IPv6 address in 32 bits.
#[inline(always)]
fn fold(ip: [u32; 4]) -> u32 {
    ip[0] ^ ip[1].rotate_left(7) ^ ip[2].rotate_left(14) ^ ip[3].rotate_left(21)
}

/// A client, as 32 bits: its address and port, spread (the finaliser of MurmurHash3).
#[inline(always)]
fn client(address: u32, port: u16) -> u32 {
    let mut hash = address ^ (u32::from(port) << 16 | u32::from(port)).wrapping_mul(0x9e37_79b1);
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

/// Notes a client. Two CPUs can take each other's bit away; a client that is stuck comes again.
#[inline(always)]
fn remember(slot: u32, client: u32) {
    let Some(peers) = PEERS.get_ptr_mut(slot) else { return };
    let bit = client % Peers::BITS;
    let word = (bit / 64) as usize & (Peers::WORDS - 1);
    // SAFETY: the map's own memory, and `word` is below its length.
    unsafe { (*peers).bits[word] |= 1 << (bit % 64) };
}
