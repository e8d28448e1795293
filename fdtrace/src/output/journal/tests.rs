//! Entries as journald takes them apart.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    model::{Comm, LostReport, Phase},
    output::fixtures,
};

/// Takes an entry apart as the protocol says.
fn fields(mut entry: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while !entry.is_empty() {
        let line = entry.iter().position(|byte| *byte == b'\n').unwrap();
        let text = std::str::from_utf8(&entry[..line]).unwrap();
        let (name, value, rest) = if let Some((name, value)) = text.split_once('=') {
            (name, value.to_owned(), &entry[line + 1..])
        } else {
            let (length, rest) = entry[line + 1..].split_at(8);
            let length = usize::try_from(u64::from_le_bytes(length.try_into().unwrap())).unwrap();
            let (value, rest) = rest.split_at(length);
            (text, String::from_utf8(value.to_vec()).unwrap(), rest.strip_prefix(b"\n").unwrap())
        };
        assert!(fields.insert(name.to_owned(), value).is_none(), "{name} twice");
        entry = rest;
    }
    fields
}

fn of(report: &Report) -> BTreeMap<String, String> {
    let mut sent = Vec::new();
    let mut journal = Journal::new(|entry: &[u8]| {
        sent.push(entry.to_vec());
        Ok(())
    });
    journal.write(report, &fixtures::clock()).unwrap();
    assert_eq!(sent.len(), 1);
    fields(&sent[0])
}

#[test]
fn an_episode_says_whose_and_why() {
    let fields = of(&Report::Episode(Box::new(fixtures::opened())));
    let expected = [
        ("PRIORITY", "3"),
        ("SYSLOG_IDENTIFIER", "fdtrace"),
        ("MESSAGE_ID", "c2362ceaf33449cf8f2861c37fe9f379"),
        ("FDTRACE_KIND", "episode_opened"),
        ("FDTRACE_PROCESS", "dataforwardsrv"),
        ("FDTRACE_PID", "14807"),
        ("OBJECT_PID", "14807"),
        ("FDTRACE_UNIT", "supervisord.service"),
        ("FDTRACE_LISTENER", "*:9088"),
        ("FDTRACE_FAILURE", "EMFILE"),
        ("FDTRACE_DOOR", "accept4"),
        ("FDTRACE_COUNT", "1"),
    ];
    for (name, value) in expected {
        assert_eq!(fields.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(fields.len(), expected.len() + 1, "{fields:?}");
    assert!(fields["MESSAGE"].starts_with("EXHAUSTED  dataforwardsrv[14807] *:9088  EMFILE"));
}

/// Whatever a process calls itself, it makes no field and no line.
#[test]
fn a_name_makes_no_field() {
    let mut report = fixtures::opened();
    report.owners[0].comm = Comm::from_bytes(b"a\nMESSAGE=x");
    let fields = of(&Report::Episode(Box::new(report)));
    assert_eq!(fields["FDTRACE_PROCESS"], "a\\x0aMESSAGE=x");
    assert!(fields["MESSAGE"].contains("a\\x0aMESSAGE=x"), "{fields:?}");
}

#[test]
fn lines_are_one_message() {
    let lost = |reason, count| LostCount { reason, kind: crate::model::LostKind::Notices, count };
    let lost = vec![lost("ring_full", Some(3)), lost("program_skipped", Some(9))];
    let fields = of(&Report::Lost(LostReport { at: fixtures::at(1), lost }));
    assert_eq!(fields["MESSAGE"].lines().count(), 2, "{fields:?}");
    assert_eq!(fields["FDTRACE_LOST"], "ring_full=3 program_skipped=9");
}

#[test]
fn kinds_have_ids_of_their_own() {
    let mut ids = BTreeSet::new();
    for phase in [Phase::Opened, Phase::Updated, Phase::Closed(Outcome::Recovered)] {
        let episode = EpisodeReport { phase, ..fixtures::opened() };
        ids.insert(of(&Report::Episode(Box::new(episode)))["MESSAGE_ID"].clone());
    }
    let warning = fixtures::warned();
    ids.insert(of(&Report::Warning(Box::new(warning)))["MESSAGE_ID"].clone());
    assert_eq!(ids.len(), 4);
    for id in ids {
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }
}

#[test]
fn every_field_and_id_is_documented() {
    let docs = include_str!("../../../../docs/daemon.md");
    let source = include_str!("mod.rs");
    let words = source.split('"').filter(|word| {
        let is_id = word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id || word.starts_with("FDTRACE_")
    });
    let words: Vec<_> = words.collect();
    assert!(words.len() > 25, "{words:?}");
    for word in words {
        assert!(docs.contains(&format!("`{word}`")), "{word}");
    }
}

#[test]
fn what_is_too_long_is_cut_at_a_character() {
    assert_eq!(cut("größe", 3), "gr");
    assert_eq!(cut("größe", 4), "grö");
    assert_eq!(cut("a", 3), "a");
    assert_eq!(without_time("21:56:43.120 x"), "x");
    assert_eq!(without_time("21:56:43.12x x"), "21:56:43.12x x");
}
