//! Returns that a return probe does not see: more tasks wait inside accept than it can follow
//! (kernel/kprobes.c `maxactive`: 10, or two for each CPU). What is missed is said to be missed.

use std::{
    net::TcpListener,
    os::fd::AsRawFd as _,
    sync::{Arc, Barrier, Mutex},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{Shutdown, SockFlag, accept4, shutdown},
};
use serde_json::json;

use super::is_own_system;
use crate::{
    Test,
    support::Fdtrace,
    workload::{Spec, Workload, say, wait},
};

pub(super) const TESTS: &[Test] = &[("returns_that_are_not_seen_are_counted", are_counted)];

const THREADS: u64 = 64;
/// The first waits and fails when the listener is shut down. Once all have, the others are made by one
/// thread at a time: a return that is missed is noticed when its thread comes again.
const CALLS: u64 = 5;

/// Threads that wait in accept until their listener is shut down under them.
pub(super) fn run(_: &Spec<'_>) {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    say("ready", &json!({ "port": listener.local_addr().unwrap().port() }));
    wait();
    let fail = |listener: &TcpListener| {
        let result = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC);
        assert_eq!(result, Err(Errno::EINVAL));
    };
    let all = Arc::new(Barrier::new(usize::try_from(THREADS).unwrap()));
    let one = Arc::new(Mutex::new(()));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (listener, all, one) = (Arc::clone(&listener), Arc::clone(&all), Arc::clone(&one));
            thread::spawn(move || {
                fail(&listener);
                all.wait();
                let _one = one.lock().unwrap();
                (1..CALLS).for_each(|_| fail(&listener));
            })
        })
        .collect();
    // Until all of them are in the kernel: they do nothing else.
    thread::sleep(Duration::from_secs(1));
    shutdown(listener.as_raw_fd(), Shutdown::Both).unwrap();
    for thread in threads {
        thread.join().unwrap();
    }
    say("done", &json!({ "failures": THREADS * CALLS }));
    wait();
}

fn are_counted() {
    if !is_own_system() {
        println!("  needs kprobes, and a machine with few CPUs: runs in `cargo xtask vm` only");
        return;
    }
    for (form, may_miss) in [("accept=kprobe", true), ("accept=tracepoint", false)] {
        let fdtrace = Fdtrace::start(&["--form", form]);
        let mut workload = Workload::start("doors=returns");
        let made = workload.fail();
        let run = fdtrace.stop();
        let counted = run.count(&json!({ "process": { "pid": workload.pid() } }));
        let missed = run.lost("return_unseen");
        // What the kernel says itself, since 6.7: also of threads that never come back.
        let skipped = run.summary()["lost"]["program_skipped"].as_u64();
        println!(
            "  {form}: {made} made, {counted} counted, {missed} returns unseen, {skipped:?} skipped"
        );
        if !["5.", "6.1."].iter().any(|old| release().starts_with(old)) {
            assert_eq!(counted + skipped.unwrap(), made, "{:#}", run.summary());
        }
        assert_eq!(counted < made, may_miss);
        assert_eq!(missed > 0, may_miss);
        assert_eq!(counted + missed, made, "{:#}", run.summary());
    }
}

fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap()
}
