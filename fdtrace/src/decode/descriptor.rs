//! An open descriptor, as the iterator over a process's descriptors tells it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Buf as _;
use fdtrace_common::Descriptor;

use super::{AF_INET, AF_INET6, AF_UNIX, DecodeError};
use crate::model::{FdKind, OpenDescriptor, OpenKind, TcpState};

const AF_NETLINK: u16 = 16;
const AF_PACKET: u16 = 17;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
const IPPROTO_UDPLITE: u16 = 136;
const IPPROTO_MPTCP: u16 = 262;
/// Also of ping, which is a datagram of ICMP.
const SOCK_RAW: u8 = 3;
const ICMP: [u16; 2] = [1, 58];

/// File types of `i_mode`, include/uapi/linux/stat.h.
const S_IFMT: u16 = 0o170_000;
const S_IFIFO: u16 = 0o010_000;
const S_IFCHR: u16 = 0o020_000;
const S_IFDIR: u16 = 0o040_000;
const S_IFBLK: u16 = 0o060_000;
const S_IFREG: u16 = 0o100_000;
const S_IFSOCK: u16 = 0o140_000;

/// include/uapi/linux/magic.h
const PIPEFS: u64 = 0x5049_5045;
const ANON_INODE_FS: u64 = 0x0904_1934;
const NSFS: u64 = 0x6e73_6673;
const PID_FS: u64 = 0x5049_4446;

/// Decodes a [`Descriptor`].
pub fn descriptor(mut bytes: &[u8]) -> Result<OpenDescriptor, DecodeError> {
    if bytes.len() != Descriptor::SIZE {
        return Err(DecodeError::Length { got: bytes.len(), want: Descriptor::SIZE });
    }
    // The length is that of the record, so no read below can run out.
    let inode = bytes.get_u64_ne();
    let magic = bytes.get_u64_ne();
    let number = bytes.get_u32_ne();
    let links = bytes.get_u32_ne();
    let is_root = bytes.get_u32_ne() != 0;
    let unread = bytes.get_u32_ne();
    let mode = bytes.get_u16_ne();
    let family = bytes.get_u16_ne();
    let protocol = bytes.get_u16_ne();
    let port = bytes.get_u16_ne();
    let peer_port = bytes.get_u16_ne();
    let socket_type = bytes.get_u8();
    let state = bytes.get_u8();
    let name = bytes.get(..32).unwrap_or_default();
    let (local, peer) = name.split_at(name.len() / 2);

    let what = if mode & S_IFMT == S_IFSOCK {
        let at = |bytes, port| address(family, bytes).map(|ip| SocketAddr::new(ip, port));
        match (family, protocol, socket_type) {
            (AF_UNIX, ..) => OpenKind::Other(FdKind::Unix),
            (AF_NETLINK, ..) => OpenKind::Other(FdKind::Netlink),
            (AF_PACKET, ..) => OpenKind::Other(FdKind::Packet),
            (AF_INET | AF_INET6, IPPROTO_TCP | IPPROTO_MPTCP, _) => {
                let ends = at(local, port).zip(at(peer, peer_port));
                match (TcpState::from_kernel(state), ends) {
                    (Some(TcpState::Close), _) => OpenKind::Other(FdKind::TcpUnlisted),
                    (Some(state), Some((local, peer))) => {
                        OpenKind::Tcp { state, local, peer, unread }
                    }
                    _ => OpenKind::Other(FdKind::TcpUnread),
                }
            }
            (AF_INET | AF_INET6, IPPROTO_UDP | IPPROTO_UDPLITE, _) => OpenKind::Other(FdKind::Udp),
            (AF_INET | AF_INET6, _, SOCK_RAW) => OpenKind::Other(FdKind::Raw),
            (AF_INET | AF_INET6, protocol, _) if ICMP.contains(&protocol) => {
                OpenKind::Other(FdKind::Raw)
            }
            _ => OpenKind::Socket,
        }
    } else {
        file(magic, mode, links, is_root, name)
    };
    Ok(OpenDescriptor { number, inode, what })
}

/// What is no socket. File systems of the kernel's own go first: what the mode of their inodes is has
/// changed over time.
fn file(magic: u64, mode: u16, links: u32, is_root: bool, name: &[u8]) -> OpenKind {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let name = name.get(..end).unwrap_or_default();
    match (magic, mode & S_IFMT) {
        (PIPEFS, _) => OpenKind::Other(FdKind::Pipe),
        (NSFS, _) => OpenKind::Other(FdKind::Namespace),
        (PID_FS, _) => OpenKind::Other(FdKind::PidFd),
        (ANON_INODE_FS, _) => OpenKind::Other(FdKind::of_anonymous(&String::from_utf8_lossy(name))),
        // mm/memfd.c (v6.18): it was never in a directory.
        (_, S_IFREG) if is_root && name.starts_with(b"memfd:") => OpenKind::Other(FdKind::Memfd),
        (_, S_IFREG) if links == 0 => OpenKind::Path(FdKind::DeletedFile),
        (_, S_IFREG) => OpenKind::Path(FdKind::File),
        (_, S_IFDIR) => OpenKind::Path(FdKind::Directory),
        (_, S_IFCHR | S_IFBLK) => OpenKind::Path(FdKind::Device),
        (_, S_IFIFO) => OpenKind::Path(FdKind::Fifo),
        _ => OpenKind::Path(FdKind::PathUnread),
    }
}

fn address(family: u16, bytes: &[u8]) -> Option<IpAddr> {
    if family == AF_INET {
        let bytes: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
        return Some(Ipv4Addr::from(bytes).into());
    }
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
}

#[cfg(test)]
mod tests;
