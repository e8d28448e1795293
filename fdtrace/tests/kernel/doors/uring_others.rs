//! Other operations of io_uring that give out descriptors.

use serde_json::json;

use super::{
    fdtrace,
    seen::{Sight, assert_counted},
    uring::{LIMIT, start},
};
use crate::{Test, support::Fdtrace};

pub(super) const TESTS: &[Test] = &[
    ("io_uring_opens_and_sockets_at_the_limit", opens_and_sockets),
    ("io_uring_opens_and_sockets_into_a_full_table", full_table),
    ("io_uring_opens_meet_the_limit_they_were_submitted_with", frozen_limit),
];

fn opens_and_sockets() {
    let runs = [(fdtrace(&["--fds"]), true), (fdtrace(&[]), false)];
    let mut expected = Vec::new();
    for (op, failures) in [("openat", 73), ("openat2", 77), ("socket", 79)] {
        for thread in ["", "sqpoll=1", "async=1"] {
            let spec = format!("op={op} {thread} failures={failures}");
            let Some(mut workload) = start(&spec) else { continue };
            workload.go();
            assert_eq!(workload.done()["errnos"], json!({ "EMFILE": failures }), "{spec}");
            expected.push((workload.pid(), failures));
        }
    }
    for (run, with_fds) in runs.map(|(fdtrace, with_fds)| (Fdtrace::stop(fdtrace), with_fds)) {
        for (pid, failures) in &expected {
            let truth = [("io_uring", "EMFILE", *failures)];
            assert_counted(&run, *pid, if with_fds { &truth } else { &[] });
        }
    }
}

/// Direct descriptors take no place among those of the process, but one in a table of their own.
fn full_table() {
    const SLOTS: u64 = 4;
    let mut fdtrace = fdtrace(&["--fds"]);
    let mut workloads = Vec::new();
    for (op, failures) in [("openat", 61), ("openat2", 67), ("socket", 71)] {
        for thread in ["", "sqpoll=1", "async=1"] {
            let spec = format!("op={op} {thread} slots={SLOTS} failures={failures}");
            let Some(mut workload) = start(&spec) else { continue };
            workload.go();
            let done = workload.done();
            assert_eq!(done["errnos"], json!({ "ENFILE": failures }), "{spec}");
            assert_eq!(done["succeeded"], SLOTS, "{spec}");
            workloads.push((workload, failures));
        }
    }
    if Sight::now(&mut fdtrace).all_allocations() {
        for (workload, _) in &workloads {
            let fields = json!({
                "process": { "pid": workload.pid() },
                "listener": null,
                "failure": "ENFILE",
                "door": "io_uring",
                "limit": { "kind": "io_uring_table", "value": null },
            });
            fdtrace.reported("episode_opened", &fields);
        }
    }
    let run = fdtrace.stop();
    for (workload, failures) in &workloads {
        assert_counted(&run, workload.pid(), &[("io_uring", "ENFILE", *failures)]);
    }
}

/// io_uring reads RLIMIT_NOFILE when an open is submitted (`__io_openat_prep`), and hands it to the
/// allocator: the limit that fdtrace tells is the one that was met, not the one of the moment. (The
/// door is that of the system call at whose end the kernel does it, or io_uring.)
fn frozen_limit() {
    let mut fdtrace = fdtrace(&["--fds"]);
    for op in ["openat", "openat2"] {
        let spec = format!("op={op} async=1 then=raise_before_it_is_done");
        let Some(mut workload) = start(&spec) else { continue };
        workload.go();
        let done = workload.done();
        assert_eq!(done, json!({ "failures": 1, "errnos": { "EMFILE": 1 }, "succeeded": 0 }));
        let fields = json!({
            "process": { "pid": workload.pid() },
            "failure": "EMFILE",
            "limit": { "kind": "nofile", "value": LIMIT },
            "fds": { "open": LIMIT, "soft": 2 * LIMIT },
        });
        if Sight::now(&mut fdtrace).all_allocations() {
            fdtrace.reported("episode_opened", &fields);
        }
    }
    drop(fdtrace.stop());
}
