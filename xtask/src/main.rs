//! The tasks of this repository that cargo alone cannot do. Each verb is one file; what several
//! verbs need is in `proc` (running programs) and `repo` (where things are).
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what these tasks do and find is their product, and goes to stdout; errors to stderr"
)]

mod bench;
mod build_ebpf;
mod counts;
mod dist;
mod layers;
mod proc;
mod repo;
mod setup;
mod test;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what building the eBPF object and running every test needs (Debian, Ubuntu)
    Setup(setup::Args),
    /// Build the eBPF object that is committed under fdtrace/bpf
    BuildEbpf(build_ebpf::Args),
    /// Fail when a stage of fdtrace knows of another stage
    Layers,
    /// Run the kernel tests in a virtual machine on Debian's kernels
    Vm(vm::Args),
    /// Run every check and test, in the order CI does
    Test(test::Args),
    /// Measure what fdtrace costs, beside other tools (root, an idle machine)
    Bench(bench::Args),
    /// Build the Debian package, and check that it installs and purges clean (root)
    Dist(dist::Args),
    #[command(hide = true)]
    BenchWork(bench::work::Args),
    #[command(hide = true)]
    BenchEmpty,
}

fn main() -> ExitCode {
    let result = run(Cli::parse().verb);
    // Not by returning it: that would add a backtrace of xtask to what a person has to read.
    if let Err(error) = &result {
        eprintln!("error: {error:#}");
    }
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Setup(args) => setup::run(&args),
        Verb::BuildEbpf(args) => build_ebpf::run(&args),
        Verb::Layers => layers::run(),
        Verb::Vm(args) => vm::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Dist(args) => dist::run(&args),
        Verb::BenchWork(args) => bench::work::run(&args),
        Verb::BenchEmpty => bench::empty::run(),
    }
}
