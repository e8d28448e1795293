//! Adding descriptors up, wherever they were looked at.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    os::unix::ffi::OsStringExt as _,
    path::PathBuf,
    time::Duration,
};

use super::descriptors::Descriptor;
use crate::{
    enrich::sock_diag::connections::Connection,
    model::{
        Census, DistinctPeers, FdKind, ListenerAddress, ListenerShare, OpenFds, PathShare, Peer,
        PeerShare, Silence, TcpState,
    },
};

/// Of peers, ports and paths, no more are shown.
const MOST_SHOWN: usize = 8;
/// Paths are kept up to so many bytes.
const MOST_PATHS: usize = 4 * 1024 * 1024;

/// Fewer connections than this tell nothing of others.
const LEAST_SAMPLE: u64 = 200;

/// How much of a table was read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Coverage {
    /// Everything: what is not in it, is nowhere.
    All,
    /// Such a part of it, 0 to 1. The kernel's order is by hash: it is a fair one.
    Part(f64),
    /// Nobody can say.
    #[default]
    Unknown,
}

impl Coverage {
    /// From numbers of IPv4 and IPv6 sockets that were read, and that there are.
    #[expect(clippy::cast_precision_loss, reason = "no host has 2^53 sockets")]
    pub(super) fn of(read: [u64; 2], all: [u64; 2]) -> Self {
        let (sum_read, sum_all): (u64, u64) = (read.iter().sum(), all.iter().sum());
        // IPv4 comes first. If it took all the time, of IPv6 nothing is known.
        let is_fair = read[1] > 0 || all[1] * 20 < sum_all;
        if is_fair && sum_read > 0 && sum_read <= sum_all {
            Self::Part(sum_read as f64 / sum_all as f64)
        } else {
            Self::Unknown
        }
    }
}

/// TCP sockets of the process's network namespace.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_inode: HashMap<u64, Connection>,
    listening: Listening,
    /// How many of them are in it.
    pub(super) coverage: Coverage,
}

impl Table {
    pub(super) fn insert(&mut self, connection: Connection) {
        self.listening.insert(&connection);
        self.by_inode.insert(connection.inode, connection);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_inode.is_empty()
    }

    pub(super) fn knows(&self, inode: u64) -> bool {
        self.by_inode.contains_key(&inode)
    }
}

/// Addresses in LISTEN, by port.
#[derive(Clone, Debug, Default)]
struct Listening(HashMap<u16, Vec<IpAddr>>);

impl Listening {
    fn insert(&mut self, connection: &Connection) {
        if connection.state == TcpState::Listen {
            let at = self.0.entry(connection.local.port()).or_default();
            if !at.contains(&connection.local.ip()) {
                at.push(connection.local.ip());
            }
        }
    }

    /// The listener that a connection came in by.
    fn came_in_by(&self, local: SocketAddr) -> Option<SocketAddr> {
        let listening = self.0.get(&local.port())?;
        // One on the very address goes before one on all (net/ipv4/inet_hashtables.c
        // compute_score).
        let exact = listening.iter().find(|ip| **ip == local.ip());
        let any = || listening.iter().find(|ip| ip.is_unspecified());
        exact.or_else(any).map(|ip| SocketAddr::new(*ip, local.port()))
    }
}

/// What was counted so far.
#[derive(Debug)]
pub(super) struct Tally<'a> {
    table: &'a Table,
    kinds: HashMap<FdKind, u64>,
    connections: Vec<Connection>,
    paths: HashMap<Vec<u8>, u64>,
    path_bytes: usize,
    paths_left_out: u64,
    named: u64,
    unnamed: u64,
}

/// Of some connections.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    connections: u64,
    established: u64,
    close_wait: u64,
}

impl Group {
    const fn add(&mut self, state: TcpState) {
        self.connections += 1;
        match state {
            TcpState::Established => self.established += 1,
            TcpState::CloseWait => self.close_wait += 1,
            _ => {}
        }
    }
}

impl<'a> Tally<'a> {
    pub(super) fn new(table: &'a Table) -> Self {
        Self {
            table,
            kinds: HashMap::new(),
            connections: Vec::new(),
            paths: HashMap::new(),
            path_bytes: 0,
            paths_left_out: 0,
            named: 0,
            unnamed: 0,
        }
    }

    /// Another one beside the same table.
    pub(super) fn empty(&self) -> Self {
        Self::new(self.table)
    }

    pub(super) fn add(&mut self, descriptor: Descriptor<'_>) {
        let kind = match descriptor {
            Descriptor::Socket { inode, protocol } => {
                match (self.table.by_inode.get(&inode), protocol) {
                    (Some(connection), _) => {
                        self.connections.push(*connection);
                        FdKind::Tcp(connection.state)
                    }
                    (None, FdKind::TcpUnlisted) if self.table.coverage != Coverage::All => {
                        FdKind::TcpUnread
                    }
                    (None, protocol) => protocol,
                }
            }
            Descriptor::Path { path, kind } => {
                self.add_path(path);
                kind
            }
            Descriptor::Other(kind) => kind,
        };
        self.add_kind(kind);
    }

