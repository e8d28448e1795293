//! Running `cargo test`, showing what it prints, and summing the results in it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::counts::Counts;
use crate::proc::{cargo, is_root, shown};

/// Runs one `cargo test`. A failed test is a count, not an error: what follows still runs. So is a
/// test program that did not compile or fell over, which tells of no failure itself.
pub(crate) fn run(command: &mut Command) -> Result<Counts> {
    println!("$ {}", shown(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    let stdout = child.stdout.take().context("cargo has no stdout")?;
    let mut counts = Counts::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("cannot read what cargo prints")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        if let Some(result) = Counts::from_line(&line) {
            counts += result;
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() && counts.failed == 0 {
        counts += Counts::FAILED;
    }
    Ok(counts)
}

/// One of fdtrace's test programs that need root. They share the machine's kernel, so each test
/// runs alone; the profile is the one of the virtual machine, so that one build serves both.
pub(crate) fn privileged(name: &str) -> Result<Counts> {
    let mut cargo = cargo();
    if !is_root()? {
        // Only the test program: what cargo builds must stay the user's.
        cargo.args(["--config", "target.'cfg(unix)'.runner = ['sudo', '-E']"]);
    }
    cargo.args(["test", "--locked", "--release", "--package", "fdtrace", "--test", name]);
    run(cargo.args(["--", "--test-threads=1"]))
}
