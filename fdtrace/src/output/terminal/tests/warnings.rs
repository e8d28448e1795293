//! Warnings, line by line.

use std::time::Duration;

use super::text;
use crate::{
    model::{Filling, Outcome, Report, Target, Warning, WarningReport},
    output::fixtures::{cleared, queue_warned, warned},
};

#[track_caller]
fn line(report: WarningReport, expected: &str) {
    assert_eq!(text(&Report::Warning(Box::new(report))), format!("{expected}\n"));
}

#[test]
fn from_the_warning_to_its_end() {
    line(
        warned(),
        "21:56:43.120 WARNING    nginx[812] *:80  fds 820/1024 soft (80 %)  \
         +2.1/s, full in 1m37s",
    );
    line(
        cleared(warned(), Outcome::Recovered),
        "21:58:01.440 RECOVERED  nginx[812] *:80  fds 410/1024 soft (40 %)  \
         after 1m19s: at most 980",
    );
    line(
        cleared(warned(), Outcome::Exited),
        "21:58:01.440 EXITED     nginx[812] *:80  fds 410/1024 soft (40 %)  \
         after 1m19s: at most 980",
    );
    line(queue_warned(), "21:56:43.120 WARNING    nginx[812] +3 *:80  accept queue 18/20 (90 %)");
    let unread = WarningReport { target: Target::Unread, owners: Vec::new(), ..queue_warned() };
    line(unread, "21:56:43.120 WARNING    ? listener unknown  accept queue 18/20 (90 %)");
}

#[test]
fn how_fast_it_fills() {
    let with = |per_second, seconds| {
        let filling = Some(Filling { per_second, full_in: Duration::from_secs(seconds) });
        let warning = Warning { filling, ..warned().warning };
        let text = text(&Report::Warning(Box::new(WarningReport { warning, ..warned() })));
        text.trim_end().rsplit_once("(80 %)").unwrap().1.trim_start().to_owned()
    };
    assert_eq!(with(123.4, 2), "+123/s, full in 2.0s");
    assert_eq!(with(1.0, 204), "+1.0/s, full in 3m24s");
    assert_eq!(with(0.5, 408), "+30/min, full in 6m48s");
    assert_eq!(with(0.03, 6800), "+1.8/min, full in 1h53m");
    assert_eq!(with(0.001, 204_000), "");
}
