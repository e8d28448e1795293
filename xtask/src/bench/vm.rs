//! `cargo xtask bench-vm`: the forms that need fentry or kprobes, on kernels that have them. The
//! machines are emulated, so no time in them means anything: what is told is how large programs are,
//! how often they run, and how long a run is beside a run of an empty program in the same machine.

use std::{env, fs, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::{
    guest::Sample,
    report::{self, machines},
    write,
};
use crate::{
    proc::quoted,
    repo,
    vm::{
        self, Boot, Task, Userland,
        arch::Arch,
        kernel::{SERIES, Series},
    },
};

/// On any machine; no root is needed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernel to boot; all: those on which every kernel test must pass
    #[arg(long, default_value = "all", value_parser = vm::kernels(), value_name = "SERIES")]
    kernel: String,
    /// How often each sample is taken
    #[arg(long, default_value_t = 3)]
    turns: u32,
    /// How long a workload runs for a sample, in milliseconds
    #[arg(long, default_value_t = 500)]
    milliseconds: u64,
    /// Give up on a kernel after this many seconds
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    timeout: u64,
    /// Write the section of docs/overhead.md that tells of it
    #[arg(long)]
    write: bool,
}

/// What all machines said.
#[derive(Debug, Serialize)]
pub(crate) struct Machines {
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) turns: u32,
    pub(crate) milliseconds: u64,
    pub(crate) samples: Vec<Sample>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let wanted = |series: &&Series| match args.kernel.as_str() {
        "all" => series.held_to,
        name => name == series.name,
    };
    let mut machines = Machines {
        date: report::date()?,
        commit: report::commit(),
        turns: args.turns,
        milliseconds: args.milliseconds,
        samples: Vec::new(),
    };
    for series in SERIES.iter().filter(wanted) {
        machines.samples.extend(boot(series, args)?);
    }
    let directory = repo::target_dir().join("bench");
    fs::create_dir_all(&directory)?;
    write(&directory.join("vm.json"), &format!("{}\n", serde_json::to_string_pretty(&machines)?))?;
    let section = machines::section(&machines)?;
    print!("{section}");
    if args.write {
        let page = repo::root().join("docs/overhead.md");
        let before = fs::read_to_string(&page).with_context(|| format!("{}", page.display()))?;
        write(&page, &machines::put(&before, &section))?;
    }
    Ok(())
}

fn boot(series: &'static Series, args: &Args) -> Result<Vec<Sample>> {
    let xtask = env::current_exe()?;
    let name = xtask.file_name().context("we have a name")?.to_string_lossy().into_owned();
    let line = format!(
        "exec /bin/{} bench-guest --turns {} --milliseconds {}",
        quoted(&name),
        args.turns,
        args.milliseconds
    );
    let boot = Boot {
        series,
        arch: Arch::X86_64,
        userland: Userland::Busybox,
        append: "",
        task: Task::Shell(&line),
        env: &[],
        add: &[xtask],
        timeout: Duration::from_secs(args.timeout),
    };
    let outcome = boot.run()?;
    if outcome.exit_code != 0 {
        bail!("the measuring failed on {} (exit code {})", series.name, outcome.exit_code);
    }
    let samples = outcome.results.iter().map(|line| serde_json::from_str(line));
    let samples = samples.collect::<Result<Vec<_>, _>>().context("read what the machine said")?;
    if samples.is_empty() {
        bail!("{} told of no samples", series.name);
    }
    Ok(samples)
}
