//! What the facts about calls share: the result, and who made the call.

use aya_ebpf::{EbpfContext, programs::TracePointContext};
use fdtrace_common::{Counter, Door, FailureKey, FdKind};

use crate::{
    count::{self, About, Context},
    listener::ListenerFile,
    task::{Task, native_door},
};

pub(super) const ENFILE: u16 = 23;
pub(super) const EMFILE: u16 = 24;

/// Where the number of the call and its result are in the record of a `syscalls:sys_exit_*`
/// tracepoint: after the 8 common bytes (kernel/trace/trace.h struct syscall_trace_exit, v6.18).
const SYS_EXIT_NR: usize = 8;
const SYS_EXIT_RET: usize = 16;

/// The door of the system call that returns. (Calls of 32-bit programs do not come to these
/// tracepoints: kernel/trace/trace_syscalls.c trace_get_syscall_nr, v6.18.)
#[inline(always)]
pub(super) fn sys_exit_door(ctx: &TracePointContext) -> u8 {
    // SAFETY: the record is at least that long; the verifier checks it at attach.
    native_door(unsafe { ctx.as_ptr().byte_add(SYS_EXIT_NR).cast::<u32>().read() })
}

/// What a system call returned.
#[inline(always)]
pub(super) fn sys_exit_ret(ctx: &TracePointContext) -> i64 {
    // SAFETY: the record is at least that long; the verifier checks it at attach.
    unsafe { ctx.as_ptr().byte_add(SYS_EXIT_RET).cast::<i64>().read() }
}

/// The errno behind a negative result, unless it only says "again".
///
/// A call that was interrupted shows ERESTART* (512 to 516, include/linux/errno.h) at the exit
/// tracepoint and is made again by the kernel.
#[inline(always)]
pub(super) fn failed_errno(ret: i64) -> Option<u16> {
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

/// A call of the current task on a file.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) context: Context,
    pub(super) task: Task,
    pub(super) file: ListenerFile,
    /// What its record says besides: see `FailureRecord::number`.
    pub(super) number: u32,
    /// The limit it met, where that can be another than the soft limit.
    pub(super) limit: Option<u64>,
}

impl Call {
    /// A call that takes no listener.
    #[inline(always)]
    pub(super) fn new(context: Context, task: Task) -> Self {
        Self { context, task, file: ListenerFile::NONE, number: 0, limit: None }
    }

    #[inline(always)]
    pub(super) fn key(self, door: u8, errno: u16) -> FailureKey {
        let (_, tgid) = self.task.pid_tgid();
        FailureKey {
            start_boottime_ns: self.task.start_boottime_ns(),
            inode: self.file.inode,
            tgid,
            errno,
            door,
            fd_kind: self.file.kind as u8,
        }
    }

    #[inline(always)]
    pub(super) fn about(self) -> About {
        About {
            context: self.context,
            place: self.file.file,
            kind: self.file.kind,
            has_limit: self.limit.is_some(),
            limit: self.limit.unwrap_or(0),
            number: self.number,
        }
    }

    /// Counts the call as failed.
    #[inline(always)]
    pub(super) fn failed<C: EbpfContext>(self, ctx: &C, door: u8, errno: u16) {
        if self.file.kind as u8 == FdKind::Unread as u8 {
            count::count(self.context, Counter::ListenerUnread);
        }
        count::failure::<count::Call, _>(ctx, &self.key(door, errno), &self.about());
    }

    /// Tells of a call that did not fail.
    #[inline(always)]
    pub(super) fn tell<C: EbpfContext>(self, ctx: &C, door: u8, kind: u32) {
        count::emit::<count::Call>(ctx.as_ptr(), &self.key(door, 0), 0, kind, &self.about());
    }
}

/// accept(2) or accept4(2): which of the two the current task is in. Both end in one function.
#[inline(always)]
pub(super) fn accept_door(task: Task) -> u8 {
    match task.door() {
        door if door == Door::Accept as u8 => door,
        _ => Door::Accept4 as u8,
    }
}
