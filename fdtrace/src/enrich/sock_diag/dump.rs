//! One sock_diag dump: a request, and every answer to it.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

/// The kernel never makes a datagram larger for a reader who asks for so much
/// (net/netlink/af_netlink.c `netlink_recvmsg`, v6.18).
pub(super) const DATAGRAM: usize = 32 * 1024;

/// Asks the kernel and gives every answer to `take`.
pub(super) fn dump(
    request: SockDiagMessage,
    mut take: impl FnMut(SockDiagMessage),
) -> io::Result<()> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    // The kernel itself is port 0.
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&to_bytes(request), 0)?;
    let mut datagram = Vec::with_capacity(DATAGRAM);
    loop {
        datagram.clear();
        // The kernel puts the next part of a dump into the socket while it hands out the one before
        // (`netlink_recvmsg`), so there is nothing to wait for.
        socket.recv(&mut datagram, libc::MSG_DONTWAIT)?;
        if answers(&datagram, &mut take)? == Part::Last {
            return Ok(());
        }
    }
}

pub(super) fn to_bytes(request: SockDiagMessage) -> Vec<u8> {
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Whether more is to come after a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Last,
    More,
}

/// Takes one datagram apart. Any bytes give answers, an end or an error.
pub(super) fn answers(
    mut bytes: &[u8],
    take: &mut impl FnMut(SockDiagMessage),
) -> io::Result<Part> {
    while !bytes.is_empty() {
        let length = message_length(bytes)?;
        let message = NetlinkMessage::<SockDiagMessage>::deserialize(&bytes[..length]);
        match message.map_err(invalid)?.payload {
            NetlinkPayload::InnerMessage(answer) => take(answer),
            NetlinkPayload::Done(done) if done.code < 0 => {
                return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
            }
            NetlinkPayload::Done(_) => return Ok(Part::Last),
            NetlinkPayload::Error(error) => return Err(error.to_io()),
            NetlinkPayload::Overrun(_) => return Err(invalid("some answers were lost")),
            _ => {}
        }
        // Messages stand at multiples of four bytes.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Part::More)
}

fn message_length(bytes: &[u8]) -> io::Result<usize> {
    let length = NetlinkBuffer::new_checked(bytes).map_err(invalid)?.length();
    usize::try_from(length).map_err(invalid)
}

fn invalid<E: Into<Box<dyn std::error::Error + Send + Sync>>>(error: E) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
