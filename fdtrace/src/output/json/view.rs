//! The JSON form of each report, borrowed from the model.
//!
//! Renaming anything in the model changes nothing here; renaming anything here breaks a promise.

use std::{borrow::Cow, net::IpAddr, time::Duration};

use jiff::Timestamp;
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{
    diagnosis::Diagnosis,
    kernel::Kernel,
    process::{Process, process},
    warning::Warning,
};
use crate::model::{
    self, BootTime, Door, EpisodeReport, Failure, FdUsage, Figures, Limit, ListenerAddress,
    LostCount, Outcome, Phase, ProbeReport, Report, Target, UnixName, WallClock,
};

/// Grows when a field changes its meaning or goes away, not when one is added.
pub(in crate::output) const SCHEMA: u32 = 1;

#[derive(Serialize)]
pub(super) struct Line<'a> {
    schema: u32,
    time: String,
    kind: &'static str,
    #[serde(flatten)]
    body: Body<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Started(Started<'a>),
    Episode(Box<Episode<'a>>),
    Diagnosed(Box<Diagnosed<'a>>),
    Warning(Box<Warning<'a>>),
    Lost { lost: Lost<'a> },
    Summary(Summary<'a>),
}

#[derive(Serialize)]
struct Started<'a> {
    version: &'a str,
    kernel: &'a str,
    probes: Vec<Probe<'a>>,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the JSON fields")]
struct Probe<'a> {
    probe: &'a str,
    form: &'a str,
    refused: Vec<RefusedForm<'a>>,
}

#[derive(Serialize)]
struct RefusedForm<'a> {
    form: &'a str,
    why: &'a str,
}

#[derive(Serialize)]
struct Episode<'a> {
    #[serde(flatten)]
    key: Key<'a>,
    count: u64,
    new: u64,
    fds: Fds,
    limit: Option<Ceiling>,
    file_handles: Option<FileHandles>,
    accept_queue: Option<AcceptQueue>,
    backlog: Option<Backlog>,
    refused: Option<Refused>,
    first: String,
    last: String,
    duration_s: f64,
    cause: Option<&'static str>,
    certainty: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
}

/// Why an episode's failures happen.
#[derive(Serialize)]
struct Diagnosed<'a> {
    #[serde(flatten)]
    key: Key<'a>,
    diagnoses: Vec<Diagnosis<'a>>,
}

/// What failures are counted by.
#[derive(Serialize)]
struct Key<'a> {
    /// The first of `processes`.
    process: Option<Process<'a>>,
    processes: Vec<Process<'a>>,
    listener: Option<Listener<'a>>,
    target: &'static str,
    failure: Cow<'static, str>,
    door: &'static str,
    syn_queue_full: bool,
}

#[derive(Serialize)]
pub(in crate::output) struct Listener<'a> {
    family: Cow<'static, str>,
    address: Option<IpAddr>,
    port: Option<u16>,
    path: Option<Cow<'a, str>>,
    netns: Option<u32>,
}

#[derive(Serialize)]
pub(in crate::output) struct Fds {
    open: Option<u64>,
    soft: Option<u64>,
    hard: Option<u64>,
}

/// The limit that was reached.
#[derive(Serialize)]
struct Ceiling {
    kind: &'static str,
    value: Option<u64>,
}

#[derive(Serialize)]
struct FileHandles {
    used: u64,
    max: u64,
}

#[derive(Serialize)]
pub(super) struct AcceptQueue {
    pub(super) length: u64,
    pub(super) limit: u64,
}

#[derive(Serialize)]
pub(in crate::output) struct Backlog {
    requested: Option<u32>,
    somaxconn: Option<u32>,
}

#[derive(Serialize)]
struct Refused {
    attempts: u64,
    connections: Option<u64>,
    figures: &'static str,
}

#[derive(Serialize)]
struct Summary<'a> {
    started: String,
    totals: Vec<Total<'a>>,
    kernel: Option<Kernel>,
    lost: Lost<'a>,
    probes: Vec<Probe<'a>>,
}

#[derive(Serialize)]
struct Total<'a> {
    #[serde(flatten)]
    key: Key<'a>,
    count: u64,
    first: String,
    last: String,
}

