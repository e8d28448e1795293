//! /proc mounted with hidepid=2: only who may trace a process sees that it is there
//! (fs/proc/root.c, `proc_pid_permission`: ptrace_may_access). To root with all its capabilities
//! nothing is hidden, so what is tested is a user of fdtrace's own, as in its unit.

use std::io;

use nix::mount::{MsFlags, mount};
use serde_json::json;

use crate::{
    Test,
    privileges::{Capability, FIVE, PerfEvents, as_nobody_with, copied, with_tracefs},
    support::{Fdtrace, Run},
    workload::Workload,
};

pub(super) const TESTS: &[Test] = &[
    ("hidden_processes_are_seen_by_who_may_trace_them", may_trace),
    ("hidden_processes_are_counted_by_who_may_not", may_not_trace),
];

/// A /proc of fdtrace's own: the host's stays as it is.
fn hide() -> io::Result<()> {
    with_tracefs()?;
    Ok(mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), Some("hidepid=2"))?)
}

/// What it says of a process of another user that was there before.
fn run(capabilities: u64) -> (Run, u32) {
    let _allowed = PerfEvents::allow();
    let mut workload = Workload::start("failures=67 comm=hidden user=54321");
    let (_directory, program) = copied();
    let fdtrace = Fdtrace::start_program(&program, &[], move || {
        hide()?;
        as_nobody_with(capabilities)
    });
    assert_eq!(workload.fail(), 67);
    let pid = workload.pid();
    let run = fdtrace.stop();
    run.assert_lost_nothing();
    let process = json!({ "process": { "pid": pid, "comm": "hidden" } });
    assert_eq!(run.count(&process), 67, "{:#}", run.summary());
    let port = json!({ "listener": { "port": workload.port() } });
    assert_eq!(run.count(&port), 67, "the kernel has told which listener");
    (run, pid)
}

fn may_trace() {
    let (run, pid) = run(FIVE);
    let totals = run.totals(&json!({ "process": { "pid": pid } }));
    assert!(totals.iter().all(|total| total["process"]["exe"].is_string()), "{totals:#?}");
}

fn may_not_trace() {
    let (run, pid) = run(FIVE & !Capability::SysPtrace.bit());
    let process = json!({ "process": {
        "pid": pid, "exe": null, "cmdline": null, "unit": null, "container": null,
    } });
    assert_eq!(run.count(&process), 67, "{:#}", run.summary());
    // What the programs read is known: that every descriptor below the limit is in use. The rest is
    // unknown.
    let opened = run.of_kind("episode_opened", &process);
    assert_eq!(opened.len(), 1);
    let expected = json!({ "open": 64, "soft": 64 });
    assert!(crate::support::same(&opened[0]["fds"], &expected), "{:#}", opened[0]);
}
