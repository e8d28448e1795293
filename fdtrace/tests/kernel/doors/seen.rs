//! What a run of fdtrace could see, and what it counted.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::is_own_system;
use crate::support::{Fdtrace, Run, number};

/// How a run observed what these tests do, as it said itself when it started.
pub(super) struct Sight {
    fds: String,
    io_uring: String,
    accept: String,
}

impl Sight {
    #[track_caller]
    pub(super) fn of(run: &Run) -> Self {
        Self::of_start(run.of_kind("started", &json!({}))[0])
    }

    /// The same of one that goes on.
    #[track_caller]
    pub(super) fn now(fdtrace: &mut Fdtrace) -> Self {
        Self::of_start(&fdtrace.reported("started", &json!({})))
    }

    #[track_caller]
    fn of_start(started: &Value) -> Self {
        let probes = started["probes"].as_array().unwrap();
        let form = |name: &str| {
            let probe = probes.iter().find(|probe| probe["probe"] == name);
            probe.map_or("", |probe| probe["form"].as_str().unwrap()).to_owned()
        };
        let sight = Self { fds: form("fds"), io_uring: form("io_uring"), accept: form("accept") };
        assert_ne!(sight.fds, "none", "{probes:?}");
        // Nothing forbids anything there: a program that is refused is a mistake of ours.
        let why = probes.iter().flat_map(|probe| probe["refused"].as_array().into_iter().flatten());
        for refused in why.filter(|_| is_own_system()) {
            assert!(!refused["why"].as_str().unwrap().contains("permitted"), "{refused}");
        }
        sight
    }

    /// Whether it saw every failed allocation, whichever call came to that.
    pub(super) fn all_allocations(&self) -> bool {
        is_function(&self.fds)
    }

    /// Whether it saw accept called by the numbers of another architecture: such calls come to the
    /// same functions, but to no tracepoint of `syscalls`.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn compat_accepts(&self) -> bool {
        is_function(&self.accept)
    }

    /// Whether it saw refusals at that door.
    pub(super) fn sees(&self, door: &str) -> bool {
        match door {
            "accept" | "accept4" | "socket" | "socketpair" => true,
            "io_uring_accept" | "io_uring_accept_direct" => self.io_uring != "none",
            _ if self.fds.is_empty() => false,
            "recvmsg" | "recvmmsg" | "io_uring" | "other" => self.all_allocations(),
            _ => true,
        }
    }
}

fn is_function(form: &str) -> bool {
    matches!(form, "fexit" | "kprobe")
}

/// Failures of one process, by door and errno.
pub(super) type Counts = BTreeMap<(String, String), u64>;

/// Adds to counts.
pub(super) fn add(counts: &mut Counts, door: &str, failure: &str, count: u64) {
    if count > 0 {
        *counts.entry((door.to_owned(), failure.to_owned())).or_default() += count;
    }
}

/// What fdtrace counted of a process.
pub(super) fn counted(run: &Run, pid: u32) -> Counts {
    let mut counts = Counts::new();
    for total in run.totals(&json!({ "process": { "pid": pid } })) {
        let text = |key: &str| total[key].as_str().unwrap();
        add(&mut counts, text("door"), text("failure"), number(total, "/count"));
    }
    counts
}

/// Fails unless fdtrace counted that of the process where it could see it, and nothing else.
#[track_caller]
pub(super) fn assert_counted(run: &Run, pid: u32, truth: &[(&str, &str, u64)]) {
    let sight = Sight::of(run);
    let mut expected = Counts::new();
    for (door, failure, count) in truth {
        if sight.sees(door) {
            add(&mut expected, door, failure, *count);
        } else {
            println!("  {door}: not seen by this form");
        }
    }
    assert_eq!(counted(run, pid), expected, "{:#}", run.summary());
    run.assert_lost_nothing();
}
