//! Clients that a listener refused, and the kernel's own counters.

use super::*;

#[test]
fn a_refusal() {
    let line = value(&episode(overflow()));
    assert_eq!(line["kind"], "episode_opened");
    assert_eq!((&line["failure"], &line["door"]), (&"accept_queue_full".into(), &"syn".into()));
    assert_eq!(line["process"]["pid"], 812);
    let pids: Vec<_> =
        line["processes"].as_array().unwrap().iter().map(|one| &one["pid"]).collect();
    assert_eq!(pids, [812, 813, 814, 815]);
    assert_eq!(line["processes"][0], line["process"]);
    assert_eq!(line["backlog"], json!({"requested": 128, "somaxconn": 4096}));
    assert_eq!(line["refused"], json!({"attempts": 9, "connections": 3, "figures": "exact"}));
    assert_eq!(line["syn_queue_full"], false);

    let nobodys = value(&episode(EpisodeReport { owners: Vec::new(), ..overflow() }));
    assert_eq!((&nobodys["process"], &nobodys["processes"]), (&Value::Null, &json!([])));

    let unknown = value(&episode(EpisodeReport {
        backlog: Some(Backlog { requested: None, somaxconn: None }),
        refused: Some(Refused { attempts: 9, connections: None, figures: Figures::Exact }),
        ..overflow()
    }));
    assert_eq!(unknown["backlog"], json!({"requested": null, "somaxconn": null}));
    assert_eq!(unknown["refused"], json!({"attempts": 9, "connections": null, "figures": "exact"}));
}

#[test]
fn failures_and_doors_of_refusals() {
    let full = |syn_queue_full| Failure::AcceptQueueFull { syn_queue_full };
    let cases = [
        (full(false), Door::Ack, "accept_queue_full", "ack", false),
        (full(true), Door::Syn, "accept_queue_full", "syn", true),
        (Failure::SynQueueFull, Door::Syn, "syn_queue_full", "syn", false),
        (Failure::SynCookieSent, Door::Syn, "syn_cookie_sent", "syn", false),
    ];
    let reports: Vec<_> = cases
        .iter()
        .map(|(failure, door, ..)| EpisodeReport { failure: *failure, door: *door, ..overflow() })
        .collect();
    let totals = reports.iter().cloned().map(total).collect();
    let end = value(&Report::Summary(summary(totals)));
    for (at, (_, _, failure, door, syn_queue_full)) in cases.into_iter().enumerate() {
        for line in [&value(&episode(reports[at].clone())), &end["totals"][at]] {
            assert_eq!((&line["failure"], &line["door"]), (&failure.into(), &door.into()));
            assert_eq!(line["syn_queue_full"], syn_queue_full);
            assert_eq!(line["processes"].as_array().unwrap().len(), 4);
        }
    }
}

fn counter(delta: u64, seen: Option<u64>, unattributed: Option<i64>) -> Value {
    json!({"delta": delta, "seen": seen, "unattributed": unattributed})
}

#[test]
fn the_kernels_own_counters() {
    let kernel_of = |kernel| {
        value(&Report::Summary(Summary { kernel, ..summary(Vec::new()) }))["kernel"].take()
    };
    let one = namespace(7, &[(5, Some(5)), (12, Some(9)), (0, Some(1)), (4, None)]);
    let expected = json!({
        "ListenOverflows": counter(5, Some(5), Some(0)),
        "ListenDrops": counter(12, Some(9), Some(3)),
        "TCPReqQFullDrop": counter(0, Some(1), Some(-1)),
        "TCPReqQFullDoCookies": counter(4, None, None),
    });
    let with = |name: &str, value: Value| {
        let mut expected = expected.clone();
        expected[name] = value;
        expected
    };
    let namespaces = json!([with("netns", 7.into())]);
    assert_eq!(kernel_of(vec![one.clone()]), with("namespaces", namespaces));

    // What is unknown of one is unknown of all.
    let other = namespace(8, &[(1, Some(0)), (1, None), (0, Some(0)), (6, Some(6))]);
    let both = kernel_of(vec![one, other]);
    assert_eq!(both["ListenOverflows"], counter(6, Some(5), Some(1)));
    assert_eq!(both["ListenDrops"], counter(13, None, None));
    assert_eq!(both["TCPReqQFullDrop"], counter(0, Some(1), Some(-1)));
    assert_eq!(both["TCPReqQFullDoCookies"], counter(10, None, None));
    assert_eq!(both["namespaces"][0]["ListenDrops"], counter(12, Some(9), Some(3)));
    assert_eq!(both["namespaces"][1]["netns"], 8);

    assert_eq!(kernel_of(Vec::new()), Value::Null);
}