/// `{"REASON": COUNT}`
struct Lost<'a>(&'a [LostCount]);

impl Serialize for Lost<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for lost in self.0 {
            map.serialize_entry(lost.reason, &lost.count)?;
        }
        map.end()
    }
}

impl<'a> Line<'a> {
    pub(super) fn new(report: &'a Report, clock: &WallClock) -> Self {
        let (at, kind, body) = match report {
            Report::Started(started) => {
                let model::Started { at, version, kernel, probes } = started;
                let body = Started { version, kernel, probes: probe_list(probes) };
                (*at, "started", Body::Started(body))
            }
            Report::Episode(report) => {
                let kind = match report.phase {
                    Phase::Opened => "episode_opened",
                    Phase::Updated => "episode_updated",
                    Phase::Closed(_) => "episode_closed",
                };
                (report.at, kind, Body::Episode(Box::new(Episode::new(report, clock))))
            }
            Report::Diagnosed(report) => {
                let model::DiagnosisReport { at, episode, diagnoses } = &**report;
                let body = Diagnosed {
                    key: Key::of(episode, clock),
                    diagnoses: diagnoses.iter().map(Diagnosis::new).collect(),
                };
                (*at, "episode_diagnosed", Body::Diagnosed(Box::new(body)))
            }
            Report::Warning(report) => {
                let is_over = report.warning.outcome.is_some();
                let kind = if is_over { "warning_cleared" } else { "warning_raised" };
                (report.at, kind, Body::Warning(Box::new(Warning::new(report, clock))))
            }
            Report::Lost(report) => (report.at, "lost", Body::Lost { lost: Lost(&report.lost) }),
            Report::Summary(summary) => {
                let model::Summary { started, at, totals, lost, kernel, probes } = summary;
                let body = Summary {
                    started: date(*started, clock),
                    totals: totals.iter().map(|total| Total::new(total, clock)).collect(),
                    kernel: Kernel::new(kernel),
                    lost: Lost(lost),
                    probes: probe_list(probes),
                };
                (*at, "summary", Body::Summary(body))
            }
        };
        Self { schema: SCHEMA, time: date(at, clock), kind, body }
    }
}

impl<'a> Episode<'a> {
    fn new(report: &'a EpisodeReport, clock: &WallClock) -> Self {
        Self {
            key: Key::of(report, clock),
            count: report.count,
            new: report.new,
            fds: fds(&report.fds),
            limit: report
                .ceiling
                .map(|ceiling| Ceiling { kind: ceiling.name(), value: ceiling.value() }),
            file_handles: report
                .handles
                .map(|model::FileHandles { used, max }| FileHandles { used, max }),
            accept_queue: report.queue.map(|model::AcceptQueue { length, limit }| AcceptQueue {
                length: length.into(),
                limit: limit.into(),
            }),
            backlog: report.backlog.map(backlog),
            refused: report.refused.map(|model::Refused { attempts, connections, figures }| {
                Refused {
                    attempts,
                    connections,
                    figures: match figures {
                        Figures::Exact => "exact",
                        Figures::AtLeast => "at_least",
                        Figures::AtMost => "polled",
                    },
                }
            }),
            first: date(report.first, clock),
            last: date(report.last, clock),
            duration_s: seconds(report.last.since(report.first)),
            cause: report.cause.map(|known| known.cause.name()),
            certainty: report.cause.map(|known| known.certainty.name()),
            outcome: report.outcome().map(Outcome::name),
        }
    }
}

impl<'a> Key<'a> {
    fn of(episode: &'a EpisodeReport, clock: &WallClock) -> Self {
        let EpisodeReport { owners, target, failure, door, .. } = episode;
        Self::new(owners, target, *failure, *door, clock)
    }

    fn new(
        owners: &'a [model::Process],
        on: &'a Target,
        why: Failure,
        door: Door,
        clock: &WallClock,
    ) -> Self {
        let processes: Vec<_> = owners.iter().map(|owner| process(owner, clock)).collect();
        Self {
            process: processes.first().cloned(),
            processes,
            listener: on.listener().map(listener),
            target: target(on),
            failure: failure(why),
            door: door.name(),
            syn_queue_full: matches!(why, Failure::AcceptQueueFull { syn_queue_full: true }),
        }
    }
}

