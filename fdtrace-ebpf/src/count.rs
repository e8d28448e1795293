//! Counting a failure, exactly, and telling the loader to look.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns},
};
use aya_log_ebpf::warn;
use fdtrace_common::{
    COMM_LEN, CONTEXTS, Counter, FailureKey, FailureRecord, ListenerFacts, RECORD_FAILURE,
    SUN_PATH_LEN,
};

use crate::maps::{
    CELLS, COUNTERS, FIRST_RECORDS, FREE_SLOTS, RECORD_INTERVAL_NS, RECORDS, SCRATCH, SLOT_COUNT,
    SLOTS,
};

/// What a record describes.
pub(crate) trait Subject: Copy {
    /// Where its programs run. A softirq can interrupt a task's program on the same CPU, so what
    /// both write without atomics is kept apart.
    const CONTEXT: Context;

    /// Fills everything but the key, the time, the slot and the kind; returns the bits of `valid`.
    fn fill(self, record: &mut FailureRecord) -> u32;
}

/// A context of programs.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Context {
    Task = 0,
    SoftIrq = 1,
}

/// Counts one failure, and writes a record of it where one is due. Returns its slot, if it was
/// counted.
#[inline(always)]
pub(crate) fn failure<C: EbpfContext, S: Subject>(
    ctx: &C,
    key: &FailureKey,
    subject: S,
) -> Option<u32> {
    // SAFETY: the value is a number, written once by whoever inserted the key.
    let slot = match unsafe { SLOTS.get(key) } {
        Some(slot) => *slot,
        None => new_slot(ctx, key, subject)?,
    };
    // SAFETY: the helper takes nothing.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(cell) = CELLS.get_ptr_mut(cpu * SLOT_COUNT.load() + slot) else {
        count(S::CONTEXT, Counter::KeyRefused);
        return None;
    };
    // SAFETY: takes nothing.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: the map's own memory. No other CPU writes this cell, and on this CPU nothing else
    // does meanwhile: tracepoint programs run with preemption off, packet programs in softirq, and
    // the key says which of the two it is.
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
        emit(key, slot, RECORD_FAILURE, subject);
    }
    Some(slot)
}

/// Gives a new key a slot. `None`: the failure is not counted, and that is counted.
#[inline(always)]
fn new_slot<C: EbpfContext, S: Subject>(ctx: &C, key: &FailureKey, subject: S) -> Option<u32> {
    let Ok(Some(slot)) = FREE_SLOTS.pop() else {
        if count(S::CONTEXT, Counter::KeysFull) {
            warn!(ctx, "no slot is free for another key: failures of new keys are not counted");
        }
        return None;
    };
    // The record is written before the key can be found, and marked whole after.
    if let Some(record) = FIRST_RECORDS.get_ptr_mut(slot) {
        // SAFETY: the slot is ours alone until its key is inserted.
        fill(unsafe { &mut *record }, key, slot, subject);
    }
    if SLOTS.insert(key, slot, u64::from(BPF_NOEXIST)).is_ok() {
        if let Some(record) = FIRST_RECORDS.get_ptr_mut(slot) {
            // SAFETY: whoever reads it looks at `kind` first.
            unsafe { (&raw mut (*record).kind).write_volatile(RECORD_FAILURE) };
        }
        return Some(slot);
    }
    // Another CPU met the same key first, or the kernel refuses.
    // It came out of the queue, so there is room for it.
    let _ = FREE_SLOTS.push(slot, 0);
    // SAFETY: as in `failure`.
    if let Some(slot) = unsafe { SLOTS.get(key) } {
        return Some(*slot);
    }
    if count(S::CONTEXT, Counter::KeyRefused) {
        warn!(ctx, "the kernel refused to store a key: its failures are not counted");
    }
    None
}

/// Writes a record to the ring buffer.
#[inline(always)]
pub(crate) fn emit<S: Subject>(key: &FailureKey, slot: u32, kind: u32, subject: S) {
    let Some(record) = SCRATCH.get_ptr_mut(S::CONTEXT as u32) else {
        count(S::CONTEXT, Counter::RingFull);
        return;
    };
    // SAFETY: a per-CPU element of this context, and nothing else in it runs on this CPU meanwhile.
    let record = unsafe { &mut *record };
    fill(record, key, slot, subject);
    record.kind = kind;
    if RECORDS.output::<FailureRecord>(&*record, 0).is_err() {
        count(S::CONTEXT, Counter::RingFull);
    }
}

#[inline(always)]
fn fill<S: Subject>(record: &mut FailureRecord, key: &FailureKey, slot: u32, subject: S) {
    record.key = *key;
    // SAFETY: takes nothing.
    record.boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    record.kind = 0;
    record.slot = slot;
    record.soft_limit = 0;
    record.hard_limit = 0;
    record.cgroup_id = 0;
    record.tid = 0;
    record.comm = [0; COMM_LEN];
    record.requested_backlog = 0;
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
    record.valid = subject.fill(record);
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
