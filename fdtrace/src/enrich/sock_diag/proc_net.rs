//! TCP listeners, by `/proc/net/tcp` and `tcp6`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use procfs::{FromBufReadSI as _, current_system_info, net::TcpNetEntries};

use crate::model::{Listener, ListenerAddress, ListeningSocket};

/// `TCP_LISTEN` as the column `st` has it.
const LISTEN: &str = "0A";

pub(super) fn listeners(netns: Option<u32>, dir: &Path) -> io::Result<Vec<ListeningSocket>> {
    let mut sockets = table(BufReader::new(File::open(dir.join("tcp"))?), netns)?;
    match File::open(dir.join("tcp6")) {
        Ok(file) => sockets.extend(table(BufReader::new(file), netns)?),
        // A host without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(sockets)
}

/// Reads one table. There may be 100 000 connections in it, of which no line is kept.
pub(super) fn table(file: impl BufRead, netns: Option<u32>) -> io::Result<Vec<ListeningSocket>> {
    let mut kept = String::new();
    for (number, line) in file.lines().enumerate() {
        let line = line?;
        let is_listener = line.split_ascii_whitespace().nth(3) == Some(LISTEN);
        if number == 0 || is_listener {
            kept += &line;
            kept.push('\n');
        }
    }
    let entries = TcpNetEntries::from_buf_read(kept.as_bytes(), current_system_info())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let socket = |entry: procfs::net::TcpNetEntry| ListeningSocket {
        inode: entry.inode,
        listener: Listener {
            netns,
            address: ListenerAddress::Inet {
                ip: entry.local_address.ip(),
                port: entry.local_address.port(),
                dual_stack: entry.local_address.is_ipv4().then_some(false),
            },
        },
        // Of a listener rx_queue is sk_ack_backlog (net/ipv4/tcp_ipv4.c get_tcp4_sock, v6.18).
        length: Some(entry.rx_queue),
        limit: None,
        drops: None,
    };
    Ok(entries.0.into_iter().map(socket).collect())
}
