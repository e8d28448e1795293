//! Setting a sysctl of a network namespace, here or elsewhere.

use super::evidence::remedy;
use crate::model::{Pid, Process, Remedy, When};

/// Where a setting is to be made: each network namespace has its own.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// In fdtrace's own, or where nobody knows of another.
    Here,
    /// In one that this process is in.
    Of(Pid),
    /// The same, of a container.
    Container(Pid),
    /// In another, with no process known.
    Elsewhere,
}

impl Place {
    pub(super) fn of(netns: Option<u32>, own: Option<u32>, owner: Option<&Process>) -> Self {
        let is_elsewhere = netns.is_some() && own.is_some() && netns != own;
        match owner {
            _ if !is_elsewhere => Self::Here,
            Some(owner) if owner.container.is_some() => Self::Container(owner.id.pid),
            Some(owner) => Self::Of(owner.id.pid),
            None => Self::Elsewhere,
        }
    }

    /// Sets it until the namespace ends.
    pub(super) fn command(self, name: &str, value: u32) -> Option<String> {
        match self {
            Self::Here => Some(format!("sysctl -w {name}={value}")),
            Self::Of(pid) | Self::Container(pid) => {
                Some(format!("nsenter --net=/proc/{pid}/ns/net sysctl -w {name}={value}"))
            }
            Self::Elsewhere => None,
        }
    }

    /// Sets it for good: `file` is its name under /etc/sysctl.d.
    pub(super) fn set(self, name: &str, value: u32, file: &str) -> Vec<Remedy> {
        let set = |text: String, command| vec![remedy(When::ForGood, text, command)];
        match self {
            Self::Here => set(
                format!("set {name} = {value}, in /etc/sysctl.d/{file} for every boot"),
                self.command(name, value)
                    .map(|now| format!("{now} && echo '{name} = {value}' > /etc/sysctl.d/{file}")),
            ),
            Self::Container(_) => set(
                format!(
                    "set {name} of its network namespace where the container is defined: \
                     --sysctl {name}={value} (docker, podman), sysctls: in a compose file, \
                     securityContext.sysctls in Kubernetes"
                ),
                None,
            ),
            Self::Of(_) => set(
                format!("set {name} = {value} in its network namespace, whenever that is made"),
                self.command(name, value),
            ),
            Self::Elsewhere => set(format!("set {name} = {value} in its network namespace"), None),
        }
    }
}
