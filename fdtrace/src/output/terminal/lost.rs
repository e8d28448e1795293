//! What was not counted or not delivered, in an operator's words.

use std::fmt::Write as _;

use super::{
    Colour,
    words::{Times, Tone, counted, headline},
};
use crate::model::{LostCount, LostKind, LostReport};

/// One line per loss that grew.
pub(super) fn lines(report: &LostReport, times: &Times<'_>, colour: Colour) -> String {
    let time = times.precise(report.at);
    let headline = headline("LOST", Tone::Warning, colour);
    let mut text = String::new();
    for lost in &report.lost {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{time} {headline}{}", phrase(lost, " so far"));
    }
    text
}

/// The end of the summary: `lost 0`, or a line per loss.
pub(super) fn summary(lost: &[LostCount]) -> String {
    let mut text = String::new();
    for lost in lost.iter().filter(|lost| lost.count.is_some_and(|count| count > 0)) {
        let _ = writeln!(text, "lost {}", phrase(lost, ""));
    }
    if text.is_empty() {
        text.push_str("lost 0\n");
    }
    // Nobody may take an unknown number for none.
    for lost in lost.iter().filter(|lost| lost.count.is_none()) {
        let _ = writeln!(text, "lost {}", phrase(lost, ""));
    }
    text
}

/// `12 failures not counted: keys_full (…)`
fn phrase(lost: &LostCount, so_far: &str) -> String {
    let number =
        |noun| lost.count.map_or_else(|| format!("? {noun}s"), |count| counted(count, noun));
    let what = match lost.kind {
        LostKind::Failures => format!("{} not counted", number("failure")),
        LostKind::Calls => format!("{} not seen", number("call")),
        LostKind::Notices => format!("{} not delivered", number("notice")),
        LostKind::Attribution => format!("{} not attributed", number("failure")),
    };
    let unknown = lost.count.is_none().then_some("this kernel does not say how many");
    let notes: Vec<&str> = unknown.into_iter().chain(why(lost.reason)).collect();
    let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
    format!("{what}{so_far}: {}{notes}", lost.reason)
}

fn why(reason: &str) -> Option<&'static str> {
    match reason {
        "keys_full" => Some("too many processes and listeners fail at once"),
        "key_refused" => Some("the kernel refused to store another key"),
        "ring_full" => Some("lines may come late; every count is right"),
        "listener_unread" => Some("counted, but their listener could not be read"),
        "program_skipped" => Some("the kernel did not run the probe; most such calls did not fail"),
        "record_undecoded" => Some("fdtrace does not understand its own record; please report it"),
        "totals_full" => Some("too many rows; the oldest that were over are only counted here"),
        _ => None,
    }
}
