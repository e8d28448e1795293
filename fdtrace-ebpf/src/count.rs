//! Counting a failure, exactly, and telling the loader to look.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_cgroup_id, bpf_get_smp_processor_id, bpf_ktime_get_boot_ns},
};
use aya_log_ebpf::warn;
use fdtrace_common::{
    Counter, Door, FailureKey, FailureRecord, FdKind, ListenerFacts, RECORD_FAILURE, SUN_PATH_LEN,
    valid,
};

use crate::{
    listener::ListenerFile,
    maps::{
        CELLS, COUNTERS, FIRST_RECORDS, FREE_SLOTS, RECORD_INTERVAL_NS, RECORDS, SCRATCH,
        SLOT_COUNT, SLOTS,
    },
    task::Task,
};

/// Counts one failed call of the current task, and writes a record of it where one is due.
#[inline(always)]
pub(crate) fn failure<C: EbpfContext>(
    ctx: &C,
    task: Task,
    door: Door,
    errno: u16,
    file: ListenerFile,
) {
    let (_, tgid) = Task::pid_tgid();
    let key = FailureKey {
        start_boottime_ns: task.start_boottime_ns(),
        inode: file.inode,
        tgid,
        errno,
        door: door as u8,
        fd_kind: file.kind as u8,
    };
    if file.kind as u8 == FdKind::Unread as u8 {
        count(Counter::ListenerUnread);
    }
    // SAFETY: the value is a number, written once by whoever inserted the key.
    let slot = match unsafe { SLOTS.get(key) } {
        Some(slot) => *slot,
        None => match new_slot(ctx, task, &key, file) {
            Some(slot) => slot,
            None => return,
        },
    };
    // SAFETY: the helper takes nothing.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(cell) = CELLS.get_ptr_mut(cpu * SLOT_COUNT.load() + slot) else {
        count(Counter::KeyRefused);
        return;
    };
    // SAFETY: takes nothing.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: the map's own memory; no other CPU writes this cell, and a program on this one
    // cannot be interrupted by another run of itself: tracepoint programs run with preemption off.
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
        emit(task, &key, slot, file);
    }
}

/// Gives a new key a slot. `None`: the failure is not counted, and that is counted.
#[inline(always)]
fn new_slot<C: EbpfContext>(
    ctx: &C,
    task: Task,
    key: &FailureKey,
    file: ListenerFile,
) -> Option<u32> {
    let Ok(Some(slot)) = FREE_SLOTS.pop() else {
        if count(Counter::KeysFull) {
            warn!(ctx, "no slot is free for another key: failures of new keys are not counted");
        }
        return None;
    };
    // The record is written before the key can be found, and marked whole after.
    if let Some(record) = FIRST_RECORDS.get_ptr_mut(slot) {
        // SAFETY: the slot is ours alone until its key is inserted.
        fill(unsafe { &mut *record }, task, key, slot, file);
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
    if count(Counter::KeyRefused) {
        warn!(ctx, "the kernel refused to store a key: its failures are not counted");
    }
    None
}

#[inline(always)]
fn emit(task: Task, key: &FailureKey, slot: u32, file: ListenerFile) {
    let Some(record) = SCRATCH.get_ptr_mut(0) else {
        count(Counter::RingFull);
        return;
    };
    // SAFETY: a per-CPU element, and nothing else runs on this CPU meanwhile.
    let record = unsafe { &mut *record };
    fill(record, task, key, slot, file);
    record.kind = RECORD_FAILURE;
    if RECORDS.output::<FailureRecord>(&*record, 0).is_err() {
        count(Counter::RingFull);
    }
}

#[inline(always)]
fn fill(record: &mut FailureRecord, task: Task, key: &FailureKey, slot: u32, file: ListenerFile) {
    let (tid, _) = Task::pid_tgid();
    let mut known = 0;
    record.soft_limit = 0;
    record.hard_limit = 0;
    if let Some((soft, hard)) = task.fd_limits() {
        record.soft_limit = soft;
        record.hard_limit = hard;
        known |= valid::LIMITS;
    }
    record.key = *key;
    // SAFETY: takes nothing.
    record.boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: takes nothing.
    record.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    record.slot = slot;
    record.tid = tid;
    record.comm = task.comm();
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
    record.reserved = 0;
    match file.describe(&mut record.listener) {
        Ok(listener) => known |= listener,
        Err(_) => {
            count(Counter::ListenerUnread);
        }
    }
    record.valid = known;
    record.kind = 0;
}

/// Adds one to this CPU's counter. True the first time on this CPU.
#[inline(always)]
fn count(counter: Counter) -> bool {
    // SAFETY: takes nothing.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(value) = COUNTERS.get_ptr_mut(cpu * Counter::COUNT + counter as u32) else {
        return false;
    };
    // SAFETY: only this CPU writes it.
    unsafe {
        *value += 1;
        *value == 1
    }
}