    /// A TCP socket of which the kernel side told the state. The table knows more.
    pub(super) fn add_tcp(&mut self, connection: Connection) {
        let listed = self.table.by_inode.get(&connection.inode);
        self.connections.push(listed.copied().unwrap_or(connection));
        self.add_kind(FdKind::Tcp(connection.state));
    }

    pub(super) fn add_kind(&mut self, kind: FdKind) {
        *self.kinds.entry(kind).or_default() += 1;
    }

    /// So many have paths that were not looked up: those that were are a sample.
    pub(super) const fn leave_unnamed(&mut self, count: u64) {
        self.unnamed += count;
    }

    pub(super) fn add_path(&mut self, path: &[u8]) {
        self.named += 1;
        if let Some(count) = self.paths.get_mut(path) {
            *count += 1;
        } else if self.path_bytes + path.len() <= MOST_PATHS {
            self.path_bytes += path.len();
            self.paths.insert(path.to_vec(), 1);
        } else {
            self.paths_left_out += 1;
        }
    }

    /// Where only a part of the table was read, what is known of some connections is taken for what
    /// all of them are like. Gives the scale for connections.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no process has 2^53 descriptors, and none less than 0"
    )]
    fn estimate_unread(&mut self, scale: Scale) -> Scale {
        let known = self.connections.len() as u64;
        let unread = self.kinds.get(&FdKind::TcpUnread).copied().unwrap_or(0);
        let Coverage::Part(part) = self.table.coverage else {
            return scale;
        };
        if known < LEAST_SAMPLE || unread == 0 {
            return scale;
        }
        let all = (known + unread) as f64;
        let listed = known as f64 / part;
        // So few may be chance.
        let listed = if listed > all * 0.9 { all } else { listed };
        self.kinds.remove(&FdKind::TcpUnread);
        let unlisted = (all - listed).round() as u64;
        if unlisted > 0 {
            self.kinds.insert(FdKind::TcpUnlisted, unlisted);
        }
        Scale(scale.0 * listed / known as f64)
    }

    /// The census, scaled up from those that were looked at to those that are open.
    pub(super) fn finish(
        mut self,
        open: OpenFds,
        looked_at: u64,
        mut unknown: Vec<String>,
    ) -> Census {
        let scale = Scale::new(open.number(), looked_at);
        let path_scale = Scale(scale.0 * Scale::new(self.named + self.unnamed, self.named).0);
        if self.paths_left_out > 0 {
            let left_out = path_scale.up(self.paths_left_out);
            unknown
                .push(format!("the paths of {left_out} descriptors: they were too long to keep"));
        }
        let tcp_scale = self.estimate_unread(scale);
        let mut kinds: Vec<_> = self
            .kinds
            .into_iter()
            .map(|(kind, count)| {
                let scale = if matches!(kind, FdKind::Tcp(_)) { tcp_scale } else { scale };
                (kind, scale.up(count))
            })
            .collect();
        kinds.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
        // The end of a connection takes a place in the queue like a byte until it is read
        // (net/ipv4/tcp.c tcp_recvmsg_locked, found_fin_ok, v6.18).
        let end_was_read = |connection: &&Connection| {
            connection.state == TcpState::CloseWait && connection.unread == 0
        };
        let end_was_read = self.connections.iter().filter(end_was_read).count() as u64;
        let ends = Ends::of(&self.connections, self.table);
        let distinct = |is_client: bool| {
            let is = |peer: &&Peer| matches!(peer, Peer::Client(_)) == is_client;
            ends.peers.keys().filter(is).count() as u64
        };
        Census {
            open,
            looked_at,
            kinds,
            distinct_peers: DistinctPeers { clients: distinct(true), servers: distinct(false) },
            listeners: ends.listener_shares(tcp_scale),
            local_ports: ends.port_shares(tcp_scale),
            peers: ends.peer_shares(tcp_scale),
            paths: path_shares(&self.paths, path_scale),
            silence: [TcpState::Established, TcpState::CloseWait]
                .into_iter()
                .filter_map(|state| silence(&self.connections, state))
                .collect(),
            end_was_read: tcp_scale.up(end_was_read),
            cost: Duration::ZERO,
            unknown,
        }
    }
}

/// From a sample to all.
#[derive(Clone, Copy)]
struct Scale(f64);

