//! Half-open requests of a listener: whose they are, and whether anybody answers.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, Timer},
};

use super::{dump::dump, unavailable};
use crate::{
    enrich::{
        Worker,
        netns::{facts::inside, look},
        worker,
    },
    model::{HalfOpen, Pid},
};

/// Looks at the requests for `port` in the network namespace `netns`, which the process `member` is
/// in, on a thread of its own. `root` is where /proc is.
pub fn half_open(
    root: PathBuf,
    netns: u32,
    member: Pid,
    port: u16,
) -> io::Result<Worker<HalfOpen>> {
    worker::spawn("fdtrace-half", move |_| {
        if look::netns_of(&root, "self") == Some(netns) {
            return here(port);
        }
        inside(&link(&root, member), netns, || here(port))?
    })
}

fn link(root: &Path, member: Pid) -> PathBuf {
    root.join(format!("{member}/ns/net"))
}

fn here(port: u16) -> io::Result<HalfOpen> {
    let mut tally = Tally::default();
    for family in [AF_INET, AF_INET6] {
        let socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
        let request = SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            // The kernel takes that for TCP_NEW_SYN_RECV too (net/ipv4/inet_diag.c
            // inet_diag_dump_icsk, v6.18).
            states: StateFlags::SYN_RECV,
            socket_id,
        });
        dump(request, |answer| {
            if let SockDiagMessage::InetResponse(response) = answer {
                tally.take(&response, port);
            }
        })
        .map_err(|error| unavailable("tcp_diag", &error))?;
    }
    Ok(tally.finish())
}

#[derive(Default)]
struct Tally {
    found: HalfOpen,
    by_address: HashMap<IpAddr, u64>,
}

impl Tally {
    fn take(&mut self, response: &InetResponse, port: u16) {
        let header = &response.header;
        if header.socket_id.source_port != port {
            return;
        }
        self.found.requests += 1;
        // inet_req_diag_fill: num_retrans, which starts at 0.
        if matches!(header.timer, Some(Timer::Retransmit(_, again)) if again > 0) {
            self.found.unanswered += 1;
        }
        let address = header.socket_id.destination_address.to_canonical();
        *self.by_address.entry(address).or_default() += 1;
    }

    fn finish(self) -> HalfOpen {
        let busiest = self.by_address.iter().max_by_key(|(_, requests)| **requests);
        HalfOpen {
            addresses: self.by_address.len() as u64,
            busiest: busiest.map(|(address, requests)| (*address, *requests)),
            ..self.found
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_lists_them() {
        let root = PathBuf::from("/proc");
        let own = look::netns_of(&root, "self").unwrap();
        let found = half_open(root, own, Pid(1), 1).unwrap().wait();
        match found {
            Ok(found) => assert_eq!(found, HalfOpen::default()),
            Err(error) => println!("skipped: {error}"),
        }
    }
}
