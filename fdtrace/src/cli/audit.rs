//! `fdtrace audit`.

use clap::{ArgAction, Args, ValueEnum};

use super::ColourChoice;
use crate::model::Level;

pub(super) const AFTER_HELP: &str = "\
Looks once at the process of every listener, and says what will run out under load: the worst first,
each with the reason and what ends it. Loads nothing into the kernel and changes nothing. As an
ordinary user it sees less, and says what.

  risk  clients are refused or soon will be: descriptors 80 % used, an accept queue full; or a limit
        was raised in configuration, and whoever gave it to the process started before that
  warn  little for a server: a limit of 1024 or far below the hard one, a short accept queue

Workers of one server are one entry; FDS is the fullest one's, with its pid where it is not the first.

Exit codes:
  0   looked, or the reader closed the pipe
  1   no listener could be looked at
  2   the command line is wrong
  10  --fail-on was given, and something as bad was found

docs/audit.md explains each finding, and the fields of --json.";

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// Also show those with which nothing is wrong
    #[arg(long)]
    all: bool,

    /// Exit with 10 if there is a risk, or for `warn` anything: for cron and CI
    #[arg(long, value_name = "warn|risk", value_enum, hide_possible_values = true)]
    fail_on: Option<FailOn>,

    /// Write JSON lines instead of text; docs/audit.md explains the fields
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FailOn {
    Warn,
    Risk,
}

/// Settings of `fdtrace audit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// Whether those that are fine are shown.
    pub all: bool,
    /// What makes the exit code 10: anything at least that bad.
    pub fail_on: Option<Level>,
    /// JSON lines instead of text.
    pub json: bool,
    /// Colour in text.
    pub colour: ColourChoice,
    /// How often `-v` was given.
    pub verbose: u8,
}

impl From<AuditArgs> for AuditSettings {
    fn from(args: AuditArgs) -> Self {
        let AuditArgs { all, fail_on, json, colour, verbose } = args;
        let fail_on = fail_on.map(|fail_on| match fail_on {
            FailOn::Warn => Level::Warn,
            FailOn::Risk => Level::Risk,
        });
        Self { all, fail_on, json, colour, verbose }
    }
}
