//! TCP sockets of a network namespace in every state, for telling what a process's sockets are.
//!
//! There may be a hundred thousand, at three quarters of a microsecond each, so the answers are
//! taken apart here by hand, and whoever asks says when it is enough.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    time::Duration,
};

use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};

use super::{dump, unavailable};
use crate::model::TcpState;

/// A TCP socket, a listener too. Those that no process has, have inode 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::enrich) struct Connection {
    pub(in crate::enrich) inode: u64,
    pub(in crate::enrich) state: TcpState,
    /// IPv4 addresses are IPv4 here, also those of dual-stack sockets.
    pub(in crate::enrich) local: SocketAddr,
    pub(in crate::enrich) remote: SocketAddr,
    /// Since anything came from the peer; `None` where the kernel does not tell.
    pub(in crate::enrich) silent: Option<Duration>,
    /// What has come and was not read: bytes, and one more for the peer's end of the connection.
    pub(in crate::enrich) unread: u32,
}

/// How much was read of what a namespace has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::enrich) struct Read {
    /// Whether it was all.
    pub(in crate::enrich) is_complete: bool,
    /// Sockets of IPv4 and of IPv6, also those that no process has.
    pub(in crate::enrich) sockets: [u64; 2],
}

/// Whether to go on.
pub(in crate::enrich) type GoOn<'a> = &'a dyn Fn() -> bool;

/// Gives every socket that a process may hold, of the namespace that the calling thread is in, to
/// `take`, until `go_on` says
/// no.
pub(in crate::enrich) fn dumped(
    take: &mut impl FnMut(Connection),
    go_on: GoOn<'_>,
) -> io::Result<Read> {
    let mut read = Read::default();
    for (family, sockets) in [AF_INET, AF_INET6].into_iter().zip(&mut read.sockets) {
        let mut counted = |connection: Connection| {
            *sockets += 1;
            if connection.inode != 0 {
                take(connection);
            }
        };
        let all = dump_family(family, &mut counted, go_on);
        if !all.map_err(|error| unavailable("tcp_diag", &error))? {
            return Ok(read);
        }
    }
    Ok(Read { is_complete: true, ..read })
}

/// The same from the `net/tcp` and `net/tcp6` of a process, which need not be in the caller's
/// namespace: `open` opens them.
pub(in crate::enrich) fn listed(
    open: &dyn Fn(&str) -> io::Result<OwnedFd>,
    take: &mut impl FnMut(Connection),
    go_on: GoOn<'_>,
) -> io::Result<Read> {
    let mut read = Read::default();
    for (name, sockets) in ["net/tcp", "net/tcp6"].into_iter().zip(&mut read.sockets) {
        let file = match open(name) {
            Ok(file) => BufReader::new(File::from(file)),
            // A host without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name == "net/tcp6" => continue,
            Err(error) => return Err(error),
        };
        let mut counted = |connection: Connection| {
            *sockets +=
                u64::from(!matches!(connection.state, TcpState::TimeWait | TcpState::SynRecv));
            if connection.inode != 0 {
                take(connection);
            }
        };
        if !table(file, &mut counted, go_on)? {
            return Ok(read);
        }
    }
    Ok(Read { is_complete: true, ..read })
}

/// Sockets of IPv4 and of IPv6 that a namespace has, as its `sockstat` and `sockstat6` say: those
/// that a dump would show (net/ipv4/inet_hashtables.c __inet_hash, v6.18).
pub(in crate::enrich) fn counted(sockstat: &str, sockstat6: &str) -> Option<[u64; 2]> {
    let in_use = |text: &str, label: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(label))?;
        line.trim_start().strip_prefix("inuse ")?.split_ascii_whitespace().next()?.parse().ok()
    };
    Some([in_use(sockstat, "TCP:")?, in_use(sockstat6, "TCP6:").unwrap_or(0)])
}

pub(super) fn request(family: u8) -> Vec<u8> {
    let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    dump::to_bytes(SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO,
        // Of these no process has any.
        states: StateFlags::all() - StateFlags::TIME_WAIT - StateFlags::SYN_RECV,
        socket_id,
    }))
}

