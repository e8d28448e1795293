//! What the running kernel is like, beyond where its fields are.

/// Facts the programs branch on. Like the offsets they are constants to the verifier, so what a
/// kernel lacks is never looked at by it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// bpf_get_current_task_btf() exists (5.11): what is reached from it can be loaded directly.
    pub has_typed_task: u32,
    /// bpf_task_pt_regs() exists (5.15).
    pub has_task_regs: u32,
    /// Bytes of a kernel stack, for kernels without it.
    pub stack_size: u32,
    /// How many arguments `io_uring_complete` has: 3 (request, CQE), or 7 (request, user data,
    /// result, …).
    pub uring_complete_arguments: u32,
    /// The first argument of the descriptor allocator is the table: `__alloc_fd`, before 5.11.
    pub allocator_takes_table: u32,
    /// Inode number of our pid namespace; 0 where it is the initial one.
    pub pid_ns_inum: u32,
    /// The map of records is a ring buffer (5.8); otherwise it is a perf buffer for each CPU.
    pub has_ring_buffer: u32,
    /// bpf_ktime_get_boot_ns() exists (5.8).
    pub has_boot_clock: u32,
}

impl Host {
    /// Its fields in order, as bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let fields = [
            self.has_typed_task,
            self.has_task_regs,
            self.stack_size,
            self.uring_complete_arguments,
            self.allocator_takes_table,
            self.pid_ns_inum,
            self.has_ring_buffer,
            self.has_boot_clock,
        ];
        let mut bytes = [0; size_of::<Self>()];
        for (place, field) in bytes.chunks_exact_mut(size_of::<u32>()).zip(fields) {
            place.copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }
}
