//! Fact: a process that accepts comes close to its limit of descriptors.
//!
//! A new descriptor has the lowest free number (fs/file.c alloc_fd, v6.18): where accept returns N,
//! the numbers below N are in use, and nobody has to count them.

use aya_ebpf::{EbpfContext, helpers::bpf_get_current_pid_tgid};
use fdtrace_common::RECORD_GAUGE;

use super::call::{Call, accept_door};
use crate::{
    count::Context,
    fields::boot_time_ns,
    listener::ListenerFile,
    maps::{GAUGE_SHARE, GAUGED, RECORD_INTERVAL_NS},
    task::Task,
};

/// A look at the limit for the first four of these many numbers in a row. Four, for a server that
/// opens another descriptor for each connection might never get a certain number from accept.
const STRIDE: i64 = 32;
const FOUR_OF_A_STRIDE: i64 = (STRIDE - 1) & !3;

/// A call returned a new descriptor; `listener` is the file it was called on.
///
/// For most numbers this is one test.
#[inline(always)]
pub(super) fn accepted<C: EbpfContext>(
    ctx: &C,
    context: Context,
    fd: i64,
    listener: impl FnOnce(Task) -> ListenerFile,
) {
    if fd & FOUR_OF_A_STRIDE != 0 || GAUGE_SHARE.load() == 0 {
        return;
    }
    let task = Task::current();
    if !is_near_limit(task, fd) || !is_due() {
        return;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a descriptor")]
    let number = fd as u32;
    let call = Call { file: listener(task), number, ..Call::new(context, task) };
    call.tell(ctx, accept_door(task), RECORD_GAUGE);
}

/// Whether the next look could come too late.
#[inline(always)]
fn is_near_limit(task: Task, fd: i64) -> bool {
    let Some((soft, _)) = task.fd_limits() else { return false };
    // A limit of more is none, and would overflow.
    if soft >> 32 != 0 {
        return false;
    }
    #[expect(clippy::cast_sign_loss, reason = "a descriptor is not negative")]
    let next = (fd + STRIDE) as u64;
    next * 100 > soft * u64::from(GAUGE_SHARE.load())
}

/// Whether the process was not told of a moment ago.
#[inline(always)]
fn is_due() -> bool {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let now = boot_time_ns();
    // SAFETY: a number; one that another CPU is writing is as good.
    let told = unsafe { GAUGED.get(tgid) };
    if told.is_some_and(|told| now - *told < RECORD_INTERVAL_NS.load()) {
        return false;
    }
    // Where it cannot be remembered, it is told of again.
    let _ = GAUGED.insert(tgid, now, 0);
    true
}
