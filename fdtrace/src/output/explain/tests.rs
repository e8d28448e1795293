//! Golden text, JSON against its schema and its page, and names that would act on a terminal.

mod cases;

use std::{fs, net::Ipv4Addr, path::PathBuf, time::Duration};

use serde_json::Value;

use self::cases::*;
use super::*;
use crate::{
    model::{
        Behaviour, Cause, ChainEnd, Comm, ExplainReport, Explanation, ListenerQuery, OpenFds, Pid,
        Tid, UnixName, Verdict,
    },
    output::{
        Colour,
        fixtures::{clock, inet, names, stranger},
    },
};

fn doc(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn check(report: &ExplainReport, expected: &str) {
    let text = explain_text(report, Colour::Never);
    assert_eq!(text, expected, "\n{text}");
}

#[test]
fn what_nobody_may_see() {
    check(
        &report(vec![hidden()]),
        "\
UNKNOWN    dataforwardsrv[14807]  fds ?/1024 soft (hard 4096)
  limit dataforwardsrv[14807] ? ← ?
  ?     unknown: what its descriptors are: not permitted; the rest
",
    );
    check(
        &report(vec![ownerless()]),
        "\
UNKNOWN    ? /run/\\x1b[2J.sock  fds ?  queue 3/?
  ?     unknown: which process has it open: none that may be looked into
",
    );
}

#[test]
fn what_is_known_of_what_nobody_may_see() {
    let mut some = hidden();
    some.diagnoses = calm().diagnoses;
    let text = explain_text(&report(vec![some]), Colour::Never);
    let note =
        "  note  whether anything is short is not known; this would be, under load:\n  why   ";
    assert!(text.contains(note), "{text}");
}

#[test]
fn what_is_fine_and_who_else_was_meant() {
    let others = (1..=9).map(bystander).collect();
    check(
        &ExplainReport { others, ..report(vec![calm()]) },
        "\
fine       dataforwardsrv[14807] *:9088  fds 20/1024 soft (hard 4096)  queue 0/128
  note  nothing is short now; this would be, under load:
  why   likely: soft nofile limit 1024 (hard 4096), inherited from supervisord[812] (also 1024)
  now   raise its soft limit to 4096, no restart; its hard limit is 4096
        $ prlimit --pid 14807 --nofile=4096:
  ?     how it grew: nobody looked before
  more  docs/causes.md#soft_limit_low

also  9 processes meant too, and not explained: dataforwardsrv[1] fds 1/1024, dataforwardsrv[2] fds
      2/1024, dataforwardsrv[3] fds 3/1024, dataforwardsrv[4] fds 4/1024, dataforwardsrv[5] fds
      5/1024, dataforwardsrv[6] fds 6/1024, dataforwardsrv[7] fds 7/1024, dataforwardsrv[8] fds
      8/1024, …
",
    );
}

#[test]
fn long_lists_are_cut() {
    let mut one = leaker();
    let many = (1..=9).map(|port| on(&inet(Ipv4Addr::LOCALHOST.into(), port, None), 0, 1));
    one.listeners = many.collect();
    let chain = (1..=9).map(|pid| ancestor(pid, b"sh", Some((1, 1)))).collect();
    one.provenance = Some(provenance(chain, ChainEnd::TooLong));
    let mut sampled = census();
    sampled.open = OpenFds::About(9000);
    one.census = Some(sampled);
    let text = explain_text(&report(vec![one]), Colour::Never);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("127.0.0.1:6 queue 0/1, 3 more"), "{text}");
    assert!(words.contains("sh[5] 1/1 ← (3 more) ← sh[9] 1/1 ← …"), "{text}");
    assert!(words.contains("fds about 9000 (of 1024 looked at) open: 923 tcp, 100 file"), "{text}");
    assert!(words.contains("at least 2 client addresses, at least 1 server"), "{text}");
}

#[test]
fn lines_are_100_wide_and_names_cannot_act_on_a_terminal() {
    let mut hostile = leaker();
    hostile.process = Some(stranger("\u{202e}x\n\x1b[2J".as_bytes()));
    hostile.unknown.push("a\x1b[2Jb".to_owned());
    let chain = vec![ancestor(1, b"\x1b[2J", None)];
    hostile.provenance = Some(provenance(chain, ChainEnd::Init));
    if let Some(census) = &mut hostile.census {
        census.paths[0].path = "/tmp/\x1b[2J".into();
    }
    hostile.behaviour = Some(Behaviour::Blocked {
        tid: Tid(1),
        comm: Comm::from_bytes(b"\x1b[2J"),
        wchan: Some("\x1b".to_owned()),
    });
    for one in [leaker(), hidden(), calm(), ownerless(), hostile] {
        let all = report(vec![one]);
        let text = explain_text(&all, Colour::Never);
        assert!(!text.contains(['\x1b', '\u{202e}']), "{text:?}");
        for line in text.lines() {
            let is_command = line.trim_start().starts_with("$ ");
            assert!(is_command || line.chars().count() <= 100, "{line}");
            assert!(!line.ends_with(' '), "{line:?}");
        }
        let json = String::from_utf8(explain_json(&all, &clock()).unwrap()).unwrap();
        assert!(!json.contains(['\x1b', '\u{202e}']), "{json:?}");
    }
}

