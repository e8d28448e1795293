//! Reports that the sinks' tests share.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use crate::model::{
    AcceptQueue, Backlog, BootTime, Cause, Ceiling, Certainty, Comm, CounterPair, Diagnosis,
    DiagnosisReport, Door, EpisodeReport, Errno, Evidence, Failure, FdLimits, FdUsage, Figures,
    Filling, Gauge, Limit, Listener, ListenerAddress, LostCount, LostKind, Outcome, Phase, Pid,
    ProbeReport, Process, ProcessId, Reconciliation, Refused, RefusedForm, Remedy, Report,
    Resource, Started, Summary, Target, Total, UnixName, Value, WallClock, Warning, WarningReport,
    When,
};

/// Boot was at 2024-07-29 21:56:40.000 UTC.
pub(super) fn clock() -> WallClock {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_722_290_200);
    WallClock { boot: BootTime(Duration::ZERO), wall }
}

pub(super) const fn at(millis: u64) -> BootTime {
    BootTime(Duration::from_millis(millis))
}

pub(super) fn process() -> Process {
    let id = ProcessId { pid: Pid(14807), started: at(1_500) };
    Process {
        exe: Some(PathBuf::from("/opt/df/dataforwardsrv")),
        cmdline: Some(vec![b"dataforwardsrv".to_vec(), b"--port=9088".to_vec()]),
        unit: Some("supervisord.service".to_owned()),
        ns_pid: Some(id.pid),
        ..Process::unread(id, Comm::from_bytes(b"dataforwardsrv"))
    }
}

/// One of which only the kernel side told.
pub(super) fn stranger(comm: &[u8]) -> Process {
    Process::unread(process().id, Comm::from_bytes(comm))
}

/// A pre-fork server: a master and `workers` of them on one listener.
pub(super) fn nginx(workers: u32) -> Vec<Process> {
    let owner = |pid| {
        let id = ProcessId { pid: Pid(pid), started: at(1_700) };
        let unit = Some("nginx.service".to_owned());
        Process { id, unit, ..stranger(b"nginx") }
    };
    (812..=812 + workers).map(owner).collect()
}

pub(super) fn inet(ip: IpAddr, port: u16, dual_stack: Option<bool>) -> Target {
    listener(ListenerAddress::Inet { ip, port, dual_stack })
}

pub(super) fn every(port: u16) -> Target {
    inet(Ipv6Addr::UNSPECIFIED.into(), port, Some(true))
}

pub(super) fn ipv4(port: u16) -> Target {
    inet(Ipv4Addr::new(192, 0, 2, 7).into(), port, None)
}

pub(super) fn unix(name: UnixName) -> Target {
    listener(ListenerAddress::Unix(name))
}

pub(super) fn listener(address: ListenerAddress) -> Target {
    Target::Listener(Listener { netns: Some(4_026_531_840), address })
}

/// Everything known, the first line of the design.
pub(crate) fn opened() -> EpisodeReport {
    EpisodeReport {
        at: at(3_120),
        phase: Phase::Opened,
        owners: vec![process()],
        target: every(9088),
        door: Door::Accept4,
        failure: Failure::Errno(Errno::EMFILE),
        count: 1,
        new: 1,
        period: Duration::ZERO,
        first: at(3_119),
        last: at(3_119),
        fds: FdUsage {
            open: Some(1024),
            limits: Some(FdLimits { soft: Limit::Of(1024), hard: Limit::Of(4096) }),
        },
        ceiling: Some(Ceiling::NoFile(1024)),
        handles: None,
        queue: Some(AcceptQueue { length: 61, limit: 128 }),
        backlog: None,
        refused: None,
        clients: None,
        inodes: vec![77],
        failures: Vec::new(),
        cause: None,
    }
}

/// Nothing known but that it failed.
pub(super) fn unknown() -> EpisodeReport {
    EpisodeReport {
        owners: vec![stranger(b"")],
        target: Target::Unread,
        fds: FdUsage::default(),
        ceiling: None,
        queue: None,
        ..opened()
    }
}

pub(super) fn updated() -> EpisodeReport {
    EpisodeReport {
        at: at(8_120),
        phase: Phase::Updated,
        count: 8,
        new: 7,
        period: Duration::from_secs(5),
        last: at(8_100),
        queue: Some(AcceptQueue { length: 129, limit: 128 }),
        ..opened()
    }
}

