//! Reports as entries of systemd's journal, with fields to search by.
//!
//! An entry is one datagram of the journal's native protocol
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>). It is kept so small that it fits into one: a
//! larger one would need a file descriptor, and those may just have run out. Names of fields and the
//! ids are promised: docs/daemon.md.

#[cfg(test)]
mod tests;

use std::io;

use jiff::tz::TimeZone;

use super::{Colour, Sink, Terminal, json::view, sanitize, terminal::words};
use crate::model::{
    Diagnosis, Door, EpisodeReport, LostCount, Outcome, Phase, Process, Report, Resource, Target,
    WallClock,
};

/// The most of a message; the table of a summary can be longer.
const MOST_MESSAGE: usize = 32 << 10;
/// The most of any other field.
const MOST_FIELD: usize = 4 << 10;

/// Syslog's levels.
const ERROR: &str = "3";
const WARNING: &str = "4";
const NOTICE: &str = "5";
const INFO: &str = "6";

/// Sends an entry of each report.
pub struct Journal<F> {
    send: F,
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Journal<F> {
    /// `send` sends one datagram to journald.
    pub const fn new(send: F) -> Self {
        Self { send }
    }
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Sink for Journal<F> {
    fn write(&mut self, report: &Report, clock: &WallClock) -> io::Result<()> {
        (self.send)(&entry(report, clock)?)
    }
}

/// What a report is: its name as in JSON, its id, its level.
const fn kind(report: &Report) -> (&'static str, &'static str, &'static str) {
    match report {
        Report::Started(_) => ("started", "3c9c1257cf134b7998dcc0b45e7d07d5", INFO),
        Report::Episode(episode) => match episode.phase {
            Phase::Opened => {
                let level = if episode.failure.is_exhaustion() { ERROR } else { WARNING };
                ("episode_opened", "c2362ceaf33449cf8f2861c37fe9f379", level)
            }
            Phase::Updated => ("episode_updated", "97868884cc26439ca3c149e9e59d99cd", WARNING),
            Phase::Closed(_) => ("episode_closed", "57b94747b4bc4f4489bfd10f713fcc32", NOTICE),
        },
        Report::Diagnosed(_) => ("episode_diagnosed", "bb92c44340ad42bf80bf13e29ac22c9b", WARNING),
        Report::Warning(warning) if warning.warning.outcome.is_none() => {
            ("warning_raised", "2e551a985e2b4387b5ee210f90928f1a", WARNING)
        }
        Report::Warning(_) => ("warning_cleared", "05b3359a7160406c9cddaf2b338af7aa", NOTICE),
        Report::Lost(_) => ("lost", "df9bb259c6054f2a8355ffe2348c957a", WARNING),
        Report::Summary(_) => ("summary", "6d742c45a3e64fd4b24c7f4619aef9f1", INFO),
    }
}

fn entry(report: &Report, clock: &WallClock) -> io::Result<Vec<u8>> {
    let (name, id, priority) = kind(report);
    let mut entry = Entry(Vec::new());
    entry.push("MESSAGE", cut(&message(report, clock)?, MOST_MESSAGE));
    entry.field("PRIORITY", priority);
    entry.field("SYSLOG_IDENTIFIER", "fdtrace");
    entry.field("MESSAGE_ID", id);
    entry.field("FDTRACE_KIND", name);
    match report {
        Report::Started(started) => {
            entry.field("FDTRACE_VERSION", started.version);
            let forms = started.probes.iter().map(|one| format!("{}={}", one.probe, one.form));
            entry.field("FDTRACE_PROBES", &forms.collect::<Vec<_>>().join(" "));
        }
        Report::Episode(episode) => entry.episode(episode),
        Report::Diagnosed(report) => {
            entry.episode(&report.episode);
            if let Some(first) = report.diagnoses.first() {
                entry.cause(first);
            }
        }
        Report::Warning(report) => {
            entry.whose(&report.owners, &report.target);
            let resource = match report.resource {
                Resource::Fds(_) => "fds",
                Resource::AcceptQueue => "accept_queue",
            };
            entry.field("FDTRACE_RESOURCE", resource);
            entry.field("FDTRACE_USED", &report.warning.gauge.used.to_string());
            entry.field("FDTRACE_LIMIT", &report.warning.gauge.limit.to_string());
            entry.field("FDTRACE_THRESHOLD", &report.warning.threshold.to_string());
            entry.outcome(report.warning.outcome);
        }
        Report::Lost(report) => entry.lost(&report.lost),
        Report::Summary(summary) => {
            let sum: u64 = summary.totals.iter().map(|total| total.count).sum();
            entry.field("FDTRACE_COUNT", &sum.to_string());
            entry.lost(&summary.lost);
        }
    }
    Ok(entry.0)
}

/// What a person reads: the terminal's lines, without the time, which the journal has.
fn message(report: &Report, clock: &WallClock) -> io::Result<String> {
    let mut text = Vec::new();
    let zone = TimeZone::try_system().unwrap_or(TimeZone::UTC);
    Terminal::new(&mut text, Colour::Never).with_time_zone(zone).write(report, clock)?;
    let text = String::from_utf8(text).map_err(io::Error::other)?;
    Ok(without_time(text.trim_end()).to_owned())
}

/// Without a leading `21:56:43.120 `.
fn without_time(text: &str) -> &str {
    const PATTERN: &[u8] = b"00:00:00.000 ";
    let is_time = text.len() > PATTERN.len()
        && text.bytes().zip(PATTERN).all(|(byte, pattern)| match pattern {
            b'0' => byte.is_ascii_digit(),
            _ => byte == *pattern,
        });
    if is_time { &text[PATTERN.len()..] } else { text }
}

/// Fields, as the journal's protocol has them.
struct Entry(Vec<u8>);

impl Entry {
    /// Nothing is said of what is unknown.
    fn field(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.push(name, cut(value, MOST_FIELD));
        }
    }

    fn push(&mut self, name: &str, value: &str) {
        self.0.extend(name.as_bytes());
        if value.contains('\n') {
            self.0.push(b'\n');
            self.0.extend((value.len() as u64).to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend(value.as_bytes());
        self.0.push(b'\n');
    }

    fn episode(&mut self, episode: &EpisodeReport) {
        self.whose(&episode.owners, &episode.target);
        self.field("FDTRACE_FAILURE", &view::failure(episode.failure));
        self.field("FDTRACE_DOOR", Door::name(episode.door));
        self.field("FDTRACE_COUNT", &episode.count.to_string());
        if let Some(known) = episode.cause {
            self.field("FDTRACE_CAUSE", known.cause.name());
        }
        self.outcome(episode.outcome());
    }

    fn cause(&mut self, diagnosis: &Diagnosis) {
        self.field("FDTRACE_CAUSE", diagnosis.cause.name());
        let command = diagnosis.remedies.iter().find_map(|remedy| remedy.command.as_deref());
        self.field("FDTRACE_COMMAND", &sanitize::escape(command.unwrap_or_default().as_bytes()));
    }

    fn outcome(&mut self, outcome: Option<Outcome>) {
        self.field("FDTRACE_OUTCOME", outcome.map(Outcome::name).unwrap_or_default());
    }

    fn whose(&mut self, owners: &[Process], target: &Target) {
        if let Some(lead) = owners.first() {
            let text = |text: Option<&String>| {
                sanitize::escape(text.map(String::as_bytes).unwrap_or_default())
            };
            self.field("FDTRACE_PROCESS", &sanitize::escape(lead.comm.as_bytes()));
            self.field("FDTRACE_PID", &lead.id.pid.to_string());
            self.field("FDTRACE_UNIT", &text(lead.unit.as_ref()));
            let container = lead.container.as_ref().map(|container| &container.id);
            self.field("FDTRACE_CONTAINER", &text(container));
            self.field("FDTRACE_POD", &text(lead.pod.as_ref().map(|pod| &pod.uid)));
            // journald adds what it knows of that process, its unit above all: then the entry is also
            // in `journalctl --unit` of that unit (systemd.journal-fields(7)).
            self.field("OBJECT_PID", &lead.id.pid.to_string());
        }
        if let Some(listener) = target.listener() {
            self.field("FDTRACE_LISTENER", &words::address(&listener.address));
        }
    }

    fn lost(&mut self, lost: &[LostCount]) {
        let some = lost.iter().filter_map(|one| Some((one.reason, one.count?)));
        let some = some.filter(|(_, count)| *count > 0);
        let words: Vec<_> = some.map(|(reason, count)| format!("{reason}={count}")).collect();
        self.field("FDTRACE_LOST", &words.join(" "));
    }
}

fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
