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
    support::{Fdtrace, number},
};

pub(crate) const TESTS: &[Test] =
    &[("without_cgroup_v2_refusals_are_polled", without_cgroup_v2_refusals_are_polled)];

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
    let mut fdtrace = Fdtrace::start_changed(&[], hide_cgroup_v2);
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
    let queues = summary["probes"].as_array().unwrap().last().unwrap();
    assert_eq!(queues, &json!({ "probe": "queues", "form": "sock_diag" }));
    // An upper bound is not held against an exact figure.
    assert!(number(summary, "/kernel/ListenOverflows/delta") >= truth);
    assert!(summary["kernel"]["ListenOverflows"]["seen"].is_null(), "{summary:#}");
    assert!(run.stderr.contains("cgroup v2 is not mounted"), "{}", run.stderr);
}
