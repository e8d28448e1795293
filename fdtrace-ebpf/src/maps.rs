//! Every map and global, with its size and why.
//!
//! Counts live in mmapped arrays, one cell per (CPU, key), so the loader reads them without
//! bpf(2). That is not only cheap: while a task is inside a bpf(2) map call, `bpf_prog_active` is
//! raised on its CPU (kernel/bpf/syscall.c bpf_disable_instrumentation, v6.18), and if it is
//! preempted there, trace_call_bpf() (kernel/trace/bpf_trace.c) skips every tracepoint program on
//! that CPU. A loader that polled with map look-ups would make its own programs miss failures.

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, Queue, RingBuf},
};
use fdtrace_common::{
    CALL_NUMBERS, CONTEXTS, Counter, DEFAULT_RECORD_INTERVAL_NS, DEFAULT_RING_BYTES, DEFAULT_SLOTS,
    Doors, FailureCell, FailureKey, FailureRecord, Host, Offsets, Peers,
};

/// Which slot counts a key. As many entries as slots.
#[map]
pub(crate) static SLOTS: HashMap<FailureKey, u32> = HashMap::with_max_entries(DEFAULT_SLOTS, 0);

/// Slots nobody uses. The loader fills it; a key that is new takes one.
#[map]
pub(crate) static FREE_SLOTS: Queue<u32> = Queue::with_max_entries(DEFAULT_SLOTS, 0);

/// `cpu * SLOT_COUNT + slot`. The loader sets the size: slots times possible CPUs.
#[map]
pub(crate) static CELLS: Array<FailureCell> =
    Array::with_max_entries(DEFAULT_SLOTS, BPF_F_MMAPABLE);

/// The first record of each key, so that a full ring buffer cannot lose what a key means.
#[map]
pub(crate) static FIRST_RECORDS: Array<FailureRecord> =
    Array::with_max_entries(DEFAULT_SLOTS, BPF_F_MMAPABLE);

/// `(cpu * CONTEXTS + context) * Counter::COUNT + counter`. The loader sets the size.
#[map]
pub(crate) static COUNTERS: Array<u64> =
    Array::with_max_entries(CONTEXTS * Counter::COUNT, BPF_F_MMAPABLE);

/// Which clients were refused, by slot. The loader sets the size.
#[map]
pub(crate) static PEERS: Array<Peers> = Array::with_max_entries(DEFAULT_SLOTS, BPF_F_MMAPABLE);

/// "Look now": the first failure of a key, then at most one record per key, CPU and interval.
///
/// On kernels without ring buffers the loader makes it a perf buffer before it loads the object: a
/// second map of that kind could not even be created there.
#[map]
pub(crate) static RECORDS: RingBuf = RingBuf::with_byte_size(DEFAULT_RING_BYTES, 0);

/// Where a record is built, one for each context: it does not fit the stack beside its callers.
#[map]
pub(crate) static SCRATCH: PerCpuArray<FailureRecord> = PerCpuArray::with_max_entries(CONTEXTS, 0);

/// Arguments of a function that a task is in, for the probe at its return: by [`Function`] and
/// thread. The loader gives it room where the kprobe form is used.
///
/// [`Function`]: crate::kprobe::Function
#[map]
pub(crate) static CALLS: HashMap<u64, [u64; 2]> = HashMap::with_max_entries(1, 0);

/// Failures that an inner function has counted, for the outer one: the door by thread. Only the
/// moment between the two matters, so the oldest may be forgotten.
#[map]
pub(crate) static COUNTED: LruHashMap<u32, u8> = LruHashMap::with_max_entries(1024, 0);

/// Threads inside an accept of io_uring, with the door they were in: what fails in there is counted as
/// that.
#[map]
pub(crate) static ACCEPTING: HashMap<u32, u8> = HashMap::with_max_entries(4096, 0);

/// When a process that is close to its limit was told of. The oldest may be forgotten: it is told of
/// again.
#[map]
pub(crate) static GAUGED: LruHashMap<u32, u64> = LruHashMap::with_max_entries(1024, 0);

/// What the packet program counts: SYNs, final ACKs; the others are seen elsewhere. A map, for it is
/// known only when the other programs are attached.
#[map]
pub(crate) static PACKETS: Array<u32> = Array::with_max_entries(2, 0);

/// Every how many-th descriptor the iterator gives: 1 is all.
#[map]
pub(crate) static EVERY: Array<u32> = Array::with_max_entries(1, 0);

#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Global<Offsets> = Global::new(Offsets::NONE);

#[unsafe(no_mangle)]
pub(crate) static SLOT_COUNT: Global<u32> = Global::new(DEFAULT_SLOTS);

#[unsafe(no_mangle)]
pub(crate) static RECORD_INTERVAL_NS: Global<u64> = Global::new(DEFAULT_RECORD_INTERVAL_NS);

#[unsafe(no_mangle)]
pub(crate) static GAUGE_SHARE: Global<u32> = Global::new(0);

#[unsafe(no_mangle)]
pub(crate) static HOST: Global<Host> = Global::new(Host {
    has_typed_task: 0,
    has_task_regs: 0,
    stack_size: 0,
    uring_complete_arguments: 0,
    allocator_takes_table: 0,
    pid_ns_inum: 0,
    has_ring_buffer: 1,
    has_boot_clock: 1,
});

/// What CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC, for kernels where programs can read only that.
#[unsafe(no_mangle)]
pub(crate) static BOOT_OFFSET_NS: Global<u64> = Global::new(0);

#[unsafe(no_mangle)]
pub(crate) static DOORS: Global<Doors> = Global::new([0; CALL_NUMBERS]);

#[unsafe(no_mangle)]
pub(crate) static COMPAT_DOORS: Global<Doors> = Global::new([0; CALL_NUMBERS]);
