//! LimitNOFILE= of a unit, of its drop-ins, and what the manager gives where none says anything.

use std::fs;

use crate::{
    Test,
    support::{Diagnosed, Fdtrace, carry_out},
    unit::{
        Clients, Unit, ends, exhaust, later, main_pid, settle, systemctl, wait_until_it_listens,
    },
};

pub(crate) const TESTS: &[Test] = &[
    ("a_unit_with_a_low_limit", a_low_limit),
    ("a_package_s_unit_with_a_low_limit", of_a_package),
    ("a_low_soft_limit_is_raised_without_a_restart", soft_limit),
    ("a_drop_in_written_after_the_start", drop_in),
    ("the_manager_s_default_is_low", low_default),
    ("the_manager_s_default_was_raised_after_the_start", raised_default),
];

const OWN: &str = "/etc/systemd/system/web.service";
const PACKAGED: &str = "/usr/lib/systemd/system/web.service";
const DEFAULTS: &str = "/etc/systemd/system.conf.d/limits.conf";

/// An administrator's unit is changed where it is.
fn a_low_limit() {
    for_good(OWN, "LimitNOFILE=64\n", |said| {
        said.is("hard_limit_low", "certain", &["nofile limit 64", &format!("{OWN}:7")]);
        assert_eq!(said.source("configured_limit"), format!("{OWN}:7"));
    });
    // It was written there, and to no other place.
    assert!(!fs::exists(format!("{OWN}.d")).unwrap());
}

/// A package's is not: the next update would undo it.
fn of_a_package() {
    for_good(PACKAGED, "LimitNOFILE=64\n", |said| {
        said.is("hard_limit_low", "certain", &[&format!("{PACKAGED}:7")]);
        assert!(said.command("for_good").contains("/etc/systemd/system/web.service.d/"));
    });
}

fn soft_limit() {
    let _unit = Unit::start(OWN, "LimitNOFILE=64:4096\n");
    let pid = main_pid();
    let mut fdtrace = Fdtrace::start(&[]);
    let mut clients = Clients::new();
    let said = exhaust(&mut fdtrace, &mut clients, pid, "EMFILE");
    said.is("soft_limit_low", "certain", &["64", &format!("{OWN}:7")]);
    let count = recovers(&mut fdtrace, &mut clients, &said, pid);
    settle(fdtrace, pid, count);
}

fn drop_in() {
    const PATH: &str = "/etc/systemd/system/web.service.d/limits.conf";
    let _unit = Unit::start(OWN, "LimitNOFILE=64\n");
    later();
    fs::create_dir_all("/etc/systemd/system/web.service.d").unwrap();
    fs::write(PATH, "[Service]\nLimitNOFILE=1000\n").unwrap();
    raised(PATH, "1000");
}

fn low_default() {
    let _defaults = Defaults::set("64");
    for_good(OWN, "", |said| {
        said.is("hard_limit_low", "certain", &["DefaultLimitNOFILE=", &format!("{DEFAULTS}:2")]);
        assert_eq!(said.source("configured_limit"), format!("{DEFAULTS}:2"));
    });
}

fn raised_default() {
    let _defaults = Defaults::set("64");
    let _unit = Unit::start(OWN, "");
    later();
    fs::write(DEFAULTS, "[Manager]\nDefaultLimitNOFILE=1000\n").unwrap();
    raised(DEFAULTS, "1000");
}

/// Runs out, does what is to be done now, which helps the process, and what is to be done for good,
/// which helps the next one.
#[track_caller]
fn for_good(path: &str, settings: &str, says: impl Fn(&Diagnosed)) {
    let _unit = Unit::start(path, settings);
    let pid = main_pid();
    let mut fdtrace = Fdtrace::start(&[]);
    let mut clients = Clients::new();
    let said = exhaust(&mut fdtrace, &mut clients, pid, "EMFILE");
    says(&said);
    let count = recovers(&mut fdtrace, &mut clients, &said, pid);
    carry_out(said.command("for_good"));
    has_restarted(fdtrace, pid, count);
}

/// Does what is to be done now: the process goes on with every client that it has.
#[track_caller]
fn recovers(fdtrace: &mut Fdtrace, clients: &mut Clients, said: &Diagnosed, pid: u32) -> u64 {
    carry_out(said.command("now"));
    clients.last_is_served();
    clients.are_served(70);
    assert_eq!(main_pid(), pid, "nothing was restarted");
    ends(fdtrace, pid, "recovered")
}

/// A setting is right by now: only who was started before must be started again.
#[track_caller]
fn raised(path: &str, value: &str) {
    let pid = main_pid();
    let mut fdtrace = Fdtrace::start(&[]);
    let mut clients = Clients::new();
    let said = exhaust(&mut fdtrace, &mut clients, pid, "EMFILE");
    let changed = format!("{path}:2 was changed to {value}");
    said.is("raised_after_start", "certain", &["64", "; it started ", &changed]);
    assert_eq!(said.source("configured_limit"), format!("{path}:2"));
    carry_out(said.command("for_good"));
    let count = ends(&mut fdtrace, pid, "exited");
    has_restarted(fdtrace, pid, count);
}

#[track_caller]
fn has_restarted(fdtrace: Fdtrace, before: u32, count: u64) {
    wait_until_it_listens();
    assert_ne!(main_pid(), before, "it was restarted");
    Clients::new().are_served(70);
    settle(fdtrace, before, count);
}

/// What the manager gives to units that say nothing, until this is dropped.
struct Defaults;

impl Defaults {
    fn set(limit: &str) -> Self {
        fs::create_dir_all("/etc/systemd/system.conf.d").unwrap();
        fs::write(DEFAULTS, format!("[Manager]\nDefaultLimitNOFILE={limit}\n")).unwrap();
        // What is there is read by daemon-reload, which starting a unit here begins with.
        Self
    }
}

impl Drop for Defaults {
    fn drop(&mut self) {
        fs::remove_file(DEFAULTS).unwrap();
        systemctl(&["daemon-reload"]);
    }
}