pub(super) fn closed(outcome: Outcome) -> EpisodeReport {
    EpisodeReport {
        at: at(81_440),
        phase: Phase::Closed(outcome),
        count: 119,
        new: 3,
        period: Duration::from_millis(3_320),
        last: at(81_300),
        ..opened()
    }
}

pub(super) fn socket() -> EpisodeReport {
    EpisodeReport {
        owners: vec![stranger(b"node")],
        target: Target::None,
        door: Door::Socket,
        queue: None,
        ..opened()
    }
}

/// Clients are refused, whatever its calls do.
pub(super) fn overflow() -> EpisodeReport {
    EpisodeReport {
        owners: nginx(3),
        target: every(80),
        door: Door::Syn,
        failure: Failure::AcceptQueueFull { syn_queue_full: false },
        count: 9,
        new: 9,
        fds: FdUsage::default(),
        ceiling: None,
        queue: Some(AcceptQueue { length: 129, limit: 128 }),
        backlog: Some(Backlog { requested: Some(128), somaxconn: Some(4096) }),
        refused: Some(Refused { attempts: 9, connections: Some(3), figures: Figures::Exact }),
        ..opened()
    }
}

/// The SYN queue is full: SYNs are dropped, or answered by cookies.
pub(super) fn syn_queue(failure: Failure) -> EpisodeReport {
    let queue = Some(AcceptQueue { length: 3, limit: 128 });
    EpisodeReport { failure, queue, ..overflow() }
}

/// The same episode later.
pub(super) fn lasting(opened: EpisodeReport) -> EpisodeReport {
    let refused = Some(Refused { attempts: 3112, connections: Some(214), figures: Figures::Exact });
    let EpisodeReport { at, phase, period, last, .. } = updated();
    EpisodeReport { at, phase, period, last, count: 3112, new: 120, refused, ..opened }
}

/// And over.
pub(super) fn over(opened: EpisodeReport, outcome: Outcome) -> EpisodeReport {
    let EpisodeReport { at, phase, period, last, .. } = closed(outcome);
    EpisodeReport { at, phase, period, last, new: 0, ..lasting(opened) }
}

/// Descriptors are about to run out.
pub(super) fn warned() -> WarningReport {
    WarningReport {
        at: at(3_120),
        owners: nginx(0),
        target: every(80),
        resource: Resource::Fds(FdLimits { soft: Limit::Of(1024), hard: Limit::Of(4096) }),
        warning: Warning {
            outcome: None,
            threshold: 80,
            gauge: Gauge { used: 820, limit: 1024 },
            filling: Some(Filling { per_second: 2.1, full_in: Duration::from_millis(97_143) }),
            since: at(2_120),
            most: 820,
        },
    }
}

/// And the queue of a listener that several share.
pub(super) fn queue_warned() -> WarningReport {
    let gauge = Gauge { used: 18, limit: 20 };
    let warning = Warning { gauge, filling: None, most: 18, ..warned().warning };
    WarningReport { owners: nginx(3), resource: Resource::AcceptQueue, warning, ..warned() }
}

/// It is over.
pub(super) fn cleared(report: WarningReport, outcome: Outcome) -> WarningReport {
    let gauge = Gauge { used: report.warning.gauge.used / 2, ..report.warning.gauge };
    let warning = Warning {
        outcome: Some(outcome),
        threshold: 95,
        gauge,
        filling: None,
        most: 980,
        ..report.warning
    };
    WarningReport { at: at(81_440), warning, ..report }
}

pub(super) fn started() -> Started {
    let refused = || RefusedForm { form: "fexit", why: "not permitted".to_owned() };
    let probe = |probe, form| ProbeReport { probe, form, refused: vec![refused()] };
    let mut probes =
        ["accept", "socket", "socketpair", "listen"].map(|call| probe(call, "tracepoint")).to_vec();
    probes.push(probe("io_uring", "tp_btf"));
    probes.extend(["syn", "ack"].map(|segment| probe(segment, "cgroup_skb")));
    Started { at: at(3_000), version: "0.1.0", kernel: "6.12.117".to_owned(), probes }
}

