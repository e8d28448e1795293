//! What fdtrace says.

use std::{
    fs,
    process::{Command, Output},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;

use crate::support::{binary, same};

/// One test after the other: between fork and exec, a child of any of them owns every listener.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn run(args: &[&str]) -> Output {
    Command::new(binary()).arg("listeners").args(args).output().unwrap()
}

/// The lines of `--json`: the listeners, and the summary.
#[track_caller]
pub(crate) fn lines(output: &Output) -> (Vec<Value>, Value) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {error}", output.status);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let mut lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.pop().unwrap();
    assert_eq!(summary["kind"], "listeners_summary");
    assert_eq!(summary["listeners"], lines.len());
    assert!(lines.iter().all(|line| line["kind"] == "listener" && line["schema"] == 1));
    (lines, summary)
}

#[track_caller]
pub(crate) fn listed(args: &[&str]) -> Vec<Value> {
    lines(&run(&[&["--json"], args].concat())).0
}

/// The line about one socket.
#[track_caller]
pub(crate) fn with_inode(lines: &[Value], inode: u64) -> &Value {
    let found = lines.iter().find(|line| line["inode"] == inode);
    found.unwrap_or_else(|| panic!("{inode} is not in {lines:#?}"))
}

#[track_caller]
pub(crate) fn assert_same(line: &Value, wanted: &Value) {
    assert!(same(line, wanted), "{line:#}\nhas not {wanted:#}");
}

pub(crate) fn somaxconn() -> u64 {
    fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap()
}

/// Number of the calling thread's network namespace.
pub(crate) fn netns() -> u64 {
    let link = fs::read_link("/proc/thread-self/ns/net").unwrap();
    let link = link.to_str().unwrap();
    link.strip_prefix("net:[").unwrap().strip_suffix(']').unwrap().parse().unwrap()
}
