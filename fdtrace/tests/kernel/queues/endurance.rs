//! A host on which nothing stays: processes, listeners and network namespaces come and go, some out of
//! descriptors, some refusing clients, for as long as `ENDURANCE_SECONDS` asks for; `fdtrace` and
//! `fdtrace daemon` count them side by side.

use std::{
    collections::HashSet,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{case::Case, clients::Clients, usage::Watched};
use crate::{
    Test,
    support::{Daemon, Fdtrace, Run, eventually, number},
    workload::Workload,
};

pub(crate) const TESTS: &[Test] =
    &[("a_host_on_which_nothing_stays", a_host_on_which_nothing_stays)];

/// How long an ordinary run lasts.
const SECONDS: u64 = 15;
const DAEMON: &str = "[output]\nstdout = \"none\"\njournal = \"never\"\njson_file = \"DIR/out.jsonl\"\n\
                      [metrics]\nlisten = \"127.0.0.1:PORT\"\n";
/// A prime, so that no multiple of anything else passes for it.
const FAILURES: u64 = 20_011;

const LOSSES: [&str; 5] =
    ["keys_full", "key_refused", "ring_full", "listener_unread", "record_undecoded"];

/// What happened, by the word of those who did it and of the kernel.
#[derive(Default)]
struct Truth {
    rounds: u64,
    failures: u64,
    overflows: u64,
    pids: HashSet<u64>,
}

fn a_host_on_which_nothing_stays() {
    let asked = std::env::var("ENDURANCE_SECONDS").map(|seconds| seconds.parse().unwrap());
    let time = Duration::from_secs(asked.unwrap_or(SECONDS));
    let daemon = Daemon::start(DAEMON);
    let fdtrace = Fdtrace::start(&["--packets-rest", "2s"]);
    // As `fdtrace --help` and docs/daemon.md have it.
    let mut foreground = Watched::new(fdtrace.pid(), 16_384);
    let mut always = Watched::new(daemon.pid(), 2048);
    let (begun, mut truth) = (Instant::now(), Truth::default());
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
            foreground.look(begun.elapsed());
            always.look(begun.elapsed());
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let Truth { rounds, failures, overflows, .. } = &truth;
    println!("  {rounds} rounds: {failures} failed accepts, {overflows} refused");
    println!("  {} processes besides", processes.load(Ordering::Relaxed));
    println!("  fdtrace:\n{foreground}  fdtrace daemon:\n{always}");
    foreground.assert_lets_go();
    always.assert_lets_go();
    let others = foreground_is_exact(&fdtrace.stop(), &truth);
    daemon_is_exact(&daemon, &truth, others);
    assert!(daemon.stop().status.success());
    foreground.assert_steady(2);
    always.assert_steady(2);
}

/// Gives how many calls of others failed meanwhile.
fn foreground_is_exact(run: &Run, truth: &Truth) -> u64 {
    let count = |failure, is_ours: bool| {
        let totals = run.totals(&json!({ "failure": failure })).into_iter();
        let of = |total: &&Value| {
            let pid = total["process"]["pid"].as_u64();
            pid.is_some_and(|pid| truth.pids.contains(&pid)) == is_ours
        };
        totals.filter(of).map(|total| number(total, "/count")).sum::<u64>()
    };
    let (failures, overflows) = (count("EMFILE", true), count("accept_queue_full", true));
    // Lines that are over are folded into one number when there are too many.
    let folded = run.lost("totals_full");
    println!("  fdtrace counted {failures} and {overflows}, folded {folded}");
    if folded == 0 {
        assert_eq!((failures, overflows), (truth.failures, truth.overflows));
    } else {
        // Nobody else must fail meanwhile: what was folded has no names.
        assert_eq!(failures + overflows + folded, truth.failures + truth.overflows);
    }
    for loss in LOSSES {
        assert_eq!(run.lost(loss), 0, "{loss}");
    }
    count("EMFILE", false)
}

/// The daemon's counters go on where lines are folded: they have all of it, under whatever labels.
fn daemon_is_exact(daemon: &Daemon, truth: &Truth, others: u64) {
    let sum = |label| daemon.metric("fdtrace_failures_total", &[label]);
    let (failures, overflows) = (truth.failures + others, truth.overflows);
    println!(
        "  fdtrace daemon counted {} of {failures} and {} of {overflows}; with other labels {}",
        sum("failure=\"EMFILE\""),
        sum("failure=\"accept_queue_full\""),
        sum("failure=\"other\""),
    );
    eventually("everything is counted", || {
        let all = daemon.metric("fdtrace_failures_total", &[]);
        all.to_string() == (failures + overflows).to_string()
    });
    for loss in LOSSES {
        let lost = daemon.metric("fdtrace_lost_total", &[&format!("reason=\"{loss}\"")]);
        assert!(lost < 0.1, "{loss}: {lost}");
    }
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
