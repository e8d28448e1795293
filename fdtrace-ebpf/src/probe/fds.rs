//! Fact: a call that creates a descriptor got none.
//!
//! Every descriptor comes from `alloc_fd(start, end, flags)` (fs/file.c, v5.11+; `__alloc_fd` with
//! the table first before), so its failure is seen whoever asked: dup, F_DUPFD, recvmsg with
//! SCM_RIGHTS and io_uring too. `end` is the limit it met. Every file comes from alloc_empty_file()
//! (fs/file_table.c), whose ENFILE is file-max. What has a probe of its own is left to that.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    macros::{fentry, fexit, kprobe, kretprobe, tracepoint},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext, TracePointContext},
};
use fdtrace_common::{Counter, Door, FdCall, Refusal};

use super::{
    call::{Call, EMFILE, ENFILE, sys_exit_ret},
    uring,
};
use crate::{
    count::{self, Context},
    fields::host,
    kprobe::{self, Function},
    maps::{ACCEPTING, COUNTED},
    task::{Task, thread},
};

const INOTIFY_INIT: u8 = FdCall::door("inotify_init");
const INOTIFY_INIT1: u8 = FdCall::door("inotify_init1");
const PIPE: u8 = FdCall::door("pipe");
const PIPE2: u8 = FdCall::door("pipe2");

/// On the exit of every such system call.
#[tracepoint]
fn fds_exit_tp(ctx: TracePointContext) -> u32 {
    match sys_exit_ret(&ctx) {
        ret if ret == -i64::from(EMFILE) => failed(&ctx, EMFILE),
        ret if ret == -i64::from(ENFILE) => failed(&ctx, ENFILE),
        _ => {}
    }
    0
}

#[inline(always)]
fn failed(ctx: &TracePointContext, errno: u16) {
    let task = Task::current();
    Call::new(Context::Task, task).failed(ctx, task.door(), errno);
}

#[fexit]
fn fds_fx(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(3) == -i32::from(EMFILE) {
        no_descriptor(&ctx, Context::AllocatorExit, Some(ctx.arg(1)));
    }
    0
}

#[kprobe]
fn fds_kp(ctx: ProbeContext) -> u32 {
    let end = if host!(allocator_takes_table: u32) == 0 {
        kprobe::second(&ctx)
    } else {
        kprobe::third(&ctx)
    };
    Function::Allocator.enter([end, 0]);
    0
}

#[kretprobe]
fn fds_kr(ctx: RetProbeContext) -> u32 {
    let arguments = Function::Allocator.leave();
    if kprobe::int_result(&ctx) == -i32::from(EMFILE) {
        no_descriptor(&ctx, Context::Task, arguments.map(|[end, _]| end));
    }
    0
}

#[inline(always)]
fn no_descriptor<C: EbpfContext>(ctx: &C, context: Context, end: Option<u64>) {
    // An unsigned int.
    let limit = end.map(|end| end & 0xffff_ffff);
    ran_out(ctx, context, EMFILE, limit, [INOTIFY_INIT, INOTIFY_INIT1]);
}

#[fexit]
fn files_fx(ctx: FExitContext) -> i32 {
    // A pointer, to the verifier; an errno in it can only be had by the helper (5.17).
    if ctx.ret::<i64>() == Ok(-i64::from(ENFILE)) {
        no_file(&ctx, Context::FileExit);
    }
    0
}

#[kretprobe]
fn files_kr(ctx: RetProbeContext) -> u32 {
    if kprobe::result(&ctx) == -i64::from(ENFILE) {
        no_file(&ctx, Context::Task);
    }
    0
}

#[inline(always)]
fn no_file<C: EbpfContext>(ctx: &C, context: Context) {
    ran_out(ctx, context, ENFILE, None, [PIPE, PIPE2]);
}

/// There is no descriptor or file for the current task. `noted`: the calls that have a limit of their
/// own with the same errno, and a probe that must know that this was counted.
#[inline(always)]
fn ran_out<C: EbpfContext>(
    ctx: &C,
    context: Context,
    errno: u16,
    limit: Option<u64>,
    noted: [u8; 2],
) {
    let task = Task::current();
    let door = task.door();
    if is_accepting(context, door) || has_own_probe(door) {
        return;
    }
    if door == noted[0] || door == noted[1] {
        note_counted(door);
    }
    Call { limit, ..Call::new(context, task) }.failed(ctx, door, errno);
}

/// `do_inotify_init(flags)`: EMFILE without the allocator is the limit of the user's instances
/// (fs/notify/inotify/inotify_user.c inotify_new_group, v6.18).
#[fexit]
fn inotify_fx(ctx: FExitContext) -> i32 {
    no_instance(&ctx, Context::InotifyExit, ctx.arg::<i32>(1));
    0
}

