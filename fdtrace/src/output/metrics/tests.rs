//! A snapshot as Prometheus reads it.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use super::*;
use crate::{
    model::{
        Cause, Certainty, CloseToLimit, Comm, CounterPair, Door, Errno, Failure, FdLimits, Gauge,
        Known, Limit, LostCount, OpenEpisode, OwnUsage, ProbeReport, ProgramCost, Resource, Series,
        SeriesCount, Who,
    },
    output::fixtures,
};

fn snapshot() -> Snapshot {
    let target = fixtures::every(9088);
    let emfile = Failure::Errno(Errno::EMFILE);
    let owners = vec![fixtures::process()];
    let who = Some(Who::of(&owners, &target));
    let series = Series { who, failure: emfile, door: Door::Accept4 };
    let limits = FdLimits { soft: Limit::Of(1024), hard: Limit::Of(4096) };
    Snapshot {
        started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_722_290_203_500),
        version: "0.1.0",
        failures: vec![SeriesCount { series: Some(series), count: 119 }],
        episodes: vec![OpenEpisode {
            owners: owners.clone(),
            target: target.clone(),
            failure: emfile,
            cause: Some(Known { cause: Cause::SoftLimitLow, certainty: Certainty::Certain }),
        }],
        opened: vec![(emfile, 3)],
        close: vec![CloseToLimit {
            owners,
            target,
            resource: Resource::Fds(limits),
            gauge: Gauge { used: 896, limit: 1024 },
        }],
        lost: vec![
            LostCount { reason: "ring_full", kind: LostKind::Notices, count: Some(2) },
            LostCount { reason: "program_skipped", kind: LostKind::Calls, count: None },
        ],
        undecoded: 1,
        kernel: vec![CounterPair { name: "ListenDrops", delta: 12, seen: Some(14) }],
        probes: vec![
            ProbeReport { probe: "accept", form: "fexit", refused: Vec::new() },
            ProbeReport { probe: "io_uring", form: "none", refused: Vec::new() },
        ],
        programs: Some(vec![ProgramCost {
            program: "accept_exit_tp".to_owned(),
            runs: 7,
            time: Duration::from_micros(1500),
            instructions: None,
            is_jited: None,
        }]),
        own: OwnUsage {
            cpu: Duration::from_millis(1250),
            resident: Some(9_000_000),
            fds: Some(31),
        },
    }
}

