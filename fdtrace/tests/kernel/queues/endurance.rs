//! A host on which nothing stays: processes, listeners and network namespaces come and go, some out of
//! descriptors, some refusing clients, for as long as `ENDURANCE_SECONDS` asks for.

use std::{
    collections::HashSet,
    fs,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{case::Case, clients::Clients};
use crate::{
    Test,
    support::{Fdtrace, number},
    workload::Workload,
};

pub(crate) const TESTS: &[Test] =
    &[("a_host_on_which_nothing_stays", a_host_on_which_nothing_stays)];

/// How long an ordinary run lasts.
const SECONDS: u64 = 15;
/// A prime, so that no multiple of anything else passes for it.
const FAILURES: u64 = 20_011;

/// What happened, by the word of those who did it and of the kernel.
#[derive(Default)]
struct Truth {
    rounds: u64,
    failures: u64,
    overflows: u64,
    pids: HashSet<u64>,
}

/// What fdtrace takes.
#[derive(Clone, Copy)]
struct Usage {
    at: Duration,
    rss_kib: u64,
    fds: usize,
    cpu: Duration,
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, rss_kib, fds, cpu } = self;
        write!(f, "{at:7.1?}: {rss_kib} KiB resident, {fds} descriptors, {cpu:.2?} on a CPU")
    }
}

impl Usage {
    fn of(pid: u32, at: Duration) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().filter_map(Result::ok);
        let times = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
        });
        let rss_kib = rss.split_whitespace().next().unwrap().parse().unwrap();
        Self { at, rss_kib, fds, cpu: times.sum() }
    }
}

fn a_host_on_which_nothing_stays() {
    let asked = std::env::var("ENDURANCE_SECONDS").map(|seconds| seconds.parse().unwrap());
    let time = Duration::from_secs(asked.unwrap_or(SECONDS));
    let fdtrace = Fdtrace::start(&["--packets-rest", "2s"]);
    let (begun, mut truth, mut usages) = (Instant::now(), Truth::default(), Vec::new());
    let (is_over, processes) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let mut process = Command::new("/proc/self/exe");
                let status = process.arg("--help").stdout(Stdio::null()).status();
                assert!(status.unwrap().success());
                processes.fetch_add(1, Ordering::Relaxed);
            }
        });
        while begun.elapsed() < time {
            round(&mut truth);
            usages.push(Usage::of(fdtrace.pid(), begun.elapsed()));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let Truth { rounds, failures, overflows, .. } = &truth;
    println!("  {rounds} rounds: {failures} failed accepts, {overflows} refused");
    println!("  {} processes besides", processes.load(Ordering::Relaxed));
    for usage in usages.iter().step_by(usages.len().div_ceil(10)).chain(usages.last()) {
        println!("  {usage}");
    }
    // The counters of a namespace are open until somebody has looked whether it is still there.
    let calm = Instant::now();
    let fds = || Usage::of(fdtrace.pid(), begun.elapsed()).fds;
    while fds() > usages[0].fds + 8 {
        assert!(calm.elapsed() < Duration::from_secs(60), "{} descriptors are open", fds());
        thread::sleep(Duration::from_millis(500));
    }
    let run = fdtrace.stop();
    let count = |failure| {
        let totals = run.totals(&json!({ "failure": failure })).into_iter();
        // Others on this host may fail, too.
        let is_ours = |total: &&Value| {
            total["process"]["pid"].as_u64().is_some_and(|pid| truth.pids.contains(&pid))
        };
        totals.filter(is_ours).map(|total| number(total, "/count")).sum::<u64>()
    };
    let (failures, overflows) = (count("EMFILE"), count("accept_queue_full"));
    // Lines that are over are folded into one number when there are too many.
    let folded = run.lost("totals_full");
    println!("  counted {failures} and {overflows}, folded {folded}");
    if folded == 0 {
        assert_eq!((failures, overflows), (truth.failures, truth.overflows));
    } else {
        // Nobody else must fail meanwhile: what was folded has no names.
        assert_eq!(failures + overflows + folded, truth.failures + truth.overflows);
    }
    for loss in ["keys_full", "key_refused", "ring_full", "listener_unread", "record_undecoded"] {
        assert_eq!(run.lost(loss), 0, "{loss}");
    }
    assert_steady(&usages);
}

/// A storm of a process that comes and goes with its listener, and clients that are refused by
/// another, in a network namespace that does.
fn round(truth: &mut Truth) {
    truth.rounds += 1;
    let mut workload = Workload::start(&format!("failures={FAILURES}"));
    truth.pids.insert(workload.pid().into());
    truth.failures += workload.fail();
    workload.end();
    let mut case = Case::new("endurance", 0, &[], &json!({ "backlog": 4 }));
    let clients = Clients::knock(&case.network, &case.at("127.0.0.1"), 25);
    truth.pids.insert(case.server.pid().into());
    case.freeze();
    drop(clients);
    truth.overflows += case.kernel("ListenOverflows");
    case.server.end();
}

/// Fails where memory grows in the second half, but for the lines of the totals, which are bounded.
fn assert_steady(usages: &[Usage]) {
    const KIB_PER_LINE: u64 = 4;
    let half = &usages[usages.len() / 2..];
    let (first, last) = (half[0], half[half.len() - 1]);
    let lines = 2 * half.len() as u64;
    assert!(last.rss_kib <= first.rss_kib + lines * KIB_PER_LINE + 2048, "{first}; {last}");
}
