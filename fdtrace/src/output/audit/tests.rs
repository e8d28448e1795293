//! Golden text, and JSON against its schema and its page.

use std::{fs, net::Ipv4Addr, path::PathBuf};

use serde_json::Value;

use super::*;
use crate::{
    model::{
        AuditReport, Audited, Backlog, Cause, FdLimits, FdUsage, Finding, FindingKind, Level,
        Limit, ListenerReport, ListeningSocket, OwnerFds, Pid, Process, Remedy, Target, Unseen,
        When,
    },
    output::{
        Colour,
        fixtures::{at, clock, every, inet, names, nginx, process, stranger},
    },
};

fn doc(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn on(target: &Target, owners: &[Process], length: u32, limit: u32) -> ListenerReport {
    let listener = target.listener().unwrap().clone();
    let (length, limit, drops) = (Some(length), Some(limit), None);
    ListenerReport {
        socket: ListeningSocket { inode: 54321, listener, length, limit, drops },
        owners: owners.to_vec(),
        fds: None,
        backlog: Backlog { requested: None, somaxconn: Some(4096) },
    }
}

fn fds(pid: u32, open: u64, soft: u64, hard: u64) -> OwnerFds {
    let limits = FdLimits { soft: Limit::Of(soft), hard: Limit::Of(hard) };
    let usage = FdUsage { open: Some(open), limits: Some(limits) };
    OwnerFds { pid: Pid(pid), usage, below_limit: None }
}

fn finding(level: Level, kind: FindingKind, what: &str, fix: Remedy) -> Finding {
    Finding {
        level,
        kind,
        listeners: Vec::new(),
        what: what.to_owned(),
        cause: None,
        fix: Some(fix),
    }
}

fn remedy(when: When, text: &str, command: Option<&str>) -> Remedy {
    Remedy { when, text: text.to_owned(), command: command.map(str::to_owned) }
}

/// The story that fdtrace was written for.
fn story() -> Audited {
    let owners = [process()];
    let now = remedy(
        When::Now,
        "raise its soft limit to 4096, no restart; its hard limit is 4096",
        Some("prlimit --pid 14807 --nofile=4096:"),
    );
    let keep = remedy(
        When::ForGood,
        "the setting is right by now: restart supervisord[812] itself, and dataforwardsrv[14807] \
         with it; neither \"supervisorctl reload\" nor \"update\" sets limits again",
        Some("systemctl daemon-reload && systemctl restart supervisord.service"),
    );
    Audited {
        processes: owners.to_vec(),
        listeners: vec![on(&every(9088), &owners, 61, 128)],
        fds: Some(fds(14807, 940, 1024, 4096)),
        findings: vec![
            Finding {
                cause: Some(Cause::RaisedAfterStart),
                ..finding(
                    Level::Risk,
                    FindingKind::FdsFilling,
                    "940 of its 1024 descriptors are in use (91 %)",
                    now,
                )
            },
            Finding {
                cause: Some(Cause::RaisedAfterStart),
                ..finding(
                    Level::Risk,
                    FindingKind::LimitOutdated,
                    "its limit is 1024; /etc/supervisord.conf:7 says 100000, but was changed 23 \
                     days after supervisord[812] started",
                    keep,
                )
            },
        ],
    }
}

fn servers() -> Audited {
    let owners = nginx(3);
    let ports = [80, 443].map(|port| inet(Ipv4Addr::UNSPECIFIED.into(), port, None));
    let listeners: Vec<ListenerReport> =
        ports.iter().map(|port| on(port, &owners, 0, 100)).collect();
    let fix = remedy(
        When::ForGood,
        "add backlog=4096 to its listen directive in nginx.conf, then nginx -s reload",
        None,
    );
    let what = "its accept queue holds 101 connections, as it asked";
    let addresses = listeners.iter().map(|one| one.socket.listener.address.clone()).collect();
    let small = Finding {
        listeners: addresses,
        cause: Some(Cause::BacklogTooSmall),
        ..finding(Level::Warn, FindingKind::BacklogSmall, what, fix)
    };
    Audited {
        processes: owners,
        listeners,
        fds: Some(fds(814, 23, 65_536, 65_536)),
        findings: vec![small],
    }
}

fn fine() -> Audited {
    let owners = [stranger(b"redis-server")];
    let listeners = vec![on(&inet(Ipv4Addr::LOCALHOST.into(), 6379, None), &owners, 0, 511)];
    Audited {
        processes: owners.to_vec(),
        listeners,
        fds: Some(fds(14807, 9, 65_536, 65_536)),
        findings: Vec::new(),
    }
}

fn ownerless() -> Audited {
    Audited {
        processes: Vec::new(),
        listeners: vec![on(&every(25), &[], 0, 128)],
        fds: None,
        findings: Vec::new(),
    }
}

fn report(audited: Vec<Audited>, all: bool) -> AuditReport {
    AuditReport {
        at: at(3_120),
        listeners: audited.iter().map(|one| one.listeners.len() as u64).sum(),
        audited,
        all,
        namespaces: 1,
        own_netns: None,
        unseen: Unseen::default(),
    }
}

#[test]
fn only_what_is_wrong_unless_all_is_asked_for() {
    let everything = || vec![story(), servers(), fine(), ownerless()];
    let some = audit_text(&report(everything(), false), Colour::Never);
    assert!(!some.contains("redis"), "{some}");
    let sum = "6 processes on 5 listeners: 1 risk, 1 warn, 1 fine, 1 unknown (--all shows all)\n\
               docs/audit.md explains each finding, docs/causes.md what is behind limits\n";
    assert!(some.ends_with(sum), "{some}");
    let all = audit_text(&report(everything(), true), Colour::Never);
    let expected = "\
      redis-server[14807]    127.0.0.1:6379  9/65536               0/511
?     ?                      *:25            ?                     0/128
6 processes on 5 listeners: 1 risk, 1 warn, 1 fine, 1 unknown
docs/audit.md explains each finding, docs/causes.md what is behind limits
";
    assert!(all.ends_with(expected), "{all}");
    let none = audit_text(&report(Vec::new(), false), Colour::Never);
    assert_eq!(none, "0 processes on 0 listeners: 0 risk, 0 warn, 0 fine\n");
    let calm = audit_text(&report(vec![fine()], false), Colour::Never);
    assert_eq!(calm, "1 process on 1 listener: 0 risk, 0 warn, 1 fine (--all shows all)\n");
}

#[test]
fn lines_are_100_wide_and_names_cannot_act_on_a_terminal() {
    let mut hostile = story();
    hostile.processes = vec![stranger("\u{202e}x\x1b[2J".as_bytes())];
    hostile.findings[0].what = "\x1b[2J".to_owned();
    let report = report(vec![hostile, servers()], true);
    let text = audit_text(&report, Colour::Never);
    assert!(!text.contains(['\x1b', '\u{202e}']), "{text:?}");
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
        assert!(!line.ends_with(' '), "{line:?}");
    }
    let json = String::from_utf8(audit_json(&report, &clock()).unwrap()).unwrap();
    assert!(!json.contains(['\x1b', '\u{202e}']), "{json:?}");
}

