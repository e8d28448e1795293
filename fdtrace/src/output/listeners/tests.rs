use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::*;
use crate::{
    model::{
        Backlog, FdLimits, FdUsage, Limit, ListenerReport, ListenersReport, ListeningSocket,
        OwnerFds, Pid, Target, UnixName, Unseen,
    },
    output::{
        Colour,
        fixtures::{at, clock, every, inet, ipv4, names, nginx, process, stranger, unix},
    },
};

const NETNS: u32 = 4_026_531_840;

fn socket(target: &Target, length: u32, limit: u32, drops: u32) -> ListeningSocket {
    let listener = target.listener().unwrap().clone();
    let (length, limit, drops) = (Some(length), Some(limit), Some(drops));
    ListeningSocket { inode: 54321, listener, length, limit, drops }
}

fn fds(pid: u32, open: u64, soft: u64) -> OwnerFds {
    let limits = FdLimits { soft: Limit::Of(soft), hard: Limit::Of(4096) };
    let usage = FdUsage { open: Some(open), limits: Some(limits) };
    OwnerFds { pid: Pid(pid), usage, below_limit: None }
}

/// Full, and nobody can accept: the first line of the design.
fn starved() -> ListenerReport {
    ListenerReport {
        socket: socket(&every(9088), 129, 128, 3112),
        owners: vec![process()],
        fds: Some(fds(14807, 1024, 1024)),
        backlog: Backlog { requested: None, somaxconn: Some(4096) },
    }
}

fn calm() -> ListenerReport {
    ListenerReport {
        socket: socket(&inet(Ipv4Addr::UNSPECIFIED.into(), 80, None), 0, 511, 0),
        owners: nginx(3),
        fds: Some(fds(814, 23, 1024)),
        ..starved()
    }
}

/// A worker is near its limit, in another namespace.
fn worker() -> ListenerReport {
    let mut socket = socket(&ipv4(443), 3000, 4096, 1);
    socket.listener.netns = Some(4_026_532_281);
    ListenerReport { socket, fds: Some(fds(814, 900, 1024)), ..calm() }
}

/// From /proc, and of another user.
fn stranger_of_proc() -> ListenerReport {
    let socket = socket(&every(25), 7, 0, 0);
    ListenerReport {
        socket: ListeningSocket { limit: None, drops: None, ..socket },
        owners: Vec::new(),
        fds: None,
        backlog: Backlog { requested: None, somaxconn: Some(4096) },
    }
}

/// Names that would do something to a terminal.
fn hostile() -> ListenerReport {
    let path = b"/run/\x1b[2J.sock".to_vec();
    let limits = FdLimits { soft: Limit::Unlimited, hard: Limit::Unlimited };
    ListenerReport {
        socket: ListeningSocket { drops: None, ..socket(&unix(UnixName::Path(path)), 4, 5, 0) },
        owners: vec![stranger("\u{202e}x\n".as_bytes())],
        fds: Some(OwnerFds {
            usage: FdUsage { open: Some(9), limits: Some(limits) },
            ..fds(14807, 0, 0)
        }),
        backlog: Backlog { requested: None, somaxconn: Some(5) },
    }
}

fn report(listeners: Vec<ListenerReport>) -> ListenersReport {
    ListenersReport {
        at: at(3_120),
        listeners,
        namespaces: 1,
        own_netns: Some(NETNS),
        unseen: Unseen::default(),
    }
}

#[track_caller]
fn check(report: &ListenersReport, expected: &str) {
    let text = listeners_text(report, Colour::Never);
    assert_eq!(text, expected, "\n{text}");
}

#[test]
fn text() {
    check(
        &report(vec![starved(), calm()]),
        "\
RISK      PROCESS                LISTENER    QUEUE    LIMIT BY     FDS        DROPS
FULL+FDS  dataforwardsrv[14807]  *:9088      129/128  application  1024/1024  ≤ 3112
          nginx[812] +3          0.0.0.0:80  0/511    application  23/1024    0
2 listeners, 1 at risk
",
    );
}

