//! The kprobe form: registers as arguments, and arguments kept until the function returns.

use aya_ebpf::EbpfContext;
use fdtrace_common::{ABSENT, Counter};

use crate::{
    count::{self, Context},
    fields::{offset, read},
    maps::CALLS,
    task::thread,
};

/// A function whose arguments are kept.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(crate) enum Function {
    Accept = 1 << 32,
    Listen = 2 << 32,
    Allocator = 3 << 32,
    IoUringAccept = 4 << 32,
    IoUringSlot = 5 << 32,
}

impl Function {
    #[inline(always)]
    fn key(self) -> u64 {
        self as u64 | u64::from(thread())
    }

    /// A task enters it.
    #[inline(always)]
    pub(crate) fn enter(self, arguments: [u64; 2]) {
        let key = self.key();
        // SAFETY: only looked at. Still there from the last time: that return was not seen.
        let was_inside = unsafe { CALLS.get(key) }.is_some();
        if CALLS.insert(key, arguments, 0).is_err() || was_inside {
            count::count(Context::Task, Counter::ReturnUnseen);
        }
    }

    /// It returns. `None` where it was entered before the probe was there.
    #[inline(always)]
    pub(crate) fn leave(self) -> Option<[u64; 2]> {
        let key = self.key();
        // SAFETY: copied at once; no other thread has this key.
        let arguments = unsafe { CALLS.get(key) }.copied();
        if arguments.is_some() {
            let _ = CALLS.remove(key);
        }
        arguments
    }
}

/// An argument of the function the probe is at. `x86` is the offset of its register there.
#[inline(always)]
pub(crate) fn argument(ctx: &impl EbpfContext, number: u32, x86: u32) -> u64 {
    let arm64 = offset!(regs_arm64_regs);
    let offset = if x86 == ABSENT { arm64 + number * 8 } else { x86 };
    read(ctx.as_ptr(), offset).unwrap_or(0)
}

/// The first argument.
#[inline(always)]
pub(crate) fn first(ctx: &impl EbpfContext) -> u64 {
    argument(ctx, 0, offset!(regs_x86_di))
}

/// The second.
#[inline(always)]
pub(crate) fn second(ctx: &impl EbpfContext) -> u64 {
    argument(ctx, 1, offset!(regs_x86_si))
}

/// The third.
#[inline(always)]
pub(crate) fn third(ctx: &impl EbpfContext) -> u64 {
    argument(ctx, 2, offset!(regs_x86_dx))
}

/// The fourth.
#[inline(always)]
pub(crate) fn fourth(ctx: &impl EbpfContext) -> u64 {
    argument(ctx, 3, offset!(regs_x86_cx))
}

/// What the function returned, where that is an int.
#[inline(always)]
pub(crate) fn int_result(ctx: &impl EbpfContext) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "the upper half says nothing")]
    let int = result(ctx) as i32;
    int
}

/// What it returned, the whole register.
#[inline(always)]
pub(crate) fn result(ctx: &impl EbpfContext) -> i64 {
    let (x86, arm64) = (offset!(regs_x86_ax), offset!(regs_arm64_regs));
    read(ctx.as_ptr(), if x86 == ABSENT { arm64 } else { x86 }).unwrap_or(0)
}
