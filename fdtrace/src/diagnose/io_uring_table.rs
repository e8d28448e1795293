//! ENFILE of io_uring: its table of direct descriptors has no free slot. What was to go there, an
//! accepted connection or an open file, is closed (io_uring/filetable.c io_fixed_fd_install).

use super::{LimitFacts, handles_as_evidence, remedy::remedy, words::name};
use crate::model::{Cause, Certainty, Diagnosis, When};

/// Of an accept. Without memory for a socket it answers the same (net/socket.c do_accept, v6.18).
pub(super) fn of_accept(facts: &LimitFacts<'_>) -> Diagnosis {
    let unknown = "whether there was memory for a socket: without, io_uring answers the same, and the \
                   connection stays queued";
    Diagnosis {
        certainty: Certainty::Likely,
        unknown: vec![unknown.into()],
        ..full(facts, "the connections that were accepted into it are closed at once")
    }
}

/// Of another operation.
pub(super) fn of_file(facts: &LimitFacts<'_>) -> Diagnosis {
    full(facts, "what was opened for it is closed at once")
}

fn full(facts: &LimitFacts<'_>, consequence: &str) -> Diagnosis {
    let provenance = facts.provenance;
    let who = provenance.chain.first().map_or_else(|| "the program".to_owned(), name);
    let text = format!(
        "have {who} register a larger table (io_uring_register_files_sparse), and give back slots \
         of what it has closed: no limit of the system is in question"
    );
    let handles = facts.file_handles_at_failure.or(provenance.system.file_handles);
    let evidence = handles_as_evidence(handles, provenance.system.file_max.value);
    Diagnosis {
        cause: Cause::IoUringTable,
        certainty: Certainty::Certain,
        why: format!("the io_uring table of direct descriptors of {who} is full: {consequence}"),
        evidence: evidence.into_iter().flatten().collect(),
        remedies: vec![remedy(When::ForGood, text, None)],
        unknown: Vec::new(),
    }
}
