//! Arguments → validated settings.
//!
//! Everything that can be said about an argument without asking the host is said here, in words
//! that tell what to type instead. Nothing here touches the host, prints, or ends the program.

mod audit;
mod config;
mod daemon;
mod doctor;
mod exit;
mod explain;
mod generate;
mod listeners;
mod settings;
#[cfg(test)]
mod tests;
mod value;
mod which;

pub use audit::AuditSettings;
pub use config::{
    ConfigError, DaemonConfig, Journal, MetricsConfig, OutputConfig, Stdout, TraceConfig,
};
pub use daemon::{CONFIG_FILE, DaemonSettings};
pub use doctor::{DoctorSettings, SELF_TEST};
pub use exit::ExitCode;
pub use explain::ExplainSettings;
pub use listeners::ListenersSettings;
pub use settings::{ColourChoice, Settings, TraceSettings};

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand};

use crate::{
    kernel::{Buffer, FormRequest},
    model::{Errno, Thresholds},
};
use audit::AuditArgs;
use daemon::DaemonArgs;
use doctor::DoctorArgs;
use explain::ExplainArgs;
use generate::{CompletionsArgs, ManArgs};
use listeners::ListenersArgs;
use which::Which;

const ABOUT: &str = "\
Says which process, on which port, cannot accept connections.

Reports failed accept, accept4, socket and socketpair calls of every process on this host: who, on \
which listener, why, and how often. One line when failures start, one now and then while they last, \
one when they end, and a table when fdtrace stops. Changes nothing on the host.";

const AFTER_HELP: &str = "\
Examples:
  fdtrace                                    watch the whole host until Ctrl-C
  fdtrace --port 9088 --errno EMFILE,ENFILE  only one port, only when descriptors run out
  fdtrace --json --duration 10m >out.jsonl   ten minutes for a program to read
  fdtrace listeners                          who listens where, and who is close to its limits
  fdtrace doctor                             does it work here; what a bug report needs
  fdtrace explain :9088                      why that one runs out, and what to do
  fdtrace audit                              what would run out under load
  fdtrace daemon                             always on: metrics, journald, a file of settings

Exit codes:
  0   stopped by Ctrl-C, SIGTERM, --duration, or a reader that closed the pipe
  1   something failed while running
  2   the command line is wrong
  3   this kernel cannot be traced; `fdtrace doctor` says more
  4   not permitted; run as root
  10  --fail-on-exhaustion was given, and descriptors or memory ran out";

#[derive(Debug, Parser)]
#[command(
    name = "fdtrace",
    version,
    about = ABOUT,
    max_term_width = 100,
    help_expected = true,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = AFTER_HELP
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    trace: TraceArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The same as no command: report failed calls as they happen
    #[command(after_help = AFTER_HELP)]
    Trace(TraceArgs),
    /// List every listener once: owner, accept queue, descriptors, and what is at risk
    #[command(after_help = listeners::AFTER_HELP)]
    Listeners(ListenersArgs),
    /// Say whether fdtrace works on this host, and test it: what is missing, seen, and costs
    #[command(after_help = doctor::AFTER_HELP)]
    Doctor(DoctorArgs),
    /// Fail on purpose: the child of the self-test
    #[command(name = SELF_TEST, hide = true)]
    SelfTest,
    /// Explain one process or listener: what runs out, why, and what to do now and for good
    #[command(after_help = explain::AFTER_HELP)]
    Explain(ExplainArgs),
    /// Check the limits of every listener's process before they bite: for you, cron and CI
    #[command(after_help = audit::AFTER_HELP)]
    Audit(AuditArgs),
    /// Report failed calls for months: a configuration file, metrics, journald, JSON to a file
    #[command(after_help = daemon::AFTER_HELP)]
    Daemon(DaemonArgs),
    /// Write what makes a shell complete options: bash, zsh, fish
    #[command(after_help = generate::AFTER_HELP)]
    Completions(CompletionsArgs),
    /// Write a page of the manual, for packages
    #[command(hide = true)]
    Man(ManArgs),
}

#[derive(Debug, Args)]
struct TraceArgs {
    #[command(flatten, next_help_heading = "Which failures")]
    which: Which,

