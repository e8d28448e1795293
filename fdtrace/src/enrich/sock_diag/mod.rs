//! The listeners of a network namespace, with their accept queues: from sock_diag(7), or, where the
//! kernel has none, from `/proc/net/tcp`.
//!
//! Both show the namespace of whoever asks, and do not tell its number. [`host_listeners`] goes
//! through all of them.

pub(super) mod connections;
mod dump;
mod half_open;
mod host;
mod inet;
mod proc_net;
#[cfg(test)]
mod tests;
mod unix;

use std::{io, path::Path};

pub use self::{
    half_open::half_open,
    host::{HostListeners, NetnsListeners, accept_queues_in, host_listeners},
};
use crate::model::ListeningSocket;

/// TCP listeners, and how they were found.
#[derive(Debug)]
pub struct TcpListeners {
    /// Each of them, IPv4 and IPv6. A listener of MPTCP is its first TCP subflow: that has the
    /// queue, and the inode is the MPTCP socket's (net/mptcp/subflow.c
    /// `mptcp_subflow_create_socket`, v6.18).
    pub sockets: Vec<ListeningSocket>,
    /// Why they come from `/proc`, and have no limits and no drops.
    pub fallback: Option<io::Error>,
}

/// Lists the TCP listeners of the network namespace that the calling thread is in. `proc_net` is
/// the same namespace's directory: `/proc/thread-self/net`.
pub(super) fn tcp_listeners(netns: Option<u32>, proc_net: &Path) -> io::Result<TcpListeners> {
    let dumped = accept_queues(netns);
    if let Ok(sockets) = &dumped
        && !sockets.is_empty()
    {
        return dumped.map(|sockets| TcpListeners { sockets, fallback: None });
    }
    // Where tcp_diag is a module that may not be loaded, older kernels say that there is no
    // listener, and not that they cannot tell.
    match (dumped, proc_listeners(netns, proc_net)) {
        (Ok(_), Ok(sockets)) if !sockets.is_empty() => {
            let empty = io::Error::other("tcp_diag shows no listener, /proc does");
            Ok(TcpListeners { sockets, fallback: Some(empty) })
        }
        (Ok(sockets), _) => Ok(TcpListeners { sockets, fallback: None }),
        (Err(error), Ok(sockets)) => Ok(TcpListeners { sockets, fallback: Some(error) }),
        (Err(error), Err(_)) => Err(error),
    }
}

/// The same by sock_diag(7) or not at all: what `/proc` shows has no limits, and costs as much as the
/// namespace has connections.
pub fn accept_queues(netns: Option<u32>) -> io::Result<Vec<ListeningSocket>> {
    inet::listeners(netns).map_err(|error| unavailable("tcp_diag", &error))
}

/// The TCP listeners in a `/proc/PID/net`, of a namespace that need not be the caller's: addresses
/// and queue lengths, no limits and no drops.
pub(super) fn proc_listeners(
    netns: Option<u32>,
    proc_net: &Path,
) -> io::Result<Vec<ListeningSocket>> {
    proc_net::listeners(netns, proc_net)
}

/// Lists the `AF_UNIX` listeners of the network namespace that the calling thread is in.
pub(super) fn unix_listeners(netns: Option<u32>) -> io::Result<Vec<ListeningSocket>> {
    unix::listeners(netns).map_err(|error| unavailable("unix_diag", &error))
}

/// What an operator can do something with.
fn unavailable(module: &str, error: &io::Error) -> io::Error {
    let text = match error.raw_os_error() {
        // No such handler (net/core/sock_diag.c), no such netlink family.
        Some(libc::ENOENT | libc::EPROTONOSUPPORT) => {
            format!("the kernel has no {module}, or may not load it")
        }
        _ => format!("{module}: {error}"),
    };
    io::Error::new(error.kind(), text)
}
