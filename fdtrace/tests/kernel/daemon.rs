//! `fdtrace daemon`: figures that are right whatever happens to files, settings and descriptors.

use std::{
    fs, io,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
    thread,
    time::Duration,
};

use nix::mount::{MsFlags, mount};

use crate::{
    Test,
    host::{TRACEFS, mount_tracefs},
    support::{Daemon, binary, eventually, form_arguments, free_port},
    workload::Workload,
};

mod outputs;
mod privileges;

pub(crate) const TESTS: &[&[Test]] = &[OWN, outputs::TESTS, privileges::TESTS];

const OWN: &[Test] = &[
    ("metrics_are_what_failed", metrics_are_what_failed),
    ("a_reload_takes_no_count_back", a_reload_takes_no_count_back),
    ("who_finds_no_room_is_counted_as_other", who_finds_no_room_is_counted_as_other),
    ("a_probe_that_is_down_is_told", a_probe_that_is_down_is_told),
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

fn who_finds_no_room_is_counted_as_other() {
    const FAILURES: &str = "fdtrace_failures_total";
    let names = ["series-1", "series-2", "series-3", "series-4"];
    let daemon =
        Daemon::start(&format!("{}max_series = 2\n[trace]\ncomms = {names:?}\n", quiet("")));
    let mut failed = 0;
    let mut workloads = Vec::new();
    for (number, name) in names.into_iter().enumerate() {
        let count = 10 + 3 * number;
        let mut workload = Workload::start(&format!("failures={count} comm={name}"));
        failed += workload.fail();
        workloads.push(workload);
        // In that order.
        assert_eq!(daemon.metric(FAILURES, &[]).to_string(), failed.to_string());
    }
    let of = |labels: &[&str]| daemon.metric(FAILURES, labels).to_string();
    let what = ["failure=\"EMFILE\"", "door=\"accept4\""];
    assert_eq!(of(&what), failed.to_string());
    assert_eq!(of(&["process=\"series-2\""]), "13");
    let other = ["process", "unit", "container", "pod", "listener"];
    let other = other.map(|label| format!("{label}=\"other\""));
    let other: Vec<_> = other.iter().map(String::as_str).chain(what).collect();
    assert_eq!(of(&other), (16 + 19).to_string());
    // Their episodes as well.
    assert_eq!(daemon.metric("fdtrace_episodes", &["failure=\"EMFILE\""]).to_string(), "4");
    assert_eq!(daemon.metric("fdtrace_episodes", &["listener=\"other\""]).to_string(), "2");
    assert!(daemon.stop().status.success());
}

/// Its tracepoint is hidden from the daemon, as of a kernel that was built without it.
fn a_probe_that_is_down_is_told() {
    const UP: &str = "fdtrace_probe_up";
    const PROBE: &str = "probe=\"socketpair\"";
    if form_arguments().contains(&"--form".to_owned()) {
        println!("  a form that is asked for and is not there ends the start");
        return;
    }
    let there = Daemon::start(&quiet(""));
    if there.metric(UP, &[PROBE, "form=\"tracepoint\""]) < 0.5 {
        println!("  this host does not observe it by a tracepoint");
        return;
    }
    assert!(there.stop().status.success());
    let daemon = Daemon::start_changed(&quiet(""), |dir| {
        mount_tracefs()?;
        for root in [TRACEFS, "/sys/kernel/debug/tracing"] {
            let hidden = Path::new(root).join("events/syscalls/sys_exit_socketpair");
            if hidden.exists() {
                mount(Some(dir), &hidden, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            }
        }
        Ok(())
    });
    let why = "the probe `socketpair` is not attached\n";
    assert_eq!(daemon.get("/healthz"), (503, why.to_owned()));
    let down = format!("{UP}{{{PROBE},form=\"none\"}} 0\n");
    let (status, text) = daemon.get("/metrics");
    assert!(status == 200 && text.contains(&down), "{text}");
    // systemd too is told why, and everything else is counted.
    let notice = daemon.wait_for_notice("WATCHDOG=1");
    assert!(!notice.contains("STATUS=watching"), "{notice}");
    let mut workload = Workload::start("failures=11 comm=daemon-down");
    workload.fail();
    let count = daemon.metric("fdtrace_failures_total", &["process=\"daemon-down\""]);
    assert_eq!(count.to_string(), "11");
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

/// fdtrace at its own limit: it counts on, does not spin, and answers as soon as there is a descriptor.
fn metrics_without_descriptors() {
    let daemon = Daemon::start(&quiet("json_file = \"DIR/out.jsonl\""));
    let (file, old) = (daemon.path("out.jsonl"), daemon.path("out.jsonl.1"));
    let cpu = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = daemon.limit_descriptors(4);
    let mut waiting =
        std::net::TcpStream::connect(("127.0.0.1", daemon.port())).expect("the kernel connects");
    io::Write::write_all(&mut waiting, b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    let mut workload = Workload::start("failures=67 comm=daemon-without");
    assert_eq!(workload.fail(), 67);
    fs::rename(&file, &old).unwrap();
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
    // That it had no descriptor for its file either is not over before the next tick.
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
    eventually("it is healthy again", || daemon.get("/healthz").0 == 200);
    let count = daemon.metric("fdtrace_failures_total", &["process=\"daemon-without\""]);
    assert_eq!(count.to_string(), "67");
    assert!(daemon.metric("fdtrace_lost_total", &["kind=\"failures\""]) < 0.1);
    assert!(daemon.metric("fdtrace_lost_total", &["reason=\"json_file\""]) < 0.1);
    let [before, after] = [&old, &file].map(|file| fs::read_to_string(file).unwrap());
    assert!((before + &after).contains("\"comm\":\"daemon-without\""));
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