impl<'a> Total<'a> {
    fn new(total: &'a model::Total, clock: &WallClock) -> Self {
        Self {
            key: Key::new(&total.owners, &total.target, total.failure, total.door, clock),
            count: total.count,
            first: date(total.first, clock),
            last: date(total.last, clock),
        }
    }
}

fn probe_list<'a>(probes: &'a [ProbeReport]) -> Vec<Probe<'a>> {
    let refused =
        |refused: &'a model::RefusedForm| RefusedForm { form: refused.form, why: &refused.why };
    let probe = |report: &'a ProbeReport| Probe {
        probe: report.probe,
        form: report.form,
        refused: report.refused.iter().map(refused).collect(),
    };
    probes.iter().map(probe).collect()
}

pub(in crate::output) fn listener(listener: &model::Listener) -> Listener<'_> {
    let model::Listener { netns, address } = listener;
    listener_at(address, *netns)
}

pub(in crate::output) fn listener_at(
    address: &ListenerAddress,
    netns: Option<u32>,
) -> Listener<'_> {
    let (family, ip, path) = match address {
        ListenerAddress::Inet { ip: ip @ IpAddr::V4(_), .. } => ("inet".into(), Some(*ip), None),
        ListenerAddress::Inet { ip: ip @ IpAddr::V6(_), .. } => ("inet6".into(), Some(*ip), None),
        ListenerAddress::Unix(name) => ("unix".into(), None, unix_path(name)),
        ListenerAddress::Other(family) => (format!("af_{family}").into(), None, None),
    };
    Listener { family, address: ip, port: address.port(), path, netns }
}

fn unix_path(name: &UnixName) -> Option<Cow<'_, str>> {
    match name {
        UnixName::Path(path) => Some(text(path)),
        UnixName::Abstract(name) => Some(format!("@{}", text(name)).into()),
        UnixName::Unnamed => Some("".into()),
        UnixName::Unknown => None,
    }
}

pub(super) const fn target(target: &Target) -> &'static str {
    match target {
        Target::Listener(_) => "listener",
        Target::None => "none",
        Target::NotSocket => "not_socket",
        Target::NotOpen => "not_open",
        Target::Unread => "unread",
    }
}

pub(in crate::output) fn failure(failure: Failure) -> Cow<'static, str> {
    match failure {
        Failure::Errno(errno) => {
            errno.name().map_or_else(|| format!("errno_{}", errno.0).into(), Cow::from)
        }
        Failure::AcceptQueueFull { .. } => "accept_queue_full".into(),
        Failure::SynQueueFull => "syn_queue_full".into(),
        Failure::SynCookieSent => "syn_cookie_sent".into(),
    }
}

pub(in crate::output) fn fds(usage: &FdUsage) -> Fds {
    // RLIM_INFINITY as the kernel has it: greater than every count, where null would be unknown.
    let number = |limit: Limit| limit.number().unwrap_or(u64::MAX);
    Fds {
        open: usage.open,
        soft: usage.limits.map(|limits| number(limits.soft)),
        hard: usage.limits.map(|limits| number(limits.hard)),
    }
}

impl Fds {
    /// Soft and hard.
    pub(in crate::output) const fn limits(&self) -> (Option<u64>, Option<u64>) {
        (self.soft, self.hard)
    }
}

pub(in crate::output) const fn backlog(backlog: model::Backlog) -> Backlog {
    let model::Backlog { requested, somaxconn } = backlog;
    Backlog { requested, somaxconn }
}

/// RFC 3339 in UTC, with milliseconds.
pub(in crate::output) fn date(at: BootTime, clock: &WallClock) -> String {
    // Out of range only where the host's clock is thousands of years off.
    let timestamp = Timestamp::try_from(clock.date(at)).unwrap_or_default();
    format!("{timestamp:.3}")
}

/// Whole milliseconds as seconds.
pub(super) fn seconds(duration: Duration) -> f64 {
    Duration::new(duration.as_secs(), duration.subsec_millis() * 1_000_000).as_secs_f64()
}

/// As text, invalid UTF-8 replaced.
pub(super) fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
