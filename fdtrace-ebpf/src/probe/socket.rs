//! Fact: socket(2) or socketpair(2) failed.
//!
//! They end in `__sys_socket(family, type, protocol)` and `__sys_socketpair(family, type, protocol,
//! fds)` (net/socket.c, v6.18).

use aya_ebpf::{
    EbpfContext,
    macros::{fexit, kretprobe, tracepoint},
    programs::{FExitContext, RetProbeContext, TracePointContext},
};
use fdtrace_common::Door;

use super::call::{Call, failed_errno, sys_exit_door, sys_exit_ret};
use crate::{count::Context, kprobe, task::Task};

/// On the exit of both calls: one program is verified once.
#[tracepoint]
fn socket_exit_tp(ctx: TracePointContext) -> u32 {
    returned(&ctx, Context::Task, sys_exit_door(&ctx), sys_exit_ret(&ctx));
    0
}

#[fexit]
fn socket_fx(ctx: FExitContext) -> i32 {
    returned(&ctx, Context::SocketExit, Door::Socket as u8, ctx.arg::<i32>(3).into());
    0
}

#[fexit]
fn pair_fx(ctx: FExitContext) -> i32 {
    returned(&ctx, Context::PairExit, Door::Socketpair as u8, ctx.arg::<i32>(4).into());
    0
}

#[kretprobe]
fn socket_kr(ctx: RetProbeContext) -> u32 {
    returned(&ctx, Context::Task, Door::Socket as u8, kprobe::int_result(&ctx).into());
    0
}

#[kretprobe]
fn pair_kr(ctx: RetProbeContext) -> u32 {
    returned(&ctx, Context::Task, Door::Socketpair as u8, kprobe::int_result(&ctx).into());
    0
}

#[inline(always)]
fn returned<C: EbpfContext>(ctx: &C, context: Context, door: u8, ret: i64) {
    if ret >= 0 {
        return;
    }
    if let Some(errno) = failed_errno(ret) {
        Call::new(context, Task::current()).failed(ctx, door, errno);
    }
}
