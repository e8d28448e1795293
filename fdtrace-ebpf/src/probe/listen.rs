//! Fact: a process made a socket listen, with which backlog.
//!
//! It says who owns the listener and what the application asked for: the kernel keeps neither
//! (net/socket.c `__sys_listen(fd, backlog)`, v6.18, cuts the backlog at somaxconn).

use aya_ebpf::{
    EbpfContext,
    macros::{fexit, kprobe, kretprobe, tracepoint},
    programs::{FExitContext, ProbeContext, RetProbeContext, TracePointContext},
};
use fdtrace_common::{Door, FdKind, RECORD_LISTEN};

use super::call::{Call, sys_exit_ret};
use crate::{
    count::Context,
    kprobe::{self, Function},
    listener::ListenerFile,
    task::Task,
};

#[tracepoint]
fn listen_exit_tp(ctx: TracePointContext) -> u32 {
    if sys_exit_ret(&ctx) == 0 {
        let task = Task::current();
        listening(&ctx, Context::Task, task, [task.first_argument(), task.second_argument()]);
    }
    0
}

#[fexit]
fn listen_fx(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(2) == 0 {
        listening(&ctx, Context::ListenExit, Task::current(), [ctx.arg(0), ctx.arg(1)]);
    }
    0
}

#[kprobe]
fn listen_kp(ctx: ProbeContext) -> u32 {
    Function::Listen.enter([kprobe::first(&ctx), kprobe::second(&ctx)]);
    0
}

#[kretprobe]
fn listen_kr(ctx: RetProbeContext) -> u32 {
    let arguments = Function::Listen.leave();
    if let Some(arguments) = arguments
        && kprobe::int_result(&ctx) == 0
    {
        listening(&ctx, Context::Task, Task::current(), arguments);
    }
    0
}

#[inline(always)]
fn listening<C: EbpfContext>(ctx: &C, context: Context, task: Task, [fd, backlog]: [u64; 2]) {
    #[expect(clippy::cast_possible_truncation, reason = "both are ints")]
    let (fd, number) = (fd as u32, backlog as u32);
    let file = ListenerFile::of_fd(task, fd);
    if file.kind as u8 == FdKind::Socket as u8 {
        let call = Call { file, number, ..Call::new(context, task) };
        call.tell(ctx, Door::Listen as u8, RECORD_LISTEN);
    }
}
