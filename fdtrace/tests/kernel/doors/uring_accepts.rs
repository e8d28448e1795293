//! Accepts that fail in io_uring. The truth are the completions, and what clients see.

use std::{
    io::{ErrorKind, Read as _},
    net::TcpStream,
    time::Duration,
};

use serde_json::json;

use super::{
    fdtrace,
    seen::assert_counted,
    uring::{LIMIT, start},
};
use crate::{
    Test,
    support::{Fdtrace, number},
    workload::Workload,
};

pub(super) const TESTS: &[Test] = &[
    ("io_uring_accepts_at_the_limit", at_the_limit),
    ("io_uring_accepts_on_every_kind_of_thread", on_every_kind_of_thread),
    ("io_uring_multishot_accept_takes_what_fits", multishot_takes_what_fits),
    ("io_uring_direct_descriptors_lose_the_connection", direct_descriptors),
    ("io_uring_keeps_the_limit_it_was_submitted_with", frozen_limit),
    ("io_uring_accepts_that_fail_otherwise", fail_otherwise),
    ("io_uring_accepts_that_are_cancelled_are_no_failures", cancelled),
    ("io_uring_storm_of_accepts", storm),
];

/// Clients of a workload.
fn connect(workload: &Workload, clients: usize) -> Vec<TcpStream> {
    let port = u16::try_from(workload.port()).unwrap();
    (0..clients).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect()
}

/// How many of them the server has closed.
fn lost(clients: Vec<TcpStream>) -> usize {
    let is_lost = |mut client: TcpStream| {
        client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        match client.read(&mut [0]) {
            Ok(0) => true,
            Err(error) => match error.kind() {
                ErrorKind::ConnectionReset => true,
                ErrorKind::WouldBlock => false,
                other => panic!("read: {other}"),
            },
            Ok(_) => panic!("the server has sent something"),
        }
    };
    clients.into_iter().map(is_lost).filter(|is_lost| *is_lost).count()
}

/// The descriptor is reserved first: the call fails without a client, and loses none.
fn at_the_limit() {
    for (op, queued, failures) in
        [("accept", 0, 31), ("accept", 5, 37), ("multishot", 0, 41), ("multishot", 5, 43)]
    {
        let Some(mut workload) = start(&format!("op={op} failures={failures}")) else { continue };
        let mut fdtrace = fdtrace(&[]);
        let clients = connect(&workload, queued);
        workload.go();
        let done = workload.done();
        assert_eq!(done["errnos"], json!({ "EMFILE": failures }));
        let fields = json!({
            "process": { "pid": workload.pid() },
            "listener": { "family": "inet", "address": "127.0.0.1", "port": workload.port() },
            "target": "listener",
            "failure": "EMFILE",
            "door": "io_uring_accept",
            "accept_queue": { "length": queued },
            "limit": { "kind": "nofile", "value": LIMIT },
            "fds": { "open": LIMIT, "soft": LIMIT },
        });
        fdtrace.wait_for_report("episode_opened", &fields);
        let run = fdtrace.stop();
        assert_counted(&run, workload.pid(), &[("io_uring_accept", "EMFILE", failures)]);
        assert_eq!(lost(clients), 0);
        workload.end();
    }
}

/// The submitter, a thread of the kernel that polls, or a worker: always the same process.
fn on_every_kind_of_thread() {
    // With `--fds` the refused descriptor is seen as well, and must not be counted twice.
    let runs = [fdtrace(&["--fds"]), fdtrace(&[])];
    let mut expected = Vec::new();
    for (op, failures) in [("accept", 47), ("multishot", 53)] {
        for thread in ["", "sqpoll=1", "async=1", "sqpoll=1 async=1"] {
            let spec = format!("op={op} {thread} failures={failures}");
            let Some(mut workload) = start(&spec) else { continue };
            let clients = connect(&workload, 1);
            workload.go();
            assert_eq!(workload.done()["errnos"], json!({ "EMFILE": failures }), "{spec}");
            assert_eq!(lost(clients), 0);
            expected.push((workload, failures));
        }
    }
    for run in runs.map(Fdtrace::stop) {
        for (workload, failures) in &expected {
            assert_counted(&run, workload.pid(), &[("io_uring_accept", "EMFILE", *failures)]);
            let listener = json!({ "listener": { "port": workload.port() } });
            assert_eq!(run.count(&listener), *failures);
        }
    }
}

/// Armed once, it takes clients until there is no descriptor for the next, and then it is over.
fn multishot_takes_what_fits() {
    let fdtrace = fdtrace(&[]);
    let Some(mut workload) = start("op=multishot room=2 failures=1") else { return };
    let clients = connect(&workload, 3);
    workload.go();
    let done = workload.done();
    assert_eq!(done, json!({ "failures": 1, "errnos": { "EMFILE": 1 }, "succeeded": 2 }));
    let run = fdtrace.stop();
    assert_counted(&run, workload.pid(), &[("io_uring_accept", "EMFILE", 1)]);
    assert_eq!(lost(clients), 0);
}

