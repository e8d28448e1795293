//! The options that several commands have, by which they take some and leave others.

use clap::Args;

use super::value;
use crate::model::{Comm, ContainerQuery, Pid, ProcessFilter};

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

    /// Only processes of these systemd units; `nginx` is nginx.service
    #[arg(long, value_name = "UNIT", value_delimiter = ',', value_parser = value::unit)]
    pub(super) unit: Vec<String>,

    /// Only processes in these containers: an id, or its first digits; lxc:NAME, nspawn:NAME
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = value::container)]
    pub(super) container: Vec<ContainerQuery>,

    /// Only processes in these pods, by UID or name
    #[arg(long, value_name = "POD", value_delimiter = ',', value_parser = value::pod)]
    pub(super) pod: Vec<String>,
}

impl Which {
    /// The same as filters: of processes, and of ports.
    pub(super) fn filters(self) -> (ProcessFilter, Vec<u16>) {
        let Self { pid, port, comm, unit, container, pod } = self;
        let processes =
            ProcessFilter { pids: pid, comms: comm, units: unit, containers: container, pods: pod };
        (processes, port)
    }
}
