//! Limits of the whole system.

use std::fs;

use serde_json::json;

use crate::{
    Test,
    support::{Diagnosed, Fdtrace, carry_out},
    unit::{Clients, PORT, Unit, ends, exhaust, main_pid, settle},
};

pub(crate) const TESTS: &[Test] = &[
    ("nr_open_was_lowered", nr_open),
    ("file_max_is_reached", file_max),
    ("inotify_instances_are_used_up", inotify),
];

const UNIT: &str = "/etc/systemd/system/web.service";
const KEPT: &str = "/etc/sysctl.d/90-file-limits.conf";

/// A sysctl of the kernel's, set until this is dropped.
struct Sysctl {
    path: &'static str,
    before: String,
}

impl Sysctl {
    fn set(path: &'static str, value: u64) -> Self {
        let before = fs::read_to_string(path).unwrap();
        fs::write(path, value.to_string()).unwrap();
        Self { path, before }
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        fs::write(self.path, self.before.trim()).unwrap();
        let _ = fs::remove_file(KEPT);
    }
}

fn nr_open() {
    const LOWERED: u64 = 256;
    let settings = format!("LimitNOFILE=1024\nEnvironment=WEB={PORT},200\n");
    let _unit = Unit::start(UNIT, &settings);
    let pid = main_pid();
    let mut fdtrace = Fdtrace::start(&[]);
    let _sysctl = Sysctl::set("/proc/sys/fs/nr_open", LOWERED);
    let mut clients = Clients::new();
    let said = exhaust(&mut fdtrace, &mut clients, pid, "EMFILE");
    said.is("nr_open", "certain", &["fs.nr_open is 256, lower than"]);
    recovers(fdtrace, &mut clients, &said, pid);
}

/// root is exempt: it is a user's server that fails, and fdtrace and the clients go on.
fn file_max() {
    const ROOM: u64 = 60;
    let _unit = Unit::start(UNIT, "LimitNOFILE=1024\nUser=nobody\n");
    let pid = main_pid();
    let mut fdtrace = Fdtrace::start(&[]);
    let used = fs::read_to_string("/proc/sys/fs/file-nr").unwrap();
    let used: u64 = used.split_whitespace().next().unwrap().parse().unwrap();
    let _sysctl = Sysctl::set("/proc/sys/fs/file-max", used + ROOM);
    let mut clients = Clients::new();
    let said = exhaust(&mut fdtrace, &mut clients, pid, "ENFILE");
    said.is("file_max", "certain", &["fs.file-max"]);
    recovers(fdtrace, &mut clients, &said, pid);
}

fn inotify() {
    let _sysctl = Sysctl::set("/proc/sys/fs/inotify/max_user_instances", 4);
    let mut fdtrace = Fdtrace::start(&["--fds"]);
    let _unit = Unit::start_other(UNIT, "Environment=WEB=inotify\nUser=nobody\n");
    let pid = main_pid();
    let fields = json!({
        "process": { "pid": pid, "comm": "web" },
        "failure": "EMFILE",
        "door": "inotify_init1",
    });
    let said = Diagnosed::of(&mut fdtrace, &fields);
    let first = said.first();
    assert_eq!(first["cause"], "inotify_instances", "{first:#}");
    carry_out(said.command("now"));
    let count = ends(&mut fdtrace, pid, "recovered");
    settle(fdtrace, pid, count);
}

/// Does what is to be done now; and what is to be done for good writes what a boot reads.
#[track_caller]
fn recovers(mut fdtrace: Fdtrace, clients: &mut Clients, said: &Diagnosed, pid: u32) {
    carry_out(said.command("now"));
    clients.last_is_served();
    clients.are_served(70);
    carry_out(said.command("for_good"));
    carry_out(&format!("sysctl -p {KEPT}"));
    let count = ends(&mut fdtrace, pid, "recovered");
    settle(fdtrace, pid, count);
}
