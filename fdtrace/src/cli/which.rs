//! The options that several commands have, by which they take some and leave others.

use clap::Args;

use super::value;
use crate::model::{Comm, Pid};

/// Which processes and listeners.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Only these processes; repeat it or separate by commas
    #[arg(long, value_name = "PID", value_delimiter = ',', value_parser = value::pid)]
    pub(super) pid: Vec<Pid>,

    /// Only listeners on these local ports
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = value::port)]
    pub(super) port: Vec<u16>,

    /// Only processes of these names: the whole short name, as `ps -o comm` shows it
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = value::comm)]
    pub(super) comm: Vec<Comm>,
}