#[test]
fn colour_is_for_levels_of_rows_only() {
    let report = report(vec![story(), servers(), fine()], true);
    let plain = audit_text(&report, Colour::Never);
    let coloured = audit_text(&report, Colour::Always);
    assert!(coloured.contains("\n\x1b[31mrisk\x1b[0m  data"), "{coloured}");
    assert!(coloured.contains("\n\x1b[33mwarn\x1b[0m  nginx"), "{coloured}");
    let codes = ["\x1b[31m", "\x1b[33m", "\x1b[0m"];
    let stripped = codes.iter().fold(coloured, |text, code| text.replace(code, ""));
    assert_eq!(stripped, plain);
}

#[test]
fn levels() {
    let report = report(vec![servers(), fine()], false);
    assert!(report.has(Level::Warn) && !report.has(Level::Risk));
    let bad = AuditReport { audited: vec![story()], ..report };
    assert!(bad.has(Level::Warn) && bad.has(Level::Risk));
}

/// Every level and kind.
fn every_shape() -> Vec<Value> {
    let mut kinds = servers();
    kinds.findings = FindingKind::ALL
        .map(|kind| finding(Level::Warn, kind, "", remedy(When::Now, "", None)))
        .to_vec();
    kinds.findings[0].fix = None;
    let all = report(vec![story(), servers(), fine(), ownerless(), kinds], true);
    let text = String::from_utf8(audit_json(&all, &clock()).unwrap()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_schema_describes_real_output_and_nothing_else() {
    let schema = serde_json::from_str(&doc("audit.schema.json")).unwrap();
    let schema = jsonschema::draft202012::new(&schema).unwrap();
    let places = ["", "/process", "/listeners/0", "/fds", "/findings/0", "/findings/0/fix"];
    for (number, line) in every_shape().iter().enumerate() {
        let errors: Vec<String> = schema.iter_errors(line).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{line:#}\n{errors:#?}");
        let places = if number == 0 { &places[..] } else { &places[..1] };
        for place in places {
            let mut wrong = line.clone();
            wrong.pointer_mut(place).unwrap()["surprise"] = 1.into();
            assert!(!schema.is_valid(&wrong), "{place} of {line:#}");
        }
    }
}

/// docs/audit.md names every field and finding, and its examples are what is written.
#[test]
fn documented() {
    let docs = doc("audit.md");
    let mut found = Vec::new();
    for mut line in every_shape() {
        // docs/json.md explains these.
        for known in ["process", "processes"] {
            line.as_object_mut().unwrap().remove(known);
        }
        names(&line, &mut found);
    }
    found.extend(FindingKind::ALL.map(|kind| kind.name().to_owned()));
    for name in found {
        assert!(docs.contains(&format!("`{name}`")), "{name} is not in docs/audit.md");
    }
    let report = report(vec![story(), servers(), fine()], false);
    let text = audit_text(&report, Colour::Never);
    assert!(docs.contains(&text), "not in docs/audit.md:\n{text}");
    let json = String::from_utf8(audit_json(&report, &clock()).unwrap()).unwrap();
    for line in json.lines() {
        assert!(docs.contains(line), "not in docs/audit.md:\n{json}");
    }
}
