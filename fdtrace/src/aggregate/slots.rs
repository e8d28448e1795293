//! Which key uses which slot of the kernel side, from its first record until it is given back.

use std::{collections::HashMap, time::Duration};

use super::subject::SubjectId;
use crate::model::{BootTime, Door, Failure, FailureEvent, ProcessId};

/// The count of a slot, read at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotCount {
    /// Failures since the slot was given to its key.
    pub total: u64,
    /// The last of them.
    pub last: BootTime,
}

/// After a process is gone nothing can add to its keys; wait so long before they are given back.
const GONE_GRACE: Duration = Duration::from_secs(2);
/// A key without failures for so long is given back, so that a host where many processes fail once
/// does not fill the table.
const IDLE: Duration = Duration::from_secs(60);
/// A program that found a slot before it was retired is done after so long: it runs with
/// preemption off.
const RETIRE_GRACE: Duration = Duration::from_secs(1);

/// What a slot counts: the key of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    /// `None` for refused segments.
    process: Option<ProcessId>,
    inode: u64,
    door: Door,
    failure: Failure,
}

#[derive(Debug)]
struct Slot {
    key: Key,
    subject: SubjectId,
    counted: u64,
    active: BootTime,
    retired: Option<BootTime>,
}

/// Every slot in use.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: HashMap<u32, Slot>,
}

impl Slots {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn contains(&self, slot: u32) -> bool {
        self.slots.contains_key(&slot)
    }

    pub(super) fn numbers(&self) -> Vec<u32> {
        self.slots.keys().copied().collect()
    }

    /// The slots that count refused clients, each with its socket and why it refused them.
    pub(super) fn refusing(&self) -> impl Iterator<Item = (u32, u64, Failure)> {
        let slots = self.slots.iter().filter(|(_, slot)| slot.key.failure.is_refusal());
        slots.map(|(number, slot)| (*number, slot.key.inode, slot.key.failure))
    }

    /// Notes that a slot counts failures like this one.
    pub(super) fn note(&mut self, event: &FailureEvent, subject: SubjectId) {
        let FailureEvent { key, caller, door, failure, at, .. } = event;
        let process = caller.as_ref().map(|caller| caller.process);
        let wire = Key { process, inode: key.inode, door: *door, failure: *failure };
        let slot = self.slots.entry(key.slot).or_insert_with(|| Slot {
            key: wire,
            subject,
            counted: 0,
            active: *at,
            retired: None,
        });
        if slot.key != wire {
            // Its last user's count was taken when it was recycled.
            *slot = Slot { key: wire, subject, counted: 0, active: *at, retired: None };
        }
    }

    /// Takes a count; returns whose it is and how much it grew.
    pub(super) fn advance(&mut self, slot: u32, count: SlotCount) -> Option<(SubjectId, u64)> {
        let slot = self.slots.get_mut(&slot)?;
        let new = count.total.saturating_sub(slot.counted);
        if new > 0 {
            slot.counted = count.total;
            slot.active = slot.active.max(count.last);
        }
        Some((slot.subject, new))
    }

    /// The slots nobody needs any more, which are noted as retired.
    pub(super) fn retire(
        &mut self,
        now: BootTime,
        is_open: impl Fn(SubjectId) -> bool,
        is_alive: impl Fn(ProcessId) -> bool,
    ) -> Vec<u32> {
        let mut retired = Vec::new();
        for (number, slot) in &mut self.slots {
            let idle = now.since(slot.active);
            if slot.retired.is_some() || idle < GONE_GRACE || is_open(slot.subject) {
                continue;
            }
            // A listener may close without notice: its keys only go when they are idle.
            if idle >= IDLE || slot.key.process.is_some_and(|process| !is_alive(process)) {
                slot.retired = Some(now);
                retired.push(*number);
            }
        }
        retired
    }

    /// The retired slots no program can hold any more.
    pub(super) fn recyclable(&self, now: BootTime) -> Vec<u32> {
        let is_due = |slot: &Slot| slot.retired.is_some_and(|at| now.since(at) >= RETIRE_GRACE);
        self.slots.iter().filter(|(_, slot)| is_due(slot)).map(|(number, _)| *number).collect()
    }

    pub(super) fn remove(&mut self, slot: u32) {
        self.slots.remove(&slot);
    }
}