#[test]
fn colour_is_for_the_verdict_only() {
    for (one, code) in [(leaker(), "31"), (calm(), "32")] {
        let coloured = explain_text(&report(vec![one]), Colour::Always);
        assert!(coloured.starts_with(&format!("\x1b[{code}m")), "{coloured}");
        assert_eq!(coloured.matches('\x1b').count(), 2);
    }
}

#[test]
fn what_was_asked_for_as_it_is_typed() {
    let unix = |name: &[u8]| ListenerQuery::Unix(UnixName::Abstract(name.to_vec()));
    assert_eq!(listener_query(&ListenerQuery::Port(80)), ":80");
    assert_eq!(listener_query(&ListenerQuery::Address("::1".parse().unwrap(), 80)), "[::1]:80");
    assert_eq!(listener_query(&unix(b"a\x1b")), "unix:@a\\x1b");
}

fn schema() -> jsonschema::Validator {
    let schema = serde_json::from_str(&doc("explain.schema.json")).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

fn every_shape() -> Vec<Value> {
    let mut all = vec![leaker(), hidden(), calm(), ownerless()];
    all.push(Explanation { verdict: Verdict::AtRisk, ..leaker() });
    let pid = Pid(1);
    let comm = Comm::default();
    let (tid, longest) = (Tid(1), Duration::ZERO);
    for behaviour in [
        Behaviour::Stopped,
        Behaviour::Traced { by: Some(pid) },
        Behaviour::Frozen,
        Behaviour::Blocked { tid, comm, wchan: None },
        Behaviour::BusyLoop { per_second: 1.0, cpu: None },
        Behaviour::BackingOff { longest },
        Behaviour::Pausing { pause: longest },
        Behaviour::DrainsWhileFailing,
        Behaviour::GaveUp { silent: longest },
    ] {
        all.push(Explanation { behaviour: Some(behaviour), ..leaker() });
    }
    let report = ExplainReport { others: vec![bystander(7)], ..report(all) };
    let bytes = explain_json(&report, &clock()).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_schema_describes_real_output_and_nothing_else() {
    let schema = schema();
    let mut places = vec![""];
    places.extend(["/process", "/fds", "/listeners/0", "/listeners/0/accept_queue"]);
    places.extend(["/diagnoses/0", "/diagnoses/0/evidence/0", "/diagnoses/0/remedies/0"]);
    places.extend(["/census", "/census/kinds/0", "/census/peers/0", "/census/paths/0"]);
    places.push("/limit_chain/0");
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

/// docs/explain.md names every field, and its examples are what is written.
#[test]
fn documented() {
    let docs = doc("explain.md");
    let mut found = Vec::new();
    for line in every_shape() {
        names(&line, &mut found);
    }
    for name in found {
        assert!(docs.contains(&format!("`{name}`")), "{name} is not in docs/explain.md");
    }
    let leaker = report(vec![leaker()]);
    let text = explain_text(&leaker, Colour::Never);
    assert!(docs.contains(&text), "not in docs/explain.md:\n{text}");
    let json = String::from_utf8(explain_json(&leaker, &clock()).unwrap()).unwrap();
    assert!(docs.contains(&json), "not in docs/explain.md:\n{json}");
}

/// The page that the last line of the text names has a section for each cause.
#[test]
fn every_cause_has_its_section() {
    let page = doc("causes.md");
    let sections: Vec<&str> = page.split("\n## ").skip(1).collect();
    for cause in Cause::ALL {
        let name = cause.name();
        let section = sections.iter().find(|section| section.lines().next() == Some(name));
        let section = section.unwrap_or_else(|| panic!("{name} is not in docs/causes.md"));
        for part in ["**Means.**", "**Evidence.**", "**Now.**", "**For good.**", "**Not.**"] {
            assert!(section.contains(part), "{name} has no {part}");
        }
    }
    assert_eq!(sections.len(), Cause::ALL.len());
}
