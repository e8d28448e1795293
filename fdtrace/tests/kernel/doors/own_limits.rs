//! Calls with a limit of their own, where they answer EMFILE as if descriptors were at an end.

use std::{
    fs,
    os::fd::{FromRawFd as _, OwnedFd},
    process::Command,
};

use nix::{
    errno::Errno,
    libc::{self, c_long},
    sys::resource::{Resource, setrlimit},
    unistd::{Uid, setuid},
};
use serde_json::json;

use super::{
    fdtrace,
    seen::{Sight, assert_counted},
    table,
};
use crate::{
    Test,
    support::number,
    workload::{Spec, Workload, say, wait},
};

pub(super) const TESTS: &[Test] = &[
    ("inotify_at_its_instances_is_no_lack_of_descriptors", instances),
    ("limits_that_fdtrace_does_not_know_are_no_lack_of_descriptors", unknown_limits),
    ("inotify_without_fds_is_not_counted", without_fds),
    ("who_has_a_users_inotify_instances_is_told", instances_are_told),
    ("who_has_a_users_pipes_is_told", pipe_pages_are_told),
];

/// A user that nobody is, so that nothing is in use. Limits are per user.
const NOBODY: u32 = 54_321;
const MAX_INSTANCES: &str = "/proc/sys/fs/inotify/max_user_instances";
/// More descriptors than any of these limits allows.
const SOFT: usize = 4096;

/// Takes all that a user may have, and then fails `failures` times to take another.
pub(super) fn run(spec: &Spec<'_>) {
    let make: fn() -> c_long = match spec.text("call").unwrap() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: numbers only.
        "inotify_init" => || unsafe { libc::syscall(libc::SYS_inotify_init) },
        // SAFETY: numbers only.
        "inotify_init1" => || unsafe { libc::syscall(libc::SYS_inotify_init1, libc::IN_CLOEXEC) },
        "fanotify_init" => || {
            // Everybody may have a group that tells of files by their handles.
            // SAFETY: numbers only.
            unsafe { libc::syscall(libc::SYS_fanotify_init, libc::FAN_REPORT_FID, 0) }
        },
        "mq_open" => || {
            let (name, flags) = (c"fdtrace-test-own", libc::O_CREAT | libc::O_RDWR);
            let none = std::ptr::null::<libc::mq_attr>();
            // SAFETY: a name that lives long enough, and no attributes.
            unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, 0o600, none) }
        },
        "pipe2" => || {
            let mut ends = [0; 2];
            // SAFETY: two numbers to be written.
            match unsafe { libc::syscall(libc::SYS_pipe2, ends.as_mut_ptr(), libc::O_CLOEXEC) } {
                // The other end is never closed: the process ends soon.
                0 => ends[0].into(),
                failed => failed,
            }
        },
        other => panic!("call={other}"),
    };
    table::limit(SOFT);
    // Not one queue fits.
    setrlimit(Resource::RLIMIT_MSGQUEUE, 1, 1).unwrap();
    setuid(Uid::from_raw(NOBODY)).unwrap();
    let mut held = Vec::new();
    let end = loop {
        match Errno::result(make()) {
            // SAFETY: the kernel has just given us the descriptor.
            Ok(fd) => held.push(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) }),
            Err(errno) => break errno,
        }
    };
    say("ready", &json!({ "held": held.len(), "end": format!("{end:?}") }));
    wait();
    let failures = spec.number("failures", 1);
    for _ in 0..failures {
        assert_eq!(Errno::result(make()), Err(end));
    }
    // There are still descriptors.
    drop(fs::File::open("/dev/null").unwrap());
    say("done", &json!({ "failures": failures }));
    wait();
    // Where something was done about it.
    let again = Errno::result(make()).map(drop);
    say("done", &json!({ "again": format!("{again:?}") }));
    wait();
}