impl Scale {
    #[expect(clippy::cast_precision_loss, reason = "no process has 2^53 descriptors")]
    fn new(open: u64, looked_at: u64) -> Self {
        let is_sampled = looked_at > 0 && looked_at < open;
        Self(if is_sampled { open as f64 / looked_at as f64 } else { 1.0 })
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no process has 2^53 descriptors, and none less than 0"
    )]
    fn up(self, count: u64) -> u64 {
        (count as f64 * self.0).round() as u64
    }
}

/// Both ends of connections.
#[derive(Default)]
struct Ends {
    listeners: BTreeMap<SocketAddr, (bool, Group)>,
    peers: HashMap<Peer, Group>,
    local_ports: HashMap<u16, u64>,
}

impl Ends {
    fn of(connections: &[Connection], table: &Table) -> Self {
        let mut ends = Self::default();
        let mut listening = table.listening.clone();
        for connection in connections {
            listening.insert(connection);
        }
        for Connection { state, local, remote, .. } in connections {
            if *state == TcpState::Listen {
                ends.listeners.entry(*local).or_default().0 = true;
                continue;
            }
            *ends.local_ports.entry(local.port()).or_default() += 1;
            let peer = match listening.came_in_by(*local) {
                Some(listener) => {
                    ends.listeners.entry(listener).or_default().1.add(*state);
                    Peer::Client(remote.ip())
                }
                None => Peer::Server(*remote),
            };
            ends.peers.entry(peer).or_default().add(*state);
        }
        ends
    }

    fn listener_shares(&self, scale: Scale) -> Vec<ListenerShare> {
        let share = |(at, (is_held, group)): (&SocketAddr, &(bool, Group))| ListenerShare {
            address: ListenerAddress::Inet { ip: at.ip(), port: at.port(), dual_stack: None },
            is_held: *is_held,
            connections: scale.up(group.connections),
            established: scale.up(group.established),
            close_wait: scale.up(group.close_wait),
        };
        let mut shares: Vec<_> = self.listeners.iter().map(share).collect();
        shares.sort_by_key(|share| std::cmp::Reverse(share.connections));
        shares.truncate(MOST_SHOWN);
        shares
    }

    fn peer_shares(&self, scale: Scale) -> Vec<PeerShare> {
        let share = |(peer, group): (&Peer, &Group)| PeerShare {
            peer: *peer,
            connections: scale.up(group.connections),
            established: scale.up(group.established),
            close_wait: scale.up(group.close_wait),
        };
        let mut shares: Vec<_> = self.peers.iter().map(share).collect();
        shares.sort_by_key(|share| (std::cmp::Reverse(share.connections), share.peer));
        shares.truncate(MOST_SHOWN);
        shares
    }

    fn port_shares(&self, scale: Scale) -> Vec<(u16, u64)> {
        // A port of one connection is that connection's own.
        let several = self.local_ports.iter().filter(|(_, count)| **count > 1);
        let mut shares: Vec<_> = several.map(|(port, count)| (*port, scale.up(*count))).collect();
        shares.sort_by_key(|(port, count)| (std::cmp::Reverse(*count), *port));
        shares.truncate(MOST_SHOWN);
        shares
    }
}

/// What is open of one directory.
#[derive(Default)]
struct Directory<'a> {
    fds: u64,
    files: HashSet<&'a [u8]>,
    /// The one that is open most often.
    most: (u64, &'a [u8]),
}

fn path_shares(paths: &HashMap<Vec<u8>, u64>, scale: Scale) -> Vec<PathShare> {
    let mut directories: HashMap<&[u8], Directory<'_>> = HashMap::new();
    for (path, fds) in paths {
        let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let directory = directories.entry(&path[..end.max(1).min(path.len())]).or_default();
        directory.fds += fds;
        directory.files.insert(path);
        directory.most = directory.most.max((*fds, path));
    }
    let share = |(name, directory): (&[u8], &Directory<'_>)| {
        let (fds, file) = directory.most;
        let is_one_file = fds * 2 > directory.fds;
        let path = if is_one_file { file } else { name };
        PathShare {
            path: PathBuf::from(OsString::from_vec(path.to_vec())),
            fds: scale.up(if is_one_file { fds } else { directory.fds }),
            files: (!is_one_file).then_some(directory.files.len() as u64),
        }
    };
    let mut shares: Vec<_> = directories.iter().map(|(name, of)| share((name, of))).collect();
    shares.sort_by(|a, b| b.fds.cmp(&a.fds).then_with(|| a.path.cmp(&b.path)));
    shares.truncate(MOST_SHOWN);
    shares
}

fn silence(connections: &[Connection], state: TcpState) -> Option<Silence> {
    let of_state = connections.iter().filter(|connection| connection.state == state);
    let mut silent: Vec<Duration> = of_state.filter_map(|connection| connection.silent).collect();
    silent.sort_unstable();
    let median = silent.get(silent.len().saturating_sub(1) / 2)?;
    Some(Silence { state, median: *median, longest: *silent.last()? })
}

#[cfg(test)]
mod tests;
