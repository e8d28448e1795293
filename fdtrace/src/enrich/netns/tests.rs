use std::{
    fs,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    os::{fd::AsFd, unix::fs::symlink},
    process::{Child, Command, Stdio},
    thread,
};

use nix::sys::socket::{Backlog, listen};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use super::*;

/// Ticks of 10 ms after boot at which fdtrace starts in these tests.
const START: u64 = 1000;

/// A `/proc` of made-up processes; pid 1 is fdtrace too, and in namespace 100.
struct Fixture(TempDir);

impl Fixture {
    fn new() -> Self {
        let fixture = Self(TempDir::new().unwrap());
        fixture.process(1, 100, 1, [5, 6, 7, 8]);
        symlink("1", fixture.0.path().join("self")).unwrap();
        fixture
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn process(&self, pid: u32, netns: u32, ticks: u64, counters: [u64; 4]) {
        let stat = format!("{pid} (x) S 1 1 1 0 -1 4 2 0 0 0 1 7 0 0 20 0 1 0 {ticks} 9");
        self.write(&format!("{pid}/stat"), &stat);
        self.write(&format!("{pid}/ns/x"), "");
        symlink(format!("net:[{netns}]"), self.0.path().join(format!("{pid}/ns/net"))).unwrap();
        self.count(pid, counters);
    }

    fn count(&self, pid: u32, [overflows, drops, queue_drop, cookies]: [u64; 4]) {
        let text = format!(
            "TcpExt: X ListenOverflows ListenDrops TCPReqQFullDoCookies TCPReqQFullDrop\n\
             TcpExt: 99 {overflows} {drops} {cookies} {queue_drop}\nIpExt: Y\nIpExt: 1\n"
        );
        self.write(&format!("{pid}/net/netstat"), &text);
    }

    fn end(&self, pid: u32) {
        fs::remove_dir_all(self.0.path().join(pid.to_string())).unwrap();
    }

    fn mount(&self, netns: u32) {
        let text = format!(
            "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
             43 42 0:4 net:[{netns}] /run/netns/tt rw shared:2 - nsfs nsfs rw\n\
             44 42 0:4 mnt:[7] /run/x rw shared:2 - nsfs nsfs rw\n\n"
        );
        self.write("1/mountinfo", &text);
    }

    fn namespaces(&self) -> Namespaces {
        Namespaces::new(self.0.path().to_owned())
    }
}

fn deltas(namespaces: &mut Namespaces) -> Vec<(u32, [u64; 4])> {
    let counters = |delta: NetnsDelta| {
        let NetnsDelta { netns, .. } = delta;
        let counters = [
            delta.listen_overflows,
            delta.listen_drops,
            delta.req_q_full_drop,
            delta.req_q_full_do_cookies,
        ];
        (netns, counters.map(Option::unwrap))
    };
    namespaces.deltas().into_iter().map(counters).collect()
}

#[test]
fn growth_since_the_start() {
    let fixture = Fixture::new();
    fixture.process(20, 200, 10, [1, 1, 1, 1]);
    fixture.process(21, 200, 11, [1, 1, 1, 1]);
    let mut namespaces = fixture.namespaces();
    assert_eq!(namespaces.own(), Some(100));
    assert_eq!(deltas(&mut namespaces), []);
    namespaces.discover();
    assert_eq!(deltas(&mut namespaces), [(100, [0; 4]), (200, [0; 4])]);
    fixture.count(1, [6, 8, 10, 12]);
    // Whichever of the two it was opened by.
    fixture.count(20, [11, 1, 1, 1]);
    fixture.count(21, [11, 1, 1, 1]);
    let grown = [(100, [1, 2, 3, 4]), (200, [10, 0, 0, 0])];
    assert_eq!(deltas(&mut namespaces), grown);
    assert_eq!(deltas(&mut namespaces), grown, "since the start, not since the last time");
    namespaces.discover();
    assert_eq!(deltas(&mut namespaces), grown);
    namespaces.begin();
    assert_eq!(deltas(&mut namespaces), [(100, [0; 4]), (200, [0; 4])]);
    fixture.count(1, [7, 10, 13, 16]);
    let grown = [(100, [1, 2, 3, 4]), (200, [0; 4])];
    assert_eq!(deltas(&mut namespaces), grown);
    fixture.write("1/net/netstat", "?");
    assert_eq!(deltas(&mut namespaces), grown, "unreadable keeps its last value");
    assert_eq!(namespaces.skipped(), 0);
}

#[test]
fn where_a_new_one_begins() {
    let fixture = Fixture::new();
    fixture.mount(400);
    let mut namespaces = fixture.namespaces();
    namespaces.discover();
    fixture.process(20, 200, START + 1, [3; 4]);
    fixture.process(21, 200, START + 2, [3; 4]);
    fixture.process(30, 300, START - 1, [3; 4]);
    fixture.process(31, 300, START + 2, [3; 4]);
    fixture.process(40, 400, START + 1, [3; 4]);
    namespaces.discover();
    let expected = [
        (100, [0; 4]),
        (200, [3; 4]),
        (300, [3; 4]), // an old process made it, but after we looked
        (400, [0; 4]), // it was there before
    ];
    assert_eq!(deltas(&mut namespaces), expected);
}

#[test]
fn what_has_ended_is_let_go_and_not_forgotten() {
    let fixture = Fixture::new();
    let mut namespaces = fixture.namespaces();
    fixture.process(20, 200, 10, [3; 4]);
    fixture.process(30, 300, 10, [3; 4]);
    fixture.process(40, 400, 10, [3; 4]);
    namespaces.discover();
    fixture.count(20, [5; 4]);
    fixture.count(40, [4; 4]);
    for pid in [20, 30, 40] {
        fixture.end(pid);
    }
    fixture.mount(400);
    namespaces.discover();
    assert_eq!(namespaces.watched.keys().copied().collect::<Vec<_>>(), [100, 400]);
    let expected = [(100, [0; 4]), (200, [2; 4]), (400, [1; 4])];
    assert_eq!(deltas(&mut namespaces), expected);

    // The kernel gives the number again at once.
    fixture.process(21, 200, START + 1, [7; 4]);
    namespaces.discover();
    let expected = [(100, [0; 4]), (200, [9; 4]), (400, [1; 4])];
    assert_eq!(deltas(&mut namespaces), expected);
    fixture.end(21);
    fixture.write("1/mountinfo", "");
    namespaces.discover();
    assert_eq!(deltas(&mut namespaces), expected);
    assert_eq!(namespaces.watched.len(), 1);
}

#[test]
fn kernels_without_a_counter() {
    let fixture = Fixture::new();
    fixture.write("1/net/netstat", "TcpExt: ListenDrops\nTcpExt: 4\n");
    let mut namespaces = fixture.namespaces();
    namespaces.discover();
    let delta = namespaces.deltas()[0];
    assert_eq!((delta.listen_drops, delta.listen_overflows), (Some(0), None));
}

#[test]
fn bounded_and_skipped_ones_counted() {
    let fixture = Fixture::new();
    let most = u32::try_from(most_watched()).unwrap();
    // Numbers below fdtrace's own, which comes first all the same.
    for index in 0..most + 9 {
        fixture.process(1000 + index, 1_000_000 + index, 10, [0; 4]);
    }
    let mut namespaces = fixture.namespaces();
    namespaces.discover();
    namespaces.discover();
    assert_eq!(namespaces.watched.len(), usize::try_from(most).unwrap());
    assert!(namespaces.watched.contains_key(&100));
    assert_eq!(namespaces.skipped(), 10);

    for netns in 0..3000 {
        namespaces.ended.insert(netns, Counters::ZERO);
    }
    let watched = namespaces.watched.get_mut(&100).unwrap();
    watched.baseline = Counters::ZERO;
    namespaces.let_go(100);
    assert_eq!(namespaces.skipped(), 10, "that number has a sum already");
    let watched = namespaces.watched.get_mut(&1_000_000).unwrap();
    watched.baseline = Counters::ZERO;
    fixture.count(1000, [1; 4]);
    namespaces.let_go(1_000_000);
    assert_eq!(namespaces.skipped(), 11);
}

#[test]
fn a_flood_of_unknown_namespaces_discovers_once() {
    let fixture = Fixture::new();
    let mut namespaces = fixture.namespaces();
    namespaces.meet(100);
    assert_eq!(namespaces.watched.len(), 1);
    fixture.process(20, 200, 10, [3; 4]);
    // As after a discovery that has just taken a minute.
    namespaces.last = Some((Instant::now(), Duration::from_secs(60)));
    for netns in 0..1000 {
        namespaces.meet(netns);
        namespaces.refresh();
    }
    assert_eq!(namespaces.watched.len(), 1);
    namespaces.last = None;
    namespaces.meet(100);
    assert_eq!(namespaces.watched.len(), 1, "known");
    namespaces.meet(200);
    assert_eq!(namespaces.watched.len(), 2);
}

#[test]
fn settings() {
    let fixture = Fixture::new();
    fixture.process(20, 200, 10, [3; 4]);
    fixture.write("sys/net/core/somaxconn", "4096\n");
    let mut namespaces = fixture.namespaces();
    let own = NetnsFacts { somaxconn: Some(4096), tcp_syncookies: None };
    assert_eq!(namespaces.facts(100), own, "also before the first discovery");
    namespaces.discover();
    fixture.write("sys/net/ipv4/tcp_syncookies", "2\n");
    let own = NetnsFacts { tcp_syncookies: Some(2), ..own };
    assert_eq!(namespaces.facts(100), own);
    fixture.write("sys/net/core/somaxconn", "?\n");
    assert_eq!(namespaces.facts(100), own, "remembered");
    namespaces.watched.get_mut(&100).unwrap().facts = None;
    assert_eq!(namespaces.facts(100).somaxconn, None);
    // No namespace to enter, and none at all.
    assert_eq!(namespaces.facts(200), NetnsFacts::default());
    assert_eq!(namespaces.facts(300), NetnsFacts::default());
}

fn here() -> Namespaces {
    Namespaces::new(PathBuf::from("/proc"))
}

#[test]
fn the_running_kernel() {
    let mut namespaces = here();
    let own = namespaces.own().unwrap();
    namespaces.discover();
    let delta = *namespaces.deltas().iter().find(|delta| delta.netns == own).unwrap();
    assert!(delta.listen_overflows.unwrap() <= delta.listen_drops.unwrap());
    assert!(delta.req_q_full_drop.is_some() && delta.req_q_full_do_cookies.is_some());
    let text = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    assert_eq!(namespaces.facts(own).somaxconn, Some(text.trim().parse().unwrap()));
}

/// A process in a network namespace of its own, with somaxconn 77.
struct Elsewhere(Child);

impl Elsewhere {
    /// `None` where this needs root, or a program that is not there.
    fn new() -> Option<Self> {
        let script = "ip link set lo up && echo 77 >/proc/sys/net/core/somaxconn && echo ready && \
                      exec sleep 60";
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
        let elsewhere = Self(child);
        (line == "ready\n").then_some(elsewhere)
    }

