//! `fdtrace doctor`.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::{ColourChoice, value};
use crate::kernel::{Buffer, FormRequest, Request};

/// The name of the hidden command that fails on purpose.
pub const SELF_TEST: &str = "doctor-self-test";

pub(super) const AFTER_HELP: &str = "\
The first line is the answer. Then, each with what follows from it and what to do: what the host has; \
each probe with the form it gets, and every other form tried; what cannot be seen here; a self-test, \
in which a child makes calls fail and clients be refused and fdtrace's counts are held against its \
own; and what each program cost meanwhile.

The child lowers its own limit of descriptors and lives in a network namespace of its own, where that \
is permitted. Programs are attached for a moment; nothing on the host is changed. It takes a second or \
two. As an ordinary user it shows less, and says what.

A bug report needs nothing but the output of `fdtrace doctor --json`.

Exit codes:
  0  fdtrace works here
  1  something else failed
  2  the command line is wrong
  3  this kernel cannot be traced; the first line says what is missing
  4  not permitted; run as root

docs/doctor.md explains more, and the fields of --json.";

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// As `fdtrace --fds` would be attached
    #[arg(long, help_heading = "What to examine")]
    fds: bool,

    /// As `fdtrace --form` would be attached
    #[arg(long, value_name = "[PROBE=]FORM", value_delimiter = ',', value_parser = value::form)]
    #[arg(help_heading = "What to examine")]
    form: Vec<FormRequest>,

    /// As `fdtrace --buffer` would be attached
    #[arg(long, value_name = "ring|perf", hide = true, value_parser = value::buffer)]
    #[arg(overrides_with = "buffer")]
    buffer: Option<Buffer>,

    /// Type information (BTF) of the running kernel, where it is not in the usual place
    #[arg(long, value_name = "FILE", default_value = "/sys/kernel/btf/vmlinux")]
    #[arg(help_heading = "What to examine")]
    btf: PathBuf,

    /// Write JSON instead of text; docs/doctor.md explains the fields
    #[arg(long, help_heading = "Output")]
    json: bool,

    /// Colour in text; auto is on a terminal, unless `NO_COLOR` is set
    #[arg(long, visible_alias = "color", value_name = "auto|always|never", value_enum)]
    #[arg(default_value = "auto", hide_possible_values = true, help_heading = "Output")]
    colour: ColourChoice,

    /// Debug messages on stderr
    #[arg(short, long, action = ArgAction::Count, help_heading = "Output")]
    verbose: u8,
}

/// Settings of `fdtrace doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoctorSettings {
    /// What to observe, and how.
    pub request: Request,
    /// BTF of the running kernel.
    pub btf: PathBuf,
    /// JSON instead of text.
    pub json: bool,
    /// Colour in text.
    pub colour: ColourChoice,
    /// How often `-v` was given.
    pub verbose: u8,
}

impl From<DoctorArgs> for DoctorSettings {
    fn from(args: DoctorArgs) -> Self {
        let DoctorArgs { fds, form, buffer, btf, json, colour, verbose } = args;
        Self { request: Request { forms: form, fds, buffer }, btf, json, colour, verbose }
    }
}
