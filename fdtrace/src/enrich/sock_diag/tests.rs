//! Messages built by hand, as the kernel's headers lay them out, and the running kernel.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
};

use super::{
    dump::{self, Part},
    *,
};
use crate::model::{ListenerAddress, UnixName};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const BY_FAMILY: u16 = 20;
const LISTEN: u8 = 10;
const NETNS: Option<u32> = Some(4_026_531_840);

/// `struct nlmsghdr` and what follows it.
fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + payload.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    // NLM_F_MULTI, a sequence number, a port.
    bytes.extend(2_u16.to_ne_bytes());
    bytes.extend([7, 0, 0, 0, 9, 0, 0, 0]);
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// `struct nlattr` and what follows it.
fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + payload.len()).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// `struct inet_diag_msg`.
fn inet_message(
    address: SocketAddr,
    state: u8,
    queue: [u32; 2],
    attributes: &[Vec<u8>],
) -> Vec<u8> {
    let (family, ip) = match address.ip() {
        IpAddr::V4(ip) => (2, [&ip.octets()[..], &[0; 12]].concat()),
        IpAddr::V6(ip) => (10, ip.octets().to_vec()),
    };
    let mut bytes = vec![family, state, 0, 0];
    bytes.extend(address.port().to_be_bytes());
    bytes.extend([0; 2]);
    bytes.extend(ip);
    // The peer, the interface, the cookie, when a timer expires.
    bytes.extend([0; 16 + 4 + 8 + 4]);
    bytes.extend(words(&queue));
    // The owner's number, the inode.
    bytes.extend(words(&[1000, 54321]));
    assert_eq!(bytes.len(), 72);
    bytes.extend(attributes.concat());
    message(BY_FAMILY, &bytes)
}

/// `INET_DIAG_SKMEMINFO`.
fn memory(drops: u32) -> Vec<u8> {
    attribute(7, &words(&[0, 131_072, 0, 16_384, 0, 0, 0, 0, drops]))
}

/// `INET_DIAG_SKV6ONLY`.
fn v6_only(yes: u8) -> Vec<u8> {
    attribute(11, &[yes])
}

fn unix_message(state: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
    let header = [vec![1, 1, state, 0], words(&[777, 1, 2])].concat();
    message(BY_FAMILY, &[header, attributes.concat()].concat())
}

