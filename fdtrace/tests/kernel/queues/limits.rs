//! fdtrace's own descriptors run out while it looks at no packets, and then clients are refused.
//!
//! Only where refused clients are seen by a program on packets: other forms never rest.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{case::Case, clients::Clients};
use crate::{
    Test,
    support::{Daemon, eventually},
};

pub(crate) const TESTS: &[Test] = &[
    ("packets_are_looked_at_again_at_the_own_limit", looked_at_again_at_the_own_limit),
    ("packets_that_cannot_be_looked_at_are_told", packets_that_cannot_be_looked_at_are_told),
];

const QUIET: &str = "[output]\nstdout = \"none\"\njournal = \"never\"\n\
                     [metrics]\nlisten = \"127.0.0.1:PORT\"\n";

fn server() -> Case {
    Case::new("limit", 0, &[], &json!({ "address": "127.0.0.1:0", "backlog": 4 }))
}

/// A daemon that looks at no packets; `None` where it always sees refused clients.
fn resting() -> Option<Daemon> {
    let daemon = Daemon::start(QUIET);
    if daemon.metric("fdtrace_probe_up", &["probe=\"syn\"", "form=\"cgroup_skb\""]) < 0.5 {
        println!("  this host sees refused clients without looking at packets");
        return None;
    }
    let begun = Instant::now();
    // Whatever failed on this host within the last minute keeps it awake.
    while looks(&daemon) {
        assert!(begun.elapsed() < Duration::from_secs(120), "it does not rest");
        thread::sleep(Duration::from_millis(100));
    }
    Some(daemon)
}

fn descriptors(daemon: &Daemon, of: &str) -> Vec<u64> {
    let entries = fs::read_dir(format!("/proc/{}/{of}", daemon.pid())).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// Whether a program on the root cgroup looks at packets.
fn looks(daemon: &Daemon) -> bool {
    let info = |fd| fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", daemon.pid()));
    let infos = descriptors(daemon, "fdinfo").into_iter().filter_map(|fd| info(fd).ok());
    infos.into_iter().any(|text| text.contains("link_type:\tcgroup"))
}

fn refused(daemon: &Daemon, case: &Case) -> String {
    let listener = format!("listener=\"127.0.0.1:{}\"", case.port());
    let labels = [listener.as_str(), "failure=\"accept_queue_full\""];
    daemon.metric("fdtrace_failures_total", &labels).to_string()
}

/// What is kept for that is enough to attach the program, and to find out whose clients they were.
fn looked_at_again_at_the_own_limit() {
    let mut case = server();
    let Some(daemon) = resting() else { return };
    let link = |fd: &u64| fs::read_link(format!("/proc/{}/fd/{fd}", daemon.pid())).unwrap();
    let spare: Vec<_> = descriptors(&daemon, "fd");
    let spare: Vec<_> = spare.into_iter().filter(|fd| link(fd) == Path::new("/")).collect();
    assert_eq!(spare.len(), 8, "{spare:?}");
    let limit = spare.into_iter().max().unwrap() + 1;
    // What is free below is taken by those who ask nothing.
    let mut silent = Vec::new();
    let is_free = |fd| !descriptors(&daemon, "fd").contains(&fd);
    while (0..limit).any(is_free) {
        assert!(silent.len() < 16, "{:?}", descriptors(&daemon, "fd"));
        silent.push(daemon.connect());
        thread::sleep(Duration::from_millis(50));
    }
    let before = daemon.limit_descriptors(limit);
    let clients = Clients::knock(&case.network, &case.at("127.0.0.1"), 50);
    eventually("packets are looked at", || looks(&daemon));
    thread::sleep(Duration::from_millis(2500));
    case.freeze();
    drop(clients);
    daemon.limit_descriptors(before);
    // By then an owner is as well known as can be.
    thread::sleep(Duration::from_secs(6));
    assert!(case.kernel("ListenOverflows") >= 90);
    assert_eq!(refused(&daemon, &case), case.kernel("ListenOverflows").to_string());
    assert_eq!(daemon.get("/healthz"), (200, "ok\n".to_owned()));
    // Much else cannot be looked at then, as it says.
    let stderr = daemon.stderr();
    assert!(!stderr.contains("packets cannot be looked at"), "{stderr}");
    assert!(daemon.stop().status.success());
}

/// Not even those that were kept are left.
fn packets_that_cannot_be_looked_at_are_told() {
    const UP: [&str; 1] = ["probe=\"syn\""];
    let mut case = server();
    let Some(daemon) = resting() else { return };
    assert!((daemon.metric("fdtrace_probe_up", &UP) - 1.0).abs() < 0.1);
    // Later it cannot accept any.
    let (health, metrics) = (daemon.connect(), daemon.connect());
    thread::sleep(Duration::from_millis(200));
    let before = daemon.limit_descriptors(4);
    let clients = Clients::knock(&case.network, &case.at("127.0.0.1"), 50);
    thread::sleep(Duration::from_millis(2500));
    let health = health.ask("GET /healthz HTTP/1.1\r\n\r\n");
    assert!(health.starts_with("HTTP/1.1 503 "), "{health}");
    for probe in ["syn", "ack"] {
        assert!(health.contains(&format!("the probe `{probe}` is not attached\n")), "{health}");
    }
    let metrics = metrics.ask("GET /metrics HTTP/1.1\r\n\r\n");
    for probe in ["syn", "ack"] {
        let down = format!("fdtrace_probe_up{{probe=\"{probe}\",form=\"none\"}} 0\n");
        assert!(metrics.contains(&down), "{metrics}");
    }
    assert!(!looks(&daemon));
    daemon.limit_descriptors(before);
    eventually("it is healthy again", || daemon.get("/healthz").0 == 200);
    assert!(looks(&daemon));
    assert!((daemon.metric("fdtrace_probe_up", &UP) - 1.0).abs() < 0.1);
    case.freeze();
    drop(clients);
    thread::sleep(Duration::from_secs(6));
    assert!(case.kernel("ListenOverflows") >= 90);
    assert_eq!(refused(&daemon, &case), case.kernel("ListenOverflows").to_string());
    let stderr = daemon.stderr();
    assert_eq!(stderr.matches("packets cannot be looked at").count(), 1, "{stderr}");
    assert_eq!(stderr.matches("packets are looked at again").count(), 1, "{stderr}");
    assert!(daemon.stop().status.success());
}
