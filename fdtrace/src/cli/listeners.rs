//! `fdtrace listeners`.

use clap::{ArgAction, Args};

use super::{ColourChoice, which::Which};
use crate::model::ListenerFilter;

pub(super) const AFTER_HELP: &str = "\
Lists the TCP listeners of every network namespace, and the AF_UNIX listeners at risk. Loads nothing \
into the kernel and changes nothing. As an ordinary user it shows less, and says what.

Columns:
  RISK      FULL: the accept queue is full, the next client is refused
            FDS: an owner has no free descriptor, its next accept fails with EMFILE
            queue: the accept queue is more than half full
            fds: an owner uses 80 % of its soft limit of descriptors, or more
  PROCESS   who has the socket open, and how many others have; ? if that cannot be seen
  LISTENER  where it listens; *:80 takes IPv4 and IPv6
  QUEUE     connections that wait for accept, and the limit: full when the first is greater.
            `ss -ltn` shows them as Recv-Q and Send-Q
  LIMIT BY  somaxconn: net.core.somaxconn of the network namespace, so a greater backlog in the
            application changes nothing
            application: the backlog it gave to listen(2), or an older somaxconn
  FDS       descriptors open, and the soft limit, of the owner that is closest to it; with its pid
            where that is not the first one and it is at risk
  DROPS     connections lost at most since the socket was made; - if unknown. Other segments
            count too, some twice: `fdtrace` counts what was really refused
  NETNS     network namespace, as in /proc/PID/ns/net; empty for the one fdtrace runs in

Exit codes:
  0   listed, or the reader closed the pipe
  1   no listener could be looked at
  2   the command line is wrong
  10  --fail-on-exhaustion was given, and something is FULL or has no FDS

docs/listeners.md explains more, and the fields of --json.";

#[derive(Debug, Args)]
pub(super) struct ListenersArgs {
    #[command(flatten, next_help_heading = "Which listeners")]
    which: Which,

    /// Also `AF_UNIX` listeners that are not at risk
    #[arg(long, help_heading = "Which listeners")]
    unix: bool,

    /// Write JSON lines instead of text; docs/listeners.md explains the fields
    #[arg(long, help_heading = "Output")]
    json: bool,

    /// Colour in text; auto is on a terminal, unless `NO_COLOR` is set
    #[arg(long, visible_alias = "color", value_name = "auto|always|never", value_enum)]
    #[arg(default_value = "auto", hide_possible_values = true, help_heading = "Output")]
    colour: ColourChoice,

    /// Exit with 10 if an accept queue is full, or an owner has no free descriptor
    #[arg(long, help_heading = "Output")]
    fail_on_exhaustion: bool,

    /// Debug messages on stderr
    #[arg(short, long, action = ArgAction::Count, help_heading = "Output")]
    verbose: u8,
}

/// Settings of `fdtrace listeners`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenersSettings {
    /// Which listeners to list.
    pub filter: ListenerFilter,
    /// Whether `AF_UNIX` listeners are listed that are not at risk.
    pub unix: bool,
    /// JSON lines instead of text.
    pub json: bool,
    /// Colour in text.
    pub colour: ColourChoice,
    /// Whether exhaustion makes the exit code 10.
    pub fail_on_exhaustion: bool,
    /// How often `-v` was given.
    pub verbose: u8,
}

impl From<ListenersArgs> for ListenersSettings {
    fn from(args: ListenersArgs) -> Self {
        let ListenersArgs { which, unix, json, colour, fail_on_exhaustion, verbose } = args;
        let (owners, ports) = which.filters();
        let filter = ListenerFilter { owners, ports };
        Self { filter, unix, json, colour, fail_on_exhaustion, verbose }
    }
}
