//! Counting a failure, exactly, and telling the loader to look.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_CURRENT_CPU, BPF_NOEXIST},
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_smp_processor_id, generated::bpf_perf_event_output,
    },
};
use aya_log_ebpf::debug;
use fdtrace_common::{
    COMM_LEN, CONTEXTS, Counter, FailureKey, FailureRecord, FdKind, ListenerFacts, RECORD_FAILURE,
    SUN_PATH_LEN, valid,
};

use crate::{
    fields::{boot_time_ns, host},
    listener,
    maps::{
        CELLS, COUNTERS, FIRST_RECORDS, FREE_SLOTS, RECORD_INTERVAL_NS, RECORDS, SCRATCH,
        SLOT_COUNT, SLOTS,
    },
    task::Task,
};

/// What a failure is about: all that a record says beyond its key.
///
/// Plain fields, for rustc describes an enum that carries data in a way that the kernel's BTF check
/// refuses, and functions that are not inlined have their types checked.
#[derive(Clone, Copy)]
pub(crate) struct About {
    pub(crate) context: Context,
    /// The file that a call was made on, or the socket that refused a segment.
    pub(crate) place: *const c_void,
    /// What the file is.
    pub(crate) kind: FdKind,
    /// The limit it met, where that can be another than the soft limit.
    pub(crate) has_limit: bool,
    pub(crate) limit: u64,
    /// See `FailureRecord::number`.
    pub(crate) number: u32,
}

/// What failed. A constant, for what asks after the current task must not be in a program that sees
/// packets: older kernels know no such helper there.
pub(crate) trait Kind {
    const IS_CALL: bool;
}

/// A call of the current task.
pub(crate) struct Call;

/// A client's segment: no process is current.
pub(crate) struct Segment;

impl Kind for Call {
    const IS_CALL: bool = true;
}

impl Kind for Segment {
    const IS_CALL: bool = false;
}

/// A context of programs. What two of them write without atomics is kept apart, for one can
/// interrupt the other on the same CPU.
///
/// Programs of tracepoints and kprobes run with preemption off, one at a time on a CPU
/// (kernel/trace/bpf_trace.c trace_call_bpf, v6.18), so they share one context; so do those that
/// see packets, in softirq. A program at the exit of a function can be preempted: the same one is
/// not run again on that CPU meanwhile (kernel/bpf/trampoline.c `prog->active`), another one is.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Context {
    Task = 0,
    SoftIrq = 1,
    AcceptExit = 2,
    SocketExit = 3,
    PairExit = 4,
    ListenExit = 5,
    IoUring = 6,
    AllocatorExit = 7,
    FileExit = 8,
    InotifyExit = 9,
    PipeExit = 10,
    IoUringEntry = 11,
    SlotExit = 12,
}

const _: () = assert!(Context::SlotExit as u32 + 1 == CONTEXTS);

/// Counts one failure, and writes a record of it where one is due. Returns its slot, if it was
/// counted.
#[inline(always)]
pub(crate) fn failure<K: Kind, C: EbpfContext>(
    ctx: &C,
    key: &FailureKey,
    about: &About,
) -> Option<u32> {
    // SAFETY: the value is a number, written once by whoever inserted the key.
    let slot = match unsafe { SLOTS.get(key) } {
        Some(slot) => *slot,
        None => u32::try_from(new_slot::<K>(ctx.as_ptr(), key, about)).ok()?,
    };
    // SAFETY: the helper takes nothing.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(cell) = CELLS.get_ptr_mut(cpu * SLOT_COUNT.load() + slot) else {
        count(about.context, Counter::KeyRefused);
        return None;
    };
    let now = boot_time_ns();
    // SAFETY: the map's own memory. No other CPU writes this cell, and on this CPU nothing else
    // does meanwhile: the key belongs to one context.
    let due = unsafe {
        (*cell).count += 1;
        (*cell).last_ns = now;
        let due = now - (*cell).recorded_ns >= RECORD_INTERVAL_NS.load();
        if due {
            (*cell).recorded_ns = now;
        }
        due
    };
    if due {
        emit::<K>(ctx.as_ptr(), key, slot, RECORD_FAILURE, about);
    }
    Some(slot)
}

/// A context whose type does not matter.
struct AnyContext(*mut c_void);

impl EbpfContext for AnyContext {
    fn as_ptr(&self) -> *mut c_void {
        self.0
    }
}

