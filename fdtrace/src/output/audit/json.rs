//! One line per process or group of them, and a last one with sums.
//!
//! The names and the meaning of fields are promised: docs/audit.md and docs/audit.schema.json
//! describe them.

use std::io;

use serde::Serialize;

use crate::{
    model::{self, AuditReport, Audited, Level, WallClock},
    output::{
        explain::On,
        json::{
            self,
            diagnosis::Remedy,
            process::{Process, process},
            view::{Fds, Listener, date, fds, listener_at},
        },
    },
};

#[derive(Serialize)]
struct Body<'a> {
    level: &'static str,
    /// The first of `processes`.
    process: Option<Process<'a>>,
    processes: Vec<Process<'a>>,
    listeners: Vec<On<'a>>,
    fds: OfPid,
    findings: Vec<Finding<'a>>,
}

#[derive(Serialize)]
struct OfPid {
    pid: Option<u32>,
    #[serde(flatten)]
    fds: Fds,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the JSON fields")]
struct Finding<'a> {
    level: &'static str,
    finding: &'static str,
    listeners: Vec<Listener<'a>>,
    what: &'a str,
    cause: Option<&'static str>,
    fix: Option<Remedy<'a>>,
}

#[derive(Serialize)]
struct Summary {
    processes: usize,
    listeners: u64,
    risk: u64,
    warn: u64,
    fine: u64,
    unknown: u64,
    namespaces: u32,
    unseen: Unseen,
}

#[derive(Serialize)]
struct Unseen {
    namespaces: u32,
    without_limits: u32,
    without_unix: u32,
}

/// The lines.
pub fn audit_json(report: &AuditReport, clock: &WallClock) -> io::Result<Vec<u8>> {
    let time = date(report.at, clock);
    let mut lines = Vec::new();
    for audited in report.shown() {
        json::push_line(&mut lines, &time, "audited", Body::new(audited, clock))?;
    }
    json::push_line(&mut lines, &time, "audit_summary", Summary::new(report))?;
    Ok(lines)
}

impl<'a> Body<'a> {
    fn new(audited: &'a Audited, clock: &WallClock) -> Self {
        let processes: Vec<_> = audited.processes.iter().map(|one| process(one, clock)).collect();
        Self {
            level: level(audited),
            process: processes.first().cloned(),
            processes,
            listeners: audited.listeners.iter().map(On::new).collect(),
            fds: OfPid {
                pid: audited.fds.map(|fds| fds.pid.0),
                fds: fds(&audited.fds.map(|fds| fds.usage).unwrap_or_default()),
            },
            findings: audited.findings.iter().map(Finding::new).collect(),
        }
    }
}

/// `risk`, `warn`, `fine`, `unknown`
fn level(audited: &Audited) -> &'static str {
    let good = if audited.is_unknown() { "unknown" } else { "fine" };
    audited.level().map_or(good, Level::name)
}

impl<'a> Finding<'a> {
    fn new(finding: &'a model::Finding) -> Self {
        let model::Finding { level, kind, listeners, what, cause, fix } = finding;
        Self {
            level: level.name(),
            finding: kind.name(),
            listeners: listeners.iter().map(|address| listener_at(address, None)).collect(),
            what,
            cause: cause.map(model::Cause::name),
            fix: fix.as_ref().map(Remedy::new),
        }
    }
}

impl Summary {
    fn new(report: &AuditReport) -> Self {
        let model::Unseen { namespaces, without_limits, without_unix } = report.unseen;
        Self {
            processes: report.audited.iter().map(|one| one.processes.len()).sum(),
            listeners: report.listeners,
            risk: report.count(Level::Risk),
            warn: report.count(Level::Warn),
            fine: report.fine(),
            unknown: report.unknown(),
            namespaces: report.namespaces,
            unseen: Unseen { namespaces, without_limits, without_unix },
        }
    }
}
