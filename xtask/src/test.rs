//! `cargo xtask test`: every check and test there is, in one order, with one sum at the end. CI
//! runs exactly this.

mod cargo_test;
mod targets;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build_ebpf::{self, Checked};
use crate::counts::Counts;
use crate::proc::{cargo, heading, run as run_command};
use crate::vm::arch::Arch;
use crate::vm::kernel::{SERIES, Series};
use crate::vm::{Boot, Task, Userland, userland};
use crate::{dist, layers, setup};
use targets::Targets;

/// With no flag everything runs, setup and the checks included; with flags only what they name.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag, and any of them may be given")]
pub(crate) struct Args {
    /// The tests that need no privileges
    #[arg(long)]
    unit: bool,
    /// The tests against this machine's kernel (root)
    #[arg(long)]
    kernel: bool,
    /// The tests with real servers (root)
    #[arg(long)]
    servers: bool,
    /// The kernel tests on Debian's kernels and those with systemd, in a virtual machine
    #[arg(long)]
    vm: bool,
    /// There with every form of the probes on every kernel, not only with one
    #[arg(long)]
    every_form: bool,
    /// The same on arm64: only where it is asked for, and after `cargo xtask setup --arm64`
    #[arg(long)]
    arm64: bool,
}

/// How long the kernel tests may take on an emulated machine.
const VM_TIMEOUT: Duration = Duration::from_secs(1500);
/// The same tests must give the same totals whichever way the programs are attached. What is
/// automatic is fexit on these kernels.
const FORMS: [&str; 3] = ["auto", "kprobe", "tracepoint"];

/// The forms that a kernel is tested with: one, so that each of these is tested somewhere (and what
/// this machine's kernel has, by the tests on it); all of them where that is asked for, for an
/// emulated machine takes minutes for each.
fn forms(series: &Series, every: bool) -> impl Iterator<Item = &'static str> {
    let one = if series.name == "6.1" { "kprobe" } else { "auto" };
    FORMS.into_iter().filter(move |form| every || *form == one)
}
/// A host on which nothing can be traced: fdtrace must say so, with this exit code.
const LOCKED_DOWN: &str = "lsm=lockdown lockdown=confidentiality";
const EXPECT_UNSUPPORTED: &str = "fdtrace --duration 1s; test $? -eq 3";

pub(crate) fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let mut total = Counts::default();
    let result = all(args, &mut total);
    if result.is_err() && total.failed == 0 {
        // What stopped us early is no test, and must not leave a sum without a failure.
        total += Counts::FAILED;
    }
    heading(&format!("the sum, after {} s", start.elapsed().as_secs()));
    println!("{total}");
    result?;
    if total.failed > 0 {
        bail!("{} failed", total.failed);
    }
    Ok(())
}

fn all(args: &Args, total: &mut Counts) -> Result<()> {
    let everything = !(args.unit || args.kernel || args.servers || args.vm || args.arm64);
    if everything {
        heading("setup");
        setup::run(&setup::Args::default())?;
        checks(total)?;
    }
    let targets = Targets::read()?;
    if everything || args.unit {
        heading("tests without privileges");
        *total += unit(&targets)?;
    }
    for (name, wanted) in [("kernel", args.kernel), ("servers", args.servers)] {
        if everything || wanted {
            heading(&format!("{name} tests on this machine"));
            targets.require(name)?;
            *total += cargo_test::privileged(name)?;
        }
    }
    if everything && targets.has("readme") {
        heading("the README's commands");
        *total += cargo_test::privileged("readme")?;
    }
    if everything {
        heading("the Debian package");
        dist::run(&dist::Args::default())?;
        *total += Counts::PASSED;
    }
    if everything || args.vm {
        targets.require("kernel")?;
        for series in Series::held_to() {
            for form in forms(series, args.every_form) {
                *total +=
                    boot(series, Arch::X86_64, Userland::Busybox, "", Task::Tests(&[]), form)?;
            }
        }
        targets.require("systemd")?;
        for series in SERIES.iter().filter(|series| userland::is_for(series)) {
            let task = Task::Tests(&[]);
            *total += boot(series, Arch::X86_64, Userland::Systemd, "", task, "auto")?;
        }
        for series in Series::held_to() {
            let task = Task::Shell(EXPECT_UNSUPPORTED);
            *total += boot(series, Arch::X86_64, Userland::Busybox, LOCKED_DOWN, task, "auto")?;
        }
    }
    if args.arm64 {
        targets.require("kernel")?;
        for series in Series::held_to() {
            *total += boot(series, Arch::Arm64, Userland::Busybox, "", Task::Tests(&[]), "auto")?;
        }
    }
    Ok(())
}

/// What is looked at before any test is run: each stops the run, because what follows would be of
/// something that cannot be committed.
fn checks(total: &mut Counts) -> Result<()> {
    heading("format");
    run_command(cargo().args(["fmt", "--all", "--check"])).context("run `cargo fmt --all`")?;

    heading("lints");
    let deny = ["--", "--deny", "warnings"];
    run_command(cargo().args(["clippy", "--quiet", "--locked", "--all-targets"]).args(deny))?;
    if !build_ebpf::clippy()? {
        println!("the eBPF crate's toolchain has no clippy: not linted");
        *total += Counts::SKIPPED;
    }

    heading("eBPF object");
    match build_ebpf::check()? {
        Checked::Same => {}
        Checked::Different => bail!("the committed object is not what its sources build"),
        Checked::OtherTools => *total += Counts::SKIPPED,
    }

    heading("layers");
    layers::run()
}

fn unit(targets: &Targets) -> Result<Counts> {
    let mut counts = cargo_test::run(
        cargo()
            .args(["test", "--locked", "--no-fail-fast"])
            .args(["--lib", "--bins"])
            .args(targets.unprivileged().flat_map(|name| ["--test", name])),
    )?;
    counts += cargo_test::run(cargo().args(["test", "--locked", "--doc"]))?;
    Ok(counts)
}

/// A boot's tests, or the boot itself as one test when its task is a line for the shell.
fn boot(
    series: &'static Series,
    arch: Arch,
    userland: Userland,
    append: &str,
    task: Task<'_>,
    form: &str,
) -> Result<Counts> {
    let is_one_test = matches!(task, Task::Shell(_));
    println!("probes in the form: {form}");
    let env = [format!("FDTRACE_TEST_FORM={form}").parse()?];
    let outcome =
        Boot { series, arch, userland, append, task, env: &env, add: &[], timeout: VM_TIMEOUT }
            .run()?;
    let mut counts = outcome.counts;
    if outcome.exit_code != 0 && counts.failed == 0 {
        // The line failed, or a test program fell over before it could tell of a failure.
        counts += Counts::FAILED;
    } else if is_one_test {
        counts += Counts::PASSED;
    }
    Ok(counts)
}
