//! A listener whose every figure is known.

use std::{
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
};

use nix::sys::{
    socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrStorage, bind,
        getsockname, listen, setsockopt, socket, sockopt,
    },
    stat::fstat,
};

/// A listener and its clients.
pub(crate) struct Listener {
    pub(crate) socket: OwnedFd,
    pub(crate) address: SocketAddr,
    clients: Vec<TcpStream>,
}

impl Listener {
    pub(crate) fn new(address: &str, backlog: Backlog) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        Self::on(socket, address, backlog)
    }

    pub(crate) fn on(socket: OwnedFd, address: SocketAddr, backlog: Backlog) -> Self {
        // MPTCP of older kernels has none.
        let _ = setsockopt(&socket, sockopt::ReusePort, &true);
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
        listen(&socket, backlog).unwrap();
        let bound: SockaddrStorage = getsockname(socket.as_raw_fd()).unwrap();
        let port = bound
            .as_sockaddr_in()
            .map(SockaddrIn::port)
            .or_else(|| bound.as_sockaddr_in6().map(SockaddrIn6::port));
        let address = SocketAddr::new(address.ip(), port.unwrap());
        Self { socket, address, clients: Vec::new() }
    }

    /// Clients that nobody accepts.
    pub(crate) fn with_clients(mut self, count: usize) -> Self {
        self.clients = (0..count).map(|_| TcpStream::connect(self.address).unwrap()).collect();
        self
    }

    pub(crate) fn port(&self) -> String {
        self.address.port().to_string()
    }

    pub(crate) fn inode(&self) -> u64 {
        inode(&self.socket)
    }
}

pub(crate) fn inode(socket: impl AsFd) -> u64 {
    fstat(socket).unwrap().st_ino
}

pub(crate) fn backlog(backlog: i32) -> Backlog {
    Backlog::new(backlog).unwrap()
}
