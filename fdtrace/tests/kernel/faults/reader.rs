//! Whoever reads what fdtrace says, pauses.

use std::{
    io::{BufRead as _, BufReader},
    os::fd::AsRawFd as _,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::{
    libc,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    Test,
    support::{binary, form_arguments},
    workload::Workload,
};

pub(crate) const TESTS: &[Test] =
    &[("a_reader_that_pauses_stops_nothing", a_reader_that_pauses_stops_nothing)];

/// As a pager does: processes that are gone before somebody reads on are known all the same.
fn a_reader_that_pauses_stops_nothing() {
    const MANY: usize = 60;
    let mut child = Command::new(binary())
        .arg("--json")
        .args(form_arguments())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    // SAFETY: a descriptor that is open, and a number.
    unsafe { libc::fcntl(stdout.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    let mut stdout = BufReader::new(stdout);
    let mut started = String::new();
    stdout.read_line(&mut started).unwrap();
    for _ in 0..MANY {
        let mut workload = Workload::start("failures=7 comm=pager");
        workload.fail();
        // Time enough for whoever looks.
        thread::sleep(Duration::from_millis(100));
        workload.end();
    }
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    thread::sleep(Duration::from_millis(500));
    let lines: Vec<Value> =
        stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert!(child.wait().unwrap().success());
    let of = |line: &&Value| line["process"]["comm"] == "pager";
    let opened = lines.iter().filter(|line| line["kind"] == "episode_opened").filter(of);
    let known = opened.filter(|line| line["process"]["exe"].is_string()).count();
    // On a slow machine some are gone before anybody looks. If it waited for the reader, there would be
    // as many as a pipe has room for: three.
    assert!(known > 10, "{known}");
    let summary = lines.last().unwrap();
    let totals = summary["totals"].as_array().unwrap().iter().filter(of);
    let count: u64 = totals.map(|total| total["count"].as_u64().unwrap()).sum();
    assert_eq!(count, 7 * MANY as u64, "{summary}");
}
