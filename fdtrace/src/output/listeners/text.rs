//! One row per listener. Layout only; the rows are not a format to parse.

use std::{collections::HashSet, fmt::Write as _};

use crate::{
    model::{FdUsage, Limit, LimitSource, ListenerReport, ListenersReport, OwnerFds, Risk},
    output::terminal::{
        Colour,
        table::{Column, lay_out},
        words::{address, counted, who},
    },
};

/// A listener, and what is said of it in more than one place.
struct Row<'a> {
    listener: &'a ListenerReport,
    risks: Vec<Risk>,
}

/// The table and its sum.
#[must_use]
pub fn listeners_text(report: &ListenersReport, colour: Colour) -> String {
    let rows: Vec<Row<'_>> =
        report.listeners.iter().map(|listener| Row { listener, risks: listener.risks() }).collect();
    let sum = sum(&rows);
    if rows.is_empty() {
        return sum;
    }
    table(report, &rows, colour) + &sum
}

fn table(report: &ListenersReport, rows: &[Row<'_>], colour: Colour) -> String {
    let mut columns = vec![
        Column::of("RISK", rows, |row| words(&row.risks)),
        Column::of("PROCESS", rows, |row| who(&row.listener.owners)),
        Column::of("LISTENER", rows, |row| address(&row.listener.socket.listener.address)),
        Column::of("QUEUE", rows, |row| queue(row.listener)),
        Column::of("LIMIT BY", rows, |row| limit_by(row.listener).to_owned()),
        Column::of("FDS", rows, fds),
        Column::of("DROPS", rows, |row| drops(row.listener)),
    ];
    let netns = |row: &Row<'_>| {
        let netns = row.listener.socket.listener.netns;
        netns.filter(|_| netns != report.own_netns)
    };
    if rows.iter().any(|row| netns(row).is_some()) {
        let cell = |row: &Row<'_>| netns(row).map(|netns| netns.to_string()).unwrap_or_default();
        columns.push(Column::of("NETNS", rows, cell));
    }
    let text = lay_out(&columns, rows.len());
    match colour {
        Colour::Never => text,
        Colour::Always => coloured(&text, rows),
    }
}

/// Colours the words at the start of the rows.
fn coloured(text: &str, rows: &[Row<'_>]) -> String {
    let mut coloured = String::with_capacity(text.len());
    let mut lines = text.split_inclusive('\n');
    coloured.extend(lines.next());
    for (line, row) in lines.zip(rows) {
        let words = words(&row.risks);
        let _ = match (row.risks.first(), line.strip_prefix(words.as_str())) {
            (Some(risk), Some(rest)) => {
                let code = if risk.is_exhaustion() { 31 } else { 33 };
                write!(coloured, "\x1b[{code}m{words}\x1b[0m{rest}")
            }
            _ => coloured.write_str(line),
        };
    }
    coloured
}

/// `FULL`, `FULL+fds`: what is large has come true.
fn words(risks: &[Risk]) -> String {
    let word = |risk: &Risk| match risk {
        Risk::QueueFull => "FULL",
        Risk::FdsExhausted => "FDS",
        Risk::QueueFilling => "queue",
        Risk::FdsFilling => "fds",
    };
    risks.iter().map(word).collect::<Vec<_>>().join("+")
}

/// `129/128`
fn queue(listener: &ListenerReport) -> String {
    format!("{}/{}", known(listener.socket.length), known(listener.socket.limit))
}

fn limit_by(listener: &ListenerReport) -> &'static str {
    match listener.limit_set_by() {
        Some(LimitSource::Somaxconn) => "somaxconn",
        Some(LimitSource::Application) => "application",
        None => "?",
    }
}

/// `23/1024`, `1024/1024 [815]` where the limit of an owner that does not lead matters.
fn fds(row: &Row<'_>) -> String {
    let Some(OwnerFds { pid, usage: FdUsage { open, limits }, .. }) = row.listener.fds else {
        return "?".to_owned();
    };
    let soft = known(limits.map(|limits| -> Limit { limits.soft }));
    let mut text = format!("{}/{soft}", known(open));
    let leads = row.listener.owners.first().is_some_and(|lead| lead.id.pid == pid);
    let is_at_risk =
        row.risks.iter().any(|risk| matches!(risk, Risk::FdsExhausted | Risk::FdsFilling));
    if is_at_risk && !leads {
        // Writing to a String cannot fail.
        let _ = write!(text, " [{pid}]");
    }
    text
}

/// `≤ 3112`: an upper bound, and exact only where it is 0.
fn drops(listener: &ListenerReport) -> String {
    match listener.socket.drops {
        None => "-".to_owned(),
        Some(0) => "0".to_owned(),
        Some(drops) => format!("≤ {drops}"),
    }
}

fn known(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

/// `14 listeners in 2 network namespaces, 3 at risk, 5 with a limit below 128`
fn sum(rows: &[Row<'_>]) -> String {
    let count = |of: &dyn Fn(&Row<'_>) -> bool| rows.iter().filter(|row| of(row)).count();
    let at_risk = count(&|row| !row.risks.is_empty());
    let small = count(&|row| row.listener.is_small());
    let mut text = counted(rows.len() as u64, "listener");
    let namespaces: HashSet<Option<u32>> =
        rows.iter().map(|row| row.listener.socket.listener.netns).collect();
    if namespaces.len() > 1 {
        let _ = write!(text, " in {}", counted(namespaces.len() as u64, "network namespace"));
    }
    let _ = write!(text, ", {at_risk} at risk");
    if small > 0 {
        let _ = write!(text, ", {small} with a limit below {}", ListenerReport::SMALL_LIMIT);
    }
    text + "\n"
}
