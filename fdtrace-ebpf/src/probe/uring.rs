//! Fact: an accept of io_uring failed, on which listener.
//!
//! io_accept(request, flags) (io_uring/net.c, v6.0+) gives its result in two ways: EMFILE is
//! returned, everything later is in the request. The tracepoint `io_uring_complete` tells the
//! result of every request of every operation; what is refused before the operation runs is seen
//! there only.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, fexit, kprobe, kretprobe},
    programs::{BtfTracePointContext, FExitContext, ProbeContext, RetProbeContext},
};
use fdtrace_common::{ABSENT, Door};

use super::call::{Call, failed_errno};
use crate::{
    count::Context,
    fields::{host, offset, read},
    kprobe::{self, Function},
    listener::ListenerFile,
    task::Task,
};

/// `IORING_OP_ACCEPT`, include/uapi/linux/io_uring.h.
const ACCEPT: u8 = 13;
/// A request that was cancelled did not fail.
const ECANCELED: u16 = 125;

#[fexit]
fn uring_fx(ctx: FExitContext) -> i32 {
    accepted(&ctx, Context::IoUring, ctx.arg::<*const c_void>(0), ctx.arg(2));
    0
}

#[kprobe]
fn uring_kp(ctx: ProbeContext) -> u32 {
    Function::IoUringAccept.enter([kprobe::first(&ctx), 0]);
    0
}

#[kretprobe]
fn uring_kr(ctx: RetProbeContext) -> u32 {
    if let Some([request, _]) = Function::IoUringAccept.leave() {
        let ret = kprobe::int_result(&ctx);
        accepted(&ctx, Context::Task, request as *const c_void, ret);
    }
    0
}

/// io_accept() has returned.
#[inline(always)]
fn accepted<C: EbpfContext>(ctx: &C, context: Context, request: *const c_void, ret: i32) {
    /// `IOU_COMPLETE`, or `IOU_OK` before 6.16: the result is in the request.
    const COMPLETE: i32 = 0;
    /// `IOU_STOP_MULTISHOT` before 6.16: the same.
    const STOP_MULTISHOT: i32 = -125;
    let (new, old) = (offset!(io_kiocb_result), offset!(io_kiocb_result_old));
    let result = match ret {
        COMPLETE | STOP_MULTISHOT => {
            read::<i32>(request, if new == ABSENT { old } else { new }).unwrap_or(0)
        }
        ret => ret,
    };
    // Anything below is the kernel's own: IOU_ISSUE_SKIP_COMPLETE, IOU_REQUEUE, IOU_RETRY.
    if result < 0 && result > -512 {
        failed(ctx, context, request, result);
    }
}

/// `io_uring_complete`, whose arguments changed in 6.18.
#[btf_tracepoint]
fn uring_done_btp(ctx: BtfTracePointContext) -> i32 {
    let request: *const c_void = ctx.arg(1);
    let result = if host!(uring_complete_arguments: u32) == 3 {
        read::<i32>(ctx.arg(2), offset!(io_uring_cqe_res)).unwrap_or(0)
    } else {
        ctx.arg::<i32>(3)
    };
    // A CQE may have no request: a second one of a multishot operation, which is no failure.
    if result >= 0 || request.is_null() {
        return 0;
    }
    if is_accept(request) {
        failed(&ctx, Context::IoUring, request, result);
    }
    0
}

/// Whether a request is an accept.
#[inline(always)]
pub(super) fn is_accept(request: *const c_void) -> bool {
    read::<u8>(request, offset!(io_kiocb_opcode)) == Ok(ACCEPT)
}

#[inline(always)]
fn failed<C: EbpfContext>(ctx: &C, context: Context, request: *const c_void, result: i32) {
    let Some(errno) = failed_errno(result.into()).filter(|errno| *errno != ECANCELED) else {
        return;
    };
    let file = match read::<*const c_void>(request, offset!(io_kiocb_file)) {
        Ok(file) if !file.is_null() => ListenerFile::of_file(file),
        _ => ListenerFile::UNREAD,
    };
    // Where the request's own command is part of it, it starts with it (io_kiocb_to_cmd()).
    let slot = read::<u32>(request, offset!(io_accept_file_slot)).unwrap_or(0);
    let limit = read::<u64>(request, offset!(io_accept_nofile)).ok();
    let (door, limit) =
        if slot == 0 { (Door::IoUringAccept, limit) } else { (Door::IoUringAcceptDirect, None) };
    let call = Call { file, limit, ..Call::new(context, Task::current()) };
    call.failed(ctx, door as u8, errno);
}
