//! The packet form: a cgroup_skb program, which sees each packet just before TCP handles it, with the
//! listener that will.
//!
//! It looks up whose the packet is and holds it against what tcp_check_req() and cookie_v4_check()
//! test before they come to the queue. On two CPUs at once a queue can change between our look and
//! the kernel's.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        __sk_buff, bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1 as Tuples,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as TupleV4,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as TupleV6,
    },
    helpers::generated::{
        bpf_sk_release, bpf_skc_lookup_tcp, bpf_skc_to_tcp_request_sock, bpf_skc_to_tcp_sock,
    },
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use fdtrace_common::{ABSENT, Door, Refusal};

use super::{Queues, client, count, fold, of_syn, syncookies};
use crate::{
    fields::{Typed, load, offset, read},
    maps::PACKETS,
};

const PASS: i32 = 1;

const TCP_LISTEN: u32 = 10;
const TCP_TIME_WAIT: u32 = 6;
const TCP_NEW_SYN_RECV: u32 = 12;

const IPPROTO_TCP: u8 = 6;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

#[cgroup_skb(ingress)]
fn refused_cg(ctx: SkBuffContext) -> i32 {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the context; the verifier knows its fields.
    let sk = unsafe { (*skb).__bindgen_anon_2.sk };
    // Packets to anything but a listener leave here.
    // SAFETY: checked for null first.
    if sk.is_null() || unsafe { (*sk).state } != TCP_LISTEN {
        return PASS;
    }
    // SAFETY: the helper takes a socket and returns it with its type, or null.
    let tcp: *const c_void = unsafe { bpf_skc_to_tcp_sock(sk.cast()) }.cast();
    if tcp.is_null() {
        return PASS;
    }
    let queues = Queues::of::<Typed>(tcp);
    if queues.accept_full || queues.syn_full {
        // SAFETY: `skb` is the context.
        refused(&ctx, unsafe { &*skb }.len, tcp, queues);
    }
    PASS
}

/// What a packet's headers say, and whose it is.
#[derive(Clone, Copy)]
struct Segment {
    flags: u8,
    sequence: u32,
    acknowledged: u32,
    /// Bytes of data, and one for a FIN.
    length: u32,
    /// Hash of the client's address and port.
    client: u32,
    /// The socket that TCP will find for it; listeners are found too.
    owner: Owner,
}

/// The socket that the addresses and ports of a segment belong to.
#[derive(Clone, Copy)]
struct Owner {
    state: u32,
    request: Request,
}

/// Of a request, what its final ACK is held against.
#[derive(Clone, Copy)]
struct Request {
    /// Whether it could be read: MPTCP's requests have a type of their own.
    is_known: bool,
    /// The number our SYN-ACK had.
    snt_isn: u32,
    /// The number we wait for.
    rcv_nxt: u32,
    window: u32,
    /// How often the SYN-ACK was sent again.
    timeouts: u8,
}

impl Request {
    const NONE: Self = Self { is_known: false, snt_isn: 0, rcv_nxt: 0, window: 0, timeouts: 0 };

    /// Reads a request; what cannot be read is 0.
    #[inline(always)]
    fn of(sk: *mut bpf_sock) -> Self {
        let (byte, bit) = (offset!(request_timeouts), offset!(request_timeouts_bit));
        // SAFETY: the helper returns the request with its type, or null.
        let request: *const c_void = unsafe { bpf_skc_to_tcp_request_sock(sk.cast()) }.cast();
        if request.is_null() || byte == ABSENT || bit == ABSENT {
            return Self::NONE;
        }
        let field = |offset| read::<u32>(request, offset).unwrap_or(0);
        Self {
            is_known: true,
            snt_isn: field(offset!(request_snt_isn)),
            rcv_nxt: field(offset!(request_rcv_nxt)),
            window: field(offset!(request_window)),
            timeouts: read::<u8>(request, byte).unwrap_or(0) >> (bit & 7),
        }
    }

