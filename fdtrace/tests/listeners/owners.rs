//! Whose it is, which of them are listed, and how many descriptors the owner has.

use std::{
    fs,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::resource::{Resource, getrlimit, setrlimit},
};
use serde_json::json;

use crate::{
    listener::{Listener, backlog},
    output::{alone, assert_same, listed, run, with_inode},
    support::binary,
};

#[test]
fn filters() {
    let _alone = alone();
    let listener = Listener::new("127.0.0.1:0", backlog(10));
    let own = std::process::id().to_string();
    let comm = fs::read_to_string("/proc/self/comm").unwrap();
    for args in [["--pid", &own], ["--comm", comm.trim_end()]] {
        let lines = listed(&args);
        with_inode(&lines, listener.inode());
        assert!(lines.iter().all(|line| line["process"]["pid"] == std::process::id()));
    }
    for args in [["--pid", "1"], ["--comm", "nobody"], ["--port", "1"]] {
        let lines = listed(&args);
        assert!(lines.iter().all(|line| line["inode"] != listener.inode()), "{args:?}");
    }
    let none = String::from_utf8(run(&["--comm", "nobody"]).stdout).unwrap();
    assert!(none.starts_with("0 listeners"), "{none}");
}

#[test]
fn nobody_reads_it() {
    let _alone = alone();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(binary());
    let output = command.args(["listeners", "--json"]).stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("pipe"));
}

/// A process that lives until it is dropped.
pub(crate) struct Sleeper(pub(crate) Child);

impl Sleeper {
    /// Started by the calling thread, and so in its network namespace.
    pub(crate) fn start(prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new("sleep");
        prepare(&mut command);
        // It ends by itself if this test is killed.
        let this = Self(command.arg("60").spawn().unwrap());
        // Until then it opens libraries.
        let sleeps = (0..20_000).any(|_| {
            thread::sleep(Duration::from_millis(1));
            this.sleeps()
        });
        assert!(sleeps, "sleep does not");
        this
    }

    fn sleeps(&self) -> bool {
        let read = |name| fs::read_to_string(format!("/proc/{}/{name}", self.0.id())).unwrap();
        let state = |status: String| status.contains("State:\tS");
        read("comm") == "sleep\n" && state(read("status"))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Gives the program that is started next a descriptor beside its standard streams, no others, and a
/// limit of them.
fn give(command: &mut Command, socket: BorrowedFd<'_>, soft: u64) {
    const FIRST: u32 = 3;
    let fd = socket.as_raw_fd();
    // SAFETY: the caller keeps it open until the program is started; five system calls.
    unsafe {
        command.pre_exec(move || {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
            let first = Errno::result(libc::dup2(fd, FIRST.cast_signed()))?;
            // It may have been that one before, and close-on-exec.
            Errno::result(libc::fcntl(first, libc::F_SETFD, 0))?;
            let flag = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
            Errno::result(libc::close_range(FIRST + 1, u32::MAX, flag))?;
            Ok(())
        });
    }
}

/// Of several owners the oldest leads, and the fullest one's descriptors count.
#[test]
fn a_worker_close_to_its_limit() {
    let _alone = alone();
    let listener = Listener::new("127.0.0.1:0", backlog(10));
    let worker = Sleeper::start(|command| give(command, listener.socket.as_fd(), 5));
    let port = listener.port();
    let line = &listed(&["--port", &port])[0];
    let pids: Vec<_> =
        line["processes"].as_array().unwrap().iter().map(|one| &one["pid"]).collect();
    assert_eq!(pids, [std::process::id(), worker.0.id()]);
    // Its standard streams and the listener.
    let fds = json!({"pid": worker.0.id(), "open": 4, "soft": 5});
    assert_same(line, &json!({"process": {"pid": std::process::id()}, "fds": fds}));
    assert_eq!(line["risks"], json!(["fds_filling"]));
    let text = String::from_utf8(run(&["--port", &port]).stdout).unwrap();
    assert!(text.lines().nth(1).unwrap().starts_with("fds "), "{text}");
    assert!(text.contains(" +1  ") && text.contains(&format!("4/5 [{}]", worker.0.id())), "{text}");
    let by_worker = listed(&["--pid", &worker.0.id().to_string()]);
    assert_eq!(by_worker.len(), 1);
    assert_eq!(by_worker[0]["inode"], listener.inode());
}
