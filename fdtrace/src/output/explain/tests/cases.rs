//! Explanations that the tests share.

use std::{net::Ipv4Addr, time::Duration};

use crate::{
    model::{
        Ancestor, Backlog, Behaviour, BootTime, Bystander, Cause, Census, Certainty, ChainEnd,
        Comm, Diagnosis, DistinctPeers, Evidence, ExplainReport, Explanation, FdKind, FdLimits,
        FdUsage, Limit, ListenerReport, ListeningSocket, OpenFds, OwnerFds, PathShare, Peer,
        PeerShare, Pid, Process, ProcessId, Provenance, Remedy, Role, Runtime, Silence, Sysctls,
        Target, TcpState, Tid, UnixName, Verdict, When,
    },
    output::fixtures::{at, clock, every, inet, process, unix},
};

pub(super) fn on(target: &Target, length: u32, limit: u32) -> ListenerReport {
    let listener = target.listener().unwrap().clone();
    ListenerReport {
        socket: ListeningSocket {
            inode: 54321,
            listener,
            length: Some(length),
            limit: Some(limit),
            drops: None,
        },
        owners: vec![process()],
        fds: None,
        backlog: Backlog { requested: None, somaxconn: Some(4096) },
    }
}

pub(super) fn fds(open: u64) -> OwnerFds {
    let limits = FdLimits { soft: Limit::Of(1024), hard: Limit::Of(4096) };
    let usage = FdUsage { open: Some(open), limits: Some(limits) };
    OwnerFds { pid: Pid(14807), usage, below_limit: None }
}

pub(super) fn census() -> Census {
    let client = |ip: [u8; 4], established, close_wait| PeerShare {
        peer: Peer::Client(ip.into()),
        connections: established + close_wait,
        established,
        close_wait,
    };
    let to = "192.0.2.9:5432".parse().unwrap();
    let server = PeerShare { peer: Peer::Server(to), ..client([0; 4], 2, 0) };
    let silence = |state, seconds| Silence {
        state,
        median: Duration::from_secs(seconds),
        longest: Duration::from_secs(seconds * 2),
    };
    Census {
        open: OpenFds::Exact(1024),
        looked_at: 1024,
        kinds: vec![
            (FdKind::Tcp(TcpState::CloseWait), 900),
            (FdKind::File, 100),
            (FdKind::Tcp(TcpState::Established), 20),
            (FdKind::TcpUnlisted, 2),
            (FdKind::Tcp(TcpState::Listen), 1),
            (FdKind::Epoll, 1),
        ],
        listeners: Vec::new(),
        peers: vec![client([192, 0, 2, 7], 0, 890), client([192, 0, 2, 8], 18, 10), server],
        distinct_peers: DistinctPeers { clients: 2, servers: 1 },
        local_ports: vec![(9088, 918)],
        paths: vec![
            PathShare { path: "/var/log/df".into(), fds: 98, files: Some(90) },
            PathShare { path: "/dev/null".into(), fds: 1, files: None },
        ],
        silence: vec![silence(TcpState::CloseWait, 242), silence(TcpState::Established, 3)],
        end_was_read: 880,
        cost: Duration::from_micros(2_500),
        unknown: Vec::new(),
    }
}

pub(super) fn ancestor(pid: u32, comm: &[u8], limits: Option<(u64, u64)>) -> Ancestor {
    Ancestor {
        id: ProcessId { pid: Pid(pid), started: BootTime::default() },
        comm: Comm::from_bytes(comm),
        exe: None,
        cmdline: None,
        started_at: Some(clock().date(at(1_500))),
        uid: None,
        limits: limits
            .map(|(soft, hard)| FdLimits { soft: Limit::Of(soft), hard: Limit::Of(hard) }),
        role: Role::Other,
        unit: None,
        container: None,
        may_raise_hard: None,
        above_file_max: None,
        go: None,
        settings: Vec::new(),
    }
}

pub(super) fn provenance(chain: Vec<Ancestor>, chain_end: ChainEnd) -> Provenance {
    Provenance {
        chain,
        chain_end,
        runtime: Runtime::Other,
        login: None,
        system: Sysctls::default(),
        unknown: Vec::new(),
    }
}

pub(super) fn diagnosis(
    cause: Cause,
    certainty: Certainty,
    why: &str,
    remedies: Vec<Remedy>,
) -> Diagnosis {
    let source = Some("/proc/14807/limits".to_owned());
    let value = crate::model::Value::Count(1024);
    let evidence =
        vec![Evidence { fact: "soft_limit", value, unit: Some("file descriptors"), source }];
    Diagnosis {
        cause,
        certainty,
        why: why.to_owned(),
        evidence,
        remedies,
        unknown: vec!["how it grew: nobody looked before".to_owned()],
    }
}

