//! Who is calling, and by which system call.

use core::ffi::c_void;

use aya_ebpf::{
    Global,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs,
    },
};
use fdtrace_common::{ABSENT, CALL_NUMBERS, COMM_LEN, Door, Doors, FdCall};

use crate::{
    fields::{Access, OfTask, host, offset, read},
    maps::{COMPAT_DOORS, DOORS},
};

/// `RLIMIT_NOFILE`, include/uapi/asm-generic/resource.h. (alpha, mips and sparc have another.)
const RLIMIT_NOFILE: u32 = 7;
/// `sizeof(struct rlimit)`: two unsigned longs.
const RLIMIT_SIZE: u32 = 16;
/// `PF_IO_WORKER`, include/linux/sched.h, since 5.12.
const PF_IO_WORKER: u32 = 0x10;
/// The number of socketcall(2), arch/x86/entry/syscalls/syscall_32.tbl.
const SOCKETCALL: u32 = 102;
const RECVMSG: u8 = FdCall::door("recvmsg");
const RECVMMSG: u8 = FdCall::door("recvmmsg");
/// `TS_COMPAT`, arch/x86/include/asm/thread_info.h.
const TS_COMPAT: u32 = 2;

/// The number of the current thread, in the initial pid namespace.
#[inline(always)]
pub(crate) fn thread() -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the thread is the lower half")]
    let thread = bpf_get_current_pid_tgid() as u32;
    thread
}

/// The door of a system call of this machine's own programs.
#[inline(always)]
pub(crate) fn native_door(number: u32) -> u8 {
    door_of(&raw const DOORS, number)
}

#[inline(always)]
fn door_of(doors: *const Global<Doors>, number: u32) -> u8 {
    // Or else it is widened twice, and the verifier knows the bounds of the other copy only.
    let number = core::hint::black_box(number as usize);
    if number >= CALL_NUMBERS {
        return Door::Other as u8;
    }
    let doors = doors.cast::<u8>();
    // SAFETY: the index is in the table; volatile as in `fields`.
    match unsafe { core::ptr::read_volatile(doors.add(number)) } {
        0 => Door::Other as u8,
        door => door,
    }
}

/// The current task.
#[derive(Clone, Copy)]
pub(crate) struct Task {
    task: *const c_void,
}

