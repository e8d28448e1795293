//! fdtrace where it is not usually run: inside a container's namespaces.

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, fork, getpid},
};
use serde_json::json;

use crate::{
    Test,
    support::Fdtrace,
    workload::{Workload, wait},
};

pub(crate) const TESTS: &[Test] = &[("inside_a_pid_namespace", inside_a_pid_namespace)];

/// The numbers of processes are those that /proc has there.
fn inside_a_pid_namespace() {
    let mut container = Workload::start("container");
    container.go();
    let said = container.done();
    assert_eq!(said["failures"], 7);
    assert_eq!(said["counted"], 7);
    assert_eq!(said["others"], 5, "a process outside has no number inside, and is counted as well");
}

/// The workload: process 1 of a pid namespace with its own /proc, that runs fdtrace and another
/// workload in it.
pub(crate) fn run() {
    println!("ready {{}}");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    // Outside: started before, fails while fdtrace runs inside.
    let mut outside = Workload::start("comm=outside failures=5");
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS).unwrap();
    // SAFETY: this process has one thread.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
        ForkResult::Child => {
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).unwrap();
            assert_eq!(getpid().as_raw(), 1);
            let fdtrace = Fdtrace::start(&[]);
            let mut inside = Workload::start("comm=inside failures=7");
            let failures = inside.fail();
            outside.fail();
            let run = fdtrace.stop();
            run.assert_lost_nothing();
            let process = json!({ "pid": inside.pid(), "comm": "inside" });
            let totals = run.totals(&json!({ "process": process }));
            // What /proc tells was found under that number.
            assert!(totals.iter().all(|total| total["process"]["exe"].is_string()), "{totals:?}");
            let counted = run.count(&json!({ "process": process }));
            let others = run.count(&json!({ "process": { "comm": "outside", "exe": null } }));
            let said = json!({ "failures": failures, "counted": counted, "others": others });
            println!("done {said}");
            inside.end();
            return;
        }
    }
    wait();
}
