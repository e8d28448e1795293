//! What is said of threads is what they were told to do.

use std::{
    fs,
    io::ErrorKind,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use fdtrace::{
    enrich::acceptor::{self, WINDOW},
    model::{Acceptor, Pid, Thread, ThreadState},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid as NixPid,
};

use super::{Test, holder::Holder};

pub(crate) const TESTS: &[Test] = &[
    ("threads_that_wait_and_spin", wait_and_spin),
    ("threads_that_were_stopped", stopped),
    ("threads_stopped_by_a_debugger", traced),
    ("threads_that_were_frozen", frozen),
    ("threads_of_a_process_that_is_gone", gone),
    ("threads_of_which_there_are_many", many),
];

#[track_caller]
fn look(holder: &Holder) -> Acceptor {
    acceptor::start(PathBuf::from("/proc"), holder.id(), WINDOW).unwrap().wait().unwrap()
}

fn named<'a>(acceptor: &'a Acceptor, name: &str) -> &'a Thread {
    acceptor.threads.iter().find(|thread| thread.comm.to_text() == name).unwrap()
}

/// Waits until something is so that takes a moment.
#[track_caller]
fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !is_so() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(5));
    }
}

fn wait_and_spin() {
    let holder = Holder::start("spinner=1 acceptor=1");
    thread::sleep(Duration::from_millis(50));
    let acceptor = look(&holder);
    assert_eq!((acceptor.pid, acceptor.thread_count), (Pid(holder.pid()), 3));
    assert!(acceptor.is_complete() && acceptor.tracer.is_none());
    assert!(acceptor.window >= WINDOW);

    let spins = &acceptor.threads[0];
    assert_eq!((spins.comm.to_text(), spins.state), ("spins".to_owned(), ThreadState::Running));
    // What it did not get of a core, others had: it waited for it.
    let (cpu, starved) = (spins.cpu.unwrap(), spins.starved.unwrap_or(0.0));
    assert!(cpu > 0.2 && cpu + starved > 0.85, "{spins:?}");

    let waits = named(&acceptor, "waits");
    assert_eq!((waits.state, waits.is_steady), (ThreadState::Sleeping, true));
    assert!(waits.cpu.is_some_and(|cpu| cpu < 0.05), "{waits:?}");
    // Only those who may trace the process are told.
    if let Some(syscall) = &waits.syscall {
        assert_eq!(syscall.name, Some("accept4"));
        let fd = format!("/proc/{}/fd/{}", holder.pid(), syscall.first_argument);
        let link = fs::read_link(fd).unwrap();
        assert!(link.to_string_lossy().starts_with("socket:["), "{}", link.display());
    }
}

fn stopped() {
    let holder = Holder::start("acceptor=2");
    kill(pid(&holder), Signal::SIGSTOP).unwrap();
    until(|| look(&holder).threads.iter().all(|thread| thread.state == ThreadState::Stopped));
    let acceptor = look(&holder);
    assert!(acceptor.threads.iter().all(|thread| thread.is_steady && thread.cpu == Some(0.0)));
    assert_eq!(acceptor.threads.len(), 3);
    kill(pid(&holder), Signal::SIGCONT).unwrap();
    until(|| look(&holder).threads.iter().all(|thread| thread.state == ThreadState::Sleeping));
}

fn traced() {
    let holder = Holder::start("");
    let tid = i32::try_from(holder.pid()).unwrap();
    let ptrace = |request: libc::c_uint| {
        // SAFETY: neither request reads or writes memory.
        unsafe { libc::ptrace(request, tid, 0, 0) }
    };
    // Where an LSM does not let us, there is nothing to see.
    if ptrace(libc::PTRACE_SEIZE) != 0 {
        return;
    }
    assert_eq!(ptrace(libc::PTRACE_INTERRUPT), 0);
    until(|| look(&holder).threads[0].state == ThreadState::Traced);
    assert_eq!(look(&holder).tracer, Some(Pid(std::process::id())));
    drop(holder);
}

/// A cgroup of v2 of its own, for as long as this lives.
struct Cgroup(PathBuf);

impl Cgroup {
    /// `None` where there is no cgroup v2, or it may not be changed.
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mut fields = mounts.lines().map(|line| line.split(' '));
        let mut v2 = fields.find(|fields| fields.clone().nth(2) == Some("cgroup2"))?;
        let path = PathBuf::from(v2.nth(1)?).join(format!("fdtrace-test-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    fn write(&self, name: &str, text: &str) -> std::io::Result<()> {
        fs::write(self.0.join(name), text)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Nobody is in it any more, or will be in a moment.
        until(|| fs::remove_dir(&self.0).is_ok());
    }
}

fn frozen() {
    let Some(cgroup) = Cgroup::new() else {
        return;
    };
    let holder = Holder::start("acceptor=2");
    if cgroup.write("cgroup.procs", &holder.pid().to_string()).is_err() {
        return;
    }
    cgroup.write("cgroup.freeze", "1").unwrap();
    let is_frozen = || look(&holder).threads.iter().all(Thread::is_frozen);
    until(is_frozen);
    cgroup.write("cgroup.freeze", "0").unwrap();
    until(|| !is_frozen());
}

fn gone() {
    let holder = Holder::start("");
    let id = holder.id();
    drop(holder);
    let error = acceptor::start(PathBuf::from("/proc"), id, WINDOW).unwrap().wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

fn many() {
    let holder = Holder::start("acceptor=1500");
    let acceptor = look(&holder);
    assert_eq!((acceptor.thread_count, acceptor.threads.len()), (1501, 1024));
    assert!(!acceptor.is_complete());
    assert_eq!(acceptor.unknown, ["what 477 of 1501 threads do"]);
}

fn pid(holder: &Holder) -> NixPid {
    NixPid::from_raw(i32::try_from(holder.pid()).unwrap())
}
