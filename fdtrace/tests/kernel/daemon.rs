//! `fdtrace daemon`: figures that are right whatever happens to files, settings and descriptors.

use std::{
    fs, io,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
    thread,
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::Value;

use crate::{
    Test,
    support::{Daemon, binary, eventually, free_port},
    workload::Workload,
};

mod privileges;

pub(crate) const TESTS: &[&[Test]] = &[OWN, privileges::TESTS];

const OWN: &[Test] = &[
    ("metrics_are_what_failed", metrics_are_what_failed),
    ("a_reload_takes_no_count_back", a_reload_takes_no_count_back),
    ("a_rotated_file_is_followed", a_rotated_file_is_followed),
    ("a_full_disk_costs_no_count", a_full_disk_costs_no_count),
    ("systemd_and_the_journal_are_told", systemd_and_the_journal_are_told),
    ("metrics_without_descriptors", metrics_without_descriptors),
    ("a_wrong_configuration_is_2_and_a_taken_port_1", wrong_configurations),
];

const METRICS: &str = "[metrics]\nlisten = \"127.0.0.1:PORT\"\n";

fn quiet(more: &str) -> String {
    format!("[output]\nstdout = \"none\"\njournal = \"never\"\n{more}\n{METRICS}")
}

fn metrics_are_what_failed() {
    let socket = "socket = \"DIR/metrics.sock\"\n";
    let daemon = Daemon::start(&(quiet("") + socket));
    let mut workload = Workload::start("failures=67 comm=daemon-one");
    let labels = ["process=\"daemon-one\"", "failure=\"EMFILE\"", "door=\"accept4\""];
    assert_eq!(workload.fail(), 67);
    assert!((daemon.metric("fdtrace_failures_total", &labels) - 67.0).abs() < 0.1);
    let port = format!("listener=\"127.0.0.1:{}\"", workload.port());
    assert!((daemon.metric("fdtrace_episodes", &[&port]) - 1.0).abs() < 0.1);
    assert!(daemon.metric("fdtrace_episodes_opened_total", &["EMFILE"]) > 0.9);
    assert!((daemon.metric("fdtrace_probe_up", &["probe=\"accept\""]) - 1.0).abs() < 0.1);
    assert!(daemon.metric("fdtrace_resident_memory_bytes", &[]) > 1e6);
    assert!(daemon.metric("fdtrace_open_fds", &[]) > 9.0);
    assert!(daemon.metric("fdtrace_cpu_seconds_total", &[]) > 0.0);
    assert!(daemon.metric("fdtrace_lost_total", &["kind=\"failures\""]) < 0.1);
    assert_eq!(daemon.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(daemon.get("/").0, 404);
    let head = daemon.ask("HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.contains("\r\nContent-Type: application/openmetrics-text; version=1.0.0"));
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    assert!(daemon.ask("DELETE /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    let mut stream = std::os::unix::net::UnixStream::connect(daemon.path("metrics.sock")).unwrap();
    io::Write::write_all(&mut stream, b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    let ended = daemon.stop();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stdout.is_empty() && ended.stderr.is_empty(), "{}", ended.stderr);
}

fn a_reload_takes_no_count_back() {
    let daemon = Daemon::start(&quiet(""));
    let mut one = Workload::start("failures=67 comm=daemon-one then=fail-again");
    let mut two = Workload::start("failures=31 comm=daemon-two");
    let failures = |process: &str| {
        let process = format!("process=\"{process}\"");
        daemon.metric("fdtrace_failures_total", &[&process]).to_string()
    };
    one.fail();
    assert_eq!(failures("daemon-one"), "67");
    daemon.reload(&(quiet("") + "[trace]\ncomms = [\"daemon-two\"]\nfds = true\n"));
    one.fail();
    two.fail();
    assert_eq!((failures("daemon-one"), failures("daemon-two")), ("67".into(), "31".into()));
    assert!(daemon.stderr().contains("trace.fds has changed, which takes a restart"));
    // A file that is wrong changes nothing.
    daemon.reload("[trace]\ncomms = \"daemon-one\"\n");
    assert_eq!((failures("daemon-one"), failures("daemon-two")), ("67".into(), "31".into()));
    let stderr = daemon.stderr();
    assert!(stderr.contains("the configuration stays as it was: "), "{stderr}");
    assert!(stderr.contains("fdtrace.toml:2: invalid type"), "{stderr}");
    // And what was counted meanwhile is there when it is asked for.
    daemon.reload(&quiet(""));
    assert_eq!(failures("daemon-one"), "134");
    assert!(daemon.stop().status.success());
}

fn a_rotated_file_is_followed() {
    let daemon = Daemon::start(&quiet("json_file = \"DIR/out.jsonl\""));
    let (file, old) = (daemon.path("out.jsonl"), daemon.path("out.jsonl.1"));
    fs::rename(&file, &old).unwrap();
    eventually("the file is there again", || file.exists());
    let mut workload = Workload::start("failures=5 comm=daemon-rotated");
    workload.fail();
    let comm = "\"comm\":\"daemon-rotated\"".to_owned();
    eventually("an episode", || fs::read_to_string(&file).unwrap().contains(&comm));
    let before = fs::read_to_string(&old).unwrap();
    assert!(before.contains("\"started\"") && !before.contains(&comm), "{before}");
    // By SIGHUP at once.
    fs::rename(&file, &old).unwrap();
    daemon.reload(&quiet("json_file = \"DIR/out.jsonl\""));
    assert!(file.exists());
    let lines = fs::read_to_string(&old).unwrap();
    assert!(lines.contains(&comm) && lines.ends_with('\n'), "{lines}");
    assert!(daemon.stop().status.success());
}

fn a_full_disk_costs_no_count() {
    const BYTES: usize = 64 << 10;
    let config = quiet("json_file = \"DIR/small/out.jsonl\"");
    let daemon = Daemon::start_changed(&config, |dir| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let small = dir.join("small");
        fs::create_dir(&small)?;
        let size = format!("size={BYTES}");
        Ok(mount(Some("tmpfs"), &small, Some("tmpfs"), MsFlags::empty(), Some(&*size))?)
    });
    // The mount is the daemon's alone.
    let outside = daemon.path("small");
    let root = format!("/proc/{}/root{}", daemon.pid(), outside.display());
    let (filler, file) = (Path::new(&root).join("filler"), Path::new(&root).join("out.jsonl"));
    let full = fs::write(&filler, vec![0; 2 * BYTES]);
    assert_eq!(full.unwrap_err().raw_os_error(), Some(nix::libc::ENOSPC));
    let free = BYTES - usize::try_from(fs::metadata(&filler).unwrap().len()).unwrap();
    // Until there is not a byte left.
    let mut workloads = Vec::new();
    let mut failed = 0;
    while daemon.get("/healthz").0 == 200 {
        assert!(workloads.len() < 20, "{free} bytes were free");
        let mut workload = Workload::start("failures=41 comm=daemon-full");
        failed += workload.fail();
        workloads.push(workload);
        thread::sleep(Duration::from_millis(100));
    }
    let (status, why) = daemon.get("/healthz");
    assert_eq!(status, 503);
    assert!(why.contains("json_file cannot be written: No space left on device"), "{why}");
    let mut workload = Workload::start("failures=43 comm=daemon-full");
    failed += workload.fail();
    let count = daemon.metric("fdtrace_failures_total", &["process=\"daemon-full\""]);
    assert_eq!(count.to_string(), failed.to_string());
    fs::remove_file(&filler).unwrap();
    eventually("it is healthy again", || daemon.get("/healthz").0 == 200);
    let stderr = daemon.stderr();
    assert_eq!(stderr.matches("json_file: cannot be written").count(), 1, "{stderr}");
    // What could not be written has waited: every line is there, and whole.
    let lines = fs::read_to_string(&file).unwrap();
    let opened = lines.lines().filter(|line| {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        line["kind"] == "episode_opened" && line["process"]["comm"] == "daemon-full"
    });
    assert_eq!(opened.count(), workloads.len() + 1);
    assert!(daemon.stop().status.success());
}

fn systemd_and_the_journal_are_told() {
    let daemon = Daemon::start(METRICS);
    let mut workload = Workload::start("failures=11 comm=daemon-told");
    workload.fail();
    let entry = loop {
        let mut bytes = vec![0; 64 << 10];
        let length = daemon.journal.recv(&mut bytes).unwrap();
        let entry = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if entry.contains("FDTRACE_PROCESS=daemon-told\n") {
            break entry;
        }
    };
    let fields = [
        "MESSAGE=EXHAUSTED  daemon-told[".to_owned(),
        "\nPRIORITY=3\nSYSLOG_IDENTIFIER=fdtrace\n".to_owned(),
        "\nMESSAGE_ID=c2362ceaf33449cf8f2861c37fe9f379\nFDTRACE_KIND=episode_opened\n".to_owned(),
        format!("\nFDTRACE_PID={}\n", workload.pid()),
        format!("\nOBJECT_PID={}\n", workload.pid()),
        format!("\nFDTRACE_LISTENER=127.0.0.1:{}\n", workload.port()),
        "\nFDTRACE_FAILURE=EMFILE\nFDTRACE_DOOR=accept4\n".to_owned(),
    ];
    for field in fields {
        assert!(entry.contains(&field), "{field}: {entry}");
    }
    // At half of the three seconds that systemd is said to wait.
    for _ in 0..3 {
        daemon.wait_for_notice("WATCHDOG=1");
    }
    let ended = daemon.stop();
    assert!(ended.status.success(), "{}", ended.stderr);
    // stdout is a file, not the journal: text is there too.
    assert!(ended.stdout.contains("EXHAUSTED  daemon-told["), "{}", ended.stdout);
}

/// fdtrace at its own limit: no spinning, and answers as soon as there is a descriptor.
fn metrics_without_descriptors() {
    let daemon = Daemon::start(&quiet(""));
    let cpu = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = daemon.limit_descriptors(4);
    let mut waiting =
        std::net::TcpStream::connect(("127.0.0.1", daemon.port())).expect("the kernel connects");
    io::Write::write_all(&mut waiting, b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    thread::sleep(Duration::from_millis(1500));
    let start = cpu();
    thread::sleep(Duration::from_secs(3));
    let ticks = cpu() - start;
    // 300 is one core.
    assert!(ticks < 30, "{ticks} hundredths of a second in three");
    assert!(daemon.stderr().contains("metrics: cannot accept a connection"), "{}", daemon.stderr());
    // Its watchdog needs none.
    daemon.wait_for_notice("WATCHDOG=1");
    daemon.limit_descriptors(before);
    let mut answer = String::new();
    io::Read::read_to_string(&mut waiting, &mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    assert!(daemon.stop().status.success());
}

fn wrong_configurations() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fdtrace.toml");
    let run = |config: &str, more: &[&str]| -> (i32, String) {
        fs::write(&file, config).unwrap();
        let mut command = Command::new(binary());
        let Output { status, stdout, stderr } =
            command.arg("daemon").arg("--config").arg(&file).args(more).output().unwrap();
        (status.code().unwrap(), String::from_utf8([stdout, stderr].concat()).unwrap())
    };
    let (code, text) = run("[trace]\nports = [80]\n", &["--check"]);
    assert_eq!((code, text), (0, format!("{}: right\n", file.display())));
    for more in [&["--check"][..], &[]] {
        let (code, text) = run("[trace]\nport = 80\n", more);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains("fdtrace.toml:2: unknown field `port`, expected one of"), "{text}");
    }
    let port = free_port();
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (code, text) = run(&format!("[metrics]\nlisten = \"127.0.0.1:{port}\"\n"), &[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(&format!("metrics.listen: cannot listen on 127.0.0.1:{port}")), "{text}");
    drop(taken);
    fs::remove_file(&file).unwrap();
    let mut command = Command::new(binary());
    let output = command.arg("daemon").arg("--config").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
