//! The summary: what failed how often, most failures first.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    fmt::Write as _,
};

use super::{
    kernel, lost, start,
    words::{Times, duration, on_what, who, why},
};
use crate::model::{BootTime, Process, ProcessId, Summary, Target, Total};

/// More than this nobody reads; JSON has all.
const MOST_ROWS: usize = 50;

/// Between columns.
const GAP: &str = "  ";

/// A line of the table.
struct Row<'a> {
    total: &'a Total,
    count: u64,
    first: BootTime,
    last: BootTime,
}

pub(in crate::output) struct Column {
    title: &'static str,
    /// Numbers stand right.
    right: bool,
    cells: Vec<String>,
}

impl Column {
    pub(in crate::output) fn of<T>(
        title: &'static str,
        rows: &[T],
        cell: impl Fn(&T) -> String,
    ) -> Self {
        Self { title, right: false, cells: rows.iter().map(cell).collect() }
    }

    /// The same for numbers.
    pub(in crate::output) fn at_right(self) -> Self {
        Self { right: true, ..self }
    }

    fn width(&self) -> usize {
        let cells = self.cells.iter().map(|cell| cell.chars().count());
        cells.chain([self.title.len()]).max().unwrap_or_default()
    }
}

/// The table, what is missing from it, and what the kernel says.
pub(super) fn summary(summary: &Summary, times: &Times<'_>) -> String {
    // Apart from what came before, and from the `^C` that the terminal has echoed.
    let mut text = "\n".to_owned();
    let rows = rows(&summary.totals);
    // Writing to a String cannot fail.
    let _ = if rows.is_empty() {
        let lasted = duration(summary.at.since(summary.started));
        // Nobody may take what was not looked at for nothing.
        let looked =
            summary.probes.iter().any(|probe| probe.probe == "syn" && probe.form != "none");
        let refused = if looked { " and no refused connection" } else { "" };
        writeln!(text, "no failed accept or socket call{refused} in {lasted}")
    } else {
        text.push_str(&table(&rows[..rows.len().min(MOST_ROWS)], summary.at, times));
        match rows.len().saturating_sub(MOST_ROWS) {
            0 => Ok(()),
            more => writeln!(text, "and {more} more"),
        }
    };
    text.push_str(&start::seen_by(&summary.probes));
    text + &kernel::summary(&summary.kernel) + &lost::summary(&summary.lost)
}

/// Refusals that differ only in the segment, or in what the SYN queue did besides, are one row.
fn rows(totals: &[Total]) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::with_capacity(totals.len());
    let mut refusals = HashMap::new();
    for total in totals {
        let Total { owners, target, failure, count, first, last, .. } = total;
        let (count, first, last) = (*count, *first, *last);
        if failure.is_refusal() {
            let key = (ids(owners), target, why(*failure));
            let row = *refusals.entry(key).or_insert(rows.len());
            if let Some(row) = rows.get_mut(row) {
                row.count = row.count.saturating_add(count);
                row.first = row.first.min(first);
                row.last = row.last.max(last);
                continue;
            }
        }
        rows.push(Row { total, count, first, last });
    }
    rows.sort_by_key(|row| Reverse(row.count));
    rows
}

fn ids(owners: &[Process]) -> Vec<ProcessId> {
    owners.iter().map(|owner| owner.id).collect()
}

fn table(rows: &[Row<'_>], now: BootTime, times: &Times<'_>) -> String {
    // One kind of time for all rows, or the columns would not line up.
    let today = rows.iter().all(|row| times.same_day(row.first, now));
    let time = |at| {
        if today { times.brief(at) } else { times.dated(at) }
    };

    let mut columns = vec![
        Column::of("process", rows, |row| who(&row.total.owners)),
        Column::of("listener", rows, |row| on_what(&row.total.target, row.total.door)),
    ];
    if doors_differ(rows) {
        columns.push(Column::of("call", rows, |row| {
            let door = row.total.door;
            if row.total.failure.is_refusal() { String::new() } else { door.to_string() }
        }));
    }
    columns.extend([
        Column::of("failure", rows, |row| why(row.total.failure)),
        Column::of("count", rows, |row| row.count.to_string()).at_right(),
        Column::of("first", rows, |row| time(row.first)),
        Column::of("last", rows, |row| time(row.last)),
    ]);
    lay_out(&columns, rows.len())
}

/// Whether rows would look the same but for accept and accept4.
fn doors_differ(rows: &[Row<'_>]) -> bool {
    let mut seen: HashSet<(Vec<ProcessId>, &Target, _)> = HashSet::new();
    let mut accepts = rows.iter().map(|row| row.total).filter(|total| total.door.accepts());
    !accepts.all(|total| seen.insert((ids(&total.owners), &total.target, total.failure)))
}

pub(in crate::output) fn lay_out(columns: &[Column], rows: usize) -> String {
    let widths: Vec<usize> = columns.iter().map(Column::width).collect();
    let line = |cell_of: &dyn Fn(&Column) -> String| {
        let cells = columns.iter().zip(&widths).map(|(column, width)| {
            let cell = cell_of(column);
            if column.right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned() + "\n"
    };
    let header = line(&|column| column.title.to_owned());
    let body = (0..rows).map(|row| line(&|column| column.cells[row].clone()));
    header + &body.collect::<String>()
}
