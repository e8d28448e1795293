//! First the answer, then why and what to do, then the facts. Layout only; the lines are not a
//! format to parse.

use std::slice;

use super::facts;
use crate::{
    model::{
        Bystander, ExplainReport, Explanation, ListenerAddress, ListenerQuery, ListenerReport,
        UnixName, Verdict,
    },
    output::terminal::{
        Colour,
        diagnosis::{Detail, lines, more, push},
        line,
        words::{Tone, address, counted, headline, who},
    },
};

/// Everything below the first line starts here.
pub(super) const INDENT: usize = 2;
/// Between the parts of a line.
const GAP: &str = "  ";
/// Others that are named.
const MOST_OTHERS: usize = 8;

/// The explanations, and who else was meant.
#[must_use]
pub fn explain_text(report: &ExplainReport, colour: Colour) -> String {
    let all = report.explanations.iter().map(|one| explanation(one, colour));
    let mut text = all.collect::<Vec<_>>().join("\n");
    if !report.others.is_empty() {
        text.push('\n');
        others(&mut text, &report.others);
    }
    text
}

/// What was asked for, as it is typed.
#[must_use]
pub fn listener_query(query: &ListenerQuery) -> String {
    match query {
        ListenerQuery::Port(port) => format!(":{port}"),
        ListenerQuery::Address(ip, port) => {
            ListenerAddress::Inet { ip: *ip, port: *port, dual_stack: None }.to_string()
        }
        ListenerQuery::Unix(name @ (UnixName::Path(_) | UnixName::Abstract(_))) => {
            format!("unix:{}", address(&ListenerAddress::Unix(name.clone())))
        }
        ListenerQuery::Unix(name) => address(&ListenerAddress::Unix(name.clone())),
    }
}

fn explanation(explanation: &Explanation, colour: Colour) -> String {
    let mut text = first_line(explanation, colour);
    let note = match explanation.verdict {
        Verdict::Exhausted | Verdict::AtRisk => None,
        Verdict::Unknown => {
            Some("whether anything is short is not known; this would be, under load:")
        }
        Verdict::Fine => Some("nothing is short now; this would be, under load:"),
    };
    if let Some(note) = note.filter(|_| !explanation.diagnoses.is_empty()) {
        push(&mut text, INDENT, "note", note, None);
    }
    // Where nothing is short, one thing to do is enough.
    let detail = if note.is_some() { Detail::Brief } else { Detail::Full };
    text.push_str(&lines(&explanation.diagnoses, INDENT, detail));
    facts::push_all(&mut text, explanation);
    more(&mut text, INDENT, &explanation.diagnoses);
    text
}

/// `EXHAUSTED  nginx[812] *:80 +1  fds 1024/1024 soft (hard 4096)  queue 129/128 full`
fn first_line(explanation: &Explanation, colour: Colour) -> String {
    let (word, tone) = match explanation.verdict {
        Verdict::Exhausted => ("EXHAUSTED", Tone::Bad),
        Verdict::AtRisk => ("AT RISK", Tone::Warning),
        Verdict::Unknown => ("UNKNOWN", Tone::Neutral),
        Verdict::Fine => ("fine", Tone::Good),
    };
    let process = explanation.process.as_slice();
    let mut subject = who(process);
    if let Some((first, others)) = explanation.listeners.split_first() {
        subject = format!("{subject} {}", address(&first.socket.listener.address));
        if !others.is_empty() {
            subject = format!("{subject} +{}", others.len());
        }
    }
    let mut parts = vec![format!("{}{subject}", headline(word, tone, colour))];
    let usage = explanation.fds.map(|fds| fds.usage).unwrap_or_default();
    parts.push(line::fds(&usage).unwrap_or_else(|| "fds ?".to_owned()));
    parts.extend(explanation.listeners.first().map(queue));
    parts.join(GAP) + "\n"
}

/// `queue 129/128 full`
pub(super) fn queue(listener: &ListenerReport) -> String {
    let known =
        |value: Option<u32>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
    let is_full = listener.socket.queue().is_some_and(|queue| queue.is_full());
    let full = if is_full { " full" } else { "" };
    format!("queue {}/{}{full}", known(listener.socket.length), known(listener.socket.limit))
}

fn others(text: &mut String, others: &[Bystander]) {
    let shown = others.iter().take(MOST_OTHERS).map(|other| {
        let fds = line::fds(&other.fds.usage).unwrap_or_else(|| "fds ?".to_owned());
        let fds = fds.split(" soft").next().unwrap_or_default();
        format!("{} {fds}", who(slice::from_ref(&other.process)))
    });
    let mut words = format!(
        "{} meant too, and not explained: {}",
        counted(others.len() as u64, "process").replace("processs", "processes"),
        shown.collect::<Vec<_>>().join(", ")
    );
    if others.len() > MOST_OTHERS {
        words.push_str(", …");
    }
    push(text, 0, "also", &words, None);
}
