//! The packet program is detached while there is nothing to see, and nothing is lost by it.
//!
//! Where another form sees refused clients there is nothing to rest, and the same figures hold.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    case::{Case, assert_equal, wait_and_freeze},
    clients::Clients,
    network::Network,
};
use crate::{
    Test,
    host::{CAP_SYS_ADMIN, drop_capability, mount_tracefs},
    support::{Fdtrace, Run, number},
    workload::Workload,
};

pub(crate) const TESTS: &[Test] = &[
    ("resting_a_burst_wakes_the_packet_program", a_burst_wakes_the_packet_program),
    ("resting_final_acks_refused", final_acks_refused_while_it_rests),
    ("resting_two_listeners_refuse", two_listeners_refuse_while_it_rests),
    ("resting_what_cannot_be_told_apart_is_declared", what_cannot_be_told_apart_is_declared),
    ("resting_a_flood_begins", a_flood_begins),
    ("resting_a_failed_accept_wakes_the_packet_program", a_failed_accept_wakes_the_packet_program),
    ("resting_packets_are_looked_at_always_on_request", packets_are_looked_at_always_on_request),
    ("resting_not_where_drops_cannot_be_read", resting_not_where_drops_cannot_be_read),
];

const BACKLOG: u64 = 4;
const SOON: &[&str] = &["--packets-rest", "100ms"];

/// Whether a program on the root cgroup looks at packets; `None` where none is needed.
fn looks(fdtrace: &Fdtrace, form: Option<&str>) -> Option<bool> {
    form.filter(|form| *form == "cgroup_skb")?;
    let directory = format!("/proc/{}/fdinfo", fdtrace.pid());
    let infos = fs::read_dir(directory).unwrap().filter_map(Result::ok);
    let mut texts = infos.filter_map(|info| fs::read_to_string(info.path()).ok());
    Some(texts.any(|text| text.contains("link_type:\tcgroup")))
}

/// fdtrace, once it looks at no packets.
fn resting() -> (Fdtrace, Option<String>) {
    let form = form();
    let fdtrace = Fdtrace::start(SOON);
    wait_until("it rests", || looks(&fdtrace, form.as_deref()) != Some(true));
    (fdtrace, form)
}

/// How refused clients are seen here.
fn form() -> Option<String> {
    let run = Fdtrace::start(&[]).stop();
    let form = run.summary()["probes"].as_array().unwrap().last().unwrap()["form"].as_str();
    form.map(str::to_owned)
}

#[track_caller]
fn wait_until(what: &str, is_it: impl Fn() -> bool) {
    // It does not rest while anything on the host has failed within the last minute.
    let begun = Instant::now();
    while !is_it() {
        assert!(begun.elapsed() < Duration::from_secs(90), "{what}: not within 90 seconds");
        thread::sleep(Duration::from_millis(20));
    }
}

fn a_burst_wakes_the_packet_program() {
    let server = |address| json!({ "address": address, "backlog": BACKLOG });
    let mut cases = [
        (Case::new("syncookies=0", 0, &[], &server("127.0.0.1:0")), "127.0.0.1"),
        (Case::new("syncookies=1", 1, &[], &server("127.0.0.1:0")), "127.0.0.1"),
        (Case::new("IPv6", 1, &[], &server("[::1]:0")), "[::1]"),
    ];
    let (fdtrace, form) = resting();
    let clients: Vec<_> =
        cases.iter().map(|(case, ip)| Clients::knock(&case.network, &case.at(ip), 50)).collect();
    wait_until("it is awake", || looks(&fdtrace, form.as_deref()) != Some(false));
    let mut cases: Vec<_> = cases.iter_mut().map(|(case, _)| case).collect();
    thread::sleep(Duration::from_millis(3500));
    for case in &mut cases {
        case.freeze();
        // All of them have tried again, and were seen then.
        case.refused = Some(45);
    }
    drop(clients);
    let run = fdtrace.stop();
    for case in cases {
        assert!(case.kernel("ListenOverflows") >= 90, "{}", case.label);
        assert_equal(&run, std::slice::from_ref(case));
        let fields = json!({ "listener": case.listener(), "failure": "accept_queue_full" });
        let closed = run.of_kind("episode_closed", &fields);
        assert_eq!(closed[0]["refused"]["figures"], "exact", "{}", closed[0]);
        assert_eq!(number(closed[0], "/refused/attempts"), case.kernel("ListenOverflows"));
    }
}