/// Gives a new key a slot. Negative: the failure is not counted, and that is counted.
///
/// Not inlined, nor is what follows: it is rare, and one copy serves every program of a kind.
#[inline(never)]
fn new_slot<K: Kind>(ctx: *mut c_void, key: &FailureKey, about: &About) -> i64 {
    let ctx = AnyContext(ctx);
    let Ok(Some(slot)) = FREE_SLOTS.pop() else {
        if count(about.context, Counter::KeysFull) {
            debug!(&ctx, "no slot is free for errno {} of process {}", key.errno, key.tgid);
        }
        return -1;
    };
    // The record is written before the key can be found, and marked whole after.
    if let Some(record) = FIRST_RECORDS.get_ptr_mut(slot) {
        // SAFETY: the slot is ours alone until its key is inserted.
        fill::<K>(unsafe { &mut *record }, key, slot, about);
    }
    if SLOTS.insert(key, slot, u64::from(BPF_NOEXIST)).is_ok() {
        if let Some(record) = FIRST_RECORDS.get_ptr_mut(slot) {
            // SAFETY: whoever reads it looks at `kind` first.
            unsafe { (&raw mut (*record).kind).write_volatile(RECORD_FAILURE) };
        }
        return slot.into();
    }
    // Another CPU met the same key first, or the kernel refuses.
    // It came out of the queue, so there is room for it.
    let _ = FREE_SLOTS.push(slot, 0);
    // SAFETY: as in `failure`.
    if let Some(slot) = unsafe { SLOTS.get(key) } {
        return (*slot).into();
    }
    if count(about.context, Counter::KeyRefused) {
        debug!(&ctx, "the kernel refused the key of errno {} of process {}", key.errno, key.tgid);
    }
    -1
}

/// Writes a record to the ring buffer, or to this CPU's perf buffer. `ctx` is the program's context.
#[inline(never)]
pub(crate) fn emit<K: Kind>(
    ctx: *mut c_void,
    key: &FailureKey,
    slot: u32,
    kind: u32,
    about: &About,
) {
    let Some(record) = SCRATCH.get_ptr_mut(about.context as u32) else {
        count(about.context, Counter::RingFull);
        return;
    };
    // SAFETY: a per-CPU element of this context, and nothing else in it runs on this CPU meanwhile.
    let record = unsafe { &mut *record };
    fill::<K>(record, key, slot, about);
    record.kind = kind;
    let is_delivered = if host!(has_ring_buffer: u32) == 0 {
        output_to_perf_buffer(ctx, record)
    } else {
        RECORDS.output::<FailureRecord>(&*record, 0).is_ok()
    };
    if !is_delivered {
        count(about.context, Counter::RingFull);
    }
}

/// False where it is full, or this CPU has none: it was not online when fdtrace started.
#[inline(always)]
fn output_to_perf_buffer(ctx: *mut c_void, record: &mut FailureRecord) -> bool {
    // SAFETY: the helper copies so many bytes; the map is a perf buffer where this is reached.
    let result = unsafe {
        bpf_perf_event_output(
            ctx,
            (&raw const RECORDS).cast_mut().cast(),
            BPF_F_CURRENT_CPU,
            core::ptr::from_mut(record).cast(),
            FailureRecord::SIZE as u64,
        )
    };
    result == 0
}

#[inline(never)]
fn fill<K: Kind>(record: &mut FailureRecord, key: &FailureKey, slot: u32, about: &About) {
    record.key = *key;
    record.boot_ns = boot_time_ns();
    record.kind = 0;
    record.slot = slot;
    record.soft_limit = 0;
    record.hard_limit = 0;
    record.cgroup_id = 0;
    record.limit = 0;
    record.tid = 0;
    record.comm = [0; COMM_LEN];
    record.number = about.number;
    record.listener = ListenerFacts {
        address: [0; 16],
        netns: 0,
        queue_length: 0,
        queue_limit: 0,
        family: 0,
        port: 0,
        protocol: 0,
        path_len: 0,
        state: 0,
        v6only: 0,
        reserved: [0; 2],
        path: [0; SUN_PATH_LEN],
    };
    let mut known = 0;
    if about.has_limit {
        record.limit = about.limit;
        known |= valid::LIMIT;
    }
    let listener = if K::IS_CALL {
        known |= fill_task(record);
        listener::describe_file(about.place, about.kind, &mut record.listener)
    } else {
        listener::describe(about.place, &mut record.listener)
    };
    match listener {
        Ok(listener) => known |= listener,
        Err(_) => {
            count(about.context, Counter::ListenerUnread);
        }
    }
    record.valid = known;
}

/// What is known of the current task; returns which fields are, as bits of [`valid`].
#[inline(always)]
fn fill_task(record: &mut FailureRecord) -> u32 {
    let task = Task::current();
    let (tid, _) = task.pid_tgid();
    record.tid = tid;
    record.comm = task.comm();
    // SAFETY: the helper takes nothing.
    record.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    let Some((soft, hard)) = task.fd_limits() else { return 0 };
    record.soft_limit = soft;
    record.hard_limit = hard;
    valid::LIMITS
}

/// Adds one to this CPU's counter. True the first time on this CPU.
#[inline(always)]
pub(crate) fn count(context: Context, counter: Counter) -> bool {
    // SAFETY: takes nothing.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let index = (cpu * CONTEXTS + context as u32) * Counter::COUNT + counter as u32;
    let Some(value) = COUNTERS.get_ptr_mut(index) else {
        return false;
    };
    // SAFETY: only this context of this CPU writes it.
    unsafe {
        *value += 1;
        *value == 1
    }
}
