//! TCP listeners, by tcp_diag.

use std::io;

use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, SockDiagMessage, TCP_LISTEN,
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};

use super::dump::dump;
use crate::model::{Listener, ListenerAddress, ListeningSocket};

pub(super) fn listeners(netns: Option<u32>) -> io::Result<Vec<ListeningSocket>> {
    let mut sockets = Vec::new();
    for family in [AF_INET, AF_INET6] {
        dump(request(family), |answer| {
            if let SockDiagMessage::InetResponse(response) = answer {
                sockets.extend(socket(&response, netns));
            }
        })?;
    }
    Ok(sockets)
}

pub(super) fn request(family: u8) -> SockDiagMessage {
    let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::SKMEMINFO,
        states: StateFlags::LISTEN,
        socket_id,
    })
}

pub(super) fn socket(response: &InetResponse, netns: Option<u32>) -> Option<ListeningSocket> {
    let InetResponse { header, nlas } = response;
    if header.state != TCP_LISTEN {
        return None;
    }
    let drops = nlas.iter().find_map(|nla| match nla {
        Nla::MemInfo(memory) => Some(memory.drops),
        _ => None,
    });
    let v6_only = nlas.iter().find_map(|nla| match nla {
        Nla::SkV6Only(v6_only) => Some(*v6_only),
        _ => None,
    });
    let ip = header.socket_id.source_address;
    let address = ListenerAddress::Inet {
        ip,
        port: header.socket_id.source_port,
        dual_stack: if ip.is_ipv4() { Some(false) } else { v6_only.map(|v6_only| !v6_only) },
    };
    Some(ListeningSocket {
        inode: header.inode.into(),
        listener: Listener { netns, address },
        // Of a listener these are sk_ack_backlog and sk_max_ack_backlog (net/ipv4/tcp_diag.c
        // tcp_diag_get_info, v6.18).
        length: Some(header.recv_queue),
        limit: Some(header.send_queue),
        drops,
    })
}
