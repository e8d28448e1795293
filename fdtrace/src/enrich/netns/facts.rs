//! Settings of one network namespace.
//!
//! `/proc/sys/net` shows those of the reader's own namespace (net/sysctl_net.c net_ctl_header_lookup,
//! v6.18), so they are read on a thread that enters the namespace and ends there.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::model::Pid;

const STACK: usize = 128 * 1024;

/// Settings of a network namespace, each `None` where it could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetnsFacts {
    /// `net.core.somaxconn`, the most that a listen(2) from now on can get.
    pub somaxconn: Option<u32>,
    /// `net.ipv4.tcp_syncookies`; also `None` on kernels without SYN cookies.
    pub tcp_syncookies: Option<u8>,
}

impl NetnsFacts {
    /// Of the namespace of the calling thread.
    pub(in crate::enrich) fn here(root: &Path) -> Self {
        let number = |path| fs::read_to_string(root.join(path)).ok();
        Self {
            somaxconn: number("sys/net/core/somaxconn").and_then(|text| text.trim().parse().ok()),
            tcp_syncookies: number("sys/net/ipv4/tcp_syncookies")
                .and_then(|text| text.trim().parse().ok()),
        }
    }

    /// Of the namespace `netns`, which the process `member` is in.
    pub(super) fn of(root: &Path, netns: u32, member: Pid) -> io::Result<Self> {
        inside(&root.join(format!("{member}/ns/net")), netns, || Self::here(root))
    }
}

/// What `look` sees in the namespace `netns`, on a thread that enters it by the link and ends there.
pub(in crate::enrich) fn inside<T: Send>(
    link: &Path,
    netns: u32,
    look: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    let link = File::open(link)?;
    // The process may be somewhere else by now, or be another one.
    if link.metadata()?.ino() != u64::from(netns) {
        return Err(io::ErrorKind::NotFound.into());
    }
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("fdtrace-netns".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, || {
                move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(look())
            })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}
