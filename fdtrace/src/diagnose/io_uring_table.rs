//! ENFILE of io_uring: its table of direct descriptors has no free slot. The connection had been
//! accepted already, and is closed (io_uring/net.c io_accept, filetable.c io_fixed_fd_install).

use super::{LimitFacts, remedy::remedy, words::name};
use crate::model::{Cause, Certainty, Diagnosis, When};

pub(super) fn diagnose(facts: &LimitFacts<'_>) -> Diagnosis {
    let who = facts.provenance.chain.first().map_or_else(|| "the program".to_owned(), name);
    let text = format!(
        "have {who} register a larger table (io_uring_register_files_sparse), and give back slots \
         of closed connections: no limit of the system is in question"
    );
    Diagnosis {
        cause: Cause::IoUringTable,
        certainty: Certainty::Certain,
        why: format!(
            "the io_uring table of direct descriptors of {who} is full: the connections that were \
             accepted into it are closed at once"
        ),
        evidence: Vec::new(),
        remedies: vec![remedy(When::ForGood, text, None)],
        unknown: Vec::new(),
    }
}
