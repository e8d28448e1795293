//! `fs.file-max`: the whole system has no file handle left for a process that is no administrator.

use super::{LimitFacts, handles_as_evidence, remedy};
use crate::model::{Cause, Certainty, Diagnosis};

pub(super) fn diagnose(facts: &LimitFacts<'_>) -> Option<Diagnosis> {
    let system = &facts.provenance.system;
    let own = facts.provenance.chain.first();
    // fs/file_table.c alloc_empty_file: CAP_SYS_ADMIN goes above it.
    if own.is_some_and(|own| own.above_file_max == Some(true)) {
        return None;
    }
    let mut unknown = facts.provenance.unknown.clone();
    let handles = facts.file_handles_at_failure.or(system.file_handles);
    let certainty = match (handles, system.file_max.value) {
        // The count is kept per CPU, and what is read is a little off.
        (Some(handles), Some(most)) if handles >= most - most / 100 => Certainty::Certain,
        // Read after the failure: some may have been closed since.
        (Some(handles), Some(most))
            if facts.file_handles_at_failure.is_none() && handles >= most / 2 =>
        {
            unknown.push("how many file handles there were when it failed".into());
            Certainty::Likely
        }
        (Some(_), Some(_)) => return None,
        _ => {
            unknown.push("whether the system has reached fs.file-max".into());
            Certainty::Likely
        }
    };
    let evidence = handles_as_evidence(handles, system.file_max.value);
    let is_known = |value: Option<u64>| value.map_or("?".into(), |value| value.to_string());
    let why = format!(
        "the system has {} of fs.file-max {} file handles in use: no process without \
         CAP_SYS_ADMIN can open a file or a socket",
        is_known(handles),
        is_known(system.file_max.value)
    );
    let most = system.file_max.value.unwrap_or(0);
    let target = most.saturating_mul(2).clamp(1_048_576, i64::MAX.unsigned_abs());
    Some(Diagnosis {
        cause: Cause::FileMax,
        certainty,
        why,
        evidence: evidence.into_iter().flatten().collect(),
        remedies: remedy::sysctl("fs.file-max", target, system.file_max.configured.as_ref()),
        unknown,
    })
}