pub(super) fn remedy(when: When, text: &str, command: Option<&str>) -> Remedy {
    Remedy { when, text: text.to_owned(), command: command.map(str::to_owned) }
}

/// The first lines of the page.
pub(super) fn leaker() -> Explanation {
    Explanation {
        process: Some(process()),
        listeners: vec![
            on(&every(9088), 129, 128),
            on(&inet(Ipv4Addr::LOCALHOST.into(), 9089, None), 0, 128),
        ],
        fds: Some(fds(1024)),
        verdict: Verdict::Exhausted,
        diagnoses: vec![
            diagnosis(
                Cause::FdLeak,
                Certainty::Certain,
                "900 of 1024 descriptors are connections in CLOSE_WAIT, most of them from \
                 192.0.2.7: the program does not close what its peer has closed, though it has \
                 read its end; half of them have been so for 4 min or longer",
                vec![
                    remedy(
                        When::Now,
                        "a higher limit gives it time, no more; a restart gives all descriptors \
                         back",
                        None,
                    ),
                    remedy(
                        When::ForGood,
                        "in the program: close a connection when read(2) returns 0, also after \
                         errors and timeouts",
                        None,
                    ),
                ],
            ),
            diagnosis(
                Cause::SoftLimitLow,
                Certainty::Likely,
                "soft nofile limit 1024 (hard 4096), inherited from supervisord[812] (also 1024)",
                vec![remedy(
                    When::Now,
                    "raise its soft limit to 4096, no restart; its hard limit is 4096",
                    Some("prlimit --pid 14807 --nofile=4096:"),
                )],
            ),
        ],
        census: Some(census()),
        provenance: Some(provenance(
            vec![
                ancestor(14807, b"dataforwardsrv", Some((1024, 4096))),
                ancestor(812, b"supervisord", Some((1024, 4096))),
                ancestor(1, b"systemd", Some((1_073_741_816, 1_073_741_816))),
            ],
            ChainEnd::Init,
        )),
        threads: Some(4),
        behaviour: Some(Behaviour::CpuBound {
            tid: Tid(14809),
            comm: Comm::from_bytes(b"worker"),
            cpu: 0.97,
        }),
        unknown: vec!["how it grew: nobody looked before".to_owned()],
    }
}

/// Of another user, and asked for by somebody who may not look.
pub(super) fn hidden() -> Explanation {
    let limits = FdUsage { open: None, ..fds(0).usage };
    Explanation {
        listeners: Vec::new(),
        fds: Some(OwnerFds { usage: limits, ..fds(0) }),
        verdict: Verdict::Unknown,
        diagnoses: Vec::new(),
        census: None,
        provenance: Some(provenance(
            vec![ancestor(14807, b"dataforwardsrv", None)],
            ChainEnd::Unreadable("could not read /proc/812/stat: no such file".to_owned()),
        )),
        threads: None,
        behaviour: None,
        unknown: vec!["what its descriptors are: not permitted".to_owned(), "the rest".to_owned()],
        ..leaker()
    }
}

pub(super) fn calm() -> Explanation {
    Explanation {
        listeners: vec![on(&every(9088), 0, 128)],
        fds: Some(fds(20)),
        verdict: Verdict::Fine,
        diagnoses: leaker().diagnoses.split_off(1),
        census: None,
        provenance: None,
        behaviour: None,
        unknown: Vec::new(),
        ..leaker()
    }
}

/// A listener of which nobody is known.
pub(super) fn ownerless() -> Explanation {
    let mut listener = on(&unix(UnixName::Path(b"/run/\x1b[2J.sock".to_vec())), 3, 0);
    listener.socket.limit = None;
    Explanation {
        process: None,
        listeners: vec![listener],
        fds: None,
        verdict: Verdict::Unknown,
        unknown: vec!["which process has it open: none that may be looked into".to_owned()],
        diagnoses: Vec::new(),
        ..calm()
    }
}

pub(super) fn report(explanations: Vec<Explanation>) -> ExplainReport {
    ExplainReport { at: at(3_120), explanations, others: Vec::new() }
}

pub(super) fn bystander(pid: u32) -> Bystander {
    let id = ProcessId { pid: Pid(pid), ..process().id };
    Bystander {
        process: Process { id, ns_pid: Some(id.pid), ..process() },
        fds: fds(u64::from(pid)),
    }
}