fn dump_family(family: u8, take: &mut impl FnMut(Connection), go_on: GoOn<'_>) -> io::Result<bool> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    // The kernel itself is port 0.
    socket.connect(&NetlinkAddr::new(0, 0))?;
    socket.send(&request(family), 0)?;
    let mut datagram = Vec::with_capacity(dump::DATAGRAM);
    // The kernel works while we receive: a dump that is left alone costs nothing more.
    while go_on() {
        datagram.clear();
        socket.recv(&mut datagram, libc::MSG_DONTWAIT)?;
        if answers(&datagram, take)? == dump::Part::Last {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes one datagram apart. Any bytes give connections, an end or an error.
pub(super) fn answers(
    mut bytes: &[u8],
    take: &mut impl FnMut(Connection),
) -> io::Result<dump::Part> {
    const HEADER: usize = 16;
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    const OVERRUN: u16 = 4;
    const BY_FAMILY: u16 = 20;
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    while !bytes.is_empty() {
        let length = word(bytes, 0).ok_or_else(invalid)? as usize;
        let kind = half(bytes, 4).ok_or_else(invalid)?;
        let message = bytes.get(HEADER..length).ok_or_else(invalid)?;
        match kind {
            BY_FAMILY => {
                if let Some(connection) = connection(message) {
                    take(connection);
                }
            }
            DONE | ERROR => {
                // A positive number or none is no error.
                let code = word(message, 0).map_or(0, u32::cast_signed);
                if code < 0 {
                    return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                }
                return Ok(dump::Part::Last);
            }
            OVERRUN => return Err(io::Error::other("some answers were lost")),
            _ => {}
        }
        // Messages stand at multiples of four bytes.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(dump::Part::More)
}

/// Reads a `struct inet_diag_msg` and what follows it (include/uapi/linux/inet_diag.h).
fn connection(message: &[u8]) -> Option<Connection> {
    const SOURCE_PORT: usize = 4;
    const DESTINATION_PORT: usize = 6;
    const SOURCE: usize = 8;
    const DESTINATION: usize = 24;
    const UNREAD: usize = 56;
    const INODE: usize = 68;
    const ATTRIBUTES: usize = 72;
    let inode = u64::from(word(message, INODE)?);
    let state = TcpState::from_kernel(*message.get(1)?)?;
    let address = |ip: usize, port: usize| {
        let ip: [u8; 16] = message.get(ip..ip + 16)?.try_into().ok()?;
        let [a, b, c, d, ..] = ip;
        let ip = match message.first().copied()? {
            AF_INET => Ipv4Addr::new(a, b, c, d).into(),
            _ => Ipv6Addr::from(ip).to_canonical(),
        };
        Some(SocketAddr::new(ip, half(message, port)?.to_be()))
    };
    Some(Connection {
        inode,
        state,
        local: address(SOURCE, SOURCE_PORT)?,
        remote: address(DESTINATION, DESTINATION_PORT)?,
        unread: word(message, UNREAD)?,
        silent: if state == TcpState::Listen { None } else { silent(&message[ATTRIBUTES..]) },
    })
}

/// `tcpi_last_ack_recv` of INET_DIAG_INFO.
fn silent(mut attributes: &[u8]) -> Option<Duration> {
    const INFO: u16 = 2;
    const HEADER: usize = 4;
    // include/uapi/linux/tcp.h struct tcp_info: 8 bytes, then 32-bit numbers, of which it is the
    // 13th; tcp_get_info fills it with milliseconds (net/ipv4/tcp.c, v6.18).
    const LAST_ACK_RECV: usize = HEADER + 8 + 12 * 4;
    while let Some(length) = half(attributes, 0).map(usize::from).filter(|length| *length >= HEADER)
    {
        if half(attributes, 2)? == INFO {
            let info = attributes.get(..length)?;
            return word(info, LAST_ACK_RECV).map(|millis| Duration::from_millis(millis.into()));
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Reads `tcp` or `tcp6` of a `/proc/PID/net`.
pub(super) fn table(
    mut file: impl BufRead,
    take: &mut impl FnMut(Connection),
    go_on: GoOn<'_>,
) -> io::Result<bool> {
    const LINES_AT_ONCE: usize = 64;
    let mut line = String::new();
    let mut number: usize = 0;
    loop {
        line.clear();
        if file.read_line(&mut line)? == 0 {
            return Ok(true);
        }
        if number > 0
            && let Some(connection) = row(&line)
        {
            take(connection);
        }
        number += 1;
        if number.is_multiple_of(LINES_AT_ONCE) && !go_on() {
            return Ok(false);
        }
    }
}

fn row(line: &str) -> Option<Connection> {
    // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let remote = address(fields.next()?)?;
    let state = TcpState::from_kernel(u8::from_str_radix(fields.next()?, 16).ok()?)?;
    let (_, unread) = fields.next()?.split_once(':')?;
    let unread = u32::from_str_radix(unread, 16).ok()?;
    let inode = fields.nth(4)?.parse().ok()?;
    Some(Connection { inode, state, local, remote, silent: None, unread })
}

/// `0100007F:2380`: the address as 32-bit words of this machine (net/ipv4/tcp_ipv4.c
/// get_tcp4_sock), the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            Ipv6Addr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests;
