//! The table and what follows it.

use super::*;

#[test]
fn a_summary_of_nothing() {
    let mut nothing = summary(Vec::new());
    nothing.at = at(15_300);
    assert_eq!(
        text(&Report::Summary(nothing.clone())),
        "
no failed accept or socket call and no refused connection in 12s
seen by calls: tracepoint  io_uring: tp_btf  queues: cgroup_skb
kernel says ListenOverflows +0  ListenDrops +0;  fdtrace saw 0 / 0;  unattributed 0
lost 0
"
    );
    nothing.lost = lost(12, None);
    nothing.kernel = Vec::new();
    nothing.probes[5].form = "none";
    nothing.probes[6].form = "none";
    assert_eq!(
        text(&Report::Summary(nothing.clone())),
        "
no failed accept or socket call in 12s
seen by calls: tracepoint  io_uring: tp_btf  queues: not seen
kernel counters not read
lost 12 failures not counted: keys_full (too many processes and listeners fail at once)
lost ? calls not seen: program_skipped (this kernel does not say how many; the kernel did not run the probe; most such calls did not fail)
"
    );
    nothing.lost = lost(0, None);
    nothing.probes.truncate(5);
    let text = text(&Report::Summary(nothing));
    assert!(text.starts_with("\nno failed accept or socket call in 12s\n"), "{text}");
    assert!(text.contains("\nlost 0\nlost ? calls not seen: program_skipped"), "{text}");
}

#[test]
fn a_summary_table() {
    let totals = vec![
        total(EpisodeReport { count: 119_000, ..closed(Outcome::Recovered) }),
        total(EpisodeReport { count: 7, failure: Failure::Errno(Errno(97)), ..socket() }),
        total(EpisodeReport {
            owners: vec![stranger(b"a\nb")],
            target: unix(UnixName::Path(b"/run/web.sock".to_vec())),
            failure: Failure::Errno(Errno(4000)),
            ..opened()
        }),
    ];
    assert_eq!(
        text(&Report::Summary(summary(totals))),
        r"
process                listener       failure        count  first     last
dataforwardsrv[14807]  *:9088         EMFILE        119000  21:56:43  21:58:01
node[14807]            socket()       EAFNOSUPPORT       7  21:56:43  21:56:43
a\x0ab[14807]          /run/web.sock  errno 4000         1  21:56:43  21:56:43
seen by calls: tracepoint  io_uring: tp_btf  queues: cgroup_skb
kernel says ListenOverflows +0  ListenDrops +0;  fdtrace saw 0 / 0;  unattributed 0
lost 0
"
    );
}

#[test]
fn the_call_is_named_where_rows_would_look_the_same() {
    let row = |door| total(EpisodeReport { door, ..opened() });
    assert_eq!(
        text(&Report::Summary(summary(vec![row(Door::Accept4), row(Door::Accept)]))),
        "
process                listener  call     failure  count  first     last
dataforwardsrv[14807]  *:9088    accept4  EMFILE       1  21:56:43  21:56:43
dataforwardsrv[14807]  *:9088    accept   EMFILE       1  21:56:43  21:56:43
seen by calls: tracepoint  io_uring: tp_btf  queues: cgroup_skb
kernel says ListenOverflows +0  ListenDrops +0;  fdtrace saw 0 / 0;  unattributed 0
lost 0
"
    );
    let other = total(EpisodeReport { door: Door::Accept, target: every(80), ..opened() });
    let text = text(&Report::Summary(summary(vec![row(Door::Accept4), other])));
    assert!(!text.contains(" call "), "{text}");
}

#[test]
fn long_runs_have_dates() {
    let mut long = summary(vec![total(opened())]);
    long.at = at(3 * 3_600_000);
    assert_eq!(
        text(&Report::Summary(long)),
        "
process                listener  failure  count  first           last
dataforwardsrv[14807]  *:9088    EMFILE       1  07-29 21:56:43  07-29 21:56:43
seen by calls: tracepoint  io_uring: tp_btf  queues: cgroup_skb
kernel says ListenOverflows +0  ListenDrops +0;  fdtrace saw 0 / 0;  unattributed 0
lost 0
"
    );
}

#[test]
fn at_most_fifty_rows() {
    let rows = |count: u16| {
        (1..=count).map(|port| total(EpisodeReport { target: every(port), ..opened() }))
    };
    let lines = |count| text(&Report::Summary(summary(rows(count).collect())));
    assert!(lines(50).contains("*:50 ") && !lines(50).contains("more"));
    let text = lines(53);
    assert!(!text.contains("*:51 "));
    assert!(text.contains("\nand 3 more\nseen by calls") && text.ends_with("\nlost 0\n"), "{text}");
}

#[test]
fn refusals_are_rows_and_the_kernel_stands_beside_them() {
    let door = |door, count, syn_queue_full| {
        let failure = Failure::AcceptQueueFull { syn_queue_full };
        total(EpisodeReport { door, failure, count, ..over(overflow(), Outcome::Recovered) })
    };
    let one = |failure, count| total(EpisodeReport { count, ..syn_queue(failure) });
    let mut early = door(Door::Ack, 400, false);
    early.first = at(2_000);
    let mut late = door(Door::Syn, 100, true);
    late.last = at(83_000);
    let nobodys = EpisodeReport { owners: Vec::new(), ..overflow() };
    let mut report = summary(vec![
        total(EpisodeReport { count: 3000, ..closed(Outcome::Recovered) }),
        door(Door::Syn, 2612, false),
        early,
        one(Failure::SynCookieSent, 300),
        one(Failure::SynQueueFull, 200),
        late,
        total(EpisodeReport { door: Door::Accept, ..opened() }),
        total(EpisodeReport { target: ipv4(80), ..nobodys }),
    ]);
    report.kernel = vec![namespace(
        4_026_531_840,
        &[(3121, Some(3121)), (3324, Some(3321)), (200, Some(200)), (400, Some(400))],
    )];
    assert_eq!(
        text(&Report::Summary(report)),
        "
process                listener      call     failure            count  first     last
nginx[812] +3          *:80                   accept queue full   3112  21:56:42  21:58:03
dataforwardsrv[14807]  *:9088        accept4  EMFILE              3000  21:56:43  21:58:01
nginx[812] +3          *:80                   SYN cookie sent      300  21:56:43  21:56:43
nginx[812] +3          *:80                   SYN queue full       200  21:56:43  21:56:43
?                      192.0.2.7:80           accept queue full      9  21:56:43  21:56:43
dataforwardsrv[14807]  *:9088        accept   EMFILE                 1  21:56:43  21:56:43
seen by calls: tracepoint  io_uring: tp_btf  queues: cgroup_skb
kernel says ListenOverflows +3121  ListenDrops +3324  TCPReqQFullDrop +200  TCPReqQFullDoCookies +400;  fdtrace saw 3121 / 3321 / 200 / 400;  unattributed ListenDrops 3 (other refusals in LISTEN: see docs)
lost 0
"
    );
}

#[test]
fn other_listeners_and_owners_stay_apart() {
    let row = |report| total(EpisodeReport { door: Door::Ack, ..report });
    let rows = [
        overflow(),
        EpisodeReport { owners: nginx(4), ..overflow() },
        EpisodeReport { target: every(81), ..overflow() },
        syn_queue(Failure::SynQueueFull),
    ];
    let totals: Vec<_> =
        rows.iter().cloned().map(total).chain(rows.iter().cloned().map(row)).collect();
    let text = text(&Report::Summary(summary(totals)));
    let counts = text.lines().filter(|line| line.contains("  18  ")).count();
    assert_eq!(counts, 4, "{text}");
}
