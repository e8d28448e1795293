//! Files that are rotated, disks that are full, and readers that do not read: no count is lost by any.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::fd::{AsRawFd as _, IntoRawFd as _},
    path::Path,
    thread,
    time::Duration,
};

use nix::{
    libc,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::Value;

use super::{METRICS, quiet};
use crate::{
    Test,
    support::{Daemon, eventually},
    workload::Workload,
};

pub(crate) const TESTS: &[Test] = &[
    ("a_rotated_file_is_followed", a_rotated_file_is_followed),
    ("a_full_disk_costs_no_count", a_full_disk_costs_no_count),
    ("a_reader_that_stops_costs_no_count", a_reader_that_stops_costs_no_count),
];

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

/// Its stdout is a pipe, and nobody reads it.
fn a_reader_that_stops_costs_no_count() {
    const COMM: &str = "process=\"daemon-unread\"";
    const LOST: &str = "fdtrace_lost_total";
    // Where the daemon has the other end.
    const READER: i32 = 100;
    let config = format!("[output]\nstdout = \"json\"\njournal = \"never\"\n{METRICS}");
    let daemon = Daemon::start_changed(&config, |_| {
        let (reader, writer) = nix::unistd::pipe()?;
        // SAFETY: numbers only. The copies are not closed by exec.
        unsafe {
            libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096);
            libc::dup2(writer.into_raw_fd(), 1);
            libc::dup2(reader.into_raw_fd(), READER);
        }
        Ok(())
    });
    let mut failed = 0;
    let mut workloads = 0;
    while daemon.metric(LOST, &["reason=\"stdout\""]) < 1.0 {
        assert!(workloads < 400, "nothing is lost");
        for _ in 0..10 {
            failed += Workload::start("failures=67 comm=daemon-unread").fail();
            workloads += 1;
        }
    }
    println!("  after {workloads} processes");
    let why = "stdout cannot be written: nobody reads it\n";
    eventually("it is told", || daemon.get("/healthz") == (503, why.to_owned()));
    assert_eq!(daemon.metric("fdtrace_failures_total", &[COMM]).to_string(), failed.to_string());
    assert!(daemon.metric(LOST, &["kind=\"failures\""]) < 0.1);
    // It is not stuck.
    daemon.forget_notices();
    daemon.wait_for_notice("WATCHDOG=1");
    // Whatever waited is whole.
    let reader = File::open(format!("/proc/{}/fd/{READER}", daemon.pid())).unwrap();
    let reader = thread::spawn(move || {
        let lines = BufReader::new(reader).lines().map(|line| {
            let line = line.unwrap();
            serde_json::from_str::<Value>(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
        });
        lines.take_while(|line| line["kind"] != "summary").count()
    });
    eventually("it is healthy again", || daemon.get("/healthz").0 == 200);
    let mut workload = Workload::start("failures=7 comm=daemon-unread");
    failed += workload.fail();
    assert_eq!(daemon.metric("fdtrace_failures_total", &[COMM]).to_string(), failed.to_string());
    // A reload takes nothing back.
    let lost = daemon.metric(LOST, &["reason=\"stdout\""]);
    daemon.reload(&quiet(""));
    assert!(daemon.metric(LOST, &["reason=\"stdout\""]) >= lost);
    daemon.reload(&config);
    assert!(daemon.metric(LOST, &["reason=\"stdout\""]) >= lost);
    let ended = daemon.stop();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(reader.join().unwrap() > workloads / 10);
    let told = ended.stderr.matches("stdout: cannot be written: nobody reads it").count();
    assert_eq!(told, 1, "{}", ended.stderr);
}
