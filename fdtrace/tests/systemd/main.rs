//! Limits as systemd, PAM and the kernel's settings give them, on a machine of its own whose first
//! process is systemd (`cargo xtask vm --systemd`). For each: a server runs out, fdtrace says why and
//! what to do, that is done as it is printed, and the episode ends.
//!
//! The test binary is its own server: started with `WEB` set, it runs that instead.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its log should show what was said"
)]

#[path = "../support/mod.rs"]
mod support;

mod host;
mod login;
mod outputs;
mod package;
mod service;
mod unit;
mod units;
mod web;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// A test and its name.
pub(crate) type Test = (&'static str, fn());

fn main() -> ExitCode {
    if let Some(spec) = std::env::var_os("WEB") {
        web::run(spec.to_str().unwrap());
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    // Units are written and settings of the whole system changed: on no machine but that one.
    let is_ours = std::env::var_os("FDTRACE_VM").is_some()
        && std::fs::read_to_string("/proc/1/comm").is_ok_and(|comm| comm == "systemd\n");
    let trial = |(name, test): &Test| {
        let test = *test;
        let trial = Trial::test(*name, move || {
            test();
            Ok(())
        });
        trial.with_ignored_flag(!is_ours)
    };
    let tests =
        [units::TESTS, login::TESTS, host::TESTS, service::TESTS, outputs::TESTS, package::TESTS];
    let trials = tests.concat().iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