    /// Only these errnos, by name or number: EMFILE is the process's limit, ENFILE the host's
    #[arg(long, value_name = "ERRNO", value_delimiter = ',', value_parser = value::errno)]
    #[arg(help_heading = "Which failures")]
    errno: Vec<Errno>,

    /// Count every call that gets no descriptor, not just accept and socket: open, pipe, dup, …
    #[arg(long, help_heading = "Which failures")]
    fds: bool,

    /// Warn when so many percent of a process's descriptors or of an accept queue are in use; or off
    #[arg(long, value_name = "PERCENT", default_value = "80,95", value_parser = value::warn_at)]
    #[arg(help_heading = "Which failures")]
    warn_at: Thresholds,

    /// How often to write a line about failures that go on: 500ms, 10s, 2m, 1h
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = value::interval)]
    #[arg(help_heading = "How long")]
    interval: Duration,

    /// Stop by itself after this time
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    #[arg(help_heading = "How long")]
    duration: Option<Duration>,

    /// Write JSON lines instead of text; docs/json.md explains the fields
    #[arg(long, help_heading = "Output")]
    json: bool,

    /// Colour in text; auto is on a terminal, unless `NO_COLOR` is set
    #[arg(long, visible_alias = "color", value_name = "auto|always|never", value_enum)]
    #[arg(default_value = "auto", hide_possible_values = true, help_heading = "Output")]
    colour: ColourChoice,

    /// Exit with 10 if anything ran out of descriptors or memory
    #[arg(long, help_heading = "Output")]
    fail_on_exhaustion: bool,

    /// Debug messages on stderr
    #[arg(short, long, action = ArgAction::Count, help_heading = "Output")]
    verbose: u8,

    /// Type information (BTF) of the running kernel, where it is not in the usual place
    #[arg(long, value_name = "FILE", default_value = "/sys/kernel/btf/vmlinux")]
    #[arg(help_heading = "Kernel")]
    btf: PathBuf,

    /// How to attach: fexit, kprobe or tracepoint; auto is the best that the host allows. For one
    /// probe: accept=fexit. `fdtrace doctor` tells what is possible
    #[arg(long, value_name = "[PROBE=]FORM", value_delimiter = ',', value_parser = value::form)]
    #[arg(help_heading = "Kernel")]
    form: Vec<FormRequest>,

    /// How many processes, listeners and errnos can be told apart at once
    #[arg(long, value_name = "N", hide = true, default_value_t = fdtrace_common::DEFAULT_SLOTS)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65536))]
    max_keys: u32,

    /// Size of the kernel's buffer of notices
    #[arg(long, value_name = "N", hide = true, value_parser = value::ring_bytes)]
    #[arg(default_value_t = fdtrace_common::DEFAULT_RING_BYTES)]
    ring_bytes: u32,

    /// What carries notices; otherwise the best that the host has
    #[arg(long, value_name = "ring|perf", hide = true, value_parser = value::buffer)]
    #[arg(overrides_with = "buffer")]
    buffer: Option<Buffer>,
}

/// Reads a command line, program name first.
///
/// `Err` is also `--help` and `--version`: print it with [`clap::Error::print`], and exit with its
/// [`exit_code`](clap::Error::exit_code), which is 0 for those and 2 for what is wrong.
pub fn parse_from<I>(args: I) -> Result<Settings, clap::Error>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let cli = Cli::try_parse_from(args)?;
    Ok(match cli.command {
        Some(Command::Listeners(listeners)) => Settings::Listeners(listeners.into()),
        Some(Command::Doctor(doctor)) => Settings::Doctor(doctor.into()),
        Some(Command::SelfTest) => Settings::SelfTest,
        Some(Command::Explain(explain)) => Settings::Explain(explain.into()),
        Some(Command::Audit(audit)) => Settings::Audit(audit.into()),
        Some(Command::Daemon(daemon)) => Settings::Daemon(daemon.into()),
        Some(Command::Completions(args)) => Settings::Text(args.text(&Cli::command())),
        Some(Command::Man(args)) => Settings::Text(args.text(&Cli::command())?),
        Some(Command::Trace(trace)) => Settings::Trace(trace.into()),
        None => Settings::Trace(cli.trace.into()),
    })
}