/// A slot is looked for when the connection is taken already: without one it is closed.
fn direct_descriptors() {
    const SLOTS: usize = 4;
    for (op, failures) in [("direct", 59), ("direct_multishot", 61)] {
        let spec = format!("op={op} slots={SLOTS} failures={failures}");
        let Some(mut workload) = start(&spec) else { continue };
        let mut fdtrace = fdtrace(&["--fds"]);
        let clients = connect(&workload, SLOTS + failures);
        workload.go();
        let done = workload.done();
        assert_eq!(done["errnos"], json!({ "ENFILE": failures }));
        assert_eq!(done["succeeded"], SLOTS);
        let lost = lost(clients);
        assert_eq!(lost, failures);
        let fields = json!({
            "process": { "pid": workload.pid() },
            "listener": { "port": workload.port() },
            "failure": "ENFILE",
            "door": "io_uring_accept_direct",
            "limit": { "kind": "io_uring_table", "value": null },
        });
        fdtrace.wait_for_report("episode_opened", &fields);
        // And fdtrace says what it means for the clients.
        let process = json!({ "process": { "pid": workload.pid() } });
        let (_, diagnosed) = fdtrace.wait_for_report("episode_diagnosed", &process);
        let diagnosis = &diagnosed["diagnoses"][0];
        assert_eq!(diagnosis["cause"], "io_uring_table", "{diagnosed:#}");
        assert!(diagnosis["why"].as_str().unwrap().contains("are closed at once"), "{diagnosis}");
        let run = fdtrace.stop();
        let truth = [("io_uring_accept_direct", "ENFILE", lost as u64)];
        assert_counted(&run, workload.pid(), &truth);
        workload.end();
    }
}

/// io_uring reads RLIMIT_NOFILE when an accept is submitted (`io_accept_prep`): one that is armed
/// fails at that limit, also when it was raised since.
fn frozen_limit() {
    let mut fdtrace = fdtrace(&[]);
    let Some(mut workload) = start("op=multishot room=1 then=raise") else { return };
    workload.go();
    workload.line("raised");
    // The first takes the last descriptor below the old limit.
    let clients = connect(&workload, 2);
    let done = workload.done();
    assert_eq!(done, json!({ "failures": 1, "errnos": { "EMFILE": 1 }, "succeeded": 1 }));
    let fields = json!({
        "process": { "pid": workload.pid() },
        "listener": { "port": workload.port() },
        "failure": "EMFILE",
        "door": "io_uring_accept",
        "limit": { "kind": "nofile", "value": LIMIT },
        "fds": { "open": LIMIT, "soft": 2 * LIMIT },
    });
    fdtrace.wait_for_report("episode_opened", &fields);
    // Armed anew, it knows the new limit.
    workload.go();
    assert_eq!(workload.done(), json!({ "failures": 0, "errnos": {}, "succeeded": 1 }));
    assert_eq!(lost(clients), 0);
    assert_counted(&fdtrace.stop(), workload.pid(), &[("io_uring_accept", "EMFILE", 1)]);
}

/// Every errno that is a failure of accept4(2) is one of io_uring's accept.
fn fail_otherwise() {
    let fdtrace = fdtrace(&[]);
    let spec = "op=accept_unconnected room=1 failures=67";
    let Some(mut workload) = start(spec) else { return };
    workload.go();
    assert_eq!(workload.done()["errnos"], json!({ "EINVAL": 67 }));
    assert_counted(&fdtrace.stop(), workload.pid(), &[("io_uring_accept", "EINVAL", 67)]);
}

fn cancelled() {
    let fdtrace = fdtrace(&["--fds"]);
    let Some(mut workload) = start("op=accept room=1 then=cancel failures=71") else { return };
    workload.go();
    assert_eq!(workload.done()["errnos"], json!({ "ECANCELED": 71 }));
    assert_counted(&fdtrace.stop(), workload.pid(), &[]);
}

fn storm() {
    const MANY: u64 = 300_007;
    let fdtrace = fdtrace(&[]);
    let specs = [format!("op=accept failures={MANY}"), format!("op=multishot failures={MANY}")];
    let mut workloads: Vec<_> = specs.iter().filter_map(|spec| start(spec)).collect();
    workloads.iter_mut().for_each(Workload::go);
    for workload in &mut workloads {
        assert_eq!(number(&workload.done(), "/errnos/EMFILE"), MANY);
    }
    let run = fdtrace.stop();
    for workload in &workloads {
        assert_counted(&run, workload.pid(), &[("io_uring_accept", "EMFILE", MANY)]);
    }
}
