//! What the unit writes, and where: entries in the real journal, a file and a socket in the
//! directories that systemd makes for it.

use std::{
    fs,
    io::Write as _,
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Test,
    service::{PATIENCE, Service},
    support::{carry_out, same},
    unit::{self, Clients, Unit, episode, systemctl},
};

pub(crate) const TESTS: &[Test] = &[
    ("the_units_outputs_are_where_its_configuration_says", outputs),
    ("the_journal_of_a_unit_has_what_root_says_of_it", of_root),
];

const CONFIG: &str = include_str!("../../../deploy/fdtrace.toml");
const JOURNAL: &str = include_str!("../../src/output/journal/mod.rs");
const WEB: &str = "/etc/systemd/system/web.service";
const FILE: &str = "/var/log/fdtrace/fdtrace.jsonl";
const SOCKET: &str = "/run/fdtrace/metrics.sock";
/// What journald adds where a message of root's has OBJECT_PID.
const OF_THE_OBJECT: &str = "OBJECT_SYSTEMD_UNIT";

/// Entries of the journal that have these fields.
fn entries(fields: &[&str]) -> Vec<Value> {
    let mut journalctl = Command::new("journalctl");
    let output = journalctl.args(["--output=json", "--no-pager"]).args(fields).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until there is one, and nothing but it.
#[track_caller]
fn entry(fields: &[&str]) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut found = entries(fields);
        if let Some(entry) = found.pop() {
            assert!(found.is_empty(), "{found:#?}");
            return entry;
        }
        assert!(Instant::now() < deadline, "the journal has no entry with {fields:?}");
        sleep(Duration::from_millis(200));
    }
}

/// Has the server fail; its process. Its clients go again.
fn fail() -> (Unit, u32) {
    let unit = Unit::start(WEB, "LimitNOFILE=24\nUser=nobody\n");
    let pid = unit::main_pid();
    Clients::new().until_it_fails(pid);
    (unit, pid)
}

fn outputs() {
    // The very lines that the shipped file has as examples.
    let config = ["json_file", "socket"].iter().fold(CONFIG.to_owned(), |config, key| {
        assert_eq!(config.matches(&format!("\n#{key} = ")).count(), 1);
        config.replace(&format!("\n#{key} = "), &format!("\n{key} = "))
    });
    fs::create_dir_all("/etc/fdtrace").unwrap();
    fs::write("/etc/fdtrace/fdtrace.toml", config).unwrap();
    let service = Service::start_changed("");
    let (_unit, pid) = fail();

    let opened = entry(&["FDTRACE_KIND=episode_opened", &format!("FDTRACE_PID={pid}")]);
    let id = opened["MESSAGE_ID"].as_str().unwrap();
    assert!(JOURNAL.contains(id) && id.len() == 32, "{opened:#}");
    let expected = serde_json::json!({
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "fdtrace",
        "FDTRACE_PROCESS": "web",
        "FDTRACE_UNIT": "web.service",
        "FDTRACE_LISTENER": format!("127.0.0.1:{}", unit::PORT),
        "FDTRACE_FAILURE": "EMFILE",
        "FDTRACE_DOOR": "accept4",
        "OBJECT_PID": pid.to_string(),
        // journald's own, of who wrote it.
        "_SYSTEMD_UNIT": "fdtrace.service",
        "_TRANSPORT": "journal",
    });
    assert!(same(&opened, &expected), "{opened:#}\n{expected:#}");
    let message = opened["MESSAGE"].as_str().unwrap();
    assert!(message.starts_with(&format!("EXHAUSTED  web[{pid}] ")), "{message}");
    // It believes only root of which process a message is (journald-server.c, allow_object_pid).
    assert_ne!(opened["_UID"], "0");
    assert_eq!(opened[OF_THE_OBJECT], Value::Null, "{opened:#}");
    let by_id = entries(&[&format!("MESSAGE_ID={id}"), &format!("FDTRACE_PID={pid}")]);
    assert_eq!(by_id.len(), 1);
    // Other tests have had their own in that unit.
    let of_unit = entries(&["FDTRACE_UNIT=web.service", "FDTRACE_KIND=episode_opened"]);
    let is_it = |entry: &&Value| entry["FDTRACE_PID"] == opened["FDTRACE_PID"];
    assert_eq!(of_unit.iter().filter(is_it).count(), 1);

    let has_opened = || {
        let text = fs::read_to_string(FILE).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| same(line, &episode(pid, "EMFILE"))).count() > 0
    };
    wait("the file has the episode", has_opened);
    assert_ne!(fs::metadata(FILE).unwrap().uid(), 0, "the file is the unit's user's");
    let mut stream = UnixStream::connect(SOCKET).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");

    rotates();
    drop(service);
    assert!(!Path::new("/run/fdtrace").exists(), "systemd takes it away with the unit");
    let text = fs::read_to_string(FILE).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["kind"], "summary", "{last:#}");
    for name in ["fdtrace.jsonl", "fdtrace.jsonl.1"] {
        fs::remove_file(Path::new("/var/log/fdtrace").join(name)).unwrap();
    }
}

/// logrotate with the package's file for it: fdtrace goes on in a new one.
fn rotates() {
    let rules = "/srv/logrotate.conf";
    fs::write(rules, include_str!("../../../deploy/logrotate/fdtrace")).unwrap();
    carry_out(&format!("logrotate --force --state /srv/logrotate.state {rules}"));
    let old = fs::read_to_string(format!("{FILE}.1")).unwrap();
    assert!(old.contains("\"kind\":\"episode_opened\""), "{old}");
    wait("the file is there again", || Path::new(FILE).exists());
    systemctl(&["is-active", "fdtrace.service"]);
}

#[track_caller]
fn wait(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(100));
    }
}

fn of_root() {
    fs::create_dir_all("/etc/fdtrace").unwrap();
    fs::write("/etc/fdtrace/fdtrace.toml", CONFIG).unwrap();
    let _service = Service::start_changed("[Service]\nDynamicUser=no\nUser=root\n");
    let (_unit, pid) = fail();
    let fields = ["FDTRACE_KIND=episode_opened", &format!("FDTRACE_PID={pid}")];
    let opened = entry(&fields);
    assert_eq!(opened["_UID"], "0");
    assert_eq!(opened[OF_THE_OBJECT], "web.service", "{opened:#}");
    let of_web = entries(&["--unit=web.service", "SYSLOG_IDENTIFIER=fdtrace"]);
    println!("    {} entries of fdtrace in the journal of web.service", of_web.len());
    let of_web = Command::new("journalctl").args(["--no-pager", "--unit=web.service"]).output();
    let of_web = String::from_utf8(of_web.unwrap().stdout).unwrap();
    assert!(of_web.contains(&format!("EXHAUSTED  web[{pid}] ")), "{of_web}");
}