    /// Whether tcp_check_req() takes the segment as the end of the handshake. (Its test for old
    /// timestamps, PAWS, is left out: a segment that fails it is counted here and not there.)
    #[inline(always)]
    fn takes(self, segment: Segment) -> bool {
        // tcp_in_window(); the window is cut as in tcp_synack_window().
        let end = segment.sequence.wrapping_add(segment.length);
        let window_end = self.rcv_nxt.wrapping_add(self.window.min(0xffff));
        let in_window = segment.sequence == self.rcv_nxt
            || (is_before(self.rcv_nxt, end) && is_before(segment.sequence, window_end))
            || (segment.sequence == window_end && segment.length == 0);
        !self.is_known || (in_window && segment.acknowledged == self.snt_isn.wrapping_add(1))
    }
}

/// before() of include/net/tcp.h: sequence numbers wrap.
#[inline(always)]
const fn is_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) >> 31 == 1
}

#[inline(always)]
fn refused(ctx: &SkBuffContext, length: u32, tcp: *const c_void, queues: Queues) {
    let Some(segment) = Segment::parse(ctx, length) else { return };
    let syncookies = syncookies::<Typed>(tcp);
    let is_syn = segment.flags & (SYN | ACK | RST | FIN) == SYN;
    let is_ack = segment.flags & (SYN | ACK | RST) == ACK;
    let refusal = if is_syn && is_wanted(0) {
        match segment.owner.state {
            // A SYN sent again for a request that exists: answered again.
            TCP_NEW_SYN_RECV => None,
            // A SYN that reopens a connection skips the SYN queue's test (tcp_tw_isn).
            TCP_TIME_WAIT => queues.accept_full.then_some(Refusal::AcceptQueueFull),
            _ => of_syn(queues, syncookies),
        }
        .map(|refusal| (Door::Syn, refusal))
    } else if is_ack && queues.accept_full && is_wanted(1) {
        of_ack(segment, tcp, syncookies).then_some((Door::Ack, Refusal::AcceptQueueFull))
    } else {
        None
    };
    if let Some((door, refusal)) = refusal {
        count::<Typed, _>(ctx, tcp, door, refusal, segment.client);
    }
}

/// Whether SYNs (0) or final ACKs (1) are counted here.
#[inline(always)]
fn is_wanted(kind: u32) -> bool {
    PACKETS.get(kind).is_some_and(|wanted| *wanted != 0)
}

/// tcp_check_req() or cookie_v4_check(), then syn_recv_sock().
#[inline(always)]
fn of_ack(segment: Segment, tcp: *const c_void, syncookies: u8) -> bool {
    let Owner { state, request } = segment.owner;
    match state {
        TCP_NEW_SYN_RECV => {
            // TCP_DEFER_ACCEPT: a bare ACK is dropped on purpose until data comes, or until the
            // SYN-ACK was sent again often enough. Nothing is lost.
            let defer = offset!(defer_accept);
            // SAFETY: `tcp` is typed and the field is a byte.
            let deferred: u8 = if defer == ABSENT { 0 } else { unsafe { load(tcp, defer) } };
            let is_deferred = segment.length == 0 && request.timeouts < deferred;
            request.takes(segment) && !is_deferred
        }
        // No request: a cookie comes back, if this listener has sent any.
        TCP_LISTEN => syncookies != 0 && has_sent_cookies(tcp),
        _ => false,
    }
}

/// tcp_synq_no_recent_overflow() (include/net/tcp.h), but for how long ago it was: a stray ACK to
/// a full listener that once sent cookies is counted here, and refused for its cookie there.
#[inline(always)]
fn has_sent_cookies(tcp: *const c_void) -> bool {
    let (group, stamp) = (offset!(sock_reuseport), offset!(group_cookie_stamp));
    if group != ABSENT && stamp != ABSENT {
        // SAFETY: each pointer is typed, and the field is 32 bits.
        unsafe {
            let group: *const c_void = load(tcp, group);
            if !group.is_null() {
                return load::<u32>(group, stamp) != 0;
            }
        }
    }
    let stamp = offset!(cookie_stamp);
    // SAFETY: the same.
    stamp != ABSENT && unsafe { load::<u32>(tcp, stamp) } != 0
}