fn final_acks_refused_while_it_rests() {
    let mut cases = [Case::new("final ACKs", 0, &[], &json!({ "backlog": 16 }))];
    let case = &cases[0];
    let queued = Clients::knock(&case.network, &case.at("127.0.0.1"), 16);
    thread::sleep(Duration::from_millis(100));
    let segments = case.segments();
    segments.syn(0..17);
    let handshakes = segments.syn_acks();
    assert_eq!(handshakes.len(), 17);
    let (fdtrace, _) = resting();
    segments.ack(&handshakes);
    thread::sleep(Duration::from_millis(1500));
    wait_and_freeze(&mut cases, Duration::ZERO);
    drop(queued);
    cases[0].assert_kernel([
        ("ListenOverflows", 16),
        ("ListenDrops", 16),
        ("TCPReqQFullDrop", 0),
        ("TCPReqQFullDoCookies", 0),
    ]);
    let run = fdtrace.stop();
    assert_equal(&run, &cases);
    let acks = json!({ "listener": cases[0].listener(), "door": "ack" });
    assert_eq!(run.count(&acks), 16);
}

/// A namespace with two listeners, and what each of their sockets says of its drops.
struct Two {
    network: Network,
    servers: [Workload; 2],
}

impl Two {
    fn new(sysctls: &[(&str, u32)], backlogs: [u64; 2]) -> Self {
        let network = Network::new(sysctls);
        let server = |backlog| {
            let then = ["drops"];
            network.server(&json!({ "backlog": backlog, "then": then }))
        };
        let servers = backlogs.map(server);
        Self { network, servers }
    }

    fn at(&self, server: usize) -> String {
        format!("127.0.0.1:{}", self.servers[server].port())
    }

    fn count(&self, run: &Run, server: usize) -> u64 {
        let port = self.servers[server].port();
        let listener = json!({ "port": port, "netns": self.network.number() });
        run.count(&json!({ "listener": listener, "failure": "accept_queue_full" }))
    }

    fn drops(&mut self, server: usize) -> u64 {
        self.servers[server].go();
        self.servers[server].done()["drops"].as_u64().unwrap()
    }

    fn unattributed(&self, run: &Run) -> i64 {
        let namespaces = run.summary()["kernel"]["namespaces"].as_array().unwrap();
        let number = self.network.number();
        let namespace = namespaces.iter().find(|one| one["netns"] == number).unwrap();
        namespace["ListenOverflows"]["unattributed"].as_i64().unwrap()
    }
}

fn two_listeners_refuse_while_it_rests() {
    let mut two = Two::new(&[("ipv4/tcp_syncookies", 0)], [BACKLOG, BACKLOG]);
    let (fdtrace, _) = resting();
    let clients = [20, 30].map(|count| {
        let server = usize::from(count == 30);
        Clients::knock(&two.network, &two.at(server), count)
    });
    thread::sleep(Duration::from_millis(2500));
    let kernel = two.network.freeze();
    drop(clients);
    let run = fdtrace.stop();
    let overflows = kernel.of("ListenOverflows");
    let counts = [0, 1].map(|server| two.count(&run, server));
    let drops = [0, 1].map(|server| two.drops(server));
    assert_eq!(counts, drops);
    assert_eq!((counts.iter().sum::<u64>(), two.unattributed(&run)), (overflows, 0));
    assert!(overflows >= 80, "only {overflows}");
}

