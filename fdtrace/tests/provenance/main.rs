//! Where a limit comes from, and what fdtrace says of it: on trees of files that tell a story, and
//! on real servers here, where the remedy is carried out and must help.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its log should show what was measured"
)]

mod parents;
mod real;
mod stories;
mod tree;

use fdtrace::{
    diagnose::{self, Failed, LimitFacts},
    model::{Diagnosis, Provenance},
};

/// What fdtrace says of a call that found no descriptor.
#[track_caller]
fn diagnosed(provenance: &Provenance) -> Diagnosis {
    let mut found = limits(provenance, Failed::Descriptor);
    assert_eq!(found.len(), 1, "{provenance:#?}");
    found.remove(0)
}

fn limits(provenance: &Provenance, failed: Failed) -> Vec<Diagnosis> {
    diagnose::limits(&LimitFacts {
        provenance,
        failed,
        limits_at_failure: None,
        open: None,
        file_handles_at_failure: None,
        held: None,
    })
}
