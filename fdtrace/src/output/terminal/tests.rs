//! Golden lines.

mod refusals;
mod summary;
mod warnings;

use std::{io, net::Ipv6Addr};

use super::*;
use crate::{
    model::{
        Backlog, Door, EpisodeReport, Errno, Failure, FdLimits, FdUsage, Limit, ListenerAddress,
        LostCount, LostKind, LostReport, Outcome, Refused, Report, Target, UnixName,
    },
    output::fixtures::{
        at, clock, closed, diagnosed, episode, every, inet, ipv4, lasting, listener, lost,
        namespace, nginx, opened, over, overflow, process, socket, started, stranger, summary,
        syn_queue, total, unix, unknown, updated,
    },
};

/// Keeps what it is given, write by write.
#[derive(Default)]
struct Writes(Vec<Vec<u8>>);

impl Write for Writes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.push(b"flushed".to_vec());
        Ok(())
    }
}

fn with_colour(report: &Report, colour: Colour) -> String {
    let mut terminal = Terminal::new(Writes::default(), colour).with_time_zone(TimeZone::UTC);
    terminal.write(report, &clock()).unwrap();
    let writes = terminal.writer.0;
    assert_eq!(writes.len(), 2, "one write per report");
    assert_eq!(writes[1], b"flushed");
    String::from_utf8(writes[0].clone()).unwrap()
}

fn text(report: &Report) -> String {
    with_colour(report, Colour::Never)
}

#[track_caller]
fn line(report: EpisodeReport, expected: &str) {
    assert_eq!(text(&episode(report)), format!("{expected}\n"));
}

