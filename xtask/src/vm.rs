//! `cargo xtask vm`: boots Debian's kernels and runs the kernel tests in them. The machine is
//! emulated, not virtualised: it needs no /dev/kvm, and takes a few seconds more to boot.

pub(crate) mod arch;
mod build;
pub(crate) mod console;
mod cpio;
pub(crate) mod cross;
pub(crate) mod environment;
mod initramfs;
pub(crate) mod kernel;
mod machine;
mod modules;
pub(crate) mod userland;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;

use crate::counts::Counts;
use crate::proc::heading;
use arch::Arch;
use environment::Variable;
use kernel::{Kernel, SERIES, Series};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernel to boot; all: those on which every kernel test must pass
    #[arg(long, default_value = "all", value_parser = kernels(), value_name = "SERIES")]
    kernel: String,
    /// The machine to boot it on: arm64 after `cargo xtask setup --arm64`
    #[arg(long, value_enum, default_value_t = Arch::X86_64)]
    arch: Arch,
    /// More parameters for the kernel's command line
    #[arg(long, default_value = "", value_name = "PARAMETERS")]
    append: String,
    /// Boot systemd, and run the tests that need it instead of the kernel tests
    #[arg(long)]
    systemd: bool,
    /// Run this shell command instead of the tests
    #[arg(long, value_name = "COMMAND", conflicts_with = "for_tests")]
    exec: Option<String>,
    /// Set this in the environment of what runs there; may be given more than once
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<Variable>,
    /// Put this program of the host, with its libraries, into /bin as well
    #[arg(long, value_name = "PROGRAM")]
    add: Vec<PathBuf>,
    /// Give up on a kernel after this many seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    /// Arguments for the tests
    #[arg(last = true, value_name = "ARGUMENTS")]
    for_tests: Vec<String>,
}

/// What `--kernel` may be.
pub(crate) fn kernels() -> PossibleValuesParser {
    SERIES.iter().map(|series| series.name).chain(["all"]).collect::<Vec<_>>().into()
}

/// What else is in the machine, and so which tests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Userland {
    /// Nothing but busybox: the kernel tests.
    Busybox,
    /// Debian's systemd: those of its units.
    Systemd,
}

/// What to run in the machine.
pub(crate) enum Task<'a> {
    /// The tests, with these arguments.
    Tests(&'a [String]),
    /// A line for the shell.
    Shell(&'a str),
}

/// One boot.
pub(crate) struct Boot<'a> {
    pub(crate) series: &'static Series,
    pub(crate) arch: Arch,
    pub(crate) userland: Userland,
    pub(crate) append: &'a str,
    pub(crate) task: Task<'a>,
    pub(crate) env: &'a [Variable],
    pub(crate) add: &'a [PathBuf],
    pub(crate) timeout: Duration,
}

/// How a boot ended, when the machine came to its end by itself.
pub(crate) struct Outcome {
    pub(crate) exit_code: i32,
    pub(crate) counts: Counts,
    /// What the task told us, by lines that begin with [`console::RESULT`].
    pub(crate) results: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let userland = if args.systemd { Userland::Systemd } else { Userland::Busybox };
    let wanted = |series: &&Series| match args.kernel.as_str() {
        "all" if args.systemd => userland::is_for(series),
        "all" => series.held_to,
        name => name == series.name,
    };
    if args.systemd && args.arch != Arch::X86_64 {
        bail!("the userland with systemd is unpacked for x86-64 alone");
    }
    let mut total = Counts::default();
    let mut failed = Vec::new();
    for series in SERIES.iter().filter(wanted) {
        let task = args.exec.as_deref().map_or(Task::Tests(&args.for_tests), Task::Shell);
        let timeout = Duration::from_secs(args.timeout);
        let (append, env, add) = (&args.append, &args.env, &args.add);
        let boot = Boot { series, arch: args.arch, userland, append, task, env, add, timeout };
        let outcome = boot.run()?;
        total += outcome.counts;
        if outcome.exit_code != 0 {
            failed.push(format!("{} (exit code {})", series.name, outcome.exit_code));
        }
    }
    println!("\n{total}");
    if !failed.is_empty() {
        bail!("failed on {}", failed.join(", "));
    }
    Ok(())
}

impl Userland {
    /// The test program that runs in it.
    pub(crate) fn tests(self) -> &'static str {
        match self {
            Self::Busybox => "kernel",
            Self::Systemd => "systemd",
        }
    }

    /// What the kernel is told for it.
    fn parameters(self) -> &'static str {
        match self {
            Self::Busybox => "",
            Self::Systemd => userland::PARAMETERS,
        }
    }
}

impl Boot<'_> {
    /// Builds what is to run, boots, and streams the console until the machine is off.
    pub(crate) fn run(&self) -> Result<Outcome> {
        let kernel = Kernel::find(self.series, self.arch)?;
        heading(format!("vm: Linux {} {}", kernel.release, self.append).trim_end());
        let programs = build::programs(self.arch, self.userland.tests())?;
        let initramfs = initramfs::write(&kernel, &programs, self)?;
        let start = Instant::now();
        let outcome = machine::boot(&kernel, self, &initramfs)?;
        println!(
            "vm: Linux {}: exit code {}, {}, in {} s",
            kernel.release,
            outcome.exit_code,
            outcome.counts,
            start.elapsed().as_secs()
        );
        Ok(outcome)
    }
}
