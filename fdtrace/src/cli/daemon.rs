//! `fdtrace daemon`.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::value;
use crate::kernel::{Buffer, FormRequest};

/// Where the configuration is looked for.
pub const CONFIG_FILE: &str = "/etc/fdtrace/fdtrace.toml";
/// Where journald takes entries.
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

pub(super) const AFTER_HELP: &str = "\
The same as fdtrace trace, for months: settings come from a file, reports go to several outputs at
once, and Prometheus reads metrics at http://127.0.0.1:9435/metrics.

  fdtrace daemon                           with /etc/fdtrace/fdtrace.toml, or without any file
  fdtrace daemon --check                   is the file right? starts nothing
  fdtrace daemon --config ./fdtrace.toml   with this one
  kill -HUP PID                            read the file again, and reopen the JSON file
  curl 127.0.0.1:9435/healthz              does it see what it should?

Exit codes:
  0   stopped by SIGTERM or Ctrl-C; the file is right
  1   something failed while running, or an address or a file cannot be opened
  2   the command line or the configuration is wrong
  3   this kernel cannot be traced; `fdtrace doctor` says more
  4   not permitted; run as root

docs/daemon.md explains the file, the metrics and the journal's fields.";

#[derive(Debug, Args)]
pub(super) struct DaemonArgs {
    /// The configuration; without this option /etc/fdtrace/fdtrace.toml, if it is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Say whether the configuration is right, and end
    #[arg(long)]
    check: bool,

    /// Debug messages on stderr
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,

    /// Type information (BTF) of the running kernel, where it is not in the usual place
    #[arg(long, value_name = "FILE", default_value = "/sys/kernel/btf/vmlinux")]
    #[arg(help_heading = "Kernel")]
    btf: PathBuf,

    /// How to attach: fexit, kprobe or tracepoint, as for `fdtrace trace`
    #[arg(long, value_name = "[PROBE=]FORM", value_delimiter = ',', value_parser = value::form)]
    #[arg(help_heading = "Kernel")]
    form: Vec<FormRequest>,

    /// What carries notices; otherwise the best that the host has
    #[arg(long, value_name = "ring|perf", hide = true, value_parser = value::buffer)]
    #[arg(overrides_with = "buffer")]
    buffer: Option<Buffer>,

    /// Where journald takes entries
    #[arg(long, value_name = "PATH", hide = true, default_value = JOURNAL_SOCKET)]
    journal_socket: PathBuf,
}

/// Settings of `fdtrace daemon` that are no part of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonSettings {
    /// The configuration that was named; it must be there.
    pub config: Option<PathBuf>,
    /// Only check it.
    pub check: bool,
    /// How often `-v` was given.
    pub verbose: u8,
    /// BTF of the running kernel.
    pub btf: PathBuf,
    /// How to attach.
    pub forms: Vec<FormRequest>,
    /// What carries records.
    pub buffer: Option<Buffer>,
    /// Where journald takes entries.
    pub journal_socket: PathBuf,
}

impl From<DaemonArgs> for DaemonSettings {
    fn from(args: DaemonArgs) -> Self {
        let DaemonArgs { config, check, verbose, btf, form, buffer, journal_socket } = args;
        Self { config, check, verbose, btf, forms: form, buffer, journal_socket }
    }
}
