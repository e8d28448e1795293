//! Provenances to diagnose.

use std::time::{Duration, SystemTime};

use super::{Failed, LimitFacts, limits};
use crate::model::{
    Ancestor, Backlog, BootTime, ChainEnd, Comm, Diagnosis, FailureSample, FdLimits, FdUsage,
    FileFact, Limit, Listener, ListenerAddress, ListenerReport, ListeningSocket, Manager, OwnerFds,
    Pid, Place, Process, ProcessId, Provenance, Role, Runtime, Setting, SettingSource, Sysctl,
    Sysctls, Unit,
};

pub(super) const DAY: u64 = 86_400;

/// A date, in days from some day on which everything was started.
pub(super) fn day(day: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs((20_000 + day) * DAY)
}

pub(super) fn process(pid: u32, comm: &str, soft: u64, hard: u64) -> Ancestor {
    let limits = FdLimits { soft: Limit::from_rlim(soft), hard: Limit::from_rlim(hard) };
    Ancestor {
        id: ProcessId { pid: Pid(pid), started: BootTime::default() },
        comm: Comm::from_bytes(comm.as_bytes()),
        exe: None,
        cmdline: None,
        started_at: Some(day(0)),
        uid: Some(0),
        limits: Some(limits),
        role: match comm {
            "supervisord" => Role::Supervisord,
            "systemd" => Role::Systemd,
            "containerd-shim" => Role::ContainerdShim,
            "bash" => Role::Shell,
            _ => Role::Other,
        },
        unit: None,
        container: None,
        may_raise_hard: None,
        above_file_max: Some(false),
        go: None,
        settings: Vec::new(),
    }
}

pub(super) fn systemd() -> Ancestor {
    process(1, "systemd", 1_073_741_816, 1_073_741_816)
}

/// A line of a file that was changed on a day, its place too.
pub(super) fn file(path: &str, changed: u64) -> Place {
    file_at(path, Some(day(changed)), Some(day(changed)))
}

pub(super) fn file_at(
    path: &str,
    modified: Option<SystemTime>,
    changed: Option<SystemTime>,
) -> Place {
    let (path, line) = match path.split_once(':') {
        Some((path, line)) => (path, line.parse().ok()),
        None => (path, None),
    };
    Place::File(FileFact { path: path.into(), line, modified, changed })
}

pub(super) fn setting(source: SettingSource, limit: u64, place: Place) -> Setting {
    let limit = Some(Limit::from_rlim(limit));
    Setting { source, soft: limit, hard: limit, place }
}

pub(super) fn minfds(limit: u64, place: Place) -> Setting {
    setting(SettingSource::Minfds { program: Some("web".into()) }, limit, place)
}

pub(super) fn unit(name: &str) -> Unit {
    Unit { name: name.into(), manager: Manager::System }
}

pub(super) fn of_unit(name: &str, limit: u64, place: Place) -> Setting {
    setting(SettingSource::Unit(unit(name)), limit, place)
}

pub(super) fn login(limit: u64, place: Place) -> Setting {
    setting(SettingSource::Login { user: "root".into() }, limit, place)
}

pub(super) fn provenance(chain: Vec<Ancestor>) -> Provenance {
    Provenance {
        chain,
        chain_end: ChainEnd::Init,
        runtime: Runtime::Other,
        login: None,
        system: Sysctls {
            nr_open: Sysctl { value: Some(1_048_576), configured: None },
            file_max: Sysctl { value: Some(100_000), configured: None },
            inotify_instances: Sysctl { value: Some(128), configured: None },
            pipe_pages: Sysctl { value: Some(64), configured: None },
            somaxconn: None,
            file_handles: Some(2000),
        },
        unknown: Vec::new(),
    }
}

pub(super) fn facts(provenance: &Provenance, failed: Failed) -> LimitFacts<'_> {
    LimitFacts {
        provenance,
        failed,
        limits_at_failure: None,
        open: None,
        file_handles_at_failure: None,
        held: None,
    }
}

/// The one diagnosis of a failed call that needs a descriptor.
#[track_caller]
pub(super) fn diagnosed(provenance: &Provenance) -> Diagnosis {
    let mut found = limits(&facts(provenance, Failed::Descriptor));
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

/// The commands of all remedies, in order.
pub(super) fn commands(diagnosis: &Diagnosis) -> Vec<&str> {
    diagnosis.remedies.iter().filter_map(|remedy| remedy.command.as_deref()).collect()
}

/// A process that listens, as an output shows it.
pub(super) fn server(pid: u32, comm: &str) -> Process {
    let id = ProcessId { pid: Pid(pid), started: BootTime::default() };
    Process::unread(id, Comm::from_bytes(comm.as_bytes()))
}

pub(super) fn fds(pid: u32, open: u64, soft: u64, hard: u64) -> OwnerFds {
    let limits = FdLimits { soft: Limit::from_rlim(soft), hard: Limit::from_rlim(hard) };
    let usage = FdUsage { open: Some(open), limits: Some(limits) };
    OwnerFds { pid: Pid(pid), usage, below_limit: None }
}

/// On a port of every address, in network namespace 1 with a somaxconn of 4096.
pub(super) fn listener(port: u16, owners: &[Process], length: u32, limit: u32) -> ListenerReport {
    let ip = std::net::Ipv4Addr::UNSPECIFIED.into();
    let address = ListenerAddress::Inet { ip, port, dual_stack: None };
    ListenerReport {
        socket: ListeningSocket {
            inode: port.into(),
            listener: Listener { netns: Some(1), address },
            length: Some(length),
            limit: Some(limit),
            drops: Some(0),
        },
        owners: owners.to_vec(),
        fds: None,
        backlog: Backlog { requested: None, somaxconn: Some(4096) },
    }
}

pub(super) fn at(millis: u64) -> BootTime {
    BootTime(Duration::from_millis(millis))
}

/// Single failures, so many milliseconds apart.
pub(super) fn single_failures(pauses: &[u64]) -> Vec<FailureSample> {
    let mut now = 1_000;
    let mut samples = vec![FailureSample { at: at(now), count: 1 }];
    for (count, pause) in (2..).zip(pauses) {
        now += pause;
        samples.push(FailureSample { at: at(now), count });
    }
    samples
}
