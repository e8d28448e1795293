//! The cgroup that a process failed in is removed while its episode goes on.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    Test,
    support::{Daemon, Fdtrace, eventually},
    workload::Workload,
};

pub(super) const TESTS: &[Test] = &[
    ("a_cgroup_is_removed_after_its_process_left_it", after_its_process_left_it),
    ("a_cgroup_is_removed_after_its_process_ended", after_its_process_ended),
];

/// Where cgroup v2 is mounted.
pub(crate) fn cgroup2() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    mounts.find(|mount| mount[2] == "cgroup2").expect("cgroup v2")[1].into()
}

/// A container's cgroup in a service's, as a runtime and systemd make them.
pub(crate) struct Cgroup {
    root: PathBuf,
    pub(crate) unit: String,
}

impl Cgroup {
    pub(crate) const CONTAINER: &str =
        "4f1c0d6f2f5a4e7c9b8a7d6e5f4c3b2a1908f7e6d5c4b3a29180706050403020";

    pub(crate) fn make() -> Self {
        let unit = format!("fdtrace-test-{}.service", std::process::id());
        let this = Self { root: cgroup2(), unit };
        fs::create_dir_all(this.dir()).unwrap();
        this
    }

    fn dir(&self) -> PathBuf {
        self.root.join(&self.unit).join(format!("docker-{}.scope", Self::CONTAINER))
    }

    pub(crate) fn take(&self, pid: u32) {
        put(&self.dir(), pid);
    }

    /// The process is somewhere else from now on.
    fn give_up(&self, pid: u32) {
        put(&self.root, pid);
    }

    #[track_caller]
    pub(crate) fn remove(&self) {
        // It is busy for a moment after a process of it has ended.
        eventually("the cgroup is removed", || fs::remove_dir(self.dir()).is_ok());
        fs::remove_dir(self.root.join(&self.unit)).unwrap();
    }

    /// What fdtrace says of a process that was in it.
    pub(crate) fn process(&self, pid: u32) -> Value {
        json!({ "process": { "pid": pid, "unit": self.unit, "container": Self::CONTAINER } })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Only where a test failed.
        let _ = fs::remove_dir(self.dir());
        let _ = fs::remove_dir(self.root.join(&self.unit));
    }
}

fn put(cgroup: &Path, pid: u32) {
    fs::write(cgroup.join("cgroup.procs"), pid.to_string()).unwrap();
}

fn after_its_process_left_it() {
    let mut workload = Workload::start("failures=67 then=fail-again");
    let pid = workload.pid();
    let cgroup = Cgroup::make();
    cgroup.take(pid);
    let mut fdtrace = Fdtrace::start(&[]);
    let daemon = Daemon::start(
        "[output]\nstdout = \"none\"\njournal = \"never\"\n[metrics]\nlisten = \"127.0.0.1:PORT\"\n",
    );
    assert_eq!(workload.fail(), 67);
    fdtrace.reported("episode_opened", &cgroup.process(pid));
    let unit = format!("unit=\"{}\"", cgroup.unit);
    let metric = |door: &str| {
        let labels = [unit.as_str(), &Cgroup::CONTAINER[..12], door];
        daemon.metric("fdtrace_failures_total", &labels).to_string()
    };
    assert_eq!(metric("accept4"), "67");

    cgroup.give_up(pid);
    cgroup.remove();
    assert_eq!(workload.fail(), 67);
    assert_eq!(metric("accept4"), "134");
    assert!(daemon.stop().status.success());
    workload.end();
    let closed = fdtrace.reported("episode_closed", &cgroup.process(pid));
    assert_eq!((&closed["outcome"], &closed["count"]), (&json!("exited"), &json!(134)));
    let run = fdtrace.stop();
    assert_eq!(run.count(&cgroup.process(pid)), 134);
    assert_eq!(run.count(&json!({ "process": { "pid": pid } })), 134);
    run.assert_lost_nothing();
}

fn after_its_process_ended() {
    let mut workload = Workload::start("failures=71");
    let pid = workload.pid();
    let cgroup = Cgroup::make();
    cgroup.take(pid);
    let mut fdtrace = Fdtrace::start(&[]);
    assert_eq!(workload.fail(), 71);
    fdtrace.reported("episode_opened", &cgroup.process(pid));
    workload.end();
    cgroup.remove();
    let closed = fdtrace.reported("episode_closed", &cgroup.process(pid));
    assert_eq!((&closed["outcome"], &closed["count"]), (&json!("exited"), &json!(71)));

    // Gone, with its cgroup, before anybody may have looked: counted all the same.
    let mut workload = Workload::start("failures=73 then=die");
    let pid = workload.pid();
    let again = Cgroup::make();
    again.take(pid);
    workload.go();
    workload.end();
    again.remove();
    let run = fdtrace.stop();
    assert_eq!(run.count(&json!({ "process": { "pid": pid } })), 73);
    run.assert_lost_nothing();
}
