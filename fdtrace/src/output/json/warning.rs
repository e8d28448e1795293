//! Warnings.

use serde::Serialize;

use super::{
    process::{Process, process},
    view::{AcceptQueue, Fds, Listener, date, fds, listener, seconds, target},
};
use crate::model::{self, FdUsage, Outcome, Resource, WallClock, WarningReport};

/// Something is about to run out, or is not any more.
#[derive(Serialize)]
pub(super) struct Warning<'a> {
    /// The first of `processes`.
    process: Option<Process<'a>>,
    processes: Vec<Process<'a>>,
    listener: Option<Listener<'a>>,
    target: &'static str,
    resource: &'static str,
    threshold: u8,
    share: f64,
    fds: Option<Fds>,
    accept_queue: Option<AcceptQueue>,
    per_second: Option<f64>,
    full_in_s: Option<f64>,
    most: u64,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
}

impl<'a> Warning<'a> {
    pub(super) fn new(report: &'a WarningReport, clock: &WallClock) -> Self {
        let model::Warning { outcome, threshold, gauge, filling, since, most } = report.warning;
        let processes: Vec<_> = report.owners.iter().map(|owner| process(owner, clock)).collect();
        let (resource, of_fds, queue) = match report.resource {
            Resource::Fds(limits) => {
                let usage = FdUsage { open: Some(gauge.used), limits: Some(limits) };
                ("fds", Some(fds(&usage)), None)
            }
            Resource::AcceptQueue => {
                let queue = AcceptQueue { length: gauge.used, limit: gauge.limit };
                ("accept_queue", None, Some(queue))
            }
        };
        Self {
            process: processes.first().cloned(),
            processes,
            listener: report.target.listener().map(listener),
            target: target(&report.target),
            resource,
            threshold,
            share: thousandths(gauge.share()),
            fds: of_fds,
            accept_queue: queue,
            per_second: filling.map(|filling| thousandths(filling.per_second)),
            full_in_s: filling.map(|filling| seconds(filling.full_in)),
            most,
            since: date(since, clock),
            outcome: outcome.map(Outcome::name),
        }
    }
}

/// Three digits after the point: more would be noise.
fn thousandths(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
