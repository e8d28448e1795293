//! Real servers, driven to their real limit. What they write in their own logs, or do to their
//! clients, is the truth that fdtrace's count must be equal to.
//!
//! Everything is on loopback, in a temporary directory, and ends with its test.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its log should show what was measured"
)]

#[path = "../support/mod.rs"]
mod support;

mod asyncio;
mod careless;
mod clients;
mod clock;
mod exhausted;
mod go;
mod growth;
mod leaks;
mod nginx;
mod node;
mod overflow;
mod prometheus;
mod queues;
mod redis;
mod server;
mod started;
mod supervised;
#[rustfmt::skip]
#[expect(
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    clippy::print_stderr,
    unreachable_pub,
    reason = "nobody here wrote it"
)]
mod tcp_echo;
mod unknown;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// A test and its name.
pub(crate) type Test = (&'static str, fn());

fn main() -> ExitCode {
    if let Some(server) = std::env::var_os("SERVER") {
        match server.to_str().unwrap() {
            "tcp_echo" => tcp_echo::main().unwrap(),
            spec => careless::run(spec),
        }
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    // Servers beside each other would slow each other down, and one assertion is of time.
    arguments.test_threads.get_or_insert(1);
    server::raise_own_limit();
    let tests = [
        go::TESTS,
        nginx::TESTS,
        redis::TESTS,
        node::TESTS,
        asyncio::TESTS,
        overflow::TESTS,
        exhausted::TESTS,
        started::TESTS,
        supervised::TESTS,
        leaks::TESTS,
        growth::TESTS,
        queues::TESTS,
        unknown::TESTS,
        prometheus::TESTS,
    ];
    let trials = tests
        .concat()
        .into_iter()
        .map(|(name, test)| {
            Trial::test(name, move || {
                test();
                Ok(())
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
