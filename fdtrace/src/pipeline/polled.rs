//! Refused clients without the packet program: where cgroup v2 is not mounted.
//!
//! Once a second the kernel's counters are read; when they have moved, every listener is listed, and
//! those whose queue is full and whose `sk_drops` grew are held responsible. That is an upper bound:
//! a refused final ACK adds 2, and other refusals add to it too.

use std::{collections::HashMap, path::Path};

use super::{host::PROC, on_demand::Unseen};
use crate::{
    enrich::{Namespaces, host_listeners},
    model::{BootTime, Door, Failure, FailureEvent, Figures, KeyId, ListeningSocket, Target},
};

/// What was seen the last time.
pub(super) struct Poller {
    /// Sum of the kernel's counters.
    drops: u64,
    /// `sk_drops` by socket.
    sockets: HashMap<u64, u32>,
}

impl Poller {
    /// Takes everything that was refused before as not ours.
    pub(super) fn new(namespaces: &mut Namespaces) -> Self {
        let mut this = Self { drops: drops(namespaces), sockets: HashMap::new() };
        for socket in listeners() {
            this.growth(&socket);
        }
        this
    }

    /// What listeners have refused since the last time: an event of each, and at most how much.
    pub(super) fn poll(&mut self, now: BootTime, namespaces: &mut Namespaces) -> Vec<Unseen> {
        let drops = drops(namespaces);
        if drops == self.drops {
            return Vec::new();
        }
        self.drops = drops;
        let before = std::mem::take(&mut self.sockets);
        let mut refused = Vec::new();
        for socket in listeners() {
            if let Some(drops) = before.get(&socket.inode) {
                self.sockets.insert(socket.inode, *drops);
            }
            let new = self.growth(&socket);
            if new == 0 || !socket.queue().is_some_and(|queue| queue.is_full()) {
                continue;
            }
            let full = Failure::AcceptQueueFull { syn_queue_full: false };
            refused.push((refusal(now, &socket, Door::Syn, full), new, Figures::AtMost));
        }
        refused
    }

    /// How much a socket's `sk_drops` grew; all of it where the socket is new.
    fn growth(&mut self, socket: &ListeningSocket) -> u64 {
        let Some(drops) = socket.drops else { return 0 };
        let before = self.sockets.insert(socket.inode, drops).unwrap_or(0);
        u64::from(drops.saturating_sub(before))
    }
}

fn drops(namespaces: &mut Namespaces) -> u64 {
    namespaces.deltas().iter().filter_map(|delta| delta.listen_drops).sum()
}

/// Clients that a socket refused, when no program saw it.
pub(super) fn refusal(
    at: BootTime,
    socket: &ListeningSocket,
    door: Door,
    failure: Failure,
) -> FailureEvent {
    FailureEvent {
        key: KeyId { slot: u32::MAX, inode: socket.inode },
        at,
        caller: None,
        door,
        failure,
        met: None,
        target: Target::Listener(socket.listener.clone()),
        queue: socket.queue(),
        limits: None,
    }
}

/// The listeners of every network namespace that can be looked into.
pub(super) fn listeners() -> Vec<ListeningSocket> {
    let namespaces = host_listeners(Path::new(PROC)).namespaces.into_iter();
    namespaces.filter_map(|of| of.tcp.ok()).flat_map(|tcp| tcp.sockets).collect()
}
