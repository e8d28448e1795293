//! The wire: every type and number that the eBPF programs and the loader must agree on, and
//! nothing else.
//!
//! All integers are in the host's byte order. No type has implicit padding and no field is an
//! enum or a bool: the loader decodes bytes that it did not write, so every value of every field
//! must be representable. `layout` proves sizes and offsets at compile time, for both targets.
#![no_std]

mod counter;
mod failure;
mod layout;
mod offsets;

pub use counter::{Counter, Lost};
pub use failure::{
    COMM_LEN, Door, FailureCell, FailureKey, FailureRecord, FdKind, ListenerFacts, Peers,
    RECORD_FAILURE, RECORD_LISTEN, Refusal, SUN_PATH_LEN, valid,
};
pub use offsets::{ABSENT, Offsets};

/// Names of programs, maps and globals: the loader finds them in the object by these.
///
/// A test of the loader holds them against the compiled object. The kernel keeps 15 bytes of a
/// program's name.
pub mod names {
    /// Program on `syscalls:sys_exit_accept`.
    pub const ACCEPT_EXIT_TP: &str = "accept_exit_tp";
    /// Program on `syscalls:sys_exit_accept4`.
    pub const ACCEPT4_EXIT_TP: &str = "accept4_exit_tp";
    /// Program on `syscalls:sys_exit_socket`.
    pub const SOCKET_EXIT_TP: &str = "socket_exit_tp";
    /// Program on `syscalls:sys_exit_socketpair`.
    pub const PAIR_EXIT_TP: &str = "pair_exit_tp";

    /// Program on `syscalls:sys_exit_listen`.
    pub const LISTEN_EXIT_TP: &str = "listen_exit_tp";
    /// Program on `cgroup_skb/ingress`.
    pub const REFUSED_CG: &str = "refused_cg";

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
    /// Ring buffer of [`FailureRecord`](crate::FailureRecord)s.
    pub const RECORDS: &str = "RECORDS";

    /// Global: [`Offsets`](crate::Offsets).
    pub const OFFSETS: &str = "OFFSETS";
    /// Global: number of slots, a `u32`.
    pub const SLOT_COUNT: &str = "SLOT_COUNT";
    /// Global: the least time between two records of one key on one CPU, in ns, a `u64`.
    pub const RECORD_INTERVAL_NS: &str = "RECORD_INTERVAL_NS";
}

/// Contexts that can interrupt each other on one CPU: a task, and the softirq that receives packets.
/// What both write is kept apart.
pub const CONTEXTS: u32 = 2;

/// Default of [`names::SLOT_COUNT`]: how many keys can be counted at once.
pub const DEFAULT_SLOTS: u32 = 4096;

/// Default of [`names::RECORD_INTERVAL_NS`]: 100 ms.
pub const DEFAULT_RECORD_INTERVAL_NS: u64 = 100_000_000;

/// Default size of [`names::RECORDS`] in bytes.
pub const DEFAULT_RING_BYTES: u32 = 256 * 1024;
