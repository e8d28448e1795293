//! Why, and what to do: the lines below the one that says what failed.

use std::fmt::Write as _;

use super::words::{Times, on_what, who, why};
use crate::{
    model::{Cause, Certainty, Diagnosis, DiagnosisReport, EpisodeReport, Failure, Remedy, When},
    output::sanitize,
};

/// Where the text of these lines starts: below the name in the line above them.
const INDENT: usize = 13;
/// `why   `
const LABEL: usize = 6;
/// Lines are broken before this, but for a command, which is there to be copied.
const WIDTH: usize = 100;

/// A headline, and the lines below it.
pub(super) fn report(report: &DiagnosisReport, times: &Times<'_>, follows: bool) -> String {
    let mut text = String::new();
    let EpisodeReport { owners, target, door, failure, .. } = &report.episode;
    if !follows {
        let reason = match *failure {
            Failure::SynCookieSent => why(Failure::SynQueueFull),
            failure => why(failure),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} diagnosis  {} {}  {reason}",
            times.precise(report.at),
            who(owners),
            on_what(target, *door)
        );
    }
    text.push_str(&lines(&report.diagnoses, INDENT, Detail::Brief));
    more(&mut text, INDENT, &report.diagnoses);
    text
}

/// Where the cause to act on is explained.
pub(in crate::output) fn more(text: &mut String, indent: usize, diagnoses: &[Diagnosis]) {
    let known = diagnoses.iter().find(|diagnosis| diagnosis.cause != Cause::Unknown);
    if let Some(diagnosis) = known {
        let page = format!("{CAUSES}#{}", diagnosis.cause.name());
        push(text, indent, "more", &page, None);
    }
}

/// The page of all causes. The package has it in /usr/share/doc/fdtrace.
pub(in crate::output) const CAUSES: &str = "docs/causes.md";

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::output) enum Detail {
    /// Among other lines: the mildest remedy for now and the one for good, and no more than that
    /// for good of causes beside the first.
    Brief,
    /// To who asked.
    Full,
}

/// `why`, `now` and `keep` of each diagnosis, and what is not known.
pub(in crate::output) fn lines(diagnoses: &[Diagnosis], indent: usize, detail: Detail) -> String {
    let mut text = String::new();
    for (place, diagnosis) in diagnoses.iter().enumerate() {
        let unsure = if diagnosis.certainty == Certainty::Likely { "likely: " } else { "" };
        let label = if place == 0 { "why" } else { "also" };
        push(&mut text, indent, label, &format!("{unsure}{}", diagnosis.why), None);
        let mut told = Vec::new();
        for Remedy { when, text: what, command } in &diagnosis.remedies {
            if detail == Detail::Brief {
                if told.contains(when) || (place > 0 && *when == When::Now) {
                    continue;
                }
                told.push(*when);
            }
            let label = match when {
                When::Now => "now",
                When::ForGood => "keep",
            };
            push(&mut text, indent, label, what, command.as_deref());
        }
        // Of what is not sure, what would make it so.
        let is_unsure = diagnosis.certainty == Certainty::Likely && !diagnosis.unknown.is_empty();
        if is_unsure && (place == 0 || detail == Detail::Full) {
            push(&mut text, indent, "?", &diagnosis.unknown.join("; "), None);
        }
    }
    text
}

/// A labelled paragraph, and a command on a line of its own.
pub(in crate::output) fn push(
    text: &mut String,
    indent: usize,
    label: &str,
    words: &str,
    command: Option<&str>,
) {
    let start = indent + LABEL;
    let mut column = start;
    let _ = write!(text, "{:indent$}{label:<LABEL$}", "");
    for (place, word) in words.split_ascii_whitespace().enumerate() {
        let word = sanitize::escape(word.as_bytes());
        let length = word.chars().count();
        if place > 0 && column + 1 + length > WIDTH {
            let _ = write!(text, "\n{:start$}", "");
            column = start;
        } else if place > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(&word);
        column += length;
    }
    if let Some(command) = command {
        let _ = write!(text, "\n{:start$}$ {}", "", sanitize::escape(command.as_bytes()));
    }
    text.push('\n');
}
