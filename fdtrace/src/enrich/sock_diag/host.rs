//! The listeners of every network namespace of the host.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use super::{TcpListeners, accept_queues, proc_listeners, tcp_listeners, unix_listeners};
use crate::{
    enrich::{
        mounts,
        netns::{
            facts::{NetnsFacts, inside},
            look,
        },
    },
    model::{ListeningSocket, Pid},
};

/// Members of a namespace that are tried, one after the other, until one lets us in.
const MOST_TRIED: usize = 4;

/// The listeners of one network namespace.
#[derive(Debug)]
pub struct NetnsListeners {
    /// Its number, where /proc tells it.
    pub netns: Option<u32>,
    /// Its `net.core.somaxconn`.
    pub somaxconn: Option<u32>,
    /// Its TCP listeners.
    pub tcp: io::Result<TcpListeners>,
    /// Its `AF_UNIX` listeners.
    pub unix: io::Result<Vec<ListeningSocket>>,
}

/// The listeners of the host.
#[derive(Debug)]
pub struct HostListeners {
    /// Of each namespace, fdtrace's own first.
    pub namespaces: Vec<NetnsListeners>,
    /// Whether each process's namespace may be known: an ordinary user is told those of its own
    /// processes only, and namespaces without any of them are missing here.
    pub sees_all: bool,
}

/// Where a namespace can be entered, and through which processes it can be seen from outside.
#[derive(Debug, Default)]
struct Doors {
    links: Vec<PathBuf>,
    members: Vec<Pid>,
}

/// Lists the listeners of every network namespace that has a process or is mounted.
///
/// A namespace that only a thread is in, or a descriptor, is not found.
#[must_use]
pub fn host_listeners(root: &Path) -> HostListeners {
    let own = look::netns_of(root, "self");
    let mut namespaces = vec![here(root, own)];
    for (netns, doors) in doors(root) {
        if Some(netns) != own {
            namespaces.push(elsewhere(root, netns, &doors));
        }
    }
    HostListeners { namespaces, sees_all: look::netns_of(root, "1").is_some() }
}

/// The accept queues of another network namespace, that this process is in.
pub fn accept_queues_in(root: &Path, netns: u32, member: Pid) -> io::Result<Vec<ListeningSocket>> {
    let link = root.join(format!("{member}/ns/net"));
    inside(&link, netns, || accept_queues(Some(netns)))?
}

fn doors(root: &Path) -> BTreeMap<u32, Doors> {
    let mut all: BTreeMap<u32, Doors> = BTreeMap::new();
    match look::members(root) {
        Ok(members) => {
            for (netns, members) in members {
                let members: Vec<Pid> = members.into_iter().take(MOST_TRIED).collect();
                let link = |pid: &Pid| root.join(format!("{pid}/ns/net"));
                all.insert(netns, Doors { links: members.iter().map(link).collect(), members });
            }
        }
        Err(error) => {
            log::warn!("cannot look for network namespaces in {}: {error}", root.display());
        }
    }
    for (netns, paths) in mounts::namespaces(root) {
        all.entry(netns).or_default().links.extend(paths);
    }
    all
}

/// The namespace of the calling thread.
fn here(root: &Path, netns: Option<u32>) -> NetnsListeners {
    NetnsListeners {
        netns,
        somaxconn: NetnsFacts::here(root).somaxconn,
        tcp: tcp_listeners(netns, &root.join("thread-self/net")),
        unix: unix_listeners(netns),
    }
}

fn elsewhere(root: &Path, netns: u32, doors: &Doors) -> NetnsListeners {
    let mut refused = io::Error::from(io::ErrorKind::NotFound);
    for link in &doors.links {
        match inside(link, netns, || here(root, Some(netns))) {
            Ok(listeners) => return listeners,
            Err(error) => refused = error,
        }
    }
    let refused = || io::Error::new(refused.kind(), format!("may not be entered: {refused}"));
    NetnsListeners {
        netns: Some(netns),
        somaxconn: None,
        tcp: from_outside(root, netns, &doors.members, refused()),
        unix: Err(refused()),
    }
}

/// What `/proc` shows of a namespace that may not be entered, to one who may not.
fn from_outside(
    root: &Path,
    netns: u32,
    members: &[Pid],
    refused: io::Error,
) -> io::Result<TcpListeners> {
    for pid in members {
        let name = pid.to_string();
        let sockets = proc_listeners(Some(netns), &root.join(&name).join("net"));
        // The process may have gone somewhere else meanwhile, or be another one.
        if look::netns_of(root, &name) == Some(netns)
            && let Ok(sockets) = sockets
        {
            return Ok(TcpListeners { sockets, fallback: Some(refused) });
        }
    }
    Err(refused)
}
