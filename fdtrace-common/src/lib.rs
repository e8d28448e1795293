//! The wire: every type and number that the eBPF programs and the loader must agree on, and
//! nothing else.
//!
//! All integers are in the host's byte order. No type has implicit padding and no field is an
//! enum or a bool: the loader decodes bytes that it did not write, so every value of every field
//! must be representable. `layout` proves sizes and offsets at compile time, for both targets.
#![no_std]

mod calls;
mod counter;
mod descriptor;
mod failure;
mod host;
mod layout;
mod offsets;

pub use calls::{CALL_NUMBERS, Doors, FD_CALLS, FD_CALLS_THAT_FAIL, FdCall, Numbers};
pub use counter::{Counter, Lost};
pub use descriptor::Descriptor;
pub use failure::{
    COMM_LEN, Door, FailureCell, FailureKey, FailureRecord, FdKind, ListenerFacts, Peers,
    RECORD_FAILURE, RECORD_GAUGE, RECORD_LISTEN, Refusal, SUN_PATH_LEN, valid,
};
pub use host::Host;
pub use offsets::{ABSENT, Offsets};

/// Names of maps and globals: the loader finds them in the object by these. (Programs are named
/// where the loader says what each is for.) A test of the loader holds them against the object.
pub mod names {
    /// Hash: [`FailureKey`](crate::FailureKey) to slot number.
    pub const SLOTS: &str = "SLOTS";
    /// Queue of slot numbers nobody uses.
    pub const FREE_SLOTS: &str = "FREE_SLOTS";
    /// Array, mmapped: `cpu * slot_count + slot` to [`FailureCell`](crate::FailureCell).
    pub const CELLS: &str = "CELLS";
    /// Array, mmapped: slot to the first [`FailureRecord`](crate::FailureRecord) of its key.
    pub const FIRST_RECORDS: &str = "FIRST_RECORDS";
    /// Array, mmapped: `(cpu * CONTEXTS + context) * Counter::COUNT + counter` to a count.
    pub const COUNTERS: &str = "COUNTERS";
    /// Array, mmapped: slot to the [`Peers`](crate::Peers) that were refused.
    pub const PEERS: &str = "PEERS";
    /// Ring buffer of [`FailureRecord`](crate::FailureRecord)s, or a perf buffer for each CPU.
    pub const RECORDS: &str = "RECORDS";

    /// Array: whether the packet program counts SYNs, and final ACKs.
    pub const PACKETS: &str = "PACKETS";
    /// Array: every how many-th descriptor the iterator gives.
    pub const EVERY: &str = "EVERY";
    /// Hash: arguments of a function whose return is awaited (kprobe form).
    pub const CALLS: &str = "CALLS";

    /// Global: [`Offsets`](crate::Offsets).
    pub const OFFSETS: &str = "OFFSETS";
    /// Global: number of slots, a `u32`.
    pub const SLOT_COUNT: &str = "SLOT_COUNT";
    /// Global: the least time between two records of one key on one CPU, in ns, a `u64`.
    pub const RECORD_INTERVAL_NS: &str = "RECORD_INTERVAL_NS";
    /// Global: from which share of its soft limit on a process that accepts is told of, in percent, a
    /// `u32`; 0 is never.
    pub const GAUGE_SHARE: &str = "GAUGE_SHARE";
    /// Global: [`Host`](crate::Host).
    pub const HOST: &str = "HOST";
    /// Global: what CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC, in ns, a `u64`.
    pub const BOOT_OFFSET_NS: &str = "BOOT_OFFSET_NS";
    /// Global: [`Doors`](crate::Doors) by the number of a system call.
    pub const DOORS: &str = "DOORS";
    /// Global: the same of 32-bit callers.
    pub const COMPAT_DOORS: &str = "COMPAT_DOORS";
}

/// Contexts that can interrupt each other on one CPU: see the programs' `Context`. What they write is
/// kept apart.
pub const CONTEXTS: u32 = 13;

/// Default of [`names::SLOT_COUNT`]: how many keys can be counted at once.
pub const DEFAULT_SLOTS: u32 = 4096;

/// Default of [`names::RECORD_INTERVAL_NS`]: 100 ms.
pub const DEFAULT_RECORD_INTERVAL_NS: u64 = 100_000_000;

/// Default size of [`names::RECORDS`] in bytes.
pub const DEFAULT_RING_BYTES: u32 = 256 * 1024;
