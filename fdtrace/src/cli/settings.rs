//! What the command line asks for, in the model's words.

use std::{ffi::OsStr, path::PathBuf, time::Duration};

use clap::ValueEnum;

use super::{
    AuditSettings, DaemonSettings, DoctorSettings, ExplainSettings, ListenersSettings, TraceArgs,
    which::Which,
};
use crate::{
    kernel::Request,
    model::{Filter, Thresholds},
};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settings {
    /// `fdtrace trace`, or no command.
    Trace(TraceSettings),
    /// `fdtrace listeners`.
    Listeners(ListenersSettings),
    /// `fdtrace doctor`.
    Doctor(DoctorSettings),
    /// The child of its self-test.
    SelfTest,
    /// `fdtrace explain`.
    Explain(ExplainSettings),
    /// `fdtrace audit`.
    Audit(AuditSettings),
    /// `fdtrace daemon`.
    Daemon(DaemonSettings),
    /// To write this to stdout: a shell's completions, or a page of the manual.
    Text(Vec<u8>),
}

/// Settings of `fdtrace trace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSettings {
    /// Which failures to report.
    pub filter: Filter,
    /// At which shares of a limit to warn.
    pub warn_at: Thresholds,
    /// The least time between two lines about one episode; at least 100 ms.
    pub interval: Duration,
    /// When to stop; `None` is never.
    pub duration: Option<Duration>,
    /// JSON lines instead of text.
    pub json: bool,
    /// Colour in text.
    pub colour: ColourChoice,
    /// Whether exhaustion makes the exit code 10.
    pub fail_on_exhaustion: bool,
    /// What to observe, and how.
    pub request: Request,
    /// BTF of the running kernel.
    pub btf: PathBuf,
    /// How many keys the kernel side can count at once; 1 to 65536.
    pub max_keys: u32,
    /// Size of the kernel's buffer of notices; a power of two, at least 4096.
    pub ring_bytes: u32,
    /// How often `-v` was given.
    pub verbose: u8,
}

impl From<TraceArgs> for TraceSettings {
    fn from(args: TraceArgs) -> Self {
        let TraceArgs {
            which,
            errno,
            fds,
            warn_at,
            interval,
            duration,
            json,
            colour,
            fail_on_exhaustion,
            verbose,
            btf,
            form,
            max_keys,
            ring_bytes,
            buffer,
        } = args;
        let Which { pid, port, comm } = which;
        let filter = Filter { pids: pid, ports: port, comms: comm, errnos: errno };
        Self {
            filter,
            warn_at,
            interval,
            duration,
            json,
            colour,
            fail_on_exhaustion,
            request: Request { forms: form, fds, buffer },
            btf,
            max_keys,
            ring_bytes,
            verbose,
        }
    }
}

/// When text has colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColourChoice {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Also in files and pipes
    Always,
    /// Never
    Never,
}

impl ColourChoice {
    /// What it comes to: `no_color` is the variable `NO_COLOR`, which counts when it is not empty
    /// (<https://no-color.org>).
    #[must_use]
    pub fn is_on(self, is_terminal: bool, no_color: Option<&OsStr>) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => is_terminal && no_color.is_none_or(OsStr::is_empty),
        }
    }
}
