//! Real output against golden lines, the schema, and the reference.

mod refusals;

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::{
    model::{
        Backlog, Container, Door, Engine, EpisodeReport, Errno, Failure, FdLimits, FdUsage,
        Figures, Limit, ListenerAddress, LostReport, Outcome, Pid, Pod, Process, Refused, Summary,
        Target, UnixName, WarningReport,
    },
    output::fixtures::{
        at, cleared, clock, closed, diagnosed, episode, every, ipv4, lasting, listener, lost,
        names, namespace, opened, over, overflow, process, queue_warned, socket, started, stranger,
        summary, syn_queue, total, unix, unknown, updated, warned,
    },
};

fn text(report: &Report) -> String {
    let mut json = Json::new(Vec::new());
    json.write(report, &clock()).unwrap();
    String::from_utf8(json.writer).unwrap()
}

#[track_caller]
fn value(report: &Report) -> Value {
    serde_json::from_str(&text(report)).unwrap()
}

fn doc(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

struct Schema(jsonschema::Validator);

impl Schema {
    fn load() -> Self {
        let schema = serde_json::from_str(&doc("events.schema.json")).unwrap();
        Self(jsonschema::draft202012::new(&schema).unwrap())
    }

    #[track_caller]
    fn accepts(&self, value: &Value) {
        let errors: Vec<String> =
            self.0.iter_errors(value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{value:#}\n{errors:#?}");
    }
}

/// A report of every kind, and every shape of every field.
fn every_shape() -> Vec<Report> {
    let limits =
        |limit| FdUsage { open: None, limits: Some(FdLimits { soft: limit, hard: limit }) };
    let container = |engine, name: Option<&str>| Process {
        container: Some(Container { id: "4f1c0d".to_owned(), engine }),
        pod: Some(Pod { uid: "0f3a".to_owned(), name: name.map(str::to_owned) }),
        user_slice: Some("user-1000.slice".to_owned()),
        ns_pid: Some(Pid(1)),
        ..process()
    };
    let containers = vec![container(Some(Engine::Crio), Some("web-0")), container(None, None)];
    let mut episodes = vec![
        opened(),
        unknown(),
        updated(),
        socket(),
        EpisodeReport { door: Door::Socketpair, ..socket() },
        EpisodeReport { door: Door::Accept, owners: containers, ..opened() },
        EpisodeReport { fds: limits(Limit::Unlimited), ..opened() },
        EpisodeReport { failure: Failure::Errno(Errno(4000)), ..opened() },
        EpisodeReport { owners: vec![stranger(b"\xff\x1b")], ..opened() },
    ];
    let outcomes = [Outcome::Recovered, Outcome::Exited, Outcome::Unfinished];
    episodes.extend(outcomes.map(closed));
    let targets = [
        Target::NotSocket,
        Target::NotOpen,
        every(80),
        ipv4(80),
        unix(UnixName::Path(b"/run/\xff.sock".to_vec())),
        unix(UnixName::Abstract(b"web\0".to_vec())),
        unix(UnixName::Unnamed),
        unix(UnixName::Unknown),
        listener(ListenerAddress::Other(40)),
    ];
    episodes.extend(targets.map(|target| EpisodeReport { target, ..opened() }));
    let errnos = Errno::names().map(|name| Errno::parse(name).unwrap());
    let failures = errnos.map(Failure::Errno);
    episodes.extend(failures.map(|failure| EpisodeReport { failure, ..opened() }));
    episodes.extend([
        overflow(),
        lasting(overflow()),
        over(overflow(), Outcome::Exited),
        EpisodeReport { door: Door::Ack, owners: Vec::new(), ..overflow() },
        EpisodeReport {
            failure: Failure::AcceptQueueFull { syn_queue_full: true },
            backlog: Some(Backlog { requested: Some(u32::MAX), somaxconn: None }),
            refused: Some(Refused { attempts: 9, connections: None, figures: Figures::Exact }),
            ..overflow()
        },
        syn_queue(Failure::SynQueueFull),
        syn_queue(Failure::SynCookieSent),
    ]);

    let totals = episodes.iter().cloned().map(total).collect();
    let mut reports: Vec<Report> = episodes.into_iter().map(episode).collect();
    reports.extend([
        Report::Started(started()),
        Report::Diagnosed(Box::new(diagnosed())),
        Report::Warning(Box::new(warned())),
        Report::Warning(Box::new(queue_warned())),
        Report::Warning(Box::new(cleared(warned(), Outcome::Recovered))),
        Report::Warning(Box::new(cleared(queue_warned(), Outcome::Exited))),
        Report::Warning(Box::new(WarningReport {
            owners: Vec::new(),
            target: Target::Unread,
            ..queue_warned()
        })),
        Report::Lost(LostReport { at: at(0), lost: lost(3, None) }),
        Report::Summary(summary(Vec::new())),
        Report::Summary(Summary { kernel: Vec::new(), ..summary(Vec::new()) }),
        Report::Summary(Summary {
            kernel: vec![
                namespace(1, &[(3, Some(4)), (3, Some(3)), (u64::MAX, Some(0)), (9, None)]),
                namespace(2, &[(0, None); 4]),
            ],
            ..summary(Vec::new())
        }),
        Report::Summary(summary(totals)),
    ]);
    reports
}

#[test]
fn an_opened_episode() {
    assert_eq!(
        text(&episode(opened())),
        concat!(
            r#"{"schema":1,"time":"2024-07-29T21:56:43.120Z","kind":"episode_opened","#,
            r#""process":{"pid":14807,"comm":"dataforwardsrv","exe":"/opt/df/dataforwardsrv","#,
            r#""cmdline":["dataforwardsrv","--port=9088"],"#,
            r#""start_time":"2024-07-29T21:56:41.500Z","unit":"supervisord.service","#,
            r#""container":null,"container_runtime":null,"pod":null,"user_slice":null,"#,
            r#""ns_pid":14807},"#,
            r#""processes":[{"pid":14807,"comm":"dataforwardsrv","#,
            r#""exe":"/opt/df/dataforwardsrv","#,
            r#""cmdline":["dataforwardsrv","--port=9088"],"#,
            r#""start_time":"2024-07-29T21:56:41.500Z","unit":"supervisord.service","#,
            r#""container":null,"container_runtime":null,"pod":null,"user_slice":null,"#,
            r#""ns_pid":14807}],"#,
            r#""listener":{"family":"inet6","address":"::","port":9088,"path":null,"#,
            r#""netns":4026531840},"target":"listener","failure":"EMFILE","door":"accept4","#,
            r#""syn_queue_full":false,"#,
            r#""count":1,"new":1,"fds":{"open":1024,"soft":1024,"hard":4096},"#,
            r#""limit":{"kind":"nofile","value":1024},"file_handles":null,"#,
            r#""accept_queue":{"length":61,"limit":128},"backlog":null,"refused":null,"#,
            r#""first":"2024-07-29T21:56:43.119Z","#,
            r#""last":"2024-07-29T21:56:43.119Z","duration_s":0.0,"cause":null,"certainty":null}"#,
            "\n"
        )
    );
}

#[test]
fn how_episodes_go_on() {
    let update = value(&episode(updated()));
    assert_eq!(update["kind"], "episode_updated");
    assert_eq!((&update["count"], &update["new"]), (&8.into(), &7.into()));
    assert_eq!(update["duration_s"], 4.981);
    assert_eq!(update.get("outcome"), None);
    let ends = [
        (Outcome::Recovered, "recovered"),
        (Outcome::Exited, "exited"),
        (Outcome::Unfinished, "unfinished"),
    ];
    for (outcome, expected) in ends {
        let end = value(&episode(closed(outcome)));
        assert_eq!((&end["kind"], &end["outcome"]), (&"episode_closed".into(), &expected.into()));
    }
}

#[test]
fn warnings() {
    let line = value(&Report::Warning(Box::new(warned())));
    assert_eq!(line["kind"], "warning_raised");
    assert_eq!(line["fds"], json!({"open": 820, "soft": 1024, "hard": 4096}));
    assert_eq!((&line["resource"], &line["threshold"]), (&json!("fds"), &json!(80)));
    assert_eq!((&line["share"], &line["per_second"]), (&json!(0.801), &json!(2.1)));
    assert_eq!((&line["full_in_s"], &line["accept_queue"]), (&json!(97.143), &json!(null)));
    assert_eq!(line.get("outcome"), None);
    let line = value(&Report::Warning(Box::new(cleared(queue_warned(), Outcome::Recovered))));
    assert_eq!((&line["kind"], &line["outcome"]), (&json!("warning_cleared"), &json!("recovered")));
    assert_eq!(line["accept_queue"], json!({"length": 9, "limit": 20}));
    assert_eq!((&line["fds"], &line["full_in_s"]), (&json!(null), &json!(null)));
    assert_eq!(line["processes"].as_array().unwrap().len(), 4);
}

#[test]
fn unknown_is_null() {
    let line = value(&episode(unknown()));
    assert_eq!(line["process"]["comm"], "");
    for path in [
        "/process/exe",
        "/process/cmdline",
        "/process/unit",
        "/process/container",
        "/listener",
        "/fds/open",
        "/fds/soft",
        "/fds/hard",
        "/accept_queue",
        "/backlog",
        "/refused",
    ] {
        assert_eq!(line.pointer(path), Some(&Value::Null), "{path}");
    }
    assert_eq!(line["target"], "unread");
    let unlimited = FdLimits { soft: Limit::Unlimited, hard: Limit::Unlimited };
    let fds = FdUsage { open: None, limits: Some(unlimited) };
    assert_eq!(value(&episode(EpisodeReport { fds, ..opened() }))["fds"]["soft"], u64::MAX);
}

#[test]
fn listeners() {
    let listener_of =
        |target| value(&episode(EpisodeReport { target, ..opened() }))["listener"].take();
    let expected = |family, address: Option<&str>, port: Option<u16>, path: Option<&str>| {
        json!({"family": family, "address": address, "port": port, "path": path,
            "netns": 4_026_531_840_u32})
    };
    assert_eq!(listener_of(ipv4(80)), expected("inet", Some("192.0.2.7"), Some(80), None));
    assert_eq!(
        listener_of(unix(UnixName::Path(b"/run/\xff.sock".to_vec()))),
        expected("unix", None, None, Some("/run/\u{fffd}.sock"))
    );
    assert_eq!(
        listener_of(unix(UnixName::Abstract(b"a\0b".to_vec()))),
        expected("unix", None, None, Some("@a\0b"))
    );
    assert_eq!(listener_of(unix(UnixName::Unnamed)), expected("unix", None, None, Some("")));
    assert_eq!(listener_of(unix(UnixName::Unknown)), expected("unix", None, None, None));
    assert_eq!(
        listener_of(listener(ListenerAddress::Other(40))),
        expected("af_40", None, None, None)
    );
}

#[test]
fn failures_without_a_name() {
    let line = value(&episode(EpisodeReport { failure: Failure::Errno(Errno(4000)), ..opened() }));
    assert_eq!(line["failure"], "errno_4000");
}

#[test]
fn invisible_characters_are_escaped_and_not_lost() {
    let name = "\u{1b}\u{9b}\u{7f}\u{e0041}é\"\\";
    let report = episode(EpisodeReport { owners: vec![stranger(name.as_bytes())], ..opened() });
    let expected = r#""comm":"\u001b\u009b\u007f\udb40\udc41é\"\\""#;
    assert!(text(&report).contains(expected), "{}", text(&report));
    assert_eq!(value(&report)["process"]["comm"], name);
}

#[test]
fn losses_and_the_start() {
    assert_eq!(
        text(&Report::Lost(LostReport { at: at(0), lost: lost(3, None)[..1].to_vec() })),
        "{\"schema\":1,\"time\":\"2024-07-29T21:56:40.000Z\",\"kind\":\"lost\",\
         \"lost\":{\"keys_full\":3}}\n"
    );
    let line = value(&Report::Started(started()));
    assert_eq!((&line["version"], &line["kernel"]), (&"0.1.0".into(), &"6.12.117".into()));
    let refused = json!([{"form": "fexit", "why": "not permitted"}]);
    let probe = |probe, form| json!({"probe": probe, "form": form, "refused": refused});
    assert_eq!(line["probes"][2], probe("socketpair", "tracepoint"));
    assert_eq!(line["probes"][5], probe("syn", "cgroup_skb"));
}

#[test]
fn the_summary_has_everything() {
    let totals: Vec<_> =
        (1..=70).map(|port| total(EpisodeReport { target: every(port), ..opened() })).collect();
    let mut report = summary(totals);
    report.lost = lost(0, None);
    let line = value(&Report::Summary(report));
    assert_eq!(line["started"], "2024-07-29T21:56:43.000Z");
    assert_eq!(line["totals"].as_array().unwrap().len(), 70);
    assert_eq!(line["totals"][69]["listener"]["port"], 70);
    assert_eq!(line["lost"]["keys_full"], 0);
    assert_eq!(line["lost"]["program_skipped"], Value::Null);
}

#[test]
fn one_line_per_report() {
    for report in every_shape() {
        let text = text(&report);
        assert_eq!(text.find('\n'), Some(text.len() - 1), "{text}");
    }
}

#[test]
fn the_schema_describes_real_output() {
    let schema = Schema::load();
    for report in every_shape() {
        schema.accepts(&value(&report));
    }
}

#[test]
fn the_schema_refuses_what_it_does_not_describe() {
    let schema = Schema::load();
    for report in every_shape() {
        let mut line = value(&report);
        line["surprise"] = 1.into();
        assert!(!schema.0.is_valid(&line), "{line:#}");
        line.as_object_mut().unwrap().remove("surprise");
        line.as_object_mut().unwrap().remove("time");
        assert!(!schema.0.is_valid(&line), "{line:#}");
    }
    let mut line = value(&episode(opened()));
    line["process"]["surprise"] = 1.into();
    assert!(!schema.0.is_valid(&line));
    for place in ["/processes/0", "/backlog", "/refused"] {
        let mut line = value(&episode(overflow()));
        line.pointer_mut(place).unwrap()["x"] = 1.into();
        assert!(!schema.0.is_valid(&line), "{place}");
    }
    for place in ["/kernel", "/kernel/ListenDrops", "/kernel/namespaces/0"] {
        let mut line = value(&Report::Summary(summary(Vec::new())));
        line.pointer_mut(place).unwrap()["x"] = 1.into();
        assert!(!schema.0.is_valid(&line), "{place}");
    }
    let mut line = value(&episode(opened()));
    line["outcome"] = "recovered".into();
    assert!(!schema.0.is_valid(&line), "an open episode has no outcome");
}

#[test]
fn the_examples_of_the_reference_are_valid() {
    let (schema, reference) = (Schema::load(), doc("json.md"));
    let blocks = reference.split("```json\n").skip(1);
    let examples: Vec<Value> = blocks
        .map(|block| serde_json::from_str(block.split("```").next().unwrap()).unwrap())
        .collect();
    for example in &examples {
        schema.accepts(example);
    }
    for report in every_shape() {
        let kind = &value(&report)["kind"];
        assert!(examples.iter().any(|example| example["kind"] == *kind), "no example of {kind}");
    }
}

#[test]
fn the_reference_names_every_field_and_reason() {
    let reference = doc("json.md");
    // The reasons are names in the object `lost`.
    let mut found = Vec::new();
    for report in every_shape() {
        names(&value(&report), &mut found);
    }
    for name in found {
        assert!(reference.contains(&format!("`{name}`")), "docs/json.md says nothing of `{name}`");
    }
}

#[test]
fn a_diagnosis() {
    let line = value(&Report::Diagnosed(Box::new(diagnosed())));
    assert_eq!(line["kind"], "episode_diagnosed");
    let first = &line["diagnoses"][0];
    assert_eq!(
        (&first["cause"], &first["certainty"]),
        (&json!("raised_after_start"), &json!("certain"))
    );
    let soft = json!({
        "fact": "soft_limit",
        "value": 1024,
        "unit": "file descriptors",
        "source": "/proc/14807/limits",
    });
    assert_eq!(first["evidence"][0], soft);
    assert_eq!(first["evidence"][2]["value"], "2024-07-29T21:56:40.000Z");
    let now = json!({
        "when": "now",
        "text": "raise its soft limit to 4096, no restart; its hard limit is 4096",
        "command": "prlimit --pid 14807 --nofile=4096:",
    });
    assert_eq!(first["remedies"][0], now);
    assert_eq!(line["diagnoses"][1]["evidence"][0]["unit"], "share of 1");
}
