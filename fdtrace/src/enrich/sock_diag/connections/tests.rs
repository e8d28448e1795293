use std::{
    net::{TcpListener, TcpStream},
    path::Path,
};

use super::*;

/// `struct nlmsghdr` and what follows it.
fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + payload.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// `struct inet_diag_msg` with an attribute nobody knows, then `tcp_info`.
fn inet(state: u8, local: &str, remote: &str, inode: u32) -> Vec<u8> {
    let (local, remote): (SocketAddr, SocketAddr) =
        (local.parse().unwrap(), remote.parse().unwrap());
    let ip = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => [&ip.octets()[..], &[0; 12]].concat(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut bytes = vec![if local.is_ipv4() { 2 } else { 10 }, state, 0, 0];
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(remote.port().to_be_bytes());
    bytes.extend([ip(local), ip(remote)].concat());
    // Interface, cookie, timer.
    bytes.extend([0; 4 + 8 + 4]);
    for word in [7, 0, 1000, inode] {
        bytes.extend(u32::to_ne_bytes(word));
    }
    bytes.extend([&5_u16.to_ne_bytes()[..], &99_u16.to_ne_bytes(), &[1, 0, 0, 0]].concat());
    let mut info = vec![0; 8 + 30 * 4];
    info[8 + 12 * 4..][..4].copy_from_slice(&2_500_u32.to_ne_bytes());
    let length = u16::try_from(4 + info.len()).unwrap();
    bytes.extend([&length.to_ne_bytes()[..], &2_u16.to_ne_bytes(), &info].concat());
    message(20, &bytes)
}

fn read(datagram: &[u8]) -> io::Result<(Vec<Connection>, dump::Part)> {
    let mut found = Vec::new();
    let part = answers(datagram, &mut |connection| found.push(connection))?;
    Ok((found, part))
}

fn expected(state: TcpState, local: &str, remote: &str) -> Connection {
    let silent = (state != TcpState::Listen).then_some(Duration::from_millis(2_500));
    let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
    Connection { inode: 54321, state, local, remote, silent, unread: 7 }
}

#[test]
fn answers_of_the_kernel() {
    let datagram = [
        inet(1, "127.0.0.1:80", "10.0.0.7:4000", 54321),
        inet(8, "[::ffff:127.0.0.1]:80", "[::ffff:10.0.0.7]:4000", 54321),
        inet(10, "[::]:80", "[::]:0", 54321),
        inet(8, "[2001:db8::1]:80", "[2001:db8::2]:4000", 54321),
        // A state that is none.
        inet(13, "127.0.0.1:80", "10.0.0.7:4000", 54321),
        message(3, &[0; 4]),
    ];
    let (found, part) = read(&datagram.concat()).unwrap();
    assert_eq!(part, dump::Part::Last);
    let all = [
        expected(TcpState::Established, "127.0.0.1:80", "10.0.0.7:4000"),
        expected(TcpState::CloseWait, "127.0.0.1:80", "10.0.0.7:4000"),
        expected(TcpState::Listen, "[::]:80", "[::]:0"),
        expected(TcpState::CloseWait, "[2001:db8::1]:80", "[2001:db8::2]:4000"),
    ];
    assert_eq!(found, all);
}

#[test]
fn refusals_and_any_bytes() {
    for kind in [2, 3] {
        let error = read(&message(kind, &(-libc::ENOENT).to_ne_bytes())).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
    assert!(read(&message(3, &i32::MIN.to_ne_bytes())).is_err());
    assert!(read(&message(4, &[])).is_err(), "overrun");
    assert_eq!(read(&[]).unwrap(), (Vec::new(), dump::Part::More));
    let whole = inet(1, "127.0.0.1:80", "10.0.0.7:4000", 54321);
    for end in 0..whole.len() {
        let _ = read(&whole[..end]);
        for wrong in [0, 1, 3, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[end] = wrong;
            let _ = read(&bytes);
        }
    }
}

#[test]
fn rows_of_proc() {
    let text = "  sl  local_address …\n   \
        0: 0100007F:2380 0700000A:0FA0 08 00000000:00000007 00:00000000 00000000 0 0 54321 1 x\n   \
        1: 0000000000000000FFFF00000100007F:2380 0000000000000000FFFF00000700000A:0FA0 01 \
           00000000:00000007 00:00000000 00000000 0 0 54321 1 x\n   \
        2: 0100007F:2380 x:0FA0 08 00000000:00000007 00:00000000 00000000 0 0 54321 1 x\n   \
        3: 0100007F:2380\n";
    let text = text.replace("\n           ", "");
    let mut found = Vec::new();
    let take = &mut |connection| found.push(connection);
    assert!(table(text.as_bytes(), take, &|| true).unwrap());
    let of =
        |state| Connection { silent: None, ..expected(state, "127.0.0.1:9088", "10.0.0.7:4000") };
    // Written on a little-endian machine.
    if cfg!(target_endian = "little") {
        assert_eq!(found, [of(TcpState::CloseWait), of(TcpState::Established)]);
    }
    let many = text.repeat(100);
    assert!(!table(many.as_bytes(), &mut |_| {}, &|| false).unwrap(), "told to stop");
}

#[test]
fn numbers_of_sockets() {
    let sockstat = "sockets: used 15\nTCP: inuse 4 orphan 0 tw 0 alloc 4 mem 289\nUDP: inuse 9\n";
    assert_eq!(counted(sockstat, "TCP6: inuse 7\nUDP6: inuse 0\n"), Some([4, 7]));
    assert_eq!(counted(sockstat, ""), Some([4, 0]));
    assert_eq!(counted("", ""), None);
    assert_eq!(counted("TCP: inuse x", ""), None);
}

/// Both sources show the same, and so many as sockstat says.
#[test]
fn the_running_kernel() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let _clients: Vec<_> = (0..3).map(|_| TcpStream::connect(at).unwrap()).collect();
    let of_us = |found: Vec<Connection>| {
        let mut ours: Vec<_> = found
            .into_iter()
            .filter(|connection| connection.local == at || connection.remote == at)
            .map(|connection| Connection { silent: None, ..connection })
            .collect();
        ours.sort_by_key(|connection| connection.inode);
        ours
    };
    let mut from_proc = Vec::new();
    let open = |name: &str| Ok(File::open(Path::new("/proc/thread-self").join(name))?.into());
    let read = listed(&open, &mut |connection| from_proc.push(connection), &|| true).unwrap();
    assert!(read.is_complete);
    let from_proc = of_us(from_proc);
    // Those that wait to be accepted have no inode yet.
    assert_eq!(from_proc.len(), 4);

    let mut from_dump = Vec::new();
    match dumped(&mut |connection| from_dump.push(connection), &|| true) {
        Ok(read) => assert!(read.is_complete && read.sockets[0] >= 4),
        // A kernel without tcp_diag.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => panic!("{error}"),
    }
    assert_eq!(of_us(from_dump), from_proc);
    let stopped = dumped(&mut |_| panic!("nothing was asked for"), &|| false).unwrap();
    assert_eq!(stopped, Read::default());
}
