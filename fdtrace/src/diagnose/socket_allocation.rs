//! ENFILE, though file-max is far: the kernel could not allocate the socket's inode, for memory
//! (net/socket.c sock_alloc).

use super::{LimitFacts, handles_as_evidence, remedy::remedy};
use crate::model::{Cause, Certainty, Diagnosis, When};

pub(super) fn diagnose(facts: &LimitFacts<'_>) -> Option<Diagnosis> {
    let provenance = facts.provenance;
    let system = &provenance.system;
    let own = provenance.chain.first();
    let is_above = own.is_some_and(|own| own.above_file_max == Some(true));
    let handles = facts.file_handles_at_failure.or(system.file_handles);
    if !is_above && (handles.is_none() || system.file_max.value.is_none()) {
        return None;
    }
    let why_not = if is_above {
        "the process has CAP_SYS_ADMIN, to which fs.file-max does not apply".to_owned()
    } else {
        format!(
            "only {} of fs.file-max {} file handles are in use",
            handles.unwrap_or_default(),
            system.file_max.value.unwrap_or_default()
        )
    };
    let evidence = handles_as_evidence(handles, system.file_max.value);
    let mut unknown = provenance.unknown.clone();
    if !is_above && facts.file_handles_at_failure.is_none() {
        unknown.push("how many file handles there were when it failed".into());
    }
    unknown.push("how much memory the process's cgroup had left when it failed".into());
    let whose = own
        .and_then(|own| own.unit.as_ref())
        .map_or_else(|| "the process's cgroup".to_owned(), |unit| unit.name.clone());
    let text = format!(
        "give memory: look at memory.events and memory.max of {whose}, and at the kernel's log for \
         \"socket: no more sockets\""
    );
    Some(Diagnosis {
        cause: Cause::SocketAllocation,
        certainty: Certainty::Likely,
        why: format!("ENFILE, and {why_not}: the kernel could not allocate a socket, for memory"),
        evidence: evidence.into_iter().flatten().collect(),
        remedies: vec![remedy(When::ForGood, text, None)],
        unknown,
    })
}
