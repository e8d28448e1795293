//! fdtrace is killed: nothing of it stays in the kernel, and the next one begins anew.

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
};

use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    Test,
    support::{Daemon, Fdtrace, eventually},
    workload::Workload,
};

pub(super) const TESTS: &[Test] = &[
    ("killed_it_leaves_nothing_behind", leaves_nothing_behind),
    ("killed_the_daemon_starts_again_with_what_it_left", starts_again),
];

/// Ids of all that the kernel has of BPF, whoever made it.
struct Loaded {
    programs: BTreeSet<u32>,
    links: BTreeSet<u32>,
    maps: BTreeSet<u32>,
}

impl Loaded {
    fn now() -> Self {
        Self {
            programs: loaded_programs().filter_map(Result::ok).map(|info| info.id()).collect(),
            links: loaded_links().filter_map(Result::ok).map(|info| info.id()).collect(),
            maps: loaded_maps().filter_map(Result::ok).map(|info| info.id()).collect(),
        }
    }

    /// What is there now and was not before.
    fn since(before: &Self) -> Self {
        let now = Self::now();
        Self {
            programs: &now.programs - &before.programs,
            links: &now.links - &before.links,
            maps: &now.maps - &before.maps,
        }
    }

    #[track_caller]
    fn assert_some(&self) {
        let counts = [self.programs.len(), self.links.len(), self.maps.len()];
        println!("  programs, links, maps: {counts:?}");
        assert!(counts.iter().all(|count| *count > 3), "{counts:?}: this test tests nothing");
    }

    /// Waits until the kernel has none of that any more; it frees them a little after they are closed.
    #[track_caller]
    fn assert_gone(&self) {
        eventually("no program, link or map is left", || {
            let now = Self::now();
            now.programs.is_disjoint(&self.programs)
                && now.links.is_disjoint(&self.links)
                && now.maps.is_disjoint(&self.maps)
        });
    }
}

fn leaves_nothing_behind() {
    let before = Loaded::now();
    let fdtrace = Fdtrace::start(&[]);
    let its = Loaded::since(&before);
    its.assert_some();
    let mut workload = Workload::start("failures=200000");
    workload.go();
    let pid = Pid::from_raw(i32::try_from(fdtrace.pid()).unwrap());
    kill(pid, Signal::SIGKILL).unwrap();
    drop(fdtrace);
    workload.done();
    its.assert_gone();
    // The next one begins anew.
    let fdtrace = Fdtrace::start(&[]);
    let mut workload = Workload::start("failures=1009");
    assert_eq!(workload.fail(), 1009);
    assert_eq!(fdtrace.stop().count(&json!({ "process": { "pid": workload.pid() } })), 1009);
}

/// Its sockets and its file are there, and the file's last line is cut.
fn starts_again() {
    let before = Loaded::now();
    let mut daemon = Daemon::start(
        "[output]\nstdout = \"none\"\njournal = \"never\"\njson_file = \"DIR/out.jsonl\"\n\
         [metrics]\nlisten = \"127.0.0.1:PORT\"\nsocket = \"DIR/metrics.sock\"\n",
    );
    let its = Loaded::since(&before);
    its.assert_some();
    let mut workload = Workload::start("failures=200000 comm=killed-before");
    workload.go();
    daemon.kill();
    workload.done();
    its.assert_gone();
    let (file, socket) = (daemon.path("out.jsonl"), daemon.path("metrics.sock"));
    assert!(socket.exists(), "killed, it could not remove its socket");
    let mut opened = OpenOptions::new().read(true).write(true).open(&file).unwrap();
    let length = opened.metadata().unwrap().len();
    assert!(length > 100, "{length}");
    opened.set_len(length - 10).unwrap();

    daemon.start_again();
    let mut workload = Workload::start("failures=1009 comm=killed-after");
    assert_eq!(workload.fail(), 1009);
    let counted = |comm: &str| {
        let comm = format!("process=\"{comm}\"");
        daemon.metric("fdtrace_failures_total", &[&comm]).to_string()
    };
    assert_eq!((counted("killed-after"), counted("killed-before")), ("1009".into(), "0".into()));
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    eventually("the episode is in the file", || {
        std::fs::read_to_string(&file).unwrap().contains("\"comm\":\"killed-after\"")
    });
    let ended = daemon.stop();
    assert!(ended.status.success(), "{}", ended.stderr);
    // Each line is whole but that one, and the first after it is the new start.
    let mut text = String::new();
    opened.read_to_string(&mut text).unwrap();
    let lines: Vec<_> = text.lines().map(|line| serde_json::from_str::<Value>(line).ok()).collect();
    let cut: Vec<_> = (0..lines.len()).filter(|place| lines[*place].is_none()).collect();
    assert_eq!(cut.len(), 1, "{text}");
    let after = lines[cut[0] + 1].as_ref().unwrap();
    assert_eq!(after["kind"], "started", "{after}");
    // And that one leaves nothing either.
    let left = Loaded::since(&before);
    left.assert_gone();
}