impl Segment {
    #[inline(always)]
    fn parse(ctx: &SkBuffContext, length: u32) -> Option<Self> {
        let first: u8 = ctx.load(0).ok()?;
        if first >> 4 == 4 { Self::parse_v4(ctx, length) } else { Self::parse_v6(ctx, length) }
    }

    #[inline(always)]
    fn parse_v4(ctx: &SkBuffContext, length: u32) -> Option<Self> {
        let ip: [u32; 5] = ctx.load(0).ok()?;
        #[expect(clippy::cast_possible_truncation, reason = "the byte that is meant")]
        let (version_ihl, protocol) =
            (u32::from_be(ip[0]) >> 24, (u32::from_be(ip[2]) >> 16) as u8);
        if protocol != IPPROTO_TCP {
            return None;
        }
        let header = (version_ihl & 15) * 4;
        let tcp: TcpHeader = ctx.load(header as usize).ok()?;
        let (saddr, daddr) = (ip[3], ip[4]);
        let (sport, dport) = (tcp.source, tcp.destination);
        let ipv4 = TupleV4 { saddr, daddr, sport, dport };
        let owner = Owner::of(ctx, Tuples { ipv4 }, 12);
        Some(tcp.segment(length, header, client(ip[3], tcp.source), owner))
    }

    #[inline(always)]
    fn parse_v6(ctx: &SkBuffContext, length: u32) -> Option<Self> {
        const HEADER: u32 = 40;
        let ip: [u32; 10] = ctx.load(0).ok()?;
        // Extension headers before TCP are not looked through: such a segment is not attributed.
        if (u32::from_be(ip[1]) >> 8) & 255 != u32::from(IPPROTO_TCP) {
            return None;
        }
        let tcp: TcpHeader = ctx.load(HEADER as usize).ok()?;
        let saddr = [ip[2], ip[3], ip[4], ip[5]];
        let daddr = [ip[6], ip[7], ip[8], ip[9]];
        let (sport, dport) = (tcp.source, tcp.destination);
        let ipv6 = TupleV6 { saddr, daddr, sport, dport };
        let owner = Owner::of(ctx, Tuples { ipv6 }, 36);
        let client = client(fold(saddr), tcp.source);
        Some(tcp.segment(length, HEADER, client, owner))
    }
}

/// The first 14 bytes of a TCP header, as 16-bit words in network order.
#[derive(Clone, Copy)]
#[repr(C)]
struct TcpHeader {
    source: u16,
    destination: u16,
    sequence: [u16; 2],
    acknowledged: [u16; 2],
    offset_flags: u16,
}

impl TcpHeader {
    /// `length` is that of the packet, `ip` that of the headers before this one.
    #[inline(always)]
    fn segment(self, length: u32, ip: u32, client: u32, owner: Owner) -> Segment {
        let number = |words: [u16; 2]| {
            u32::from(u16::from_be(words[0])) << 16 | u32::from(u16::from_be(words[1]))
        };
        let offset_flags = u16::from_be(self.offset_flags);
        #[expect(clippy::cast_possible_truncation, reason = "the low byte")]
        let flags = offset_flags as u8;
        let header = u32::from(offset_flags >> 12) * 4;
        Segment {
            flags,
            sequence: number(self.sequence),
            acknowledged: number(self.acknowledged),
            length: length.saturating_sub(ip + header) + u32::from(flags & FIN),
            client,
            owner,
        }
    }
}

impl Owner {
    /// Looks it up as TCP will.
    #[inline(always)]
    fn of(ctx: &SkBuffContext, tuple: Tuples, size: u32) -> Self {
        const CURRENT_NETNS: u64 = u64::MAX;
        let mut tuple = bpf_sock_tuple { __bindgen_anon_1: tuple };
        // SAFETY: the tuple is valid for `size` bytes; what is found is released below.
        unsafe {
            let sk = bpf_skc_lookup_tcp(ctx.as_ptr(), &raw mut tuple, size, CURRENT_NETNS, 0);
            if sk.is_null() {
                return Self { state: 0, request: Request::NONE };
            }
            let state = (*sk).state;
            let request = if state == TCP_NEW_SYN_RECV { Request::of(sk) } else { Request::NONE };
            bpf_sk_release(sk.cast());
            Self { state, request }
        }
    }
}
