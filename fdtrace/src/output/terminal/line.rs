//! The lines written while fdtrace runs.

use super::{
    Colour,
    words::{Times, Tone, duration, failed_calls, headline, on_what, rate, who},
};
use crate::model::{
    AcceptQueue, EpisodeReport, FdUsage, Limit, Outcome, Phase, ProbeReport, Started,
};

/// Between the parts of a line: wider than the spaces inside of one.
const GAP: &str = "  ";

/// `fdtrace 0.1.0  Linux 6.12.117  accept, accept4: tracepoint  Ctrl-C for a summary`
pub(super) fn started(started: &Started) -> String {
    let mut parts =
        vec![format!("fdtrace {}", started.version), format!("Linux {}", started.kernel)];
    for (form, probes) in by_form(&started.probes) {
        parts.push(format!("{}: {form}", probes.join(", ")));
    }
    parts.push("Ctrl-C for a summary".to_owned());
    parts.join(GAP) + "\n"
}

/// Forms in the order of their first probe.
fn by_form(probes: &[ProbeReport]) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut forms: Vec<(&str, Vec<&str>)> = Vec::new();
    for ProbeReport { probe, form } in probes {
        match forms.iter_mut().find(|(known, _)| known == form) {
            Some((_, probes)) => probes.push(probe),
            None => forms.push((form, vec![probe])),
        }
    }
    forms
}

/// `21:56:43.120 EXHAUSTED  nginx[812] *:80  EMFILE  fds 1024/1024 soft (hard 4096)  queue 61/128`
pub(super) fn episode(report: &EpisodeReport, times: &Times<'_>, colour: Colour) -> String {
    let exhaustion = report.errno.is_exhaustion();
    let (word, tone) = match report.phase {
        Phase::Opened if exhaustion => ("EXHAUSTED", Tone::Bad),
        Phase::Opened => ("FAILING", Tone::Bad),
        Phase::Updated => ("ongoing", Tone::Neutral),
        Phase::Closed(Outcome::Recovered) => ("RECOVERED", Tone::Good),
        Phase::Closed(Outcome::Exited) => ("EXITED", Tone::Neutral),
        Phase::Closed(Outcome::Unfinished) => ("unfinished", Tone::Neutral),
    };
    let mut parts = vec![
        format!(
            "{} {}{} {}",
            times.precise(report.at),
            headline(word, tone, colour),
            who(&report.process),
            on_what(&report.target, report.door)
        ),
        report.errno.to_string(),
    ];
    match report.phase {
        Phase::Opened => {
            // Of an errno that no limit causes, descriptors explain nothing.
            parts.extend(fds(&report.fds).filter(|_| exhaustion));
            parts.extend(report.queue.map(queue));
        }
        Phase::Updated => {
            let rate = rate(report.new, report.period).map(|rate| format!(" ({rate})"));
            parts.push(format!("+{}{}", report.new, rate.unwrap_or_default()));
            parts.extend(report.queue.map(queue));
        }
        Phase::Closed(outcome) => parts.push(ending(report, outcome)),
    }
    parts.join(GAP) + "\n"
}

/// `after 1m18s: 119 failed accepts`
fn ending(report: &EpisodeReport, outcome: Outcome) -> String {
    let failed = failed_calls(report.count, report.door);
    let so_far = if outcome == Outcome::Unfinished { " so far" } else { "" };
    // One failure lasts no time.
    if report.count == 1 {
        return format!("after {failed}{so_far}");
    }
    let lasted = duration(report.last.since(report.first));
    format!("after {lasted}: {failed}{so_far}")
}

/// `fds 1024/1024 soft (hard 4096)`
fn fds(usage: &FdUsage) -> Option<String> {
    let open = usage.open.map_or_else(|| "?".to_owned(), |open| open.to_string());
    match usage.limits {
        Some(limits) => {
            let (soft, hard): (Limit, Limit) = (limits.soft, limits.hard);
            Some(format!("fds {open}/{soft} soft (hard {hard})"))
        }
        None => usage.open.map(|_| format!("fds {open}/?")),
    }
}

/// `queue 129/128 full`
fn queue(queue: AcceptQueue) -> String {
    let full = if queue.is_full() { " full" } else { "" };
    format!("queue {}/{}{full}", queue.length, queue.limit)
}
