//! `fdtrace explain`.

use clap::{ArgAction, Args};

use super::{ColourChoice, value};
use crate::model::Subject;

pub(super) const AFTER_HELP: &str = "\
Looks once at a process, or at who listens somewhere, and says how it stands, why, and what to do.
Loads nothing into the kernel and changes nothing. It takes a tenth of a second; two seconds where an
accept queue is filling, which is looked at several times. As an ordinary user it sees less, and says
what.

  fdtrace explain 14807             a process
  fdtrace explain :9088             who listens on that port
  fdtrace explain 127.0.0.1:9088    who takes clients of that address; [::1]:9088 for IPv6
  fdtrace explain unix:/run/x.sock  who listens on that socket; unix:@name where it is abstract
  fdtrace explain nginx             processes of that name, or of that systemd unit

The first word is the answer:
  EXHAUSTED  no descriptor is free, or an accept queue is full: clients wait or are refused now
  AT RISK    80 % of the descriptors are in use, or half of an accept queue; a leak; or it stands still
  UNKNOWN    too little could be read to say; the last lines say what, and why
  fine       none of these

Of several that are meant, the worst are explained, and the others named.

Exit codes:
  0   explained, whatever the answer is, or the reader closed the pipe
  1   there is no such process or listener, or nothing could be looked at
  2   the command line is wrong

docs/explain.md explains more, and the fields of --json; docs/causes.md has a page for each cause.";

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// A process, `:PORT`, `ADDRESS:PORT`, `unix:PATH`, or the name of a program or systemd unit
    #[arg(value_name = "PID|:PORT|NAME", value_parser = value::subject)]
    subject: Subject,

    /// Write JSON lines instead of text; docs/explain.md explains the fields
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

/// Settings of `fdtrace explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainSettings {
    /// What to explain.
    pub subject: Subject,
    /// JSON lines instead of text.
    pub json: bool,
    /// Colour in text.
    pub colour: ColourChoice,
    /// How often `-v` was given.
    pub verbose: u8,
}

impl From<ExplainArgs> for ExplainSettings {
    fn from(args: ExplainArgs) -> Self {
        let ExplainArgs { subject, json, colour, verbose } = args;
        Self { subject, json, colour, verbose }
    }
}
