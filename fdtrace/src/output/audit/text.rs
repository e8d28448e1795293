//! A row per process or group of them, and below it what is wrong and what ends it. Layout only; it
//! is not a format to parse.

use std::fmt::Write as _;

use crate::{
    model::{AuditReport, Audited, FdUsage, Finding, Level, ListenerAddress, OwnerFds},
    output::terminal::{
        Colour,
        diagnosis::{CAUSES, push},
        table::{Column, lay_out},
        words::{address, counted, who},
    },
};

/// Findings start below the process's name.
const INDENT: usize = 6;
/// Listeners that are named.
const MOST_NAMED: usize = 3;

/// The table and its sum.
#[must_use]
pub fn audit_text(report: &AuditReport, colour: Colour) -> String {
    let rows: Vec<&Audited> = report.shown().collect();
    let mut text = String::new();
    if !rows.is_empty() {
        let mut lines = table(&rows).lines().map(str::to_owned).collect::<Vec<_>>().into_iter();
        text.extend(lines.next().map(|header| header + "\n"));
        for (row, line) in rows.iter().zip(lines) {
            text.push_str(&coloured(&line, row.level(), colour));
            text.push('\n');
            row.findings.iter().for_each(|found| finding(&mut text, row, found));
        }
    }
    text.push_str(&sum(report));
    if rows.iter().any(|row| !row.findings.is_empty()) {
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "docs/audit.md explains each finding, {CAUSES} what is behind limits");
    }
    text
}

fn table(rows: &[&Audited]) -> String {
    let columns = [
        Column::of("", rows, |row| word(row).to_owned()),
        Column::of("PROCESS", rows, |row| who(&row.processes)),
        Column::of("LISTENER", rows, |row| {
            let all = row.listeners.iter().map(|one| &one.socket.listener.address);
            named(&distinct(all), 1)
        }),
        Column::of("FDS", rows, |row| fds(row)),
        Column::of("QUEUE", rows, |row| queue(row)),
    ];
    lay_out(&columns, rows.len())
}

fn word(row: &Audited) -> &'static str {
    row.level().map_or(if row.is_unknown() { "?" } else { "" }, Level::name)
}

fn distinct<'a>(all: impl Iterator<Item = &'a ListenerAddress>) -> Vec<&'a ListenerAddress> {
    let mut distinct: Vec<&ListenerAddress> = Vec::new();
    for address in all {
        if !distinct.contains(&address) {
            distinct.push(address);
        }
    }
    distinct
}

/// `*:80, *:443 +2`
fn named(all: &[&ListenerAddress], most: usize) -> String {
    let shown: Vec<String> = all.iter().take(most).map(|one| address(one)).collect();
    let mut text = shown.join(", ");
    if all.len() > most {
        // Writing to a String cannot fail.
        let _ = write!(text, " +{}", all.len() - most);
    }
    text
}

/// `23/1024`, `1024/1024 [815]` where it is not the first one's.
fn fds(row: &Audited) -> String {
    let Some(OwnerFds { pid, usage: FdUsage { open, limits }, .. }) = row.fds else {
        return "?".to_owned();
    };
    let open = open.map_or_else(|| "?".to_owned(), |open| open.to_string());
    let limits = limits.map_or_else(
        || "?".to_owned(),
        |limits| {
            let hard = if limits.hard == limits.soft {
                String::new()
            } else {
                format!(" (hard {})", limits.hard)
            };
            format!("{}{hard}", limits.soft)
        },
    );
    let leads = row.processes.first().is_some_and(|lead| lead.id.pid == pid);
    let whose = if leads { String::new() } else { format!(" [{pid}]") };
    format!("{open}/{limits}{whose}")
}

/// Of the first listener, which is the worst.
fn queue(row: &Audited) -> String {
    let known =
        |value: Option<u32>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
    let first = row.listeners.first().map(|listener| &listener.socket);
    first.map_or_else(String::new, |socket| {
        format!("{}/{}", known(socket.length), known(socket.limit))
    })
}

fn finding(text: &mut String, row: &Audited, finding: &Finding) {
    let all = distinct(row.listeners.iter().map(|one| &one.socket.listener.address));
    let on: Vec<&ListenerAddress> = finding.listeners.iter().collect();
    let place = if on.is_empty() || all.len() == 1 {
        String::new()
    } else {
        format!("{}: ", named(&on, MOST_NAMED))
    };
    push(text, INDENT, finding.level.name(), &format!("{place}{}", finding.what), None);
    if let Some(fix) = &finding.fix {
        push(text, INDENT, "fix", &fix.text, fix.command.as_deref());
    }
}

/// Colours the word at the start of a row.
fn coloured(line: &str, level: Option<Level>, colour: Colour) -> String {
    let code = match (colour, level) {
        (Colour::Never, _) | (_, None) => return line.to_owned(),
        (Colour::Always, Some(Level::Risk)) => 31,
        (Colour::Always, Some(Level::Warn)) => 33,
    };
    let word = level.map_or("", Level::name);
    match line.strip_prefix(word) {
        Some(rest) => format!("\x1b[{code}m{word}\x1b[0m{rest}"),
        None => line.to_owned(),
    }
}

/// `12 processes on 17 listeners: 2 risk, 5 warn, 4 fine (--all shows them), 1 unknown`
fn sum(report: &AuditReport) -> String {
    let processes: usize = report.audited.iter().map(|one| one.processes.len()).sum();
    let plural = if processes == 1 { "" } else { "es" };
    let (risk, warn) = (report.count(Level::Risk), report.count(Level::Warn));
    let (fine, unknown) = (report.fine(), report.unknown());
    let hint = if report.all || fine + unknown == 0 { "" } else { " (--all shows all)" };
    let unknown = if unknown > 0 { format!(", {unknown} unknown") } else { String::new() };
    format!(
        "{processes} process{plural} on {}: {risk} risk, {warn} warn, {fine} fine{unknown}{hint}\n",
        counted(report.listeners, "listener")
    )
}
