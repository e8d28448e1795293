//! Tests on the running kernel, as root. Each workload counts its own failures, and fdtrace's
//! totals must be equal to that, to the last one.
//!
//! The test binary is its own workload: started with `WORKLOAD` or `HOLDER` set, it runs that instead.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod attribution;
mod btf;
mod census;
mod container;
mod daemon;
mod doctor;
mod doors;
mod episodes;
mod errnos;
mod exactness;
mod faults;
mod forms;
#[path = "../processes/holder.rs"]
mod holder;
mod host;
mod odd_hosts;
mod privileges;
mod queue_workload;
mod queues;
mod retries;
mod warnings;
mod workload;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// A test and its name.
pub(crate) type Test = (&'static str, fn());

fn main() -> ExitCode {
    if let Some(spec) = std::env::var_os("WORKLOAD") {
        match spec.to_str().unwrap() {
            "container" => odd_hosts::run(),
            spec if spec.starts_with('{') => queue_workload::run(spec),
            spec if spec.starts_with("doors=") => doors::run(spec),
            spec if spec.starts_with("retries=") => retries::run(spec),
            spec if spec.starts_with("holds=") => warnings::run(spec),
            spec => workload::run(spec),
        }
        return ExitCode::SUCCESS;
    }
    if let Some(spec) = std::env::var_os("HOLDER") {
        holder::run(spec.to_str().unwrap());
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    // fdtrace sees the whole host; tests beside each other would disturb each other's storms.
    arguments.test_threads.get_or_insert(1);
    let tests = [
        host::TESTS,
        forms::TESTS,
        btf::TESTS,
        doctor::TESTS,
        odd_hosts::TESTS,
        privileges::TESTS,
        container::TESTS,
        exactness::TESTS,
        attribution::TESTS,
        errnos::TESTS,
        episodes::TESTS,
        census::TESTS,
        warnings::TESTS,
        retries::TESTS,
    ];
    let trials = tests
        .iter()
        .chain(daemon::TESTS)
        .chain(faults::TESTS)
        .chain(queues::TESTS)
        .chain(doors::TESTS)
        .copied()
        .flatten()
        .copied()
        .map(|(name, test)| {
            Trial::test(name, move || {
                test();
                Ok(())
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