pub(super) fn lost(keys_full: u64, program_skipped: Option<u64>) -> Vec<LostCount> {
    let lost = |reason, kind, count| LostCount { reason, kind, count };
    vec![
        lost("keys_full", LostKind::Failures, Some(keys_full)),
        lost("key_refused", LostKind::Failures, Some(0)),
        lost("ring_full", LostKind::Notices, Some(0)),
        lost("listener_unread", LostKind::Attribution, Some(0)),
        lost("program_skipped", LostKind::Calls, program_skipped),
        lost("record_undecoded", LostKind::Notices, Some(0)),
        lost("totals_full", LostKind::Attribution, Some(0)),
    ]
}

pub(super) fn total(episode: EpisodeReport) -> Total {
    let EpisodeReport { owners, target, door, failure, count, first, last, .. } = episode;
    Total { owners, target, door, failure, count, first, last }
}

/// Deltas and what was seen of them, in the order of the names.
pub(super) fn namespace(netns: u32, counters: &[(u64, Option<u64>)]) -> Reconciliation {
    let names = ["ListenOverflows", "ListenDrops", "TCPReqQFullDrop", "TCPReqQFullDoCookies"];
    let pairs = names.into_iter().zip(counters);
    let counters = pairs.map(|(name, &(delta, seen))| CounterPair { name, delta, seen });
    Reconciliation { netns, counters: counters.collect() }
}

pub(super) fn summary(totals: Vec<Total>) -> Summary {
    Summary {
        started: at(3_000),
        at: at(81_440),
        totals,
        lost: lost(0, Some(0)),
        kernel: vec![namespace(4_026_531_840, &[(0, Some(0)); 4])],
        probes: started().probes,
    }
}

pub(super) fn episode(episode: EpisodeReport) -> Report {
    Report::Episode(Box::new(episode))
}

/// Why the first episode happens: the story of the design.
pub(super) fn diagnosed() -> DiagnosisReport {
    let evidence = |fact, value, unit, source: &str| Evidence {
        fact,
        value,
        unit,
        source: Some(source.to_owned()),
    };
    let remedy = |when, text: &str, command: Option<&str>| Remedy {
        when,
        text: text.to_owned(),
        command: command.map(str::to_owned),
    };
    let fds = Some("file descriptors");
    let story = Diagnosis {
        cause: Cause::RaisedAfterStart,
        certainty: Certainty::Certain,
        why: "soft nofile limit 1024, inherited from supervisord[812] (also 1024), which started \
              23 days before /etc/security/limits.conf was changed to 100000"
            .to_owned(),
        evidence: vec![
            evidence("soft_limit", Value::Count(1024), fds, "/proc/14807/limits"),
            evidence("hard_limit", Value::Count(4096), fds, "/proc/14807/limits"),
            evidence(
                "changed",
                Value::Date(clock().date(at(0))),
                None,
                "/etc/security/limits.conf:61",
            ),
        ],
        remedies: vec![
            remedy(
                When::Now,
                "raise its soft limit to 4096, no restart; its hard limit is 4096",
                Some("prlimit --pid 14807 --nofile=4096:"),
            ),
            remedy(When::Now, "raise both its limits", None),
            remedy(
                When::ForGood,
                "minfds=100000 in supervisord.conf, then restart supervisord and this program",
                None,
            ),
        ],
        unknown: Vec::new(),
    };
    let load = Diagnosis {
        cause: Cause::Load,
        certainty: Certainty::Likely,
        why: "900 of 1024 descriptors are established connections of clients".to_owned(),
        evidence: vec![evidence("established", Value::Share(0.5), None, "sock_diag")],
        remedies: vec![
            remedy(When::Now, "more instances", None),
            remedy(When::ForGood, "give it as many descriptors as clients", None),
        ],
        unknown: vec!["how it grew: nobody looked before".to_owned()],
    };
    DiagnosisReport { at: at(3_240), episode: opened(), diagnoses: vec![story, load] }
}

/// The name of every field of a JSON value: documentation must have each.
pub(super) fn names(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (name, value) in map {
                found.push(name.clone());
                names(value, found);
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| names(value, found)),
        _ => {}
    }
}
