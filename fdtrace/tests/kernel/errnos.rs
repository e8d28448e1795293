//! Which errnos are failures.

use serde_json::json;

use crate::{Test, support::Fdtrace, workload::Workload};

pub(crate) const TESTS: &[Test] = &[
    ("every_errno_but_again_is_counted", every_errno_but_again_is_counted),
    ("again_and_interrupted_are_not", again_and_interrupted_are_not),
    ("success_is_not", success_is_not),
];

fn every_errno_but_again_is_counted() {
    let fdtrace = Fdtrace::start(&[]);
    let cases = [
        // Not listening, but the descriptor is looked for first: room must be left.
        ("listen=no limit=64 fd=none failures=41", "EBADF", "not_open"),
        ("fd=file failures=43 room=1", "ENOTSOCK", "not_socket"),
        ("listen=no room=1 failures=47", "EINVAL", "listener"),
        ("type=dgram listen=no room=1 failures=53", "EOPNOTSUPP", "listener"),
    ];
    let mut expected = Vec::new();
    for (spec, errno, target) in cases {
        let mut workload = Workload::start(spec);
        let failures = workload.fail();
        assert!(failures > 0);
        expected.push((workload.pid(), errno, target, failures));
    }
    let run = fdtrace.stop();
    for (pid, errno, target, failures) in expected {
        let fields = json!({ "process": { "pid": pid }, "failure": errno, "target": target });
        assert_eq!(run.count(&fields), failures, "{errno}: {:#}", run.summary());
    }
    run.assert_lost_nothing();
}

fn again_and_interrupted_are_not() {
    let fdtrace = Fdtrace::start(&[]);
    let mut workload = Workload::start("nonblock=1 room=1 failures=59");
    workload.go();
    assert_eq!(workload.done()["again"], 59);
    let run = fdtrace.stop();
    assert_eq!(run.count(&json!({ "process": { "pid": workload.pid() } })), 0);
    run.assert_lost_nothing();
}

fn success_is_not() {
    let fdtrace = Fdtrace::start(&[]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..61 {
        let _client = std::net::TcpStream::connect(address).unwrap();
        listener.accept().unwrap();
    }
    let run = fdtrace.stop();
    let fields = json!({ "listener": { "port": address.port() } });
    assert_eq!(run.count(&fields), 0);
    run.assert_lost_nothing();
}
