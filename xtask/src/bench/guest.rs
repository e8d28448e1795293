//! What runs in a virtual machine: each workload beside each form, and what the kernel's statistics
//! say of every program then.

use std::{
    env, fs,
    io::{self, Write as _},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    attachment::{self, Ready, Tool},
    programs::{self, Program, Timing},
    sample::Worker,
    work::Work,
};
use crate::vm::console::RESULT;

/// What is measured there: each is a thing that a healthy or a sick host does all the time.
pub(crate) const WORKS: [Work; 5] =
    [Work::Getppid, Work::Accept, Work::Refused, Work::Traffic, Work::Flood];

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    turns: u32,
    #[arg(long)]
    milliseconds: u64,
}

/// What is attached there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Attached {
    /// Empty programs where the tracepoint form's are.
    Empty,
    /// The forms that fdtrace chooses: fexit, where the kernel has it.
    Auto,
    Kprobe,
    Tracepoint,
}

impl Attached {
    pub(crate) const ALL: [Self; 4] = [Self::Empty, Self::Auto, Self::Kprobe, Self::Tracepoint];

    /// As one would type it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty programs",
            Self::Auto => "fdtrace",
            Self::Kprobe => "fdtrace --form kprobe",
            Self::Tracepoint => "fdtrace --form tracepoint --packets always",
        }
    }

    fn start(self, fdtrace: &Path) -> Result<Tool> {
        let fdtrace = |form: &str| {
            let mut command = attachment::fdtrace_always(fdtrace);
            command.args(["--form", form]);
            (command, attachment::STARTED)
        };
        let (mut command, ready) = match self {
            Self::Empty => {
                let mut command = Command::new(env::current_exe()?);
                command.arg("bench-empty");
                (command, Ready::Line("ready"))
            }
            Self::Auto => fdtrace("auto"),
            Self::Kprobe => fdtrace("kprobe"),
            Self::Tracepoint => fdtrace("tracepoint"),
        };
        Tool::start(&mut command, ready).with_context(|| format!("start {}", self.name()))
    }
}

/// A workload beside something that is attached.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) kernel: String,
    pub(crate) attached: Attached,
    /// Of the probes, as fdtrace says when it starts; of empty programs none.
    pub(crate) forms: Vec<String>,
    pub(crate) turn: u32,
    pub(crate) work: Work,
    pub(crate) operations: u64,
    /// Packets that the kernel dropped before it looked at them, for want of room.
    pub(crate) dropped: u64,
    /// Every program, with its runs during the work.
    pub(crate) programs: Vec<Program>,
}

/// A verb of its own, not meant for people.
pub(crate) fn run(args: &Args) -> Result<()> {
    let fdtrace = env::var_os("FDTRACE_BIN").context("FDTRACE_BIN is not set")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let time = Duration::from_millis(args.milliseconds);
    let _timing = Timing::start()?;
    for turn in 0..args.turns {
        for attached in Attached::ALL {
            let tool = attached.start(fdtrace.as_ref())?;
            let forms = forms(tool.output());
            for work in WORKS {
                let before = dropped()?;
                let (operations, programs) = measure(work, time)?;
                let sample = Sample {
                    kernel: kernel.clone(),
                    attached,
                    forms: forms.clone(),
                    turn,
                    work,
                    operations,
                    dropped: dropped()? - before,
                    programs,
                };
                let mut stdout = io::stdout().lock();
                writeln!(stdout, "{RESULT}{}", serde_json::to_string(&sample)?)?;
            }
            tool.stop()?;
        }
    }
    Ok(())
}

fn measure(work: Work, time: Duration) -> Result<(u64, Vec<Program>)> {
    let worker = Worker::start(work, time)?;
    let before = programs::all()?;
    let done = worker.run()?;
    let mut programs = programs::all()?;
    for program in &mut programs {
        // One that was not there before has not run before.
        if let Some(before) = before.iter().find(|before| before.id == program.id) {
            program.runs -= before.runs;
            program.run_ns -= before.run_ns;
        }
    }
    Ok((done.operations, programs))
}

/// Of all CPUs since boot: the second column (net/core/net-procfs.c softnet_seq_show), where the
/// queue of arrived packets is longer than net.core.netdev_max_backlog.
fn dropped() -> Result<u64> {
    let lines = fs::read_to_string("/proc/net/softnet_stat")?;
    let column = |line: &str| {
        let word = line.split_whitespace().nth(1).context("softnet_stat has columns")?;
        Ok(u64::from_str_radix(word, 16)?)
    };
    lines.lines().map(column).sum()
}

/// The different forms of the probes, in their order, from the line that says what was attached.
fn forms(output: &str) -> Vec<String> {
    let started = output.lines().find(|line| line.contains("\"kind\":\"started\""));
    let started = started.and_then(|line| serde_json::from_str::<Value>(line).ok());
    let mut forms = Vec::new();
    for probe in started.iter().filter_map(|started| started["probes"].as_array()).flatten() {
        if let Some(form) = probe["form"].as_str()
            && !forms.iter().any(|known| known == form)
        {
            forms.push(form.to_owned());
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::forms;

    #[test]
    fn each_form_is_named_once() {
        let line =
            r#"{"kind":"started","probes":[{"form":"fexit"},{"form":"kprobe"},{"form":"fexit"}]}"#;
        assert_eq!(forms(line), ["fexit", "kprobe"]);
        assert!(forms("ready").is_empty());
    }
}
