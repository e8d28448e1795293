use super::*;

/// The bytes of one, in the order of the wire.
fn bytes(of: &Descriptor) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(Descriptor::SIZE);
    for word in [of.inode, of.magic] {
        bytes.extend(word.to_ne_bytes());
    }
    for word in [of.number, of.links, of.is_root, of.unread] {
        bytes.extend(word.to_ne_bytes());
    }
    for half in [of.mode, of.family, of.protocol, of.port, of.peer_port] {
        bytes.extend(half.to_ne_bytes());
    }
    bytes.extend([of.socket_type, of.state]);
    bytes.extend(of.local);
    bytes.extend(of.peer);
    bytes.extend(of.padding.to_ne_bytes());
    bytes
}

fn what(of: Descriptor) -> OpenKind {
    descriptor(&bytes(&of)).unwrap().what
}

fn start<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut start = [0; N];
    start[..text.len()].copy_from_slice(text);
    start
}

fn file(magic: u64, mode: u16, links: u32, name: &str) -> OpenKind {
    let (first, rest) = name.as_bytes().split_at(name.len().min(16));
    let (local, peer) = (start(first), start(rest));
    what(Descriptor { magic, mode, links, local, peer, is_root: 1, ..Descriptor::EMPTY })
}

fn socket(family: u16, protocol: u16, socket_type: u8) -> OpenKind {
    what(Descriptor { mode: S_IFSOCK, family, protocol, socket_type, ..Descriptor::EMPTY })
}

#[test]
fn only_a_whole_one_is_one() {
    let mut bytes = bytes(&Descriptor { number: 7, inode: 9, ..Descriptor::EMPTY });
    assert_eq!(bytes.len(), Descriptor::SIZE);
    let found = descriptor(&bytes).unwrap();
    assert_eq!((found.number, found.inode), (7, 9));
    bytes.pop();
    let want = Descriptor::SIZE;
    assert_eq!(descriptor(&bytes), Err(DecodeError::Length { got: want - 1, want }));
    assert_eq!(descriptor(&[]), Err(DecodeError::Length { got: 0, want }));
}

#[test]
fn tcp_sockets_have_two_ends() {
    let connection = Descriptor {
        mode: S_IFSOCK | 0o777,
        family: AF_INET,
        protocol: IPPROTO_TCP,
        socket_type: 1,
        state: 8,
        port: 9088,
        peer_port: 40_000,
        unread: 1,
        local: start(&[127, 0, 0, 1]),
        peer: start(&[127, 0, 0, 7]),
        ..Descriptor::EMPTY
    };
    let ends = |local: &str, peer: &str| OpenKind::Tcp {
        state: TcpState::CloseWait,
        local: local.parse().unwrap(),
        peer: peer.parse().unwrap(),
        unread: 1,
    };
    assert_eq!(what(connection), ends("127.0.0.1:9088", "127.0.0.7:40000"));
    let mapped = |ip: &str| ip.parse::<Ipv6Addr>().unwrap().octets();
    let (local, peer) = (mapped("::ffff:127.0.0.1"), mapped("::ffff:127.0.0.7"));
    let dual = Descriptor { family: AF_INET6, local, peer, ..connection };
    assert_eq!(what(dual), ends("127.0.0.1:9088", "127.0.0.7:40000"));
    let six = Descriptor { local: mapped("fe80::1"), peer: mapped("fe80::2"), ..dual };
    assert_eq!(what(six), ends("[fe80::1]:9088", "[fe80::2]:40000"));
    let closed = OpenKind::Other(FdKind::TcpUnlisted);
    assert_eq!(what(Descriptor { state: 7, ..connection }), closed);
    let unread = OpenKind::Other(FdKind::TcpUnread);
    assert_eq!(what(Descriptor { state: 0, ..connection }), unread);
    assert_eq!(what(Descriptor { state: 99, ..connection }), unread);
}

#[test]
fn other_sockets() {
    let kinds = [
        ((AF_UNIX, 0, 1), FdKind::Unix),
        ((AF_NETLINK, 15, 3), FdKind::Netlink),
        ((AF_PACKET, 3, 3), FdKind::Packet),
        ((AF_INET, 17, 2), FdKind::Udp),
        ((AF_INET6, 136, 2), FdKind::Udp),
        ((AF_INET, 1, 2), FdKind::Raw),
        ((AF_INET6, 58, 2), FdKind::Raw),
        ((AF_INET, 89, 3), FdKind::Raw),
    ];
    for ((family, protocol, socket_type), kind) in kinds {
        assert_eq!(socket(family, protocol, socket_type), OpenKind::Other(kind));
    }
    // SCTP, and a family that nobody knows.
    assert_eq!(socket(AF_INET, 132, 5), OpenKind::Socket);
    assert_eq!(socket(77, 0, 1), OpenKind::Socket);
}

#[test]
fn files() {
    let other = OpenKind::Other;
    assert_eq!(file(ANON_INODE_FS, 0, 1, "[eventpoll]"), other(FdKind::Epoll));
    // Since 6.16 they have a mode.
    assert_eq!(file(ANON_INODE_FS, S_IFREG, 1, "[eventfd]"), other(FdKind::EventFd));
    assert_eq!(file(ANON_INODE_FS, 0, 1, "inotify"), other(FdKind::Inotify));
    assert_eq!(file(ANON_INODE_FS, 0, 1, "bpf-map"), other(FdKind::Other("bpf-map".to_owned())));
    assert_eq!(file(PIPEFS, S_IFIFO, 1, ""), other(FdKind::Pipe));
    assert_eq!(file(NSFS, S_IFREG, 1, ""), other(FdKind::Namespace));
    assert_eq!(file(PID_FS, S_IFREG, 1, ""), other(FdKind::PidFd));
    assert_eq!(file(1, S_IFREG, 0, "memfd:a name of any length, cut"), other(FdKind::Memfd));
    let path = OpenKind::Path;
    assert_eq!(file(1, S_IFREG, 1, "access.log"), path(FdKind::File));
    assert_eq!(file(1, S_IFREG, 0, "access.log"), path(FdKind::DeletedFile));
    assert_eq!(file(1, S_IFDIR, 2, "etc"), path(FdKind::Directory));
    assert_eq!(file(1, S_IFCHR, 1, "null"), path(FdKind::Device));
    assert_eq!(file(1, S_IFBLK, 1, "vda"), path(FdKind::Device));
    assert_eq!(file(1, S_IFIFO, 1, "fifo"), path(FdKind::Fifo));
    assert_eq!(file(1, 0, 1, "?"), path(FdKind::PathUnread));
}