impl Task {
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: the helpers take nothing and always return the current task.
        let task = unsafe {
            if host!(has_typed_task: u32) == 0 {
                bpf_get_current_task() as *const c_void
            } else {
                bpf_get_current_task_btf().cast::<c_void>().cast_const()
            }
        };
        Self { task }
    }

    #[inline(always)]
    fn get<T: Copy>(base: *const c_void, offset: u32) -> T {
        // SAFETY: every pointer here was reached from the task, and every type is a number or a
        // pointer as wide as its field.
        unsafe { OfTask::get(base, offset) }
    }

    /// The numbers of the thread and its process, in our pid namespace where they have one there.
    #[inline(always)]
    pub(crate) fn pid_tgid(self) -> (u32, u32) {
        let both = bpf_get_current_pid_tgid();
        let known = (thread(), (both >> 32) as u32);
        if host!(pid_ns_inum: u32) == 0 {
            return known;
        }
        match (Self::number_in_ours(self.task), Self::number_in_ours(self.group_leader())) {
            (Some(thread), Some(process)) => (thread, process),
            _ => known,
        }
    }

    /// The number of a task in our pid namespace, where it has one (kernel/pid.c `pid_nr_ns`).
    #[inline(always)]
    fn number_in_ours(task: *const c_void) -> Option<u32> {
        /// Namespaces may be nested 32 deep (include/linux/pid_namespace.h); nobody does.
        const MOST_LEVELS: u32 = 8;
        let pid: *const c_void = Self::get(task, offset!(task_thread_pid));
        let levels: u32 = read(pid, offset!(pid_level)).ok()?;
        for level in 1..MOST_LEVELS {
            if level > levels {
                break;
            }
            let number = offset!(pid_numbers) + level * offset!(upid_size);
            let ns = read::<*const c_void>(pid, number + offset!(upid_ns)).ok()?;
            if read(ns, offset!(pid_ns_inum)) == Ok(host!(pid_ns_inum: u32)) {
                return read(pid, number).ok();
            }
        }
        None
    }

    #[inline(always)]
    fn group_leader(self) -> *const c_void {
        Self::get(self.task, offset!(task_group_leader))
    }

    /// When the process started; de_thread() (fs/exec.c) hands it on when another thread execs.
    #[inline(always)]
    pub(crate) fn start_boottime_ns(self) -> u64 {
        let (new, old) = (offset!(task_start_boottime), offset!(task_real_start_time));
        let offset = if new == ABSENT { old } else { new };
        if offset == ABSENT {
            return 0;
        }
        Self::get(self.group_leader(), offset)
    }

    /// Name of the thread group leader: what `ps` shows, not the name of a thread.
    #[inline(always)]
    pub(crate) fn comm(self) -> [u8; COMM_LEN] {
        read(self.group_leader(), offset!(task_comm)).unwrap_or([0; COMM_LEN])
    }

    /// RLIMIT_NOFILE, soft and hard.
    #[inline(always)]
    pub(crate) fn fd_limits(self) -> Option<(u64, u64)> {
        let (signal, rlim) = (offset!(task_signal), offset!(signal_rlim));
        if signal == ABSENT || rlim == ABSENT {
            return None;
        }
        let nofile = rlim + RLIMIT_NOFILE * RLIMIT_SIZE;
        let signal: *const c_void = Self::get(self.task, signal);
        Some((Self::get(signal, nofile), Self::get(signal, nofile + 8)))
    }

    /// Whether it is a thread that io_uring made for work that blocks.
    #[inline(always)]
    fn is_io_worker(self) -> bool {
        let flags = offset!(task_flags);
        flags != ABSENT && Self::get::<u32>(self.task, flags) & PF_IO_WORKER != 0
    }

    /// Whether the system call is one of a 32-bit program. (Only x86-64 is asked.)
    #[inline(always)]
    fn is_compat(self) -> bool {
        let status = offset!(task_thread_status);
        status != ABSENT && Self::get::<u32>(self.task, status) & TS_COMPAT != 0
    }

    /// The door of the system call it is in. What io_uring does in a task's name, between two
    /// calls, is seen as the call it was done after.
    #[inline(always)]
    pub(crate) fn door(self) -> u8 {
        if self.is_io_worker() {
            return Door::IoUring as u8;
        }
        // arm64 keeps it as an int, x86-64 in the lower half of a register.
        let (x86, arm64) = (offset!(regs_x86_orig_ax), offset!(regs_arm64_syscallno));
        let number: u32 = self.register(if x86 == ABSENT { arm64 } else { x86 }, u32::MAX);
        if !self.is_compat() {
            return native_door(number);
        }
        if number == SOCKETCALL {
            self.socketcall_door()
        } else {
            door_of(&raw const COMPAT_DOORS, number)
        }
    }

    /// The door of socketcall(2): its first argument says which call it is (`SYS_*`,
    /// include/uapi/linux/net.h).
    #[inline(always)]
    fn socketcall_door(self) -> u8 {
        match self.register(offset!(regs_x86_bx), u32::MAX) {
            1 => Door::Socket as u8,
            5 => Door::Accept as u8,
            8 => Door::Socketpair as u8,
            17 => RECVMSG,
            18 => Door::Accept4 as u8,
            19 => RECVMMSG,
            _ => Door::Other as u8,
        }
    }

    /// First argument of the system call that is returning.
    ///
    /// x86-64 keeps it in `di` up to the exit tracepoint; arm64 overwrites `regs[0]` with the
    /// result and keeps the argument in `orig_x0` (arch/arm64/include/asm/ptrace.h).
    #[inline(always)]
    pub(crate) fn first_argument(self) -> u64 {
        let (x86, arm64) = (offset!(regs_x86_di), offset!(regs_arm64_orig_x0));
        self.register(if x86 == ABSENT { arm64 } else { x86 }, u64::MAX)
    }

    /// Its second argument: `si`, or `regs[1]`.
    #[inline(always)]
    pub(crate) fn second_argument(self) -> u64 {
        let (x86, arm64) = (offset!(regs_x86_si), offset!(regs_arm64_regs));
        match (x86, arm64) {
            (ABSENT, ABSENT) => u64::MAX,
            (ABSENT, arm64) => self.register(arm64 + 8, u64::MAX),
            (x86, _) => self.register(x86, u64::MAX),
        }
    }

    /// A register that was saved at entry, or as much of it as `T` has; `unknown` where it cannot be
    /// read.
    #[inline(always)]
    fn register<T: Copy>(self, offset: u32, unknown: T) -> T {
        if offset == ABSENT {
            return unknown;
        }
        if host!(has_task_regs: u32) == 0 {
            return self.register_on_stack(offset, unknown);
        }
        // SAFETY: the helper takes a typed task and returns its registers, typed.
        unsafe {
            let regs = bpf_task_pt_regs(self.task.cast_mut().cast()) as *const c_void;
            crate::fields::load(regs, offset)
        }
    }

    /// The same before 5.15: the registers stand at the end of the kernel stack (task_pt_regs(),
    /// arch/x86/include/asm/processor.h, arch/arm64/include/asm/processor.h).
    #[inline(always)]
    fn register_on_stack<T: Copy>(self, offset: u32, unknown: T) -> T {
        let (stack, size) = (offset!(task_stack), offset!(regs_size));
        if stack == ABSENT || size == ABSENT {
            return unknown;
        }
        let stack: *const c_void = Self::get(self.task, stack);
        let regs = stack.wrapping_byte_add((host!(stack_size: u32) - size) as usize);
        read(regs, offset).unwrap_or(unknown)
    }

    /// The open file behind a descriptor, as an address.
    ///
    /// `Ok(null)` where none is open. The table cannot go away under a program: it is freed after
    /// an RCU grace period (fs/file.c free_fdtable_rcu).
    #[inline(always)]
    pub(crate) fn file(self, fd: u32) -> Result<*const c_void, i32> {
        let files: *const c_void = Self::get(self.task, offset!(task_files));
        let fdt: *const c_void = Self::get(files, offset!(files_fdt));
        let max_fds: u32 = Self::get(fdt, offset!(fdtable_max_fds));
        let table: *const c_void = Self::get(fdt, offset!(fdtable_fd));
        if fd >= max_fds {
            return Ok(core::ptr::null());
        }
        read::<*const c_void>(table.wrapping_byte_add(fd as usize * 8), 0)
    }
}
