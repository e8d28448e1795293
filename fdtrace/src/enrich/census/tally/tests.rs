use super::*;

fn connection(inode: u64, state: TcpState, local: &str, remote: &str) -> Connection {
    let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
    Connection { inode, state, local, remote, silent: None, unread: 1 }
}

fn table(coverage: Coverage, connections: &[Connection]) -> Table {
    let mut table = Table { coverage, ..Table::default() };
    for connection in connections {
        table.insert(*connection);
    }
    table
}

fn socket(inode: u64) -> Descriptor<'static> {
    Descriptor::Socket { inode, protocol: FdKind::TcpUnlisted }
}

fn path(path: &str) -> Descriptor<'_> {
    Descriptor::Path { path: path.as_bytes(), kind: FdKind::File }
}

fn census(table: &Table, descriptors: Vec<Descriptor<'_>>, open: u64) -> Census {
    let looked_at = descriptors.len() as u64;
    let mut tally = Tally::new(table);
    for descriptor in descriptors {
        tally.add(descriptor);
    }
    tally.finish(OpenFds::Exact(open), looked_at, Vec::new())
}

#[test]
fn listeners_of_all_addresses_and_of_one() {
    let listen = |inode, at: &str| connection(inode, TcpState::Listen, at, "0.0.0.0:0");
    let established =
        |inode, local: &str| connection(inode, TcpState::Established, local, "192.0.2.9:4000");
    let table = table(
        Coverage::All,
        &[
            listen(1, "[::]:80"),
            listen(2, "10.0.0.1:80"),
            established(11, "10.0.0.1:80"),
            established(12, "10.0.0.2:80"),
            established(13, "10.0.0.2:81"),
        ],
    );
    let census = census(&table, [1, 11, 12, 13].map(socket).into(), 4);
    let shares: Vec<_> = census
        .listeners
        .iter()
        .map(|share| (share.address.to_string(), share.is_held, share.established))
        .collect();
    let expected = [("10.0.0.1:80".to_owned(), false, 1), ("[::]:80".to_owned(), true, 1)];
    assert_eq!(shares, expected);
    assert_eq!(census.distinct_peers, DistinctPeers { clients: 1, servers: 1 });
    assert_eq!(census.tcp(TcpState::Listen), 1);
}

#[test]
fn sockets_that_are_in_no_table() {
    let whole = census(&table(Coverage::All, &[]), vec![socket(1), socket(2)], 2);
    assert_eq!(whole.kinds, [(FdKind::TcpUnlisted, 2)]);
    for coverage in [Coverage::Unknown, Coverage::Part(0.3)] {
        let part = census(&table(coverage, &[]), vec![socket(1), socket(2)], 2);
        assert_eq!(part.kinds, [(FdKind::TcpUnread, 2)], "too few to say more");
    }
}

/// Of 2000 sockets in the table, 800 were read.
#[test]
fn states_are_estimated_from_a_part_of_the_table() {
    let state = |inode: u64| {
        if inode.is_multiple_of(4) { TcpState::Established } else { TcpState::CloseWait }
    };
    let of = |inode| connection(inode, state(inode), "10.0.0.1:80", "192.0.2.9:4000");
    let read: Vec<_> = (1..=800).map(of).collect();
    let table = table(Coverage::of([800, 0], [2000, 0]), &read);
    let estimated = census(&table, (1..=2000).map(socket).collect(), 4000);
    let expected =
        [(FdKind::Tcp(TcpState::CloseWait), 3000), (FdKind::Tcp(TcpState::Established), 1000)];
    assert_eq!(estimated.kinds, expected);
    assert_eq!(estimated.peers[0].close_wait, 3000);
    // Half of what the process has is in no table.
    let unlisted = census(&table, (1..=4000).map(socket).collect(), 4000);
    assert_eq!(unlisted.count(|kind| *kind == FdKind::TcpUnlisted), 2000);
    assert_eq!(unlisted.tcp(TcpState::CloseWait), 1500);
}

#[test]
fn how_much_of_a_table_was_read() {
    assert_eq!(Coverage::of([50, 0], [100, 0]), Coverage::Part(0.5));
    assert_eq!(Coverage::of([100, 50], [100, 100]), Coverage::Part(0.75));
    assert_eq!(Coverage::of([100, 0], [100, 100]), Coverage::Unknown, "nothing of IPv6");
    assert_eq!(Coverage::of([100, 0], [100, 2]), Coverage::Part(100.0 / 102.0));
    assert_eq!(Coverage::of([0, 0], [100, 0]), Coverage::Unknown);
    assert_eq!(Coverage::of([101, 0], [100, 0]), Coverage::Unknown, "they changed meanwhile");
}

#[test]
fn paths_by_file_and_by_directory() {
    let table = table(Coverage::All, &[]);
    let mut descriptors = vec![path("/a/x"), path("/a/x"), path("/a/x"), path("/a/y")];
    descriptors.extend([
        path("/b/1"),
        path("/b/2"),
        path("/b/3"),
        path("/top"),
        path("odd"),
        path(""),
    ]);
    let census = census(&table, descriptors, 10);
    let shares: Vec<_> = census
        .paths
        .iter()
        .map(|share| (share.path.to_str().unwrap(), share.fds, share.files))
        .collect();
    let expected =
        [("/a/x", 3, None), ("/b", 3, Some(3)), ("", 1, None), ("/top", 1, None), ("odd", 1, None)];
    assert_eq!(shares, expected);
}

#[test]
fn a_sample_is_scaled_up() {
    let table = table(Coverage::All, &[]);
    let descriptors =
        (0..30).map(|_| Descriptor::Other(FdKind::Pipe)).chain((0..10).map(|_| path("/x/y")));
    let census = census(&table, descriptors.collect(), 4000);
    assert!(census.is_sampled());
    assert_eq!(census.kinds, [(FdKind::Pipe, 3000), (FdKind::File, 1000)]);
    assert_eq!((census.paths[0].fds, census.paths[0].files), (1000, None));
}

#[test]
fn paths_are_bounded() {
    let table = table(Coverage::All, &[]);
    let mut tally = Tally::new(&table);
    for number in 0..2000 {
        tally.add(path(&format!("/{}/{number}", "x".repeat(4000))));
    }
    assert!(tally.path_bytes <= MOST_PATHS && tally.paths_left_out > 900);
    let census = tally.finish(OpenFds::Exact(2000), 2000, Vec::new());
    assert_eq!(census.kinds, [(FdKind::File, 2000)]);
    assert!(census.unknown[0].starts_with("the paths of "), "{:?}", census.unknown);
}

#[test]
fn silence_of_connections() {
    let of = |inode, seconds| Connection {
        silent: Some(Duration::from_secs(seconds)),
        ..connection(inode, TcpState::CloseWait, "10.0.0.1:80", "192.0.2.9:4000")
    };
    let found = silence(&[of(1, 9), of(2, 1), of(3, 4), of(4, 100)], TcpState::CloseWait).unwrap();
    assert_eq!((found.median, found.longest), (Duration::from_secs(4), Duration::from_secs(100)));
    assert_eq!(silence(&[of(1, 9)], TcpState::Established), None);
    let unknown = Connection { silent: None, ..of(1, 0) };
    assert_eq!(silence(&[unknown], TcpState::CloseWait), None);
}