#[kretprobe]
fn inotify_kr(ctx: RetProbeContext) -> u32 {
    no_instance(&ctx, Context::Task, kprobe::int_result(&ctx));
    0
}

#[inline(always)]
fn no_instance<C: EbpfContext>(ctx: &C, context: Context, ret: i32) {
    if ret == -i32::from(EMFILE) && !was_counted() {
        let task = Task::current();
        Call::new(context, task).failed(ctx, task.door(), Refusal::InotifyInstances as u16);
    }
}

/// `create_pipe_files(files, flags)`: ENFILE without a file is the limit of the user's pipe pages
/// (fs/pipe.c alloc_pipe_info, v6.18).
#[fexit]
fn pipe_fx(ctx: FExitContext) -> i32 {
    no_pipe(&ctx, Context::PipeExit, ctx.arg::<i32>(2));
    0
}

#[kretprobe]
fn pipe_kr(ctx: RetProbeContext) -> u32 {
    no_pipe(&ctx, Context::Task, kprobe::int_result(&ctx));
    0
}

#[inline(always)]
fn no_pipe<C: EbpfContext>(ctx: &C, context: Context, ret: i32) {
    if ret == -i32::from(ENFILE) && !was_counted() {
        let task = Task::current();
        Call::new(context, task).failed(ctx, task.door(), Refusal::PipePages as u16);
    }
}

/// `io_fixed_fd_install(request, flags, file, slot)`: a file for an operation of io_uring is there, and
/// ENFILE is that its table of direct descriptors is full (io_uring/filetable.c io_file_bitmap_get, v6.0+).
#[fexit]
fn slot_fx(ctx: FExitContext) -> i32 {
    no_slot(&ctx, Context::SlotExit, ctx.arg(0), ctx.arg(4));
    0
}

#[kprobe]
fn slot_kp(ctx: ProbeContext) -> u32 {
    Function::IoUringSlot.enter([kprobe::first(&ctx), 0]);
    0
}

#[kretprobe]
fn slot_kr(ctx: RetProbeContext) -> u32 {
    if let Some([request, _]) = Function::IoUringSlot.leave() {
        no_slot(&ctx, Context::Task, request as *const c_void, kprobe::int_result(&ctx));
    }
    0
}

#[inline(always)]
fn no_slot<C: EbpfContext>(ctx: &C, context: Context, request: *const c_void, ret: i32) {
    if ret == -i32::from(ENFILE) && !uring::is_accept(request) {
        let call = Call::new(context, Task::current());
        call.failed(ctx, Door::IoUring as u8, Refusal::IoUringTable as u16);
    }
}

/// The current task enters an accept of io_uring, which has a probe of its own.
#[fentry]
fn uring_in_fe(_ctx: FEntryContext) -> i32 {
    enter_accept(Context::IoUringEntry);
    0
}

#[fexit]
fn uring_out_fx(_ctx: FExitContext) -> i32 {
    leave_accept();
    0
}

#[kprobe]
fn uring_in_kp(_ctx: ProbeContext) -> u32 {
    enter_accept(Context::Task);
    0
}

#[kretprobe]
fn uring_out_kr(_ctx: RetProbeContext) -> u32 {
    leave_accept();
    0
}

#[inline(always)]
fn enter_accept(context: Context) {
    // SAFETY: only looked at. Still there from the last time: that return was not seen.
    let was_inside = unsafe { ACCEPTING.get(thread()) }.is_some();
    let door = Task::current().door();
    if ACCEPTING.insert(thread(), door, 0).is_err() || was_inside {
        count::count(context, Counter::ReturnUnseen);
    }
}

#[inline(always)]
fn leave_accept() {
    let _ = ACCEPTING.remove(thread());
}

/// Whether it is in one. io_uring may do it at the end of any system call, but it never leaves that
/// one in between: behind another door the return was missed, and what fails there is counted.
#[inline(always)]
fn is_accepting(context: Context, door: u8) -> bool {
    // SAFETY: copied at once; no other thread has this key.
    match unsafe { ACCEPTING.get(thread()) }.copied() {
        None => false,
        Some(inside) if inside == door => true,
        Some(_) => {
            leave_accept();
            count::count(context, Counter::ReturnUnseen);
            false
        }
    }
}

#[inline(always)]
fn note_counted(door: u8) {
    let _ = COUNTED.insert(thread(), door, 0);
}

#[inline(always)]
fn was_counted() -> bool {
    COUNTED.remove(thread()).is_ok()
}

#[inline(always)]
fn has_own_probe(door: u8) -> bool {
    door >= Door::Accept as u8 && door <= Door::Socketpair as u8
}
