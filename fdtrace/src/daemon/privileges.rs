//! What the daemon may do. It runs for months, so what only a start takes is given up once everything is
//! attached. docs/privileges.md has what each capability is kept for.
//!
//! Capabilities and `no_new_privs` belong to threads (capabilities(7)): both functions are to be called
//! while there is one only, and every later one has what that one has.

use rustix::{
    io,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
        set_capabilities, set_no_new_privs,
    },
};

use crate::pipeline::Needs;

/// What stays where it was given: entering network namespaces, and looking into other users' processes.
const KEPT: CapabilitySet =
    CapabilitySet::SYS_ADMIN.union(CapabilitySet::SYS_PTRACE).union(CapabilitySet::DAC_READ_SEARCH);

/// What a start takes besides: programs and their memory (before 5.11 it is locked), a port below 1024.
const FOR_A_START: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// Before a file is opened: what cannot be opened without those that are given up could not be opened
/// again either, and that is to be said at once.
pub(super) fn begin() {
    told(set_no_new_privs(true), "no_new_privs");
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        // Nothing is ever executed, so that this is no more than a second lock: it takes CAP_SETPCAP,
        // and ends at the first number that this kernel does not know.
        if remove_capability_from_bounding_set(one).is_err() {
            break;
        }
    }
    told(keep(KEPT | FOR_A_START), "capabilities");
}

/// Once everything is attached.
pub(super) fn attached(needs: &Needs<'_>) {
    let packets = if needs.packets { CapabilitySet::NET_ADMIN } else { CapabilitySet::empty() };
    let kept = KEPT | packets;
    // Before 5.19 every bpf(2) takes it, where kernel.unprivileged_bpf_disabled is set
    // (kernel/bpf/syscall.c `__sys_bpf`); since then, only what creates something.
    let needs_bpf = !without(CapabilitySet::BPF, needs.may_use_maps);
    let bpf = if needs_bpf { CapabilitySet::BPF } else { CapabilitySet::empty() };
    told(keep(kept | bpf), "capabilities");
}

/// What something gives while a capability is not in effect.
fn without(capability: CapabilitySet, does_it: &dyn Fn() -> bool) -> bool {
    let Ok(sets) = capabilities(None) else { return false };
    let effective = sets.effective - capability;
    let less = CapabilitySets { effective, ..sets };
    let result = set_capabilities(None, less).is_ok() && does_it();
    told(set_capabilities(None, sets), "capabilities");
    result
}

/// Gives up all others.
fn keep(kept: CapabilitySet) -> io::Result<()> {
    let CapabilitySets { effective, permitted, .. } = capabilities(None)?;
    let inheritable = CapabilitySet::empty();
    let less =
        CapabilitySets { effective: effective & kept, permitted: permitted & kept, inheritable };
    set_capabilities(None, less)
}

/// Less would be better, and is no reason not to watch.
fn told(result: io::Result<()>, what: &str) {
    if let Err(error) = result {
        log::warn!("fdtrace may do more than it needs: {what}: {error}");
    }
}
