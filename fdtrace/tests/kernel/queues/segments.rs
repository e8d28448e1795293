//! Clients made of single segments: each sends what it is told to, when it is told to.
//!
//! They have addresses that nobody has and that are routed to loopback. What a server sends them
//! passes the device, where it is seen here, and is then thrown away: nobody answers with a RST.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd as _, OwnedFd},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, socket,
    },
};

use super::{device, network::Network};

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const PSH: u8 = 8;
pub(super) const ACK: u8 = 16;

/// The first sequence number of every client.
pub(super) const FIRST: u32 = 1_000_000;
const WINDOW: u16 = 64240;

/// Clients of one server.
pub(super) struct Segments {
    server: SocketAddrV4,
    raw: OwnedFd,
    capture: Option<OwnedFd>,
}

impl Segments {
    /// Clients in the server's namespace, who see what it answers.
    pub(super) fn new(network: &Network, server: SocketAddrV4) -> Self {
        let mut this = Self::blind(network, network, server);
        network.enter(|| {
            let (family, kind) = (AddressFamily::Packet, SockType::Datagram);
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            this.capture = Some(socket(family, kind, flags, SockProtocol::EthAll).unwrap());
        });
        this
    }

    /// Clients somewhere, who see nothing: a flood.
    pub(super) fn blind(theirs: &Network, servers: &Network, server: SocketAddrV4) -> Self {
        servers.enter(|| device::add_route(Ipv4Addr::new(10, 9, 0, 0), "lo"));
        let (family, kind) = (AddressFamily::Inet, SockType::Raw);
        let raw = theirs
            .enter(|| socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).unwrap());
        Self { server, raw, capture: None }
    }

    /// Sends a SYN of each client.
    pub(super) fn syn(&self, clients: impl IntoIterator<Item = u32>) {
        clients.into_iter().for_each(|client| self.send(client, SYN, FIRST, 0, b""));
    }

    /// Sends the final ACK of each of those handshakes.
    pub(super) fn ack(&self, handshakes: &BTreeMap<u32, u32>) {
        self.acks(handshakes, ACK, b"");
    }

    /// The same with something in it, and with more flags.
    pub(super) fn acks(&self, handshakes: &BTreeMap<u32, u32>, flags: u8, data: &[u8]) {
        for (&client, &answer) in handshakes {
            self.send(client, flags, FIRST + 1, answer.wrapping_add(1), data);
        }
    }

    /// Sends one segment.
    pub(super) fn send(&self, client: u32, flags: u8, seq: u32, ack: u32, data: &[u8]) {
        let packet = packet(client, self.server, flags, seq, ack, data);
        let (ip, port) = (self.server.ip().octets(), self.server.port());
        let server = SockaddrIn::new(ip[0], ip[1], ip[2], ip[3], port);
        sendto(self.raw.as_raw_fd(), &packet, &server, MsgFlags::empty()).unwrap();
    }

    /// The server's SYN-ACKs since the last time: the sequence number that each client got.
    pub(super) fn syn_acks(&self) -> BTreeMap<u32, u32> {
        let capture = self.capture.as_ref().expect("clients who see");
        // Loopback delivers at once; another CPU may do it.
        thread::sleep(Duration::from_millis(20));
        let mut answers = BTreeMap::new();
        let mut packet = [0; 128];
        loop {
            match recv(capture.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                Ok(length) => answers.extend(answer(&packet[..length], self.server.port())),
                Err(Errno::EAGAIN) => return answers,
                Err(error) => panic!("recv: {error}"),
            }
        }
    }
}

/// 10.9.0.0/16, and then the next port.
fn address(client: u32) -> (Ipv4Addr, u16) {
    let [_, port, third, fourth] = client.to_be_bytes();
    (Ipv4Addr::new(10, 9, third, fourth), 1024 + u16::from(port))
}

fn packet(
    client: u32,
    server: SocketAddrV4,
    flags: u8,
    seq: u32,
    ack: u32,
    data: &[u8],
) -> Vec<u8> {
    let (ip, port) = address(client);
    let length = u16::try_from(20 + data.len()).unwrap();
    let mut tcp = Vec::with_capacity(64);
    tcp.extend(port.to_be_bytes());
    tcp.extend(server.port().to_be_bytes());
    tcp.extend(seq.to_be_bytes());
    tcp.extend(ack.to_be_bytes());
    tcp.extend([5 << 4, flags]);
    tcp.extend(WINDOW.to_be_bytes());
    tcp.extend([0; 4]);
    tcp.extend(data);
    let pseudo = [&ip.octets()[..], &server.ip().octets(), &[0, 6], &length.to_be_bytes()].concat();
    let sum = checksum(&[pseudo, tcp.clone()].concat());
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    // The kernel fills in the length, the id and the checksum (raw(7)).
    let mut packet = vec![4 << 4 | 5, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0];
    packet.extend(ip.octets());
    packet.extend(server.ip().octets());
    packet.extend(tcp);
    packet
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| [pair[0], pair.get(1).copied().unwrap_or(0)]);
    let mut sum: u32 = words.map(|pair| u32::from(u16::from_be_bytes(pair))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// The client and the sequence number, if that is a SYN-ACK of the server on that port.
fn answer(packet: &[u8], port: u16) -> Option<(u32, u32)> {
    let (ip, tcp) = packet.split_at_checked(20)?;
    let (from, to) = (tcp.get(..2)?, tcp.get(2..4)?);
    if ip[0] != 4 << 4 | 5 || ip[9] != 6 || from != port.to_be_bytes() || tcp[13] != SYN | ACK {
        return None;
    }
    let [_, port] = (u16::from_be_bytes([to[0], to[1]]) - 1024).to_be_bytes();
    let client = u32::from_be_bytes([0, port, ip[18], ip[19]]);
    Some((client, u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]])))
}