fn instances() {
    let calls: &[&str] = if cfg!(target_arch = "x86_64") {
        &["inotify_init1", "inotify_init"]
    } else {
        &["inotify_init1"]
    };
    for call in calls {
        let mut workload = Workload::start(&format!("doors=own call={call} failures=109"));
        let max: u64 = fs::read_to_string(MAX_INSTANCES).unwrap().trim().parse().unwrap();
        assert_eq!(workload.ready, json!({ "held": max, "end": "EMFILE" }));
        let mut fdtrace = fdtrace(&["--fds"]);
        let process = json!({ "pid": workload.pid() });
        assert_eq!(workload.fail(), 109);
        let fields = json!({
            "process": process,
            "failure": "EMFILE",
            "door": call,
            "limit": { "kind": "inotify_instances", "value": max },
            "fds": { "soft": SOFT },
        });
        let (_, opened) = fdtrace.wait_for_report("episode_opened", &fields);
        assert!(number(&opened, "/fds/open") < number(&opened, "/fds/soft"), "{opened}");
        assert_counted(&fdtrace.stop(), workload.pid(), &[(call, "EMFILE", 109)]);
        workload.end();
    }
}

/// What is in a file of /proc/sys, until this is dropped.
struct Setting {
    path: &'static str,
    before: String,
}

impl Setting {
    fn keep(path: &'static str) -> Self {
        Self { path, before: fs::read_to_string(path).unwrap() }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::write(self.path, &self.before);
    }
}

/// A user has all it may have: who holds them is told, and the remedy ends it.
fn told_and_ended(call: &str, errno: &str, cause: &str, path: &'static str) {
    let setting = Setting::keep(path);
    if call == "pipe2" {
        fs::write(path, "128").unwrap();
    }
    let mut workload = Workload::start(&format!("doors=own call={call} failures=3"));
    assert_eq!(workload.ready["end"], errno);
    let mut fdtrace = fdtrace(&["--fds"]);
    let pid = workload.pid();
    assert_eq!(workload.fail(), 3);
    let fields = json!({ "process": { "pid": pid }, "failure": errno, "door": call });
    let (_, told) = fdtrace.wait_for_report("episode_diagnosed", &fields);
    let found = &told["diagnoses"][0];
    println!("  {}", found["why"]);
    assert_eq!((&found["cause"], &found["certainty"]), (&json!(cause), &json!("certain")));
    let held = number(&workload.ready, "/held");
    let holder = found["evidence"].as_array().unwrap().iter().find(|one| one["fact"] == "holder");
    let holder = holder.unwrap()["value"].as_str().unwrap();
    assert!(holder.contains(&format!("[{pid}] ")), "{holder}");
    let number: u64 = holder.rsplit(' ').next().unwrap().parse().unwrap();
    // Its stdin, its stdout and perhaps its stderr are pipes too.
    assert!((held..=held + 3).contains(&number), "{number} of {held}");
    let command = found["remedies"][0]["command"].as_str().unwrap();
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
    workload.go();
    assert_eq!(workload.done()["again"], "Ok(())");
    drop(setting);
    fdtrace.stop();
    workload.end();
}

fn instances_are_told() {
    told_and_ended("inotify_init1", "EMFILE", "inotify_instances", MAX_INSTANCES);
}

fn pipe_pages_are_told() {
    told_and_ended("pipe2", "ENFILE", "pipe_pages", "/proc/sys/fs/pipe-user-pages-hard");
}

/// fs.fanotify.max_user_groups and RLIMIT_MSGQUEUE. No descriptor is refused, so that only a form that
/// looks at the call itself sees them; and what fdtrace then says is not that descriptors ran out.
fn unknown_limits() {
    for call in ["fanotify_init", "mq_open"] {
        let mut workload = Workload::start(&format!("doors=own call={call} failures=107"));
        if workload.ready["end"] != "EMFILE" {
            println!("  {call}: not on this kernel: {}", workload.ready["end"]);
            continue;
        }
        let fdtrace = fdtrace(&["--fds"]);
        assert_eq!(workload.fail(), 107);
        let run = fdtrace.stop();
        let process = json!({ "process": { "pid": workload.pid() } });
        for opened in run.of_kind("episode_opened", &process) {
            assert_eq!(opened["limit"], json!(null), "{opened}");
            assert!(number(opened, "/fds/open") < number(opened, "/fds/soft"), "{opened}");
        }
        let seen = if Sight::of(&run).all_allocations() { 0 } else { 107 };
        assert_counted(&run, workload.pid(), &[(call, "EMFILE", seen)]);
        workload.end();
    }
}

fn without_fds() {
    let mut workload = Workload::start("doors=own call=inotify_init1 failures=5");
    let fdtrace = fdtrace(&[]);
    assert_eq!(workload.fail(), 5);
    assert_counted(&fdtrace.stop(), workload.pid(), &[]);
    workload.end();
}
