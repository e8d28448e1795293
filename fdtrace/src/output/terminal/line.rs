//! The lines written while fdtrace runs.

use super::{
    Colour, refusal,
    words::{Times, Tone, counted, duration, failed_calls, headline, on_what, rate, who, why},
};
use crate::model::{
    AcceptQueue, EpisodeReport, Failure, FdUsage, Limit, Outcome, Phase, ProbeReport, Refused,
    Started,
};

/// Between the parts of a line: wider than the spaces inside of one.
const GAP: &str = "  ";

/// The probes of system calls: one word where they all have the same form.
const CALLS: [&str; 5] = ["accept", "accept4", "socket", "socketpair", "listen"];

/// `fdtrace 0.1.0  Linux 6.12.117  calls: tracepoint  queues: cgroup_skb  Ctrl-C for a summary`
pub(super) fn started(started: &Started) -> String {
    let mut parts =
        vec![format!("fdtrace {}", started.version), format!("Linux {}", started.kernel)];
    for (form, probes) in by_form(&started.probes) {
        let all = CALLS.iter().all(|call| probes.contains(call));
        let probes = if all { "calls".to_owned() } else { probes.join(", ") };
        parts.push(match form {
            "sock_diag" => "queues: polled, at most (no cgroup v2)".to_owned(),
            "none" => format!("{probes}: not seen"),
            _ => format!("{probes}: {form}"),
        });
    }
    parts.push("Ctrl-C for a summary".to_owned());
    parts.join(GAP) + "\n"
}

/// Calls with the same form together, what is no call alone; in the order of their first.
fn by_form(probes: &[ProbeReport]) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut forms: Vec<(&str, Vec<&str>)> = Vec::new();
    for ProbeReport { probe, form } in probes {
        let same = |(known, probes): &&mut (&str, Vec<&str>)| {
            known == form && probes.iter().chain([probe]).all(|probe| CALLS.contains(probe))
        };
        match forms.iter_mut().find(same) {
            Some((_, probes)) => probes.push(probe),
            None => forms.push((form, vec![probe])),
        }
    }
    forms
}

/// `21:56:43.120 EXHAUSTED  nginx[812] *:80  EMFILE  fds 1024/1024 soft (hard 4096)  queue 61/128`
pub(super) fn episode(report: &EpisodeReport, times: &Times<'_>, colour: Colour) -> String {
    let (word, tone) = match report.phase {
        Phase::Opened => opening(report.failure),
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
            who(&report.owners),
            on_what(&report.target, report.door)
        ),
        match report.failure {
            // How it was met is said where the clients are counted.
            Failure::SynCookieSent => why(Failure::SynQueueFull),
            failure => why(failure),
        },
    ];
    match report.phase {
        Phase::Opened if report.failure.is_refusal() => {
            parts.extend(queue(report));
            parts.push(refusal::refused(report.failure, refused(report)));
            let sources = report.queue.zip(report.backlog);
            parts.extend(sources.and_then(|(queue, backlog)| refusal::limit(queue, backlog)));
        }
        Phase::Opened => {
            // Of an errno that no limit causes, descriptors explain nothing.
            parts.extend(fds(&report.fds).filter(|_| report.failure.is_exhaustion()));
            parts.extend(queue(report));
        }
        Phase::Updated => {
            let rate = rate(report.new, report.period).map(|rate| format!(" ({rate})"));
            parts.push(format!("+{}{}", report.new, rate.unwrap_or_default()));
            parts.extend(queue(report));
            parts.extend(so_far(report));
        }
        Phase::Closed(outcome) => parts.push(ending(report, outcome)),
    }
    parts.join(GAP) + "\n"
}

const fn opening(failure: Failure) -> (&'static str, Tone) {
    match failure {
        Failure::Errno(errno) if errno.is_exhaustion() => ("EXHAUSTED", Tone::Bad),
        Failure::Errno(_) => ("FAILING", Tone::Bad),
        Failure::AcceptQueueFull { .. } => ("OVERFLOW", Tone::Bad),
        Failure::SynQueueFull => ("SYN FULL", Tone::Bad),
        // No client was lost.
        Failure::SynCookieSent => ("COOKIES", Tone::Warning),
    }
}

/// The clients that an episode of refusals refused.
fn refused(report: &EpisodeReport) -> Refused {
    // Its failures are its attempts.
    report.refused.unwrap_or(Refused {
        attempts: report.count,
        connections: None,
        is_polled: false,
    })
}

/// The clients that could not connect because a call of the acceptor fails.
fn consequence(report: &EpisodeReport) -> Option<String> {
    report.refused.filter(|refused| refused.attempts > 0).map(refusal::connections)
}

fn so_far(report: &EpisodeReport) -> Option<String> {
    match report.failure {
        Failure::Errno(_) => consequence(report),
        Failure::AcceptQueueFull { .. } => Some(counted(refused(report).attempts, "attempt")),
        failure => Some(refusal::refused(failure, refused(report))),
    }
}

/// `after 1m18s: 119 failed accepts, 214 connections refused`
fn ending(report: &EpisodeReport, outcome: Outcome) -> String {
    let failed = if report.failure.is_refusal() {
        refusal::refused(report.failure, refused(report))
    } else {
        let failed = failed_calls(report.count, report.door);
        let consequence = consequence(report).map(|text| format!(", {text}"));
        failed + &consequence.unwrap_or_default()
    };
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
fn queue(report: &EpisodeReport) -> Option<String> {
    let AcceptQueue { length, limit } = report.queue?;
    // Beside `SYN queue full` a bare `queue` would be taken for that one.
    let syn = matches!(report.failure, Failure::SynQueueFull | Failure::SynCookieSent);
    let accept = if syn { "accept " } else { "" };
    let full = if report.queue?.is_full() { " full" } else { "" };
    Some(format!("{accept}queue {length}/{limit}{full}"))
}
