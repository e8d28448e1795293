//! One file per observed fact. A program's name is the fact and its form: `_tp` tracepoint.

mod accept;
mod socket;

use aya_ebpf::{EbpfContext, programs::TracePointContext};

/// Where `ret` is in the record of a `syscalls:sys_exit_*` tracepoint: after the 8 common bytes
/// and the padded system call number (kernel/trace/trace.h struct syscall_trace_exit, v6.18).
const SYS_EXIT_RET: usize = 16;

/// What a system call returned.
#[inline(always)]
fn sys_exit_ret(ctx: &TracePointContext) -> i64 {
    // SAFETY: the record is at least that long; the verifier checks it at attach.
    unsafe { ctx.as_ptr().byte_add(SYS_EXIT_RET).cast::<i64>().read() }
}

/// The errno behind a negative result, unless it only says "again".
///
/// A call that was interrupted shows ERESTART* (512 to 516, include/linux/errno.h) at the exit
/// tracepoint and is made again by the kernel.
#[inline(always)]
fn failed_errno(ret: i64) -> Option<u16> {
    const EINTR: u16 = 4;
    const EAGAIN: u16 = 11;
    const ERESTARTSYS: u16 = 512;
    const ERESTART_RESTARTBLOCK: u16 = 516;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a system call's error is -4095 to -1"
    )]
    let errno = -ret as u16;
    match errno {
        EINTR | EAGAIN | ERESTARTSYS..=ERESTART_RESTARTBLOCK => None,
        errno => Some(errno),
    }
}
