//! deploy/systemd/fdtrace.service: under all that it takes away, fdtrace counts as it does as root.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Test,
    support::{binary, number, same},
    unit::{self, Clients, Unit, episode, systemctl},
    web,
};

pub(crate) const TESTS: &[Test] =
    &[("the_units_limits_leave_it_all_it_needs", limits), ("the_unit_runs_the_daemon", daemon)];

const UNIT: &str = include_str!("../../../deploy/systemd/fdtrace.service");
/// Where the unit has it, and where it is put here.
pub(crate) const PROGRAM: &str = "/usr/bin/fdtrace";
pub(crate) const PLACE: &str = "/etc/systemd/system/fdtrace.service";
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The service, with a trace in the foreground in the daemon's place: what it says is in a file.
pub(crate) struct Service;

const SAID: &str = "/run/fdtrace-said.jsonl";

impl Service {
    #[track_caller]
    pub(crate) fn start_changed(settings: &str) -> Self {
        if !Path::new(PROGRAM).exists() {
            fs::copy(binary(), PROGRAM).unwrap();
        }
        fs::write(PLACE, UNIT).unwrap();
        let dropin = format!("{PLACE}.d");
        fs::create_dir_all(&dropin).unwrap();
        let changed = format!("[Unit]\nDefaultDependencies=no\n{settings}");
        fs::write(format!("{dropin}/test.conf"), changed).unwrap();
        let service = Self;
        systemctl(&["daemon-reload"]);
        systemctl(&["start", "fdtrace.service"]);
        service
    }

    #[track_caller]
    fn start() -> Self {
        // Everything of the unit but what it runs and how that says that it is ready.
        let service = Self::start_changed(&format!(
            "[Service]\nType=exec\nWatchdogSec=0\nExecStart=\n\
             ExecStart={PROGRAM} --json\nStandardOutput=truncate:{SAID}\n"
        ));
        wait_for(|report| report["kind"] == "started", "start line");
        service
    }
}

#[track_caller]
fn wait_for(is_it: impl Fn(&Value) -> bool, what: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(report) = said().into_iter().find(&is_it) {
            return report;
        }
        if Instant::now() > deadline {
            let _ = Command::new("journalctl").args(["-n", "30", "-u", "fdtrace"]).status();
            panic!("no {what} in time: {:#?}", said());
        }
        sleep(Duration::from_millis(50));
    }
}

pub(crate) fn property(name: &str) -> String {
    systemctl(&["show", "--property", name, "--value", "fdtrace.service"]).trim().to_owned()
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = Command::new("systemctl").args(["stop", "fdtrace.service"]).status();
        let _ = fs::remove_file(PLACE);
        let _ = fs::remove_dir_all(format!("{PLACE}.d"));
    }
}

/// Every whole line that there is.
fn said() -> Vec<Value> {
    let text = fs::read_to_string(SAID).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn limits() {
    // Started before: its owner is known by looking into another user's /proc/PID/fd alone.
    let web = "/etc/systemd/system/web.service";
    let _unit = Unit::start(web, "LimitNOFILE=24\nUser=nobody\n");
    let pid = unit::main_pid();
    let _service = Service::start();

    let status = fs::read_to_string(format!("/proc/{}/status", property("MainPID")));
    let status = status.unwrap();
    let line = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(line("NoNewPrivs:"), "1");
    assert_ne!(line("Uid:"), "0", "not root");
    // CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH.
    let five: u64 = 1 << 39 | 1 << 38 | 1 << 12 | 1 << 19 | 1 << 2;
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(u64::from_str_radix(&line(set), 16).unwrap(), five, "{set}");
    }

    let mut clients = Clients::new();
    clients.until_it_fails(pid);
    let opened = wait_for(
        |report| report["kind"] == "episode_opened" && same(report, &episode(pid, "EMFILE")),
        "episode",
    );
    assert_eq!(number(&opened, "/fds/soft"), 24, "{opened:#}");
    assert!(opened["process"]["exe"].is_string(), "{opened:#}");

    // Its clients go, and it fails no more.
    drop(clients);
    let mut before = 0;
    while before != web::failures(pid) {
        before = web::failures(pid);
        sleep(Duration::from_millis(500));
    }
    systemctl(&["stop", "fdtrace.service"]);
    let summary = wait_for(|report| report["kind"] == "summary", "summary");
    let totals = summary["totals"].as_array().unwrap();
    let ours = totals.iter().filter(|total| same(total, &episode(pid, "EMFILE")));
    let counted: u64 = ours.map(|total| number(total, "/count")).sum();
    println!("    failed {} times, counted {counted}", web::failures(pid));
    assert!(counted > 0);
    assert_eq!(counted, web::failures(pid), "{summary:#}");
    let lost = summary["lost"].as_object().unwrap();
    assert!(lost.values().all(|count| count.as_u64() == Some(0)), "{lost:?}");
    assert_eq!(property("Result"), "success");
}

/// The unit as it is, with the configuration that comes with it.
fn daemon() {
    let web = "/etc/systemd/system/web.service";
    let _unit = Unit::start(web, "LimitNOFILE=24\nUser=nobody\n");
    let pid = unit::main_pid();
    fs::create_dir_all("/etc/fdtrace").unwrap();
    fs::write("/etc/fdtrace/fdtrace.toml", include_str!("../../../deploy/fdtrace.toml")).unwrap();
    // It has said that it is ready when this returns.
    let _service = Service::start_changed("");
    let main_pid = property("MainPID");
    assert_eq!(get("/healthz").trim(), "ok");

    let mut clients = Clients::new();
    clients.until_it_fails(pid);
    systemctl(&["reload", "fdtrace.service"]);
    drop(clients);
    let mut before = 0;
    while before != web::failures(pid) {
        before = web::failures(pid);
        sleep(Duration::from_millis(500));
    }
    let text = get("/metrics");
    let ours = text.lines().filter(|line| {
        line.starts_with("fdtrace_failures_total{") && line.contains("failure=\"EMFILE\"")
    });
    let counted: u64 =
        ours.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    println!("    failed {} times, counted {counted}", web::failures(pid));
    assert!(counted > 0, "{text}");
    assert_eq!(counted, web::failures(pid), "{text}");

    assert_eq!(property("MainPID"), main_pid, "a reload starts nothing anew");
    assert_eq!(property("ActiveState"), "active");
    systemctl(&["stop", "fdtrace.service"]);
    assert_eq!(property("Result"), "success");
}

#[track_caller]
pub(crate) fn get(path: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 9435)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}
