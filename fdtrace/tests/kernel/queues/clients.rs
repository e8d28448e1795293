//! Clients of the kernel's own: they send a SYN again after a second, as anybody's do.

use std::{
    net::SocketAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, socket,
    },
};

use super::network::Network;

/// Connections somebody has begun. They last as long as this.
pub(super) struct Clients(Vec<OwnedFd>);

impl Clients {
    /// Begins so many, and waits for none.
    pub(super) fn knock(network: &Network, server: &str, count: usize) -> Self {
        Self::begin(network, server, count, false)
    }

    /// The same, with clients that hear no answer: their requests wait in the SYN queue, until they
    /// [listen](Self::listen) and get the SYN-ACK that is sent again after a second.
    pub(super) fn knock_deaf(network: &Network, server: &str, count: usize) -> Self {
        Self::begin(network, server, count, true)
    }

    fn begin(network: &Network, server: &str, count: usize, deaf: bool) -> Self {
        let server: SocketAddr = server.parse().unwrap();
        network.enter(|| {
            let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let client = || {
                let client = socket(family, SockType::Stream, flags, SockProtocol::Tcp).unwrap();
                if deaf {
                    drop_everything(&client);
                }
                match connect(client.as_raw_fd(), &SockaddrStorage::from(server)) {
                    Ok(()) | Err(Errno::EINPROGRESS) => client,
                    Err(error) => panic!("connect: {error}"),
                }
            };
            Self((0..count).map(|_| client()).collect())
        })
    }

    /// Lets deaf ones hear.
    pub(super) fn listen(&self) {
        for client in &self.0 {
            set(client, libc::SO_DETACH_FILTER, &0_i32);
        }
    }

    /// Lets each say something that believes it is connected.
    pub(super) fn talk(&self) {
        for client in &self.0 {
            match nix::unistd::write(client, b"hello") {
                Ok(_) | Err(Errno::EAGAIN | Errno::ECONNRESET) => {}
                Err(error) => panic!("write: {error}"),
            }
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

/// A packet filter that lets nothing in: no iptables are needed to lose a SYN-ACK.
fn drop_everything(client: &OwnedFd) {
    let code = u16::try_from(libc::BPF_RET | libc::BPF_K).unwrap();
    let mut drop = libc::sock_filter { code, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut drop };
    set(client, libc::SO_ATTACH_FILTER, &program);
}

fn set<T>(socket: &OwnedFd, option: i32, value: &T) {
    let size = libc::socklen_t::try_from(size_of::<T>()).unwrap();
    let (fd, pointer) = (socket.as_raw_fd(), std::ptr::from_ref(value).cast());
    // SAFETY: the kernel copies `size` bytes of a value that lives, and of what it points to.
    let result = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, pointer, size) };
    Errno::result(result).unwrap();
}
