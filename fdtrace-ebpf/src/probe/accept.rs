//! Fact: accept(2) or accept4(2) failed, on which listener.
//!
//! net/socket.c, v6.18: __sys_accept4_file() reserves the descriptor before do_accept() looks at
//! the queue, so EMFILE comes with an empty queue too, and the connection stays queued.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use fdtrace_common::Door;

use super::call::{Call, failed_errno, sys_exit_ret};
use crate::{listener::ListenerFile, task::Task};

#[tracepoint]
fn accept_exit_tp(ctx: TracePointContext) -> u32 {
    accept_exit(&ctx, Door::Accept)
}

#[tracepoint]
fn accept4_exit_tp(ctx: TracePointContext) -> u32 {
    accept_exit(&ctx, Door::Accept4)
}

#[inline(always)]
fn accept_exit(ctx: &TracePointContext, door: Door) -> u32 {
    let ret = sys_exit_ret(ctx);
    if ret >= 0 {
        return 0;
    }
    if let Some(errno) = failed_errno(ret) {
        let task = Task::current();
        let file = ListenerFile::of_first_argument(task);
        Call { task, file, requested_backlog: 0 }.failed(ctx, door, errno);
    }
    0
}
