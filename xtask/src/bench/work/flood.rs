//! SYNs from addresses that nobody has, in a network namespace of their own.

use std::{
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    libc,
    sched::{CloneFlags, unshare},
    sys::socket::{Backlog, MsgFlags, SockaddrIn, listen, sendto},
};

use super::{BATCH, Done, ready, repeat};

const SYN: u8 = 2;
/// How long it listens after the flood.
const LISTENS_ON: Duration = Duration::from_millis(2500);

pub(super) fn flood(time: Duration) -> Result<Done> {
    unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
    take_up_loopback().context("take lo up")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listen(&listener, Backlog::new(1)?)?;
    let address = listener.local_addr()?;
    // One more than the backlog fills it.
    let _clients = [TcpStream::connect(address)?, TcpStream::connect(address)?];
    let port = address.port();
    // SAFETY: numbers only.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW) };
    // SAFETY: the kernel has just given us the descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(Errno::result(fd).context("open a raw socket")?) };
    let to = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    let mut number = 0_u32;
    ready()?;
    let done = repeat(time, || {
        for _ in 0..BATCH {
            number = number.wrapping_add(1);
            let packet = syn(number, port);
            sendto(socket.as_raw_fd(), &packet, &to, MsgFlags::empty())?;
        }
        Ok(BATCH)
    })?;
    // Whoever looks at listeners once a second finds it here, and its owner.
    thread::sleep(LISTENS_ON);
    Ok(done)
}

/// An IPv4 packet with a SYN from 127.1.0.0/16 and on, each from another client.
fn syn(number: u32, port: u16) -> [u8; 40] {
    let source = 0x7f01_0000_u32 | (number & 0xffff);
    let from = 1024 + u16::try_from(number >> 16 & 0x3fff).unwrap_or(0);
    let mut packet = [0; 40];
    // Version and length of the header; the kernel fills in length, id and checksum (raw(7)).
    packet[0] = 0x45;
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&source.to_be_bytes());
    packet[16..20].copy_from_slice(&Ipv4Addr::LOCALHOST.octets());
    packet[20..22].copy_from_slice(&from.to_be_bytes());
    packet[22..24].copy_from_slice(&port.to_be_bytes());
    packet[24..28].copy_from_slice(&number.to_be_bytes());
    packet[32] = 5 << 4;
    packet[33] = SYN;
    packet[34..36].copy_from_slice(&1024_u16.to_be_bytes());
    let sum = checksum(&packet[12..]);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Of the addresses and the segment, with the rest of TCP's pseudo header.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum = words.sum::<u32>() + 6 + 20;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

fn take_up_loopback() -> Result<()> {
    // SAFETY: plain data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP)?;
    // Any socket is a way in.
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: the request is read only, and lives as long as the call.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    Errno::result(result)?;
    Ok(())
}
