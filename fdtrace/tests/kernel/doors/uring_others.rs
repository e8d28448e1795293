//! Other operations of io_uring that give out descriptors.

use serde_json::json;

use super::{fdtrace, seen::assert_counted, uring::start};
use crate::{Test, support::Fdtrace};

pub(super) const TESTS: &[Test] = &[("io_uring_opens_and_sockets_at_the_limit", opens_and_sockets)];

fn opens_and_sockets() {
    let runs = [(fdtrace(&["--fds"]), true), (fdtrace(&[]), false)];
    let mut expected = Vec::new();
    for (op, failures) in [("openat", 73), ("socket", 79)] {
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
