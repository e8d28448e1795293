//! The lines written while fdtrace runs.

use super::{
    Colour, refusal,
    words::{Times, Tone, counted, duration, failed_calls, headline, on_what, rate, who, why},
};
use crate::model::{
    AcceptQueue, Cause, Ceiling, Certainty, EpisodeReport, Failure, FdUsage, Figures, FileHandles,
    Known, Limit, Outcome, Phase, Refused,
};

/// Between the parts of a line: wider than the spaces inside of one.
pub(super) const GAP: &str = "  ";

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
            if report.failure.is_exhaustion() {
                parts.extend(ran_out(report));
            }
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
    if report.phase != Phase::Updated {
        parts.extend(cause(report));
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

/// `why soft_limit_low`, as it was told before: at the end, and of an episode like an earlier one.
fn cause(report: &EpisodeReport) -> Option<String> {
    let Known { cause, certainty } = report.cause.filter(|known| known.cause != Cause::Unknown)?;
    let likely = if certainty == Certainty::Likely { "likely " } else { "" };
    let before = if report.phase == Phase::Opened { ", as before" } else { "" };
    Some(format!("why {likely}{}{before}", cause.name()))
}

/// The clients that an episode of refusals refused.
fn refused(report: &EpisodeReport) -> Refused {
    // Its failures are its attempts.
    report.refused.unwrap_or(Refused {
        attempts: report.count,
        connections: None,
        figures: Figures::Exact,
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

/// What ran out, in use and allowed.
fn ran_out(report: &EpisodeReport) -> Option<String> {
    let fds = || fds(&report.fds);
    match report.ceiling {
        // An accept of io_uring keeps the limit of when it was submitted.
        Some(Ceiling::NoFile(limit)) if soft(&report.fds).is_some_and(|soft| soft != limit) => {
            Some(format!("limit {limit}{GAP}{}", fds()?))
        }
        Some(Ceiling::NrOpen(limit)) => {
            Some(format!("fds {}/{limit} (fs.nr_open)", open(&report.fds)))
        }
        Some(Ceiling::InotifyInstances(limit)) => {
            let limit = limit.map_or_else(|| "?".to_owned(), |limit| limit.to_string());
            Some(format!("inotify instances of the user: limit {limit}"))
        }
        Some(Ceiling::PipePages(limit)) => {
            let limit = limit.map_or_else(|| "?".to_owned(), |limit| limit.to_string());
            Some(format!("pages of the user's pipes: limit {limit}"))
        }
        Some(Ceiling::IoUringTable) => {
            Some("table of direct descriptors full: connection lost".to_owned())
        }
        Some(Ceiling::FileMax(_)) => {
            handles(report.handles).map(|handles| format!("{handles} (fs.file-max)"))
        }
        None if report.handles.is_some() => {
            handles(report.handles).map(|handles| format!("not fs.file-max: {handles}"))
        }
        Some(Ceiling::NoFile(_)) | None => fds(),
    }
}

fn soft(usage: &FdUsage) -> Option<u64> {
    usage.limits.and_then(|limits| limits.soft.number())
}

fn handles(handles: Option<FileHandles>) -> Option<String> {
    handles.map(|FileHandles { used, max }| format!("file handles {used}/{max}"))
}

fn open(usage: &FdUsage) -> String {
    usage.open.map_or_else(|| "?".to_owned(), |open| open.to_string())
}

/// `fds 1024/1024 soft (hard 4096)`
pub(in crate::output) fn fds(usage: &FdUsage) -> Option<String> {
    let open = open(usage);
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
