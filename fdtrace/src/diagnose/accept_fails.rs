//! Clients wait because accept fails: what helps is what helps accept.

use super::{evidence::text, queue::QueueFacts};
use crate::model::{Cause, Certainty, Diagnosis};

pub(super) fn diagnose(facts: &QueueFacts<'_>) -> Option<Diagnosis> {
    let errno = facts.accept_fails?;
    let errno = errno.to_string();
    Some(Diagnosis {
        cause: Cause::AcceptFails,
        certainty: Certainty::Certain,
        why: format!(
            "accept fails with {errno}, and leaves connections in the queue until it is full: a \
             consequence, gone with its cause"
        ),
        evidence: vec![text("accept_fails", errno)],
        remedies: Vec::new(),
        unknown: Vec::new(),
    })
}
