//! The function form: fentry or kprobe, where the kernel itself is about to decide.
//!
//! tcp_conn_request(request_ops, af_ops, listener, skb) decides about a SYN;
//! tcp_v4_syn_recv_sock(listener, skb, request, …) and its v6 twin about what ends a handshake.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_skc_to_tcp_sock,
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};
use fdtrace_common::{ABSENT, Door, Refusal};

use super::{Queues, client, count, fold, of_syn, syncookies};
use crate::{
    fields::{Access, Typed, Untyped, offset, read},
    kprobe,
};

/// `ETH_P_IP` in network order.
const ETH_P_IP: u16 = 0x0800_u16.to_be();

#[fentry]
fn syn_fe(ctx: FEntryContext) -> i32 {
    if let Some(listener) = typed(ctx.arg(2)) {
        syn::<Typed, _>(&ctx, listener, ctx.arg(3));
    }
    0
}

#[kprobe]
fn syn_kp(ctx: ProbeContext) -> u32 {
    let skb = kprobe::fourth(&ctx) as *const c_void;
    syn::<Untyped, _>(&ctx, kprobe::third(&ctx) as *const c_void, skb);
    0
}

#[fentry]
fn ack4_fe(ctx: FEntryContext) -> i32 {
    if let Some(listener) = typed(ctx.arg(0)) {
        ack::<Typed, _>(&ctx, listener, ctx.arg(1));
    }
    0
}

#[kprobe]
fn ack4_kp(ctx: ProbeContext) -> u32 {
    let skb = kprobe::second(&ctx) as *const c_void;
    ack::<Untyped, _>(&ctx, kprobe::first(&ctx) as *const c_void, skb);
    0
}

/// The v6 function hands what is IPv4 on to the v4 one.
#[fentry]
fn ack6_fe(ctx: FEntryContext) -> i32 {
    let skb: *const c_void = ctx.arg(1);
    if let Some(listener) = typed(ctx.arg(0))
        && protocol(skb) != ETH_P_IP
    {
        ack::<Typed, _>(&ctx, listener, skb);
    }
    0
}

#[kprobe]
fn ack6_kp(ctx: ProbeContext) -> u32 {
    let skb = kprobe::second(&ctx) as *const c_void;
    if protocol(skb) != ETH_P_IP {
        ack::<Untyped, _>(&ctx, kprobe::first(&ctx) as *const c_void, skb);
    }
    0
}

/// The listener with the type of a TCP socket.
#[inline(always)]
fn typed(sk: *mut c_void) -> Option<*const c_void> {
    // SAFETY: the helper takes a socket and returns it with its type, or null.
    let tcp: *const c_void = unsafe { bpf_skc_to_tcp_sock(sk) }.cast();
    (!tcp.is_null()).then_some(tcp)
}

#[inline(always)]
fn syn<A: Access, C: EbpfContext>(ctx: &C, sk: *const c_void, skb: *const c_void) {
    let mut queues = Queues::of::<A>(sk);
    if !queues.accept_full && !queues.syn_full {
        return;
    }
    // A SYN that reopens a connection skips the SYN queue's test.
    if queues.syn_full && reopens(skb) {
        queues.syn_full = false;
    }
    if let Some(refusal) = of_syn(queues, syncookies::<A>(sk)) {
        count::<A, _>(ctx, sk, Door::Syn, refusal, client_of(skb));
    }
}

#[inline(always)]
fn ack<A: Access, C: EbpfContext>(ctx: &C, sk: *const c_void, skb: *const c_void) {
    if Queues::of::<A>(sk).accept_full {
        count::<A, _>(ctx, sk, Door::Ack, Refusal::AcceptQueueFull, client_of(skb));
    }
}

/// Whether TIME_WAIT has chosen a sequence number for the connection, in the packet's control block.
/// From 6.10 on it was in a per-CPU variable, until the stable releases of 2026 put it back
/// ("tcp: fix stale per-CPU tcp_tw_isn leak"): there a SYN that reopens a connection while the SYN
/// queue is full is taken for one that the queue refuses.
#[inline(always)]
fn reopens(skb: *const c_void) -> bool {
    let (cb, isn) = (offset!(skb_cb), offset!(tcp_cb_tw_isn));
    cb != ABSENT && isn != ABSENT && read::<u32>(skb, cb + isn).unwrap_or(0) != 0
}

#[inline(always)]
fn protocol(skb: *const c_void) -> u16 {
    read(skb, offset!(skb_protocol)).unwrap_or(0)
}

/// The client behind a packet; 0 where its headers cannot be read.
#[inline(always)]
fn client_of(skb: *const c_void) -> u32 {
    const V4_SOURCE: u32 = 12;
    const V6_SOURCE: u32 = 8;
    let headers = || {
        let head = read::<*const c_void>(skb, offset!(skb_head))?;
        let ip: u16 = read(skb, offset!(skb_network_header))?;
        let tcp: u16 = read(skb, offset!(skb_transport_header))?;
        let address = if protocol(skb) == ETH_P_IP {
            read::<u32>(head, u32::from(ip) + V4_SOURCE)?
        } else {
            fold(read::<[u32; 4]>(head, u32::from(ip) + V6_SOURCE)?)
        };
        Ok::<_, i32>(client(address, read::<u16>(head, tcp.into())?))
    };
    headers().unwrap_or(0)
}