    fn netns(&self) -> u32 {
        look::netns_of("/proc".as_ref(), &self.0.id().to_string()).unwrap()
    }

    fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes the kernel refuse a client in the namespace of that process.
fn overflow(member: u32) {
    let link = fs::File::open(format!("/proc/{member}/ns/net")).unwrap();
    let refuse = move || {
        move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        // A queue of limit 0 takes one.
        let accepted = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
        let refused = TcpStream::connect_timeout(&address, Duration::from_millis(100));
        assert!(refused.is_err());
        drop(accepted);
    };
    thread::spawn(refuse).join().unwrap();
}

#[test]
fn a_namespace_of_its_own() {
    let Some(mut elsewhere) = Elsewhere::new() else {
        println!("skipped: needs root, unshare(1) and ip(8)");
        return;
    };
    let netns = elsewhere.netns();
    let mut namespaces = here();
    let own = namespaces.own().unwrap();
    assert_ne!(netns, own);
    namespaces.discover();
    let overflows = |namespaces: &mut Namespaces| {
        let deltas = namespaces.deltas();
        deltas.iter().find(|delta| delta.netns == netns).and_then(|delta| delta.listen_overflows)
    };
    assert_eq!(overflows(&mut namespaces), Some(0));
    overflow(elsewhere.0.id());
    assert_eq!(overflows(&mut namespaces), Some(1));

    assert_eq!(namespaces.facts(netns).somaxconn, Some(77));
    assert_ne!(namespaces.facts(own).somaxconn, Some(77), "this thread stayed where it was");

    elsewhere.end();
    assert_eq!(overflows(&mut namespaces), Some(1), "the open file stays that namespace's");
    namespaces.discover();
    assert!(!namespaces.watched.contains_key(&netns), "and is not kept open without need");
    assert_eq!(overflows(&mut namespaces), Some(1));
    assert_eq!(namespaces.facts(netns), NetnsFacts::default());
}
