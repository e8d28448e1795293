//! One line per listener, and a last one with sums.
//!
//! The names and the meaning of fields are promised: docs/listeners.md describes them.

use std::io;

use serde::Serialize;

use crate::{
    model::{self, LimitSource, ListenerReport, ListenersReport, Risk, WallClock},
    output::json::{
        self,
        process::{Process, process},
        view::{Backlog, Fds, Listener, backlog, date, fds, listener},
    },
};

#[derive(Serialize)]
struct Body<'a> {
    /// The first of `processes`.
    process: Option<Process<'a>>,
    processes: Vec<Process<'a>>,
    listener: Listener<'a>,
    inode: u64,
    accept_queue: AcceptQueue,
    backlog: Backlog,
    limit_set_by: Option<&'static str>,
    fds: OwnersFds,
    drops_at_most: Option<u32>,
    risks: Vec<&'static str>,
    notes: Vec<&'static str>,
}

#[derive(Serialize)]
struct AcceptQueue {
    length: Option<u32>,
    limit: Option<u32>,
}

#[derive(Serialize)]
struct OwnersFds {
    pid: Option<u32>,
    #[serde(flatten)]
    fds: Fds,
}

#[derive(Serialize)]
struct Summary {
    listeners: usize,
    at_risk: usize,
    exhausted: usize,
    without_owner: usize,
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
pub fn listeners_json(report: &ListenersReport, clock: &WallClock) -> io::Result<Vec<u8>> {
    let time = date(report.at, clock);
    let mut lines = Vec::new();
    for listener in &report.listeners {
        json::push_line(&mut lines, &time, "listener", Body::new(listener, clock))?;
    }
    json::push_line(&mut lines, &time, "listeners_summary", Summary::new(report))?;
    Ok(lines)
}

impl<'a> Body<'a> {
    fn new(report: &'a ListenerReport, clock: &WallClock) -> Self {
        let model::ListeningSocket { inode, listener: on, length, limit, drops } = &report.socket;
        let processes: Vec<_> = report.owners.iter().map(|owner| process(owner, clock)).collect();
        Self {
            process: processes.first().cloned(),
            processes,
            listener: listener(on),
            inode: *inode,
            accept_queue: AcceptQueue { length: *length, limit: *limit },
            backlog: backlog(report.backlog),
            limit_set_by: report.limit_set_by().map(|source| match source {
                LimitSource::Somaxconn => "somaxconn",
                LimitSource::Application => "application",
            }),
            fds: OwnersFds {
                pid: report.fds.map(|owner| owner.pid.0),
                fds: fds(&report.fds.map(|owner| owner.usage).unwrap_or_default()),
            },
            drops_at_most: *drops,
            risks: report.risks().into_iter().map(risk).collect(),
            notes: report.is_small().then_some("small_limit").into_iter().collect(),
        }
    }
}

const fn risk(risk: Risk) -> &'static str {
    match risk {
        Risk::QueueFull => "accept_queue_full",
        Risk::FdsExhausted => "fds_exhausted",
        Risk::QueueFilling => "accept_queue_filling",
        Risk::FdsFilling => "fds_filling",
    }
}

impl Summary {
    fn new(report: &ListenersReport) -> Self {
        let model::Unseen { namespaces, without_limits, without_unix } = report.unseen;
        let count = |of: &dyn Fn(&ListenerReport) -> bool| {
            report.listeners.iter().filter(|listener| of(listener)).count()
        };
        Self {
            listeners: report.listeners.len(),
            at_risk: count(&|listener| !listener.risks().is_empty()),
            exhausted: count(&ListenerReport::is_exhausted),
            without_owner: count(&|listener| listener.owners.is_empty()),
            namespaces: report.namespaces,
            unseen: Unseen { namespaces, without_limits, without_unix },
        }
    }
}
