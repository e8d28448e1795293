//! Who is calling.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_task_pt_regs};
use fdtrace_common::{ABSENT, COMM_LEN};

use crate::fields::{load, offset};

/// `RLIMIT_NOFILE`, include/uapi/asm-generic/resource.h. (alpha, mips and sparc have another.)
const RLIMIT_NOFILE: u32 = 7;
/// `sizeof(struct rlimit)`: two unsigned longs.
const RLIMIT_SIZE: u32 = 16;

/// The current task.
#[derive(Clone, Copy)]
pub(crate) struct Task {
    task: *const c_void,
}

impl Task {
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: the helper takes nothing and always returns the current task.
        Self { task: unsafe { bpf_get_current_task_btf() }.cast() }
    }

    #[inline(always)]
    pub(crate) fn pid_tgid() -> (u32, u32) {
        let both = bpf_get_current_pid_tgid();
        #[expect(clippy::cast_possible_truncation, reason = "the low half is the tid")]
        (both as u32, (both >> 32) as u32)
    }

    #[inline(always)]
    fn group_leader(self) -> *const c_void {
        // SAFETY: `task` comes from the helper.
        unsafe { load(self.task, offset!(task_group_leader)) }
    }

    /// When the process started; de_thread() (fs/exec.c) hands it on when another thread execs.
    #[inline(always)]
    pub(crate) fn start_boottime_ns(self) -> u64 {
        let (new, old) = (offset!(task_start_boottime), offset!(task_real_start_time));
        let offset = if new == ABSENT { old } else { new };
        if offset == ABSENT {
            return 0;
        }
        // SAFETY: the leader was loaded from the task.
        unsafe { load(self.group_leader(), offset) }
    }

    /// Name of the thread group leader: what `ps` shows, not the name of a thread.
    #[inline(always)]
    pub(crate) fn comm(self) -> [u8; COMM_LEN] {
        let leader = self.group_leader();
        let comm = offset!(task_comm);
        let mut name = [0; COMM_LEN];
        if comm != ABSENT {
            // SAFETY: as above; the member has 16 bytes and 8-byte alignment is not needed on BPF.
            let bytes = crate::fields::read::<[u8; COMM_LEN]>(leader, comm);
            if let Ok(bytes) = bytes {
                name = bytes;
            }
        }
        name
    }

    /// RLIMIT_NOFILE, soft and hard.
    #[inline(always)]
    pub(crate) fn fd_limits(self) -> Option<(u64, u64)> {
        let (signal, rlim) = (offset!(task_signal), offset!(signal_rlim));
        if signal == ABSENT || rlim == ABSENT {
            return None;
        }
        let nofile = rlim + RLIMIT_NOFILE * RLIMIT_SIZE;
        // SAFETY: `signal` is loaded from the task; both fields are unsigned longs.
        unsafe {
            let signal: *const c_void = load(self.task, signal);
            Some((load(signal, nofile), load(signal, nofile + 8)))
        }
    }

    /// First argument of the system call that is returning.
    ///
    /// x86-64 keeps it in `di` up to the exit tracepoint; arm64 overwrites `regs[0]` with the
    /// result and keeps the argument in `orig_x0` (arch/arm64/include/asm/ptrace.h).
    #[inline(always)]
    pub(crate) fn first_argument(self) -> u64 {
        self.register(offset!(regs_x86_di), offset!(regs_arm64_orig_x0))
    }

    /// Its second argument: `si`, or `regs[1]`.
    #[inline(always)]
    pub(crate) fn second_argument(self) -> u64 {
        let regs = offset!(regs_arm64_regs);
        self.register(offset!(regs_x86_si), if regs == ABSENT { ABSENT } else { regs + 8 })
    }

    #[inline(always)]
    fn register(self, x86: u32, arm64: u32) -> u64 {
        let offset = if x86 == ABSENT { arm64 } else { x86 };
        if offset == ABSENT {
            return u64::MAX;
        }
        // SAFETY: the helper returns the registers saved at entry, typed.
        unsafe {
            let regs = bpf_task_pt_regs(self.task.cast_mut().cast()) as *const c_void;
            load(regs, offset)
        }
    }

    /// The open file behind a descriptor, as an address.
    ///
    /// `Ok(null)` where none is open. The table cannot go away under a program: it is freed after
    /// an RCU grace period (fs/file.c free_fdtable_rcu).
    #[inline(always)]
    pub(crate) fn file(self, fd: u32) -> Result<*const c_void, i32> {
        // SAFETY: each pointer is loaded from the one before.
        let (max_fds, table): (u32, *const c_void) = unsafe {
            let files: *const c_void = load(self.task, offset!(task_files));
            let fdt: *const c_void = load(files, offset!(files_fdt));
            (load(fdt, offset!(fdtable_max_fds)), load(fdt, offset!(fdtable_fd)))
        };
        if fd >= max_fds {
            return Ok(core::ptr::null());
        }
        crate::fields::read::<*const c_void>(table.wrapping_byte_add(fd as usize * 8), 0)
    }
}
