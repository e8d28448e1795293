//! The table and what follows it.

use super::*;

#[test]
fn a_summary_of_nothing() {
    let mut nothing = summary(Vec::new());
    nothing.at = at(15_300);
    assert_eq!(
        text(&Report::Summary(nothing.clone())),
        "\nno failed accept or socket call in 12s\nlost 0\n"
    );
    nothing.lost = lost(12, None);
    assert_eq!(
        text(&Report::Summary(nothing.clone())),
        "
no failed accept or socket call in 12s
lost 12 failures not counted: keys_full (too many processes and listeners fail at once)
lost ? calls not seen: program_skipped (this kernel does not say how many; the kernel did not run the probe; most such calls did not fail)
"
    );
    nothing.lost = lost(0, None);
    let text = text(&Report::Summary(nothing));
    assert!(text.contains("\nlost 0\nlost ? calls not seen: program_skipped"), "{text}");
}

#[test]
fn a_summary_table() {
    let totals = vec![
        total(EpisodeReport { count: 119_000, ..closed(Outcome::Recovered) }),
        total(EpisodeReport { count: 7, errno: Errno(97), ..socket() }),
        total(EpisodeReport {
            process: stranger(b"a\nb"),
            target: unix(UnixName::Path(b"/run/web.sock".to_vec())),
            errno: Errno(4000),
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
lost 0
"
    );
    let other = total(EpisodeReport { door: Door::Accept, target: every(80), ..opened() });
    let text = text(&Report::Summary(summary(vec![row(Door::Accept4), other])));
    assert!(!text.contains("call"), "{text}");
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
    assert!(text.ends_with("\nand 3 more\nlost 0\n"), "{text}");
}