/// Everything a datagram says.
fn read(datagram: &[u8]) -> io::Result<(Vec<ListeningSocket>, Part)> {
    use netlink_packet_sock_diag::SockDiagMessage;
    let mut sockets = Vec::new();
    let part = dump::answers(datagram, &mut |answer| match answer {
        SockDiagMessage::InetResponse(response) => sockets.extend(inet::socket(&response, NETNS)),
        SockDiagMessage::UnixResponse(response) => sockets.extend(unix::socket(&response, NETNS)),
        other => panic!("{other:?}"),
    })?;
    Ok((sockets, part))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn inet_socket(ip: IpAddr, port: u16, dual_stack: Option<bool>) -> ListeningSocket {
    let address = ListenerAddress::Inet { ip, port, dual_stack };
    ListeningSocket {
        inode: 54321,
        listener: crate::model::Listener { netns: NETNS, address },
        length: Some(129),
        limit: Some(128),
        drops: Some(3112),
    }
}

#[test]
fn requests() {
    let tcp4 = dump::to_bytes(inet::request(2));
    // NLM_F_REQUEST and NLM_F_DUMP; then family, TCP, 1 << (SKMEMINFO - 1), 1 << LISTEN.
    let header = [&words(&[72])[..], &[20, 0, 1, 3], &[0; 8]].concat();
    let body = [&[2, 6, 1 << 6, 0][..], &words(&[1 << 10]), &[0; 48]].concat();
    assert_eq!(tcp4, [header, body].concat());
    assert_eq!(dump::to_bytes(inet::request(10))[16], 10);

    let unix = dump::to_bytes(unix::request());
    // UDIAG_SHOW_NAME and UDIAG_SHOW_RQLEN.
    let body = [&[1, 0, 0, 0][..], &words(&[1 << 10, 0, 1 | 16]), &[0xff; 8]].concat();
    assert_eq!(unix[16..], body);
}

#[test]
fn tcp_answers() {
    let queue = [129, 128];
    let datagram = [
        inet_message(address("127.0.0.1:80"), LISTEN, queue, &[memory(3112)]),
        inet_message(address("[::]:9088"), LISTEN, queue, &[v6_only(0), memory(3112)]),
        inet_message(address("[::1]:9089"), LISTEN, queue, &[memory(3112), v6_only(1)]),
        // Older or stranger kernels: nothing asked for comes, and something that was not.
        inet_message(address("192.0.2.7:81"), LISTEN, queue, &[attribute(99, b"?")]),
        // A kernel without the filter by state.
        inet_message(address("192.0.2.7:82"), 1, queue, &[]),
    ];
    let (sockets, part) = read(&datagram.concat()).unwrap();
    assert_eq!(part, Part::More);
    let unknown_drops = inet_socket(Ipv4Addr::new(192, 0, 2, 7).into(), 81, Some(false));
    let expected = [
        inet_socket(Ipv4Addr::LOCALHOST.into(), 80, Some(false)),
        inet_socket(Ipv6Addr::UNSPECIFIED.into(), 9088, Some(true)),
        inet_socket(Ipv6Addr::LOCALHOST.into(), 9089, Some(false)),
        ListeningSocket { drops: None, ..unknown_drops },
    ];
    assert_eq!(sockets, expected);
}

#[test]
fn unix_answers() {
    // UNIX_DIAG_NAME and UNIX_DIAG_RQLEN.
    let queue = attribute(4, &words(&[12, 511]));
    let datagram = [
        unix_message(LISTEN, &[attribute(0, b"/run/php.sock\0"), queue.clone()]),
        unix_message(LISTEN, &[attribute(0, b"\0a\0b"), queue.clone()]),
        unix_message(LISTEN, std::slice::from_ref(&queue)),
        unix_message(LISTEN, &[attribute(0, b"/s\0")]),
        unix_message(1, &[queue]),
        message(NLMSG_DONE, &words(&[0])),
    ];
    let (sockets, part) = read(&datagram.concat()).unwrap();
    assert_eq!(part, Part::Last);
    let names: Vec<_> = sockets
        .iter()
        .map(|socket| match &socket.listener.address {
            ListenerAddress::Unix(name) => (name.clone(), socket.length, socket.limit),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        (UnixName::Path(b"/run/php.sock".to_vec()), Some(12), Some(511)),
        (UnixName::Abstract(b"a\0b".to_vec()), Some(12), Some(511)),
        (UnixName::Unnamed, Some(12), Some(511)),
        (UnixName::Path(b"/s".to_vec()), None, None),
    ];
    assert_eq!(names, expected);
    assert!(sockets.iter().all(|socket| socket.inode == 777 && socket.drops.is_none()));
}

#[test]
fn ends_and_refusals() {
    let done = |code: i32| message(NLMSG_DONE, &code.to_ne_bytes());
    let error = |code: i32| message(NLMSG_ERROR, &[code.to_ne_bytes(), [0; 4]].concat());
    assert_eq!(read(&done(0)).unwrap(), (Vec::new(), Part::Last));
    assert_eq!(read(&[]).unwrap(), (Vec::new(), Part::More));
    // tcp_diag cannot be loaded; sock_diag knows no such family.
    assert_eq!(read(&done(-libc::ENOENT)).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    assert_eq!(read(&error(-libc::ENOENT)).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    assert!(read(&done(i32::MIN)).is_err());
}

#[test]
fn what_is_missing_has_a_name() {
    let text = |code| unavailable("tcp_diag", &io::Error::from_raw_os_error(code)).to_string();
    assert_eq!(text(libc::ENOENT), "the kernel has no tcp_diag, or may not load it");
    assert!(text(libc::EMFILE).starts_with("tcp_diag: Too many open files"));
}

#[test]
fn any_bytes_give_an_answer_or_an_error() {
    let whole = [
        inet_message(address("[::]:9088"), LISTEN, [1, 2], &[v6_only(0), memory(1)]),
        unix_message(LISTEN, &[attribute(0, b"/s\0"), attribute(4, &words(&[1, 2]))]),
    ]
    .concat();
    for end in 0..whole.len() {
        let _ = read(&whole[..end]);
        // Every byte in turn says something else.
        for wrong in [0, 1, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[end] = wrong;
            let _ = read(&bytes);
        }
    }
    for cut in [5, 15, 40, 80] {
        assert_eq!(read(&whole[..cut]).unwrap_err().kind(), io::ErrorKind::InvalidData, "{cut}");
    }
    // A length below the header's own.
    assert!(read(&[vec![0; 4], vec![20; 12]].concat()).is_err());
}

#[test]
fn proc_table() {
    let text = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
   0: 0100007F:2380 00000000:0000 0A 00000000:00000081 00:00000000 00000000  1000        0 54321 1 x\n   \
   1: 0100007F:2380 0100007F:A5B2 01 00000000:00000003 00:00000000 00000000  1000        0 54322 1 x\n";
    let sockets = proc_net::table(text.as_bytes(), NETNS).unwrap();
    let expected = inet_socket(Ipv4Addr::LOCALHOST.into(), 9088, Some(false));
    assert_eq!(sockets, [ListeningSocket { limit: None, drops: None, ..expected }]);
    assert!(proc_net::table(&b""[..], None).unwrap().is_empty());
    for wrong in ["h\n 0: x y 0A z\n", "h\n 0: 0100007F:2380 00000000:0000 0A\n"] {
        assert!(proc_net::table(wrong.as_bytes(), None).is_err(), "{wrong}");
    }
}

#[test]
fn an_unreadable_proc_is_an_error_and_no_ipv6_is_none() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(proc_listeners(None, dir.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
    std::fs::write(dir.path().join("tcp"), "  sl  local_address\n").unwrap();
    assert!(proc_listeners(None, dir.path()).unwrap().is_empty());
}

/// The inode behind a descriptor.
fn inode(socket: &impl std::os::fd::AsFd) -> u64 {
    nix::sys::stat::fstat(socket.as_fd()).unwrap().st_ino
}

#[track_caller]
fn with_inode(sockets: &[ListeningSocket], inode: u64) -> &ListeningSocket {
    let found = sockets.iter().find(|socket| socket.inode == inode);
    found.unwrap_or_else(|| panic!("{inode} is not in {sockets:?}"))
}

/// Both sources show a listener of this very process, with the clients that wait.
#[test]
fn the_running_kernel_tcp() {
    let proc_net = Path::new("/proc/thread-self/net");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let _clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();

    let listed = tcp_listeners(NETNS, proc_net).unwrap();
    let socket = with_inode(&listed.sockets, inode(&listener));
    let ListenerAddress::Inet { ip, port, .. } = socket.listener.address else {
        panic!("{socket:?}");
    };
    assert_eq!((ip, port, socket.listener.netns), (address.ip(), address.port(), NETNS));
    assert_eq!(socket.length, Some(3));

    let sockets = proc_listeners(NETNS, proc_net).unwrap();
    let from_proc = with_inode(&sockets, inode(&listener));
    assert_eq!(from_proc.length, Some(3));
    assert_eq!(from_proc.listener, socket.listener);
    if listed.fallback.is_none() {
        assert_eq!(socket.drops, Some(0));
        // The standard library asks for 128 or 4096.
        assert!(socket.limit.is_some_and(|limit| limit >= 3));
    }
}

#[test]
fn the_running_kernel_unix() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let _clients: Vec<_> = (0..2).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let sockets = match unix_listeners(NETNS) {
        Ok(sockets) => sockets,
        // A kernel without unix_diag.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => panic!("{error}"),
    };
    let socket = with_inode(&sockets, inode(&listener));
    let name = UnixName::Path(path.into_os_string().into_encoded_bytes());
    assert_eq!(socket.listener.address, ListenerAddress::Unix(name));
    assert_eq!((socket.length, socket.drops), (Some(2), None));
    assert!(socket.limit.is_some_and(|limit| limit >= 2));
}
