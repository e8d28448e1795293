//! What stands under deploy/: each file is read by the program that it is for, which `cargo xtask setup`
//! installs, and names no metric, capability or option that fdtrace does not have.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod containers;
mod kubernetes;
mod prometheus;
mod unit;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The capabilities that everything under deploy/ gives, and no other.
const CAPABILITIES: [&str; 5] = ["BPF", "PERFMON", "NET_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

#[track_caller]
fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs a program that must succeed; gives what it wrote.
#[track_caller]
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output =
        output.unwrap_or_else(|error| panic!("{program}: {error}; cargo xtask setup installs it"));
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{program} {args:?}: {}", said.concat());
    said.concat()
}