fn samples(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn every_metric_has_its_promised_name() {
    let text = metrics_text(snapshot(), 10).unwrap();
    let who = "process=\"dataforwardsrv\",unit=\"supervisord.service\",container=\"\",pod=\"\",\
               listener=\"*:9088\"";
    let expected = [
        format!("fdtrace_failures_total{{{who},failure=\"EMFILE\",door=\"accept4\"}} 119"),
        format!("fdtrace_episodes{{{who},failure=\"EMFILE\",cause=\"soft_limit_low\"}} 1"),
        "fdtrace_episodes_opened_total{failure=\"EMFILE\"} 3".to_owned(),
        format!("fdtrace_warnings{{{who},resource=\"fds\"}} 0.875"),
        "fdtrace_lost_total{reason=\"ring_full\",kind=\"notices\"} 2".to_owned(),
        "fdtrace_decode_errors_total 1".to_owned(),
        "fdtrace_probe_up{probe=\"accept\",form=\"fexit\"} 1".to_owned(),
        "fdtrace_probe_up{probe=\"io_uring\",form=\"none\"} 0".to_owned(),
        "fdtrace_kernel_total{counter=\"ListenDrops\"} 12".to_owned(),
        "fdtrace_kernel_unattributed{counter=\"ListenDrops\"} -2".to_owned(),
        "fdtrace_program_runs_total{program=\"accept_exit_tp\"} 7".to_owned(),
        "fdtrace_program_run_seconds_total{program=\"accept_exit_tp\"} 0.0015".to_owned(),
        "fdtrace_cpu_seconds_total 1.25".to_owned(),
        "fdtrace_resident_memory_bytes 9000000".to_owned(),
        "fdtrace_open_fds 31".to_owned(),
        "fdtrace_start_time_seconds 1722290203.5".to_owned(),
        "fdtrace_build_info{version=\"0.1.0\"} 1".to_owned(),
    ];
    assert_eq!(samples(&text), expected, "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn every_metric_is_documented() {
    let docs = include_str!("../../../../docs/daemon.md");
    let rows = docs.lines().filter_map(|line| line.strip_prefix("| `fdtrace_")?.split_once("` |"));
    let documented: BTreeSet<_> = rows.map(|(name, _)| format!("fdtrace_{name}")).collect();
    let text = metrics_text(snapshot(), 10).unwrap();
    let written = samples(&text).into_iter().map(|line| line.split(['{', ' ']).next().unwrap());
    assert_eq!(documented, written.map(str::to_owned).collect());
}

#[test]
fn what_is_unknown_is_not_there() {
    let own = OwnUsage::default();
    let text = metrics_text(Snapshot { programs: None, own, ..snapshot() }, 10).unwrap();
    for absent in ["program_run", "resident", "open_fds", "program_skipped"] {
        assert!(!text.contains(absent), "{absent}: {text}");
    }
}

/// A name that a process chose cannot end a line or a value.
#[test]
fn names_are_escaped() {
    let mut snapshot = snapshot();
    let series = snapshot.failures[0].series.as_mut().unwrap();
    series.who.as_mut().unwrap().process = Some(Comm::from_bytes(b"a\"b\nc\\\x1b"));
    let text = metrics_text(snapshot, 10).unwrap();
    assert!(text.contains(r#"{process="a\"b\\x0ac\\\\\\x1b","#), "{text}");
}

#[test]
fn what_is_too_many_is_other() {
    let mut snapshot = snapshot();
    let episode = snapshot.episodes[0].clone();
    snapshot.episodes = (1..=5)
        .map(|port| OpenEpisode { target: fixtures::every(port), ..episode.clone() })
        .collect();
    let series = snapshot.failures[0].series.clone().unwrap();
    let series = Some(Series { who: None, ..series });
    snapshot.failures.push(SeriesCount { series, count: 4 });
    snapshot.failures.push(SeriesCount { series: None, count: 2 });
    let text = metrics_text(snapshot, 2).unwrap();
    let lines = samples(&text);
    let of = |name: &str| lines.iter().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
    let episodes = of("fdtrace_episodes{");
    assert_eq!(episodes.len(), 3, "{episodes:?}");
    let other = "process=\"other\",unit=\"other\",container=\"other\",pod=\"other\",\
                 listener=\"other\"";
    // What failed, and why, is told all the same.
    for line in [
        format!("fdtrace_episodes{{{other},failure=\"EMFILE\",cause=\"soft_limit_low\"}} 3"),
        format!("fdtrace_failures_total{{{other},failure=\"EMFILE\",door=\"accept4\"}} 4"),
        format!("fdtrace_failures_total{{{other},failure=\"other\",door=\"other\"}} 2"),
    ] {
        assert!(lines.contains(&line.as_str()), "{line}: {text}");
    }
}

/// Two lines of one name and the same labels would be refused: all that make one are summed up.
#[test]
fn what_looks_the_same_is_one() {
    let mut snapshot = snapshot();
    let mut same = snapshot.failures[0].clone();
    let series = same.series.as_mut().unwrap();
    series.who.as_mut().unwrap().container = Some(String::new());
    snapshot.failures.push(same);
    let text = metrics_text(snapshot, 10).unwrap();
    let mut failures = text.lines().filter(|line| line.starts_with("fdtrace_failures_total{"));
    assert_eq!(failures.clone().count(), 1);
    assert!(failures.next().unwrap().ends_with(" 238"), "{text}");
}
