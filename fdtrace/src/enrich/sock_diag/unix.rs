//! `AF_UNIX` listeners, by unix_diag.

use std::{io, os::unix::ffi::OsStrExt as _};

use netlink_packet_sock_diag::{
    SockDiagMessage, TCP_LISTEN,
    unix::{
        ShowFlags, StateFlags, UnixRequest, UnixResponse,
        nlas::{Nla, UnixDiagName},
    },
};

use super::dump::dump;
use crate::model::{Listener, ListenerAddress, ListeningSocket, UnixName};

pub(super) fn listeners(netns: Option<u32>) -> io::Result<Vec<ListeningSocket>> {
    let mut sockets = Vec::new();
    dump(request(), |answer| {
        if let SockDiagMessage::UnixResponse(response) = answer {
            sockets.extend(socket(&response, netns));
        }
    })?;
    Ok(sockets)
}

pub(super) fn request() -> SockDiagMessage {
    SockDiagMessage::UnixRequest(UnixRequest {
        state_flags: StateFlags::LISTEN,
        inode: 0,
        show_flags: ShowFlags::NAME | ShowFlags::RQLEN,
        cookie: [0xff; 8],
    })
}

pub(super) fn socket(response: &UnixResponse, netns: Option<u32>) -> Option<ListeningSocket> {
    let UnixResponse { header, nlas } = response;
    if header.state != TCP_LISTEN {
        return None;
    }
    let name = match response.name() {
        Some(UnixDiagName::Pathname(path)) => UnixName::Path(path.as_bytes().to_vec()),
        Some(UnixDiagName::Abstract(name)) => UnixName::Abstract(name.clone()),
        None => UnixName::Unnamed,
    };
    // Of a listener these are the clients that wait and sk_max_ack_backlog (net/unix/diag.c
    // sk_diag_show_rqlen, v6.18).
    let queue = nlas.iter().find_map(|nla| match nla {
        Nla::ReceiveQueueLength(length, limit) => Some((*length, *limit)),
        _ => None,
    });
    Some(ListeningSocket {
        inode: header.inode.into(),
        listener: Listener { netns, address: ListenerAddress::Unix(name) },
        length: queue.map(|(length, _)| length),
        limit: queue.map(|(_, limit)| limit),
        // connect(2) waits or fails where the queue is full; nothing is dropped.
        drops: None,
    })
}
