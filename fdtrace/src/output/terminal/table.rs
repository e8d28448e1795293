//! The summary: what failed how often, most failures first.

use std::{collections::HashSet, fmt::Write as _};

use super::{
    lost,
    words::{Times, duration, on_what, who},
};
use crate::model::{Summary, Total};

/// More than this nobody reads; JSON has all.
const MOST_ROWS: usize = 50;

/// Between columns.
const GAP: &str = "  ";

struct Column {
    title: &'static str,
    /// Numbers stand right.
    right: bool,
    cells: Vec<String>,
}

impl Column {
    fn of<F: Fn(&Total) -> String>(title: &'static str, totals: &[Total], cell: F) -> Self {
        Self { title, right: false, cells: totals.iter().map(cell).collect() }
    }

    fn width(&self) -> usize {
        let cells = self.cells.iter().map(|cell| cell.chars().count());
        cells.chain([self.title.len()]).max().unwrap_or_default()
    }
}

/// The table, and what is missing from it.
pub(super) fn summary(summary: &Summary, times: &Times<'_>) -> String {
    // Apart from what came before, and from the `^C` that the terminal has echoed.
    let mut text = "\n".to_owned();
    // Writing to a String cannot fail.
    let _ = if summary.totals.is_empty() {
        let lasted = duration(summary.at.since(summary.started));
        writeln!(text, "no failed accept or socket call in {lasted}")
    } else {
        text.push_str(&table(summary, times));
        match summary.totals.len().saturating_sub(MOST_ROWS) {
            0 => Ok(()),
            more => writeln!(text, "and {more} more"),
        }
    };
    text + &lost::summary(&summary.lost)
}

fn table(summary: &Summary, times: &Times<'_>) -> String {
    let totals = &summary.totals[..summary.totals.len().min(MOST_ROWS)];
    // One kind of time for all rows, or the columns would not line up.
    let today = totals.iter().all(|total| times.same_day(total.first, summary.at));
    let time = |at| {
        if today { times.brief(at) } else { times.dated(at) }
    };

    let mut columns = vec![
        Column::of("process", totals, |total| who(&total.process)),
        Column::of("listener", totals, |total| on_what(&total.target, total.door)),
    ];
    if doors_differ(totals) {
        columns.push(Column::of("call", totals, |total| total.door.to_string()));
    }
    columns.extend([
        Column::of("failure", totals, |total| total.errno.to_string()),
        Column { right: true, ..Column::of("count", totals, |total| total.count.to_string()) },
        Column::of("first", totals, |total| time(total.first)),
        Column::of("last", totals, |total| time(total.last)),
    ]);
    lay_out(&columns, totals.len())
}

/// Whether rows would look the same but for accept and accept4.
fn doors_differ(totals: &[Total]) -> bool {
    let mut seen = HashSet::new();
    let mut accepts = totals.iter().filter(|total| total.door.accepts());
    !accepts.all(|total| seen.insert((total.process_id(), &total.target, total.errno)))
}

fn lay_out(columns: &[Column], rows: usize) -> String {
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
