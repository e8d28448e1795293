//! What the facts about system calls share: the result, and who made the call.

use aya_ebpf::{EbpfContext as _, helpers::bpf_get_current_cgroup_id, programs::TracePointContext};
use fdtrace_common::{Counter, Door, FailureKey, FailureRecord, FdKind, valid};

use crate::{
    count::{self, Context, Subject},
    listener::ListenerFile,
    task::Task,
};

/// Where `ret` is in the record of a `syscalls:sys_exit_*` tracepoint: after the 8 common bytes
/// and the padded system call number (kernel/trace/trace.h struct syscall_trace_exit, v6.18).
const SYS_EXIT_RET: usize = 16;

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
    pub(super) task: Task,
    pub(super) file: ListenerFile,
    pub(super) requested_backlog: u32,
}

impl Call {
    #[inline(always)]
    pub(super) fn key(self, door: Door, errno: u16) -> FailureKey {
        let (_, tgid) = Task::pid_tgid();
        FailureKey {
            start_boottime_ns: self.task.start_boottime_ns(),
            inode: self.file.inode,
            tgid,
            errno,
            door: door as u8,
            fd_kind: self.file.kind as u8,
        }
    }

    /// Counts the call as failed.
    #[inline(always)]
    pub(super) fn failed(self, ctx: &TracePointContext, door: Door, errno: u16) {
        if self.file.kind as u8 == FdKind::Unread as u8 {
            count::count(Context::Task, Counter::ListenerUnread);
        }
        count::failure(ctx, &self.key(door, errno), self);
    }
}

impl Subject for Call {
    const CONTEXT: Context = Context::Task;

    #[inline(always)]
    fn fill(self, record: &mut FailureRecord) -> u32 {
        let (tid, _) = Task::pid_tgid();
        record.tid = tid;
        record.comm = self.task.comm();
        record.requested_backlog = self.requested_backlog;
        // SAFETY: the helper takes nothing.
        record.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
        let mut known = 0;
        if let Some((soft, hard)) = self.task.fd_limits() {
            record.soft_limit = soft;
            record.hard_limit = hard;
            known |= valid::LIMITS;
        }
        match self.file.describe(&mut record.listener) {
            Ok(listener) => known |= listener,
            Err(_) => {
                count::count(Context::Task, Counter::ListenerUnread);
            }
        }
        known
    }
}