#[test]
fn start() {
    assert_eq!(
        text(&Report::Started(started())),
        "fdtrace 0.1.0  Linux 6.12.117  calls: tracepoint  io_uring: tp_btf  queues: cgroup_skb  \
         Ctrl-C for a summary\n"
    );
    let with = |forms: &[(usize, &'static str)]| {
        let mut other = started();
        for (probe, form) in forms {
            other.probes[*probe].form = form;
        }
        let text = text(&Report::Started(other));
        let text = text.strip_prefix("fdtrace 0.1.0  Linux 6.12.117  ").unwrap();
        text.strip_suffix("  Ctrl-C for a summary\n").unwrap().to_owned()
    };
    assert_eq!(
        with(&[(1, "fexit")]),
        "accept, socketpair, listen: tracepoint  socket: fexit  io_uring: tp_btf  queues: cgroup_skb"
    );
    assert_eq!(
        with(&[(3, "none"), (4, "fexit"), (5, "fentry")]),
        "accept, socket, socketpair: tracepoint  listen: not seen  io_uring: fexit  syn: fentry  \
         ack: cgroup_skb"
    );
    assert_eq!(
        with(&[(5, "sock_diag"), (6, "sock_diag")]),
        "calls: tracepoint  io_uring: tp_btf  queues: polled, at most"
    );

    let mut less = started();
    less.probes.truncate(2);
    assert_eq!(
        text(&Report::Started(less)),
        "fdtrace 0.1.0  Linux 6.12.117  accept, socket: tracepoint  Ctrl-C for a summary\n"
    );
}

#[test]
fn an_episode_from_its_first_failure_to_its_end() {
    line(
        opened(),
        "21:56:43.120 EXHAUSTED  dataforwardsrv[14807] *:9088  EMFILE  \
         fds 1024/1024 soft (hard 4096)  queue 61/128",
    );
    line(
        updated(),
        "21:56:48.120 ongoing    dataforwardsrv[14807] *:9088  EMFILE  +7 (1/s)  \
         queue 129/128 full",
    );
    line(
        closed(Outcome::Recovered),
        "21:58:01.440 RECOVERED  dataforwardsrv[14807] *:9088  EMFILE  \
         after 1m18s: 119 failed accepts",
    );
    line(
        closed(Outcome::Exited),
        "21:58:01.440 EXITED     dataforwardsrv[14807] *:9088  EMFILE  \
         after 1m18s: 119 failed accepts",
    );
    line(
        closed(Outcome::Unfinished),
        "21:58:01.440 unfinished dataforwardsrv[14807] *:9088  EMFILE  \
         after 1m18s: 119 failed accepts so far",
    );
    line(
        EpisodeReport { count: 1, ..closed(Outcome::Recovered) },
        "21:58:01.440 RECOVERED  dataforwardsrv[14807] *:9088  EMFILE  after 1 failed accept",
    );
}

#[test]
fn who_owns_the_listener() {
    let line_of = |owners, who: &str| {
        line(
            EpisodeReport { owners, target: ipv4(80), queue: None, ..updated() },
            &format!("21:56:48.120 ongoing    {who} 192.0.2.7:80  EMFILE  +7 (1/s)"),
        );
    };
    line_of(nginx(0), "nginx[812]");
    line_of(nginx(1), "nginx[812] +1");
    line_of(nginx(64), "nginx[812] +64");
    line_of(Vec::new(), "?");
    line_of(vec![stranger(b"")], "?[14807]");
}

#[test]
fn what_is_unknown_is_not_invented() {
    line(unknown(), "21:56:43.120 EXHAUSTED  ?[14807] listener unknown  EMFILE");
    let limits = Some(FdLimits { soft: Limit::Of(1024), hard: Limit::Of(1024) });
    line(
        EpisodeReport { fds: FdUsage { open: None, limits }, ..opened() },
        "21:56:43.120 EXHAUSTED  dataforwardsrv[14807] *:9088  EMFILE  \
         fds ?/1024 soft (hard 1024)  queue 61/128",
    );
    line(
        EpisodeReport { fds: FdUsage { open: Some(9), limits: None }, queue: None, ..opened() },
        "21:56:43.120 EXHAUSTED  dataforwardsrv[14807] *:9088  EMFILE  fds 9/?",
    );
    let limits = Some(FdLimits { soft: Limit::Unlimited, hard: Limit::Unlimited });
    line(
        EpisodeReport { fds: FdUsage { open: Some(9), limits }, queue: None, ..opened() },
        "21:56:43.120 EXHAUSTED  dataforwardsrv[14807] *:9088  EMFILE  \
         fds 9/unlimited soft (hard unlimited)",
    );
    line(
        EpisodeReport { period: std::time::Duration::ZERO, queue: None, ..updated() },
        "21:56:48.120 ongoing    dataforwardsrv[14807] *:9088  EMFILE  +7",
    );
}

#[test]
fn other_errnos_are_failing_not_exhausted() {
    line(
        EpisodeReport { failure: Failure::Errno(Errno(22)), ..opened() },
        "21:56:43.120 FAILING    dataforwardsrv[14807] *:9088  EINVAL  queue 61/128",
    );
    line(
        EpisodeReport { failure: Failure::Errno(Errno(4000)), queue: None, ..opened() },
        "21:56:43.120 FAILING    dataforwardsrv[14807] *:9088  errno 4000",
    );
    line(
        EpisodeReport {
            failure: Failure::Errno(Errno(88)),
            target: Target::NotSocket,
            queue: None,
            ..opened()
        },
        "21:56:43.120 FAILING    dataforwardsrv[14807] fd is no socket  ENOTSOCK",
    );
    line(
        EpisodeReport {
            failure: Failure::Errno(Errno(9)),
            target: Target::NotOpen,
            queue: None,
            ..opened()
        },
        "21:56:43.120 FAILING    dataforwardsrv[14807] fd not open  EBADF",
    );
}

#[test]
fn calls_without_a_listener() {
    line(
        socket(),
        "21:56:43.120 EXHAUSTED  node[14807] socket()  EMFILE  fds 1024/1024 soft (hard 4096)",
    );
    let end = closed(Outcome::Recovered);
    line(
        EpisodeReport { target: Target::None, door: Door::Socket, ..end.clone() },
        "21:58:01.440 RECOVERED  dataforwardsrv[14807] socket()  EMFILE  \
         after 1m18s: 119 failed socket calls",
    );
    line(
        EpisodeReport { target: Target::None, door: Door::Socketpair, ..end },
        "21:58:01.440 RECOVERED  dataforwardsrv[14807] socketpair()  EMFILE  \
         after 1m18s: 119 failed socketpair calls",
    );
}

#[test]
fn addresses_of_all_families() {
    let long = format!("/run/{}/web.sock", "x".repeat(90));
    let cases = [
        (ipv4(80), "192.0.2.7:80"),
        (inet(Ipv6Addr::LOCALHOST.into(), 80, Some(false)), "[::1]:80"),
        (inet(Ipv6Addr::UNSPECIFIED.into(), 80, None), "[::]:80"),
        (unix(UnixName::Path(long.clone().into())), long.as_str()),
        (unix(UnixName::Path(b"/tmp/\x1b[2J\xff\\.sock".to_vec())), r"/tmp/\x1b[2J\xff\\.sock"),
        (unix(UnixName::Abstract(b"web\0\x01".to_vec())), r"@web\x00\x01"),
        (unix(UnixName::Unnamed), "unix:unnamed"),
        (unix(UnixName::Unknown), "unix:?"),
        (listener(ListenerAddress::Other(40)), "family 40"),
    ];
    for (target, expected) in cases {
        line(
            EpisodeReport { target, fds: FdUsage::default(), queue: None, ..opened() },
            &format!("21:56:43.120 EXHAUSTED  dataforwardsrv[14807] {expected}  EMFILE"),
        );
    }
}

#[test]
fn a_name_cannot_forge_a_line() {
    line(
        EpisodeReport { owners: vec![stranger(b"x\n21:56:43 OK")], ..unknown() },
        r"21:56:43.120 EXHAUSTED  x\x0a21:56:43 OK[14807] listener unknown  EMFILE",
    );
    line(
        EpisodeReport { owners: vec![stranger("a\u{202e}b\u{9b}".as_bytes())], ..unknown() },
        r"21:56:43.120 EXHAUSTED  a\u{202e}b\u{9b}[14807] listener unknown  EMFILE",
    );
}

#[test]
fn losses() {
    let lost = |reason, kind, count| LostCount { reason, kind, count };
    let report = LostReport {
        at: at(5_000),
        lost: vec![
            lost("keys_full", LostKind::Failures, Some(12)),
            lost("key_refused", LostKind::Failures, Some(1)),
            lost("ring_full", LostKind::Notices, Some(3)),
            lost("listener_unread", LostKind::Attribution, Some(2)),
            lost("program_skipped", LostKind::Calls, Some(1)),
            lost("record_undecoded", LostKind::Notices, Some(1)),
            lost("totals_full", LostKind::Attribution, Some(9)),
            lost("moon_phase", LostKind::Failures, Some(2)),
            lost("moon_phase", LostKind::Failures, None),
        ],
    };
    assert_eq!(
        text(&Report::Lost(report)),
        "\
21:56:45.000 LOST       12 failures not counted so far: keys_full (too many processes and listeners fail at once)
21:56:45.000 LOST       1 failure not counted so far: key_refused (the kernel refused to store another key)
21:56:45.000 LOST       3 notices not delivered so far: ring_full (lines may come late; every count is right)
21:56:45.000 LOST       2 failures not attributed so far: listener_unread (counted, but their listener could not be read)
21:56:45.000 LOST       1 call not seen so far: program_skipped (the kernel did not run the probe; most such calls did not fail)
21:56:45.000 LOST       1 notice not delivered so far: record_undecoded (fdtrace does not understand its own record; please report it)
21:56:45.000 LOST       9 failures not attributed so far: totals_full (too many rows; the oldest that were over are only counted here)
21:56:45.000 LOST       2 failures not counted so far: moon_phase
21:56:45.000 LOST       ? failures not counted so far: moon_phase (this kernel does not say how many)
"
    );
}

#[test]
fn colour_is_for_headlines_only() {
    let coloured = |report: &Report| with_colour(report, Colour::Always);
    assert_eq!(
        coloured(&episode(opened())),
        "21:56:43.120 \x1b[31mEXHAUSTED\x1b[0m  dataforwardsrv[14807] *:9088  EMFILE  \
         fds 1024/1024 soft (hard 4096)  queue 61/128\n"
    );
    let headline = |report: &Report| coloured(report)[13..].to_owned();
    assert!(
        headline(&episode(closed(Outcome::Recovered))).starts_with("\x1b[32mRECOVERED\x1b[0m  d")
    );
    assert!(headline(&episode(overflow())).starts_with("\x1b[31mOVERFLOW\x1b[0m   n"));
    let syn = |failure| headline(&episode(syn_queue(failure)));
    assert!(syn(Failure::SynQueueFull).starts_with("\x1b[31mSYN FULL\x1b[0m   n"));
    assert!(syn(Failure::SynCookieSent).starts_with("\x1b[33mCOOKIES\x1b[0m    n"));
    let losses = Report::Lost(LostReport { at: at(0), lost: lost(1, Some(1)) });
    assert!(headline(&losses).starts_with("\x1b[33mLOST\x1b[0m       1 failure"));
    let plain = [
        episode(updated()),
        episode(closed(Outcome::Exited)),
        Report::Started(started()),
        Report::Summary(summary(vec![total(opened())])),
    ];
    for report in plain {
        assert_eq!(coloured(&report), text(&report));
    }
}

#[test]
fn times_are_local() {
    let zone = TimeZone::fixed(jiff::tz::offset(2));
    let mut terminal = Terminal::new(Writes::default(), Colour::Never).with_time_zone(zone);
    let report = EpisodeReport { owners: vec![process()], ..opened() };
    terminal.write(&episode(report), &clock()).unwrap();
    assert!(terminal.writer.0[0].starts_with(b"23:56:43.120 EXHAUSTED"));
}

const DIAGNOSED: &str =
    "             why   soft nofile limit 1024, inherited from supervisord[812] (also 1024), which
                   started 23 days before /etc/security/limits.conf was changed to 100000
             now   raise its soft limit to 4096, no restart; its hard limit is 4096
                   $ prlimit --pid 14807 --nofile=4096:
             keep  minfds=100000 in supervisord.conf, then restart supervisord and this program
             also  likely: 900 of 1024 descriptors are established connections of clients
             keep  give it as many descriptors as clients
             more  docs/causes.md#raised_after_start
";

#[test]
fn a_diagnosis_follows_its_episode_or_names_it() {
    let mut terminal = Terminal::new(Vec::new(), Colour::Never).with_time_zone(TimeZone::UTC);
    let report = Report::Diagnosed(Box::new(diagnosed()));
    terminal.write(&episode(opened()), &clock()).unwrap();
    terminal.write(&report, &clock()).unwrap();
    terminal.write(&episode(socket()), &clock()).unwrap();
    terminal.write(&report, &clock()).unwrap();
    let text = String::from_utf8(terminal.writer).unwrap();
    let (first, later) = text.split_once("21:56:43.120 EXHAUSTED  node").unwrap();
    let (_, first) = first.split_once('\n').unwrap();
    assert_eq!(first, DIAGNOSED);
    let (_, later) = later.split_once('\n').unwrap();
    let name = "21:56:43.240 diagnosis  dataforwardsrv[14807] *:9088  EMFILE\n";
    assert_eq!(later, format!("{name}{DIAGNOSED}"));
}

#[test]
fn names_in_a_diagnosis_are_escaped_and_commands_are_not_broken() {
    let mut report = diagnosed();
    report.diagnoses.truncate(1);
    report.diagnoses[0].why = "by \u{1b}[31mred\u{202e}".to_owned();
    report.diagnoses[0].remedies[0].command = Some("long ".repeat(40));
    let text = text(&Report::Diagnosed(Box::new(report)));
    assert!(text.contains(r"why   by \x1b[31mred\u{202e}"), "{text}");
    assert!(text.contains(&format!("$ {}\n", "long ".repeat(40))), "{text}");
}