/// One refuses final ACKs, the other SYNs: the sum is known, not whose is what.
fn what_cannot_be_told_apart_is_declared() {
    let mut two = Two::new(&[("ipv4/tcp_syncookies", 0)], [16, BACKLOG]);
    let queued = Clients::knock(&two.network, &two.at(0), 16);
    let full = Clients::knock(&two.network, &two.at(1), 5);
    thread::sleep(Duration::from_millis(100));
    let deaf = Clients::knock_deaf(&two.network, &two.at(0), 17);
    let (fdtrace, _) = resting();
    let refused = Clients::knock(&two.network, &two.at(1), 20);
    deaf.listen();
    deaf.talk();
    thread::sleep(Duration::from_millis(1500));
    let kernel = two.network.freeze();
    drop((queued, full, refused, deaf));
    let run = fdtrace.stop();
    let overflows = i64::try_from(kernel.of("ListenOverflows")).unwrap();
    let counts = [0, 1].map(|server| two.count(&run, server));
    let drops = [0, 1].map(|server| two.drops(server));
    println!("  kernel {overflows}, sk_drops {drops:?}; fdtrace {counts:?}");
    let counted = i64::try_from(counts.iter().sum::<u64>()).unwrap();
    assert_eq!(counted + two.unattributed(&run), overflows);
    // A final ACK counts twice, a SYN once.
    assert!(counts[1] <= drops[1] && counts[0] <= drops[0], "{counts:?} of {drops:?}");
    assert!(counts[1] > 0, "{counts:?} of {drops:?}");
}

/// The program is attached, and the counters are read, while they move.
fn a_flood_begins() {
    let mut case = Case::new("flood", 1, &[], &json!({ "backlog": BACKLOG }));
    let waiting = Clients::knock(&case.network, &case.at("127.0.0.1"), 5);
    let flood = case.flood();
    let (fdtrace, form) = resting();
    let end = Instant::now() + Duration::from_millis(2500);
    let mut clients = 100..;
    while Instant::now() < end {
        flood.syn(clients.by_ref().take(100));
    }
    assert_ne!(looks(&fdtrace, form.as_deref()), Some(false));
    case.freeze();
    drop(waiting);
    let run = fdtrace.stop();
    let kernel = case.kernel("ListenOverflows");
    let count = run.count(&json!({ "listener": case.listener() }));
    println!("  kernel {kernel}; fdtrace {count}");
    assert!(count <= kernel && kernel - count <= kernel / 1000, "{count} of {kernel}");
    let number = case.network.number();
    let namespaces = run.summary()["kernel"]["namespaces"].as_array().unwrap();
    let namespace = namespaces.iter().find(|one| one["netns"] == number).unwrap();
    assert_eq!(namespace["ListenOverflows"]["unattributed"].as_u64(), Some(kernel - count));
}

/// Long before a queue is full: nobody takes connections out of it.
fn a_failed_accept_wakes_the_packet_program() {
    let (fdtrace, form) = resting();
    let mut workload = Workload::start("failures=3");
    workload.go();
    wait_until("it is awake", || looks(&fdtrace, form.as_deref()) != Some(false));
    workload.end();
    assert_eq!(fdtrace.stop().count(&json!({ "failure": "EMFILE" })), 3);
}

fn packets_are_looked_at_always_on_request() {
    let form = form();
    let fdtrace = Fdtrace::start(&[SOON, &["--packets", "always"]].concat());
    thread::sleep(Duration::from_secs(3));
    assert_ne!(looks(&fdtrace, form.as_deref()), Some(false));
    fdtrace.stop();
}

/// Then nobody could tell who refused what while it rested.
fn resting_not_where_drops_cannot_be_read() {
    let form = form();
    if form.as_deref() != Some("cgroup_skb") {
        println!("  this host sees refused clients without looking at packets");
        return;
    }
    // A namespace that may not be entered, with somebody in it.
    let case = Case::new("closed", 1, &[], &json!({ "backlog": BACKLOG }));
    let without_cap_sys_admin = || mount_tracefs().and_then(|()| drop_capability(CAP_SYS_ADMIN));
    let fdtrace = Fdtrace::start_changed(SOON, without_cap_sys_admin);
    thread::sleep(Duration::from_secs(3));
    assert_ne!(looks(&fdtrace, form.as_deref()), Some(false));
    drop(case);
    fdtrace.stop();
}