#[test]
fn text_of_what_is_unusual() {
    let all = vec![worker(), hostile(), stranger_of_proc()];
    check(
        &report(all),
        "\
RISK       PROCESS               LISTENER           QUEUE      LIMIT BY   FDS             DROPS  NETNS
queue+fds  nginx[812] +3         192.0.2.7:443      3000/4096  somaxconn  900/1024 [814]  ≤ 1    4026532281
queue      \\u{202e}x\\x0a[14807]  /run/\\x1b[2J.sock  4/5        somaxconn  9/unlimited     -
           ?                     *:25               7/?        ?          ?               -
3 listeners in 2 network namespaces, 2 at risk, 1 with a limit below 128
",
    );
}

#[test]
fn text_of_nothing() {
    check(&report(Vec::new()), "0 listeners, 0 at risk\n");
}

#[test]
fn no_line_is_wider_than_the_data_makes_it() {
    let text = listeners_text(&report(vec![starved(), calm()]), Colour::Never);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert!(text.lines().all(|line| !line.ends_with(' ')), "{text}");
}

#[test]
fn colour_is_for_risks_only() {
    let all = report(vec![starved(), worker(), calm()]);
    let plain = listeners_text(&all, Colour::Never);
    let coloured = listeners_text(&all, Colour::Always);
    let lines: Vec<&str> = coloured.lines().collect();
    assert!(lines[1].starts_with("\x1b[31mFULL+FDS\x1b[0m "), "{}", lines[1]);
    assert!(lines[2].starts_with("\x1b[33mqueue+fds\x1b[0m "), "{}", lines[2]);
    let codes = ["\x1b[31m", "\x1b[33m", "\x1b[0m"];
    let stripped = codes.iter().fold(coloured.clone(), |text, code| text.replace(code, ""));
    assert_eq!(stripped, plain);
    assert_eq!(coloured.matches('\x1b').count(), 4);
}

fn lines(report: &ListenersReport) -> (String, Vec<Value>) {
    let bytes = listeners_json(report, &clock()).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (text, lines)
}

/// Byte for byte, in the order that a person reads them in.
#[test]
fn json() {
    let process = r#"{"pid":14807,"comm":"dataforwardsrv","exe":"/opt/df/dataforwardsrv","cmdline":["dataforwardsrv","--port=9088"],"start_time":"2024-07-29T21:56:41.500Z","unit":"supervisord.service","container":null,"container_runtime":null,"pod":null,"user_slice":null,"ns_pid":14807}"#;
    let expected = [
        r#"{"schema":1,"time":"2024-07-29T21:56:43.120Z","kind":"listener","process":"#,
        process,
        r#","processes":["#,
        process,
        r#"],"listener":{"family":"inet6","address":"::","port":9088,"path":null,"netns":4026531840},"#,
        r#""inode":54321,"accept_queue":{"length":129,"limit":128},"#,
        r#""backlog":{"requested":null,"somaxconn":4096},"limit_set_by":"application","#,
        r#""fds":{"pid":14807,"open":1024,"soft":1024,"hard":4096},"drops_at_most":3112,"#,
        r#""risks":["accept_queue_full","fds_exhausted"],"notes":[]}"#,
        "\n",
        r#"{"schema":1,"time":"2024-07-29T21:56:43.120Z","kind":"listeners_summary","listeners":1,"#,
        r#""at_risk":1,"exhausted":1,"without_owner":0,"namespaces":1,"#,
        r#""unseen":{"namespaces":0,"without_limits":0,"without_unix":0}}"#,
        "\n",
    ];
    let (text, _) = lines(&report(vec![starved()]));
    assert_eq!(text, expected.concat(), "\n{text}");
}

#[test]
fn json_of_what_is_unknown() {
    let unseen = Unseen { namespaces: 1, without_limits: 2, without_unix: 3 };
    let all = report(vec![stranger_of_proc(), hostile(), worker()]);
    let (text, lines) = lines(&ListenersReport { unseen, ..all });
    let unknown = &lines[0];
    assert_eq!((&unknown["process"], &unknown["processes"]), (&Value::Null, &json!([])));
    assert_eq!(unknown["accept_queue"], json!({"length": 7, "limit": null}));
    let none = json!({"pid": null, "open": null, "soft": null, "hard": null});
    assert_eq!(unknown["fds"], none);
    assert_eq!((&unknown["drops_at_most"], &unknown["limit_set_by"]), (&Value::Null, &Value::Null));

    assert_eq!(lines[1]["listener"]["path"], "/run/\u{1b}[2J.sock");
    assert_eq!(lines[1]["process"]["comm"], "\u{202e}x\n");
    assert_eq!(lines[1]["notes"], json!(["small_limit"]));
    assert_eq!(lines[1]["limit_set_by"], "somaxconn");
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");

    assert_eq!(lines[2]["processes"].as_array().unwrap().len(), 4);
    assert_eq!((&lines[2]["process"]["pid"], &lines[2]["fds"]["pid"]), (&json!(812), &json!(814)));
    assert_eq!(lines[2]["risks"], json!(["accept_queue_filling", "fds_filling"]));
    let summary = json!({
        "schema": 1, "time": "2024-07-29T21:56:43.120Z", "kind": "listeners_summary",
        "listeners": 3, "at_risk": 2, "exhausted": 0, "without_owner": 1, "namespaces": 1,
        "unseen": {"namespaces": 1, "without_limits": 2, "without_unix": 3},
    });
    assert_eq!(lines[3], summary);
}

/// docs/listeners.md names every field, and its example is what is written.
#[test]
fn documented() {
    let docs = include_str!("../../../../docs/listeners.md");
    let (text, lines) = lines(&report(vec![starved()]));
    let mut found = Vec::new();
    for line in &lines {
        let mut line = line.clone();
        // docs/json.md explains these.
        for known in ["process", "processes"] {
            line.as_object_mut().unwrap().remove(known);
        }
        names(&line, &mut found);
    }
    for name in found {
        assert!(docs.contains(&format!("`{name}`")), "{name} is not in docs/listeners.md");
    }
    for line in text.lines() {
        assert!(docs.contains(line), "not in docs/listeners.md: {line}");
    }
    let table = listeners_text(&report(vec![starved(), calm()]), Colour::Never);
    assert!(docs.contains(&table), "not in docs/listeners.md:\n{table}");
}
