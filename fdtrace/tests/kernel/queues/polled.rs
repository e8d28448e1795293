//! Where cgroup v2 is not mounted, refusals are polled, and fdtrace says so.

use std::io;

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use serde_json::json;

use super::{case::Case, clients::Clients};
use crate::{
    Test,
    support::{Fdtrace, Run, number},
};

pub(crate) const TESTS: &[Test] = &[
    ("refusals_are_polled_on_request", refusals_are_polled_on_request),
    ("without_cgroup_v2_refusals_are_polled", without_cgroup_v2_refusals_are_polled),
];

fn refusals_are_polled_on_request() {
    let run = polled(Fdtrace::start(&["--form", "syn=sock_diag,ack=sock_diag"]));
    assert_eq!(run.stderr, "");
}

/// Where cgroup v2 is mounted.
fn mounts() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.filter(|fields| fields[2] == "cgroup2").map(|fields| fields[1].to_owned()).collect()
}

fn without_cgroup_v2_refusals_are_polled() {
    let mounts = mounts();
    assert!(!mounts.is_empty(), "no cgroup v2: nothing else here tests anything");
    let hide_cgroup_v2 = move || -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        for place in &mounts {
            umount2(place.as_str(), MntFlags::MNT_DETACH)?;
        }
        Ok(())
    };
    let is_asked = std::env::var("FDTRACE_TEST_FORM").is_ok_and(|form| form != "auto");
    let run = Fdtrace::start(&[]).stop();
    if is_asked || run.summary()["probes"][5]["form"] != "cgroup_skb" {
        println!("  this host has better forms than packets, or was asked for one");
        return;
    }
    let run = polled(Fdtrace::start_changed(&[], hide_cgroup_v2));
    assert!(run.stderr.contains("cgroup v2 is not mounted"), "{}", run.stderr);
}

/// Clients of a full listener, while refusals are polled.
fn polled(mut fdtrace: Fdtrace) -> Run {
    let mut cases = [Case::new("polled", 1, &[], &json!({ "backlog": 4 }))];
    let case = &mut cases[0];
    let clients = Clients::knock(&case.network, &case.at("127.0.0.1"), 20);
    let fields = json!({
        "listener": case.listener(),
        "failure": "accept_queue_full",
        "process": { "pid": case.server.pid() },
        "refused": { "connections": null, "figures": "polled" },
    });
    fdtrace.wait_for_report("episode_opened", &fields);
    case.freeze();
    drop(clients);
    let run = fdtrace.stop();
    let truth = case.kernel("ListenOverflows");
    let most = run.count(&json!({ "listener": case.listener() }));
    assert!(most >= truth && truth >= 15, "kernel {truth}, fdtrace at most {most}");
    let summary = run.summary();
    let last = summary["probes"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["probe"], &last["form"]), (&json!("ack"), &json!("sock_diag")));
    // An upper bound is not held against an exact figure.
    assert!(number(summary, "/kernel/ListenOverflows/delta") >= truth);
    assert!(summary["kernel"]["ListenOverflows"]["seen"].is_null(), "{summary:#}");
    run
}
