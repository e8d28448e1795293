//! Fact: accept(2) or accept4(2) failed, on which listener.
//!
//! net/socket.c, v6.18: __sys_accept4_file() reserves the descriptor before do_accept() looks at
//! the queue, so EMFILE comes with an empty queue too, and the connection stays queued. Both calls,
//! of 32-bit programs too, end in `__sys_accept4(fd, address, length, flags)`.

use super::{
    call::{Call, accept_door, failed_errno, sys_exit_door, sys_exit_ret},
    gauge,
};
use crate::{
    count::Context,
    kprobe::{self, Function},
    listener::ListenerFile,
    task::Task,
};
use aya_ebpf::{
    EbpfContext,
    macros::{fexit, kprobe, kretprobe, tracepoint},
    programs::{FExitContext, ProbeContext, RetProbeContext, TracePointContext},
};

/// On the exit of both calls: one program is verified once.
#[tracepoint]
fn accept_exit_tp(ctx: TracePointContext) -> u32 {
    let ret = sys_exit_ret(&ctx);
    if ret >= 0 {
        gauge::accepted(&ctx, Context::Task, ret, ListenerFile::of_first_argument);
        return 0;
    }
    if let Some(errno) = failed_errno(ret) {
        let task = Task::current();
        let file = ListenerFile::of_first_argument(task);
        let call = Call { file, ..Call::new(Context::Task, task) };
        call.failed(&ctx, sys_exit_door(&ctx), errno);
    }
    0
}

#[fexit]
fn accept_fx(ctx: FExitContext) -> i32 {
    let ret: i32 = ctx.arg(4);
    if ret < 0 {
        accept_returned(&ctx, Context::AcceptExit, Some(ctx.arg(0)), ret.into());
    } else {
        let listener = |task| ListenerFile::of_fd(task, ctx.arg(0));
        gauge::accepted(&ctx, Context::AcceptExit, ret.into(), listener);
    }
    0
}

#[kprobe]
fn accept_kp(ctx: ProbeContext) -> u32 {
    Function::Accept.enter([kprobe::first(&ctx), 0]);
    0
}

#[kretprobe]
fn accept_kr(ctx: RetProbeContext) -> u32 {
    let arguments = Function::Accept.leave();
    let ret = kprobe::int_result(&ctx);
    #[expect(clippy::cast_possible_truncation, reason = "an int")]
    let fd = arguments.map(|[fd, _]| fd as u32);
    if ret < 0 {
        accept_returned(&ctx, Context::Task, fd, ret.into());
    } else {
        gauge::accepted(&ctx, Context::Task, ret.into(), |task| listener(task, fd));
    }
    0
}

#[inline(always)]
fn accept_returned<C: EbpfContext>(ctx: &C, context: Context, fd: Option<u32>, ret: i64) {
    let Some(errno) = failed_errno(ret) else { return };
    let task = Task::current();
    let file = listener(task, fd);
    Call { file, ..Call::new(context, task) }.failed(ctx, accept_door(task), errno);
}

#[inline(always)]
fn listener(task: Task, fd: Option<u32>) -> ListenerFile {
    match fd {
        Some(fd) => ListenerFile::of_fd(task, fd),
        None => ListenerFile::UNREAD,
    }
}
