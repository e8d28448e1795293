//! inotify_init(2) at the limit of its own: it answers EMFILE, as if descriptors were at an end.

use std::os::fd::{FromRawFd as _, OwnedFd};

use nix::{
    errno::Errno,
    libc,
    unistd::{Uid, setuid},
};
use serde_json::json;

use super::{fdtrace, seen::assert_counted, table};
use crate::{
    Test,
    support::number,
    workload::{Spec, Workload, say, wait},
};

pub(super) const TESTS: &[Test] = &[
    ("inotify_at_its_instances_is_no_lack_of_descriptors", instances),
    ("inotify_without_fds_is_not_counted", without_fds),
];

/// A user that nobody is, so that no instance is in use. Limits are per user.
const NOBODY: u32 = 54_321;
const MAX_INSTANCES: &str = "/proc/sys/fs/inotify/max_user_instances";

/// Takes every instance of a user, and then fails `failures` times to take another.
pub(super) fn run(spec: &Spec<'_>) {
    let make = match spec.text("call").unwrap() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: numbers only.
        "inotify_init" => || unsafe { libc::syscall(libc::SYS_inotify_init) },
        // SAFETY: numbers only.
        "inotify_init1" => || unsafe { libc::syscall(libc::SYS_inotify_init1, libc::IN_CLOEXEC) },
        other => panic!("call={other}"),
    };
    let max: usize = std::fs::read_to_string(MAX_INSTANCES).unwrap().trim().parse().unwrap();
    table::limit(max + 100);
    setuid(Uid::from_raw(NOBODY)).unwrap();
    let instances: Vec<_> = (0..max)
        .map(|_| {
            let fd = Errno::result(make()).unwrap();
            // SAFETY: the kernel has just given us the descriptor.
            unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) }
        })
        .collect();
    say("ready", &json!({ "instances": instances.len(), "soft": max + 100 }));
    wait();
    let failures = spec.number("failures", 1);
    for _ in 0..failures {
        assert_eq!(Errno::result(make()), Err(Errno::EMFILE));
    }
    // There are still descriptors.
    drop(std::fs::File::open("/dev/null").unwrap());
    say("done", &json!({ "failures": failures }));
    wait();
}

fn instances() {
    let calls: &[&str] = if cfg!(target_arch = "x86_64") {
        &["inotify_init1", "inotify_init"]
    } else {
        &["inotify_init1"]
    };
    for call in calls {
        let mut fdtrace = fdtrace(&["--fds"]);
        let mut workload = Workload::start(&format!("doors=inotify call={call} failures=109"));
        let process = json!({ "pid": workload.pid() });
        assert_eq!(workload.fail(), 109);
        let fields = json!({
            "process": process,
            "failure": "EMFILE",
            "door": call,
            "limit": { "kind": "inotify_instances", "value": workload.ready["instances"] },
            "fds": { "soft": workload.ready["soft"] },
        });
        let (_, opened) = fdtrace.wait_for_report("episode_opened", &fields);
        assert!(number(&opened, "/fds/open") < number(&opened, "/fds/soft"), "{opened}");
        assert_counted(&fdtrace.stop(), workload.pid(), &[(call, "EMFILE", 109)]);
        workload.end();
    }
}

fn without_fds() {
    let fdtrace = fdtrace(&[]);
    let mut workload = Workload::start("doors=inotify call=inotify_init1 failures=5");
    assert_eq!(workload.fail(), 5);
    assert_counted(&fdtrace.stop(), workload.pid(), &[]);
    workload.end();
}
