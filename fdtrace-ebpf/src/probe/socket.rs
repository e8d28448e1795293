//! Fact: socket(2) or socketpair(2) failed.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use fdtrace_common::Door;

use super::call::{Call, failed_errno, sys_exit_ret};
use crate::{listener::ListenerFile, task::Task};

#[tracepoint]
fn socket_exit_tp(ctx: TracePointContext) -> u32 {
    socket_exit(&ctx, Door::Socket)
}

#[tracepoint]
fn pair_exit_tp(ctx: TracePointContext) -> u32 {
    socket_exit(&ctx, Door::Socketpair)
}

#[inline(always)]
fn socket_exit(ctx: &TracePointContext, door: Door) -> u32 {
    let ret = sys_exit_ret(ctx);
    if ret >= 0 {
        return 0;
    }
    if let Some(errno) = failed_errno(ret) {
        let call = Call { task: Task::current(), file: ListenerFile::NONE, requested_backlog: 0 };
        call.failed(ctx, door, errno);
    }
    0
}
