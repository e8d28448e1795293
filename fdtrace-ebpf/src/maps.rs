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
    maps::{Array, HashMap, PerCpuArray, Queue, RingBuf},
};
use fdtrace_common::{
    CONTEXTS, Counter, DEFAULT_RECORD_INTERVAL_NS, DEFAULT_RING_BYTES, DEFAULT_SLOTS, FailureCell,
    FailureKey, FailureRecord, Offsets, Peers,
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
#[map]
pub(crate) static RECORDS: RingBuf = RingBuf::with_byte_size(DEFAULT_RING_BYTES, 0);

/// Where a record is built, one for each context: it does not fit the stack beside its callers.
#[map]
pub(crate) static SCRATCH: PerCpuArray<FailureRecord> = PerCpuArray::with_max_entries(CONTEXTS, 0);

#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Global<Offsets> = Global::new(Offsets::NONE);

#[unsafe(no_mangle)]
pub(crate) static SLOT_COUNT: Global<u32> = Global::new(DEFAULT_SLOTS);

#[unsafe(no_mangle)]
pub(crate) static RECORD_INTERVAL_NS: Global<u64> = Global::new(DEFAULT_RECORD_INTERVAL_NS);
