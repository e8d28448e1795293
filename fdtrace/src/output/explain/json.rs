//! One line per explanation, and a last one with sums.
//!
//! The names and the meaning of fields are promised: docs/explain.md and docs/explain.schema.json
//! describe them.

use std::{borrow::Cow, io, time::Duration};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    model::{
        self, Behaviour, ChainEnd, ExplainReport, Explanation, FdUsage, LimitSource,
        ListenerReport, Peer, WallClock,
    },
    output::json::{
        self,
        diagnosis::Diagnosis,
        process::{Process, process},
        view::{Backlog, Fds, Listener, backlog, date, fds, listener},
    },
};

#[derive(Serialize)]
struct Body<'a> {
    verdict: &'static str,
    process: Option<Process<'a>>,
    fds: Fds,
    listeners: Vec<On<'a>>,
    diagnoses: Vec<Diagnosis<'a>>,
    census: Option<Census<'a>>,
    limit_chain: Vec<Ancestor<'a>>,
    limit_chain_complete: bool,
    threads: Option<u64>,
    behaviour: Option<&'static str>,
    unknown: Vec<&'a str>,
}

/// A listener, and its queue.
#[derive(Serialize)]
pub(in crate::output) struct On<'a> {
    #[serde(flatten)]
    listener: Listener<'a>,
    inode: u64,
    accept_queue: AcceptQueue,
    backlog: Backlog,
    limit_set_by: Option<&'static str>,
}

#[derive(Serialize)]
struct AcceptQueue {
    length: Option<u32>,
    limit: Option<u32>,
}

#[derive(Serialize)]
struct Census<'a> {
    open: u64,
    looked_at: u64,
    sampled: bool,
    kinds: Vec<Kind>,
    peers: Vec<PeerShare>,
    client_addresses: u64,
    servers: u64,
    paths: Vec<Path<'a>>,
    close_wait_end_was_read: u64,
    cost_s: f64,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the JSON fields")]
struct Kind {
    kind: String,
    count: u64,
    silent_median_s: Option<f64>,
    silent_longest_s: Option<f64>,
}

#[derive(Serialize)]
struct PeerShare {
    peer: String,
    role: &'static str,
    connections: u64,
    established: u64,
    close_wait: u64,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the JSON fields")]
struct Path<'a> {
    path: Cow<'a, str>,
    fds: u64,
    files: Option<u64>,
}

#[derive(Serialize)]
struct Ancestor<'a> {
    pid: u32,
    comm: Cow<'a, str>,
    start_time: Option<String>,
    soft: Option<u64>,
    hard: Option<u64>,
}

#[derive(Serialize)]
struct Summary {
    explained: usize,
    others: Vec<u32>,
}

/// The lines.
pub fn explain_json(report: &ExplainReport, clock: &WallClock) -> io::Result<Vec<u8>> {
    let time = date(report.at, clock);
    let mut lines = Vec::new();
    for explanation in &report.explanations {
        json::push_line(&mut lines, &time, "explanation", Body::new(explanation, clock))?;
    }
    let summary = Summary {
        explained: report.explanations.len(),
        others: report.others.iter().map(|other| other.process.id.pid.0).collect(),
    };
    json::push_line(&mut lines, &time, "explain_summary", summary)?;
    Ok(lines)
}

impl<'a> Body<'a> {
    fn new(explanation: &'a Explanation, clock: &WallClock) -> Self {
        let provenance = explanation.provenance.as_ref();
        let chain = provenance.map(|of| of.chain.as_slice()).unwrap_or_default();
        let mut unknown: Vec<&str> = Vec::new();
        for what in &explanation.unknown {
            if !unknown.contains(&what.as_str()) {
                unknown.push(what);
            }
        }
        Self {
            verdict: explanation.verdict.name(),
            process: explanation.process.as_ref().map(|one| process(one, clock)),
            fds: fds(&explanation.fds.map(|fds| fds.usage).unwrap_or_default()),
            listeners: explanation.listeners.iter().map(On::new).collect(),
            diagnoses: explanation.diagnoses.iter().map(Diagnosis::new).collect(),
            census: explanation.census.as_ref().map(Census::new),
            limit_chain: chain.iter().map(Ancestor::new).collect(),
            limit_chain_complete: provenance.is_some_and(|of| of.chain_end == ChainEnd::Init),
            threads: explanation.threads,
            behaviour: explanation.behaviour.as_ref().map(Behaviour::name),
            unknown,
        }
    }
}

impl<'a> On<'a> {
    pub(in crate::output) fn new(report: &'a ListenerReport) -> Self {
        let model::ListeningSocket { inode, listener: on, length, limit, drops: _ } =
            &report.socket;
        Self {
            listener: listener(on),
            inode: *inode,
            accept_queue: AcceptQueue { length: *length, limit: *limit },
            backlog: backlog(report.backlog),
            limit_set_by: report.limit_set_by().map(|source| match source {
                LimitSource::Somaxconn => "somaxconn",
                LimitSource::Application => "application",
            }),
        }
    }
}

impl<'a> Census<'a> {
    fn new(census: &'a model::Census) -> Self {
        let kind = |(kind, count): &(model::FdKind, u64)| {
            let silence = match kind {
                model::FdKind::Tcp(state) => census.silence_of(*state),
                _ => None,
            };
            Kind {
                kind: kind.to_string(),
                count: *count,
                silent_median_s: silence.map(|silence| seconds(silence.median)),
                silent_longest_s: silence.map(|silence| seconds(silence.longest)),
            }
        };
        let peer = |share: &model::PeerShare| PeerShare {
            peer: share.peer.to_string(),
            role: match share.peer {
                Peer::Client(_) => "client",
                Peer::Server(_) => "server",
            },
            connections: share.connections,
            established: share.established,
            close_wait: share.close_wait,
        };
        let path = |share: &'a model::PathShare| Path {
            path: share.path.to_string_lossy(),
            fds: share.fds,
            files: share.files,
        };
        Self {
            open: census.open.number(),
            looked_at: census.looked_at,
            sampled: census.is_sampled(),
            kinds: census.kinds.iter().map(kind).collect(),
            peers: census.peers.iter().map(peer).collect(),
            client_addresses: census.distinct_peers.clients,
            servers: census.distinct_peers.servers,
            paths: census.paths.iter().map(path).collect(),
            close_wait_end_was_read: census.end_was_read,
            cost_s: seconds(census.cost),
        }
    }
}

impl<'a> Ancestor<'a> {
    fn new(process: &'a model::Ancestor) -> Self {
        let start = process.started_at.and_then(|date| Timestamp::try_from(date).ok());
        let limits = FdUsage { open: None, limits: process.limits };
        let (soft, hard) = fds(&limits).limits();
        Self {
            pid: process.id.pid.0,
            comm: String::from_utf8_lossy(process.comm.as_bytes()),
            start_time: start.map(|start| format!("{start:.3}")),
            soft,
            hard,
        }
    }
}

/// Whole milliseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "no time span has 2^53 milliseconds")]
fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1000.0
}
