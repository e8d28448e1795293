//! What is said of processes' descriptors and threads, held against processes that know: each test
//! starts one that opens so many descriptors of every kind, or whose threads do what they are told.
//!
//! The test binary is its own process to look at: started with `HOLDER` or `CONTAINED` set, it runs
//! that instead.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod census;
mod commands;
mod diagnosis;
mod holder;
mod identity;
mod threads;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// A test and its name.
pub(crate) type Test = (&'static str, fn());

fn main() -> ExitCode {
    if let Some(spec) = std::env::var_os("HOLDER") {
        holder::run(spec.to_str().unwrap());
        return ExitCode::SUCCESS;
    }
    if let Some(spec) = std::env::var_os("CONTAINED") {
        identity::run(spec.to_str().unwrap());
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    // Figures of time are of tests that are alone.
    arguments.test_threads.get_or_insert(1);
    let trial = |(name, test): &Test| {
        let test = *test;
        Trial::test(*name, move || {
            test();
            Ok(())
        })
    };
    let tests = [census::TESTS, threads::TESTS, diagnosis::TESTS, commands::TESTS, identity::TESTS];
    let trials = tests.concat().iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
