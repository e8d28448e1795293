//! Which network namespaces there are, and who is in them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use super::counters::{self, Counters};
use crate::model::Pid;

/// Members by the namespace's inode number.
pub(in crate::enrich) type Members = BTreeMap<u32, Vec<Pid>>;

/// `netstat` has two lines for TcpExt, first of all; they are 3 KiB today.
const MOST_NETSTAT: usize = 64 * 1024;

/// Every namespace with a process in it.
///
/// A process counts for the namespace of its first thread.
pub(in crate::enrich) fn members(root: &Path) -> io::Result<Members> {
    let mut members = Members::new();
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).map(Pid) else {
            continue;
        };
        // Processes that end, and those of others where fdtrace is not root, have none.
        if let Some(netns) = netns_of(root, &pid.to_string()) {
            members.entry(netns).or_default().push(pid);
        }
    }
    Ok(members)
}

/// The namespace of a process, by its name in `/proc`.
pub(in crate::enrich) fn netns_of(root: &Path, process: &str) -> Option<u32> {
    netns(fs::read_link(root.join(process).join("ns/net")).ok()?.to_str()?)
}

fn netns(link: &str) -> Option<u32> {
    link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// The open `netstat` of a namespace: it stays that namespace's, whoever leaves it, and keeps it
/// alive (fs/proc/proc_net.c get_proc_net, v6.18).
#[derive(Debug)]
pub(super) struct Netstat(File);

impl Netstat {
    /// Opens it by way of one of the members.
    pub(super) fn open(root: &Path, netns: u32, members: &[Pid]) -> io::Result<Self> {
        let mut result = Err(io::ErrorKind::NotFound.into());
        for pid in members {
            result = File::open(root.join(format!("{pid}/net/netstat"))).and_then(|file| {
                // The process may have gone somewhere else meanwhile, or be another one.
                let is_there = netns_of(root, &pid.to_string()) == Some(netns);
                is_there.then_some(Self(file)).ok_or_else(|| io::ErrorKind::NotFound.into())
            });
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// The counters now.
    pub(super) fn read(&self, buffer: &mut Vec<u8>) -> io::Result<Counters> {
        counters::parse(self.text(buffer)?).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The two lines of TcpExt, and what came with them.
    pub(super) fn text<'a>(&self, buffer: &'a mut Vec<u8>) -> io::Result<&'a str> {
        buffer.resize(MOST_NETSTAT, 0);
        let mut length = 0;
        // One read gives all there is; the next one would have the kernel add it up again.
        while length < buffer.len() && !is_complete(&buffer[..length]) {
            let offset = u64::try_from(length).unwrap_or(u64::MAX);
            match self.0.read_at(&mut buffer[length..], offset)? {
                0 => break,
                read => length += read,
            }
        }
        str::from_utf8(&buffer[..length]).map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

/// Whether both lines of TcpExt are there, where they are expected.
fn is_complete(bytes: &[u8]) -> bool {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').take(2);
    lines.all(|line| line.starts_with(b"TcpExt:"))
        && bytes.split(|byte| *byte == b'\n').nth(2).is_some()
}
